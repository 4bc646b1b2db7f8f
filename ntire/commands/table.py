"""Tables for a terminal of any width: a number, name, hash or path is never cut.

What does not fit is narrowed in three steps. Columns of prose are broken between words; columns that a reader misses least are
left out, which is said; at last each row stands by itself, a line for each of its cells.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from ntire.text import printable

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""Blanks between columns."""
PROSE = 20
"""A column of prose is not narrowed below this, if its words allow it: thinner text is hard to read."""


@dataclass(frozen=True)
class Shown:
    """A table laid out for a width."""

    parts: "tuple[Table | Text, ...]"
    left_out: tuple[str, ...] = ()
    """Columns that did not fit."""


@dataclass(frozen=True)
class _Column:
    name: str
    cells: tuple[str, ...]
    prose: bool

    @property
    def natural(self) -> int:
        """Cells that it takes unbroken."""
        return max(_widest(text.split("\n")) for text in (self.name, *self.cells))

    @property
    def narrow(self) -> int:
        """Cells that it takes at least."""
        if not self.prose:
            return self.natural
        return max(min(PROSE, self.natural), *(_widest(text.split()) for text in (self.name, *self.cells)))


def laid_out(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None,
    *,
    prose: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> Shown:
    """The table for a terminal of `width` cells; None for no limit, as in a pipe.

    `prose` names the columns that may be broken between words, `spare` those that may go, the first one first. Names that
    the table does not have are passed over.
    """
    lines = [[printable(cell) for cell in row] for row in rows]
    columns = [
        _Column(name, tuple(line[number] for line in lines), name in prose) for number, name in enumerate(header)
    ]
    there = [name for name in spare if name in header]
    for gone in range(len(there) + 1):
        # A column that nobody has anything in is the first to go, and no loss.
        kept = [column for column in columns if column.name not in there[:gone] and (not gone or any(column.cells))]
        widths = _widths(kept, width)
        if widths is not None:
            return Shown((_table(kept, widths),), tuple(there[:gone]))
    assert width is not None, "without a limit everything fits"
    return Shown(tuple(_stacked(columns, len(lines), width)))


def _widths(columns: Sequence[_Column], width: int | None) -> list[int] | None:
    """A width for each column; None where they do not fit. Prose shares what the others leave, the longest giving way first."""
    widths = [column.natural for column in columns]
    if width is None:
        return widths
    over = sum(widths) + GAP * (len(columns) - 1) - width
    while over > 0:
        able = [number for number, column in enumerate(columns) if widths[number] > column.narrow]
        if not able:
            return None
        widths[max(able, key=lambda number: widths[number])] -= 1
        over -= 1
    return widths


def _table(columns: Sequence[_Column], widths: Sequence[int]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(escape(column.name), width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, row))
    return table


def _stacked(columns: Sequence[_Column], count: int, width: int) -> Iterable[Text]:
    """Each row as lines of a name and a value; empty ones are left out."""
    margin = max(cell_len(column.name) for column in columns) + GAP
    for number in range(count):
        filled = [(column.name, column.cells[number]) for column in columns if column.cells[number]]
        for place, (name, cell) in enumerate(filled):
            lines = between_words(Text(cell), max(width - margin, PROSE)).split("\n", allow_blank=True)
            last = "\n" if place + 1 == len(filled) and number + 1 < count else ""
            value = Text("\n" + " " * margin).join(lines)
            yield Text.assemble((name + " " * (margin - cell_len(name)), "bold"), value, last)


def between_words(text: Text, width: int) -> Text:
    """The text in lines of that width where its words allow it: a longer word stays whole."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        breaks, used = [], 0
        for word in re.finditer(r"\s*\S+\s*", str(line)):
            if used and used + cell_len(word[0].rstrip()) > width:
                breaks.append(word.start())
                used = 0
            used += cell_len(word[0])
        lines += line.divide(breaks)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _widest(words: Sequence[str]) -> int:
    return max(map(cell_len, words), default=0)
