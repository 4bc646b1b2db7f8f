"""Does the installed stack still give the numbers that it should? Tiny pictures made by arithmetic, values pinned.

A score is a function of library versions as much as of images: where a value has drifted, nothing is ranked.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec

import numpy as np

from ntire import UserError
from ntire.method.weights_files import digest_of, locate
from ntire.picture.image import Pixels
from ntire.scoring.fid import frechet_distance
from ntire.scoring.identity import TEMPLATE, similarity_transform
from ntire.scoring.instruments import View
from ntire.scoring.metrics import METRICS

PINNED = {
    "psnr": 34.3285864728984,
    "psnr-y": 38.825968048628965,
    "ssim": 0.9610822826390257,
    "ssim-y": 0.9639421755496036,
    "ssim-rgb": 0.921265111088385,
    "ssim-skimage": 0.9471203070204904,
}
"""Values for `calibration_pair`, computed with scikit-image 0.26."""
NIQE_PINNED = 24.346981
"""Value for `texture` with the authors' model."""
WITH_WEIGHTS = ("niqe",)
"""Metrics whose pinned value depends on their weights."""
MANIQA_ROWS = (0, 72, 144, 216)
"""First rows of MANIQA's crops of a picture of 512 x 512, whose grid releases of pyiqa have changed."""


def calibration_pair() -> tuple[Pixels, Pixels]:
    """A distorted picture and its reference, 48 x 48, made by arithmetic alone."""
    row, column, channel = np.indices((48, 48, 3))
    gt = (row * 5 + column * 3 + channel * 40) % 200 + 20
    restored = gt + (row * 7 + column * 11 + channel * 3) % 17 - 8
    return restored.astype(np.uint8), gt.astype(np.uint8)


def texture() -> Pixels:
    """A picture of 192 x 192 with texture at several scales, made by arithmetic alone."""
    row, column, channel = np.indices((192, 192, 3))
    waves = (row * column // 7 + row * 13 + column * 5 + channel * 31) % 101 + (row // 9 * 37 + column // 11 * 53) % 97
    return (waves + 20).astype(np.uint8)


def drifted(names: Iterable[str]) -> list[str]:
    """What is found and what was expected, for every metric among `names` whose check fails; those that cannot be checked
    here are passed over.
    """
    found = {name: _CHECKS[name]() for name in names if can_be_checked(name)}
    return [f"{name}: {problem}{_of_file(name)}" for name, problem in found.items() if problem]


def _of_file(name: str) -> str:
    """The weights that a drifted value came from: another file is as likely a cause as another library."""
    if name not in WITH_WEIGHTS:
        return ""
    files = [f"{path} (sha256 {digest_of(path)[:16]}...)" for path in METRICS[name].paths().values()]
    fetched = f"if it is not the authors' file, delete it and run `ntire weights fetch {name}`"
    return f", with {', '.join(files)} and {', '.join(METRICS[name].versions())}; {fetched}"


def refuse_drift(names: Iterable[str]) -> None:
    """Raise UserError (exit code 3) if a metric among `names` has drifted."""
    problems = drifted(names)
    if problems:
        raise UserError(
            "metrics give other values here than the pinned ones, so nothing is ranked:\n  "
            + "\n  ".join(problems)
            + "\nWhere no file is named it is a library: install the versions of constraints.txt; `ntire doctor` shows what is "
            "installed.",
            exit_code=3,
        )


def can_be_checked(name: str) -> bool:
    """Whether there is a check for a metric and what it needs is here."""
    if name not in _CHECKS:
        return False
    if name in ("niqe", "maniqa") and find_spec("pyiqa") is None:
        return False
    return name != "niqe" or all(locate(weights, None)[1] == "here" for weights in METRICS[name].weights)


def _differs(found: float, pinned: float, tolerance: float) -> str:
    return "" if abs(found - pinned) <= tolerance else f"{found:.8g} for {pinned:.8g}"


def _pixels(name: str) -> Callable[[], str]:
    def check() -> str:
        restored, gt = calibration_pair()
        (found,) = METRICS[name].load("cpu", {}).observe([View(restored, gt)])
        return _differs(float(found[0]), PINNED[name], 1e-6)

    return check


def _niqe() -> str:
    (found,) = METRICS["niqe"].load("cpu", METRICS["niqe"].paths()).observe([View(texture())])
    return _differs(float(found[0]), NIQE_PINNED, 1e-3)


def _maniqa() -> str:
    import torch
    from pyiqa.archs.arch_util import uniform_crop

    rows = torch.arange(512.0)[:, None].expand(1, 3, 512, 512)
    first = tuple(sorted({int(crop[0, 0, 0]) for crop in uniform_crop(rows, crop_size=224, crop_num=20)}))
    return "" if first == MANIQA_ROWS else f"crops begin at rows {first} for {MANIQA_ROWS}"


def _fid() -> str:
    """Between a sample and the Gaussian of its own mean and covariance, shifted by 3, lies the shift alone."""
    features = np.sin(np.arange(40.0)[:, None] * np.arange(1.0, 65.0) * 0.37)
    found = frechet_distance(features, features.mean(0) + 3 / 8, np.cov(features, rowvar=False))
    return _differs(found, 9.0, 1e-6)


def _adaface() -> str:
    """A known similarity, turned by 90 degrees, doubled and moved, is found again."""
    turned = TEMPLATE[:, ::-1] * [-2.0, 2.0] + [300.0, 40.0]
    matrix = similarity_transform(tuple((float(x), float(y)) for x, y in turned))
    back = np.c_[turned, np.ones(5)] @ matrix.T
    return _differs(float(np.abs(back - TEMPLATE).max()), 0.0, 1e-9)


_CHECKS: dict[str, Callable[[], str]] = {
    **{name: _pixels(name) for name in PINNED},
    "niqe": _niqe,
    "maniqa": _maniqa,
    "fid": _fid,
    "adaface": _adaface,
}
CHECKED = tuple(_CHECKS)
"""Metrics that have a check."""
