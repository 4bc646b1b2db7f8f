"""Inputs that nobody can have seen: other pictures, damaged as the track damages its own, as far as that is known."""

import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ntire.picture.degradations import RawDegradation, SrgbDegradation, gaussian_noise
from ntire.picture.image import Integers, as_image, as_pixels, encode_png
from ntire.picture.raw import correct_colours
from ntire.picture.resize import resized
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
    """Whether these inputs are damaged exactly as the track's are: where the track itself adds noise, or only makes smaller."""
    return track.noise is not None or track.inputs == "esr"


def fresh_inputs(track: Track, count: int, side: int, seed: int, folder: Path) -> list[Fresh]:
    """Up to `count` inputs in `folder`, made of `side` pixels at most; none for tracks whose damage nothing here imitates."""
    if track.inputs not in ("srgb", "raw", "esr"):
        return []
    rng, made = random.Random(seed), []
    side = min(SIDE, side // (2 * track.scale) * 2 * track.scale)
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
    lq = clean if track.scale == 1 else resized(clean, Fraction(1, track.scale)).clamp(0, 1)
    if track.noise:
        lq = gaussian_noise(lq, track.noise.sigma, draw)
    elif track.inputs == "srgb":
        lq = SrgbDegradation()(lq, draw)[0]
    path.write_bytes(encode_png(as_pixels(lq)))
    return Fresh(path, gt)


def _raw(gt: Integers, draw: torch.Generator, path: Path) -> Fresh:
    frame, camera = RawDegradation(bits=(10,)).frame(as_image(gt), draw)
    write_frame(frame, path)
    return Fresh(path, as_pixels(correct_colours(camera, frame.ccm)))
