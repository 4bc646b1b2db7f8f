"""Landmarks for tracks whose table a user does not have: the largest face of each input, found by RetinaFace or SCRFD.

A gate that reads these is not the organisers' gate: their table was made by another detector. What uses them says so.
Faces of RetinaFace (facexlib) are aligned as the organisers align theirs, those of SCRFD (insightface) as insightface does.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ntire import UserError
from ntire.method.face_alignment import Landmarks, face_finder
from ntire.method.weights_files import Weights, locate, require, verify
from ntire.picture.image import as_pixels, read_image
from ntire.scoring.identity import Face

CONFIDENCE = 0.8
Detector = Callable[[Path], Face | None]
DetectorName = Literal["retinaface", "scrfd"]
SCRFD = Weights(
    "det_10g.onnx",
    "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    "non-commercial research (insightface's models)",
    "official",
    urls=(
        "https://huggingface.co/public-data/insightface/resolve/main/models/buffalo_l/det_10g.onnx",
        "https://huggingface.co/immich-app/buffalo_l/resolve/main/detection/model.onnx",
    ),
    size=16_923_827,
    by_hand="It is in buffalo_l.zip, https://github.com/deepinsight/insightface/releases/tag/v0.7.",
)
SCRFD_SIDE = 640
"""Pictures are fitted into a square of this size before they go through SCRFD, as insightface's own program does."""


def detector(name: DetectorName, device: str) -> Detector:
    """A detector by name. Raises UserError (exit code 3) if its package or its weights are not here."""
    return {"retinaface": retinaface, "scrfd": scrfd}[name](device)


def retinaface(device: str) -> Detector:
    """A detector: path of a picture to the five landmarks of its largest face, or None.

    Raises UserError (exit code 3) if facexlib or its weights are not here.
    """
    try:
        finder = face_finder(device)
    except UserError as error:
        raise UserError(f"landmarks are needed: {error}\nOr name a table with --landmarks.", exit_code=3) from None

    def detect(picture: Path) -> Face | None:
        points = largest(finder.boxes(read_image(picture), CONFIDENCE))
        return Face(points) if points else None

    return detect


def scrfd(device: str) -> Detector:
    """SCRFD (Guo et al. 2021) of insightface's pack buffalo_l: path of a picture to its largest face, or None."""
    try:
        import insightface.model_zoo.scrfd as insightface_scrfd
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise UserError(
            f"landmarks are needed, and insightface is not here: {error}. Install it with "
            "`pip install 'ntire[insightface]'`, or name a table with --landmarks.",
            exit_code=3,
        ) from None
    try:
        require({"scrfd": (SCRFD,)}, {"scrfd": None})
    except UserError as error:
        raise UserError(f"landmarks are needed: {error}\nOr name a table with --landmarks.", exit_code=3) from None
    path = locate(SCRFD, None)[0]
    verify(SCRFD, path)
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network: Any = insightface_scrfd.SCRFD(model_file=str(path), session=session)
    network.prepare(-1, input_size=(SCRFD_SIDE, SCRFD_SIDE))

    def detect(picture: Path) -> Face | None:
        image = np.ascontiguousarray(as_pixels(read_image(picture))[..., ::-1])  # insightface takes BGR
        boxes, points = network.detect(image, max_num=1, metric="max")
        return Face(tuple((float(x), float(y)) for x, y in points[0]), "umeyama") if len(boxes) else None

    return detect


def largest(found: Any) -> Landmarks | None:
    """The landmarks of the largest box among rows (x1, y1, x2, y2, score, five times x and y)."""
    if len(found) == 0:
        return None
    row = max(found, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
    return tuple((float(row[5 + 2 * point]), float(row[6 + 2 * point])) for point in range(5))


def find_landmarks(pictures: Mapping[str, tuple[str, Path]], detect: Detector) -> dict[str, tuple[str, Face]]:
    """A table like the organisers' for pictures (subset, path) by stem.

    Raises UserError that lists every picture without a face.
    """
    table: dict[str, tuple[str, Face]] = {}
    without = []
    for stem, (subset, path) in pictures.items():
        face = detect(path)
        if face is None:
            without.append(str(path))
        else:
            table[stem] = (subset, face)
    if without:
        raise UserError(
            f"no face was found in {len(without)} input(s): {', '.join(without[:10])}. Name a table with --landmarks."
        )
    return table
