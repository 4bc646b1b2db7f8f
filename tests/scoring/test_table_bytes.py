"""Files of scores and ranks, byte for byte as 0.1 wrote them. `golden/` was written by the program before it used pandas; since
then line breaks of names are escaped in CSV, brackets in Markdown, and a legend stands below a table with intervals.
"""

import math
from pathlib import Path

import pytest

from ntire.entry.manifest import Claims, Manifest, Submission
from ntire.scoring import read_back
from ntire.scoring.budgets import Budgets
from ntire.scoring.leaderboard import Line, line_of, ranked
from ntire.scoring.score import Row, Scored
from ntire.scoring.tables import write_leaderboard, write_scores
from ntire.scoring.track import Gate, Track, load_track

GOLDEN = Path(__file__).parent / "golden"
STRANGE = ('=SUM(A1:A9)"', "+1", "007", "a, b", "line\nbreak", "\x1b[31mred", "ünï|code <b>", "@x", "-", "nan", "1e5")
"""Names that a spreadsheet, a terminal, Markdown or a parser of numbers could take for something else."""
VALUES = (0.1, 1 / 3, 1e-7, 123456.789012345, -0.0, 20.0, 100.0, 2**-0.5)


def rows(track: Track, subsets: tuple[str, ...], shift: float) -> tuple[Row, ...]:
    made = []
    for number, value in enumerate(VALUES):
        values = {name: value + shift + place for place, name in enumerate(track.metrics)}
        made.append(Row(f"{number:03}/{STRANGE[number]}", subsets[number % len(subsets)], "ok", values))
    return tuple(made)


def line(track: Track, entry: str, of: tuple[Row, ...], of_set: dict[str, float], claims: Claims | None = None) -> Line:
    manifest = Manifest(team=f"{entry} team", track=track.name, date="2026-01-01", claims=claims or Claims())
    scored = Scored(Submission(Path("nowhere") / entry, manifest), of, of_set, of_set)
    return line_of(scored, track, track.metrics, dict.fromkeys(track.metrics, "numpy 0, fp32"))


def gated_lines() -> list[Line]:
    subsets = {"A": 4, "B": 4}
    plain = load_track("demo-srgb")
    gate = Gate(name="near", metric="ssim", thresholds={"A": 1.5, "B": 2.5}, max_failures=3)
    budgets = Budgets(params_m=1, runtime_ms=30, runtime_at=(64, 64))
    track = plain.model_copy(update={"subsets": subsets, "gates": (gate,), "budgets": budgets})
    claims = Claims(params_m=0.25, runtime_ms=29.5, runtime_at=(64, 64))
    lines = [
        line(track, name, rows(track, ("A", "B"), number), {}, claims if number % 2 else None)
        for number, name in enumerate(STRANGE[:6])
    ]
    gap = (*rows(track, ("A", "B"), 0)[:-1], Row("z|z", "A", "missing", problem="expected z.png, found no such file"))
    equal = tuple(Row(str(n), "AB"[n % 2], "ok", {"psnr": math.inf, "ssim": 1.0}) for n in range(8))
    return [*lines, line(track, "gap", gap, {}, claims), line(track, "equal", equal, {}, claims)]


def lines_of(name: str, tmp_path: Path) -> list[Line]:
    if name == "gated":
        return gated_lines()
    if name == "subsets":
        track = load_track("multi-3")
        found = [line(track, f"e{n}", rows(track, tuple(track.subsets), n), {}) for n in range(3)]
        return [*found, *read_back.lines_of(GOLDEN / "published-multi-3.csv", track)]
    track = load_track("face-2025")
    found = [line(track, f"e{n}", rows(track, tuple(track.subsets), n), {"fid": 40.5 + n}) for n in range(2)]
    table = tmp_path / "means.csv"
    header = ",".join(["team", *track.metrics, "failed_images", "beside"])
    text = [header, "T1,4,0.6,0.5,70,4.1,50,,0,x", "T2,4,0.6,0.5,70,4.1,51.5,,1,x"]
    table.write_text("\n".join(text) + "\n")
    return [*found, *read_back.lines_of(table, track)]


@pytest.mark.parametrize("name", ["gated", "subsets", "faces"])
def test_a_leaderboard_has_the_bytes_it_always_had(name, tmp_path):
    write_leaderboard(tmp_path, ranked(lines_of(name, tmp_path)), name)
    for suffix in ("csv", "md", "json"):
        assert (tmp_path / f"{name}.{suffix}").read_bytes() == (GOLDEN / f"{name}.{suffix}").read_bytes(), suffix


def test_scores_have_the_bytes_they_always_had(tmp_path):
    track = load_track("face-2025")
    strange = [Row(name, "", "metric failed", {"niqe": 3.0}, name) for name in STRANGE]
    gaps = [Row("inf", "", "ok", {"musiq": math.inf, "niqe": math.nan}), Row("", "", "unexpected", problem="no such")]
    of = (*rows(track, tuple(track.subsets), 0), *strange, *gaps)
    write_scores(tmp_path / "with-set.csv", of, {"fid": 12.3456789012345}, track.metrics)
    write_scores(tmp_path / "without-set.csv", of[:3], {}, track.metrics[:2])
    write_scores(tmp_path / "empty.csv", (), {}, track.metrics[:2])
    for name in ("with-set", "without-set", "empty"):
        assert (tmp_path / f"{name}.csv").read_bytes() == (GOLDEN / f"{name}.csv").read_bytes(), name
