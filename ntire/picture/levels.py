"""Levels of a file to values in [0, 1] and back: in steps, or, on a GPU, in one pass over the pixels each way.

Both give the same bits, but for a camera's colours, whose powers may differ in the last ones. The passes are operators of
PyTorch, so that whoever counts bytes sees them; their kernels are in `ntire.picture.gpu_kernels`. Where these cannot be built,
as without Triton or a C compiler, a GPU takes the steps as well, and `told` says why.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from ntire.picture.colours import IDENTITY, Matrix, correct_colours
from ntire.picture.tiling import pad_reflect

TOP = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""The level of white."""
LEVELS = {8: torch.uint8, 16: torch.uint16}
"""By the bits of a sample."""


def values_of(levels: Tensor) -> Tensor:
    """Levels (..., H, W) as float32 in [0, 1], contiguous."""
    values = levels.to(torch.float32, memory_format=torch.contiguous_format)
    # A division by a number on the device, as a GPU would multiply by the inverse of one on the host: the two differ in the
    # last bit, and scores with them.
    return values.div_(torch.full((), TOP[levels.dtype], device=values.device))


def levels_of(image: Tensor, bits: int, ccm: Matrix = IDENTITY) -> Tensor:
    """An image (3, h, w), with a matrix in a camera's colours, as levels (3, h, w) of 8 or 16 bits: clipped to [0, 1],
    rounded once, half to even. They lie as in a file, colour by colour of each pixel.
    """
    levels = correct_colours(image.float(), ccm).mul_(2**bits - 1).round_()[None]
    if bits == 8:
        return levels.to(torch.uint8, memory_format=torch.channels_last)[0]
    return levels.to(torch.int32, memory_format=torch.channels_last)[0].to(torch.uint16)


def without_black(samples: Tensor, black: Sequence[float], white: float) -> Tensor:
    """Sensor values (1, H, W), float32, to [0, 1] in place; a black level for each of the four positions of a mosaic."""
    for index, level in enumerate(black):
        # Divided by a number on the device, as in `values_of`.
        span = torch.full((), white - level, device=samples.device)
        samples[0, index // 2 :: 2, index % 2 :: 2].sub_(level).div_(span)
    return samples.clamp_(0, 1)


def balanced(
    samples: Tensor, black: Sequence[float], white: float, gains: Sequence[float], corner: tuple[int, int]
) -> Tensor:
    """A mosaic of sensor values (1, H, W) as float32 in [0, 1], each of its four positions times its gain, with so many
    reflected rows and columns in front.
    """
    mosaic = samples.to(torch.float32, copy=True)
    if not samples.dtype.is_floating_point:
        without_black(mosaic, black, white)
    for index, gain in enumerate(gains):
        mosaic[0, index // 2 :: 2, index % 2 :: 2] *= gain
    top, left = corner
    return pad_reflect(mosaic.clamp_(0, 1), left, 0, top, 0)


def all_finite(image: Tensor) -> Tensor:
    """Whether all values are numbers, on their device."""
    if not image.numel():
        return torch.ones((), dtype=torch.bool, device=image.device)
    low, high = image.aminmax()
    return torch.isfinite(low) & torch.isfinite(high)


def _enter(levels: Tensor, image: Tensor) -> None:
    """Levels (B, C, H, W) into an image of their size, of whatever dtype and layout."""
    if (kernels := _kernels()[0]) is not None:
        kernels.enter(levels, image, TOP[levels.dtype])
    else:
        image.copy_(values_of(levels))


def _leave(image: Tensor, levels: Tensor, finite: Tensor, ccm: Sequence[float]) -> None:
    """An image (3, h, w) into `levels` of its size, as `levels_of` has it; `finite` becomes false where values are no numbers.

    `ccm` has the nine numbers of a matrix, or none.
    """
    if (kernels := _kernels()[0]) is not None:
        kernels.leave(image, levels, finite, TOP[levels.dtype], ccm)
    else:
        finite &= all_finite(image)
        matrix = tuple(tuple(ccm[row : row + 3]) for row in (0, 3, 6)) if ccm else IDENTITY
        levels.copy_(levels_of(image, 8 if levels.dtype == torch.uint8 else 16, matrix))  # type: ignore[arg-type]


def _enter_mosaic(
    samples: Tensor, mosaic: Tensor, black: Sequence[float], white: float, gains: Sequence[float]
) -> None:
    """`balanced` sensor values into a mosaic of whatever dtype; it is larger by the rows and columns in front."""
    if samples.dtype.is_floating_point:
        black, white = [0.0] * 4, 1.0
    if (kernels := _kernels()[0]) is not None:
        kernels.enter_mosaic(samples, mosaic, black, [white - level for level in black], gains)
    else:
        corner = mosaic.shape[1] - samples.shape[1], mosaic.shape[2] - samples.shape[2]
        mosaic.copy_(balanced(samples, black, white, gains, corner))


_OPERATORS = torch.library.Library("ntire", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema, _operator in (
    ("enter(Tensor levels, Tensor(a!) image) -> ()", _enter),
    ("enter_mosaic(Tensor samples, Tensor(a!) mosaic, float[] black, float white, float[] gains) -> ()", _enter_mosaic),
    ("leave(Tensor image, Tensor(a!) levels, Tensor(b!) finite, float[] ccm) -> ()", _leave),
):
    _name = _OPERATORS.define(_schema)  # type: ignore[no-untyped-call]
    for _device in ("CPU", "CUDA"):
        _OPERATORS.impl(_name, _operator, _device)  # type: ignore[no-untyped-call]
    # Where tensors have sizes alone there is nothing to do.
    _OPERATORS.impl(_name, lambda *given: None, "Meta")  # type: ignore[no-untyped-call]


def entered(levels: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """Levels (B, C, H, W) as an image, in one pass."""
    image = torch.empty(levels.shape, dtype=dtype, device=levels.device, memory_format=memory_format)
    torch.ops.ntire.enter(levels, image)
    return image


def entered_mosaic(
    samples: Tensor,
    black: Sequence[float],
    white: float,
    gains: Sequence[float],
    corner: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """`balanced` in one pass, in a network's dtype."""
    size = (samples.shape[1] + corner[0], samples.shape[2] + corner[1])
    mosaic = torch.empty(1, *size, dtype=dtype, device=samples.device)
    torch.ops.ntire.enter_mosaic(samples, mosaic, black, white, gains)
    return mosaic


def left(image: Tensor, bits: int, finite: Tensor, ccm: Matrix = IDENTITY) -> Tensor:
    """`levels_of` an image in one pass, which also tells `finite`, a value on its device."""
    levels = torch.empty(*image.shape[1:], 3, dtype=LEVELS[bits], device=image.device).permute(2, 0, 1)
    torch.ops.ntire.leave(image, levels, finite, [] if ccm == IDENTITY else [value for row in ccm for value in row])
    return levels


def told(device: torch.device) -> tuple[str, ...]:
    """Why a device takes several passes, for the journal; nothing where it does not, or where the host computes."""
    reason = "" if device.type == "cpu" else _kernels()[1]
    return (f"pixels are converted in several passes, which takes a little longer ({reason})",) if reason else ()


@lru_cache(maxsize=1)
def _kernels() -> tuple[ModuleType | None, str]:
    """The kernels, or why there are none."""
    try:
        from ntire.picture import gpu_kernels

        gpu_kernels.try_out()
    except Exception as error:  # noqa: BLE001 - what a compiler lacks, it says in many ways; the steps do the same
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return gpu_kernels, ""
