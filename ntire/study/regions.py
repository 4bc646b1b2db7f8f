"""Which part of a picture is shown: the place where the entries differ most, one by chance, or one that a person chose."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntire import UserError
from ntire.scoring.spreadsheet import read_table

Rule = Literal["disagreement", "seed", "centre"]
Corner = tuple[int, int]
"""Top and left."""


def places(rule: Rule, pictures: Sequence[NDArray[np.uint8]], side: int, count: int, seed: str) -> list[Corner]:
    """Corners of `count` squares of `side` pixels in pictures (H, W, 3) of one size; fewer where they would overlap."""
    height, width = pictures[0].shape[:2]
    side_v, side_h = min(side, height), min(side, width)
    if rule == "centre" or (side_v, side_h) == (height, width):
        return [((height - side_v) // 2, (width - side_h) // 2)]
    if rule == "seed":
        wanted = np.random.default_rng(list(seed.encode())).random((height - side_v + 1, width - side_h + 1))
    else:
        wanted = _box_sums(_disagreement(pictures), side_v, side_h)
    found: list[Corner] = []
    while len(found) < count and np.isfinite(wanted.max()):
        top, left = (int(one) for one in np.unravel_index(int(wanted.argmax()), wanted.shape))
        found.append((top, left))
        wanted[max(top - side_v + 1, 0) : top + side_v, max(left - side_h + 1, 0) : left + side_h] = -np.inf
    return found


def _disagreement(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The variance between the pictures' luma, pixel by pixel."""
    total = squares = np.zeros(pictures[0].shape[:2])
    for picture in pictures:
        luma = picture @ np.array([0.299, 0.587, 0.114])
        total = total + luma
        squares = squares + luma**2
    return squares / len(pictures) - (total / len(pictures)) ** 2


def _box_sums(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Sums over all windows, by an integral image."""
    whole = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return whole[height:, width:] - whole[:-height, width:] - whole[height:, :-width] + whole[:-height, :-width]


def chosen_by_hand(path: Path) -> dict[str, list[tuple[int, int, int | None]]]:
    """For each picture the top, left and side of its regions, of a CSV with `picture, top, left` and perhaps `side`.

    Raises UserError that lists all cells which are no whole numbers.
    """
    table = read_table(path)
    table.require(["picture", "top", "left"])
    found: dict[str, list[tuple[int, int, int | None]]] = {}
    problems = []
    for number, row in table.rows:
        cells = [row["top"], row["left"], row.get("side", "")]
        if not all(cell.isdecimal() for cell in cells[:2]) or not (cells[2].isdecimal() or not cells[2]):
            problems.append(f"{path}: line {number}: expected whole numbers of pixels, found {', '.join(cells)}")
            continue
        side = int(cells[2]) if cells[2] else None
        found.setdefault(row["picture"], []).append((int(cells[0]), int(cells[1]), side))
    if problems:
        raise UserError("\n".join(problems))
    return found


def mixed(regions: Sequence[int], seed: int) -> list[int]:
    """Numbers in an order by chance."""
    ordered = list(regions)
    random.Random(f"{seed}/regions").shuffle(ordered)
    return ordered
