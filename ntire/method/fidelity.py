"""How each method stands to its report: the statements of its passage one by one, from the tables beside the methods.

A table is `teams/<track>/fidelity.toml`; what it may hold is what `mistakes_of` does not find. Its rows are four words each:
sentences of the passage, the statement in our words, its status, and a place in the code below `teams`.
"""

import importlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

Status = Literal["as stated", "read as", "differs because", "missing because", "context"]
"""`context` is what nothing follows from for the method: headings, motives, hardware."""
WITH_REASON: tuple[Status, ...] = ("read as", "differs because", "missing because")


@dataclass(frozen=True)
class Statement:
    """One row of a table."""

    sentences: str
    """Numbers and ranges, such as "1-4,6"."""
    says: str
    status: str
    reason: str
    code: str
    """Module and symbol below `teams`, such as "raw.mialgo:MiAlgo.recipe"; empty for context."""

    @property
    def numbers(self) -> set[int]:
        """The sentences that it accounts for."""
        found: set[int] = set()
        for part in self.sentences.split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
        return found


@dataclass(frozen=True)
class Passage:
    """What a report says of one method."""

    team: str
    track: str
    source: str
    sentences: int
    """How many its passage has, run-in headings counted."""
    report: str
    """The report's name among the project's sources."""
    stretches: tuple[tuple[str, str], ...]
    """The parts of the report that the passage consists of: the beginnings of their first line and of the line behind."""
    marks: tuple[str, ...]
    """Four digits of the hash of each sentence, which hold the numbering."""
    statements: tuple[Statement, ...]


@cache
def passages() -> tuple[Passage, ...]:
    """All tables, by track in the order of their files."""
    found: list[Passage] = []
    for track in ("raw", "srgb", "face", "general", "esr"):
        table = files("ntire.teams") / track / "fidelity.toml"
        if table.is_file():
            found += [_passage(track, one) for one in tomllib.loads(table.read_text("utf-8"))["method"]]
    return tuple(found)


def _passage(track: str, table: dict[str, Any]) -> Passage:
    statements = []
    for sentences, says, status, code in table["rows"]:
        name, _, reason = status.partition(": ")
        statements.append(Statement(sentences, says, name, reason, code))
    stretches = tuple((first, behind) for first, behind in table["stretches"])
    marks = tuple(table["marks"].split())
    return Passage(
        table["team"], track, table["passage"], table["sentences"], table["report"], stretches, marks, tuple(statements)
    )


def mistakes_of(passage: Passage) -> list[str]:
    """What is wrong with a table: sentences that no row accounts for, or that there are not; statuses that are not ours or lack
    their reason; places in the code that are not there.
    """
    covered = {number for one in passage.statements for number in one.numbers}
    expected = set(range(1, passage.sentences + 1))
    found = [f"no row accounts for sentence {number}" for number in sorted(expected - covered)]
    found += [f"there is no sentence {number}" for number in sorted(covered - expected)]
    if len(passage.marks) != passage.sentences:
        found.append(f"{len(passage.marks)} marks for {passage.sentences} sentences")
    for one in passage.statements:
        if one.status not in get_args(Status):
            found.append(f"{one.sentences}: {one.status!r} is not one of {', '.join(get_args(Status))}")
        if (one.status in WITH_REASON) != bool(one.reason):
            found.append(f"{one.sentences}: {one.status} {'without a' if not one.reason else 'with a'} reason")
        if (one.status == "context") != (not one.code):
            found.append(f"{one.sentences}: {one.status} {'without a' if not one.code else 'with a'} place in the code")
        if one.code and not is_there(one.code):
            found.append(f"{one.sentences}: there is no {one.code}")
    return [f"{passage.team} {passage.track}: {one}" for one in found]


def is_there(code: str) -> bool:
    """Whether a place in the code, `module:symbol.attribute` below `teams`, exists."""
    module, _, path = code.partition(":")
    try:
        value: Any = importlib.import_module(f"ntire.teams.{module}")
        for name in path.split(".") if path else ():
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return False
    return True


def counts(statements: Iterable[Statement]) -> dict[str, int]:
    """How many statements have each status, context left out."""
    found = {status: 0 for status in get_args(Status) if status != "context"}
    for one in statements:
        if one.status in found:
            found[one.status] += 1
    return found


def markdown(chosen: Iterable[Passage]) -> str:
    """The tables as a document."""
    lines = [
        "# What the reports say, and what is here",
        "",
        "Made by `ntire teams --fidelity --markdown`. For each method the statements of its report, in our words, with the "
        "sentences of the passage that they stand in (run-in headings counted); their status; and the place in the code. "
        "Sentences from which nothing follows for the method are listed as context.",
    ]
    for passage in chosen:
        lines += [
            "",
            f"## {passage.team}, {passage.track}",
            "",
            f"{passage.source}; {passage.sentences} sentences.",
            "",
        ]
        lines += ["| sentences | statement | status | code |", "| --- | --- | --- | --- |"]
        for one in passage.statements:
            status = f"{one.status}: {one.reason}" if one.reason else one.status
            code = f"`{one.code}`" if one.code else ""
            cells = (one.sentences, one.says, status, code)
            lines.append(f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"
