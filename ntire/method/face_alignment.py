"""Faces in whole pictures: found, turned upright, restored one by one, and put back where they were.

    picture -> RetinaFace: five points a face -> similarity to the FFHQ template -> upright face -> restored -> blended back

Geometry, threshold and template are facexlib's, which face programs share; the blend is a ramp along the face's border.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill_from
from ntire.method.weights_files import Weights, locate, require, verify
from ntire.picture.resize import resized

Landmarks = tuple[tuple[float, float], ...]
"""Left eye, right eye, nose, left and right corner of the mouth, (x, y) in pixels of the picture."""
Matrix = NDArray[np.float64]
"""2 x 3: from pixels of a picture to pixels of the upright face."""
Finder = Callable[[Tensor], list[Landmarks]]
"""A picture (3, H, W), RGB in [0, 1], to the points of each face in it."""

SIDE = 512
"""Of upright faces, in pixels."""
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Where the five points lie in a face of SIDE."""
CONFIDENCE = 0.97
LEAST_EYES = 5.0
"""Pixels between the eyes; what is smaller, or seen from the side, is left alone."""
AROUND = (132 / 255, 133 / 255, 135 / 255)
"""The colour of what lies outside of the picture in a face that was cut out."""
RAMP = 0.1
"""Part of a face's side over which it fades into the picture."""
RETINAFACE = Weights(
    "detection_Resnet50_Final.pth",
    "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
    "MIT (facexlib: Apache-2.0)",
    "official",
    into="net",
    prefix="module.",
    urls=("https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",),
    size=109_497_761,
)


class FaceFinder(nn.Module):
    """RetinaFace (Deng et al. 2020) through facexlib: 27.29 M parameters; `light` takes its small backbone."""

    def __init__(self, light: bool = False) -> None:
        super().__init__()
        try:
            from facexlib.detection.retinaface import RetinaFace
        except ImportError as error:
            raise UserError(
                f"faces are to be found, and facexlib is not here: {error}. Install it with `pip install 'ntire[faces]'`.",
                exit_code=3,
            ) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net: Any = RetinaFace("mobile0.25" if light else "resnet50", device=torch.get_default_device())

    def forward(
        self, image: Tensor, *, confidence: float = CONFIDENCE, least_eyes: float = LEAST_EYES
    ) -> list[Landmarks]:
        """A picture (3, H, W), RGB in [0, 1], to the points of its faces, the surest first."""
        if image.is_meta:  # counting: nothing can be found, and one face is what a challenge picture has
            scale = (image.shape[-1] / SIDE, image.shape[-2] / SIDE)
            return [tuple((float(x) * scale[0], float(y) * scale[1]) for x, y in TEMPLATE)]
        rows = [row for row in self.boxes(image, confidence) if _eyes(row) >= least_eyes]
        return [tuple((float(row[5 + 2 * point]), float(row[6 + 2 * point])) for point in range(5)) for row in rows]

    @torch.no_grad()
    def boxes(self, image: Tensor, confidence: float) -> NDArray[np.float64]:
        """Rows (x1, y1, x2, y2, score, five times x and y) in pixels, the surest first, without overlaps above 0.4."""
        from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm
        from torchvision.ops import nms

        weight = next(self.net.parameters())
        image = image.to(weight.device, weight.dtype)
        mean = _colour((104.0, 117.0, 123.0), image)
        boxes, scores, points = (
            part[0].float().cpu() for part in self.net((image.flip(0) * 255 - mean)[None])
        )  # RetinaFace takes BGR
        height, width = image.shape[-2:]
        size = torch.tensor([width, height], dtype=torch.float32)
        priors = PriorBox(self.net.cfg, image_size=(height, width)).forward()
        found = torch.cat(
            [
                decode(boxes, priors, self.net.cfg["variance"]) * size.repeat(2),
                scores[:, 1:],
                decode_landm(points, priors, self.net.cfg["variance"]) * size.repeat(5),
            ],
            dim=1,
        )
        found = found[found[:, 4] > confidence]
        rows: NDArray[np.float64] = found[nms(found[:, :4], found[:, 4], 0.4)].double().numpy()
        return rows


def _eyes(row: NDArray[np.float64]) -> float:
    return math.hypot(row[5] - row[7], row[6] - row[8])


def face_finder(device: str) -> FaceFinder:
    """The detector with its weights, on a device. Raises UserError (exit code 3) if it or its weights are not here."""
    finder = FaceFinder()
    require({"faces": (RETINAFACE,)}, {"faces": None})
    path = locate(RETINAFACE, None)[0]
    verify(RETINAFACE, path)
    fill_from(finder.net, RETINAFACE, path)
    return finder.eval().requires_grad_(False).to(device)


def to_upright(points: Landmarks, side: int = SIDE) -> Matrix | None:
    """The similarity that brings five points nearest to the template, by least median of squares as facexlib has it; None
    where no such thing exists, as for points that coincide.
    """
    import cv2

    found: Any = cv2.estimateAffinePartial2D(np.array(points), TEMPLATE * (side / SIDE), method=cv2.LMEDS)[0]
    if found is None or not np.isfinite(found).all() or abs(np.linalg.det(found[:, :2])) < 1e-8:
        return None
    return np.asarray(found, dtype=np.float64)


def cut_out(image: Tensor, matrix: Matrix, side: int = SIDE) -> Tensor:
    """The upright face (3, side, side) of a picture (3, H, W), bilinear."""
    around = _colour(AROUND, image)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    return _warped(image - around, back, (side, side)) + around


def put_back(image: Tensor, face: Tensor, matrix: Matrix, mask: Tensor | None = None) -> Tensor:
    """The picture with a face (3, side, side) at its place, faded in along its border, or where a mask (side, side) says.

    Pixels that the face does not reach are the picture's own, bit for bit.
    """
    size = (image.shape[-2], image.shape[-1])
    placed = _warped(face, matrix, size)
    inside = _warped((_ramp(face) if mask is None else mask)[None], matrix, size)
    return torch.where(inside > 0, inside * placed + (1 - inside) * image, image)


def restore_faces(
    image: Tensor, find: Finder, restore: Callable[[Tensor], Tensor], side: int = SIDE, scale: int = 1
) -> tuple[Tensor, int]:
    """A picture (3, H, W) with its faces restored, and how many there were; `restore` takes upright faces (3, side, side).

    Where it makes them `scale` times as large, so is the picture: bicubic around the faces.
    """
    matrices = upright(find(image), side)
    faces = [restore(cut_out(image, matrix, side)).to(image) for matrix in matrices]
    whole = image if scale == 1 else resized(image, scale).clamp(0, 1)
    for face, matrix in zip(faces, matrices, strict=True):
        whole = put_back(whole, face, between_enlarged(matrix, scale))
    return whole, len(faces)


def between_enlarged(matrix: Matrix, scale: int) -> Matrix:
    """The same map between both pictures `scale` times as large; positions are centres of pixels."""
    half = (scale - 1) / 2
    linear = matrix[:, :2]
    shift = scale * matrix[:, 2] + half - linear @ np.array([half, half])
    return np.column_stack([linear, shift])


def upright(found: Sequence[Landmarks], side: int = SIDE) -> list[Matrix]:
    """The similarities of those faces that have one."""
    return [matrix for points in found if (matrix := to_upright(points, side)) is not None]


def _ramp(face: Tensor) -> Tensor:
    """0 at the border of a face, 1 from RAMP of its side inwards, smoothly."""
    side = face.shape[-1]
    place = torch.arange(side, device=face.device, dtype=face.dtype)
    depth = (torch.minimum(place, side - 1 - place) / (RAMP * side)).clamp(0, 1)
    faded = depth * depth * (3 - 2 * depth)
    return torch.minimum(faded[:, None], faded[None, :])


def _colour(values: tuple[float, float, float], image: Tensor) -> Tensor:
    """Three values (3, 1, 1), made where the image is: a copy from the host would wait for all that a GPU has to do."""
    return torch.stack([image.new_full((1, 1), value) for value in values])


def _warped(image: Tensor, matrix: Matrix, size: tuple[int, int]) -> Tensor:
    """What `matrix` takes (x, y) of the result to in `image`, bilinear, 0 outside; positions are centres of pixels."""
    # In float32 whatever the picture is in: half a type cannot say where a pixel is.
    y, x = (torch.arange(side, device=image.device, dtype=torch.float32) for side in size)
    height, width = image.shape[-2:]
    # The numbers go along with the operators, which no copy from the host would.
    along_x, along_y = (across * x + down * y[:, None] + shift for across, down, shift in matrix.tolist())
    grid = torch.stack([(2 * along_x + 1) / width - 1, (2 * along_y + 1) / height - 1], dim=-1)
    return F.grid_sample(image[None].float(), grid[None], align_corners=False)[0].to(image.dtype)
