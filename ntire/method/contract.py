"""The contract: a method is a class that declares its facts, holds its networks, and restores a picture from a path."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ntire.method.checkpoints import read_state_dict
from ntire.method.execution import Execution
from ntire.method.facts import Cost as Cost
from ntire.method.facts import Unpublished as Unpublished
from ntire.method.weights_files import Weights
from ntire.picture.image import as_image, clipped, read_integers
from ntire.picture.raw import Matrix, RawFrame, balanced_rggb, demosaic, read_raw, srgb_encode
from ntire.picture.tiling import floats_of

if TYPE_CHECKING:
    from ntire.method.recipe import Recipe

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

MIRRORED = "A few reflected pixels around the picture are ours: padding with zeros shows as a line along its borders."
"""The caveat of methods with a `border`."""
Frame = Tensor | RawFrame
"""What `Method.read` returns: a picture (3, H, W), as integers from a file (uint8, uint16) or as an image (float32, [0, 1]);
or a raw frame on the raw track."""


class Method(nn.Module):
    """A team's method: a subclass in `teams/<track>/<team>.py`, or in a submission's `method/method.py`.

    `forward(lq)` is the networks and nothing else, (B, C, H, W) -> (B, 3, s H, s W) with s the `scale`: C is 3, values
    [0, 1]; on the raw track C is 1, a white-balanced linear RGGB mosaic in [0, 1], and the result is sRGB-encoded camera RGB
    at the size of the mosaic. `restore(path)` is the contract that everything else builds on.
    """

    team: ClassVar[str]
    """As the report spells it."""
    track: ClassVar[str]
    """The folder below `teams/`: raw, srgb, face, general or esr."""
    scale: ClassVar[int] = 1
    """How many times as high and as wide as its input the result is."""
    variant: ClassVar[str] = ""
    """Tells several methods of one team and track apart, such as "phase3"."""
    cite: ClassVar[str] = ""
    """A key of `teams/references.bib`; empty for a method that is not ntire's."""
    code: ClassVar[str | None] = None
    """Address of the authors' program, if there is one."""
    claimed: ClassVar[Cost | None] = None
    weights: ClassVar[tuple[Weights, ...]] = ()
    tiling: ClassVar[Literal["exact", "method", "global"]]
    """`exact`: local, any tiling gives the same pixels; `method`: tiles are part of the method, which does them itself;
    `global`: an output pixel depends on the whole image, tiles are an approximation."""
    halo: ClassVar[int]
    """Pixels of input around an output pixel, or around what becomes it and its neighbours, that can change it (for `global`:
    the overlap of tiles)."""
    stride: ClassVar[int]
    """Origins and sizes of tiles sit on this grid of input pixels."""
    border: ClassVar[int] = 0
    """Pixels by which a picture is reflected all around before `forward`, for networks whose padding with zeros shows as a
    line along its borders."""
    channels: ClassVar[int | None] = None
    """What `forward` takes, if not the track's usual: 3 on the raw track for a network on the plainly rendered frame."""
    channels_last: ClassVar[bool] = False
    """Whether a CPU keeps the channels of a pixel together in memory: 0.6 to 0.8 of the time where convolutions are narrow,
    with other last bits, the same for any tiling."""
    bf16_psnr_db: ClassVar[float] = 45.0
    """How near to float32 bfloat16 stays at least; less where a method multiplies rounding, as one-step diffusion does."""
    caveats: ClassVar[tuple[str, ...]] = ()
    notice: ClassVar[str] = ""
    """What a user is told whenever it runs, such as that it is a part of what the report has."""
    recipe: ClassVar["Recipe | None"] = None
    """How `ntire train` trains it; None for methods that cannot be trained here."""
    settable: ClassVar[Mapping[str, str]] = {}
    """Attributes that a user may set to words of theirs (`ntire run --set NAME=VALUE`), with what each is for."""
    tiny: ClassVar[dict[str, int]] = {}
    """Constructor arguments of a copy small enough for tests."""

    def __init__(self) -> None:
        super().__init__()
        self.execution = Execution()

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__()
        if abstract:
            return
        mistakes = cls._mistakes()
        if mistakes:
            raise TypeError(f"class {cls.__qualname__}: {'; '.join(mistakes)}")

    @classmethod
    def _mistakes(cls) -> list[str]:
        """Everything that is wrong with what the class declares, in words."""
        needed = ("team", "track", "tiling", "halo", "stride")
        missing = [name for name in needed if not hasattr(cls, name)]
        found = [f"it does not declare {', '.join(missing)}"] if missing else []
        words = [name for name in ("team", "track", "variant") if not isinstance(getattr(cls, name, ""), str)]
        found += [f"{name} is a text, not {getattr(cls, name)!r}" for name in words]
        tiling = getattr(cls, "tiling", "exact")
        if tiling not in ("exact", "method", "global"):
            found.append(f"tiling is exact, method or global, not {tiling!r}")
        for name, least in (("halo", 0), ("stride", 1), ("scale", 1)):
            value = getattr(cls, name, least)
            if not isinstance(value, int) or value < least:
                found.append(f"{name} is a whole number of at least {least}, not {value!r}")
        if not (isinstance(cls.weights, tuple) and all(isinstance(one, Weights) for one in cls.weights)):
            return [*found, "weights is a tuple of Weights: (Weights(...),)"]
        return found + [mistake for one in cls.weights for mistake in one.mistakes]

    @classmethod
    def lq_channels(cls) -> int:
        """Channels that `forward` takes."""
        return cls.channels or (1 if cls.track == "raw" else 3)

    @property
    def device(self) -> torch.device:
        """Where it runs; the CPU for a method without parameters."""
        if self.execution.device is not None:
            return self.execution.device
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def tile(self) -> int | None:
        """Side of the tiles that `in_tiles` works in, in pixels; None for the whole image."""
        return self.execution.tile

    @tile.setter
    def tile(self, side: int | None) -> None:
        self.execution.tile = side

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters; float32 for a method without any."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def forward(self, lq: Tensor) -> Tensor:
        """The networks, (B, C, H, W) -> (B, 3, s H, s W)."""
        raise NotImplementedError

    def as_claimed(self, lq: Tensor) -> Tensor:
        """What the report's figures count, where that is not all of `forward`."""
        return self(lq)

    @classmethod
    def require(cls) -> None:
        """Raise UserError (exit code 3) for what this machine lacks apart from weights; called before anything is built."""

    def deploy(self) -> None:
        """Fold or drop what is only there for training; called once, when the weights are filled."""

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a file of the whole method, without the prefix that its published files have."""
        state = read_state_dict(path)
        for prefix in {weights.prefix for weights in self.weights if weights.prefix}:
            if any(name.startswith(prefix) for name in state):
                return read_state_dict(path, prefix)
        return state

    def read(self, path: Path) -> Frame:
        """Decode `path` on the CPU; may run ahead of `enhance` in another thread.

        Raises UnreadableImage for a file that cannot be read.
        """
        return read_raw(path) if self.track == "raw" else read_integers(path)

    @torch.no_grad()
    def enhance(self, frame: Frame) -> Tensor:
        """A raw frame, or an image (3, H, W) in [0, 1], to the restored image: RGB, float32, [0, 1], (3, s H, s W), on the
        method's device.
        """
        return _enhanced(self, frame, clipped)

    def restore(self, path: Path) -> Tensor:
        """The restored image of the picture or raw frame in `path`: RGB, float32, [0, 1], (3, s H, s W).

        Raises UnreadableImage for a file that cannot be read.
        """
        return self.enhance(as_floats(self.read(path)))

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Run `forward` over (C, H, W) in tiles of `self.tile`; returns float32 (3, s H, s W)."""
        return self.execution.through(self, lq, Tensor.float)


class Finish(Protocol):
    """What is done to each value of a result, such as rounding; with a matrix, it is in a camera's colours."""

    def __call__(self, image: Tensor, ccm: Matrix | None = None) -> Tensor:
        """A piece (3, h, w) of any floats to one of that size."""


def enhanced(method: Method, frame: Frame, finish: Finish) -> Tensor:
    """What `Method.enhance` makes of what `read` gave, with `finish`, which clips, applied to each value: piece by piece, with
    no whole image of floats, where the method does not do it its own way.
    """
    if type(method).enhance is not Method.enhance:
        return finish(floats_of("enhance", method.enhance(as_floats(frame))))
    return _enhanced(method, frame, finish)


def _enhanced(method: Method, frame: Frame, finish: Finish) -> Tensor:
    frame = frame.to(method.device)
    if isinstance(frame, RawFrame):
        packed = method.lq_channels() == 1
        mosaic, (top, left) = balanced_rggb(frame, method.dtype if packed else torch.float32)
        lq = mosaic if packed else srgb_encode(demosaic(mosaic))
        return _through(method, lq, partial(finish, ccm=frame.ccm))[:, method.scale * top :, method.scale * left :]
    return _through(method, frame, finish)


def _through(method: Method, lq: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
    if type(method).in_tiles is not Method.in_tiles:
        return finish(method.in_tiles(as_image(lq)))
    return method.execution.through(method, lq, finish)


def as_floats(frame: Frame) -> Frame:
    """What `Method.enhance` takes of what `Method.read` gave."""
    return frame if isinstance(frame, RawFrame) else as_image(frame)
