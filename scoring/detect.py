"""Landmarks for tracks whose table a user does not have: the largest face of each input, found by RetinaFace.

A gate that reads these is not the organisers' gate: their table was made by another detector. What uses them says so.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ntire import UserError
from ntire.image import read_pixels
from ntire.weights import Weights, fill, locate, read_state_dict, require, verify
from scoring.identity import Landmarks

RETINAFACE_FILE = Weights(
    "detection_Resnet50_Final.pth",
    None,
    "MIT (facexlib: Apache-2.0)",
    "official",
    urls=("https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",),
    size=109_000_000,
)
CONFIDENCE = 0.8
Detector = Callable[[Path], Landmarks | None]


def retinaface(device: str) -> Detector:
    """A detector: path of a picture to the five landmarks of its largest face, or None.

    Raises UserError (exit code 3) if facexlib or its weights are not here.
    """
    try:
        from facexlib.detection.retinaface import RetinaFace
    except ImportError as error:
        raise UserError(
            f"landmarks are needed, and no detector is here to find them: {error}. Name a table with --landmarks, "
            "or install facexlib with `pip install 'ntire[iqa]'`.",
            exit_code=3,
        ) from None
    require({"landmarks": (RETINAFACE_FILE,)}, {"landmarks": None})
    path = locate(RETINAFACE_FILE, None)[0]
    verify(RETINAFACE_FILE, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: Any = RetinaFace(network_name="resnet50", device=torch.device(device))
    fill(network, {name.removeprefix("module."): value for name, value in read_state_dict(path).items()}, path)
    network.eval()

    def detect(picture: Path) -> Landmarks | None:
        with torch.inference_mode():
            found = network.detect_faces(read_pixels(picture)[..., ::-1].copy(), CONFIDENCE)
        return largest(found)

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
