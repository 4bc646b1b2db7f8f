"""Files appear whole or not at all, are known by their sha256, and are checked on reading where a user wrote them."""

import hashlib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ntire import UserError

Model = TypeVar("Model", bound=BaseModel)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` under a temporary name in the same folder, flush it to the disk, then rename it to `path`.

    The temporary name depends only on `path`, so what a killed process leaves behind is overwritten, not collected.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def sha256_of(source: Path | bytes) -> str:
    """The sha256 of a file, read in pieces, or of bytes already in memory; 64 hex digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """Open a file in a folder that a stranger filled; raises OSError for a link, a device or anything else."""
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(f"expected a regular file, found {kind_of(mode)}")
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of such a file; raises OSError for one of more than `most` bytes, too."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"expected at most {most:,} bytes, found more")
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
    """Make `folder` if it is not there and prove that files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Of a name of its own: several processes may ask at once.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ntire-probe-"):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder that can be written to, found: {error.strerror or error}. "
            "Choose another one with -o."
        ) from None
    return folder


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read and check a TOML file that a user wrote; all mistakes are reported at once, each with its line."""
    try:
        text = path.read_bytes().decode()
        return model.model_validate(tomllib.loads(text))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}.") from None
    except tomllib.TOMLDecodeError as error:
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
