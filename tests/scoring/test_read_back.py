from pathlib import Path

import pytest

from ntire import UserError
from ntire.entry.manifest import Manifest, Submission
from ntire.scoring.leaderboard import line_of, ranked
from ntire.scoring.read_back import lines_of, lines_of_all
from ntire.scoring.score import Row, Scored
from ntire.scoring.tables import write_leaderboard, write_scores
from ntire.scoring.track import Track, load_track

PLAIN = Track(
    name="plain", title="t", inputs="srgb", metrics=("psnr", "ssim"), tie_break=("ssim",), source="s",
    terms=[{"metric": "psnr", "scale": 1}],
)  # fmt: skip
TASKS = PLAIN.model_copy(update={"name": "tasks", "average": "subsets", "subsets": {"hazy": 1, "noisy": 2}})
GATED = Track(
    name="gated", title="t", inputs="face", metrics=("niqe", "adaface"), subsets={"A": 2}, source="s",
    terms=[{"metric": "niqe", "scale": -1}],
    gates=[{"name": "identity", "metric": "adaface", "max_failures": 0, "thresholds": {"A": 0.5}}],
)  # fmt: skip


def scored(entry, track, *values, subsets=("", "", "")):
    """A line of an entry whose images have these values; None for a missing one."""
    rows = [
        Row(str(number), subset, "missing", problem="not there") if of is None else Row(str(number), subset, "ok", of)
        for number, (of, subset) in enumerate(zip(values, subsets, strict=False))
    ]
    manifest = Manifest(team=f"Team {entry}", track=track.name, date="2026-01-01")
    found = Scored(Submission(Path("nowhere") / entry, manifest), tuple(rows), {}, {})
    return line_of(found, track, track.metrics, {}), rows


ENTRIES = [
    (PLAIN, {}),
    (TASKS, {"subsets": ("hazy", "noisy", "noisy")}),
    (GATED, {"subsets": ("A", "A")}),
]


def board_of(track, options):
    values = {
        "good": [{"psnr": 30.0, "ssim": 0.9, "niqe": 3.0, "adaface": 0.9}] * 3,
        "better": [{"psnr": 31.5, "ssim": 0.9, "niqe": 2.5, "adaface": 0.8}] * 3,
        "gap": [{"psnr": 20.0, "ssim": 0.5, "niqe": 5.0, "adaface": 0.2}, None, None],
    }
    return ranked([scored(entry, track, *of, **options)[0] for entry, of in values.items()])


@pytest.mark.parametrize(("track", "options"), ENTRIES)
def test_our_own_leaderboard_reads_back_as_it_was_written(track, options, tmp_path):
    board = board_of(track, options)
    write_leaderboard(tmp_path, board)
    again = ranked(lines_of(tmp_path / "leaderboard.csv", track))
    keep = ("rank", "entry", "team", "total", "means", "valid", "by_subset", "images", "scored", "problems")
    for one, other in zip(again, board, strict=True):
        assert {name: getattr(one, name) for name in keep} == {name: getattr(other, name) for name in keep}
        assert [(gate.failed, gate.margin) for gate in one.gates] == [
            (gate.failed, gate.margin) for gate in other.gates
        ]
    assert [one.rank for one in again] == [1, 2, None]


def test_an_entry_with_a_gap_is_listed_with_its_reason_and_the_means_of_its_whole_subsets(tmp_path):
    line, _ = scored(
        "gap", TASKS, {"psnr": 30.0, "ssim": 0.9}, None, {"psnr": 31.0, "ssim": 0.9}, subsets=("hazy", "noisy", "noisy")
    )
    write_leaderboard(tmp_path, ranked([line]))
    for suffix in (".csv", ".md", ".json"):
        text = (tmp_path / f"leaderboard{suffix}").read_text()
        assert "1 missing (1)" in text
        assert "30" in text


def test_rows_of_other_tracks_are_left_out_and_that_is_said(tmp_path):
    both = [*board_of(PLAIN, {}), *board_of(*ENTRIES[1])]
    write_leaderboard(tmp_path, both)
    said = []
    again = lines_of(tmp_path / "leaderboard.csv", PLAIN, said.append)
    assert [one.entry for one in again] == ["better", "good", "gap"]
    (words,) = said
    assert "not for track plain: 3 row(s), of tasks (3)" in words
    with pytest.raises(UserError, match=r"has no row for track gated, only for plain \(3\), tasks \(3\)"):
        lines_of(tmp_path / "leaderboard.csv", GATED)


@pytest.mark.parametrize("cell", ["", "N/A", "-", "nan", " "])
def test_an_empty_cell_is_a_reason_not_a_mistake(cell, tmp_path):
    (tmp_path / "t.csv").write_text(f"team,psnr,ssim\nA,30,\nB,{cell},0.9\n")
    first, second = ranked(lines_of(tmp_path / "t.csv", PLAIN))
    assert (first.team, first.rank, first.total) == ("A", 1, 30.0)
    assert (second.team, second.rank, second.problems) == ("B", None, ("psnr not given",))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_that_excel_wrote_with_decimal_commas_ranks_alike(tmp_path, encoding):
    text = 'team;psnr;ssim\r\n"Müller; Sons";30,25;0,9\r\n=B;31;0,8\r\n;;\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    board = ranked(lines_of(tmp_path / "t.csv", PLAIN))
    assert [(one.team, one.total) for one in board] == [("=B", 31.0), ("Müller; Sons", 30.25)]


def test_the_team_of_a_scores_file_is_that_of_the_leaderboard_above_it(tmp_path):
    line, rows = scored("bicubic", PLAIN, {"psnr": 30.0, "ssim": 0.9}, {"psnr": 32.0, "ssim": 0.9})
    write_leaderboard(tmp_path, ranked([line]))
    (tmp_path / "bicubic").mkdir()
    write_scores(tmp_path / "bicubic" / "scores.csv", rows, {}, PLAIN.metrics)
    (again,) = lines_of(tmp_path / "bicubic" / "scores.csv", PLAIN)
    assert (again.team, again.entry, again.total) == ("Team bicubic", "bicubic", 31.0)


def test_scores_over_other_images_are_not_ranked_together(tmp_path):
    values = {"psnr": 30.0, "ssim": 0.9}
    for entry, count in (("new", 3), ("old", 2), ("alike", 3)):
        (tmp_path / entry).mkdir()
        rows = scored(entry, PLAIN, *[values] * count)[1]
        write_scores(tmp_path / entry / "scores.csv", rows, {}, PLAIN.metrics)
    tables = {entry: tmp_path / entry / "scores.csv" for entry in ("new", "old", "alike")}
    assert len(lines_of_all([tables["new"], tables["alike"]], PLAIN)) == 2
    with pytest.raises(
        UserError, match=r"old/scores.csv: expected scores of the 3 images of .*new/.*, found 2.* has 2\."
    ):
        lines_of_all(list(tables.values()), PLAIN)


def test_a_scores_file_with_mistakes_tells_all_of_them(tmp_path):
    (tmp_path / "scores.csv").write_text("image,subset,status,psnr\na,,ok,x\nb,,fine,3\n")
    with pytest.raises(
        UserError, match=r"(?s)line 2: psnr: expected a number, found 'x'.*line 3: status: .*found 'fine'"
    ):
        lines_of(tmp_path / "scores.csv", PLAIN)


@pytest.mark.parametrize(
    ("track", "header", "cells", "problem"),
    [
        (PLAIN, "team,psnr,ssim", "A,30,91.5", "ssim: expected -1 to 1, found '91.5'"),
        (PLAIN, "team,psnr,ssim", "A,-30,0.9", "psnr: expected a number from 0 up, found '-30'"),
        (PLAIN, "team,psnr,ssim", "A,3_1,0.9", "psnr: expected a number, found '3_1'"),
        (PLAIN, "team,psnr,ssim", "A,-nan,0.9", "psnr: expected a number from 0 up, found '-nan'"),
        (GATED, "team,niqe,adaface,failed_images", "A,4,80,0", "adaface: expected -1 to 1, found '80'"),
        (GATED, "team,niqe,failed_images", "A,4,0.9", "failed_images: expected a whole number, found '0.9'"),
        (GATED, "team,niqe,failed_images", "A,4,-2", "failed_images: expected a whole number, found '-2'"),
        (GATED, "team,niqe,identity_failed", "A,4,inf", "identity_failed: expected a whole number, found 'inf'"),
        (
            load_track("esr-2026"),
            "team,psnr_valid,psnr_test,runtime_ms,params_m,flops_g",
            "A,27,27,-7.74,0.1,9",
            "runtime_ms: expected a number from 0 up, found '-7.74'",
        ),
    ],
)
def test_a_number_that_its_column_cannot_have_is_a_mistake_not_a_rank(track, header, cells, problem, tmp_path):
    (tmp_path / "t.csv").write_text(f"{header}\n{cells}\n")
    with pytest.raises(UserError) as told:
        lines_of(tmp_path / "t.csv", track)
    assert str(told.value) == f"{tmp_path / 't.csv'}: line 2: {problem}"


def test_bounds_bear_with_rounding_and_with_equal_pictures(tmp_path):
    (tmp_path / "t.csv").write_text("team,psnr,ssim\nA,inf,1.0004\n")
    (line,) = lines_of(tmp_path / "t.csv", PLAIN)
    assert line.means == {"psnr": float("inf"), "ssim": 1.0004}
