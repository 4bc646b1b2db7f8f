"""`ntire score` on strangers' entries: a bad one is a row with its codes, the others are scored, none is written into."""

import os
import shutil
from pathlib import Path

import pytest

from ntire.codabench.bundle import track_toml
from ntire.entry.manifest import content_of
from ntire.sandbox.child import why_not
from ntire.scoring.track import load_track
from tests.made import CONVOLVING_PARAMS, scene, ship_convolving, write_png

MANIFEST = 'team = "Team"\ntrack = "demo-srgb"\ndate = 2026-01-01\n[claims]\nparams_m = 1.0\n'
NAMES = ("a", "b")
COPIER = """
from ntire.method import Method

class Copy(Method):
    team, track, cite, tiling, halo, stride = "Copy", "srgb", "x", "exact", 0, 1
    def forward(self, lq):
        return lq
"""


@pytest.fixture
def field(tmp_path):
    """References, and a folder of entries to which each test adds its own beside `honest`."""
    for seed, name in enumerate(NAMES):
        write_png(tmp_path / "gt" / f"{name}.png", scene(seed=seed))
        write_png(tmp_path / "lq" / f"{name}.png", scene(seed=seed) // 2)
    entry(tmp_path, "honest")
    return tmp_path


def entry(field, name):
    root = field / "entries" / name
    for seed, stem in enumerate(NAMES):
        write_png(root / "images" / f"{stem}.png", scene(seed=seed) ^ 1)
    (root / "submission.toml").write_text(MANIFEST)
    return root


def content(folder):
    """Names, links, and the bytes of files that are small enough to be read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        small = path.is_file() and not path.is_symlink() and path.stat().st_size < 10**7
        found[str(path)] = path.readlink() if path.is_symlink() else path.read_bytes() if small else None
    return found


def scored(ntire, field, *words):
    before = content(field / "entries")
    ran = ntire("score", field / "entries", "--gt", field / "gt", "--lq", field / "lq", "--json", *words)
    assert content(field / "entries") == before
    return {line["entry"]: line for line in ran.json()}


def a_link_to_the_truth(field, image):
    image.unlink()
    image.symlink_to(field / "gt" / "a.png")


def a_fifo(field, image):
    image.unlink()
    os.mkfifo(image)


def a_sparse_giant(field, image):
    with image.open("wb") as file:
        file.truncate(3 << 30)


def a_folder(field, image):
    image.unlink()
    image.mkdir()


def another_format(field, image):
    image.write_bytes(b"II*\0" + bytes(100))


def a_torn_file(field, image):
    image.write_bytes(image.read_bytes()[:-20])


def another_size(field, image):
    write_png(image, scene(20, 24))


HOSTILE = {
    a_link_to_the_truth: ("unreadable", "E103"),
    a_fifo: ("unreadable", "E103"),
    a_sparse_giant: ("unreadable", "E309"),
    a_folder: ("unreadable", "E307"),
    another_format: ("wrong format", "E306"),
    a_torn_file: ("unreadable", "E307"),
    another_size: ("wrong size", "E304"),
}


def test_each_hostile_picture_is_a_status_and_a_code_and_the_others_are_scored(ntire, field):
    for make in HOSTILE:
        make(field, entry(field, make.__name__) / "images" / "a.png")
    lines = scored(ntire, field)
    assert lines["honest"]["rank"] == 1
    for make, (status, code) in HOSTILE.items():
        line = lines[make.__name__]
        assert (line["rank"], line["total"], line["scored"]) == (None, None, 1), make
        assert f"1 {status} (a)" in line["problems"][0], make
        assert any(code in problem for problem in line["problems"]), make
    # What is bad once is bad again: only honest pictures are remembered.
    assert scored(ntire, field) == lines


def test_what_else_breaks_a_rule_is_named_with_its_code_and_not_ranked(ntire, field):
    (entry(field, "whole-folder") / "more").symlink_to("../honest/images")
    (entry(field, "manifest") / "submission.toml").write_text('team = "x')
    shutil.copy(field / "gt" / "a.png", entry(field, "unexpected") / "images" / "$(touch x).png")
    (entry(field, "code") / "method").mkdir()
    (field / "entries" / "code" / "method" / "method.py").write_text("this is no Python")
    (entry(field, "forged") / "verification.json").write_text('{"verdict": "pass"}')
    shipped = entry(field, "shipped")
    shutil.copy(shipped / "images" / "a.png", shipped / "table.dat")
    for name in NAMES:
        shutil.copy(field / "lq" / f"{name}.png", entry(field, "equal") / "images")
    equal = field / "entries" / "equal" / "images" / "b.png"
    shutil.copy(field / "lq" / "b.png", equal)
    lines = scored(ntire, field)
    codes = {
        "whole-folder": "E103", "manifest": "E202", "unexpected": "E302", "code": "E406", "forged": "E613",
        "shipped": "E312", "equal": "E311",
    }  # fmt: skip
    for name, code in codes.items():
        assert lines[name]["rank"] is None, name
        assert any(problem.startswith(f"{code} ") for problem in lines[name]["problems"]), (
            name,
            lines[name]["problems"],
        )
    assert lines["honest"]["rank"] == 1
    assert not lines["forged"]["reproduced"]


def test_results_go_beside_the_entries_and_never_into_one(ntire, field):
    scored(ntire, field)
    results = field / "entries-results"
    assert (results / "honest" / "scores.csv").is_file()
    assert (results / "leaderboard.csv").is_file()
    ran = ntire("score", field / "entries", "--gt", field / "gt", "-o", field / "entries")
    assert ran.code == 2
    assert "lies in the entry" in ran.err
    # One entry alone has the same place, and whoever is left out of the new leaderboard is named.
    entry(field, "late")
    assert "no longer of" not in ntire("score", field / "entries", "--gt", field / "gt").err
    alone = ntire("score", field / "entries" / "honest", "--gt", field / "gt")
    assert alone.code == 0
    assert "is no longer of late." in " ".join(alone.err.split())
    assert {path.name for path in field.iterdir() if path.is_dir()} >= {"entries", "entries-results"}
    again = ntire("leaderboard", results / "honest" / "scores.csv", "--track", "demo-srgb", "--json").json()
    assert (again[0]["team"], again[0]["rank"]) == ("Team", 1)


@pytest.mark.parametrize("name", ["forged", " forged ", "forged\u202e", "=forged"])
def test_a_refused_entry_stays_refused_when_its_table_is_ranked_again(ntire, field, name):
    (entry(field, name) / "verification.json").write_text("{}")
    scored(ntire, field)
    results = field / "entries-results"
    # The leaderboard is now that of one entry, as after any that was handed in late.
    assert ntire("score", field / "entries" / "honest", "--gt", field / "gt").code == 0
    again = ntire("leaderboard", *results.glob("*/scores.csv"), "--track", "demo-srgb", "--json").json()
    assert [(line["rank"], "".join(line["problems"])[:4]) for line in again] == [(1, ""), (None, "E613")]


def test_what_cannot_be_scored_now_is_not_ranked_by_what_was_handed_in_before(ntire, field):
    late = field / "entries" / "late.zip"
    shutil.make_archive(str(late.with_suffix("")), "zip", entry(field, "late"))
    shutil.rmtree(field / "entries" / "late")
    assert scored(ntire, field)["late"]["rank"] == 1
    late.write_bytes(late.read_bytes()[:200])
    before = scored(ntire, field)["late"]["problems"]
    assert ntire("score", field / "entries" / "honest", "--gt", field / "gt").code == 0
    tables = (field / "entries-results").glob("*/scores.csv")
    again = ntire("leaderboard", *tables, "--track", "demo-srgb", "--json").json()
    assert {line["entry"]: line["rank"] for line in again} == {"honest": 1, "late": None}
    assert again[1]["problems"] == before


def test_only_a_baseline_of_ours_may_be_its_input_whatever_it_calls_itself(ntire, field):
    run = ("run", "--team", "Copy", "--track", "demo-srgb", field / "lq", "--device", "cpu")
    assert ntire(*run, "-o", field / "entries" / "ours").code == 0
    theirs = shutil.copytree(field / "entries" / "ours", field / "entries" / "theirs")
    manifest = (theirs / "submission.toml").read_text()
    (theirs / "submission.toml").write_text(manifest.replace('entry = "ours"', 'entry = "theirs"'))
    assert 'team = "Copy"' in manifest
    lines = scored(ntire, field)
    assert (lines["ours"]["rank"], lines["theirs"]["rank"]) == (2, None)
    assert any(problem.startswith("E311 ") for problem in lines["theirs"]["problems"])
    assert ntire("check", field / "entries" / "ours", "--lq", field / "lq").code == 0
    assert "E311" in ntire("check", theirs, "--lq", field / "lq").out
    # A folder's method of the same name is not ours.
    (field / "copier").mkdir()
    (field / "copier" / "method.py").write_text(COPIER)
    assert ntire("run", "--team", field / "copier", *run[3:], "-o", field / "copied").code == 0
    assert "E311" in ntire("check", field / "copied", "--lq", field / "lq").out
    # The organiser's rules may name an entry by its content.
    rules = load_track("demo-srgb").model_copy(update={"baseline": content_of(theirs)})
    (field / "rules.toml").write_text(track_toml(rules))
    assert ntire("check", theirs, "--lq", field / "lq", "--track", field / "rules.toml").code == 0
    assert scored(ntire, field, "--track", field / "rules.toml")["theirs"]["rank"] == 2


def test_an_unusable_cache_does_not_stop_the_scorer(ntire, field, monkeypatch):
    (field / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(field / "file")))
    ran = ntire("score", field / "entries", "--gt", field / "gt", "--lq", field / "lq")
    assert ran.code == 0
    assert "cannot be used as a cache" in ran.err


BUDGETED = """\
name = "budgeted"
title = "t"
inputs = "srgb"
metrics = ["psnr"]
terms = [{ metric = "psnr", scale = 1.0 }]
source = "s"
budgets = { params_m = 0.0004, macs_g = 1.0, at = [32, 48], runtime_ms = 60000.0 }
"""


@pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")
def test_with_measure_code_that_claims_less_than_it_is_takes_no_rank(ntire, field):
    (field / "budgeted.toml").write_text(BUDGETED)
    for name, params in (("liar", 0.0001), ("codeless", 0.0001)):
        root = entry(field, name)
        claims = f"params_m = {params}\nmacs_g = 0.0004\nat = [32, 48]\nruntime_ms = 59000.0\n"
        claims = MANIFEST.replace("demo-srgb", "budgeted").replace("params_m = 1.0\n", claims)
        (root / "submission.toml").write_text(claims)
    ship_convolving(field / "entries" / "liar" / "method")
    shutil.rmtree(field / "entries" / "honest")

    words = ["--track", field / "budgeted.toml", "--device", "cpu", "-o", field / "out"]
    believed = scored(ntire, field, *words)
    assert believed["liar"]["valid"]
    found = scored(ntire, field, *words, "--measure")
    assert (found["liar"]["rank"], found["codeless"]["rank"]) == (None, 1)
    over, params, macs = sorted(found["liar"]["problems"])
    assert over.startswith(f"E502 budget params_m: {CONVOLVING_PARAMS / 1e6:.10g} measured, 0.0004 allowed")
    assert params.startswith("E614 ")
    assert "claims.macs_g" in params + macs
    assert [one["source"] for one in found["liar"]["budgets"]] == ["measured"] * 3
    assert 0 < found["liar"]["budgets"][2]["value"] < 59000
