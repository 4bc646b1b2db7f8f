"""What `ntire study results` writes: tidy tables, JSON, the marks of phase 3, and a page to read."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ntire import __version__
from ntire.files import writable_folder, write_together
from ntire.study.outcome import LEVEL, RESAMPLES, Between
from ntire.study.results import StudyResults
from ntire.text import printable_json, spreadsheet_cell

Cell = str | int | float | bool | None


def write_results(
    out: Path, found: StudyResults, others: tuple[Sequence[str], Mapping[str, Sequence[str]]] | None
) -> None:
    """Write everything, all or nothing; `others` are columns and cells of other marks to stand beside the study's."""
    from ntire.study.page import as_page

    writable_folder(out)
    write_together({
        out / "votes.csv": votes_table(found),
        out / "observers.csv": observers_table(found),
        out / "results.csv": results_table(found),
        out / "pairs.csv": pairs_table(found),
        out / "metrics.csv": metrics_table(found),
        out / "marks.csv": marks_table(found, others),
        out / "results.json": printable_json(as_json(found), indent=2, allow_nan=False) + "\n",
        out / "index.html": as_page(found),
    })  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """CSV in which no cell is a formula; empty cells for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(cell) for cell in row])
    return text.getvalue()


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.6g}" if isinstance(cell, float) else spreadsheet_cell(str(cell))


def votes_table(found: StudyResults) -> str:
    """One line an answer: who, what, when, and whether it counts."""
    design, kept = found.design, found.kept
    names = [*(one.name for one in design.entries), "degraded"]
    most = design.shown_at_once
    header = ["observer", "position", "role", "picture", "region", "criterion"]
    header += [f"{what}_{place + 1}" for place in range(most) for what in ("entry", "answer")] + [
        "seconds",
        "at",
        "counts",
    ]
    rows = []
    for vote in found.votes:
        shown = [cell for entry, answer in zip(vote.shown, vote.answer, strict=True) for cell in (names[entry], answer)]
        rows.append([
            vote.observer, vote.position + 1, vote.role, design.regions[vote.region].picture, vote.region, vote.criterion,
            *shown, vote.seconds, vote.at, vote.observer in kept,
        ])  # fmt: skip
    return table(header, rows)


def observers_table(found: StudyResults) -> str:
    """One line an observer, by number: what each rule of the screening found, and the rules that are broken."""
    header = ["observer", "answered", "of", "counts", "anchors_failed", "repeats_changed", "one_side", "far_scores"]
    header += ["width", "height", "pixel_ratio", "screen_test", "reasons"]
    rows = []
    for one, observer in zip(found.screened, found.observers, strict=True):
        screen = observer.screen
        test = sum(screen[name] for name in ("dark", "light", "colour")) if screen else None
        rows.append([
            one.observer, one.answered, found.design.length, one.kept, one.anchors_failed, one.repeats_changed, one.one_side,
            one.far_scores, screen.get("width"), screen.get("height"), screen.get("ratio"), test, "; ".join(one.reasons),
        ])  # fmt: skip
    return table(header, rows)


def _three(value: Between) -> tuple[float, float, float]:
    return value.value, value.low, value.high


def results_table(found: StudyResults) -> str:
    """One line an entry and question."""
    value = "mos" if found.design.kind == "opinion" else "strength"
    header = ["criterion", "rank", "rank_low", "rank_high", "entry", "team", value, f"{value}_low", f"{value}_high"]
    header += ["share", "share_low", "share_high", "votes"]
    return table(
        header,
        (
            [outcome.criterion, one.rank, one.rank_low, one.rank_high, one.entry, one.team, *_three(one.strength),
             *_three(one.share), one.votes]
            for outcome in found.outcomes
            for one in outcome.entries
        ),
    )  # fmt: skip


def pairs_table(found: StudyResults) -> str:
    """One line for every two entries and question."""
    header = ["criterion", "first", "second", "wins", "losses", "ties", "difference", "low", "high", "told_apart"]
    return table(
        header,
        (
            [
                outcome.criterion,
                one.first,
                one.second,
                one.wins,
                one.losses,
                one.ties,
                *_three(one.difference),
                one.told_apart,
            ]
            for outcome in found.outcomes
            for one in outcome.duels
        ),
    )


def metrics_table(found: StudyResults) -> str:
    """One line a metric and question."""
    header = ["criterion", "metric", "entries", "spearman", "pearson", "votes", "foretold"]
    return table(
        header,
        (
            [criterion, one.metric, one.entries, one.spearman, one.pearson, one.votes, one.foretold]
            for criterion, of_criterion in found.metrics.items()
            for one in of_criterion
        ),
    )


def marks_table(found: StudyResults, others: tuple[Sequence[str], Mapping[str, Sequence[str]]] | None) -> str:
    """What `ntire leaderboard --phase3` reads: one line an entry, its mark in the study, and other marks."""
    columns, cells = others or ((), {})
    header = ["entry", found.design.marks.column, *(name for name in columns if name != found.design.marks.column)]
    places = [place for place, name in enumerate(columns) if name != found.design.marks.column]
    marks = found.marks()
    return table(
        header, ([entry, round(mark, 4), *(cells[entry][place] for place in places)] for entry, mark in marks.items())
    )


def as_json(found: StudyResults) -> dict[str, Any]:
    """Everything but the single votes."""
    return {
        "format": 1,
        "ntire": __version__,
        "title": found.design.title,
        "track": found.design.track,
        "kind": found.design.kind,
        "resamples": RESAMPLES,
        "level": LEVEL,
        "marks": {"column": found.design.marks.column, "of": found.marks()},
        "outcomes": [_outcome(one) for one in found.outcomes],
        "without_screening": [_outcome(one) for one in found.of_all],
        "observers": [asdict(one) | {"kept": one.kept} for one in found.screened],
        "screening": found.design.screening.model_dump(),
        "metrics": {criterion: [asdict(one) for one in of] for criterion, of in found.metrics.items()},
    }


def _outcome(one: Any) -> dict[str, Any]:
    return asdict(one) | {"duels": [asdict(duel) | {"told_apart": duel.told_apart} for duel in one.duels]}
