"""Files appear whole or not at all, are known by their sha256, and are checked on reading where a user wrote them."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ntire import UserError

Model = TypeVar("Model", bound=BaseModel)

PART = ".ntire-"
"""Unfinished files are called so, with 16 random digits and `.part`: short enough beside any name."""
MOST_OPEN = 100
"""Files that are open at once while several are written."""
ABANDONED_SECONDS = 24 * 3600
MOST_TOML = 1 << 17
"""Bytes of a stranger's TOML."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What network file systems without locks answer."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BufferedWriter]:
    """A file to write that becomes `path` when the block ends without an exception: flushed, then renamed.

    Until then it has a random name in the same folder, made anew, so that no link is followed and no other process writes
    into it. A lock on it says that its writer lives: `sweep` removes what a killed one has left. Raises OSError, which names
    `path`.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            name, handle = _create(folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                flush_to_disk(file.fileno())
                os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` to `path`, which appears whole or not at all; raises OSError."""
    with new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """Write several files: a disk without room for all of them changes none. Raises OSError."""
    if len(files) > MOST_OPEN:
        # Hundreds of entries: the files that stand last, the leaderboard among them, are changed last.
        paths = list(files)
        for start in range(0, len(paths), MOST_OPEN):
            write_together({path: files[path] for path in paths[start : start + MOST_OPEN]})
        return
    with contextlib.ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(new_file(path))
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            flush_to_disk(file.fileno())


def flush_to_disk(handle: int) -> None:
    """fsync; some network and memory file systems have none."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def lock(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file against other processes; False if the file system has no locks.

    Raises BlockingIOError if another process has the lock and `wait` is not set.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _create(folder: int) -> tuple[str, int]:
    """The name and descriptor of a new, locked file in an open folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = f"{PART}{secrets.token_hex(8)}.part"
        handle = os.open(name, flags, 0o666, dir_fd=folder)
        # A sweep may have come in between, and taken the file for one that nobody writes.
        lock(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return name, handle
        os.close(handle)


def sweep(folder: Path, *, below: bool = False) -> None:
    """Remove unfinished files whose writer has ended, also in the folders `below`."""
    for path in folder.rglob(f"{PART}*.part") if below else folder.glob(f"{PART}*.part"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                # Without locks, only age tells.
                if lock(handle) or time.time() - os.fstat(handle).st_mtime > ABANDONED_SECONDS:
                    path.unlink()
            finally:
                os.close(handle)


def sha256_of(source: Path | bytes) -> str:
    """The sha256 of a file, read in pieces, or of bytes already in memory; 64 hex digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path, below: Path | None = None) -> BufferedReader:
    """Open a file in a folder that a stranger filled; raises OSError for a link, a device or anything else.

    With `below`, the entry's folder, no folder between the two may be a link either.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if below is None:
        handle = os.open(path, flags)
    else:
        *folders, last = path.relative_to(below).parts
        with _folder(below, folders) as folder:
            handle = os.open(last, flags, dir_fd=folder)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(f"expected a regular file, found {kind_of(mode)}")
    return os.fdopen(handle, "rb")


@contextlib.contextmanager
def _folder(root: Path, names: Iterable[str]) -> Iterator[int]:
    """A descriptor of a folder below `root`, entered name by name without following a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(root, flags)
    try:
        for name in names:
            inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def read_regular(path: Path, most: int, below: Path | None = None) -> bytes:
    """The bytes of such a file; raises OSError for one of more than `most` bytes, too."""
    with open_regular(path, below) as file:
        # Its length first: a sparse file of terabytes must not cost the memory of `most`.
        length = os.fstat(file.fileno()).st_size
        data = file.read(min(length, most) + 1)
    if max(length, len(data)) > most:
        raise OSError(f"expected at most {most:,} bytes, found {max(length, len(data)):,}")
    return data


def kind_of(mode: int) -> str:
    """What a file is by its mode bits, in words."""
    words = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return words.get(stat.S_IFMT(mode), "something unknown")


def writable_folder(folder: Path) -> Path:
    """Make `folder` if it is not there, prove that files can be written into it, and remove what a killed process left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Of a name of its own: several processes may ask at once.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ntire-probe-"):
            pass
        sweep(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder that can be written to, found: {error.strerror or error}. "
            "Choose another one with -o."
        ) from None
    return folder


def read_toml(path: Path, model: type[Model], below: Path | None = None) -> Model:
    """Read and check a TOML file that a user wrote; all mistakes are reported at once, each with its line.

    `below`: the folder of a stranger that it lies in, see `open_regular`.
    """
    try:
        text = (read_regular(path, MOST_TOML, below) if below else path.read_bytes()).decode("utf-8-sig")
        return model.model_validate(tomllib.loads(text))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}.") from None
    except ValidationError as error:
        problems = [_problem(text, item["loc"], item["msg"], item.get("input")) for item in error.errors()]
        raise UserError("\n".join(f"{path}{problem}" for problem in problems)) from None


def _problem(text: str, location: Iterable[int | str], message: str, found: object) -> str:
    keys = tuple(location)
    names = [key for key in keys if isinstance(key, str)]
    at = line_of(text, names)
    where = ".".join(str(key) for key in keys)
    shown = "" if isinstance(found, dict) else f" (found: {str(found)[:80]!r})"
    return f"{f', line {at}' if at else ''}: {where + ': ' if where else ''}{message}{shown}"


def line_of(text: str, names: list[str]) -> int | None:
    """The line of the last key in `names` that is written in the file, searched for below its parents' lines."""
    found, start = None, 0
    lines = text.splitlines()
    for name in names:
        key = re.compile(rf"""^\s*(\[.*["']?\b{re.escape(name)}\b|["']?{re.escape(name)}["']?\s*=)""")
        for number in range(start, len(lines)):
            if key.match(lines[number]):
                found, start = number + 1, number
                break
    return found
