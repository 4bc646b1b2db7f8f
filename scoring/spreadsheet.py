"""Tables that people made: CSV as programs and spreadsheets write it, read as text, cell by cell.

Comma, semicolon (Excel where the comma is decimal) or tab between the cells; UTF-8 with or without a byte order mark, or
UTF-16 (Excel's "Unicode text"); quoted cells may hold anything. Empty rows are passed over.
"""

import codecs
import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ntire import UserError

SEPARATORS = (",", ";", "\t")
FORMULAS = ("=", "+", "-", "@")
"""What a spreadsheet takes a cell for a formula by; tables of ours put an apostrophe in front."""


@dataclass(frozen=True)
class Table:
    """A CSV file's cells as text."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    """Number of the row in the file, the header being 1, and its cells by column; an empty cell is the empty string."""
    decimal: str
    """What the file may write for the point in a number."""

    def number(self, cell: str) -> float:
        """A cell's number. Raises ValueError for a cell that holds none."""
        if "_" in cell:  # Python reads 3_1 as 31
            raise ValueError(cell)
        comma = self.decimal == "," and re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", cell)
        return float(cell.replace(",", ".") if comma else cell)

    def require(self, columns: Iterable[str]) -> None:
        """Raise UserError unless it has the columns."""
        wanted = list(columns)
        missing = [column for column in wanted if column not in self.header]
        if missing:
            raise UserError(
                f"{self.path}: expected the columns {', '.join(wanted)}; found none of {', '.join(missing)}. "
                f"It has: {', '.join(self.header)}."
            )


def read_table(path: Path) -> Table:
    """Read a CSV file. Raises UserError for one that is no table, or has no row below its header."""
    import pandas as pd

    text = _text(path)
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep="):  # Excel's own hint
        separator, text = first.strip()[4:] or ",", rest
    else:
        # Outside of quotes only: a quoted cell may hold any of them.
        bare = re.sub(r'"[^"]*"', "", first)
        separator = max(SEPARATORS, key=bare.count)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text), sep=separator, header=None, dtype=str, na_filter=False, skip_blank_lines=False
            ).fillna("")
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: expected a header and at least one row, found an empty file.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}.") from None
    lines = [[str(cell).strip() for cell in row] for row in frame.itertuples(index=False)]
    header = tuple(_plain(cell) for cell in lines[0])
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the columns {', '.join(twice)} stand there twice.")
    rows = tuple(
        (number, dict(zip(header, map(_plain, row), strict=True)))
        for number, row in enumerate(lines[1:], 2)
        if any(row)
    )
    if not rows:
        raise UserError(f"{path}: expected a header and at least one row, found none.")
    return Table(path, header, rows, "." if separator == "," else ",")


def same_name(name: str) -> str:
    """A name as it is compared: composed Unicode, as Linux and Windows write it and macOS does not."""
    return unicodedata.normalize("NFC", name)


def _plain(cell: str) -> str:
    """A cell without the apostrophe that keeps a spreadsheet from taking it for a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULAS) else cell


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected UTF-8 or UTF-16 text, found another encoding at byte {error.start}. "
            "Save it as `CSV UTF-8`, as spreadsheets call it."
        ) from None
    return text.replace("\r\n", "\n")
