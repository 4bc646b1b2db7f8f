"""Observations that were made before: kept by all that they depend on, so that no network looks twice at one image."""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ntire import UserError
from ntire.environment import own_cache
from ntire.scoring.instruments import Vector

FORMAT = 1
"""Raised when what is observed changes without a version of a library changing."""


def default_path() -> Path:
    """Where the cache is unless the user says otherwise."""
    return own_cache() / "observations.sqlite"


def key_of(*parts: str) -> str:
    """The key of an observation: a hash of all that it depends on."""
    return hashlib.sha256("\0".join((str(FORMAT), *parts)).encode()).hexdigest()


class Cache:
    """Vectors by key in an SQLite file, or in memory alone. Use it in a `with` statement."""

    def __init__(self, path: Path | None) -> None:
        """Open or begin the file; None keeps nothing beyond this process. Raises UserError if it cannot be used."""
        self.observed = 0
        """Vectors that were put in by this process: the work that was not saved."""
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=60)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS observations (key TEXT PRIMARY KEY, vector BLOB) STRICT")
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{path}: cannot be used as a cache: {error}. Delete it, or score with --no-cache.", exit_code=3
            ) from None

    def get(self, keys: Iterable[str]) -> dict[str, Vector]:
        """The vectors that are there."""
        found = {}
        for key in keys:
            row = self._database.execute("SELECT vector FROM observations WHERE key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = np.frombuffer(row[0], dtype=np.float64)
        return found

    def put(self, vectors: Mapping[str, Vector]) -> None:
        """Keep vectors; they are on the disk when this returns."""
        self.observed += len(vectors)
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO observations VALUES (?, ?)",
                [(key, np.ascontiguousarray(vector, np.float64).tobytes()) for key, vector in vectors.items()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
