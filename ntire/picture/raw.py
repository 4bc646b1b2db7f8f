"""Raw frames: one Bayer mosaic and what must be known to make a picture of it.

    DNG, vendor raw (rawpy) | .npy, .npz | 16-bit PNG  ->  RawFrame  ->  balanced RGGB mosaic  ->  network  ->  render

A `.npy` holds the mosaic (H, W) or the packed planes (H/2, W/2, 4), in integers or, already normalised, in floats;
a PNG holds the mosaic in 16-bit gray. What such a file cannot say of itself stands in a TOML beside it (`name.toml`, or
`frames.toml` for the whole folder): see `FrameFacts`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tomli_w
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ntire import UserError
from ntire.files import read_toml
from ntire.picture.arrays_of_raw import ARRAYS, WhiteLevel, mosaic_in, white_level_of
from ntire.picture.colours import IDENTITY as IDENTITY
from ntire.picture.colours import Matrix as Matrix
from ntire.picture.colours import apply_matrix as apply_matrix
from ntire.picture.colours import correct_colours as correct_colours
from ntire.picture.colours import srgb_decode as srgb_decode
from ntire.picture.colours import srgb_encode as srgb_encode
from ntire.picture.header import UnreadableImage
from ntire.picture.levels import balanced, entered_mosaic, without_black

Cfa = Literal["RGGB", "GRBG", "GBRG", "BGGR"]
XYZ_FROM_SRGB = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""IEC 61966-2-1, D65."""

Levels = tuple[float, float, float, float]


class FrameFacts(BaseModel):
    """The TOML beside a `.npy` or PNG mosaic. Levels are in the file's own units, before any normalisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cfa: Cfa | None = None
    """Colours of the pixels (0, 0), (0, 1), (1, 0), (1, 1)."""
    black_level: float | tuple[float, float, float, float] | None = None
    """One level, or one for each of the four positions of `cfa`."""
    white_level: Annotated[float, Field(gt=0)] | None = None
    white_balance: tuple[float, float, float] | None = None
    """Gains of R, G and B; only their ratios count."""
    ccm: Matrix | None = None
    """White-balanced camera RGB to linear sRGB; rows sum to 1."""
    iso: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True)
class RawFrame:
    """A Bayer mosaic, and what its camera says of levels and colours."""

    samples: Tensor
    """(1, H, W), upright: sensor values as uint16, or float32 in [0, 1] with the levels already taken out."""
    cfa: Cfa
    white_balance: tuple[float, float, float]
    """Gains of R, G, B, the smallest 1."""
    ccm: Matrix = IDENTITY
    iso: float | None = None
    path: Path | None = None
    notes: tuple[str, ...] = field(default=())
    """What the file did not say and was assumed; shown to the user."""
    black_level: Levels = (0.0, 0.0, 0.0, 0.0)
    """Of sensor values, one for each of the four positions of `cfa`."""
    white_level: float = 1.0

    @property
    def mosaic(self) -> Tensor:
        """(1, H, W) float32 in [0, 1] after black level and white level, on the device of the samples; a new tensor."""
        mosaic = self.samples.to(torch.float32, copy=True)
        if self.samples.dtype.is_floating_point:
            return mosaic
        return without_black(mosaic, self.black_level, self.white_level)

    def to(self, device: torch.device) -> "RawFrame":
        """The frame with its samples on `device`."""
        return replace(self, samples=self.samples.to(device, non_blocking=True))

    def __post_init__(self) -> None:
        _, height, width = self.samples.shape
        if height < 2 or width < 2:
            raise UnreadableImage(
                f"{self.path or 'raw frame'}: expected a mosaic of at least 2 x 2, found {height} x {width}."
            )


def read_raw(path: Path) -> RawFrame:
    """Read a DNG, vendor raw, `.npy` or PNG mosaic.

    Raises UnreadableImage for a damaged file, a sensor that is not Bayer, or a PNG without its TOML.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        return _read_arrays(path)
    if suffix == ".png":
        return _read_png(path)
    return _read_vendor(path)


def pack(mosaic: Tensor) -> Tensor:
    """(..., 1, H, W) to (..., 4, H/2, W/2), planes in the order of the CFA's letters."""
    return F.pixel_unshuffle(mosaic, 2)


def balanced_rggb(frame: RawFrame, dtype: torch.dtype = torch.float32) -> tuple[Tensor, tuple[int, int]]:
    """The mosaic with white balance applied, clipped to [0, 1], in RGGB phase and a `dtype`: what networks see.

    Other phases get one reflected row or column in front; the second value is (rows, columns) to cut off again.
    """
    gains = dict(zip("RGB", frame.white_balance, strict=True))
    red = frame.cfa.index("R")
    corner = red // 2, red % 2
    how = frame.black_level, frame.white_level, [gains[letter] for letter in frame.cfa], corner
    if frame.samples.device.type == "cpu":
        return balanced(frame.samples, *how).to(dtype), corner
    return entered_mosaic(frame.samples, *how, dtype), corner


def demosaic(mosaic: Tensor) -> Tensor:
    """Bilinear demosaicing of an RGGB mosaic (1, H, W) to (3, H, W).

    A missing colour is the mean of its neighbours within the 3 x 3 window weighted 1 2 1; at the border only
    neighbours that exist count.
    """
    _, height, width = mosaic.shape
    masks = torch.zeros(3, height, width, device=mosaic.device)
    for index, channel in enumerate((0, 1, 1, 2)):
        masks[channel, index // 2 :: 2, index % 2 :: 2] = 1
    window = 2 - (torch.arange(3.0, device=mosaic.device) - 1).abs()
    kernel = (window[:, None] * window).expand(3, 1, 3, 3)
    known = F.conv2d((masks * mosaic)[None], kernel, padding=1, groups=3)
    weight = F.conv2d(masks[None], kernel, padding=1, groups=3)
    filled = (known / weight.clamp_min(1))[0]
    return torch.where(masks.bool(), mosaic, filled)


def ccm_from_xyz(camera_from_xyz: Tensor) -> Tensor:
    """Camera RGB to linear sRGB (3, 3) from the camera's XYZ matrix, as dcraw does it.

    Rows of the matrix sRGB to camera are scaled to sum 1, so that white stays white after white balance; then inverted.
    """
    camera_from_srgb = camera_from_xyz @ XYZ_FROM_SRGB.to(camera_from_xyz)
    camera_from_srgb = camera_from_srgb / camera_from_srgb.sum(dim=1, keepdim=True)
    return torch.linalg.inv(camera_from_srgb)


def as_matrix(values: Tensor) -> Matrix:
    """A 3 x 3 tensor as nested tuples."""
    (a, b, c), (d, e, f), (g, h, i) = values.tolist()
    return ((a, b, c), (d, e, f), (g, h, i))


def gray_world(mosaic: Tensor, cfa: Cfa) -> tuple[float, float, float]:
    """Gains that make the mean colour of a mosaic (1, H, W) gray; clipped pixels (above 0.98) do not count."""
    means = dict.fromkeys("RGB", 0.0)
    for index, letter in enumerate(cfa):
        plane = mosaic[0, index // 2 :: 2, index % 2 :: 2]
        unclipped = plane[plane <= 0.98]
        mean = float(unclipped.mean()) if unclipped.numel() else 1.0
        means[letter] += mean / cfa.count(letter)
    return _normalised(*(1 / max(means[letter], 1e-6) for letter in "RGB"))


def _normalised(red: float, green: float, blue: float) -> tuple[float, float, float]:
    smallest = min(red, green, blue)
    return red / smallest, green / smallest, blue / smallest


def _frame(
    path: Path, samples: NDArray[np.generic], facts: FrameFacts, bits: int | None, assumed: tuple[str, ...]
) -> RawFrame:
    """Normalise samples (H, W) by their levels and fill in what the facts leave out, saying so."""
    notes = list(assumed)
    cfa = facts.cfa or "RGGB"
    if facts.cfa is None:
        notes.append("CFA RGGB")
    white = facts.white_level if facts.white_level is not None else (2.0**bits - 1 if bits else 1.0)
    if facts.white_level is None and bits:
        notes.append(f"white level {white:.0f} ({bits} bit)")
    black = facts.black_level if facts.black_level is not None else 0.0
    if facts.black_level is None:
        notes.append("black level 0")
    levels = black if isinstance(black, tuple) else (black,) * 4
    if max(levels) >= white:
        raise UnreadableImage(f"{path}: expected the black level below the white level, found {black} and {white}.")
    if samples.dtype in (np.uint8, np.uint16):
        kept = torch.from_numpy(samples.astype(np.uint16))[None]
    else:
        kept = without_black(torch.from_numpy(samples.astype(np.float32))[None], levels, white)
    frame = RawFrame(kept, cfa, (1.0, 1.0, 1.0), facts.ccm or IDENTITY, facts.iso, path, (), levels, white)
    if facts.white_balance is not None:
        if min(facts.white_balance) <= 0:
            raise UnreadableImage(f"{path}: expected white balance gains above 0, found {facts.white_balance}.")
        gains = _normalised(*facts.white_balance)
    else:
        gains = gray_world(frame.mosaic, cfa)
        notes.append("white balance from the gray world, R {:.2f} G {:.2f} B {:.2f}".format(*gains))
    if facts.ccm is None:
        notes.append("no colour matrix")
    return replace(frame, white_balance=gains, notes=tuple(notes))


def facts_file(path: Path) -> Path | None:
    """The TOML that speaks for the frame at `path`: `name.toml`, else `frames.toml` of its folder, else None."""
    beside = (path.with_suffix(".toml"), path.with_name("frames.toml"))
    return next((file for file in beside if file.is_file()), None)


def facts_text(path: Path) -> bytes | None:
    """The TOML that a copy of the frame needs in another folder, under another name; None if it speaks for itself."""
    file = facts_file(path)
    level = _unwritten_level(path)
    if level is None:
        return file.read_bytes() if file else None
    known = (_facts_beside(path) or FrameFacts()).model_copy(update={"white_level": level.white})
    return tomli_w.dumps(known.model_dump(exclude_none=True)).encode()


def level_by_neighbours(path: Path) -> float | None:
    """The white level of a frame of integers if it follows from the frames beside it; None if it is said somewhere."""
    level = _unwritten_level(path)
    return level.white if level is not None and not level.stated else None


def _unwritten_level(path: Path) -> WhiteLevel | None:
    """The white level that `read_raw` takes where no TOML has it; None for what has one, is no such frame or is broken."""
    if path.suffix.lower() not in ARRAYS:
        return None
    try:
        facts = _facts_beside(path)
        array = mosaic_in(path)
    except UserError:
        return None
    said = array.dtype.kind == "f" or (facts is not None and facts.white_level is not None)
    return None if said else white_level_of(path, array)


def _facts_beside(path: Path) -> FrameFacts | None:
    file = facts_file(path)
    return read_toml(file, FrameFacts) if file else None


def _read_arrays(path: Path) -> RawFrame:
    array = mosaic_in(path)
    facts = _facts_beside(path) or FrameFacts()
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnreadableImage(f"{path}: expected finite values, found NaN or infinity.")
        if facts.white_level is None and (array.max() > 1 or array.min() < 0):
            raise UnreadableImage(
                f"{path}: expected floats in [0, 1], found values from {array.min():.4g} to {array.max():.4g}. "
                f"Put black_level and white_level into {path.stem}.toml beside it."
            )
        return _frame(path, array, facts, None, ())
    if facts.white_level is not None:
        return _frame(path, array, facts, None, ())
    level = white_level_of(path, array)
    return _frame(path, array, facts.model_copy(update={"white_level": level.white}), None, (level.note,))


def _read_png(path: Path) -> RawFrame:
    from ntire.picture.image import read_header, read_pixels

    header = read_header(path)
    if header.mode not in ("I;16", "I", "L") or header.bits not in (8, 16):
        raise UnreadableImage(
            f"{path}: expected a mosaic as a gray PNG of 16 bits, found mode {header.mode} of {header.bits} bits. "
            "The raw track starts from sensor values; for a finished picture use --track srgb."
        )
    facts = _facts_beside(path)
    wanted = ("cfa", "black_level", "white_level")
    missing = [name for name in wanted if facts is None or getattr(facts, name) is None]
    if missing or facts is None:
        raise UnreadableImage(
            f"{path}: a PNG mosaic needs {path.stem}.toml or frames.toml beside it with {', '.join(missing)}."
        )
    return _frame(path, read_pixels(path)[..., 0], facts, None, ())


def _read_vendor(path: Path) -> RawFrame:
    from ntire.picture.vendor_raw import read_vendor

    found = read_vendor(path)
    ccm = None
    if found.camera_from_xyz is not None:
        ccm = as_matrix(ccm_from_xyz(torch.from_numpy(found.camera_from_xyz)))
    elif found.srgb_from_camera is not None:
        ccm = as_matrix(torch.from_numpy(found.srgb_from_camera))
    facts = FrameFacts.model_validate(
        {
            "cfa": found.cfa,
            "black_level": found.black,
            "white_level": found.white,
            "white_balance": found.gains,
            "ccm": ccm,
            "iso": found.iso,
        }
    )
    return _frame(path, found.samples, facts, None, ())
