"""Answers as numbers: what was shown, who was preferred, and the comparisons of two entries that an answer holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntire.study.deck import Role

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Vote:
    """An observer's answer to one question about one trial."""

    observer: int
    position: int
    """Of the trial in the observer's session, from 0."""
    region: int
    shown: tuple[int, ...]
    """Entries from left to right; their number is the region's degraded copy."""
    role: Role
    criterion: str
    answer: tuple[int, ...]
    """For each picture shown its rank, 1 the best, ties alike; for an opinion its level, 5 the best."""
    seconds: float
    at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Comparisons:
    """Who won against whom: one line for every two entries that stood side by side; a ranking of four holds six."""

    observer: Ints
    """By the place in `observers`."""
    region: Ints
    first: Ints
    second: Ints
    """Entries, first < second."""
    outcome: Ints
    """1 where the first won, -1 where the second did, 0 for a tie."""
    observers: tuple[int, ...]

    def counts(self, weights: NDArray[np.float64], entries: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wins (n, n) of the row against the column, and ties, symmetric; each line counts by its weight."""
        winner = np.where(self.outcome >= 0, self.first, self.second)
        loser = np.where(self.outcome >= 0, self.second, self.first)
        cells = winner * entries + loser
        tied = self.outcome == 0
        won, equal = (
            np.bincount(cells[chosen], weights[chosen], entries**2).reshape(entries, entries).astype(np.float64)
            for chosen in (~tied, tied)
        )
        return won, equal + equal.T


def comparisons_of(votes: Sequence[Vote]) -> Comparisons:
    """The comparisons in votes of pairs or rankings."""
    observers = tuple(sorted({vote.observer for vote in votes}))
    place = {one: number for number, one in enumerate(observers)}
    rows = []
    for vote in votes:
        known = sorted(zip(vote.shown, vote.answer, strict=True))
        for number, (first, rank) in enumerate(known):
            for second, other in known[number + 1 :]:
                rows.append((place[vote.observer], vote.region, first, second, int(np.sign(other - rank))))
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    observer, region, first, second, outcome = np.ascontiguousarray(table.T)
    return Comparisons(observer, region, first, second, outcome, observers)
