import json
import os
import shutil
from pathlib import Path

import pytest

from ntire.entry.verdict import standing_of
from ntire.sandbox.child import why_not

EXAMPLE = Path(__file__).parents[3] / "submissions" / "example"
pytestmark = pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("engine", [("local",), ("ray", "--address", "local")], ids=lambda words: words[0])
def test_entries_are_verified_side_by_side_and_verdicts_are_signed_here(ntire, tmp_path, engine):
    if "ray" in engine and os.environ.get("NTIRE_TEST_RAY") != "all":
        pytest.skip("takes long: `make ray` (NTIRE_TEST_RAY=all) runs it")
    honest, other = tmp_path / "uploads" / "median", tmp_path / "uploads" / "other"
    shutil.copytree(EXAMPLE / "median", honest)
    shutil.copytree(EXAMPLE / "median", other)
    (first,) = sorted((other / "images").rglob("*.png"))[:1]
    shutil.copy(sorted((EXAMPLE / "lq").rglob("*.png"))[-1], first)
    archive = shutil.make_archive(str(tmp_path / "uploads" / "packed"), "zip", other)
    (tmp_path / "key").write_bytes(os.urandom(32))
    ran = ntire(
        "verify", honest, archive, "--lq", EXAMPLE / "lq", "--no-measure", "--seed", "1", "--key", tmp_path / "key", "-o",
        tmp_path / "out", "--engine", *engine, "--workers", 2, "--device", "cpu", "--json",
    )  # fmt: skip
    # Without the truth nobody can say whether a picture that differs costs any score.
    assert ran.code == 3
    assert [one["verdict"] for one in ran.json()] == ["pass", "undecided"]
    for name, root in (("median", honest), ("packed", other)):
        file = tmp_path / "out" / name / "verification.json"
        assert "signature" in json.loads(file.read_text())
        assert standing_of(file, root, (tmp_path / "key").read_bytes()).words
    assert list((tmp_path / "out" / "packed" / "verification").glob("*.png"))
    assert "median: pass" in ran.err
    assert "sandbox bubblewrap" in ran.err


@pytest.mark.parametrize("more", [(), ("--engine", "local")])
def test_no_verdict_takes_the_place_of_another_and_all_entries_are_looked_for_first(ntire, tmp_path, more):
    for place in ("a", "b"):
        (tmp_path / place / "x").mkdir(parents=True)
    out = tmp_path / "out"
    same = ntire("verify", tmp_path / "a" / "x", tmp_path / "b" / "x", "-o", out, *more)
    assert (same.code, "the verdicts of both would be" in " ".join(same.err.split())) == (2, True)
    missing = ntire("verify", tmp_path / "a" / "x", tmp_path / "none.zip", "-o", out, *more)
    assert (missing.code, "none.zip: expected a folder" in " ".join(missing.err.split())) == (2, True)
    assert not out.exists()


def test_an_engine_takes_no_single_gpu(ntire):
    ran = ntire("verify", EXAMPLE / "median", "--engine", "local", "--device", "cuda:1")
    assert (ran.code, "--device cuda:1: with --engine" in ran.err) == (2, True)
