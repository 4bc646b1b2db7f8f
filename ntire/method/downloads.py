"""One file from its address or a mirror: once for all processes that want it, going on where an earlier try stopped.

Servers are not believed: what they answer is bounded by the size that is declared, and an answer that makes no sense is one
more reason to ask the next.
"""

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from ntire import UserError
from ntire.files import PART, flush_to_disk, lock, writable_folder

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes in all, where the server says."""
BLOCK = 1 << 20


class _Answer(Exception):
    """What a server sent cannot be used; the message says why."""


def download(
    urls: Sequence[str], path: Path, size: int | None, check: Callable[[Path], None], progress: Progress | None
) -> list[str]:
    """Try each address until `path` is there; returns what those answered that did not give it, if none did.

    `size` is the most that is taken; `check` gets the finished file under another name and raises UserError if it is not
    the right one. Raises UserError (exit code 3) for a folder or disk that cannot be written to.
    """
    answers: list[str] = []
    writable_folder(path.parent)
    with _part_of(path) as (part, file):
        try:
            if path.is_file():
                # Another process was faster, and this one has waited for it.
                check(path)
                return []
            for url in urls:
                problem = _tried(url, part, file, size, check, progress)
                if not problem:
                    flush_to_disk(file.fileno())
                    part.replace(path)
                    return []
                answers.append(f"  {url}: {problem}")
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
    return answers


def _tried(
    url: str, part: Path, file: BinaryIO, size: int | None, check: Callable[[Path], None], progress: Progress | None
) -> str:
    """Why an address did not give the file; empty if it did."""
    try:
        _download(url, file, size, progress)
    except (_Answer, HTTPException, OSError, ValueError) as error:
        return _in_words(error)
    try:
        check(part)
    except UserError as error:
        file.truncate(0)
        return str(error)
    return ""


def _in_words(error: Exception) -> str:
    text = str(error).strip()
    return text if isinstance(error, _Answer | OSError) else f"not an answer of HTTP: {text or type(error).__name__}"


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """The unfinished file that belongs to `path`, locked; without locks one of this process alone."""
    part = path.with_name(f"{path.name}.part")
    while True:
        file = _opened(part)
        with file:
            if not lock(file.fileno(), wait=True):
                break
            with contextlib.suppress(FileNotFoundError):
                # Who had the lock before may have renamed it.
                if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    yield part, file
                    return
    alone = path.with_name(f"{PART}{os.urandom(8).hex()}.part")
    try:
        with _opened(alone) as file:
            yield alone, file
    finally:
        alone.unlink(missing_ok=True)


def _opened(part: Path) -> BinaryIO:
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "r+b", buffering=0)


def _download(url: str, file: BinaryIO, size: int | None, progress: Progress | None) -> None:
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond what is here: the hash will tell whether it is the whole file
            return
        raise
    with response:
        if response.status != 206:
            have = 0
            file.truncate(0)
            file.seek(0)
        announced = response.headers.get("Content-Length")
        total = have + _length(announced) if announced is not None else None
        _take(response, file, have, total, size, progress)


def _length(announced: str) -> int:
    if not (announced.isascii() and announced.isdecimal()):
        raise _Answer(f"its Content-Length is {announced!r}")
    return int(announced)


def _take(
    response: HTTPResponse, file: BinaryIO, have: int, total: int | None, size: int | None, progress: Progress | None
) -> None:
    most = _most(size) if size is not None else total
    if most is not None and total is not None and total > most:
        raise _Answer(f"it has {total:,} bytes, expected {most:,}")
    while block := response.read(BLOCK):
        have += len(block)
        if most is not None and have > most:
            file.truncate(0)
            raise _Answer(f"it sends more than the {most:,} bytes expected")
        _write(file, block)
        if progress:
            progress(have, total)
    if total is not None and have < total:
        raise _Answer(f"the connection ended after {have} of {total} bytes; run the command again to go on")


def _most(size: int) -> int:
    """Bytes that a file of that stated size may have: round ones are read off a page that says megabytes."""
    return size if size % 100_000 else size + size // 20


def _write(file: BinaryIO, block: bytes) -> None:
    """Raises UserError, as no other address helps against a full disk."""
    left = memoryview(block)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise UserError(
            f"{file.name}: cannot be written: {error.strerror or error}. Make room.", exit_code=3
        ) from error
