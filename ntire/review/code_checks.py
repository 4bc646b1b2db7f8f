"""Code and weights that an entry ships, looked at without running them: Python by its syntax tree (in a process of its own, as
pictures are), weights by their bytes.

Whether the code imports and makes the images is not asked here: that needs a sandbox.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ntire.entry.archive import survey
from ntire.entry.findings import Finding
from ntire.entry.manifest import MethodUsed
from ntire.files import open_regular, read_regular
from ntire.review.image_check_workers import decoders
from ntire.review.source_code import MOST_CODE
from ntire.text import printable

METHOD = "method/"
"""Below it lies all code of an entry."""
CODE = "method/method.py"
MOST_CODE_IN_ALL = 8 << 20
"""Bytes of all source files."""
MOST_HEADER = 4 << 20
"""Bytes of a safetensors file's header."""
PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".tar"})
TEXT = frozenset({".py", ".pyi", ".toml", ".txt", ".md", ".rst", ".yaml", ".yml", ".json", ".cfg", ".ini", "LICENSE"})
MOST_TEXT = 1 << 16
"""Bytes of a text that holds no pictures."""
DIGITS = 8
"""Of a sha256 at least, where only its beginning is published."""


@dataclass(frozen=True)
class DeclaredFile:
    """A weights file that the manifest or the class names."""

    file: str
    sha256: str | None
    where: str
    """Who names it."""


def look_at_method(root: Path, files: Sequence[str], method: MethodUsed) -> list[Finding]:
    """Everything that is wrong with the code and weights below `method/`; nothing for an entry without code."""
    if method.file is None and not any(name.startswith(METHOD) for name in files):
        return []
    source = method.file or CODE
    declared = [DeclaredFile(weights.file, weights.sha256, "submission.toml") for weights in method.weights]
    if source not in files:
        findings = [Finding("E407", source, "the code", "no such file")]
    else:
        findings, in_class = _look_at_code(root, files, source)
        declared += in_class
    beside = source.rpartition("/")[0] + "/weights/"
    return findings + _look_at_weights(root, files, declared, beside) + _look_at_pickles(root, files)


@dataclass(frozen=True)
class Blob:
    """Data beside the code that no declared weights explain."""

    file: str
    bytes: int


def unexplained(root: Path, method: MethodUsed) -> list[Blob]:
    """Files of `method/` that are neither short text nor weights with a declared sha256, the largest first."""
    files, _ = survey(root)
    source = method.file or CODE
    declared: list[tuple[str, str | None]] = [(one.file, one.sha256) for one in method.weights]
    if source in files:
        declared += [(one.file, one.sha256) for one in _look_at_code(root, files, source)[1]]
    beside = source.rpartition("/")[0] + "/weights/"
    known = {name for file, sha256 in declared if sha256 for name in (file, beside + file)}
    found = []
    for name in files:
        size = (root / name).lstat().st_size
        text = Path(name).suffix.lower() in TEXT or Path(name).name in TEXT
        if name.startswith(METHOD) and name not in known and not (text and size <= MOST_TEXT):
            found.append(Blob(printable(name), size))
    return sorted(found, key=lambda one: (-one.bytes, one.file))


def _look_at_code(root: Path, files: Sequence[str], source: str) -> tuple[list[Finding], list[DeclaredFile]]:
    classes, declared, problem = decoders().methods(_sources(root, files, source), source)
    if problem:
        return [Finding("E406", source, "Python", problem)], []
    if len(classes) != 1:
        code = "E405" if classes else "E404"
        return [Finding(code, source, "one subclass of ntire.method.Method", ", ".join(classes) or "none")], []
    return [], [DeclaredFile(file, sha256, source) for file, sha256 in declared]


def _sources(root: Path, files: Sequence[str], source: str) -> dict[str, str | None]:
    """The text of the code, a character a byte, that imports could lead to; None for what is too long or cannot be read."""
    beside = source.rpartition("/")[0] + "/"
    found: dict[str, str | None] = {}
    total = 0
    for name in (source, *(one for one in files if one.startswith(beside) and one.endswith(".py") and one != source)):
        found[name] = None
        with contextlib.suppress(OSError):
            text = read_regular(root / name, min(MOST_CODE, MOST_CODE_IN_ALL - total)).decode("latin-1")
            total += len(text)
            found[name] = text
    return found


def _look_at_weights(root: Path, files: Sequence[str], declared: Sequence[DeclaredFile], beside: str) -> list[Finding]:
    findings = []
    hashed: dict[str, str] = {}
    for one in declared:
        path = next((name for name in (beside + one.file, one.file) if name in files), None)
        if path is None:
            findings.append(Finding("E401", beside + one.file, f"the file that {one.where} names", "no such file"))
            continue
        if path not in hashed:
            hashed[path] = _sha256(root / path)
        if one.sha256 is not None and (len(one.sha256) < DIGITS or not hashed[path].startswith(one.sha256.lower())):
            findings.append(Finding("E402", path, f"sha256 {one.sha256} as in {one.where}", hashed[path]))
    known = {beside + one.file for one in declared if one.sha256} | {one.file for one in declared if one.sha256}
    for name in files:
        if name.endswith(".safetensors"):
            if name not in known:
                findings.append(Finding("W408", name, "a sha256 in submission.toml or the class", "none"))
            broken = _broken_safetensors(root / name)
            if broken:
                findings.append(Finding("E409", name, "a whole safetensors file", broken))
    return findings


def _look_at_pickles(root: Path, files: Sequence[str]) -> list[Finding]:
    """Files that are pickles by their name or their content, wherever the entry has them."""
    findings = []
    for name in files:
        suffix = Path(name).suffix.lower()
        if not name.startswith(METHOD) and suffix not in PICKLES:
            continue
        head = _head(root / name)
        pickled = len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6)
        zipped = head.startswith(b"PK\x03\x04")
        if suffix in PICKLES or (suffix != ".zip" and zipped) or pickled:
            shown = "a pickle" if pickled else "a zip, as torch.save writes" if zipped else f"a {suffix} file"
            findings.append(Finding("E403", name, "weights as .safetensors", shown))
    return findings


def _broken_safetensors(path: Path) -> str:
    """What is wrong with the frame of a safetensors file; empty if nothing is. Its tensors are not read."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MOST_HEADER):
            return f"a header of {length:,} bytes in a file of {size:,}"
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
            end = max(ends, default=0)
        except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
            return "a header that is no table of tensors"
    return "" if end == size - 8 - length else f"{size - 8 - length:,} bytes of tensors, {end} announced"


def _head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(16)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
