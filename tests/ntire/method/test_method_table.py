import pytest

from ntire.method import catalogue
from ntire.method import method_table as facts
from ntire.method.method_table import facts_of


@pytest.fixture
def built(monkeypatch):
    """The methods that had to be built to be counted."""
    found = []
    build = facts.on_meta
    monkeypatch.setattr(facts, "on_meta", lambda method: found.append(method) or build(method))
    return found


def test_a_method_is_counted_once_until_source_or_libraries_change(built, monkeypatch):
    method = catalogue.find("MiAlgo", "srgb")
    first = facts_of(method)
    assert facts_of(method) == first
    assert first["params"] == sum(parameter.numel() for parameter in method().parameters())
    assert len(built) == 1
    assert facts_of(method, (64, 64))["macs"] < first["macs"]
    monkeypatch.setattr(facts, "_source", lambda: "another")
    assert facts_of(method) == first
    assert len(built) == 3


def test_a_spoilt_or_unwritable_cache_only_means_counting_again(built, tmp_path, monkeypatch):
    method = catalogue.find("MiAlgo", "srgb")
    first = facts_of(method)
    (kept,) = (tmp_path / "home" / ".cache" / "ntire" / "counts").iterdir()
    for spoilt in ("", "{}", "[[1]]", "null"):
        kept.write_text(spoilt)
        assert facts_of(method) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    assert facts_of(method) == first
    assert len(built) == 6


def test_a_method_from_elsewhere_is_always_counted(built, plugin):
    method = catalogue.load(plugin())
    assert facts_of(method) == facts_of(method)
    assert len(built) == 2
