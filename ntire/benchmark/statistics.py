"""Times to figures: what is quoted of many calls on several pictures, and how sure it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Protocol:
    """How long is measured; the harness warms up, the same for everybody."""

    warm_calls: int = 3
    """For each distinct size."""
    warm_calls_in_all: int = 10
    warm_seconds: float = 2.0
    passes: int = 5
    seconds: float = 30.0
    pairs: int = 15
    """With a baseline."""
    quick: bool = False

    def more(self, passes: int, seconds: float, pairs: int | None) -> bool:
        """Whether another pass over the pictures is due; `pairs` is None without a baseline."""
        return passes < self.passes or seconds < self.seconds or (pairs is not None and pairs < self.pairs)


FULL = Protocol()
QUICK = Protocol(warm_calls=1, warm_calls_in_all=2, warm_seconds=0.0, passes=2, seconds=0.0, pairs=3, quick=True)
"""To see that everything runs; no figure of it should be quoted."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of calls on several pictures."""

    median_ms: float
    """Of the pictures' medians."""
    low_ms: float
    high_ms: float
    """Ends of the 95 % bootstrap interval of the median: pictures are drawn again, and calls of each."""
    p90_ms: float
    mean_ms: float
    """Over all calls, as `p90_ms` and the quartiles."""
    quartiles_ms: tuple[float, float]
    calls: int

    @classmethod
    def of(cls, by_picture: Mapping[str, Sequence[float]]) -> "Times":
        """Of the calls on each picture; each has at least one."""
        rng = np.random.default_rng(0)
        calls = [np.asarray(times, float) for times in by_picture.values()]
        medians = np.stack(
            [np.median(times[rng.integers(0, len(times), (RESAMPLES, len(times)))], axis=1) for times in calls]
        )
        drawn = rng.integers(0, len(calls), (RESAMPLES, len(calls)))
        resampled = np.median(medians[drawn, np.arange(RESAMPLES)[:, None]], axis=1)
        low, high = np.percentile(resampled, (2.5, 97.5))
        flat = np.concatenate(calls)
        first, third = np.percentile(flat, (25, 75))
        return cls(
            median_ms=float(np.median([np.median(times) for times in calls])),
            low_ms=float(low),
            high_ms=float(high),
            p90_ms=float(np.percentile(flat, 90)),
            mean_ms=float(flat.mean()),
            quartiles_ms=(float(first), float(third)),
            calls=len(flat),
        )


@dataclass(frozen=True)
class Ratio:
    """One side's times over the other's, pair by pair: what a machine that is busy with other things spoils least."""

    median: float
    p5: float
    p95: float
    pairs: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> "Ratio":
        """Of pairs (this, other) that were taken one after the other."""
        ratios = [one / other for one, other in pairs]
        low, high = np.percentile(ratios, (5, 95))
        return cls(median(ratios), float(low), float(high), len(ratios))
