import pytest

from ntire.method import catalogue, count, kept_counts, release
from ntire.method.facts import Facts
from ntire.method.method_table import facts_of


@pytest.fixture
def built(monkeypatch):
    """The methods that had to be built to be counted."""
    found = []
    build = count.on_meta
    monkeypatch.setattr(count, "on_meta", lambda method: found.append(method) or build(method))
    return found


@pytest.fixture
def edited(monkeypatch):
    """The file of MiAlgo's sRGB methods has changed since the release."""
    data = release._data()
    changed = data | {"srgb.mialgo": data["srgb.mialgo"] | {"sha256": "another"}}
    release.known.cache_clear()
    monkeypatch.setattr(release, "_data", lambda: changed)
    yield
    release.known.cache_clear()


def test_a_method_of_the_release_is_not_counted_but_at_another_size(built):
    method = catalogue.find("MiAlgo", "srgb")
    first = facts_of(method)
    assert built == []
    assert first["params"] == sum(parameter.numel() for parameter in method().parameters())
    assert facts_of(method, (64, 64))["macs"] < first["macs"]
    assert facts_of(method, (64, 64)) == facts_of(method, (64, 64))
    assert len(built) == 1


def test_an_edited_method_is_counted_once_and_all_others_come_from_the_release(built, edited, monkeypatch):
    listed = catalogue.listed("srgb")
    live = [one for one in listed if not isinstance(one, Facts)]
    assert {one.team for one in live} == {"MiAlgo"}
    rows = [facts_of(one) for one in listed]
    assert len(built) == len(live)
    assert [facts_of(one) for one in listed] == rows
    assert len(built) == len(live)
    monkeypatch.setattr(kept_counts, "LIBRARIES", ("a-library-that-was-not-there",))
    assert [facts_of(one) for one in listed] == rows
    assert len(built) == 2 * len(live)


def test_what_is_recorded_is_not_believed_after_a_change_in_how_ntire_counts(monkeypatch, tmp_path):
    (tmp_path / "counters.py").write_text("")
    release.known.cache_clear()
    monkeypatch.setattr(release, "counting", lambda: (tmp_path / "counters.py",))
    assert release.known("srgb.mialgo") is None
    release.known.cache_clear()


def test_a_spoilt_or_unwritable_cache_only_means_counting_again(built, edited, tmp_path, monkeypatch):
    method = catalogue.find("MiAlgo", "srgb")
    first = facts_of(method)
    (kept,) = (tmp_path / "home" / ".cache" / "ntire" / "counts").iterdir()
    for spoilt in ("", "{}", "[[1]]", "null", "[1, 2, 3]", '["1", 2, 3, 4]'):
        kept.write_text(spoilt)
        assert facts_of(method) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    assert facts_of(method) == first
    assert len(built) == 8


def test_a_method_from_elsewhere_is_counted_again_when_its_own_files_change(built, plugin):
    folder = plugin("pass")
    (folder / "helper.py").write_text("FACTOR = 1\n")
    (folder / "notes.py").write_text("")
    (folder / "method.py").write_text(f"import helper\n{(folder / 'method.py').read_text()}")
    method = catalogue.load(folder)
    assert facts_of(method) == facts_of(method)
    (folder / "notes.py").write_text("# nothing imports it\n")
    facts_of(method)
    assert len(built) == 1
    (folder / "helper.py").write_text("FACTOR = 2\n")
    facts_of(method)
    assert len(built) == 2


def test_every_module_of_the_release_is_recorded_with_what_cannot_be_run():
    """After a change: `ntire teams --record` writes the file."""
    names = [f"{folder}.{name}" for folder in catalogue.folders() for name in catalogue.modules(folder)]
    assert list(release._data()) == names
    for name in names:
        recorded = release.known(name)
        assert recorded is not None, f"{name} has changed since it was recorded"
        assert recorded.methods or recorded.unpublished
    assert "Fustar-fsr" in {one.team for one in catalogue.unpublished("face")}
