"""Small plots as geometry for the templates, which draw them as SVG: a kilobyte each, in the page's colours, light or dark.

Coordinates are in units of the drawing, x from the left; better is always to the right.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ntire.scoring.leaderboard import BINS

WIDTH = 240.0
MARGIN = 6.0


@dataclass(frozen=True)
class Scale:
    """Values to places on an axis."""

    low: float
    high: float
    width: float = WIDTH
    flipped: bool = False
    """Whether smaller values are better, and so to the right."""

    def __call__(self, value: float) -> float:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        share = 1 - share if self.flipped else share
        return round(MARGIN + min(max(share, 0.0), 1.0) * (self.width - 2 * MARGIN), 2)


@dataclass(frozen=True)
class Strip:
    """Where one entry stands among all in one metric."""

    others: tuple[float, ...]
    own: float | None
    left: str
    right: str
    place: str
    """In words."""


def finite(values: Sequence[Any]) -> list[float]:
    """The numbers among values of a JSON, where infinity is a string."""
    return [float(one) for one in values if isinstance(one, int | float) and math.isfinite(one)]


def strip(values: Mapping[int, Any], own: int, *, higher_is_better: bool, decimals: int) -> Strip | None:
    """The strip of an entry by its number; None if nobody has a value."""
    known = {
        number: float(one) for number, one in values.items() if isinstance(one, int | float) and math.isfinite(one)
    }
    if not known:
        return None
    scale = Scale(min(known.values()), max(known.values()), flipped=not higher_is_better)
    ends = (scale.high, scale.low) if scale.flipped else (scale.low, scale.high)
    better = (
        sum((one > known[own]) if higher_is_better else (one < known[own]) for one in known.values())
        if own in known
        else 0
    )
    return Strip(
        tuple(scale(one) for number, one in sorted(known.items()) if number != own),
        scale(known[own]) if own in known else None,
        f"{ends[0]:.{decimals}f}",
        f"{ends[1]:.{decimals}f}",
        f"{better + 1} of {len(known)}" if own in known else "no value",
    )


@dataclass(frozen=True)
class Whisker:
    """A value with its interval."""

    at: float
    low: float
    high: float


def intervals(lines: Sequence[Mapping[str, Any]], width: float = 160.0) -> dict[str, Whisker]:
    """The totals of ranked lines with their 95 % intervals, by entry, on one axis."""
    known = [line for line in lines if line.get("uncertainty") and isinstance(line["total"], int | float)]
    ends = finite([end for line in known for end in line["uncertainty"]["total"]])
    if len(ends) < 2 * len(known) or not ends:
        return {}
    scale = Scale(min(ends), max(ends), width)
    return {
        line["entry"]: Whisker(scale(line["total"]), *(scale(end) for end in line["uncertainty"]["total"]))
        for line in known
    }


def rank_ranges(lines: Sequence[Mapping[str, Any]], width: float = 72.0) -> dict[str, Whisker]:
    """Ranks and the ranges that they may have, by entry; the first is to the left, as one reads."""
    known = [line for line in lines if line.get("uncertainty") and line["rank"] is not None]
    scale = Scale(1, max((line["rank"] for line in known), default=1), width)
    return {
        line["entry"]: Whisker(scale(line["rank"]), *(scale(end) for end in line["uncertainty"]["rank"]))
        for line in known
    }


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    label: str
    count: int
    height: float
    """Share of the highest."""
    failed: bool


def margins(histogram: Sequence[int]) -> list[Bar]:
    """Images by their distance above a gate's threshold."""
    most = max(histogram, default=0) or 1
    labels = [
        f"below {high:g}" if math.isinf(low) else f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"
        for low, high in itertools.pairwise(BINS)
    ]
    return [
        Bar(label, count, count / most, high <= 0)
        for label, count, high in zip(labels, histogram, BINS[1:], strict=False)
    ]


@dataclass(frozen=True)
class Course:
    """One entry's ranks over several formulas."""

    entry: int
    points: str
    """Of an SVG polyline."""
    ranks: tuple[int | None, ...]
    moves: bool


def courses(moved: Mapping[str, Mapping[int, int]], step: float, line: float) -> list[Course]:
    """How the ranks of entries move when one metric is left out; columns are `step` apart, ranks `line`."""
    found = []
    for entry in moved["all"]:
        ranks = tuple(of.get(entry) for of in moved.values())
        places = [(at, rank) for at, rank in enumerate(ranks) if rank is not None]
        points = " ".join(f"{step * (at + 0.5):g},{line * (rank - 0.5):g}" for at, rank in places)
        found.append(Course(entry, points, ranks, len({rank for _, rank in places}) > 1))
    return found
