import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ntire import UserError
from ntire.entry.manifest import Claims, Manifest, Submission, as_toml
from ntire.entry.measured import Measured
from ntire.entry.verdict import Standing
from ntire.scoring.leaderboard import BINS, line_of, ranked
from ntire.scoring.metrics import METRICS
from ntire.scoring.read_back import lines_of
from ntire.scoring.score import Row, Scored
from ntire.scoring.tables import as_json, cells, leaderboard_frame, markdown, write_leaderboard, write_scores
from ntire.scoring.track import Track, load_track

TRACK = load_track("demo-srgb")


def row(image, status="ok", **values):
    return Row(image, "", status, values, "" if status == "ok" else f"{image} is bad")


def line(entry, rows, track=TRACK, metrics=None, team="Team", of_set=None, root=None, **options):
    manifest = Manifest(team=team, track=track.name, date="2026-01-01", claims=options.pop("claims", Claims()))
    submission = Submission((root or Path("nowhere")) / entry, manifest)
    scored = Scored(submission, tuple(rows), of_set or {}, of_set or {})
    return line_of(scored, track, metrics or track.metrics, {"psnr": "numpy 0"}, **options)


def test_psnr_is_averaged_per_image_not_over_the_batch():
    one = line("x", [row("a", psnr=20.0, ssim=0.5), row("b", psnr=40.0, ssim=0.7)])
    assert one.means == {"psnr": 30.0, "ssim": pytest.approx(0.6)}
    assert one.total == 30.0


def test_a_submission_with_a_gap_is_listed_after_the_ranked_with_its_reason():
    gap = line("gap", [row("a", psnr=99.0, ssim=1.0), row("b", "missing")])
    low = line("low", [row("a", psnr=20.0, ssim=0.5), row("b", psnr=20.0, ssim=0.5)])
    high = line("high", [row("a", psnr=21.0, ssim=0.5), row("b", psnr=20.0, ssim=0.5)])
    board = ranked([gap, low, high])
    assert [(one.entry, one.rank) for one in board] == [("high", 1), ("low", 2), ("gap", None)]
    assert board[2].total is None
    assert board[2].means == {}
    assert board[2].problems == ("1 missing (b)",)


def test_an_unexpected_image_is_noted_and_never_averaged():
    rows = [row("a", psnr=20.0, ssim=0.5), Row("z", "", "unexpected")]
    one = line("x", rows)
    assert (one.images, one.scored, one.total, one.problems) == (1, 1, 20.0, ())
    assert one.notes == ("1 unexpected image(s), not counted",)


def test_equal_totals_are_decided_by_the_tie_break_or_share_a_rank():
    def entry_with(name, psnr, ssim):
        return line(name, [row("a", psnr=psnr, ssim=ssim)])

    given = [("c", 20, 0.5), ("b", 20, 0.6), ("a", 20, 0.5), ("d", 19, 1)]
    board = ranked([entry_with(*one) for one in given])
    assert [(one.entry, one.rank) for one in board] == [("b", 1), ("a", 2), ("c", 2), ("d", 4)]


def test_entries_without_a_total_and_with_some_means_only_are_listed_by_name():
    nothing = line("b", [row("i", "missing")])
    some = line("a", [Row("i", "", "metric failed", {"ssim": 0.5}, "psnr: failed")])
    assert [one.entry for one in ranked([nothing, some])] == ["a", "b"]
    # A table of means may lack what only decides ties: whoever has it goes first.
    table = [line("c", [row("i", psnr=30.0, ssim=0.5)]), line("d", [row("i", psnr=30.0)], metrics=("psnr",))]
    table[1] = replace(table[1], total=30.0)
    assert [(one.entry, one.rank) for one in ranked(table[::-1])] == [("c", 1), ("d", 2)]


def test_gold_has_infinite_psnr_and_is_shown_as_such(tmp_path):
    gold = line("gold", [row("a", psnr=math.inf, ssim=1.0), row("b", psnr=math.inf, ssim=1.0)])
    good = line("good", [row("a", psnr=50.0, ssim=0.99), row("b", psnr=50.0, ssim=0.99)])
    board = ranked([good, gold])
    assert [one.entry for one in board] == ["gold", "good"]
    write_leaderboard(tmp_path, board)
    text = (tmp_path / "leaderboard.csv").read_text()
    assert next(csv.DictReader(text.splitlines()))["psnr"] == "inf"
    loaded = json.loads((tmp_path / "leaderboard.json").read_text())
    assert loaded[0]["total"] == "inf"
    assert loaded[0]["notes"] == ["2 image(s) equal to the ground truth"]
    assert "inf" in markdown(board)


def test_the_csv_begins_with_the_public_columns(tmp_path):
    write_leaderboard(tmp_path, ranked([line("x", [row("a", psnr=20.0, ssim=0.5)])]))
    header = (tmp_path / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert header[:8] == ["rank", "entry", "team", "track", "valid", "total", "psnr", "ssim"]
    write_scores(tmp_path / "scores.csv", [row("a", psnr=1 / 3, ssim=0.5)], {}, TRACK.metrics)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("image,subset,status,psnr,ssim")
    assert lines[1].startswith("a,,ok,0.3333333333,0.5")


def test_names_cannot_become_formulas_or_break_the_tables(tmp_path):
    evil = line("=HYPERLINK(1)", [row("a", psnr=20.0, ssim=-0.5)], team="a|b\n<script>")
    write_leaderboard(tmp_path, ranked([evil]))
    read = next(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines(keepends=True)))
    assert read["entry"] == "'=HYPERLINK(1)"
    assert read["ssim"] == "-0.5", "numbers stay numbers"
    table = (tmp_path / "leaderboard.md").read_text()
    assert len(table.splitlines()) == 3
    assert "a\\|b &lt;script>" in table


def test_a_table_without_all_metrics_has_no_total():
    partial = line("x", [row("a", psnr=20.0)], metrics=("psnr",))
    assert partial.total is None
    assert ranked([partial])[0].rank is None
    assert cells([partial])[0][:5] == ["rank", "entry", "team", "track", "total"]


def test_lower_is_better_terms_and_ties_rank_the_right_way_up(monkeypatch):
    monkeypatch.setitem(METRICS, "error", replace(METRICS["psnr"], name="error", higher_is_better=False))
    track = Track(
        name="t", title="t", inputs="srgb", metrics=("psnr", "error"), tie_break=("error",), source="s",
        terms=[{"metric": "psnr", "scale": 1}],
    )  # fmt: skip
    worse = line("worse", [row("a", psnr=20.0, error=9.0)], track)
    better = line("better", [row("a", psnr=20.0, error=2.0)], track)
    assert [one.entry for one in ranked([worse, better])] == ["better", "worse"]


GATED = Track(
    name="gated",
    title="t",
    inputs="face",
    subsets={"CelebA": 2, "Wider-Test": 2},
    metrics=("niqe", "fid", "adaface"),
    terms=[{"metric": "niqe", "scale": -0.1, "offset": 1, "floor": 0}, {"metric": "fid", "scale": -0.01, "offset": 1}],
    gates=[
        {"name": "identity", "metric": "adaface", "max_failures": 1, "thresholds": {"CelebA": 0.5, "Wider-Test": 0.3}}
    ],
    source="s",
)


def faces(*similarities, niqe=4.0):
    """Rows of GATED; None for a missing image."""
    rows = []
    for number, similarity in enumerate(similarities):
        subset = ("CelebA", "Wider-Test")[number // 2]
        if similarity is None:
            rows.append(Row(f"{number}", subset, "missing", {}, "missing"))
        else:
            rows.append(Row(f"{number}", subset, "ok", {"niqe": niqe, "adaface": similarity}))
    return rows


def test_an_image_fails_strictly_below_the_threshold_of_its_subset():
    one = line("x", faces(0.5, 0.499999, 0.3, 0.31), GATED, of_set={"fid": 50.0})
    assert (one.gates[0].failed, one.gates[0].margin, one.valid) == (1, 0, True)
    assert one.gates[0].worst == pytest.approx(-1e-6)
    assert sum(one.gates[0].histogram) == 4
    assert len(one.gates[0].histogram) == len(BINS) - 1
    other = line("y", faces(0.5, 0.4, 0.2, 0.31), GATED, of_set={"fid": 50.0})
    assert (other.gates[0].failed, other.valid) == (2, False)
    assert other.problems == ("gate identity: 2 failed, 1 allowed",)


def test_an_entry_that_fails_a_gate_keeps_its_total_and_stands_after_the_valid():
    bad = line("bad", faces(0.1, 0.1, 0.1, 0.1, niqe=1.0), GATED, of_set={"fid": 10.0})
    good = line("good", faces(0.9, 0.9, 0.9, 0.9), GATED, of_set={"fid": 50.0})
    board = ranked([bad, good])
    assert [(one.entry, one.rank) for one in board] == [("good", 1), ("bad", None)]
    assert board[1].total == pytest.approx(0.9 + 0.9)


def test_a_missing_image_fails_the_gate_unless_asked_for_the_published_arithmetic():
    rows = faces(0.9, None, 0.9, 0.2)
    one = line("x", rows, GATED, of_set={})
    assert (one.gates[0].failed, one.total) == (2, None)
    published = line("x", rows, GATED, of_set={"fid": 50.0}, as_published=True)
    assert (published.gates[0].failed, published.valid) == (1, True)
    assert published.total == pytest.approx(0.6 + 0.5)
    assert published.notes[0].startswith("means as the organisers' program")


def test_published_means_weigh_subsets_by_their_nominal_counts():
    rows = [
        Row("0", "CelebA", "ok", {"niqe": 2.0, "adaface": 0.9}),
        Row("1", "CelebA", "missing"),
        Row("2", "Wider-Test", "ok", {"niqe": 6.0, "adaface": 0.9}),
        Row("3", "Wider-Test", "ok", {"niqe": 8.0, "adaface": 0.9}),
    ]
    one = line("x", rows, GATED, of_set={"fid": 50.0}, as_published=True)
    assert one.means["niqe"] == pytest.approx((2.0 * 2 + 7.0 * 2) / 4)
    without = line("x", [rows[2], rows[3]], GATED, of_set={"fid": 50.0}, as_published=True)
    assert "niqe" not in without.means, "a subset without images has no mean, and does not crash"


def test_the_clamp_acts_on_the_mean_not_on_each_image():
    rows = [
        replace(row, values={**row.values, "niqe": niqe})
        for row, niqe in zip(faces(*[0.9] * 4), (5, 5, 5, 25), strict=True)
    ]
    one = line("x", rows, GATED, of_set={"fid": 100.0})
    assert one.total == pytest.approx(1 - 1.0 + 0.0)
    rows = [replace(row, values={**row.values, "niqe": 12.0}) for row in rows]
    assert line("x", rows, GATED, of_set={"fid": 100.0}).total == 0.0


def test_an_untouched_face_is_noted():
    assert "1 image(s) with the very face of the input" in line("x", faces(1.0, 0.9, 0.9, 0.9), GATED).notes


BUDGETED = Track(
    name="budgeted", title="t", inputs="srgb", metrics=("psnr",), terms=[{"metric": "psnr", "scale": 1}], source="s",
    budgets={"params_m": 1.0, "macs_g": 20.0, "at": (1024, 1024)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "problems"),
    [
        (Claims(params_m=1.0, macs_g=20.0, at=(1024, 1024)), ()),
        (
            Claims(params_m=1.0000001, macs_g=9.9, at=(1024, 1024)),
            ("budget params_m: 1.0000001, 1 allowed, 0.000% over",),
        ),
        (Claims(params_m=0.5), ("budget macs_g: not stated at 1024 x 1024, 20 allowed",)),
        (Claims(params_m=0.5, macs_g=5.0, at=(512, 512)), ("budget macs_g: not stated at 1024 x 1024, 20 allowed",)),
        (Claims(params_m=1.5, macs_g=20.0, at=(1024, 1024)), ("budget params_m: 1.5, 1 allowed, 50.000% over",)),
    ],
)
def test_budgets_act_on_unrounded_claims_for_the_stated_size(claims, problems):
    assert line("x", [row("a", psnr=20.0)], BUDGETED, claims=claims).problems == problems


HONEST = Claims(params_m=0.5, macs_g=5.0, at=(1024, 1024))


def measured(**figures):
    return {"claims": HONEST, "verdict": Standing("pass", measured=Measured(**figures))}


def test_what_was_measured_decides_and_a_claim_that_lies_is_named():
    one = line("x", [row("a", psnr=20.0)], BUDGETED, **measured(params_m=1.5))
    assert one.problems == (
        "E502 budget params_m: 1.5 measured, 1 allowed, 50.000% over",
        "E614 claim below what was counted (claims.params_m 0.5, expected 1.5, as counted)",
    )
    assert line("x", [row("a", psnr=20.0)], BUDGETED, **measured(params_m=0.5)).valid
    noted = line("x", [row("a", psnr=20.0)], BUDGETED, **measured(problems=("counting: a; b",)))
    assert noted.valid
    assert noted.notes == (
        "W616 cost cannot be measured, or is doubtful (counting: a, b, expected code whose cost can be measured)",
    )


def test_the_tables_say_of_each_budget_whether_it_was_measured_only_where_something_was(tmp_path):
    counted = line("counted", [row("a", psnr=20.0)], BUDGETED, **measured(params_m=0.75))
    believed = line("believed", [row("a", psnr=20.0)], BUDGETED, claims=HONEST)
    unmeasured = ranked([believed])
    assert not any("source" in name for name in leaderboard_frame(unmeasured))
    assert "source" not in as_json(unmeasured)[0]["budgets"][0]

    board = ranked([counted, believed])
    table = leaderboard_frame(board).set_index("entry")
    assert (table.loc["counted", "params_m"], table.loc["believed", "params_m"]) == (0.75, 0.5)
    sources = table[["params_m_source", "macs_g_source"]]
    assert [*sources.loc["counted"], *sources.loc["believed"]] == ["measured", "claimed", "claimed", "claimed"]
    budgets = next(one for one in as_json(board) if one["entry"] == "counted")["budgets"]
    assert [one["source"] for one in budgets] == ["measured", "claimed"]
    assert "budgets: params_m measured, macs_g claimed" in markdown(board)


def test_an_entry_over_a_measured_budget_stays_invalid_in_tables_that_are_read_back(tmp_path):
    rows = [row("a", psnr=20.0)]
    over = line("x", rows, BUDGETED, **measured(params_m=1.5))
    write_leaderboard(tmp_path, ranked([over]))
    (tmp_path / "x").mkdir()
    write_scores(tmp_path / "x" / "scores.csv", rows, {}, ["psnr"])
    (tmp_path / "x" / "entry.toml").write_text(
        as_toml(Manifest(team="T", track="budgeted", date="2026-01-01", claims=HONEST))
    )
    for file in ("leaderboard.csv", "x/scores.csv"):
        (again,) = lines_of(tmp_path / file, BUDGETED)
        assert any(problem.startswith("E502 budget params_m: 1.5 measured") for problem in again.problems), file


def test_margins_to_budgets_and_gates_are_in_the_files(tmp_path):
    spent = line("x", [row("a", psnr=20.0)], BUDGETED, claims=Claims(params_m=0.25, macs_g=5.0, at=(1024, 1024)))
    gated = line("y", faces(0.9, 0.4, 0.9, 0.9), GATED, of_set={"fid": 50.0})
    write_leaderboard(tmp_path, ranked([spent, gated]))
    rows = {one["entry"]: one for one in csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines())}
    assert (rows["x"]["params_m"], rows["x"]["params_m_margin"]) == ("0.25", "0.75")
    assert (rows["y"]["identity_failed"], rows["y"]["identity_margin"]) == ("1", "0")
    assert float(rows["y"]["identity_worst"]) == pytest.approx(-0.1)
    assert "distance above the threshold of gate identity" in (tmp_path / "leaderboard.md").read_text()


def test_intervals_and_what_is_better_than_the_next_are_in_the_table():
    def entry_with(name, base):
        return line(name, [row(str(number), psnr=base + number % 7, ssim=0.5) for number in range(40)])

    board = ranked([entry_with("low", 20.0), entry_with("high", 21.0)])
    assert board[0].uncertainty.better_than_next == 1.0
    assert board[0].uncertainty.rank == (1, 1)
    header, shown = cells(board)
    assert header[5:7] == ["95 %", "ranks"]
    assert shown[0][6] == "1..1"
    assert as_json(board)[0]["uncertainty"]["better_than_next"] == 1.0


def test_ranks_without_each_metric_are_in_the_markdown():
    two = Track(
        name="two", title="t", inputs="srgb", metrics=("psnr", "ssim"), source="s",
        terms=[{"metric": "psnr", "scale": 1}, {"metric": "ssim", "scale": 100}],
    )  # fmt: skip
    board = ranked([line("a", [row("i", psnr=30.0, ssim=0.5)], two), line("b", [row("i", psnr=20.0, ssim=0.7)], two)])
    text = markdown(board)
    assert "ranks when one metric is left out" in text
    assert "| b | 1 | 1 | 2 |" in text


def test_two_rows_of_one_name_each_keep_their_rank_without_a_metric():
    two = TRACK.model_copy(update={"terms": (*TRACK.terms, TRACK.terms[0].model_copy(update={"metric": "ssim"}))})
    values = [("twice", 30.0), ("other", 25.0), ("twice", 20.0)]
    text = markdown(ranked([line(name, [row("i", psnr=psnr, ssim=0.5)], two) for name, psnr in values]))
    assert "| twice | 1 | 1 | 1 |\n| other | 2 | 1 | 2 |\n| twice | 3 | 1 | 3 |" in text


def test_the_truth_handed_in_is_noted_on_tracks_that_measure_luma_alone():
    luma = TRACK.model_copy(update={"metrics": ("psnr-y",), "terms": (), "tie_break": ()})
    one = line("x", [Row("a", "", "ok", {"psnr-y": math.inf}), Row("b", "", "ok", {"psnr-y": 30.0})], luma)
    assert one.notes == ("1 image(s) equal to the ground truth in psnr-y",)


def test_a_verdict_of_verification_is_shown_and_one_that_does_not_count_is_a_note():
    one = line("x", [row("a", psnr=20.0, ssim=0.5)], verdict=Standing("pass"))
    assert one.reproduced == "pass"
    assert "reproduced: pass" in cells([one])[1][0][-1]
    one = line("x", [row("a", psnr=20.0, ssim=0.5)], verdict=Standing(note="the verdict is not signed"))
    assert not one.reproduced
    assert "the verdict is not signed" in one.notes


def test_a_rule_that_is_broken_takes_the_rank_and_is_named():
    one = line("x", [row("a", psnr=20.0, ssim=0.5)], refused=("E103 not a regular file (images)",))
    assert ranked([one])[0].rank is None
    assert one.problems == ("E103 not a regular file (images)",)


@pytest.fixture
def golden(data):
    path = data.parent / "golden" / "face_2025_table1.csv"
    if not path.is_file():
        pytest.skip(f"the report's table is not in {path}")
    return path


def test_the_report_s_table_gives_its_printed_totals_and_ranks(golden):
    printed = {row["team"]: row for row in csv.DictReader(golden.read_text().splitlines())}
    board = ranked(lines_of(golden, load_track("face-2025")))
    assert len(board) == 13
    for one in board:
        assert one.total == pytest.approx(float(printed[one.team]["total"]), abs=1.5e-4)
        rank = printed[one.team]["rank"]
        assert (one.rank is None) == (rank == "N/A")
        assert rank == "N/A" or one.rank == int(rank)
    assert [one.team for one in board[-3:]] == ["Fustar-fsr", "Night Watch", "IPCV"]
    assert "gate identity: 229 failed, 10 allowed" in board[-3].problems


def test_scores_ranked_from_their_files_rank_as_they_were_scored(tmp_path):
    rows = [row("a", psnr=20.0, ssim=0.5), row("b", psnr=30.0, ssim=0.7), Row("z", "", "unexpected", problem="no")]
    (tmp_path / "x").mkdir()
    write_scores(tmp_path / "x" / "scores.csv", rows, {}, TRACK.metrics)
    assert lines_of(tmp_path / "x" / "scores.csv", TRACK)[0].total == line("x", rows).total == 25.0
    gated = faces(0.9, 0.9, 0.9, 0.2)
    write_scores(tmp_path / "x" / "scores.csv", gated, {"fid": 40.0}, GATED.metrics)
    again, before = lines_of(tmp_path / "x" / "scores.csv", GATED)[0], line("x", gated, GATED, of_set={"fid": 40.0})
    assert (again.total, again.means, again.gates) == (before.total, before.means, before.gates)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("team,niqe\nA,4\n", "found none of clipiqa, maniqa, musiq, qalign, fid, failed_images"),
        (
            "team,niqe,clipiqa,maniqa,musiq,qalign,fid,failed_images\nA,4,x,0.6,70,4,50,1\n",
            "line 2: clipiqa: expected a number",
        ),
        (
            "team,niqe,clipiqa,maniqa,musiq,qalign,fid,failed_images\n,4,0.5,0.6,70,4,50,1\n",
            "line 2: team: expected a name",
        ),
    ],
)
def test_a_table_with_mistakes_tells_them(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        lines_of(tmp_path / "t.csv", load_track("face-2025"))


TASKS = Track(
    name="tasks", title="t", inputs="general", average="subsets", subsets={"hazy": 1, "noisy": 3}, metrics=("psnr", "ssim"),
    terms=[{"metric": "psnr", "scale": 1}], tie_break=("ssim",), source="s",
)  # fmt: skip


def tasks(*psnrs):
    """Rows of TASKS; None for a missing image."""
    return [
        Row(
            str(number),
            "noisy" if number else "hazy",
            *(("missing",) if psnr is None else ("ok", {"psnr": psnr, "ssim": psnr / 50})),
        )
        for number, psnr in enumerate(psnrs)
    ]


def test_subsets_count_alike_whatever_their_size(tmp_path):
    one = line("x", tasks(20.0, 30.0, 31.0, 32.0), TASKS)
    assert one.total == pytest.approx((20 + 31) / 2)
    assert one.by_subset["psnr"] == {"hazy": 20.0, "noisy": pytest.approx(31.0)}
    published = line("x", tasks(20.0, 30.0, None, 32.0), TASKS, as_published=True)
    assert published.total == pytest.approx((20 + 31) / 2)
    gap = line("gap", tasks(20.0, 30.0, None, 32.0), TASKS)
    assert (gap.total, gap.valid, gap.by_subset["psnr"]) == (None, False, {"hazy": 20.0})
    write_leaderboard(tmp_path, ranked([one, gap]))
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines()))
    assert [(row["psnr/hazy"], row["psnr/noisy"], row["ssim/hazy"]) for row in rows] == [
        ("20", "31", "0.4"),
        ("20", "", "0.4"),
    ]
    header, shown = cells(ranked([one, gap]))
    assert header[header.index("hazy") : header.index("hazy") + 2] == ["hazy", "noisy"]
    assert shown[0][header.index("noisy")] == "31.0000"
    assert as_json([one])[0]["subsets"]["psnr"]["noisy"] == pytest.approx(31.0)
    assert "hazy" not in cells([line("y", [row("a", psnr=1.0, ssim=0.1)])])[0]


def test_a_paper_s_table_ranks_by_its_cells_and_where_some_are_empty_by_the_average_it_prints(tmp_path):
    (tmp_path / "t.csv").write_text("team,psnr/hazy,psnr/noisy,psnr,ssim\nA,20,30,99,\nB,,31,26,0.9\nC,40,,,\n")
    board = ranked(lines_of(tmp_path / "t.csv", TASKS))
    assert [(one.team, one.rank, one.total) for one in board] == [("B", 1, 26.0), ("A", 2, 25.0), ("C", None, None)]
    assert board[2].problems == ("psnr not given for all subsets",)
    (tmp_path / "t.csv").write_text("team,psnr/hazy\nA,x\nB,y\n")
    with pytest.raises(UserError, match="(?s)line 2: psnr/hazy: expected a number, found 'x'.*line 3"):
        lines_of(tmp_path / "t.csv", TASKS)
    (tmp_path / "t.csv").write_text("team,niqe\nA,1\n")
    with pytest.raises(UserError, match="expected the columns team and some of psnr/hazy"):
        lines_of(tmp_path / "t.csv", TASKS)
