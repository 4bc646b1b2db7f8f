"""Costs as a score: published ranks come out, sources are told, gates act on means, and what is missing is one message."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ntire import UserError
from ntire.entry.manifest import Claims, Manifest, Submission
from ntire.entry.measured import AtSize, Measured
from ntire.entry.measured_files import figures_beside
from ntire.entry.verdict import Standing
from ntire.scoring.efficiency import CostTerm, MeanAtGate, MeanGate
from ntire.scoring.leaderboard import line_of, ranked
from ntire.scoring.read_back import lines_of
from ntire.scoring.score import Row, Scored
from ntire.scoring.tables import write_leaderboard
from ntire.scoring.track import Ranking, Term, Track, load_track, published_rows
from tests.made import scene, write_png

RANKS = ("22", "01", "16", "18", "15", "00", "20", "17", "10", "04", "05", "11", "06", "12")
"""Entries of 2026 by the report, without those that the gate refuses."""
AT_THE_THRESHOLD = {
    "valid": {"01", "04", "05", "11", "17", "18", "20"},
    "test": {"01", "15"},
}
"""Entries whose published means, of two decimals, are the threshold itself."""


THEIRS = ("psnr_valid", "psnr_test", "runtime_ms", "flops_g", "params_m", "memory_mb", "activations_m")
OURS = ("psnr/valid", "psnr/test", "runtime_ms", "macs_g", "params_m", "memory_mb", "activations_m")


@pytest.fixture(scope="module")
def board():
    from ntire.commands.scoring import leaderboard

    return leaderboard([], track="esr-2026", published=True).lines


def by_number(lines):
    return {line.entry[:2]: line for line in lines}


def test_the_published_ranks_and_scores_of_2026_come_out(board):
    lines = by_number(board)
    assert tuple(line.entry[:2] for line in board if line.rank) == RANKS
    for number, total in (("00", 7.3891), ("22", 3.8668), ("01", 5.8308)):
        assert lines[number].total == pytest.approx(total, abs=5e-5)
    assert {number for number, line in lines.items() if not line.valid} == {"09", "21"}
    assert "gate quality: psnr/test 26.98, 26.99 at least" in lines["09"].problems
    assert len([one for one in lines["21"].problems if one.startswith("gate quality")]) == 2


def test_sub_tracks_rank_the_same_entries_by_one_cost_each(board):
    lines = by_number(board)
    first = {
        name: next(key for key, line in lines.items() if line.rankings[name].rank == 1)
        for name in ("runtime", "flops", "params")
    }
    assert first == {"runtime": "22", "flops": "22", "params": "04"}
    assert lines["00"].rankings["runtime"].total == pytest.approx(math.exp(2))
    assert lines["09"].rankings["runtime"].rank is None, "the gate holds there, too"


def test_a_mean_at_the_threshold_is_told_to_be_met_only_by_rounding(board):
    for subset, numbers in AT_THE_THRESHOLD.items():
        told = {
            line.entry[:2] for line in board if any(f"psnr/{subset} is the threshold" in note for note in line.notes)
        }
        assert told == numbers


@pytest.mark.data
def test_the_golden_table_is_ranked_as_it_stands(ntire, data, tmp_path):
    table = data.parent / "golden" / "esr_2026_results.csv"
    if not table.is_file():
        pytest.skip("no golden tables here")
    assert ntire("leaderboard", table, "--track", "esr-2026", "-o", tmp_path / "board.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "board.csv").read_text().splitlines()))
    assert tuple(row["entry"][:2] for row in rows if row["rank"] != "N/A") == RANKS
    again = ntire("leaderboard", tmp_path / "board.csv", "--track", "esr-2026", "--json").json()
    assert [one["total"] for one in again] == pytest.approx([float(row["total"]) for row in rows])
    theirs = {row["entry"]: row for row in csv.DictReader(table.read_text().splitlines())}
    ours = {
        row["entry"]: row for row in csv.DictReader(published_rows(load_track("esr-2026")).read_text().splitlines())
    }
    assert {key: [row[name] for name in THEIRS] for key, row in theirs.items()} == {
        key: [row[name] for name in OURS] for key, row in ours.items()
    }


@pytest.mark.parametrize(
    ("year", "reference", "weights"),
    [("2024", "RLFN", (0.7, 0.15, 0.15)), ("2025", "EFDN", (0.7, 0.15, 0.15)), ("2026", "SPAN", (0.8, 0.1, 0.1))],
)
def test_each_edition_has_its_reference_and_weights_and_scores_that_at_e_squared(year, reference, weights):
    track = load_track(f"esr-{year}")
    assert track.reference == reference
    assert tuple(term.weight for term in track.costs) == weights
    assert [term.cost for term in track.costs] == ["runtime_ms", "macs_g", "params_m"]
    (gate,) = track.mean_gates
    assert gate.least == {"valid": 26.90, "test": 26.99}
    assert (track.border, track.scale, track.metrics) == (4, 4, ("psnr",))
    costs = {"runtime_ms": 5.0, "macs_g": 10.0, "params_m": 0.2}
    assert track.total({"psnr": 27.0}, costs, costs) == pytest.approx(math.exp(2))
    half = {**costs, "runtime_ms": 2.5}
    assert track.total({}, half, costs) == pytest.approx(weights[0] * math.e + (1 - weights[0]) * math.exp(2))


TRACK = Track(
    name="t", title="t", inputs="esr", scale=4, average="subsets", subsets={"a": 1, "b": 1}, metrics=("psnr",), better="lower",
    costs=(CostTerm(cost="runtime_ms", weight=0.5, function="ratio"), CostTerm(cost="macs_g", function="linear")),
    cost_at=(256, 256), reference="Base", source="s",
    mean_gates=(MeanGate(name="q", metric="psnr", least={"a": 26.90}, decimals=2),),
    rankings=(Ranking(name="quality", terms=(Term(metric="psnr", scale=1.0),)),),
)  # fmt: skip


def scored(entry, psnr, claims):
    rows = tuple(Row(name, name, "ok", {"psnr": value}) for name, value in psnr.items())
    manifest = Manifest(team=entry, track="t", date="2026-01-01", claims=claims)
    return Scored(Submission(Path(entry), manifest), rows, {}, {})


def line(entry, psnr=27.0, *, measured=None, figures=None, track=TRACK, **claims):
    values = psnr if isinstance(psnr, dict) else {"a": psnr, "b": psnr}
    given = {"figures": figures} if figures else {}
    return line_of(
        scored(entry, values, Claims(**claims)), track, ("psnr",), {}, verdict=Standing(measured=measured), **given
    )


BASE = {"runtime_ms": 10.0, "macs_g": 5.0, "at": (256, 256)}


def test_a_total_of_costs_is_better_if_lower_and_a_sub_ranking_of_quality_if_higher():
    lines = ranked([line("Base", **BASE), line("Fast", 26.95, **{**BASE, "runtime_ms": 5.0})])
    assert [(one.entry, one.rank, one.total) for one in lines] == [("Fast", 1, 5.25), ("Base", 2, 5.5)]
    assert [one.rankings["quality"].rank for one in lines] == [2, 1]


def test_what_was_measured_counts_before_what_is_claimed_and_the_source_is_told(tmp_path):
    measured = Measured(macs_g=(AtSize(6.0, (256, 256)), AtSize(1.0, (9, 9))), runtime_ms=(AtSize(12.0, None),))
    (tmp_path / "bench.json").write_text(json.dumps({"end_to_end": {"median_ms": 20.0, "mean_ms": 21.0}, "more": 1}))
    (tmp_path / "cost.json").write_text(json.dumps({"params": 150_000, "macs": 7 * 10**9, "at": [256, 256]}))
    files = figures_beside(tmp_path)

    def sources(**given):
        return {one.name: (one.value, one.source) for one in line("Base", **given).costs}

    assert sources(**BASE) == {"runtime_ms": (10.0, "claimed"), "macs_g": (5.0, "claimed")}
    assert sources(**BASE, measured=measured) == {"runtime_ms": (12.0, "measured"), "macs_g": (6.0, "measured")}
    found = sources(**BASE, measured=measured, figures=files)
    assert found == {"runtime_ms": (20.0, "bench.json"), "macs_g": (7.0, "cost.json")}
    (tmp_path / "cost.json").write_text('{"params": -1}')
    with pytest.raises(UserError, match=r"cost\.json: expected the JSON of `ntire cost`, found otherwise: params"):
        figures_beside(tmp_path)


def test_a_cost_that_nobody_states_at_the_tracks_size_makes_an_entry_not_valid():
    (found,) = ranked([line("Base", **{**BASE, "at": (512, 512)})])
    assert found.problems == ("macs_g neither measured nor claimed at 256 x 256",)
    assert found.total is None


def test_a_missing_reference_gives_no_total_and_the_reason_and_no_leaderboard(ntire, tmp_path):
    (found,) = ranked([line("Other", **BASE)])
    assert (found.total, found.rank, found.valid) == (None, None, True)
    assert found.notes == ("no total: expected the reference entry Base of track t, found only Other",)
    (tmp_path / "t.csv").write_text("team,psnr/valid,psnr/test,runtime_ms,macs_g,params_m\nMine,27,27,5,9,0.1\n")
    ran = ntire("leaderboard", tmp_path / "t.csv", "--track", "esr-2026")
    assert ran.code == 2
    assert "expected the reference entry SPAN of track esr-2026, found only Mine" in " ".join(ran.err.split())
    (tmp_path / "t.csv").write_text("team,psnr/valid,psnr/test,runtime_ms,macs_g,params_m\nSPAN,27,27,5,,0.1\n")
    assert "SPAN has no macs_g above 0" in " ".join(
        ntire("leaderboard", tmp_path / "t.csv", "--track", "esr-2026").err.split()
    )


def test_of_two_entries_of_the_reference_s_team_none_is_the_reference_whatever_their_order():
    """A readme may name any team: costs of whoever came first would have moved everybody's totals."""
    honest, other = (
        replace(line(entry, **{**BASE, "runtime_ms": ms}), team="base") for entry, ms in (("h", 9.0), ("o", 99.0))
    )
    for both in ([honest, other], [other, honest]):
        found = ranked([*both, line("Third", **BASE)])
        assert {one.total for one in found} == {None}
        assert "expected one reference entry Base of track t, found 2: " in found[0].notes[0]
    # By the name of an entry, which nobody shares, there is no doubt.
    assert ranked([honest, line("Base", **BASE)])[0].total == pytest.approx(0.5 * 9 / 10 + 5)


def test_a_table_without_a_data_set_of_a_gate_or_a_cost_names_the_columns(ntire, tmp_path):
    (tmp_path / "t.csv").write_text("team,psnr/valid,runtime_ms,macs_g\nSPAN,27,5,9\n")
    said = " ".join(ntire("leaderboard", tmp_path / "t.csv", "--track", "esr-2026").err.split())
    assert "expected the columns params_m, psnr/test, as the rules of track esr-2026 need them" in said


def test_a_data_set_without_a_mean_fails_its_gate():
    found = line("Base", {"b": 27.0}, **BASE)
    assert "gate q: psnr/a not given, 26.9 at least" in found.problems


@pytest.mark.parametrize(
    ("mean", "passed", "by_rounding"),
    [(26.91, True, False), (26.90, True, True), (26.8951, True, True), (26.8949, False, False), (26.895, True, True)],
)
def test_a_gate_acts_on_rounded_means_where_its_rules_say_so_and_tells_when_that_decides(mean, passed, by_rounding):
    gate = MeanGate(name="q", metric="psnr", least={"a": 26.90}, decimals=2)
    found = MeanAtGate(gate, "a", mean)
    assert (found.passed, found.by_rounding) == (passed, by_rounding)
    assert found.margin == pytest.approx(mean - 26.90)
    strict = MeanAtGate(gate.model_copy(update={"decimals": None}), "a", mean)
    assert (strict.passed, strict.by_rounding) == (mean >= 26.90, False)


def test_the_scores_of_an_entry_say_where_its_mean_is_met_only_by_rounding():
    found = line("Base", 26.8964, **BASE)
    assert found.valid
    assert found.notes == ("gate q: psnr/a is met only by rounding: 26.896400, 26.9 at least",)


def test_rules_that_contradict_themselves_are_refused():
    given = TRACK.model_dump()
    for change, words in (
        ({"better": "higher"}, "better if lower"),
        ({"reference": ""}, "reference is empty"),
        ({"cost_at": None}, "cost_at"),
        (
            {"mean_gates": [{"name": "q", "metric": "psnr", "least": {"c": 1.0}}]},
            "'c' is not among the data sets: a, b",
        ),
        ({"average": "images"}, "needs means by subset"),
        ({"costs": [{"cost": "joules"}]}, "joules|params_m"),
    ):
        with pytest.raises(ValueError, match=words):
            Track(**{**given, **change})


def test_the_functions_are_those_of_their_names_and_overflow_is_infinity():
    assert [CostTerm(cost="params_m", function=name).of(3.0, 2.0) for name in ("linear", "ratio", "exp")] == [
        3.0,
        1.5,
        math.exp(3),
    ]
    assert CostTerm(cost="params_m", function="exp").of(1e6, 1.0) == math.inf
    with pytest.raises(ValueError, match="positive value of the reference"):
        CostTerm(cost="params_m", function="exp").of(1.0, 0.0)


def test_an_entry_is_named_by_its_own_name_before_its_team():
    two = [
        replace(line("x", **BASE), entry="Base"),
        replace(line("Base", **{**BASE, "runtime_ms": 1.0}), entry="other"),
    ]
    assert {one.entry: one.total for one in ranked(two)} == {"Base": 5.5, "other": 5.05}


RULES = """
name = "mine"
title = "Mine"
inputs = "esr"
scale = 4
average = "subsets"
subsets = { a = 1, b = 1 }
metrics = ["psnr"]
better = "lower"
reference = "Base"
costs = [{ cost = "runtime_ms", function = "exp" }]
mean_gates = [{ name = "q", metric = "psnr", least = { a = 20.0, b = 20.0 } }]
source = "tests"
"""


def test_score_takes_what_bench_measured_from_beside_the_results(ntire, tmp_path):
    (tmp_path / "mine.toml").write_text(RULES)
    for number, subset in enumerate("ab"):
        write_png(tmp_path / "gt" / subset / "x.png", scene(40, 48, seed=number))
        for entry in ("Base", "Fast"):
            write_png(tmp_path / "entries" / entry / "images" / subset / "x.png", scene(40, 48, seed=number) // 2 * 2)
    for entry, claimed in (("Base", 10.0), ("Fast", 5.0)):
        manifest = f'team = "{entry}"\ntrack = "mine"\ndate = 2026-01-01\n[claims]\nruntime_ms = {claimed}\n'
        (tmp_path / "entries" / entry / "submission.toml").write_text(manifest)
    (tmp_path / "out" / "Fast").mkdir(parents=True)
    bench = {"end_to_end": {"median_ms": 40.0, "mean_ms": 44.0}}
    (tmp_path / "out" / "Fast" / "bench.json").write_text(json.dumps(bench))
    asked = ("score", tmp_path / "entries", "--track", tmp_path / "mine.toml", "--gt", tmp_path / "gt")
    ran = ntire(*asked, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    rows = {
        row["entry"]: row for row in csv.DictReader((tmp_path / "out" / "leaderboard.csv").read_text().splitlines())
    }
    assert (rows["Base"]["rank"], rows["Base"]["cost/runtime_ms_source"]) == ("1", "claimed")
    assert (rows["Fast"]["rank"], rows["Fast"]["cost/runtime_ms_source"]) == ("2", "bench.json")
    assert float(rows["Fast"]["total"]) == pytest.approx(math.exp(2 * 40 / 10))
    assert float(rows["Fast"]["q/a_margin"]) > 0


def test_an_entry_that_equals_the_truth_passes_a_rounded_gate_and_is_written(tmp_path):
    (tmp_path / "t.csv").write_text(
        "team,psnr_valid,psnr_test,runtime_ms,params_m,flops_g\nSPAN,26.94,27.01,7.74,0.151,9.83\nTruth,inf,inf,1e9,0.1,9\n"
    )
    board = ranked(lines_of(tmp_path / "t.csv", load_track("esr-2026")))
    assert [(line.team, line.valid, line.total) for line in board][1] == ("Truth", True, float("inf"))
    write_leaderboard(tmp_path, board)
    _, truth = json.loads((tmp_path / "leaderboard.json").read_text(), parse_constant=pytest.fail)
    assert (truth["total"], truth["mean_gates"][0]["mean"]) == ("inf", "inf")
