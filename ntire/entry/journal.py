"""An append-only record of what is done, one JSON line each; it survives being killed at any moment, and damage is noticed.

The first line says what the run is; a run with another header may not go on in the same journal. A line is flushed to the
disk before the work counts as done. Each line carries a checksum over itself and the header, so a damaged line drops only
itself, and a damaged header is known again by the lines below it.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ntire import UserError
from ntire.files import flush_to_disk, lock, write_atomically

FORMAT = 2
"""Of the lines; raised when their meaning changes. Format 1 had no checksums."""
CHECK = "check"
"""The key of a line's checksum."""
KNOWN = (b'"format"', b'"torch"', b'"input_sha256"', b'"check"')
"""What journals have in them, damaged ones too."""

Line = dict[str, Any]


class Journal:
    """A journal open for writing, locked against a second writer until it is closed. Use it in a `with` statement."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Open or begin the journal at `path`.

        `fresh` forgets what it holds. Raises UserError if another process writes it, if it is of another format or no
        journal, or if its header differs from `header` (the message names what differs).
        """
        self.path = path
        self.remarks: list[str] = []
        """What was damaged, and that locks are missing: for the user."""
        self._header: Line = {"format": FORMAT, **header}
        self._file = self._opened()
        try:
            self.lines = self._begun(fresh)
        except BaseException:
            self._file.close()
            raise

    def append(self, line: Line) -> None:
        """Add a line and flush it to the disk; raises OSError, with nothing added, if that has no room."""
        self._write(_sealed(line, self._header))
        self.lines.append(line)

    def rewrite(self, lines: Sequence[Line]) -> None:
        """Let these lines be all that there are, whole or not at all; raises OSError."""
        text = b"".join([_sealed(self._header, {}), *(_sealed(line, self._header) for line in lines)])
        write_atomically(self.path, text)
        replaced, self._file = self._file, self._opened()
        replaced.close()
        self.lines = list(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _opened(self) -> BinaryIO:
        """The file, locked; one that was replaced meanwhile is opened again."""
        while True:
            file = self.path.open("a+b")
            try:
                if not lock(file.fileno()):
                    self.remarks.append(f"{self.path}: no locks on this file system: let no other run write here.")
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except BlockingIOError:
                file.close()
                raise UserError(_written_by_another(self.path)) from None
            except FileNotFoundError:
                pass
            file.close()

    def _begun(self, fresh: bool) -> list[Line]:
        self._file.seek(0)
        data = self._file.read()
        if data and not _is_journal(data):
            raise UserError(f"{self.path}: expected a journal, found another file. It is left as it is: move it away.")
        if fresh or b"\n" not in data:
            self._file.truncate(0)
            data = b""
        if not data:
            self._write(_sealed(self._header, {}))
            return []
        found = _read(data, self._header)
        if found.header is not None:
            self._same_run(found.header)
        elif not found.lines:
            raise UserError(
                f"{self.path}, line 1: damaged, so it is not known which run it belongs to. Choose another folder with -o, or "
                "start over with --fresh."
            )
        if found.damaged:
            self._repair(found.lines, found.damaged)
        elif found.torn:
            # It was being written when the process died.
            self._file.truncate(len(data) - found.torn)
        return found.lines

    def _repair(self, lines: list[Line], damaged: list[int]) -> None:
        """Write what is whole to a new file, and go on with that."""
        which = f"line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged[:10]))}{', ...' * (len(damaged) > 10)}"
        self.remarks.append(f"{self.path}, {which}: damaged. The other {len(lines)} image(s) are kept.")
        self.rewrite(lines)

    def _write(self, text: bytes) -> None:
        file = self._file.fileno()
        size = os.fstat(file).st_size
        try:
            # Past the buffer, which would keep what it could not write and try again when it is closed.
            if os.write(file, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush_to_disk(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    def _same_run(self, found: Line) -> None:
        changed = differences(found, self._header)
        if changed:
            raise UserError(
                f"{self.path}: holds another run:\n  " + "\n  ".join(changed) + "\n"
                "Choose another folder with -o, or start over with --fresh."
            )


def refuse_second_writer(path: Path) -> None:
    """Raise UserError if another process writes a journal, before anything is prepared in vain."""
    if is_being_written(path):
        raise UserError(_written_by_another(path))


def is_being_written(path: Path) -> bool:
    """Whether another process has a journal open for writing; False where the file system has no locks."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            lock(file.fileno())
        except BlockingIOError:
            return True
    return False


def _written_by_another(path: Path) -> str:
    return f"{path}: another run is writing here. Wait for it to end, or choose another folder with -o."


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two headers, in words."""
    return [
        f"{name}: {there.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name)
    ]


def read_header(path: Path) -> Line | None:
    """What run a journal is of, or None if there is none or its first line is torn or damaged."""
    return _read(path.read_bytes(), None).header if path.is_file() else None


def read_journal(path: Path) -> list[Line]:
    """The lines of a journal without its header; empty if there is none.

    Raises UserError that names the lines that are damaged, so that a part is never taken for the whole.
    """
    found = _read(path.read_bytes(), None) if path.is_file() else _Found()
    if found.damaged:
        raise UserError(
            f"{path}, line {found.damaged[0]}: damaged, or no line of a journal. Run the same command again: it keeps "
            "what is whole and makes the rest."
        )
    return found.lines


def whole_lines(path: Path) -> list[Line]:
    """The lines of a journal that are whole, for whoever makes again what the others spoke of; empty if there is none."""
    return _read(path.read_bytes(), None).lines if path.is_file() else []


@dataclass
class _Found:
    """What stands in a journal."""

    header: Line | None = None
    lines: list[Line] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    """Numbers of lines, from 1."""
    torn: int = 0
    """Bytes of an unfinished last line."""


def _read(data: bytes, wanted: Line | None) -> _Found:
    """Header and whole lines; with a damaged header, `wanted` is tried in its place."""
    found = _Found()
    *rows, rest = data.split(b"\n")
    for number, row in enumerate(rows, 1):
        objects, clean = _objects(row)
        if number == 1:
            header = objects[0] if objects else {}
            of_old = header.get("format") == 1 and CHECK not in header
            if of_old or _holds(header, {}):
                found.header = wanted = _without(objects.pop(0))
                clean = clean and not objects
            else:
                clean = False
        whole = [line for line in objects if wanted and (wanted["format"] == 1 or _holds(line, wanted))]
        found.lines += map(_without, whole)
        if not clean or len(whole) != (number > 1):
            found.damaged.append(number)
    # The last line is whole, too, if nothing but its end is damaged.
    last = [line for line in _objects(rest)[0] if wanted and _holds(line, wanted)]
    found.lines += map(_without, last)
    found.damaged += [len(rows) + 1] * len(last)
    found.torn = len(rest)
    return found


def _objects(row: bytes) -> tuple[list[Line], bool]:
    """The objects of a row, two where the line break between them is damaged, and whether it is nothing but one."""
    text = row.decode(errors="replace")
    decoder = json.JSONDecoder()
    found: list[Line] = []
    at = 0
    while 0 <= at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return found, False
        if isinstance(value, dict):
            found.append(value)
        at = text.find("{", end)
    return found, len(found) == 1 and text.endswith("}")


def _sealed(line: Line, header: Line) -> bytes:
    """A line as it is written; a name that is not UTF-8 is written in escapes."""
    whole = {**line, CHECK: _checksum(line, header)}
    try:
        return json.dumps(whole, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(whole).encode() + b"\n"


def _holds(line: Line, header: Line) -> bool:
    return line.get(CHECK) == _checksum(_without(line), _without(header))


def _without(line: Line) -> Line:
    return {key: value for key, value in line.items() if key != CHECK}


def _checksum(line: Line, header: Line) -> str:
    text = json.dumps([header, line], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_journal(data: bytes) -> bool:
    # A few bytes are the beginning of a first line, torn; zeros stand where a file system lost what was written.
    begun = data.rstrip(b"\0")[:11]
    return b'{"format": '.startswith(begun) or any(word in data for word in KNOWN)
