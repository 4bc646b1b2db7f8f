"""Every metric, declared once: what it compares, which way is up, by which protocol, with which weights, after whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ntire.environment import environment, versions
from ntire.method.pyiqa_networks import CLIP_FILE, MUSIQ_FILE, NIQE_FILE, PYIQA_FILES
from ntire.method.weights_files import Weights, digest_of, locate

if TYPE_CHECKING:
    from ntire.scoring.instruments import Instrument, Vector
    from ntire.scoring.pixels import On

DEPTH_RULE = "16 bits count as value / 257, floats as 255 x value, not rounded; floats outside of [0, 1] are refused"
"""How another depth than 8 bits is brought to levels of 255.

Rounding a 16-bit truth to 8 bits would add an error of its own: 0.02 dB at 36 dB, 1.2 dB at 54 dB.
"""
Paths = Mapping[str, Path]
"""Where each weights file of a metric is, by its file name."""


@dataclass(frozen=True)
class Metric:
    """A metric with its protocol."""

    name: str
    against: Literal["gt", "lq", "nothing"]
    higher_is_better: bool
    protocol: str
    source: str
    load: Callable[[str, Paths], Instrument]
    """Builds it on a device."""
    within: tuple[float, float] = (0.0, math.inf)
    """Between which values it lies by definition."""
    over: Literal["image", "set"] = "image"
    weights: tuple[Weights, ...] = ()
    packages: tuple[str, ...] = ("numpy", "opencv-python-headless")
    """Whose versions its numbers may depend on."""
    apart: bool = False
    """Whether image and reference are observed each by itself and then compared, so that a reference is observed once
    for all entries."""
    of_pair: Callable[[Vector, Vector], float] | None = None
    """For `apart`: the value of (restored, reference)."""
    of_set: Callable[[Sequence[Vector], Paths], float] | None = None
    """For `over="set"`: the value of all images of an entry."""
    statistics: tuple[Weights, ...] = ()
    """For `over="set"`: those of its files that this value is made with."""

    def paths(self) -> dict[str, Path]:
        """Where its weights are or would be."""
        return {weights.file: locate(weights, None)[0] for weights in self.weights}

    def versions(self) -> list[str]:
        """The packages that its numbers may depend on, with their versions."""
        installed = versions()
        return [f"{name} {installed.get(name, 'absent')}" for name in self.packages]

    def identity(self, device: str) -> str:
        """All that its numbers depend on beside the images: protocol, versions, weights, device, precision."""
        files = [f"{name} {_fingerprint(path)}" for name, path in self.paths().items()]
        where = [f"{environment(device)['device']} fp32"] if files else []
        return ", ".join([self.name, self.protocol, *self.versions(), *files, *where])


def _fingerprint(path: Path) -> str:
    """The first digits of a weights file's sha256; of a repository, the snapshot that is here."""
    if path.is_dir():
        return "+".join(sorted(snapshot.name[:12] for snapshot in path.glob("snapshots/*")))
    return digest_of(path)[:16] if path.is_file() else "missing"


_NN = ("pyiqa", "torch", "torchvision")
_TORCHVISION = "https://download.pytorch.org/models/"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


def _iqa_file(file: str, terms: str, size: int, sha256: str | None = None) -> Weights:
    return Weights(file, sha256, terms, "official", urls=(PYIQA_FILES + file,), size=size, home="pyiqa")


def _backbone(file: str, size: int) -> Weights:
    """Torchvision ends a file's name with the first 8 digits of its sha256."""
    digits = file.rpartition("-")[2].partition(".")[0]
    return Weights(
        file,
        digits,
        "BSD-3-Clause; ImageNet terms",
        "official",
        urls=(_TORCHVISION + file,),
        size=size,
        home="torchvision",
    )


MANIQA_FILE = _iqa_file("ckpt_koniq10k.pt", "Apache-2.0", 543_000_000)
QALIGN_FILE = Weights(
    "q-future/one-align", None, "MIT; LLaMA-2 terms", "official", size=16_400_000_000, home="huggingface"
)
LPIPS_FILE = _iqa_file("LPIPS_v0.1_alex-df73285e.pth", "BSD-2-Clause", 15_000, "df73285e")
ALEXNET_FILE = _backbone("alexnet-owt-7be5be79.pth", 244_000_000)
DISTS_FILE = _iqa_file("DISTS_weights-f5e65c96.pth", "MIT", 14_000, "f5e65c96")
VGG16_FILE = _backbone("vgg16-397923af.pth", 553_000_000)
INCEPTION_FILE = Weights(
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
    "Apache-2.0",
    "official",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        PYIQA_FILES + "pt_inception-2015-12-05-6726825d.pth",
    ),
    size=95_600_000,
    home="pyiqa",
)
FFHQ_FILE = Weights(
    "inception_FFHQ_512.pth",
    None,
    "Apache-2.0 (VQFR); FFHQ terms",
    "official",
    urls=("https://github.com/SamsungLabs/DT-BFR/releases/download/v1.0.0/inception_FFHQ_512.pth",),
    size=33_600_000,
)
ADAFACE_FILE = Weights(
    "adaface_ir50_ms1mv2.ckpt",
    None,
    "MIT",
    "official",
    urls=(f"{_DRIVE}1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI",),
    size=682_000_000,
)
LPIPS_HEADS = tuple(f"lin{level}.model.1.weight" for level in range(5))
LPIPS_LEAST = 31
"""Height and width of which AlexNet's strides leave one value."""
DISTS_HEADS = ("alpha", "beta")


def _psnr(on: On, epsilon: float = 0.0) -> Callable[[str, Paths], Instrument]:
    def load(device: str, paths: Paths) -> Instrument:
        from ntire.scoring.instruments import PixelInstrument
        from ntire.scoring.pixels import psnr

        return PixelInstrument(psnr(on, epsilon))

    return load


def _ssim(on: On) -> Callable[[str, Paths], Instrument]:
    def load(device: str, paths: Paths) -> Instrument:
        from ntire.scoring.instruments import PixelInstrument
        from ntire.scoring.pixels import ssim

        return PixelInstrument(ssim(on))

    return load


def _ssim_skimage_of(on: On, window: int) -> Callable[[str, Paths], Instrument]:
    def load(device: str, paths: Paths) -> Instrument:
        from ntire.scoring.instruments import PixelInstrument
        from ntire.scoring.pixels import ssim_skimage_of

        return PixelInstrument(ssim_skimage_of(on, window))

    return load


def _ssim_skimage(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.instruments import PixelInstrument
    from ntire.scoring.pixels import ssim_skimage

    return PixelInstrument(ssim_skimage)


def _niqe(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import Niqe

    return Niqe(device, "niqe")


def _clipiqa(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import ClipIqa

    return ClipIqa(device, paths[CLIP_FILE.file])


def _maniqa(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import Maniqa

    return Maniqa(device)


def _musiq(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import Iqa

    return Iqa(device, "musiq")


def _qalign(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import QAlign

    return QAlign(device)


def _lpips(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import WithHeads

    return WithHeads(device, "lpips", paths[LPIPS_FILE.file], LPIPS_HEADS, LPIPS_LEAST)


def _dists(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.networks import WithHeads

    return WithHeads(device, "dists", paths[DISTS_FILE.file], DISTS_HEADS)


def _fid(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.fid import Features

    return Features(device, paths[INCEPTION_FILE.file])


def _fid_of_set(features: Sequence[Vector], paths: Paths) -> float:
    import numpy as np

    from ntire.scoring.fid import frechet_distance, read_statistics

    return frechet_distance(np.stack(features), *read_statistics(paths[FFHQ_FILE.file]))


def _fid_of_pairs(features: Sequence[Vector], paths: Paths) -> float:
    import numpy as np

    from ntire.scoring.fid import frechet_distance_of_sets

    restored, truth = np.split(np.stack(features), 2, axis=1)
    return frechet_distance_of_sets(restored, truth)


def _adaface(device: str, paths: Paths) -> Instrument:
    from ntire.scoring.identity import AdaFace

    return AdaFace(device, paths[ADAFACE_FILE.file])


def _cosine(restored: Vector, lq: Vector) -> float:
    return float(restored @ lq)


_WANG = "Wang et al. 2004, 11 x 11 Gaussian of sigma 1.5, valid windows"
_DECLARED = (
    Metric("psnr", "gt", True, "RGB, peak 255, mean of per-image values", "any textbook", _psnr("rgb")),
    Metric(
        "psnr-y",
        "gt",
        True,
        "BT.601 Y (16 to 235), peak 255, 1e-8 added to the squared error",
        "pyiqa psnr on ycbcr, as in the RAIM program",
        _psnr("ycbcr", 1e-8),
    ),
    Metric("ssim", "gt", True, f"{_WANG}; full-range Y (YIQ), rounded", "pyiqa ssim", _ssim("yiq"), (-1, 1)),
    Metric(
        "ssim-y",
        "gt",
        True,
        f"{_WANG}; BT.601 Y (16 to 235), rounded",
        "pyiqa ssim on ycbcr, as in the RAIM program",
        _ssim("ycbcr"),
        (-1, 1),
    ),
    Metric("ssim-rgb", "gt", True, f"{_WANG}; mean over R, G, B", "pyiqa ssimc", _ssim("rgb"), (-1, 1)),
    Metric(
        "ssim-skimage",
        "gt",
        True,
        "uniform 7 x 7 window, sample covariance, mean over R, G, B",
        "scikit-image's defaults, as in MIRAGE's tables",
        _ssim_skimage,
        (-1, 1),
        packages=("numpy", "scikit-image"),
    ),
    Metric(
        "psnr-y-bgr",
        "gt",
        True,
        "BT.601 Y (16 to 235) with red and blue in each other's place, peak 255, not rounded",
        "test program of Histoformer, which weights OpenCV's B, G, R as R, G, B",
        _psnr("ycbcr-bgr"),
    ),
    Metric(
        "ssim-y-bgr",
        "gt",
        True,
        "uniform 11 x 11 window, sample covariance, on the same Y as psnr-y-bgr, range 255",
        "test program of Histoformer, scikit-image",
        _ssim_skimage_of("ycbcr-bgr", 11),
        (-1, 1),
        packages=("numpy", "scikit-image"),
    ),
    Metric(
        "lpips", "gt", False, "AlexNet, version 0.1, full size", "Zhang et al. 2018; pyiqa lpips", _lpips,
        weights=(LPIPS_FILE, ALEXNET_FILE), packages=_NN,
    ),
    Metric(
        "dists", "gt", False, "VGG16, full size", "Ding et al. 2020; pyiqa dists", _dists,
        weights=(DISTS_FILE, VGG16_FILE), packages=_NN,
    ),
    Metric(
        "niqe", "nothing", False, "full-range Y (YIQ), rounded, 96-pixel blocks from the top left, authors' model",
        "Mittal et al. 2013; pyiqa niqe", _niqe, weights=(NIQE_FILE,), packages=(*_NN, "scipy"),
    ),
    Metric(
        "clipiqa", "nothing", True, "CLIP RN50 without positional embedding, native size, five prompt pairs",
        "Wang et al. 2023; pyiqa clipiqa", _clipiqa, (0, 1), weights=(CLIP_FILE,), packages=(*_NN, "openai-clip"),
    ),
    Metric(
        "maniqa", "nothing", True, "KonIQ weights, 20 crops of 224 on a fixed grid (at 512 x 512, rows from 440 are not seen)",
        "Yang et al. 2022; pyiqa maniqa", _maniqa, weights=(MANIQA_FILE,), packages=(*_NN, "timm"),
    ),
    Metric(
        "musiq", "nothing", True, "KonIQ weights, native size and longer side 384 and 224",
        "Ke et al. 2021; pyiqa musiq", _musiq, (-math.inf, math.inf), weights=(MUSIQ_FILE,), packages=_NN,
    ),
    Metric(
        "qalign", "nothing", True, "one-align, task quality, half precision, batch of one",
        "Wu et al. 2023; pyiqa qalign", _qalign, (1, 5), weights=(QALIGN_FILE,), packages=(*_NN, "transformers"),
    ),
    Metric(
        "fid", "nothing", False,
        "FID-Inception, bilinear 299 x 299 without antialias, all images of an entry against FFHQ 512, exact n x n form",
        "evaluation program of the 2025 face challenge (VQFR)", _fid, over="set",
        weights=(INCEPTION_FILE, FFHQ_FILE), packages=("torch", "torchvision", "numpy"), of_set=_fid_of_set,
        statistics=(FFHQ_FILE,),
    ),
    Metric(
        "fid-gt", "gt", False,
        "FID-Inception, bilinear 299 x 299 without antialias, all images against their truth, each subset by itself",
        "pytorch-fid, as the tables of DA-CLIP and UIR-LoRA", _fid, over="set",
        weights=(INCEPTION_FILE,), packages=("torch", "torchvision", "numpy"), apart=True, of_set=_fid_of_pairs,
    ),
    Metric(
        "adaface", "lq", True, "AdaFace IR-50 MS1MV2, cosine between input and restored, landmarks from the track's table",
        "Kim et al. 2022; evaluation program of the 2025 face challenge", _adaface, (-1, 1),
        weights=(ADAFACE_FILE,), packages=("torch", "opencv-python-headless"), apart=True, of_pair=_cosine,
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _DECLARED}
