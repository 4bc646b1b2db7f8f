"""Observations that were made before: kept by all that they depend on, so that no network looks twice at one image."""

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ntire.environment import own_cache
from ntire.scoring.instruments import Vector

FORMAT = 3
"""Raised when what is observed, or how it is stored, changes without a version of a library changing."""
DIGEST = 16
"""Bytes of checksum in front of a vector."""
ITEM = 8
"""Bytes of a number."""
DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH)
"""SQLite's codes for files that are broken; the others are for places that cannot be used."""
FAILED = (sqlite3.Error, UnicodeError)
"""The second where SQLite's message has a name of a broken file in it."""


def default_path() -> Path:
    """Where the cache is unless the user says otherwise."""
    return own_cache() / "observations.sqlite"


def key_of(*parts: str) -> str:
    """The key of an observation: a hash of all that it depends on."""
    return hashlib.sha256("\0".join((str(FORMAT), *parts)).encode()).hexdigest()


class Cache:
    """Vectors by key in an SQLite file, or in memory alone. Use it in a `with` statement.

    It only saves work, so nothing that is wrong with it stops anybody: a row whose checksum is wrong is observed again, a
    damaged file is set aside, and where none can be written, this process remembers. `remarks` says so.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or begin the file; None keeps nothing beyond this process."""
        self.observed = 0
        """Vectors that were put in by this process: the work that was not saved."""
        self._path = path
        self._problems: list[str] = []
        self._damaged = 0
        # Pictures are opened by several threads, each of which asks whether it was seen before.
        self._lock = threading.RLock()
        self._database = _connect(None)
        if path is not None:
            self._open(path)

    @property
    def remarks(self) -> list[str]:
        """What the user should know of the file, in sentences."""
        rows = f"{self._path}: {self._damaged} row(s) were damaged and are observed again."
        return [*self._problems, *([rows] if self._damaged else [])]

    def get(self, keys: Iterable[str]) -> dict[str, Vector]:
        """The vectors that are there."""
        found = {}
        for key in keys:
            with self._lock:
                stored = self._stored(key)
            if stored is None:
                continue
            if len(stored) % ITEM == DIGEST % ITEM and stored[:DIGEST] == _digest(key, stored[DIGEST:]):
                found[key] = np.frombuffer(stored[DIGEST:], dtype=np.float64)
            else:
                self._damaged += 1
        return found

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors; they are on the disk when this returns."""
        self.observed += len(vectors)
        self.note(vectors)

    def note(self, vectors: Mapping[str, Vector]) -> None:
        """Keep what is no observation of a metric."""
        rows = []
        for key, vector in vectors.items():
            data = np.ascontiguousarray(vector, np.float64).tobytes()
            rows.append((key, _digest(key, data) + data))
        with self._lock:
            for _ in range(3):
                try:
                    with self._database:
                        self._database.executemany("INSERT OR REPLACE INTO observations VALUES (?, ?)", rows)
                    return
                except FAILED as error:
                    self._replace(error)

    def _stored(self, key: str) -> bytes | None:
        for _ in range(3):
            try:
                row = self._database.execute("SELECT vector FROM observations WHERE key = ?", (key,)).fetchone()
            except FAILED as error:
                self._replace(error)
            else:
                return row[0] if row is not None and isinstance(row[0], bytes) else None
        return None

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _connect(path)
        except (*FAILED, OSError) as error:
            self._replace(error)

    def _replace(self, error: sqlite3.Error | UnicodeError | OSError) -> None:
        """Go on with a new file in the place of a damaged one, or in memory."""
        path = self._path
        self._database.close()
        self._database = _connect(None)
        if path is None:
            return
        damaged = isinstance(error, UnicodeError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED
        if not damaged or self._problems:
            self._problems.append(f"{path}: cannot be used as a cache: {error}. What is observed now is not kept.")
            self._path = None
            return
        aside = path.with_name(f"{path.name}.damaged")
        self._problems.append(f"{path}: damaged ({error}). It is now {aside.name}; everything is observed again.")
        with contextlib.suppress(OSError):
            path.replace(aside)
            for beside in ("-wal", "-shm"):
                path.with_name(path.name + beside).unlink(missing_ok=True)
        self._open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()


def _connect(path: Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE IF NOT EXISTS observations (key TEXT PRIMARY KEY, vector BLOB) STRICT")
    except FAILED:
        database.close()
        raise
    return database


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + data, digest_size=DIGEST).digest()
