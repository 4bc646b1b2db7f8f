"""Who sees what: an endless deck of trials in which every pair of entries is seen equally often, dealt in consecutive hands.

The deck repeats a list of blocks (all pairs as in a round-robin tournament; sets of a ranking that form a difference family;
single entries for opinions), and each time round a block moves on to its next region. An observer's hand is the next
`trials` cards. So after any number of hands, pairs are seen equally often to within one, and so are the pairs of a region.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from ntire.study.design import Design

Role = Literal["vote", "repeat", "anchor"]
ATTEMPTS = 4000
"""Exchanges that are tried to find the blocks of a ranking."""


@dataclass(frozen=True)
class Trial:
    """One screen: pictures of one region, from left to right."""

    region: int
    shown: tuple[int, ...]
    """Entries by their place in the list; their number is the degraded copy, the region's anchor."""
    role: Role = "vote"


@cache
def blocks_of(entries: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Sets of `size` entries in which every pair is together equally often."""
    if size == 1:
        return tuple((one,) for one in range(entries))
    if size == 2:
        return _tournament(entries)
    if size >= entries:
        return (tuple(range(entries)),)
    return _difference_family(entries, size)


def _tournament(entries: int) -> tuple[tuple[int, ...], ...]:
    """All pairs, so that entries come up in turns: the circle method of round-robin tournaments."""
    players = [*range(entries), *([None] if entries % 2 else [])]
    half = len(players) // 2
    pairs = []
    for _ in range(len(players) - 1):
        for one, other in zip(players[:half], reversed(players[half:]), strict=True):
            if one is not None and other is not None:
                pairs.append((min(one, other), max(one, other)))
        players = [players[0], players[-1], *players[1:-1]]
    return tuple(pairs)


def _difference_family(entries: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Blocks of `size` that are shifted through all entries, chosen so that every difference between two comes equally often.

    The shifts of a block bring a pair of entries together as often as their difference is in the block (R. C. Bose, 1939).
    Blocks are searched for by exchanging one entry at a time; where none are found, all sets of that size do it.
    """
    inside = size * (size - 1) // 2
    chance = random.Random(entries * 100 + size)
    for count in range(1, entries):
        often, rest = divmod(2 * count * inside, entries - 1)
        # Half the circle is a difference of half as many pairs.
        if rest or (entries % 2 == 0 and often % 2):
            continue
        if (starts := _search(entries, size, count, chance)) is not None:
            return _spread([[(one + shift) % entries for one in block] for shift in range(entries) for block in starts])
    return _spread([list(block) for block in itertools.combinations(range(entries), size)])


def _search(entries: int, size: int, count: int, chance: random.Random) -> list[list[int]] | None:
    """That many blocks with all differences equally often, or None where chance finds none."""
    blocks = [chance.sample(range(entries), size) for _ in range(count)]
    uneven = _unevenness(blocks, entries)
    for _ in range(ATTEMPTS):
        if not uneven:
            return blocks
        block, place = chance.choice(blocks), chance.randrange(size)
        before = block[place]
        block[place] = chance.choice([one for one in range(entries) if one not in block])
        after = _unevenness(blocks, entries)
        if after > uneven and chance.random() > math.exp((uneven - after) / 8):
            block[place] = before
        else:
            uneven = after
    return None


def _unevenness(blocks: Sequence[Sequence[int]], entries: int) -> float:
    """The squared distance of how often each difference comes from their mean; 0 where all come equally often."""
    together = [0] * entries
    for block in blocks:
        for one, other in itertools.combinations(block, 2):
            together[(one - other) % entries] += 1
            together[(other - one) % entries] += 1
    mean = sum(together) / (entries - 1)
    return sum((often - mean) ** 2 for often in together[1:])


def _spread(blocks: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """The blocks in an order in which entries that have come up least come next."""
    often: Counter[int] = Counter()
    ordered = []
    while blocks:
        block = min(blocks, key=lambda one: sum(often[entry] for entry in one))
        blocks.remove(block)
        often.update(block)
        ordered.append(tuple(sorted(block)))
    return tuple(ordered)


def card(design: Design, number: int) -> Trial:
    """The trial at a place of the endless deck, its sides balanced: from one time to the next a pair changes sides."""
    blocks = blocks_of(len(design.entries), design.shown_at_once)
    regions = len(design.regions)
    again, which = divmod(number, len(blocks))
    region = (again + which) % regions
    turned = again + (again // regions if regions % 2 == 0 else 0) + _chance(design, "side", which).randrange(2)
    block = blocks[which]
    if len(block) == 2:
        return Trial(region, block[::-1] if turned % 2 else block)
    mixed = list(block)
    _chance(design, "order", number).shuffle(mixed)
    return Trial(region, tuple(mixed))


def hand(design: Design, slot: int) -> tuple[Trial, ...]:
    """All trials of the observer in a slot, in order: the cards of the hand shuffled, repeats and anchors among them."""
    trials, chance = design.session.trials, _chance(design, "hand", slot)
    cards = [card(design, slot * trials + number) for number in range(trials)]
    chance.shuffle(cards)
    cards = _apart(cards)
    repeated = chance.sample(range(len(cards)), design.repeats)
    # From the back, so that places in front stay; a repeat comes late enough for the first answer to be forgotten.
    late = [
        (chance.randint(min(place + max(2, trials // 3), trials), trials), replace(cards[place], role="repeat"))
        for place in repeated
    ]
    late += [(chance.randint(0, trials), _anchor(design, slot, number)) for number in range(design.session.anchors)]
    for place, trial in sorted(late, key=lambda one: one[0], reverse=True):
        again = replace(trial, shown=trial.shown[::-1]) if trial.role == "repeat" else trial
        cards.insert(place, again)
    return tuple(cards)


def _anchor(design: Design, slot: int, number: int) -> Trial:
    """The degraded copy of an entry, beside that entry, and others where more are shown; alone for an opinion."""
    place = slot * design.session.anchors + number
    region = place % len(design.regions)
    chance, degraded = _chance(design, "anchor", place), len(design.entries)
    if design.shown_at_once == 1:
        return Trial(region, (degraded,), "anchor")
    original = design.regions[region].anchor_of
    others = [one for one in range(len(design.entries)) if one != original]
    shown = [original, degraded, *chance.sample(others, design.shown_at_once - 2)]
    chance.shuffle(shown)
    return Trial(region, tuple(shown), "anchor")


def _apart(cards: Sequence[Trial]) -> list[Trial]:
    """The same, so that no region follows itself where another is left."""
    left = list(cards)
    ordered: list[Trial] = []
    while left:
        last = ordered[-1].region if ordered else None
        chosen = next((place for place, one in enumerate(left) if one.region != last), 0)
        ordered.append(left.pop(chosen))
    return ordered


def _chance(design: Design, what: str, number: int) -> random.Random:
    return random.Random(f"{design.seed}/{what}/{number}")
