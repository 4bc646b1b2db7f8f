"""Archives of strangers: unpacked by one set of rules, in bounded memory, never a byte outside the target folder.

Regular files only; relative NFC names without control characters; no two names that differ in case only; limits on count,
size, sum, ratio and depth, counted while reading, as headers lie. Links, devices, encrypted and sparse members are refused.
What a header says of owners, modes and times is ignored. `survey` holds a folder against the same rules.
"""

import contextlib
import gzip
import io
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ntire import UserError
from ntire.entry.findings import Finding
from ntire.files import kind_of

CHUNK = 1 << 16
LARGEST_READ = 4 << 20
"""Bytes that a parser may ask for at once: the index of a zip with more than 40,000 members is longer."""
TAR_HEADER = 1 << 20
"""Bytes that the headers of one tar member may take."""
MOST_KEYS = 32
"""Keys of a tar's extended headers: tarfile copies those for all members to every one."""
PART_BYTES = 255
"""Of one name between two slashes, as file systems have it."""
UTF_8 = 0x800
"""The flag of a zip's member whose name is in UTF-8."""
PASSED_OVER = frozenset({"__MACOSX", ".git", "__pycache__"})
"""Folders that programs leave behind: no part of an entry."""
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
)
"""What the parsers raise for archives that are none."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold."""

    files: int = 20_000
    file_bytes: int = 4 << 30
    total_bytes: int = 8 << 30
    ratio: int = 100
    """Unpacked to packed bytes, beyond `slack_bytes`."""
    slack_bytes: int = 64 << 20
    depth: int = 12
    """Names between slashes."""


def unpack(archive: Path, into: Path, limits: ArchiveLimits = ArchiveLimits()) -> list[Finding]:
    """Unpack a zip, tar or tar.gz, told by its content, into the new folder `into`; returns all that was refused.

    Refused members are left out and the others unpacked. If the archive cannot be read or goes over a limit, there is no
    folder `into` afterwards. Raises UserError for a path that is no file, or (exit code 3) a disk that cannot be written.
    """
    if into.exists():
        raise UserError(f"{into}: expected a new folder to unpack into, found one that is there.")
    if not archive.is_file():
        raise UserError(f"{archive}: expected a folder, .zip, .tar or .tar.gz, found no such file.")
    with _writing(into.parent):
        part = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    target = _Target(part, archive.stat().st_size, limits)
    try:
        _unpack(archive, target)
        with _writing(into.parent):
            part.rename(into)
    except _Refused as refused:
        target.findings.append(refused.finding)
    except DAMAGED as error:
        found = f"{type(error).__name__}: {error}"
        target.findings.append(Finding("E101", "", "a whole .zip, .tar or .tar.gz", found))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target.findings


def survey(root: Path, limits: ArchiveLimits = ArchiveLimits()) -> tuple[list[str], list[Finding]]:
    """Relative names of all regular files below `root`, sorted, and what breaks the rules for names and kinds.

    No link is followed. Folders of PASSED_OVER are not looked into.
    """
    names = _Names(limits)
    files: list[str] = []
    findings: list[Finding] = []
    for name, mode in _walk(root, "", limits.depth):
        refused = names.refuse(name, None if stat.S_ISREG(mode) else kind_of(mode))
        if refused is not None:
            findings.append(refused)
        else:
            files.append(name)
        if len(files) + len(findings) > limits.files:
            findings.append(Finding("E105", "", f"at most {limits.files:,} files", "more"))
            break
    return sorted(files), findings


def _walk(root: Path, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    """Relative name and mode of everything below `root` that is no folder, and of folders that lie too deep."""
    try:
        with os.scandir(root / prefix) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{root / prefix}: cannot be read: {error.strerror or error}.") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and depth > 0:
            if entry.name not in PASSED_OVER:
                yield from _walk(root, f"{prefix}{entry.name}/", depth - 1)
        else:
            yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_mode


class _Refused(Exception):
    """Ends the unpacking."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


class _Names:
    """The rules for names and kinds, which archives and folders share."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits = limits
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def refuse(self, name: str, kind: str | None) -> Finding | None:
        """Why the member `name` may not be there, or None; `kind` says what it is if it is no regular file."""
        wrong = unsafe(name)
        if wrong is not None:
            return Finding("E102", name, "a relative name in plain characters", wrong)
        parts = name.split("/")
        if len(parts) > self.limits.depth:
            return Finding("E105", name, f"at most {self.limits.depth} names deep", f"{len(parts)}")
        if kind is not None:
            return Finding("E103", name, "a regular file", kind)
        key = name.casefold()
        if key in self._files or key in self._folders:
            return Finding("E104", name, "one file of that name", f"also {self._files.get(key) or self._folders[key]}")
        for number in range(1, len(parts)):
            folder = "/".join(parts[:number])
            other = self._files.get(folder.casefold()) or self._folders.setdefault(folder.casefold(), folder)
            if other != folder or folder.casefold() in self._files:
                return Finding("E104", name, "one spelling of its folder", f"also {other}")
        self._files[key] = name
        return None


def unsafe(name: str) -> str | None:
    """What is wrong with a member's name, or None."""
    strange = next((letter for letter in name if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
    parts = name.split("/")
    wrong = {
        "no name": not name,
        "an absolute path": name.startswith("/") or re.match(r"[A-Za-z]:", name) is not None,
        "a backslash": "\\" in name,
        f"the character U+{ord(strange or ' '):04X}": strange is not None,
        "a part .. or .": ".." in parts or "." in parts,
        "an empty part": "" in parts[1:],
        "letters with separate accents (not NFC)": unicodedata.normalize("NFC", name) != name,
    }
    for words, holds in wrong.items():
        if holds:
            return words
    # Only now is the name sure to have a form in UTF-8.
    return "a part of over 255 bytes" if any(len(part.encode()) > PART_BYTES for part in parts) else None


class _Target:
    """The folder that an archive goes to; counts what arrives."""

    def __init__(self, folder: Path, packed: int, limits: ArchiveLimits) -> None:
        self.folder = folder
        self.limits = limits
        self.findings: list[Finding] = []
        self.most = min(limits.total_bytes, limits.ratio * packed + limits.slack_bytes)
        self._names = _Names(limits)
        self._members = 0
        self._total = 0

    def count(self, name: str) -> None:
        """One member more, of whatever kind."""
        self._members += 1
        if self._members > self.limits.files:
            raise _Refused(Finding("E105", name, f"at most {self.limits.files:,} files", "more"))

    def take(self, name: str, kind: str | None, size: int, read: Callable[[int], bytes]) -> None:
        """Write a member if the rules allow it; `size` is what its header says, `read` gives its bytes."""
        refused = self._names.refuse(name, kind)
        if refused is not None:
            self.findings.append(refused)
            return
        self._within(name, size, size)
        path = self.folder / name
        with _writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        with file:
            for block in self._blocks(name, read):
                with _writing(path.parent):
                    file.write(block)
            with _writing(path.parent):
                file.flush()

    def _blocks(self, name: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
        written = 0
        while block := read(CHUNK):
            written += len(block)
            self._total += len(block)
            self._within(name, written, 0)
            yield block

    def _within(self, name: str, written: int, announced: int) -> None:
        if written > self.limits.file_bytes:
            raise _Refused(Finding("E105", name, f"at most {self.limits.file_bytes:,} bytes a file", "more"))
        if self._total + announced > self.most:
            limit = f"at most {self.most:,} bytes in all ({self.limits.ratio} times the archive)"
            raise _Refused(Finding("E105", name, limit, "more"))


class _Bounded(io.BufferedReader):
    """A file that no header can make a parser read into memory: one read is bounded, and so is their sum if `left` is set."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self.left: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = LARGEST_READ + 1 if size is None or size < 0 else size
        if wanted > LARGEST_READ + 1 or (self.left is not None and wanted > self.left):
            raise ValueError(f"its headers ask for {wanted:,} bytes at once")
        data = super().read(wanted)
        if len(data) > LARGEST_READ:
            raise ValueError(f"its headers ask for more than {LARGEST_READ:,} bytes at once")
        if self.left is not None:
            self.left -= len(data)
        return data


def _unpack(archive: Path, target: _Target) -> None:
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(io.FileIO(archive))
        magic = raw.read(512)
        raw.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            raw = stack.enter_context(_gunzipped(raw, target))
            magic = raw.read(512)
            raw.seek(0)
        file = stack.enter_context(_Bounded(raw))
        if magic[257:262] == b"ustar":
            _untar(file, target)
        elif zipfile.is_zipfile(file):
            _unzip(file, target)
        else:
            kind = "an empty file" if not magic else f"a file that begins with {magic[:8].hex(' ')}"
            raise _Refused(Finding("E101", "", "a .zip, .tar or .tar.gz by its content", kind))


@contextlib.contextmanager
def _gunzipped(raw: io.RawIOBase, target: _Target) -> Iterator[io.FileIO]:
    """A nameless file with what is inside a gzip: a tar is read with steps back, which a stream of gzip cannot do."""
    with _writing(target.folder.parent):
        handle, name = tempfile.mkstemp(dir=target.folder.parent)
        Path(name).unlink()
    written = 0
    with io.FileIO(handle, "r+") as plain, gzip.open(raw) as packed:
        while block := packed.read(CHUNK):
            written += len(block)
            if written > target.most:
                raise _Refused(Finding("E105", "", f"at most {target.most:,} bytes in all", "more"))
            with _writing(target.folder.parent):
                plain.write(block)
        plain.seek(0)
        yield plain


def _unzip(file: _Bounded, target: _Target) -> None:
    file.seek(0)
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            # `filename` is cut at a NUL byte; the name that was written is what the rules are for.
            name, wrong = _name_in_zip(info)
            name = re.sub(r"^(\./)+", "", name)
            target.count(name)
            if wrong is not None:
                target.findings.append(Finding("E102", name, "a name in UTF-8", wrong))
                continue
            if not name and info.filename.endswith("/"):
                continue
            if name.endswith("/") and unsafe(name.rstrip("/")) is None:
                continue
            mode = info.external_attr >> 16
            kind = None if stat.S_IFMT(mode) in (0, stat.S_IFREG) else kind_of(mode)
            if info.flag_bits & 1:
                raise _Refused(Finding("E101", name, "members without a password", "an encrypted one"))
            # The other methods unpack without a limit on what one read gives.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused(Finding("E101", name, "stored or deflated members", f"method {info.compress_type}"))
            with packed.open(info) as member:
                target.take(name, kind, info.file_size, member.read)


def _name_in_zip(info: zipfile.ZipInfo) -> tuple[str, str | None]:
    """A member's name, and what is wrong with its letters: without a flag they are in no stated code.

    UTF-8 is taken for what it is, with its flag or without. Bytes that are GBK, as Windows writes Chinese names, are not:
    which code was meant would be a guess.
    """
    name = info.orig_filename
    if info.flag_bits & UTF_8 or name.isascii():
        return name, None
    raw = name.encode("cp437")
    for code, wrong in (("utf-8", None), ("gb18030", "bytes that read so in GBK: pack it again with names in UTF-8")):
        try:
            return raw.decode(code), wrong
        except UnicodeDecodeError:
            continue
    return name, None


def _untar(file: _Bounded, target: _Target) -> None:
    file.left = TAR_HEADER
    with tarfile.open(fileobj=file, mode="r:") as packed:
        while True:
            file.left = TAR_HEADER
            member = packed.next()
            if member is None:
                return
            # tarfile would keep all of them.
            packed.members.clear()  # type: ignore[attr-defined]
            if max(len(member.pax_headers), len(packed.pax_headers)) > MOST_KEYS:
                raise _Refused(Finding("E105", member.name, f"at most {MOST_KEYS} keys in extended headers", "more"))
            file.left = None
            target.count(member.name)
            name = re.sub(r"^(\./)+", "", member.name)
            if member.size < 0:
                # The next header would be looked for in front of this one, for ever.
                raise _Refused(Finding("E101", name, "a size of 0 or more", f"{member.size}"))
            if member.isdir() and (name == "." or unsafe(name.rstrip("/")) is None):
                continue
            file.seek(member.offset_data)
            target.take(name, _kind_in_tar(member), member.size, _exactly(file, member.size))


def _kind_in_tar(member: tarfile.TarInfo) -> str | None:
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
        return None
    kinds = {
        tarfile.LNKTYPE: "a hard link",
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.CHRTYPE: "a character device",
        tarfile.BLKTYPE: "a block device",
        tarfile.FIFOTYPE: "a FIFO",
        tarfile.DIRTYPE: "a folder",
    }
    return kinds.get(member.type, "a sparse or unknown member")


def _exactly(file: _Bounded, size: int) -> Callable[[int], bytes]:
    """Reads `size` bytes in pieces; raises EOFError if the archive ends before."""
    left = size

    def read(most: int) -> bytes:
        nonlocal left
        block = file.read(min(most, left))
        if not block and left:
            raise EOFError(f"the archive ends {left:,} bytes before its last member does")
        left -= len(block)
        return block

    return read


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tells a disk that cannot be written from an archive that cannot be read: both are OSError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to: {error.strerror or error}. Make room, or set TMPDIR to another folder.",
            exit_code=3,
        ) from None
