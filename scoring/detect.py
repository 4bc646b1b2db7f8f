"""Landmarks for tracks whose table a user does not have: the largest face of each input, found by RetinaFace.

A gate that reads these is not the organisers' gate: their table was made by another detector. What uses them says so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ntire import UserError
from ntire.method.face_alignment import Landmarks, face_finder
from ntire.picture.image import read_pixels

CONFIDENCE = 0.8
Detector = Callable[[Path], Landmarks | None]


def retinaface(device: str) -> Detector:
    """A detector: path of a picture to the five landmarks of its largest face, or None.

    Raises UserError (exit code 3) if facexlib or its weights are not here.
    """
    try:
        finder = face_finder(device)
    except UserError as error:
        raise UserError(f"landmarks are needed: {error}\nOr name a table with --landmarks.", exit_code=3) from None

    def detect(picture: Path) -> Landmarks | None:
        image = torch.from_numpy(read_pixels(picture) / np.float32(255)).permute(2, 0, 1)
        return largest(finder.boxes(image, CONFIDENCE))

    return detect


def largest(found: Any) -> Landmarks | None:
    """The landmarks of the largest box among rows (x1, y1, x2, y2, score, five times x and y)."""
    if len(found) == 0:
        return None
    row = max(found, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
    return tuple((float(row[5 + 2 * point]), float(row[6 + 2 * point])) for point in range(5))


def find_landmarks(pictures: Mapping[str, tuple[str, Path]], detect: Detector) -> dict[str, tuple[str, Landmarks]]:
    """A table like the organisers' for pictures (subset, path) by stem.

    Raises UserError that lists every picture without a face.
    """
    table: dict[str, tuple[str, Landmarks]] = {}
    without = []
    for stem, (subset, path) in pictures.items():
        points = detect(path)
        if points is None:
            without.append(str(path))
        else:
            table[stem] = (subset, points)
    if without:
        raise UserError(
            f"no face was found in {len(without)} input(s): {', '.join(without[:10])}. Name a table with --landmarks."
        )
    return table
