"""Text of strangers, made safe to show, and names that a user may have meant."""

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet takes for a formula."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)


def meant(name: str, names: Iterable[str]) -> str:
    """The nearest of the names as a question, "Did you mean a or b?", or all of them where none is near."""
    known = list(dict.fromkeys(filter(None, names)))
    return nearest([name], known).lstrip() or f"There are: {', '.join(known) or 'none'}."


def nearest(names: Iterable[str], known: Iterable[str]) -> str:
    """What may be meant by some names, as a question behind a sentence, " Did you mean a or b?"; empty where none is near."""
    lowered = {one.lower(): one for one in known if one}
    found = [
        lowered[match] for name in names for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    ]
    return f" Did you mean {' or '.join(dict.fromkeys(found))}?" if found else ""


def printable(text: str) -> str:
    """`text` with every character escaped that a terminal acts on or that looks like nothing; line breaks stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def printable_json(value: Any, **options: Any) -> str:
    """JSON in readable letters, but for those that `printable` escapes; the value that it stands for is the same, but that an
    infinite number is the string "inf" or "-inf", as JSON has no number for it.
    """
    text = json.dumps(_infinite_in_words(value), ensure_ascii=False, **options)
    return "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)


def _infinite_in_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _infinite_in_words(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_infinite_in_words(one) for one in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def spreadsheet_cell(text: str) -> str:
    """Text that a spreadsheet takes for text: an apostrophe goes before what it would take for a formula.

    Blanks in front are passed over and full-width signs taken for plain ones, as spreadsheets do. Line breaks are escaped.
    A number stays a number.
    """
    if NUMBER.fullmatch(text):
        return text
    begins = unicodedata.normalize("NFKC", text).lstrip()
    risky = begins.startswith(FORMULA) or text[:1] in ("\t", "\r", "\n")
    return printable(f"'{text}" if risky else text).replace("\n", "\\n")


def markdown_cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table and becomes no link, picture, mention or HTML."""
    escaped = re.sub(r"([\\|`\[\]])", r"\\\1", printable(text).replace("\n", " "))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
    # GitHub makes links of bare addresses.
    return re.sub(r"(?i)://|\bwww\.", lambda found: found[0].replace(":", "&#58;").replace(".", "&#46;"), escaped)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown themselves: what strangers wrote goes through `markdown_cell` first."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))
