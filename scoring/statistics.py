"""How sure a ranking is: paired bootstrap over images, and what moves when one metric is left out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntire.scoring.metrics import METRICS
from ntire.scoring.track import Track

RESAMPLES = 2000
SEED = 2025
LEVEL = 0.95


@dataclass(frozen=True)
class Uncertainty:
    """Of one ranked entry, from resampling the images; the same images are drawn for all entries."""

    total: tuple[float, float]
    """95 % interval."""
    rank: tuple[int, int]
    """95 % interval."""
    better_than_next: float | None
    """Share of the resamples in which its total is better than that of the entry ranked next; None for the last."""


@dataclass(frozen=True)
class Sample:
    """What the bootstrap needs of an entry."""

    values: Mapping[str, Sequence[float]]
    """Per-image metrics, all in the same order of images."""
    of_set: Mapping[str, float]
    """Metrics of the whole set: they stay as they are in every resample."""
    subsets: Sequence[str] = ()
    """Of each image; needed where the subsets count alike."""
    images: Sequence[str] = ()
    """Their names."""


def uncertainties(track: Track, ranked: Sequence[Sample]) -> list[Uncertainty] | None:
    """Intervals for entries in the order of their ranks; None where a total is not finite or there is one image only."""
    if not ranked or track.costs:
        return None  # what an entry costs is the same whichever images are drawn
    totals = _resampled_totals(track, ranked)
    if totals is None:
        return None
    sign = 1 if track.better == "higher" else -1
    low, high = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    found = []
    for number, own in enumerate(totals):
        interval = (float(np.quantile(own, low)), float(np.quantile(own, high)))
        # Its rank in each resample: one more than the entries that are better there.
        ranks = 1 + (sign * totals > sign * own).sum(axis=0)
        places = np.quantile(ranks, [low, high], method="nearest")
        better = float(np.mean(sign * own > sign * totals[number + 1])) if number + 1 < len(totals) else None
        found.append(Uncertainty(interval, (int(places[0]), int(places[1])), better))
    return found


def _resampled_totals(track: Track, ranked: Sequence[Sample]) -> NDArray[np.float64] | None:
    """Totals (entries, RESAMPLES)."""
    images = {len(values) for sample in ranked for values in sample.values.values()}
    if len(images) != 1 or (count := images.pop()) < 2:
        return None
    drawn = _drawn(track, ranked[0].subsets, count)
    totals = np.zeros((len(ranked), RESAMPLES))
    for number, sample in enumerate(ranked):
        for term in track.terms:
            if term.metric in sample.of_set:
                means = np.full(RESAMPLES, sample.of_set[term.metric])
            else:
                values = np.asarray(sample.values[term.metric])
                if not np.isfinite(values).all():
                    return None
                means = drawn @ values
            added = term.offset + term.scale * means
            totals[number] += added if term.floor is None else np.maximum(term.floor, added)
    return totals


def _drawn(track: Track, subsets: Sequence[str], count: int) -> NDArray[np.float64]:
    """How much each image counts in each resample, (RESAMPLES, count): images are drawn from all, or, where the subsets
    count alike, as many as there are from each.
    """
    rng = np.random.default_rng(SEED)
    if track.average == "images":
        return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    drawn = np.zeros((RESAMPLES, count))
    for name in track.subsets:
        inside = np.flatnonzero(np.asarray(subsets) == name)
        own = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=RESAMPLES)
        drawn[:, inside] = own / len(inside) / len(track.subsets)
    return drawn


def sensitivity(
    track: Track, placed: Mapping[int, tuple[float | None, Mapping[str, float]]]
) -> dict[str, dict[int, int]]:
    """Ranks of entries, by their numbers, for the whole formula (key "all") and for it without each of its metrics in turn.

    `placed` are their totals and means. Empty where nothing can move (one entry, one metric) and where a total is more than
    the formula of the means: a final with marks, what an entry costs.
    """
    metrics = list(dict.fromkeys(term.metric for term in track.terms))
    means = {number: of for number, (_, of) in placed.items()}
    alone = all(total is not None and total == track.total(of) for total, of in placed.values())
    if len(placed) < 2 or len(metrics) < 2 or track.costs or not alone:
        return {}
    found = {"all": _ranks(track, means)}
    for left_out in metrics:
        terms = tuple(term for term in track.terms if term.metric != left_out)
        found[left_out] = _ranks(track.model_copy(update={"terms": terms}), means)
    return found


def _ranks(track: Track, means: Mapping[int, Mapping[str, float]]) -> dict[int, int]:
    sign = 1 if track.better == "higher" else -1
    totals = {number: None if (total := track.total(of)) is None else sign * total for number, of in means.items()}
    known = {number: total for number, total in totals.items() if total is not None}
    return {number: 1 + sum(other > total for other in known.values()) for number, total in known.items()}


def mean(values: Sequence[float]) -> float:
    """The exact mean; ValueError for a mean of nothing."""
    if not values:
        raise ValueError("a mean of nothing")
    return math.fsum(values) / len(values)


def order(track: Track, total: float | None, means: Mapping[str, float]) -> tuple[float, ...]:
    """Smaller is better: the total, then the tie-break metrics, each in its own direction. What is not known comes last."""
    sign = -1 if track.better == "higher" else 1
    own = {
        name: -means[name] if METRICS[name].higher_is_better else means[name]
        for name in track.tie_break
        if name in means
    }
    return (sign * total if total is not None else math.inf, *(own.get(name, math.inf) for name in track.tie_break))
