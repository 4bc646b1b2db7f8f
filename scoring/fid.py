"""FID by the face challenge's own protocol.

    8-bit RGB -> [-1, 1] -> bilinear 299 x 299 on the tensor, no antialias -> FID-Inception, 2048 pooled features
    -> mean and covariance (ddof 1) of all images of an entry -> Frechet distance to FFHQ at 512

Source: the evaluation program of NTIRE 2025 Real-World Face Restoration, which takes it from VQFR. FID values of other
programs differ by their resize and are not comparable.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.scoring.instruments import NetworkInstrument, Vector

SIDE = 299
DIMENSIONS = 2048


def fid_inception() -> nn.Module:
    """Inception v3 as FID uses it, with 1008 classes: torchvision's, but that average pools leave out the padding and the
    last block takes the maximum. (B, 3, 299, 299) in [-1, 1] to logits; without its `fc`, to the 2048 features.
    """
    from torchvision.models.inception import (
        BasicConv2d,
        Inception3,
        InceptionA,
        InceptionAux,
        InceptionB,
        InceptionC,
        InceptionD,
        InceptionE,
    )

    class PoolInside:
        """A block whose pooling branch looks at the image alone."""

        def pool(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

        def _forward(self, x: Tensor) -> list[Tensor]:
            others = super()._forward(x)[:-1]  # type: ignore[misc]
            return [*others, self.branch_pool(self.pool(x))]  # type: ignore[attr-defined]

    class FidA(PoolInside, InceptionA): ...  # type: ignore[misc]

    class FidC(PoolInside, InceptionC): ...  # type: ignore[misc]

    class FidE(PoolInside, InceptionE): ...  # type: ignore[misc]

    class FidLast(FidE):
        def pool(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 3, stride=1, padding=1)

    blocks = [BasicConv2d, FidA, InceptionB, FidC, InceptionD, FidE, InceptionAux]
    net = Inception3(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    net.Mixed_7c = FidLast(DIMENSIONS)
    return net


class Features(NetworkInstrument):
    """The 2048 features of an image."""

    batch: ClassVar[int] = 8

    def __init__(self, device: str, path: Path) -> None:
        super().__init__(device)
        net = fid_inception()
        fill(net, read_state_dict(path), path)
        net.fc = nn.Identity()
        self.net = net.eval().requires_grad_(False).to(self.device)

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        resized = F.interpolate((images - 0.5) / 0.5, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self.net(resized)
        return features


def read_statistics(path: Path) -> tuple[Vector, NDArray[np.float64]]:
    """Mean (2048,) and covariance (2048, 2048) of the reference set, the keys `mean` and `cov` of a torch file.

    Raises UserError for another file; arrays of NumPy are read, other objects are refused.
    """
    from pickle import UnpicklingError

    reconstruct: Any = np.empty(0).__reduce__()[0]
    known: list[Any] = [np.ndarray, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    known += [(reconstruct, f"{module}.multiarray._reconstruct") for module in ("numpy.core", "numpy._core")]
    try:
        with torch.serialization.safe_globals(known):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        mean, covariance = (np.asarray(loaded[key], dtype=np.float64) for key in ("mean", "cov"))
    except (UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise UserError(f"{path}: expected mean and cov of Inception features: {error}", exit_code=3) from None
    if mean.shape != (DIMENSIONS,) or covariance.shape != (DIMENSIONS, DIMENSIONS):
        raise UserError(f"{path}: expected mean (2048,) and cov (2048, 2048), found {mean.shape}, {covariance.shape}.")
    return mean, covariance


def frechet_distance_of_sets(restored: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The distance between the Gaussians of two sets of features (n, d), (m, d), in float64.

    With Xc and Yc centred and over the root of n - 1 and m - 1, Tr sqrt(Xc^T Xc Yc^T Yc) is the sum of the singular values of
    Xc Yc^T, an n x m problem, whatever d.
    """
    if min(len(restored), len(truth)) < 2:
        raise ValueError(f"a covariance needs at least 2 images, found {min(len(restored), len(truth))}")
    ours, theirs = _centred(restored), _centred(truth)
    shift = ((restored.mean(axis=0) - truth.mean(axis=0)) ** 2).sum()
    trace_of_root = np.linalg.svd(ours @ theirs.T, compute_uv=False).sum()
    return float(shift + (ours**2).sum() + (theirs**2).sum() - 2 * trace_of_root)


def _centred(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """X with X^T X the covariance of features (n, d); of more than d images, the d rows of R that X^T X = R^T R."""
    centred: NDArray[np.float64] = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def frechet_distance(features: NDArray[np.float64], mean: Vector, covariance: NDArray[np.float64]) -> float:
    """|m1 - m2|^2 + Tr(C1 + C2 - 2 sqrt(C1 C2)) between features (n, d) and a Gaussian, in float64.

    C1 = Xc^T Xc / (n - 1) has rank n - 1 < d for a challenge's entry, where a matrix square root is slow and fails. The
    eigenvalues of C1 C2 that are not zero are those of Xc C2 Xc^T / (n - 1), an n x n problem, and the trace of the root
    is the sum of their roots: the same value to 1e-7 in a hundredth of the time.
    """
    count, dimensions = features.shape
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 images, found {count}")
    own_mean = features.mean(axis=0)
    centred = (features - own_mean) / np.sqrt(count - 1)
    if count <= dimensions:
        product = centred @ covariance @ centred.T
    else:
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        product = root @ (centred.T @ centred) @ root
    trace_of_root = np.sqrt(np.linalg.eigvalsh(product).clip(0)).sum()
    shift = ((own_mean - mean) ** 2).sum()
    return float(shift + (centred**2).sum() + np.trace(covariance) - 2 * trace_of_root)
