"""The final of a challenge with a second part that no program can mark: a table of marks joined to a ranking of the first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ntire import UserError
from ntire.scoring.leaderboard import Line, ranked
from ntire.scoring.spreadsheet import read_table
from ntire.scoring.track import Final, Track
from ntire.text import nearest


@dataclass(frozen=True)
class Phase3Marks:
    """What a table of marks says."""

    of: Literal["entry", "team"]
    """What it names: of two entries of one team, one that it names by itself must not lend its marks to the other."""
    by_name: Mapping[str, Mapping[str, float]]
    """The mark in each input of phase 3."""

    def name(self, line: Line) -> str:
        """What it calls an entry."""
        return line.entry if self.of == "entry" else line.team


def read_marks(path: Path, track: Track) -> Phase3Marks:
    """The marks of phase 3 from a CSV with `entry` or `team` and a column for each input that the track's rules name.

    Raises UserError for a track without a phase 3, and one that lists all missing columns, cells that are not numbers, and
    names that stand there twice.
    """
    inputs = _final(track).inputs
    table = read_table(path)
    named: Literal["entry", "team"] = "entry" if "entry" in table.header else "team"
    table.require([named, *inputs])
    marks: dict[str, dict[str, float]] = {}
    problems = []
    for number, row in table.rows:
        name = row[named]
        if name in marks:
            problems.append(f"line {number}: {name} stands here twice")
        marks[name] = {}
        for column in inputs:
            try:
                marks[name][column] = table.number(row[column])
            except ValueError:
                marks[name][column] = math.nan
            if not math.isfinite(marks[name][column]):
                problems.append(f"line {number}: {column}: expected a number, found {row[column]!r}")
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return Phase3Marks(named, marks)


def with_phase3(lines: Sequence[Line], marks: Phase3Marks) -> list[Line]:
    """Lines ranked by w2 x phase 2 + w3 x phase 3, where phase 3 is the weighted sum of a team's marks.

    An entry without marks has no final: it is listed with that reason. Intervals are left out, as they are phase 2's alone.
    Raises UserError for marks of nobody.
    """
    names = {marks.name(line) for line in lines}
    if strangers := [name for name in marks.by_name if name not in names]:
        near = nearest(strangers, sorted(names))
        raise UserError(
            f"the table of marks has the {marks.of} {', '.join(strangers)}, expected one of {', '.join(sorted(names))}.{near}"
        )
    return ranked([_with_marks(line, marks) for line in lines])


def _with_marks(line: Line, marks: Phase3Marks) -> Line:
    final = _final(line.track)
    own = marks.by_name.get(marks.name(line))
    line = replace(line, sample=None, uncertainty=None, rank=None)
    if own is None:
        return replace(line, total=None, problems=(*line.problems, "no marks of phase 3"))
    phase3 = sum(weight * own[name] for name, weight in final.inputs.items())
    parts = {"phase2": line.total, **own, "phase3": phase3}
    shown = ", ".join(f"{name} {value:.10g}" for name, value in parts.items() if value is not None)
    total = None if line.total is None else final.w2 * line.total + final.w3 * phase3
    return replace(line, total=total, notes=(*line.notes, f"final of {shown}"))


def _final(track: Track) -> Final:
    if track.final is None:
        raise UserError(f"track {track.name} has no phase 3: its rules have no table `final`.")
    return track.final
