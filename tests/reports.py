"""The source reports as numbered sentences: what the tables in teams/*/fidelity.toml count.

A passage is one or several stretches of a report's lines. Captions, tables and short headings are left out; the rest is joined
and split at full stops; the lines of an algorithm, and rows of tables that a stretch names alone, are one sentence each.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

REPORTS = {
    "raim": "000_0f2fc050ae18bf62.txt",
    "face": "001_32f5189dd36c72ea.txt",
    "mirage": "002_594b0c6d811e6852.txt",
    "uir-lora": "003_b06b78fbedc08666.txt",
    "lu": "004_0d2004a47f6af574.txt",
}
"""Files by the names that the tables use."""
SHORTENED = "".join(
    rf"(?<!{word}\.)"
    for word in (
        r"\bFig",
        r"\bFigs",
        r"\bEq",
        r"\bEqs",
        r"\bTab",
        r"\bSec",
        r"\bAlg",
        r"i\.e",
        r"e\.g",
        r"et al",
        r"w\.r\.t",
    )
)
END = re.compile(SHORTENED + r"(?<=[.!?])\s+(?=[A-Z\[*\-(“\"$])")
NO_TEXT = re.compile(r"(Figure|Table|Refer to caption|\||!\[|\S{0,9}Cited by)")


def sentences_of(lines: Iterable[str]) -> list[str]:
    """The sentences of a stretch of lines, in order."""
    found: list[str] = []
    text: list[str] = []

    def flush() -> None:
        joined = re.sub(r"\s+", " ", " ".join(text))
        found.extend(part.strip() for part in END.split(joined) if re.search(r"\w", part))
        text.clear()

    for line in map(str.strip, lines):
        if re.match(r"(- )?\d+:", line):
            flush()
            found.append(line)
        elif line and not NO_TEXT.match(line) and "\t" not in line and not _is_heading(line):
            text.append(re.sub(r"^(- )?(\*\*)?\d+\. ", r"\2", line))  # numbers of lists
    flush()
    return found


def _is_heading(line: str) -> bool:
    """A short line that ends no sentence and begins with a capital or a number, as headings and cells do."""
    return len(line) < 60 and not re.search(r"[.!?:,;)$]\W*$", line) and re.match(r"[#\dA-Z]", line) is not None


def passage(text: str, stretches: Sequence[Sequence[str]]) -> list[str]:
    """The sentences of stretches of a report's text, each (beginning of its first line, beginning of the line behind it).

    With an empty second one the first line alone is the sentence. Raises ValueError for a beginning that is not there.
    """
    lines = text.splitlines()
    found = []
    for first, behind in stretches:
        start = _line(lines, first, 0)
        found += sentences_of(lines[start : _line(lines, behind, start + 1)]) if behind else [lines[start].strip()]
    return found


def _line(lines: Sequence[str], beginning: str, after: int) -> int:
    for number in range(after, len(lines)):
        if lines[number].strip().startswith(beginning):
            return number
    raise ValueError(f"no line behind {after} begins with {beginning!r}")


def marks(sentences: Iterable[str]) -> str:
    """Four digits for each sentence, by which another numbering is noticed."""
    return " ".join(sha256(one.encode()).hexdigest()[:4] for one in sentences)


def read(folder: Path, report: str) -> str:
    """A report's text."""
    return (folder / REPORTS[report]).read_text("utf-8")
