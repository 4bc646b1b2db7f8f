"""Questions that a table of answers cannot follow: the same picture turned, and cut in other places.

A method treats a picture that it has seen in the challenge like one that it has not. So three results are held against each
other: that of the picture as it was handed in, and those of two changes of it. An honest method, whatever it does, differs
between the first and the others by no more than between the others themselves: a local one not at all, a global or random one
alike in both. A table, also one with a network beside it, knows the first and computes the rest.

All distances are root mean squares in levels of 255, on what the results have in common.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntire.picture.image import Integers

APART = 2.0
"""How many times as far from the others the result of the known picture may lie as those lie from each other."""
LEVELS = 0.75
"""That is always allowed beside it: rounding, twice."""
FOLLOWS = 0.7
"""A result must be nearer to the turned result than to the one that was not turned, by this factor."""
PLAIN = 4.0
"""Levels below which a picture is too much like itself turned to tell."""
MARGIN = 64
"""Integers next to a cut that are not compared, where there are so many."""
LEAST_SIDE = 16
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""97.5 % quantiles of Student's t by degrees of freedom; 1.96 and a little beyond."""

Change = Callable[[Integers], Integers]
Ask = Callable[[Integers], Integers | None]
"""The result of an input, None if there is none."""


def _half_turn(pixels: Integers) -> Integers:
    return pixels[::-1, ::-1]


TURNS: Mapping[str, Change] = {
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned by half": _half_turn,
}
"""Each is its own inverse, and any two make the third."""


@dataclass(frozen=True)
class Asked:
    """What one probe of one picture showed."""

    passed: bool | None
    """None: it could not be asked, or the picture is too plain."""
    found: str
    views: tuple[Integers, ...] = ()
    """The results of the changed inputs, changed back: what is compared with the ground truth."""


def turned(pixels: Integers, first: Integers, ask: Ask) -> Asked:
    """The picture mirrored, upside down, turned by half: results turn with it, and like each other."""
    made = {name: ask(np.ascontiguousarray(turn(pixels))) for name, turn in TURNS.items()}
    if any(one is None or one.shape != first.shape for one in made.values()):
        return Asked(None, "it gives no image for the picture turned")
    results = {name: one for name, one in made.items() if one is not None}
    back = {name: TURNS[name](one) for name, one in results.items()}
    views = tuple(back.values())
    told = [name for name, turn in TURNS.items() if distance(turn(first), first) > PLAIN]
    ratios = [distance(back[name], first) / max(distance(results[name], first), 1e-9) for name in told]
    if ratios and min(ratios) > FOLLOWS:
        return Asked(False, "its result does not turn with the picture", views)
    names = list(TURNS)
    own = [distance(first, back[name]) for name in names]
    # Mirrored and half-turned differ by the third change, and so on: what a network's own lack of symmetry does to them.
    others = [distance(back[names[(number + 1) % 3]], back[names[(number + 2) % 3]]) for number in range(3)]
    return _judged(own, others, views)


def cut(pixels: Integers, first: Integers, ask: Ask) -> Asked:
    """Two overlapping parts of the picture: in their middle both results are that of the whole, or differ from it no more than
    from each other. Results may be larger than their inputs by a whole scale.
    """
    scale = max(first.shape[0] // pixels.shape[0], 1)
    axis = int(pixels.shape[1] >= pixels.shape[0])
    side = pixels.shape[axis]
    # Even, so that colours of a mosaic stay where they are; of 64, so that most networks' grids do.
    step = next((one for one in (64, 32, 16, 8, 2) if side >= 8 * one), 0)
    start = side // 4 // step * step if step else 0
    if start < 2 or min(pixels.shape[:2]) < LEAST_SIDE:
        return Asked(None, "the picture is too small to be cut")
    end = side - start
    left, right = ask(_part(pixels, axis, 0, end)), ask(_part(pixels, axis, start, side))
    sizes = scale * end, scale * (side - start)
    if left is None or right is None or (left.shape[axis], right.shape[axis]) != sizes:
        return Asked(None, "it gives no image for a part of the picture")
    margin = min(MARGIN, (end - start) // 4)
    low, high, start = scale * (start + margin), scale * (end - margin), scale * start
    whole = _part(first, axis, low, high)
    a, b = _part(left, axis, low, high), _part(right, axis, low - start, high - start)
    return _judged([distance(whole, a), distance(whole, b)], [distance(a, b)] * 2)


def _judged(own: Sequence[float], others: Sequence[float], views: tuple[Integers, ...] = ()) -> Asked:
    """Apart only if every comparison says so: one that does not is enough for a method that treats all alike."""
    allowed = [APART * other + LEVELS for other in others]
    words = f"{min(own):.2f} levels from the known picture's result, {max(others):.2f} from each other"
    return Asked(any(mine <= most for mine, most in zip(own, allowed, strict=True)), words, views)


def _part(pixels: Integers, axis: int, start: int, end: int) -> Integers:
    return np.ascontiguousarray(pixels[:, start:end] if axis else pixels[start:end])


def distance(one: Integers, other: Integers) -> float:
    """Root mean square difference in levels of 255."""
    apart = one.astype(np.float64) - other.astype(np.float64)
    return float(np.sqrt(np.mean(np.square(apart)))) * 255 / np.iinfo(one.dtype).max


def psnr_db(one: Integers, other: Integers) -> float:
    """PSNR of two pictures; at most 100 dB, so that equal ones can be averaged."""
    apart = distance(one, other)
    return 100.0 if apart == 0 else min(100.0, 20 * math.log10(255 / apart))


@dataclass(frozen=True)
class Gap:
    """How much better results are on submitted inputs than on others, in dB, with a 95 % interval; None for one picture."""

    mean: float
    low: float | None
    high: float | None
    pictures: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.2f} dB on one picture"
        return f"{self.mean:+.2f} dB ({self.low:+.2f} .. {self.high:+.2f}) on {self.pictures} pictures"

    def over(self, most: float) -> bool:
        """Whether it is more than `most` dB for sure; one picture says nothing for sure."""
        return self.low is not None and self.low > most


def gap_of_pairs(differences: Sequence[float]) -> Gap:
    """Of differences of the same pictures, known and changed."""
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Gap(mean, None, None, count)
    half = _student(count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return Gap(mean, mean - half, mean + half, count)


def gap_of_groups(known: Sequence[float], fresh: Sequence[float]) -> Gap:
    """Of the gains on submitted inputs and those on other pictures (Welch's interval, with the smaller group's freedom)."""
    mean, count = statistics.fmean(known) - statistics.fmean(fresh), min(len(known), len(fresh))
    if count < 2:
        return Gap(mean, None, None, count)
    spread = math.sqrt(sum(statistics.variance(one) / len(one) for one in (known, fresh)))
    half = _student(count - 1) * spread
    return Gap(mean, mean - half, mean + half, len(known) + len(fresh))


def _student(freedom: int) -> float:
    return STUDENT.get(freedom, 2.23)
