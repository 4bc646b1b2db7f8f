"""Observations that were made before: kept by all that they depend on, so that no network looks twice at one image."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from ntire.environment import own_cache
from ntire.scoring.observation_files import MERGED, Files, Log, merge, sealed

if TYPE_CHECKING:
    from ntire.scoring.instruments import Vector

FORMAT = 3
"""Raised when what is observed, or how it is stored, changes without a version of a library changing."""
LOOK_SECONDS = 5.0
"""After which a miss looks for what other processes have added."""


def default_path() -> Path:
    """The folder of the cache unless the user says otherwise."""
    return own_cache() / "observations"


def key_of(*parts: str) -> str:
    """The key of an observation: a hash of all that it depends on, 64 hex digits."""
    return hashlib.sha256("\0".join((str(FORMAT), *parts)).encode()).hexdigest()


class Cache:
    """Vectors by key in a folder that many processes on many machines may use, or in memory alone.

    Use it in a `with` statement. It only saves work, so nothing that is wrong with it stops anybody: a record whose checksum
    is wrong is observed again, and where nothing can be written, this process remembers. `remarks` says so.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the folder; None keeps nothing beyond this process."""
        self.observed = 0
        """Vectors that were put in by this process: the work that was not saved."""
        self._path = path
        self._problems: list[str] = []
        self._writable = True
        # Pictures are opened by several threads, each of which asks whether it was seen before.
        self._lock = threading.RLock()
        self._memory: dict[bytes, Vector] = {}
        self._log: Log | None = None
        self._files: Files | None = None
        self._looked = time.monotonic()
        if path is not None:
            self._files = Files(path)
            self._look()
            self._take_over(path.with_name(f"{path.name}.sqlite"))

    @property
    def remarks(self) -> list[str]:
        """What the user should know of the folder, in sentences."""
        damaged = self._files.damaged if self._files else 0
        records = f"{self._path}: {damaged} record(s) were damaged and are observed again."
        return [*self._problems, *([records] if damaged else [])]

    def get(self, keys: Iterable[str]) -> dict[str, Vector]:
        """The vectors that are there."""
        wanted = {bytes.fromhex(key): key for key in keys}
        with self._lock:
            found = {key: self._memory[key] for key in wanted if key in self._memory}
            found |= self._find([key for key in wanted if key not in found])
            if len(found) < len(wanted) and time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
                found |= self._find([key for key in wanted if key not in found])
        return {key: found[raw] for raw, key in wanted.items() if raw in found}

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors; they outlive this process when this returns, and the machine's power when the cache is closed."""
        self.observed += len(vectors)
        self.note(vectors)

    def note(self, vectors: Mapping[str, Vector]) -> None:
        """Keep what is no observation of a metric."""
        rows = {bytes.fromhex(key): np.asarray(vector, np.float64) for key, vector in vectors.items()}
        with self._lock:
            if rows and not (self._files and self._add(rows, self._files)):
                self._memory |= rows

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        if self._files is None or not keys:
            return {}
        try:
            return self._files.find(keys)
        except OSError:
            # A network disk, on which a file that others have merged is gone for those who have it open.
            self._end_log()
            self._files.close()
            self._look()
        with contextlib.suppress(OSError):
            return self._files.find(keys)
        return {}

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            if self._files:
                self._files.look()
        except OSError as error:
            self._say(f"{self._path}: cannot be read: {error.strerror or error}. What it holds is observed again.")

    def _add(self, rows: Mapping[bytes, Vector], files: Files) -> bool:
        """Add to this process's own log; whether that was possible."""
        if self._path is None or not self._writable:
            return False
        added = [(key, sealed(key, vector)) for key, vector in rows.items()]
        try:
            if self._log is None or self._log.full:
                self._end_log()
                self._log = Log(self._path)
                files.added(self._log, 0, [])
            start = self._log.add(b"".join(record for _, record in added))
        except OSError as error:
            self._say(
                f"{self._path}: cannot be used as a cache: {error.strerror or error}. What is observed now is not kept."
            )
            self._end_log()
            self._writable = False
            return False
        files.added(self._log, start, [(key, len(record)) for key, record in added])
        return True

    def _end_log(self) -> None:
        if self._log is not None:
            self._log.end()
        self._log = None

    def _take_over(self, old: Path) -> None:
        """Keep what an earlier version has observed, which kept it in a database that no network disk can hold."""
        if not old.is_file():
            return
        try:
            rows = _rows_of(old)
        except (sqlite3.Error, UnicodeError) as error:
            self._say(f"{old}: the cache of an earlier version, which cannot be read: {error}. It is observed again.")
            with contextlib.suppress(OSError):
                old.replace(old.with_name(f"{old.name}.damaged"))
            return
        self.note(rows)
        self._end_log()
        if self._writable:
            self._say(f"{old}: the {len(rows):,} observations of an earlier version are now kept in {self._path}.")
            with contextlib.suppress(OSError):
                for path in (old, *(old.with_name(old.name + beside) for beside in ("-wal", "-shm"))):
                    path.unlink(missing_ok=True)

    def _say(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_log()
        if self._files is None or self._path is None:
            return
        if error is None and self._writable:
            # Fewer files are read faster; whoever cannot make them fewer leaves them as they are.
            with contextlib.suppress(OSError):
                merge(self._path, 1 if self._files.damaged else MERGED)
        self._files.close()


def _rows_of(database: Path) -> dict[str, Vector]:
    """The whole vectors of a database of observations."""
    found = {}
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True)) as opened:
        for key, stored in opened.execute("SELECT key, vector FROM observations"):
            data = stored[16:]
            if stored[:16] == hashlib.blake2b(key.encode() + data, digest_size=16).digest():
                found[key] = np.frombuffer(data, np.float64)
    return found
