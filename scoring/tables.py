"""The files that hold scores and ranks: UTF-8, stable in order, numbers unrounded, safe to open in a spreadsheet."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ntire.files import write_atomically, write_together
from ntire.scoring.budgets import Name, Spent
from ntire.scoring.efficiency import as_json as efficiency_as_json
from ntire.scoring.leaderboard import BINS, Line
from ntire.scoring.metrics import METRICS
from ntire.scoring.score import Row
from ntire.scoring.statistics import sensitivity
from ntire.text import markdown_cell, markdown_table, printable_json, spreadsheet_cell

Cell = str | bool | int | float | None
COUNTS = ("rank", "rank_low", "rank_high", "images", "scored")
"""Columns of whole numbers."""
OF_SET, BROKEN = "set", "broken rule"
"""Statuses of rows of `scores.csv` that are of no image."""


def write_scores(
    path: Path, rows: Sequence[Row], of_set: Mapping[str, float], metrics: Sequence[str], broken: Sequence[str] = ()
) -> None:
    """Write `scores.csv`: image, subset, status, the metrics unrounded, problem; below, a row of status `set` with the
    metrics that have one value for all images together, and where subsets count alike one for each of them; last, a row of
    status `broken rule` for each rule that the entry breaks beyond its images.
    """
    write_atomically(path, scores_text(rows, of_set, metrics, broken))


def scores_text(
    rows: Sequence[Row], of_set: Mapping[str, float], metrics: Sequence[str], broken: Sequence[str] = ()
) -> str:
    """What `write_scores` writes."""
    return _csv(_scores(rows, of_set, metrics, broken))


def write_leaderboard(folder: Path, lines: Sequence[Line], name: str = "leaderboard") -> None:
    """Write `<name>.csv`, `.md` and `.json` for lines that are already ranked."""
    write_together(leaderboard_files(folder, lines, name))


def leaderboard_files(folder: Path, lines: Sequence[Line], name: str = "leaderboard") -> dict[Path, str]:
    """What `write_leaderboard` writes, by its places."""
    return {
        folder / f"{name}.csv": _csv(_columns(lines)),
        folder / f"{name}.md": markdown(lines),
        folder / f"{name}.json": printable_json(as_json(lines), indent=2) + "\n",
    }


def scores_frame(rows: Sequence[Row], of_set: Mapping[str, float], metrics: Sequence[str]) -> pd.DataFrame:
    """`scores.csv` as a table to compute with: metrics are float64, NaN where an image has no value."""
    return _scores(rows, of_set, metrics).astype(dict.fromkeys(metrics, "float64"))


def leaderboard_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """`leaderboard.csv` as a table to compute with: numbers are numbers, <NA> or NaN where there is none; `valid` is bool."""
    frame = _columns(lines)
    counts = [name for name in frame if name in COUNTS or name.endswith("_failed")]
    words = {"entry", "team", "track", "valid", "reproduced", "problems", "notes", "versions", *counts}
    words |= {name for name in frame if name.endswith("_source")}
    counts += [name for name in frame if name.startswith("rank/")]
    words |= {*counts}
    numbers = [name for name in frame if name not in words]
    return frame.astype({"valid": "bool"} | dict.fromkeys(counts, "Int64") | dict.fromkeys(numbers, "float64"))


def cells(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and rounded cells of the table that people read."""
    metrics = _metrics(lines)
    intervals = any(line.uncertainty for line in lines)
    gates = any(line.gates for line in lines)
    header = ["rank", "entry", "team", "track", "total"]
    header += ["95 %", "ranks"] if intervals else []
    header += [f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}" for metric in metrics]
    by_subset = _by_subset(lines)
    # An entry with a gap has means of the subsets that are whole, though none of all.
    subsets = [(metric, subset) for metric, subset in by_subset if metric == by_subset[0][0]]
    header += [subset for _, subset in subsets]
    header += list(dict.fromkeys(one.name for line in lines for one in line.costs))
    header += [f"rank {name}" for name in _rankings(lines)]
    header += ["failed"] if gates else []
    header += ["images", "remarks"]
    return header, [_cells(line, metrics, subsets, intervals, gates, _rankings(lines)) for line in lines]


def legend(lines: Sequence[Line]) -> list[str]:
    """What columns of `cells` mean that do not say it themselves."""
    if not any(line.uncertainty for line in lines):
        return []
    return [
        "95 %: where the total would lie, and ranks: the ranks it would get, in 95 of 100 draws of as many images "
        "(with repeats, the same ones for all entries)."
    ]


def _cells(
    line: Line,
    metrics: Sequence[str],
    subsets: Sequence[tuple[str, str]],
    intervals: bool,
    gates: bool,
    rankings: Sequence[str],
) -> list[str]:
    row = [_rank(line), line.entry, line.team, line.track.name, _rounded(line.total, line.track.decimals)]
    if intervals:
        own = line.uncertainty
        row += [f"{own.total[0]:.3f}..{own.total[1]:.3f}", f"{own.rank[0]}..{own.rank[1]}"] if own else ["", ""]
    row += [_rounded(line.means.get(metric), line.track.decimals) for metric in metrics]
    row += [_rounded(line.by_subset.get(metric, {}).get(subset), line.track.decimals) for metric, subset in subsets]
    row += [] if not line.costs else [f"{one.value:.4g}" if one.value is not None else "" for one in line.costs]
    row += [str(line.rankings[name].rank or "") if name in line.rankings else "" for name in rankings]
    if gates:
        row.append("; ".join(f"{result.failed} of {result.gate.max_failures}" for result in line.gates))
    reproduced = [f"reproduced: {line.reproduced}"] if line.reproduced else []
    sources = [f"{one.name} {one.source}" for one in line.budgets if one.source]
    budgets = [f"budgets: {', '.join(sources)}"] if sources else []
    known = [f"{one.name} {one.source}" for one in line.costs if one.source not in ("", "table")]
    budgets += [f"costs: {', '.join(known)}"] if known else []
    return [*row, f"{line.scored}/{line.images}", "; ".join([*line.problems, *line.notes, *budgets, *reproduced])]


def markdown(lines: Sequence[Line]) -> str:
    """The table, how ranks move when one metric is left out, and the margins at the gates."""
    parts = [_table(*cells(lines)), *(f"\n{one}\n" for one in legend(lines))]
    for name in dict.fromkeys(line.track.name for line in lines):
        of_track = [line for line in lines if line.track.name == name]
        placed = [line for line in of_track if line.rank is not None]
        moved = sensitivity(of_track[0].track, {at: (line.total, line.means) for at, line in enumerate(placed)})
        if moved:
            header = ["entry", "rank", *(f"without {metric}" for metric in list(moved)[1:])]
            rows = [[one.entry, *(str(ranks[at]) for ranks in moved.values())] for at, one in enumerate(placed)]
            parts.append(f"\n## {name}: ranks when one metric is left out\n\n{_table(header, rows)}")
        for number, gate in enumerate(of_track[0].track.gates):
            counted = [line for line in of_track if number < len(line.gates) and line.gates[number].histogram]
            if counted:
                edges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(BINS)]
                rows = [[line.entry, *map(str, line.gates[number].histogram)] for line in counted]
                title = f"\n## {name}: images by their distance above the threshold of gate {gate.name}\n\n"
                parts.append(title + _table(["entry", *edges], rows))
    return "".join(parts)


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One object a line; an infinite value is the string "inf", as JSON has no number for it."""
    return [
        {
            "rank": line.rank,
            "entry": line.entry,
            "team": line.team,
            "track": line.track.name,
            "valid": line.valid,
            "total": _finite(line.total),
            "metrics": {name: _finite(value) for name, value in line.means.items()},
            "subsets": {
                name: {subset: _finite(value) for subset, value in of.items()} for name, of in line.by_subset.items()
            },
            "images": line.images,
            "scored": line.scored,
            "gates": [
                {
                    "name": result.gate.name,
                    "failed": result.failed,
                    "allowed": result.gate.max_failures,
                    "worst": result.worst,
                    "histogram": list(result.histogram),
                }
                for result in line.gates
            ],
            "budgets": [result.as_json() for result in line.budgets],
            **_efficiency_as_json(line),
            "uncertainty": None
            if line.uncertainty is None
            else {
                "total": list(line.uncertainty.total),
                "rank": list(line.uncertainty.rank),
                "better_than_next": line.uncertainty.better_than_next,
            },
            "reproduced": line.reproduced,
            "problems": list(line.problems),
            "notes": list(line.notes),
            "versions": dict(line.versions),
        }
        for line in lines
    ]


def _scores(
    rows: Sequence[Row], of_set: Mapping[str, float], metrics: Sequence[str], broken: Sequence[str] = ()
) -> pd.DataFrame:
    table: list[list[Cell]] = [
        [row.image, row.subset, row.status, *map(row.values.get, metrics), row.problem] for row in rows
    ]
    for subset in dict.fromkeys(name.partition("/")[2] for name in of_set):
        of = [of_set.get(f"{metric}/{subset}" if subset else metric) for metric in metrics]
        table.append(["", subset, OF_SET, *of, ""])
    table += [["", "", BROKEN, *(None for _ in metrics), one] for one in broken]
    return pd.DataFrame(table, columns=["image", "subset", "status", *metrics, "problem"], dtype=object)


def _columns(lines: Sequence[Line]) -> pd.DataFrame:
    """The columns of leaderboard.csv; None where a line has no value."""
    metrics = _metrics(lines)
    gates = list(dict.fromkeys(gate.name for line in lines for gate in line.track.gates))
    budgets = list(dict.fromkeys(name for line in lines for name in line.track.budgets.limits()))
    header = ["rank", "entry", "team", "track", "valid", "total", *metrics]
    for gate in gates:
        header += [f"{gate}_failed", f"{gate}_margin", f"{gate}_worst"]
    sourced = any(one.source for line in lines for one in line.budgets)
    costs = list(dict.fromkeys(one.name for line in lines for one in line.costs))
    rankings = list(dict.fromkeys(name for line in lines for name in line.rankings))
    at_means = list(dict.fromkeys((one.gate.name, one.subset) for line in lines for one in line.at_mean_gates))
    for cost in costs:
        header += [f"cost/{cost}", f"cost/{cost}_source"]
    for ranking in rankings:
        header += [f"total/{ranking}", f"rank/{ranking}"]
    header += [f"{gate}/{subset}_margin" for gate, subset in at_means]
    for budget in budgets:
        header += [budget, f"{budget}_margin", *([f"{budget}_source"] if sourced else [])]
    subsets = _by_subset(lines)
    header += [f"{metric}/{subset}" for metric, subset in subsets]
    header += ["total_low", "total_high", "rank_low", "rank_high", "better_than_next"]
    header += ["images", "scored", "reproduced", "problems", "notes", "versions"]
    rows = [
        [*own[: 6 + len(metrics) + 3 * len(gates)], *_efficiency(line, costs, rankings, at_means),
         *own[6 + len(metrics) + 3 * len(gates) :]]
        for line in lines
        if (own := _columns_of(line, metrics, gates, budgets, subsets, sourced))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=header, dtype=object)


def _efficiency_as_json(line: Line) -> dict[str, Any]:
    """Costs, means at gates and further rankings, for tracks that have any."""
    track = line.track
    ranks = {name: {"total": _finite(one.total), "rank": one.rank} for name, one in line.rankings.items()}
    found = efficiency_as_json(line.costs, line.at_mean_gates) if track.cost_terms or track.mean_gates else {}
    return found | ({"rankings": ranks} if track.rankings else {})


def _efficiency(
    line: Line, costs: Sequence[Name], rankings: Sequence[str], at_means: Sequence[tuple[str, str]]
) -> list[Cell]:
    """Cells of what it costs, of its further ranks, and of its means' margins."""
    row: list[Cell] = []
    known = {one.name: one for one in line.costs}
    for cost in costs:
        one = known.get(cost)
        row += [one.value, one.source or None] if one else [None] * 2
    for ranking in rankings:
        own = line.rankings.get(ranking)
        row += [own.total, own.rank] if own else [None] * 2
    margins = {(one.gate.name, one.subset): one.margin for one in line.at_mean_gates}
    return [*row, *map(margins.get, at_means)]


def _columns_of(
    line: Line,
    metrics: Sequence[str],
    gates: Sequence[str],
    budgets: Sequence[str],
    subsets: Sequence[tuple[str, str]],
    sourced: bool,
) -> list[Cell]:
    row: list[Cell] = [line.rank, line.entry, line.team, line.track.name, line.valid, line.total]
    row += map(line.means.get, metrics)
    at_gate = {result.gate.name: result for result in line.gates}
    for gate in gates:
        passed = at_gate.get(gate)
        row += [passed.failed, passed.margin, passed.worst] if passed else [None] * 3
    spent: dict[str, Spent] = {result.name: result for result in line.budgets}
    for budget in budgets:
        held = spent.get(budget)
        row += [held.value, held.margin] if held else [None] * 2
        row += [held.source or "claimed" if held and held.value is not None else None] if sourced else []
    row += [line.by_subset.get(metric, {}).get(subset) for metric, subset in subsets]
    own = line.uncertainty
    row += [*own.total, *own.rank, own.better_than_next] if own else [None] * 5
    versions = "; ".join(f"{name}: {version}" for name, version in line.versions.items())
    problems, notes = "; ".join(line.problems), "; ".join(line.notes)
    return [*row, line.images, line.scored, line.reproduced, problems, notes, versions]


def _rankings(lines: Sequence[Line]) -> list[str]:
    """The further rankings of the tracks."""
    return list(dict.fromkeys(name for line in lines for name in line.rankings))


def _metrics(lines: Sequence[Line]) -> list[str]:
    """Columns: every metric that some line has, in the order of the tracks' rules."""
    wanted = dict.fromkeys(name for line in lines for name in line.track.known_metrics)
    return [name for name in wanted if any(name in line.means for line in lines)]


def _by_subset(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Columns: every metric and subset that some line has a mean for, in the order of the tracks' rules."""
    wanted = dict.fromkeys(
        (name, one) for line in lines for name in line.track.known_metrics for one in line.track.subsets
    )
    return [(name, one) for name, one in wanted if any(one in line.by_subset.get(name, {}) for line in lines)]


def _rank(line: Line) -> str:
    return "N/A" if line.rank is None else str(line.rank)


def _rounded(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _finite(value: float | None) -> float | str | None:
    return str(value) if value is not None and math.isinf(value) else value


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; names cannot break out of their cell."""
    return markdown_table(header, ([markdown_cell(cell) for cell in row] for row in rows)) + "\n"


def _csv(table: pd.DataFrame) -> str:
    """CSV; text that a spreadsheet would take for a formula gets an apostrophe in front, what a terminal would act on is
    escaped, numbers stay numbers.
    """
    shown = table.map(_cell)
    if "rank" in shown:
        shown["rank"] = shown["rank"].replace("", "N/A")
    text: str = shown.to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        spreadsheet_cell(value)
        if isinstance(value, str)
        else format(value, ".10g" if isinstance(value, float) else "d")
    )
