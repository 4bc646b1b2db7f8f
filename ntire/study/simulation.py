"""Observers that are made up: what they answer follows from strengths, tastes of their own and the pictures' peculiarities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntire.study.davidson import probabilities
from ntire.study.deck import card
from ntire.study.design import Design

Floats = NDArray[np.float64]
TIE = 0.0
"""Log scale, of pairs: two equal entries are then a tie in a third of the trials."""


@dataclass(frozen=True)
class Behaviour:
    """How made-up observers judge; the spreads are standard deviations on the scale of the strengths (of opinions: levels)."""

    strengths: tuple[float, ...]
    """Of the entries; of opinions, their mean levels."""
    tie: float = TIE
    taste: float = 0.4
    """Between observers, of one entry."""
    peculiarity: float = 0.4
    """Between pictures, of one entry."""
    noise: float = 0.8
    """Of a single opinion."""


@dataclass(frozen=True)
class Dealt:
    """What all observers of a study see, one line a trial."""

    observer: NDArray[np.int64]
    region: NDArray[np.int64]
    entries: NDArray[np.int64]
    """(trials, shown at once)."""


def shown_to(design: Design, observers: int) -> Dealt:
    """The hands of the first observers, without repeats and anchors, which tell nothing of the entries."""
    trials = design.session.trials
    cards = [card(design, number) for number in range(observers * trials)]
    return Dealt(
        np.repeat(np.arange(observers), trials),
        np.array([one.region for one in cards]),
        np.array([one.shown for one in cards]),
    )


def felt(shown: Dealt, how: Behaviour, sets: int, rng: np.random.Generator) -> Floats:
    """(sets, trials, shown at once): how good each picture seems to its observer, chance left out."""
    count = len(how.strengths)
    tastes = rng.normal(0, how.taste, (sets, int(shown.observer.max()) + 1, count))
    own = rng.normal(0, how.peculiarity, (sets, int(shown.region.max()) + 1, count))
    found: Floats = (
        np.array(how.strengths)[shown.entries]
        + tastes[:, shown.observer[:, None], shown.entries]
        + own[:, shown.region[:, None], shown.entries]
    )
    return found


def answers(design: Design, seems: Floats, how: Behaviour, rng: np.random.Generator) -> NDArray[np.int64]:
    """Of the same shape: ranks of pairs and rankings, levels of opinions."""
    if design.kind == "opinion":
        return np.clip(np.rint(seems + rng.normal(0, how.noise, seems.shape)), 1, 5).astype(np.int64)
    if design.kind == "ranking":
        # Sorting by strengths with Gumbel noise is drawing from Plackett and Luce's model.
        noisy = seems + rng.gumbel(size=seems.shape)
        return (-noisy).argsort(-1).argsort(-1) + 1
    sets, trials, _ = seems.shape
    tie = np.full(sets * trials, how.tie if design.ties else -np.inf)
    win, tied = probabilities(seems.reshape(-1, 2), tie)
    drawn = rng.random(sets * trials)
    first, equal = drawn < win[:, 0, 1], drawn > 1 - tied[:, 0, 1]
    found = np.stack([np.where(first | equal, 1, 2), np.where(first & ~equal, 2, 1)], -1)
    return found.reshape(sets, trials, 2).astype(np.int64)
