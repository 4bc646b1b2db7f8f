"""Runtime as the efficient super-resolution challenges take it, to be held beside our own: it is what their tables show.

A fresh process, no warm-up; each picture once, in the order of names, whole; the time is that of the networks alone (on a GPU
between two events), and what counts is the mean over all pictures, the first one with its start-up included.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ntire import UserError
from ntire.benchmark.child import Setup
from ntire.benchmark.statistics import Times

if TYPE_CHECKING:
    from ntire.benchmark.protocol import BenchChild, Picture, Side


@dataclass(frozen=True)
class ChallengeTimes:
    """Milliseconds of the networks for each picture, in the order in which they ran."""

    networks_ms: tuple[float, ...]

    @property
    def mean_ms(self) -> float:
        """What the challenge counts."""
        return fmean(self.networks_ms)

    @property
    def without_first_ms(self) -> float | None:
        """The same without the first picture; None for a single one."""
        return fmean(self.networks_ms[1:]) if len(self.networks_ms) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """The object `esr` of `ntire bench --protocol esr --json`."""
        return {
            "mean_ms": self.mean_ms, "first_ms": self.networks_ms[0], "without_first_ms": self.without_first_ms,
            "median_ms": median(self.networks_ms), "pictures": len(self.networks_ms),
        }  # fmt: skip

    def beside(self, ours: Mapping[str, Sequence[float]]) -> list[tuple[str, float, float]]:
        """What differs, step by step, from the challenge's figure to ours: in words, milliseconds, ratio to the challenge's."""
        steps = [("mean of all pictures, no warm-up (the challenge)", self.mean_ms)]
        steps.append(("the first picture alone", self.networks_ms[0]))
        if self.without_first_ms is not None:
            steps.append(("mean without the first picture", self.without_first_ms))
        steps.append(("median of all pictures", median(self.networks_ms)))
        if ours:
            warm = Times.of(ours)
            steps += [("mean after warm-up", warm.mean_ms), ("median after warm-up (ours)", warm.median_ms)]
        return [(words, value, value / self.mean_ms) for words, value in steps]


def time_as_challenge(
    setup: Setup,
    pictures: "Sequence[Picture]",
    timeout: float,
    make: "Callable[[Side, float], BenchChild]",
    side: "Callable[[str, Setup], Side]",
) -> ChallengeTimes:
    """Time a method so; `make` starts a process of its own. Raises UserError as `bench` does, and for a method whose networks
    cannot be timed apart.
    """
    whole = replace(setup, options={**setup.options, "tile": None})
    child = make(side(setup.team, whole), timeout)
    try:
        found = [child.networks_ms(picture) for picture in sorted(pictures, key=lambda one: one.name)]
    finally:
        child.end()
    known = tuple(one for one in found if one is not None)
    if len(known) < len(found):
        raise UserError(
            f"{setup.team}: its networks do not run through `forward`, so they cannot be timed apart.", exit_code=3
        )
    return ChallengeTimes(known)
