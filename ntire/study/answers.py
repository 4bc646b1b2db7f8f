"""Answers side by side: what each observer said of each thing that several were asked about."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ntire.study.ballots import Vote

Unit = tuple[int, int, int]
"""Region and two entries; of an opinion, the entry twice."""


def sayings(vote: Vote) -> dict[Unit, float]:
    """What a vote says: for each two entries 1 if the first is better, -1 if the second, 0 for a tie; or a level."""
    if len(vote.shown) == 1:
        return {(vote.region, vote.shown[0], vote.shown[0]): float(vote.answer[0])}
    known = sorted(zip(vote.shown, vote.answer, strict=True))
    return {
        (vote.region, first, second): float(np.sign(other - rank))
        for place, (first, rank) in enumerate(known)
        for second, other in known[place + 1 :]
    }


def by_unit(votes: Sequence[Vote]) -> NDArray[np.float64]:
    """(observers, units), NaN where an observer was not asked; the last of several answers counts."""
    observers = {one: row for row, one in enumerate(sorted({vote.observer for vote in votes}))}
    said = [(observers[vote.observer], unit, value) for vote in votes for unit, value in sayings(vote).items()]
    units = {unit: column for column, unit in enumerate(sorted({unit for _, unit, _ in said}))}
    table = np.full((len(observers), len(units)), np.nan)
    for row, unit, value in said:
        table[row, units[unit]] = value
    return table
