"""The identity gate: is the person in the restored face still the person in the input?

    five landmarks -> similarity transform -> 112 x 112 crop -> AdaFace IR-50 -> unit vector; similarity = dot product

Source: NTIRE 2025 Real-World Face Restoration, report section 2.2.2 and evaluation program; AdaFace (Kim et al. 2022).
The same landmarks serve the input and the restored image, so a face that was moved fails.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ntire import UserError
from ntire.files import write_atomically
from ntire.method.face_alignment import Landmarks
from ntire.method.state_dict import fill, read_state_dict
from ntire.picture.image import Pixels
from ntire.scoring.instruments import NetworkInstrument, Vector, View
from ntire.scoring.pixels import MetricError

TEMPLATE = np.array(
    [
        [38.29459953, 51.69630051],
        [73.53179932, 51.50139999],
        [56.02519989, 71.73660278],
        [41.54930115, 92.36550140],
        [70.72990036, 92.20410156],
    ]
)
"""Left eye, right eye, nose, left and right corner of the mouth in the 112 x 112 crop, (x, y) in pixels."""
SIDE = 112
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class IRBlock(nn.Module):
    """Improved residual block of ArcFace (Deng et al. 2019): BN, conv, BN, PReLU, conv, BN; the names are the released
    checkpoint's.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = (
            nn.MaxPool2d(1, stride)
            if width_in == width
            else nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res_layer(x)
        return residual + self.shortcut_layer(x)


class AdaFaceIR50(nn.Module):
    """AdaFace's IR-50: (B, 3, 112, 112), BGR, [-1, 1], to unit vectors (B, 512); 43.6 M parameters."""

    STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
    """Width and number of blocks; the first block of a stage halves the size."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, width_in = [], 64
        for width, count in self.STAGES:
            for number in range(count):
                blocks.append(IRBlock(width_in, width, 2 if number == 0 else 1))
                width_in = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * (SIDE // 16) ** 2, 512),
            nn.BatchNorm1d(512, affine=False),
        )

    def forward(self, face: Tensor) -> Tensor:
        embedding: Tensor = self.output_layer(self.body(self.input_layer(face)))
        return embedding / embedding.norm(dim=1, keepdim=True)


def similarity_transform(points: Landmarks) -> NDArray[np.float64]:
    """The 2 x 3 matrix from image to crop, fitted as MATLAB's cp2tform does.

    Four parameters by linear least squares from template to image, then inverted; this is not the Umeyama fit of
    scikit-image or facexlib, which minimises the error the other way round and gives another crop. A mirrored fit is
    tried too and taken if it is closer, as in the evaluation program.
    """
    image = np.asarray(points, dtype=np.float64)
    mirror = np.diag([-1.0, 1.0, 1.0])
    plain = _fit(TEMPLATE, image)
    mirrored = mirror @ _fit(TEMPLATE * [-1.0, 1.0], image)
    return min(plain, mirrored, key=lambda matrix: _distance(matrix, image))[:2]


def _fit(template: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image to template, 3 x 3: the inverse of u = a x + b y + c, v = a y - b x + d fitted to template -> image."""
    x, y = template.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.vstack([np.stack([x, y, one, zero], 1), np.stack([y, -x, zero, one], 1)])
    solution, _, rank, _ = np.linalg.lstsq(system, image.T.ravel(), rcond=None)
    a, b, c, d = solution
    if rank < 4 or a * a + b * b < 1e-12:
        raise MetricError("the landmarks are not five different points")
    return np.linalg.inv(np.array([[a, b, c], [-b, a, d], [0.0, 0.0, 1.0]]))


def _distance(matrix: NDArray[np.float64], image: NDArray[np.float64]) -> float:
    mapped = np.c_[image, np.ones(len(image))] @ matrix[:2].T
    return float(np.linalg.norm(mapped - TEMPLATE))


def crop_face(pixels: Pixels, points: Landmarks) -> Pixels:
    """The aligned face (112, 112, 3) of a picture, bilinear, black outside."""
    import cv2

    warped = cv2.warpAffine(np.ascontiguousarray(pixels), similarity_transform(points), (SIDE, SIDE))
    return np.asarray(warped, dtype=np.uint8)


class AdaFace(NetworkInstrument):
    """The gate's network on aligned faces."""

    batch: ClassVar[int] = 8

    def __init__(self, device: str, path: Path) -> None:
        super().__init__(device)
        self.net = AdaFaceIR50()
        fill(self.net, read_state_dict(path, prefix="model."), path)
        self.net = self.net.eval().requires_grad_(False).to(self.device)

    def observe(self, views: Sequence[View]) -> list[Vector]:
        crops = []
        for view in views:
            if view.landmarks is None:
                raise MetricError("no landmarks are known for this image")
            crops.append(View(crop_face(view.pixels, view.landmarks)))
        return super().observe(crops)

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        embeddings: Tensor = self.net(images.flip(1).sub(0.5).div(0.5))
        return embeddings


def read_landmarks(path: Path) -> dict[str, tuple[str, Landmarks]]:
    """Subset and landmarks by file-name stem from the organisers' table.

    Columns: filename, dataset, then x and y of left eye, right eye, nose, left and right corner of the mouth, by name.
    Raises UserError that lists every bad row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table of landmarks: {error}.") from None
    columns = ["filename", "dataset", *(f"{point}_{axis}" for point in POINTS for axis in "xy")]
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise UserError(f"{path}: expected the columns {', '.join(columns)}; found none of {', '.join(missing)}.")
    found: dict[str, tuple[str, Landmarks]] = {}
    problems = []
    for line, row in enumerate(rows, 2):
        stem = row["filename"].partition(".")[0]
        try:
            points = tuple((float(row[f"{point}_x"]), float(row[f"{point}_y"])) for point in POINTS)
        except (TypeError, ValueError):
            problems.append(f"line {line}: {stem}: a coordinate is not a number")
            continue
        if stem in found:
            problems.append(f"line {line}: {stem} stands there twice")
        found[stem] = (row["dataset"], points)
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def write_landmarks(path: Path, table: Mapping[str, tuple[str, Landmarks]]) -> None:
    """Write a table that `read_landmarks` reads."""
    lines = [["filename", "dataset", *(f"{point}_{axis}" for point in POINTS for axis in "xy")]]
    for stem, (subset, points) in table.items():
        lines.append([stem, subset, *(repr(value) for point in points for value in point)])
    write_atomically(path, "".join(",".join(line) + "\n" for line in lines))
