"""When work ends that is dealt out to slots: the largest shard first, to whoever is free, who goes on with what it holds.

This is what the engines of `ntire run` do; nothing is dealt out beforehand. No such order takes longer than (2 - 1/N) times the
shortest possible (Graham 1966), plus what loading takes.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARD_S = 180.0
"""Seconds that a shard should take: lost work is cheap, and starting one costs little beside it."""
SCORING_S = 120.0
"""The same of some images of all entries."""
SHARDS_A_SLOT = 4
"""At least so many where there is little work, so that slots end together."""


@dataclass(frozen=True)
class Load:
    """Pictures through one method or metric."""

    name: str
    pictures: int
    seconds: float
    """Of a slot for one picture."""
    load_s: float
    """For a slot to begin with it."""

    @property
    def total_s(self) -> float:
        """Of one slot for all pictures, without loading."""
        return self.pictures * self.seconds


@dataclass(frozen=True)
class Schedule:
    """What a number of slots makes of it."""

    slots: int
    shards: tuple[int, ...]
    """Of each load."""
    wall_s: float
    busy_s: float
    """Of all slots together, loading included."""
    load_s: float
    """Of that, loading."""

    @property
    def use(self) -> float:
        """The share of the slots' time that is spent on pictures."""
        return (self.busy_s - self.load_s) / (self.slots * self.wall_s) if self.wall_s else 0.0


def shard_seconds(loads: Sequence[Load], slots: int, longest: float) -> float:
    """How long a shard should take."""
    return min(longest, sum(load.total_s for load in loads) / (slots * SHARDS_A_SLOT))


def schedule(loads: Sequence[Load], slots: int, longest: float = SHARD_S) -> Schedule:
    """Deal shards of so many seconds, if pictures allow, out to slots, each of which loads what it does not hold."""
    wanted = shard_seconds(loads, slots, longest)
    waiting = [_shards(load, wanted) for load in loads]
    counts = tuple(map(len, waiting))
    free = [(0.0, number, -1) for number in range(slots)]
    wall = busy = loading = 0.0
    while any(waiting):
        now, number, held = heapq.heappop(free)
        if held < 0 or not waiting[held]:
            chosen = max((at for at, shards in enumerate(waiting) if shards), key=lambda at: waiting[at][0])
        else:
            chosen = held
        took = waiting[chosen].pop(0)
        starting = loads[chosen].load_s if chosen != held else 0.0
        heapq.heappush(free, (now + starting + took, number, chosen))
        wall, busy, loading = max(wall, now + starting + took), busy + starting + took, loading + starting
    return Schedule(slots, counts, wall, busy, loading)


def _shards(load: Load, wanted: float) -> list[float]:
    """Seconds of each, the longest first: as equal as whole pictures allow."""
    each = max(round(wanted / load.seconds), 1) if load.seconds else load.pictures
    number = math.ceil(load.pictures / each) if load.pictures else 0
    sizes = [load.pictures // number + (at < load.pictures % number) for at in range(number)]
    return [size * load.seconds for size in sizes]
