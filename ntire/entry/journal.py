"""An append-only record of what is done, one JSON line each; it survives being killed at any moment.

The first line says what the run is (`Header`); a run with another header may not go on in the same journal. A line is
flushed to the disk before the work counts as done; a torn last line is cut off when the journal is opened again.
"""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ntire import UserError

FORMAT = 1
"""Of the lines; raised when their meaning changes."""

Line = dict[str, Any]


class Journal:
    """A journal open for writing, locked against a second writer until it is closed. Use it in a `with` statement."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Open or begin the journal at `path`.

        `fresh` forgets what it holds. Raises UserError if another process writes it, if it is of another format, or if
        its header differs from `header` (the message names what differs).
        """
        self.path = path
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"{path}: another run is writing here. Wait for it to end, or choose another folder with -o."
            ) from None
        if fresh:
            self._file.truncate(0)
        self.lines = self._recover()
        wanted: Line = {"format": FORMAT, **header}
        if self.lines:
            self._same_run(self.lines.pop(0), wanted)
        else:
            self.append(wanted)
            self.lines.clear()

    def append(self, line: Line) -> None:
        """Add a line and flush it to the disk; raises OSError, with nothing added, if that has no room."""
        text = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        file = self._file.fileno()
        size = os.fstat(file).st_size
        try:
            # Past the buffer, which would keep what it could not write and try again when it is closed.
            if os.write(file, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
        self.lines.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _recover(self) -> list[Line]:
        self._file.seek(0)
        whole, lines = 0, []
        for text in self._file:
            line = _parsed(text)
            if line is None:
                break
            lines.append(line)
            whole += len(text)
        # Whatever follows the last whole line was being written when the process died.
        self._file.truncate(whole)
        return lines

    def _same_run(self, found: Line, wanted: Line) -> None:
        changed = [
            f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
            for name in sorted({*found, *wanted})
            if found.get(name) != wanted.get(name)
        ]
        if changed:
            self._file.close()
            raise UserError(
                f"{self.path}: holds another run:\n  " + "\n  ".join(changed) + "\n"
                "Choose another folder with -o, or start over with --fresh."
            )


def read_header(path: Path) -> Line | None:
    """What run a journal is of, or None if there is none or its first line is torn."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return _parsed(file.readline())


def read_journal(path: Path) -> list[Line]:
    """The lines of a journal without its header, as far as they are whole; empty if there is none."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().splitlines(keepends=True):
        line = _parsed(text)
        if line is None:
            break
        lines.append(line)
    return lines[1:]


def _parsed(text: bytes) -> Line | None:
    """The object of one line, or None if the line is torn."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
