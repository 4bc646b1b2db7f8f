"""What the votes say of the entries: strengths or mean opinions, with intervals over observers and pictures together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntire.study.agreement import alpha, kendall_w
from ntire.study.answers import by_unit
from ntire.study.ballots import Vote, comparisons_of
from ntire.study.davidson import fit
from ntire.study.design import Design

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 95.0


@dataclass(frozen=True)
class Between:
    """A value and the interval that 95 % of the resamples lie in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class JudgedEntry:
    """An entry by one question."""

    entry: str
    team: str
    strength: Between
    """Log scale, the mean of all entries 0; of opinions the mean opinion score, 1 to 5."""
    share: Between
    """Of comparisons that it is expected to win against the others; of opinions (mean - 1) / 4."""
    rank: int
    rank_low: int
    rank_high: int
    votes: int
    """Answers that it had a part in."""


@dataclass(frozen=True)
class Duel:
    """Two entries by one question."""

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    difference: Between
    """Of their strengths, or mean opinions."""

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Outcome:
    """The result of one question."""

    criterion: str
    question: str
    weight: float
    entries: tuple[JudgedEntry, ...]
    """By rank."""
    duels: tuple[Duel, ...]
    tie: float | None
    """Davidson's parameter on the log scale; None where nothing was tied."""
    alpha: float | None
    """Krippendorff's, ordinal, of all answers to the same thing."""
    concordance: float | None
    """Kendall's W of the observers' orders of the entries; None unless two of them judged every entry."""
    votes: int
    observers: int


def outcome_of(design: Design, criterion: str, votes: Sequence[Vote], seed: int = 0) -> Outcome | None:
    """The result of a question by the votes of all observers who count; None without votes on every entry."""
    counted = [vote for vote in votes if vote.criterion == criterion and vote.role == "vote"]
    seen = {entry for vote in counted for entry in vote.shown}
    if len(seen) < len(design.entries):
        return None
    estimate = _opinions if design.kind == "opinion" else _strengths
    rng = np.random.default_rng([design.seed, seed])
    values, shares, tie = estimate(design, counted, rng)
    asked = next(one for one in design.criteria if one.name == criterion)
    table = by_unit(counted)
    return Outcome(
        criterion, asked.question, asked.weight, _ranked(design, counted, values, shares), _duels(design, counted, values),
        tie if np.isfinite(tie) else None, alpha(table, "ordinal"), kendall_w(scores_by_observer(design, counted)),
        len(counted), len({vote.observer for vote in counted}),
    )  # fmt: skip


def resampled(votes: Sequence[Vote], rng: np.random.Generator) -> Floats:
    """(1 + RESAMPLES, votes): how often each vote counts, first once, then with observers and regions drawn anew, both of them.

    Resampling both ways keeps intervals honest for other observers and other pictures; they come out too wide, if anything
    (A. B. Owen, The pigeonhole bootstrap, 2007).
    """
    weights = np.ones((1 + RESAMPLES, len(votes)))
    for key in ("observer", "region"):
        _, which = np.unique([getattr(vote, key) for vote in votes], return_inverse=True)
        count = int(which.max()) + 1
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        weights[1:] *= drawn[:, which]
    return weights


def _strengths(design: Design, votes: Sequence[Vote], rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Strengths and win shares, (1 + RESAMPLES, n): those of the votes, then those of the resamples; and the tie."""
    count = len(design.entries)
    found, per_vote = comparisons_of(votes), [len(vote.shown) * (len(vote.shown) - 1) // 2 for vote in votes]
    weights = np.repeat(resampled(votes, rng), per_vote, axis=1)
    counts = [found.counts(row, count) for row in weights]
    fitted = fit(np.stack([wins for wins, _ in counts]), np.stack([ties for _, ties in counts]))
    return fitted.values, fitted.win_share(), float(fitted.tie[0])


def _opinions(design: Design, votes: Sequence[Vote], rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """The same of opinions: means, and where they lie between 1 and 5."""
    weights, count = resampled(votes, rng), len(design.entries)
    levels = np.array([vote.answer[0] for vote in votes], float)
    of_entry = np.array([vote.shown[0] for vote in votes])[:, None] == np.arange(count)
    total = weights @ of_entry
    with np.errstate(invalid="ignore"):
        means = (weights * levels) @ of_entry / total
    # A resample without a vote on some entry says nothing of it.
    means = np.where(np.isnan(means), means[0], means)
    return means, (means - 1) / 4, -np.inf


def between(values: Floats) -> Between:
    """The first value, and the interval of the rest."""
    low, high = np.percentile(values[1:], [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Between(float(values[0]), float(low), float(high))


def _ranked(design: Design, votes: Sequence[Vote], values: Floats, shares: Floats) -> tuple[JudgedEntry, ...]:
    ranks = 1 + (values[:, None, :] > values[:, :, None]).sum(2)
    found = []
    for place, one in enumerate(design.entries):
        low, high = np.percentile(ranks[1:, place], [(100 - LEVEL) / 2, (100 + LEVEL) / 2], method="nearest")
        found.append(
            JudgedEntry(
                one.name, one.team, between(values[:, place]), between(shares[:, place]), int(ranks[0, place]),
                int(low), int(high), sum(place in vote.shown for vote in votes),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda one: (one.rank, one.entry)))


def _duels(design: Design, votes: Sequence[Vote], values: Floats) -> tuple[Duel, ...]:
    count = len(design.entries)
    wins = ties = np.zeros((count, count))
    if design.kind != "opinion":
        found = comparisons_of(votes)
        wins, ties = found.counts(np.ones(len(found.outcome)), count)
    return tuple(
        Duel(
            design.entries[a].name, design.entries[b].name, int(wins[a, b]), int(wins[b, a]), int(ties[a, b]),
            between(values[:, a] - values[:, b]),
        )
        for a in range(count)
        for b in range(a + 1, count)
    )  # fmt: skip


def scores_by_observer(design: Design, votes: Sequence[Vote]) -> Floats:
    """(observers, entries): each observer's share of wins, or mean level, of every entry; only of those who judged all."""
    count = len(design.entries)
    points: dict[int, Floats] = {}
    for vote in votes:
        own = points.setdefault(vote.observer, np.zeros((2, count)))
        for entry, rank in zip(vote.shown, vote.answer, strict=True):
            if len(vote.shown) == 1:
                own[:, entry] += rank, 1
            else:
                better = sum(other > rank for other in vote.answer)
                equal = sum(other == rank for other in vote.answer) - 1
                own[:, entry] += better + equal / 2, len(vote.answer) - 1
    whole = [own[0] / own[1] for own in points.values() if own[1].all()]
    return np.array(whole).reshape(-1, count)
