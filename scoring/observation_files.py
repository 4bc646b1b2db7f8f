"""The files of the cache of observations, for folders that many processes on many machines use at once, without a lock.

    <name>.live   what one process adds to as long as it lives
    <name>.log    the same when it has ended: it does not change any more
    <name>.table  logs merged into one file, sorted by key, with an index

Every file has one writer and gets its last name by a rename; a file is removed only when all that it held stands in another
one that has its last name. Each record is sealed by a checksum over key and vector: a torn or damaged one is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ntire.files import ABANDONED_SECONDS, flush_to_disk, new_file, sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ntire.scoring.instruments import Vector

LIVE, LOG, TABLE = ".live", ".log", ".table"
MARK = b"obs1"
HEAD = struct.Struct("<4s32sI16s")
"""Of a record: the mark, the key, bytes of the vector, the checksum. The vector follows in float64."""
FOOT = struct.Struct("<Q16s4s")
"""At the end of a table, behind its index: the number of records, the checksum of the index, the mark."""
LARGE = 64 << 20
"""Bytes after which a log is followed by another one, and a table is merged no more."""
MERGED, MERGED_BYTES = 8, 1 << 20
"""Logs, or bytes of them, that are merged: a table is opened at once, of a log all records are read."""
TRIES = 10
"""How often a folder is listed again because a file was merged between its listing and its opening."""


class RecordPlace(NamedTuple):
    """Where a record is."""

    file: int
    """An open file."""
    start: int
    length: int


def sealed(key: bytes, vector: Vector) -> bytes:
    """The record of a vector under a key of 32 bytes."""
    data = np.ascontiguousarray(vector, np.float64).tobytes()
    return HEAD.pack(MARK, key, len(data), _checksum(key, data)) + data


def unsealed(record: bytes, key: bytes) -> Vector | None:
    """The vector of a record; None for one that is damaged, cut, or of another key."""
    if len(record) < HEAD.size:
        return None
    mark, found, length, checksum = HEAD.unpack_from(record)
    data = record[HEAD.size :]
    whole = mark == MARK and found == key and length == len(data) and not length % 8
    return np.frombuffer(data, np.float64) if whole and checksum == _checksum(key, data) else None


def records(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Key, start and end of each record that is whole."""
    at = 0
    while (at := data.find(MARK, at)) >= 0 and at + HEAD.size <= len(data):
        _, key, length, _ = HEAD.unpack_from(data, at)
        end = at + HEAD.size + length
        if end <= len(data) and unsealed(data[at:end], key) is not None:
            yield key, at, end
            at = end
        else:
            at += 1


def _checksum(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(key + data, digest_size=16).digest()


class Log:
    """A file that this process alone adds to."""

    def __init__(self, folder: Path) -> None:
        """Begin it. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{secrets.token_hex(8)}{LIVE}"
        self.file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self.size = 0

    @property
    def name(self) -> str:
        """What it is called without suffix, as long as it is there."""
        return self._path.stem

    @property
    def full(self) -> bool:
        """Whether another one is to be begun: it is large, or others took its process for dead and merged it."""
        return self.size >= LARGE or not os.fstat(self.file).st_nlink

    def add(self, data: bytes) -> int:
        """Add whole records; returns where they begin. Raises OSError, with nothing added."""
        start = self.size
        try:
            left = memoryview(data)
            while left:
                left = left[os.pwrite(self.file, left, self.size + len(data) - len(left)) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file, start)
            raise
        self.size += len(data)
        return start

    def end(self) -> None:
        """Flush it and give it its last name; the descriptor stays open."""
        with contextlib.suppress(OSError):
            flush_to_disk(self.file)
            if self.size:
                self._path.rename(self._path.with_suffix(LOG))
            else:
                self._path.unlink()


class Index:
    """Where the records of a table begin, by the first 8 bytes of their sorted keys; the last row is where they end."""

    def __init__(self, prefixes: NDArray[np.uint64], starts: NDArray[np.uint64]) -> None:
        self.prefixes, self.starts = prefixes, starts

    @classmethod
    def of(cls, file: int) -> Index | None:
        """The index at the end of a file; None if there is none or it is damaged."""
        size = os.fstat(file).st_size
        if size < FOOT.size:
            return None
        count, checksum, mark = FOOT.unpack(os.pread(file, FOOT.size, size - FOOT.size))
        length = 16 * (count + 1)
        if mark != MARK or length > size:
            return None
        data = _read(file, size - FOOT.size - length, length)
        if checksum != _checksum(b"", data):
            return None
        prefixes, starts = np.frombuffer(data, ">u8").astype(np.uint64).reshape(2, -1)
        return cls(prefixes, starts)

    def places(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, int, int]]:
        """Key, start and length of those that may be there; the record tells."""
        wanted = np.frombuffer(b"".join(key[:8] for key in keys), ">u8").astype(np.uint64)
        rows = self.prefixes.searchsorted(wanted)
        starts, ends = self.starts[rows], self.starts[np.minimum(rows + 1, len(self.starts) - 1)]
        there = self.prefixes[rows] == wanted
        for key, found, start, end in zip(keys, there.tolist(), starts.tolist(), ends.tolist(), strict=True):
            if found:
                yield key, start, end - start


class Files:
    """What stands in a folder, as far as it was read; `look` reads on."""

    def __init__(self, folder: Path) -> None:
        self.damaged = 0
        """Records that were found damaged."""
        self._folder = folder
        self._open: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._places: dict[bytes, RecordPlace] = {}
        self._tables: list[tuple[int, Index]] = []

    def look(self) -> None:
        """Read what is new. Raises OSError for a folder or file that cannot be read."""
        for _ in range(TRIES):
            try:
                for path in sorted(self._folder.iterdir()):
                    if path.suffix in (LIVE, LOG):
                        self._read_on(path)
                    elif path.suffix == TABLE and path.stem not in self._open:
                        self._read_table(path)
                return
            except FileNotFoundError:
                # Merged between listing and opening: what it held stands in another one.
                if not self._folder.is_dir():
                    return

    def added(self, log: Log, start: int, added: Sequence[tuple[bytes, int]]) -> None:
        """Records, by key and length, that this process has added to its own log from there on."""
        self._open[log.name] = log.file
        for key, length in added:
            self._places[key] = RecordPlace(log.file, start, length)
            start += length
        self._seen[log.name] = start

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """The vectors that are there. Raises OSError where a file can no longer be read."""
        found: dict[bytes, Vector] = {}
        damaged: set[bytes] = set()

        def take(key: bytes, place: RecordPlace) -> None:
            vector = unsealed(os.pread(place.file, place.length, place.start), key)
            if vector is None:
                damaged.add(key)
            else:
                found[key] = vector

        wanted = list(keys)
        for key in wanted:
            if key in self._places:
                take(key, self._places[key])
        for file, index in self._tables:
            left = [key for key in wanted if key not in found]
            for key, start, length in index.places(left) if left else ():
                take(key, RecordPlace(file, start, length))
        self.damaged += len(damaged - found.keys())
        return found

    def close(self) -> None:
        """Close all files, those of this process's own logs, too, and forget what they hold."""
        for file in self._open.values():
            os.close(file)
        for known in (self._open, self._seen, self._places, self._tables):
            known.clear()

    def _read_on(self, path: Path) -> None:
        """What was added to a log since it was last looked at; a record that is torn now may be whole the next time."""
        if path.stem not in self._open:
            self._open[path.stem] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        file, begin = self._open[path.stem], self._seen.get(path.stem, 0)
        at = 0
        for key, start, end in records(_read(file, begin)):
            self._places[key] = RecordPlace(file, begin + start, end - start)
            self.damaged += start > at
            at = end
        self._seen[path.stem] = begin + at

    def _read_table(self, path: Path) -> None:
        file = self._open[path.stem] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        index = Index.of(file)
        if index is not None:
            self._tables.append((file, index))
            return
        # Its records are good as far as they are whole.
        self.damaged += 1
        self._read_on(path.rename(path.with_suffix(LOG)))


def merge(folder: Path, least: int = MERGED) -> None:
    """Merge what ended processes have left into one table, if it is so many files. Raises OSError, with nothing lost."""
    sweep(folder)
    logs: list[tuple[int, Path]] = []
    tables: list[tuple[int, Path]] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == LIVE and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            path = path.rename(path.with_suffix(LOG))
        if path.suffix in (LOG, TABLE):
            (logs if path.suffix == LOG else tables).append((path.stat().st_size, path))
    size = sum(of for of, _ in logs)
    if len(logs) < least and size < MERGED_BYTES:
        return
    for of, path in sorted(tables):
        # Each byte is written again only when as many have come: a cache of n bytes costs n log n.
        if of > min(size, LARGE):
            break
        logs.append((of, path))
        size += of
    with contextlib.ExitStack() as stack:
        places: dict[bytes, RecordPlace] = {}
        for of, path in logs:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            places |= {key: RecordPlace(file, start, end - start) for key, start, end in records(_read(file, 0, of))}
        _write_table(folder / f"{secrets.token_hex(8)}{TABLE}", places)
    for of, path in logs:
        # One that has grown has a writer that only slept.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == of:
                path.unlink()


def _write_table(path: Path, places: Mapping[bytes, RecordPlace]) -> None:
    keys = sorted(places)
    lengths = [places[key].length for key in keys]
    prefixes = np.frombuffer(b"".join(key[:8] for key in keys) + bytes([255] * 8), ">u8")
    index = prefixes.tobytes() + np.cumsum([0, *lengths]).astype(">u8").tobytes()
    with new_file(path) as file:
        for key in keys:
            file.write(os.pread(places[key].file, places[key].length, places[key].start))
        file.write(index + FOOT.pack(len(keys), _checksum(b"", index), MARK))


def _read(file: int, start: int, length: int | None = None) -> bytes:
    """The bytes of a file from there on, less where it ends."""
    blocks = []
    left = max(os.fstat(file).st_size - start, 0) if length is None else length
    while left and (block := os.pread(file, left, start)):
        blocks.append(block)
        start, left = start + len(block), left - len(block)
    return b"".join(blocks)
