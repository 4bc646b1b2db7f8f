"""Inputs that nobody can have seen: other pictures, damaged as the track damages its own, as far as that is known."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ntire.picture.degradations import RawDegradation, SrgbDegradation, gaussian_noise
from ntire.picture.image import Integers, as_image, as_pixels, encode_png
from ntire.picture.raw import correct_colours
from ntire.picture.samples import PICTURES, photograph, write_frame
from ntire.scoring.track import Track

SIDE = 256
"""Of the parts of photographs that are taken, at most."""


@dataclass(frozen=True)
class Fresh:
    """One input and what it was before it was damaged."""

    lq: Path
    gt: Integers


def damage_is_known(track: Track) -> bool:
    """Whether these inputs are damaged exactly as the track's are: where the track itself adds noise."""
    return track.noise is not None


def fresh_inputs(track: Track, count: int, side: int, seed: int, folder: Path) -> list[Fresh]:
    """Up to `count` inputs in `folder`, of `side` pixels at most; none for tracks whose damage nothing here imitates."""
    if track.inputs not in ("srgb", "raw"):
        return []
    rng, made = random.Random(seed), []
    side = min(SIDE, side // 2 * 2)
    for number in range(count):
        picture = photograph(rng.choice(PICTURES))
        top, left = (rng.randrange(0, (size - side) // 2 + 1) * 2 for size in picture.shape[:2])
        part = np.ascontiguousarray(picture[top : top + side, left : left + side])
        draw = torch.Generator().manual_seed(rng.randrange(2**31))
        made.append(
            _raw(part, draw, folder / f"fresh{number}")
            if track.inputs == "raw"
            else _srgb(track, part, draw, folder / f"fresh{number}")
        )
    return made


def _srgb(track: Track, gt: Integers, draw: torch.Generator, path: Path) -> Fresh:
    clean = as_image(gt)
    lq = gaussian_noise(clean, track.noise.sigma, draw) if track.noise else SrgbDegradation()(clean, draw)[0]
    path.write_bytes(encode_png(as_pixels(lq)))
    return Fresh(path, gt)


def _raw(gt: Integers, draw: torch.Generator, path: Path) -> Fresh:
    frame, camera = RawDegradation(bits=(10,)).frame(as_image(gt), draw)
    write_frame(frame, path)
    return Fresh(path, as_pixels(correct_colours(camera, frame.ccm)))
