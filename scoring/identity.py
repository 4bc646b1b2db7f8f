"""The identity gate: is the person in the restored face still the person in the input?

    five landmarks -> similarity transform -> 112 x 112 crop -> AdaFace IR-50 -> unit vector; similarity = dot product

Source: NTIRE 2025 Real-World Face Restoration, report section 2.2.2 and evaluation program; AdaFace (Kim et al. 2022).
The same landmarks serve the input and the restored image, so a face that was moved fails.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ntire import UserError
from ntire.files import write_atomically
from ntire.method.face_alignment import Landmarks
from ntire.method.state_dict import fill, read_state_dict
from ntire.picture.image import SUFFIXES, Pixels
from ntire.scoring.instruments import NetworkInstrument, Vector, View
from ntire.scoring.pixels import Failure, MetricError
from ntire.scoring.spreadsheet import FORMULAS, Table, read_table, same_name

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
LEAST_INSIDE = 0.5
"""Share of the crop that must lie in the picture: two crops that are mostly black agree whatever face is in them."""
Fit = Literal["cp2tform", "umeyama"]
"""How points are brought to the template: as MATLAB and the organisers do, or as insightface does."""
FITS: dict[str, Fit] = {one: one for one in get_args(Fit)}
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_COLUMNS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")


class NoCrop(MetricError):
    """The face that a table points at does not lie in the picture."""

    status: ClassVar[Failure] = "no crop"


class Face(NamedTuple):
    """Where a face is, and how it is to be aligned."""

    points: Landmarks
    fit: Fit = "cp2tform"


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


def similarity_transform(points: Landmarks, fit: Fit = "cp2tform") -> NDArray[np.float64]:
    """The 2 x 3 matrix from image to crop, fitted as MATLAB's cp2tform does, or as insightface does.

    cp2tform: four parameters by linear least squares from template to image, then inverted. It is not the Umeyama fit of
    scikit-image and insightface, which minimises the error the other way round and gives another crop. A mirrored fit is
    tried too and taken if it is closer, as in the evaluation program. Raises MetricError for points without a fit.
    """
    image = np.asarray(points, dtype=np.float64)
    if not np.isfinite(image).all():
        raise MetricError("the landmarks are not numbers")
    if fit == "umeyama":
        return _umeyama(image)
    mirror = np.diag([-1.0, 1.0, 1.0])
    plain = _fit(TEMPLATE, image)
    mirrored = mirror @ _fit(TEMPLATE * [-1.0, 1.0], image)
    return min(plain, mirrored, key=lambda matrix: _distance(matrix, image))[:2]


def _umeyama(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity from image to template of least squares (Umeyama 1991, equations 40 to 42), never mirrored."""
    from skimage.transform import SimilarityTransform

    found = SimilarityTransform.from_estimate(image, TEMPLATE)
    if not found or not np.isfinite(found.params).all():
        raise MetricError("the landmarks are not five different points")
    return np.asarray(found.params[:2], dtype=np.float64)


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


def crop_face(pixels: Pixels, points: Landmarks, fit: Fit = "cp2tform") -> Pixels:
    """The aligned face (112, 112, 3) of a picture, bilinear, black outside.

    Raises NoCrop where less than LEAST_INSIDE of it lies in the picture.
    """
    import cv2

    matrix = similarity_transform(points, fit)
    inside = share_inside(matrix, *pixels.shape[:2])
    if inside < LEAST_INSIDE:
        raise NoCrop(
            f"no crop: {inside:.0%} of the aligned face lies in the picture of {pixels.shape[0]} x {pixels.shape[1]}, "
            f"at least {LEAST_INSIDE:.0%} must"
        )
    warped = cv2.warpAffine(np.ascontiguousarray(pixels), matrix, (SIDE, SIDE))
    return np.asarray(warped, dtype=pixels.dtype)


def share_inside(matrix: NDArray[np.float64], height: int, width: int) -> float:
    """How much of the crop lies in a picture: the share of its pixels whose centre does."""
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    at_x, at_y = back @ np.stack([x.ravel(), y.ravel(), np.ones(SIDE * SIDE)])
    return float(np.mean((at_x >= -0.5) & (at_x <= width - 0.5) & (at_y >= -0.5) & (at_y <= height - 0.5)))


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
            crops.append(View(crop_face(view.pixels, *as_face(view.landmarks))))
        return super().observe(crops)

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        embeddings: Tensor = self.net(images.flip(1).sub(0.5).div(0.5))
        return embeddings


def as_face(landmarks: Landmarks | Face) -> Face:
    """Five points alone are aligned as the organisers align them."""
    return landmarks if isinstance(landmarks, Face) else Face(landmarks)


def read_landmarks(path: Path) -> dict[str, tuple[str, Face]]:
    """Subset and face by file-name stem from a table such as the organisers'.

    Columns: filename, dataset, then x and y of left eye, right eye, nose, left and right corner of the mouth, by name;
    perhaps `fit`, for tables of detectors that align in another way. Raises UserError that lists every bad row.
    """
    table = read_table(path)
    table.require(["filename", "dataset", *_COLUMNS])
    found: dict[str, tuple[str, Face]] = {}
    problems = []
    for number, row in table.rows:
        stem = stem_of(row["filename"])
        face = _face(table, row)
        if isinstance(face, str):
            problems.append(f"line {number}: {stem}: {face}")
        elif stem in found:
            problems.append(f"line {number}: {stem} stands there twice")
        else:
            found[stem] = (row["dataset"], face)
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def _face(table: Table, row: Mapping[str, str]) -> Face | str:
    """What a row says, or what is wrong with it."""
    try:
        values = [table.number(row[column]) for column in _COLUMNS]
    except ValueError:
        return (
            f"a coordinate is not a number: {next(row[one] for one in _COLUMNS if not _is_number(table, row[one]))!r}"
        )
    wrong = [f"{column} {value}" for column, value in zip(_COLUMNS, values, strict=True) if not math.isfinite(value)]
    if wrong:
        return f"not finite: {', '.join(wrong)}"
    fit = FITS.get(row.get("fit") or "cp2tform")
    if fit is None:
        return f"fit: expected {' or '.join(FITS)}, found {row['fit']!r}"
    return Face(tuple(zip(values[::2], values[1::2], strict=True)), fit)


def _is_number(table: Table, cell: str) -> bool:
    try:
        table.number(cell)
    except ValueError:
        return False
    return True


def outside(face: Face, height: int, width: int) -> str:
    """Which points of a face lie outside of its picture, in words; empty if none does."""
    found = [
        f"{name} at ({x:g}, {y:g})"
        for name, (x, y) in zip(POINTS, face.points, strict=True)
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5)
    ]
    return f"{', '.join(found)} outside of the picture of {height} x {width}" if found else ""


def stem_of(filename: str) -> str:
    """A picture's name without folder and image suffix; what follows another dot belongs to the name."""
    name = PurePosixPath(same_name(filename.replace("\\", "/")))
    return name.stem if name.suffix.lower() in SUFFIXES else name.name


def write_landmarks(path: Path, table: Mapping[str, tuple[str, Landmarks | Face]]) -> None:
    """Write a table that `read_landmarks` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filename", "dataset", *_COLUMNS, "fit"])
    for stem, (subset, landmarks) in table.items():
        face = as_face(landmarks)
        values = [repr(value) for point in face.points for value in point]
        # With its suffix, a name that itself has a dot is not cut on reading.
        writer.writerow([*(_text_cell(cell) for cell in (f"{stem}.png", subset)), *values, face.fit])
    write_atomically(path, text.getvalue())


def _text_cell(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULAS) else cell
