"""A metric at work: what it observes of one image, as a vector that can be kept and used again.

Most metrics observe one number. FID observes 2048 features and the identity gate 512, from which the value follows for
the whole set, or for a pair of images, without the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntire.environment import keep_freed_memory
from ntire.picture.image import Pixels
from ntire.scoring.pixels import Measure, MetricError

if TYPE_CHECKING:
    from ntire.method.face_alignment import Landmarks
    from ntire.scoring.identity import Face

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """What an instrument may look at: an image, its reference if the metric has one, its landmarks if there are any."""

    pixels: Pixels
    """RGB (H, W, 3) in levels of 255, cut by the track's border: uint8, or float32 of files with more bits."""
    reference: Pixels | None = None
    landmarks: "Face | Landmarks | None" = None


class Instrument(ABC):
    """A metric with its networks loaded."""

    batch: ClassVar[int] = 1
    """Images of one size that may be observed at once without changing a number."""

    @abstractmethod
    def observe(self, views: Sequence[View]) -> list[Vector]:
        """One vector a view. Raises MetricError if a view has no value; views come singly then."""


class PixelInstrument(Instrument):
    """A metric that is a function of pixels."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    def observe(self, views: Sequence[View]) -> list[Vector]:
        return [np.array([self.measure(view.pixels, view.reference)]) for view in views if view.reference is not None]


class NetworkInstrument(Instrument):
    """A metric that is a network on batches (B, 3, H, W), float32, [0, 1]; fp32 without TF32, deterministic."""

    least: int = 1
    """Height and width below which the network has nothing left to look at."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        if self.device.type == "cpu":
            keep_freed_memory()

    @abstractmethod
    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        """(B, 3, H, W) to (B, N)."""

    def observe(self, views: Sequence[View]) -> list[Vector]:
        for view in views:
            height, width = view.pixels.shape[:2]
            if min(height, width) < self.least:
                raise MetricError(
                    f"needs at least {self.least} x {self.least} pixels, the image has {height} x {width}"
                )
        references = [view.reference for view in views if view.reference is not None]
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), flags:
            images = as_batch([view.pixels for view in views], self.device)
            observed = self.forward(images, as_batch(references, self.device) if references else None)
        vectors = observed.reshape(len(views), -1).cpu().numpy().astype(np.float64)
        # No number is below a threshold, nor worse than another: it would pass a gate, and rank anywhere.
        if not np.isfinite(vectors).all():
            raise MetricError(f"the network gives {vectors[~np.isfinite(vectors)][0]}, which is no score")
        return list(vectors)


def as_batch(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Levels of 255 (H, W, 3) of one size to float32 (B, 3, H, W) in [0, 1], converted on the device.

    Divided by 255: multiplying by 1/255 gives other last bits, and other scores.
    """
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return stacked.permute(0, 3, 1, 2).contiguous().float().div_(255)
