"""What `ntire study` prints of plans and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ntire.commands.screen import out, print_table, say

if TYPE_CHECKING:
    from ntire.study.design import Design
    from ntire.study.power import Power
    from ntire.study.results import StudyResults


def print_powers(found: Sequence[Power], gaps: Sequence[float], told: Sequence[str], opinion: bool) -> None:
    header = ["observers", "votes", *(f"{gap:g} levels" if opinion else f"{gap:.0%} preferred" for gap in gaps)]
    rows = []
    for start in range(0, len(found), len(gaps)):
        of_count = found[start : start + len(gaps)]
        rows.append([str(of_count[0].observers), str(of_count[0].votes), *(f"{one.power:.2f}" for one in of_count)])
    print_table(header, rows)
    for number in range(len(gaps)):
        enough = next((one for one in found[number :: len(gaps)] if one.power >= 0.8), None)
        how = f"{enough.observers} observers, {enough.votes} votes" if enough else "more observers than asked about"
        out.print(f"{header[2 + number]}: told apart in 8 of 10 studies with {how}", markup=False)
    for line in told:
        out.print(f"- {line}", markup=False)


def print_results(found: StudyResults) -> None:
    """A table for each question, and who is left out."""
    opinion = found.design.kind == "opinion"
    shown = "{:.2f}" if opinion else "{:.1%}"
    for outcome in found.outcomes:
        out.print(outcome.question, markup=False)
        rows = []
        for one in outcome.entries:
            value = one.strength if opinion else one.share
            within = f"{shown.format(value.low)} .. {shown.format(value.high)}"
            ranks = f"{one.rank_low} .. {one.rank_high}"
            rows.append([str(one.rank), one.entry, one.team, shown.format(value.value), within, ranks])
        print_table(["rank", "entry", "team", "mean" if opinion else "wins", "95 %", "rank, 95 %"], rows)
        agreed = {"Krippendorff's alpha": outcome.alpha, "Kendall's W": outcome.concordance}
        words = [f"{name} {value:.2f}" for name, value in agreed.items() if value is not None]
        told = ", ".join(words) or "too few answers to the same thing to tell agreement"
        out.print(f"{outcome.votes} answers of {outcome.observers} observers; {told}", markup=False)
    for screened in found.screened:
        if not screened.kept:
            out.print(f"observer {screened.observer} left out: {'; '.join(screened.reasons)}", markup=False)


def say_missing_marks(design: Design, others: Sequence[str]) -> None:
    """What the track's final asks for beside the study."""
    from ntire.scoring.track import load_track

    final = load_track(design.track).final
    missing = [name for name in final.inputs if name not in (design.marks.column, *others)] if final else []
    if missing:
        words = "give a CSV of them with --marks, or add the columns to marks.csv"
        say(f"the final of {design.track} also asks for {', '.join(missing)}: {words}")
