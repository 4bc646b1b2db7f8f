"""Observers and votes in one SQLite file: what has been acknowledged is on the disk, whatever happens next."""

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ntire import UserError
from ntire.study.ballots import Vote
from ntire.study.deck import Trial
from ntire.study.design import Design

VOTES = "votes.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS observers (
    id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, name TEXT NOT NULL, joined TEXT NOT NULL, slot INTEGER, checked TEXT,
    screen TEXT NOT NULL DEFAULT '{}', finished TEXT, excluded TEXT, reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, observer INTEGER NOT NULL REFERENCES observers (id), position INTEGER NOT NULL,
    nonce TEXT NOT NULL, region INTEGER NOT NULL, shown TEXT NOT NULL, role TEXT NOT NULL, answers TEXT NOT NULL,
    seconds REAL NOT NULL, at TEXT NOT NULL, undone TEXT, UNIQUE (observer, nonce)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_vote ON votes (observer, position) WHERE undone IS NULL;
"""
Answers = Mapping[str, Sequence[int]]
"""For each criterion the ranks or levels of the pictures, from left to right."""


class NotStored(Exception):
    """The disk is full or fails: nothing was acknowledged."""


class OutOfTurn(Exception):
    """A vote for another trial than the one that is asked now, or a different one of the same number."""


@dataclass(frozen=True)
class Observer:
    """Somebody who takes part."""

    id: int
    name: str
    joined: str
    slot: int | None
    """The hand of trials; None before consent was given."""
    checked: str | None
    """When the screen was checked."""
    screen: Mapping[str, Any]
    finished: str | None
    excluded: str | None
    reason: str
    answered: int
    """Trials that have a vote."""
    last: str | None
    """When the last vote came."""


COLUMNS = "id, name, joined, slot, checked, screen, finished, excluded, reason"
ANSWERED = "(SELECT count(*) FROM votes WHERE observer = observers.id AND undone IS NULL)"
LAST = "(SELECT max(at) FROM votes WHERE observer = observers.id AND undone IS NULL)"


class Store:
    """All reading and writing; one connection, one writer at a time."""

    def __init__(self, folder: Path, design: Design) -> None:
        """Open or make the file. Raises UserError for one that belongs to another design or is damaged."""
        self.path = folder / VOTES
        self._lock = threading.Lock()
        try:
            # Nobody else on the machine may read it; its log and index get the same rights.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "wal_autocheckpoint = 400"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(SCHEMA)
            (found,) = self._connection.execute("PRAGMA quick_check").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{self.path}: cannot be opened: {error}.") from None
        if found != "ok":
            raise UserError(f"{self.path}: damaged: {found}. Restore it from a copy.")
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO meta VALUES ('design', ?)", [design.identity()])
        if self.meta("design") != design.identity():
            raise UserError(
                f"{self.path}: has votes on another design: study.toml has been edited where trials depend on it "
                "(kind, criteria, session, seed, entries, regions). Take that back, or make a new study."
            )

    def close(self) -> None:
        """Fold the write-ahead log into the file, and close it."""
        self._connection.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; it is on the disk when the block has ended. Raises NotStored if it cannot be."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise NotStored(str(error)) from None
                raise

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def meta(self, key: str) -> str | None:
        """A fact of the study."""
        found = self._read("SELECT value FROM meta WHERE key = ?", [key])
        return found[0][0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact of the study."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", [key, value]
            )

    def observers(self, where: str = "1", values: Sequence[Any] = ()) -> list[Observer]:
        """All observers, by their numbers; or those of a condition of ours."""
        rows = self._read(f"SELECT {COLUMNS}, {ANSWERED}, {LAST} FROM observers WHERE {where} ORDER BY id", values)
        names = [one.name for one in fields(Observer)]
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [Observer(**{**one, "screen": json.loads(one["screen"])}) for one in found]

    def observer(self, number: int) -> Observer:
        """The one of that number. Raises KeyError."""
        found = self.observers("id = ?", [number])
        if not found:
            raise KeyError(number)
        return found[0]

    def by_token(self, token: str) -> Observer | None:
        """Whose link it is; `token` is hashed."""
        found = self.observers("token = ?", [token])
        return found[0] if found else None

    def join(self, token: str, name: str, most: int) -> Observer | None:
        """A new observer, or None if there are `most` already."""
        with self._writing() as database:
            if database.execute("SELECT count(*) FROM observers").fetchone()[0] >= most:
                return None
            made = database.execute(
                "INSERT INTO observers (token, name, joined) VALUES (?, ?, ?)", [token, name, now()]
            )
            number = made.lastrowid
        assert number is not None
        return self.observer(number)

    def consent(self, observer: int) -> None:
        """Deal a hand: the first that nobody has, or had only observers who are excluded."""
        with self._writing() as database:
            held = {row[0] for row in database.execute("SELECT slot FROM observers WHERE excluded IS NULL")}
            slot = next(number for number in range(len(held) + 1) if number not in held)
            database.execute("UPDATE observers SET slot = ? WHERE id = ? AND slot IS NULL", [slot, observer])

    def checked(self, observer: int, screen: Mapping[str, Any]) -> None:
        """Keep what the check of the screen found."""
        with self._writing() as database:
            database.execute(
                "UPDATE observers SET checked = ?, screen = ? WHERE id = ?", [now(), json.dumps(screen), observer]
            )

    def exclude(self, observer: int, reason: str | None) -> None:
        """Leave an observer out by hand, with a reason; take it back with None."""
        with self._writing() as database:
            at = None if reason is None else now()
            database.execute("UPDATE observers SET excluded = ?, reason = ? WHERE id = ?", [at, reason or "", observer])

    def vote(
        self, observer: int, position: int, nonce: str, trial: Trial, answers: Answers, seconds: float, length: int
    ) -> None:
        """Store a vote; the same one twice is stored once.

        Raises OutOfTurn for a vote on another trial than the next, and NotStored.
        """
        with self._writing() as database:
            same = database.execute(
                "SELECT position, answers FROM votes WHERE observer = ? AND nonce = ?", [observer, nonce]
            ).fetchone()
            said = json.dumps(answers, sort_keys=True)
            if same is not None:
                if tuple(same) != (position, said):
                    raise OutOfTurn
                return
            (answered,) = database.execute(
                "SELECT count(*) FROM votes WHERE observer = ? AND undone IS NULL", [observer]
            ).fetchone()
            if answered != position:
                raise OutOfTurn
            database.execute(
                "INSERT INTO votes (observer, position, nonce, region, shown, role, answers, seconds, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [observer, position, nonce, trial.region, json.dumps(trial.shown), trial.role, said, seconds, now()],
            )
            if position + 1 == length:
                database.execute("UPDATE observers SET finished = ? WHERE id = ?", [now(), observer])

    def undo(self, observer: int, position: int) -> None:
        """Take the last vote back, if it is on that trial: it stays in the file, marked. Raises OutOfTurn."""
        with self._writing() as database:
            (answered,) = database.execute(
                "SELECT count(*) FROM votes WHERE observer = ? AND undone IS NULL", [observer]
            ).fetchone()
            if not answered or answered - 1 != position:
                raise OutOfTurn
            database.execute(
                "UPDATE votes SET undone = ? WHERE observer = ? AND position = ? AND undone IS NULL",
                [now(), observer, position],
            )
            database.execute("UPDATE observers SET finished = NULL WHERE id = ?", [observer])

    def votes(self) -> list[Vote]:
        """All votes that count, one for each criterion, in the order in which they came."""
        rows = self._read(
            "SELECT observer, position, region, shown, role, answers, seconds, at FROM votes WHERE undone IS NULL ORDER BY id"
        )
        return [
            Vote(observer, position, region, tuple(json.loads(shown)), role, criterion, tuple(answer), seconds, at)
            for observer, position, region, shown, role, answers, seconds, at in rows
            for criterion, answer in json.loads(answers).items()
        ]


def now() -> str:
    """UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
