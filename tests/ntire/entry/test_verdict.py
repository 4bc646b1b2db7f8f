"""A verdict counts only for the entry that it speaks of, undamaged, and signed where a key is asked for."""

import json

import pytest

from ntire import UserError
from ntire.entry.manifest import content_of
from ntire.entry.results import entry_name, place_of, results_folder, results_of_entry
from ntire.entry.verdict import Standing, newest_standing, read_key, sealed, standing_of

KEY = b"k" * 32
MANIFEST = 'team = "Team"\ntrack = "demo-srgb"\ndate = 2026-01-01\n[claims]\nparams_m = 1.0\n'


@pytest.fixture
def entry(tmp_path):
    root = tmp_path / "entry"
    for name, text in {"images/a.png": "a", "method/method.py": "b", "submission.toml": MANIFEST}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def written(tmp_path, entry, key=None, **more):
    found = {"verdict": "pass", "images": [{"image": "a"}], "of": 1, "content": content_of(entry), **more}
    path = tmp_path / "verification.json"
    path.write_text(json.dumps(sealed(found, key), indent=2))
    return path


def test_a_verdict_counts_and_says_on_how_many_images(tmp_path, entry):
    assert standing_of(written(tmp_path, entry), entry, None) == Standing("pass")
    assert standing_of(written(tmp_path, entry, of=3), entry, None) == Standing("pass (1 of 3)")
    assert standing_of(tmp_path / "none.json", entry, KEY) == Standing()


@pytest.mark.parametrize("name", ["images/a.png", "method/method.py", "submission.toml"])
def test_a_change_of_image_code_or_claim_voids_it(tmp_path, entry, name):
    path = written(tmp_path, entry, KEY)
    (entry / name).write_text((entry / name).read_text().replace("1.0", "1e-6") + " ")
    assert standing_of(path, entry, KEY).words == "out of date"


def test_what_was_measured_counts_as_long_as_the_verdict_does(tmp_path, entry):
    path = written(tmp_path, entry, measured={"params_m": 2.0, "macs_g": [{"value": 3.0, "at": [8, 9]}]})
    found = standing_of(path, entry, None).measured
    assert (found.params_m, found.macs_at((8, 9)), found.macs_at((9, 8))) == (2.0, 3.0, None)
    assert standing_of(path, entry, KEY).measured is None
    path.write_text(path.read_text().replace("2.0", "1.0"))
    assert standing_of(path, entry, None).measured is None
    path = written(tmp_path, entry, measured={"params_m": 2.0})
    (entry / "method" / "method.py").write_text("changed")
    assert standing_of(path, entry, None).measured is None


def test_with_a_key_only_what_it_signed_counts(tmp_path, entry):
    assert standing_of(written(tmp_path, entry, KEY), entry, KEY) == Standing("pass")
    for other, words in ((None, "is not signed: it counts as none"), (b"x" * 32, "not signed with this key")):
        found = standing_of(written(tmp_path, entry, other), entry, KEY)
        assert not found.words
        assert words in found.note


def test_a_verdict_that_does_not_say_of_what_counts_as_none(tmp_path, entry):
    found = standing_of(written(tmp_path, entry, content=""), entry, None)
    assert not found.words
    assert "does not say what was verified" in found.note


def test_a_flipped_bit_is_noticed_and_never_changes_a_verdict(tmp_path, entry):
    whole = written(tmp_path, entry, KEY).read_bytes()
    path = tmp_path / "verification.json"
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = standing_of(path, entry, KEY)
        # A blank for another blank changes nothing.
        assert found == Standing("pass") if chr(whole[place]).isspace() and found.words else found.note


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": "pass"}', "[" * 100_000, '{"checksum": 1}'])
def test_what_is_no_verdict_is_named(tmp_path, entry, text):
    (tmp_path / "verification.json").write_text(text)
    assert "is damaged, or not what" in standing_of(tmp_path / "verification.json", entry, None).note


def test_of_verdicts_in_several_places_the_newest_that_counts_is_taken(tmp_path, entry):
    """Where results go depends on the folder that `verify` was called in: a first look must not outlive the whole one."""
    places = [tmp_path / name for name in ("beside", "own", "none")]
    for place in places[:2]:
        place.mkdir()
    files = [place / "verification.json" for place in places]
    written(places[0], entry, verdict="pass", of=6, date="2026-11-01T00:00:00+00:00")
    written(places[1], entry, verdict="fail", date="2026-11-02T00:00:00+00:00")
    assert newest_standing(files, entry, None).words == newest_standing(files[::-1], entry, None).words == "fail"
    (entry / "images" / "a.png").write_text("changed")
    assert newest_standing(files, entry, None).words == "out of date"
    written(places[0], entry, verdict="pass", date="2026-11-01T00:00:00+00:00")
    assert newest_standing(files, entry, None) == Standing("pass")
    files[0].write_text("{}")
    assert newest_standing(files[:1], entry, None).note
    assert newest_standing(files[2:], entry, None) == Standing()


def test_a_short_or_missing_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("short\n")
    for name, words in (("key", "at least 16 bytes, found 5"), ("none", "cannot be read")):
        with pytest.raises(UserError, match=words):
            read_key(tmp_path / name)


def test_results_lie_beside_the_folder_of_the_entries(tmp_path):
    folder = tmp_path / "entries"
    folder.mkdir()
    assert results_folder(folder) == tmp_path / "entries-results"
    assert results_of_entry(folder / "one") == results_of_entry(folder / "one.tar.gz") == tmp_path / "entries-results"
    assert [entry_name(folder / name) for name in ("a.zip", "b.tar.gz", "c.d")] == ["a", "b", "c.d"]
    assert place_of(folder, "leaderboard.csv") == folder / "leaderboard.csv_"
    assert place_of(folder, "sources.json") == folder / "sources.json_"
