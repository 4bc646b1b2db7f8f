"""How the choices of a protocol move PSNR and SSIM of one entry: each is changed alone, all others stay the track's.

Most numbers that cannot be reproduced differ by one of these and not by the pictures: what is cut, which colour is compared,
how a result is rounded, which window SSIM has, and over what the mean is taken.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import numpy as np

from ntire import UserError
from ntire.entry.manifest import Submission
from ntire.picture.image import Pixels, cut_to_multiple, psnr_of
from ntire.scoring.opened import Source
from ntire.scoring.pixels import Measure, MetricError, On, psnr, ssim, ssim_skimage_of
from ntire.scoring.references import Expected
from ntire.scoring.score import Row, opened_pairs
from ntire.scoring.statistics import mean
from ntire.scoring.track import Track

Window = Literal["gaussian 11", "uniform 7", "uniform 11"]
Depth = Literal["as it is", "rounded to 8 bits", "cut off to 8 bits"]
COLOURS: dict[On, str] = {
    "rgb": "R, G, B", "ycbcr": "Y of BT.601, 16 to 235", "yiq": "Y of full range",
    "ycbcr-bgr": "Y of BT.601, red and blue exchanged",
}  # fmt: skip
OF_METRIC: dict[str, tuple[On, Window]] = {
    "psnr": ("rgb", "gaussian 11"), "psnr-y": ("ycbcr", "gaussian 11"), "psnr-y-bgr": ("ycbcr-bgr", "uniform 11"),
    "ssim": ("yiq", "gaussian 11"), "ssim-y": ("ycbcr", "gaussian 11"), "ssim-rgb": ("rgb", "gaussian 11"),
    "ssim-skimage": ("rgb", "uniform 7"), "ssim-y-bgr": ("ycbcr-bgr", "uniform 11"),
}  # fmt: skip
"""What a track's metrics say of colour and window."""


@dataclass(frozen=True)
class Choices:
    """One protocol."""

    border: int = 0
    psnr_on: On = "rgb"
    epsilon: float = 0.0
    """Added to the squared error of values in [0, 1] before PSNR is taken of it."""
    ssim_on: On = "rgb"
    window: Window = "gaussian 11"
    depth: Depth = "as it is"
    multiple: int = 1
    """To sides of which multiple results and truth are cut, beyond what the track cuts itself."""


@dataclass(frozen=True)
class Moved:
    """One choice, and what it makes of the numbers."""

    choice: str
    setting: str
    psnr: float | None
    ssim: float | None
    own: bool = False
    """Whether it is the track's."""
    remark: str = ""


@dataclass
class _Sums:
    """What is known of every image under one protocol."""

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    problem: str = ""
    """Why the first image without a value has none."""

    def add(self, choices: Choices, image: str, restored: Pixels, gt: Pixels) -> None:
        """Measure one more image."""
        measures = _psnr(choices.psnr_on, choices.epsilon), _ssim(choices.ssim_on, choices.window)
        for values, measure in zip((self.psnr, self.ssim), measures, strict=True):
            try:
                values.append(measure(_cut(choices, _stored(choices, restored)), _cut(choices, gt)))
            except MetricError as error:
                self.problem = self.problem or f"{image}: {error}"


def protocol_diff(
    track: Track, submission: Submission, expected: Sequence[Expected], source: Source
) -> tuple[Moved, ...]:
    """The track's own numbers, then those under every other choice.

    Raises UserError that lists all images that cannot be compared: nothing is told of a part.
    """
    own = choices_of(track)
    varied = {(choice, setting): one for choice, setting, one in _variations(own)}
    sums = {key: _Sums() for key in varied}
    pooled: list[tuple[float, int]] = []
    subsets: list[str] = []
    wrong: list[Row] = []
    deep = False
    for found in opened_pairs(track, submission, expected, source):
        if isinstance(found, Row):
            wrong.append(found)
            continue
        one, restored, gt = found
        subsets.append(one.subset)
        deep = deep or restored.dtype != np.uint8
        for key, choices in varied.items():
            sums[key].add(choices, one.name, restored, gt)
        try:
            ours, theirs = (_cut(own, image) for image in (restored, gt))
        except MetricError as error:
            wrong.append(Row(one.name, one.subset, "metric failed", problem=str(error)))
            continue
        pooled.append((float(((ours.astype(np.float64) - theirs) ** 2).sum()), theirs.size))
    if wrong or not subsets:
        told = [f"{row.image}: {row.status}: {row.problem}" for row in wrong[:20]] or ["it has no image"]
        raise UserError(
            "\n  ".join([f"{submission.entry}: not all of its images can be compared:", *told]), exit_code=1
        )
    lines = [
        Moved(
            choice,
            setting,
            _mean(track, of.psnr, subsets),
            _mean(track, of.ssim, subsets),
            varied[choice, setting] == own,
            of.problem,
        )
        for (choice, setting), of in sums.items()
    ]
    return (*lines, *_means(track, sums[next(iter(sums))], subsets, pooled), *([] if deep else [EIGHT]))


EIGHT = Moved(
    "depth", "before it was written", None, None, remark="its images have 8 bits: `ntire run --bits 16` shows this"
)


def choices_of(track: Track) -> Choices:
    """What a track's own metrics choose. Raises UserError for a track that compares no pixels."""
    named = [name for name in track.metrics if name in OF_METRIC]
    first = next((name for name in named if name.startswith("psnr")), "")
    second = next((name for name in named if name.startswith("ssim")), "ssim-rgb")
    if not first:
        raise UserError(f"track {track.name} has no PSNR, so that no protocol of one can be compared.")
    on, window = OF_METRIC[second]
    return Choices(track.border, OF_METRIC[first][0], 1e-8 if first == "psnr-y" else 0.0, on, window)


def _variations(own: Choices) -> Iterable[tuple[str, str, Choices]]:
    """Each choice in turn: the track's, then the others."""
    yield "all", "as the track has it", own
    for border in sorted({0, 2, 4, own.border}):
        yield "border", f"{border} px", replace(own, border=border)
    for on, words in COLOURS.items():
        yield "colour", words, replace(own, psnr_on=on, ssim_on=on)
    for window in ("gaussian 11", "uniform 7", "uniform 11"):
        yield "window of SSIM", window, replace(own, window=window)
    for depth in ("rounded to 8 bits", "cut off to 8 bits"):
        yield "depth", depth, replace(own, depth=depth)
    for multiple in (8, 16):
        yield "cut", f"to a multiple of {multiple}", replace(own, multiple=multiple)


@cache
def _psnr(on: On, epsilon: float) -> Measure:
    return psnr(on, epsilon)


@cache
def _ssim(on: On, window: Window) -> Measure:
    return ssim(on) if window == "gaussian 11" else ssim_skimage_of(on, 7 if window == "uniform 7" else 11)


def _stored(choices: Choices, restored: Pixels) -> Pixels:
    if choices.depth == "as it is":
        return restored
    whole = np.rint(restored) if choices.depth == "rounded to 8 bits" else np.floor(restored)
    return whole.clip(0, 255).astype(np.uint8)


def _cut(choices: Choices, image: Pixels) -> Pixels:
    inner = cut_to_multiple(image, choices.multiple)
    border = choices.border
    if min(inner.shape[:2]) <= 2 * border:
        raise MetricError(f"nothing is left of {image.shape[0]} x {image.shape[1]}")
    return inner[border:-border, border:-border] if border else inner


def _mean(track: Track, values: Sequence[float], subsets: Sequence[str]) -> float | None:
    """None unless every image has a value: nothing is told of a part."""
    if len(values) < len(subsets):
        return None
    if track.average == "images":
        return mean(values)
    return track.mean({name: mean(_of(values, subsets, name)) for name in track.subsets})


def _of(values: Sequence[float], subsets: Sequence[str], name: str) -> list[float]:
    return [value for value, subset in zip(values, subsets, strict=True) if subset == name]


def _means(track: Track, own: _Sums, subsets: Sequence[str], pooled: Sequence[tuple[float, int]]) -> list[Moved]:
    """Over what the mean is taken."""
    error = math.fsum(one for one, _ in pooled) / sum(count for _, count in pooled) / 255**2

    def over(setting: Literal["images", "subsets"]) -> Moved:
        rules = track.model_copy(update={"average": setting, "subsets": dict.fromkeys(sorted(set(subsets)), 1)})
        psnr_mean, ssim_mean = (_mean(rules, values, subsets) for values in (own.psnr, own.ssim))
        return Moved("mean", f"over {setting}", psnr_mean, ssim_mean, track.average == setting, own.problem)

    return [
        over("images"),
        Moved("mean", "one error of all pixels together, R, G, B", psnr_of(error), None),
        *([over("subsets")] if len(set(subsets)) > 1 else []),
    ]
