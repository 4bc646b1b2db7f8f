"""The contract: a method is a class that declares its facts, holds its networks, and restores a picture from a path."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from ntire.method.facts import Cost as Cost
from ntire.method.facts import Unpublished as Unpublished
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.image import Rounding, as_image, read_integers
from ntire.picture.raw import RawFrame, balanced_rggb, correct_colours, demosaic, read_raw, srgb_encode
from ntire.picture.tiling import tiled

if TYPE_CHECKING:
    from ntire.method.recipe import OwnLoss
    from ntire.training import Recipe
    from ntire.training.losses import Opponent

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Frame = Tensor | RawFrame
"""What `Method.read` returns: a picture (3, H, W), as integers from a file (uint8, uint16) or as an image (float32, [0, 1]);
or a raw frame on the raw track."""


class Method(nn.Module):
    """A team's method: a subclass in `teams/<track>/<team>.py`, or in a submission's `method/method.py`.

    `forward(lq)` is the networks and nothing else, (B, C, H, W) -> (B, 3, H, W): C is 3, values [0, 1]; on the raw
    track C is 1, a white-balanced linear RGGB mosaic in [0, 1], and the result is sRGB-encoded camera RGB at the size
    of the mosaic. `restore(path)` is the contract that everything else builds on.
    """

    team: ClassVar[str]
    """As the report spells it."""
    track: ClassVar[str]
    """The folder below `teams/`: raw, srgb, face or general."""
    variant: ClassVar[str] = ""
    """Tells several methods of one team and track apart, such as "phase3"."""
    cite: ClassVar[str]
    """A key of `teams/references.bib`."""
    code: ClassVar[str | None] = None
    """Address of the authors' program, if there is one."""
    claimed: ClassVar[Cost | None] = None
    weights: ClassVar[tuple[Weights, ...]] = ()
    tiling: ClassVar[Literal["exact", "method", "global"]]
    """`exact`: local, any tiling gives the same pixels; `method`: tiles are part of the method, which does them itself;
    `global`: an output pixel depends on the whole image, tiles are an approximation."""
    halo: ClassVar[int]
    """Pixels of input around an output pixel that can change it (for `global`: the overlap of tiles)."""
    stride: ClassVar[int]
    """Origins and sizes of tiles sit on this grid."""
    channels: ClassVar[int | None] = None
    """What `forward` takes, if not the track's usual: 3 on the raw track for a network on the plainly rendered frame."""
    bf16_psnr_db: ClassVar[float] = 45.0
    """How near to float32 bfloat16 stays at least; less where a method multiplies rounding, as one-step diffusion does."""
    caveats: ClassVar[tuple[str, ...]] = ()
    recipe: ClassVar["Recipe | None"] = None
    """How `ntire train` trains it; None for methods that cannot be trained here."""
    settable: ClassVar[Mapping[str, str]] = {}
    """Attributes that a user may set to words of theirs (`ntire run --set NAME=VALUE`), with what each is for."""
    tiny: ClassVar[dict[str, int]] = {}
    """Constructor arguments of a copy small enough for tests."""

    tile: int | None = None
    """Side of the tiles that `restore` works in, in pixels; None for the whole image. Smaller after memory ran out."""
    batch: int = 1
    """How many tiles of one size go through the networks together."""
    same_size: bool = False
    """Whether all tiles read equally large areas, as batches, compilers and CUDA graphs want it."""
    memory_format: torch.memory_format = torch.contiguous_format
    """How what enters the networks lies in memory."""
    network: Callable[[Tensor], Tensor] | None = None
    """Runs instead of calling the method, as a recorded CUDA graph does."""
    weights_notes: Mapping[str, str] = {}
    """What was chosen in each weights file that offered a choice, by file name."""
    runs_on: torch.device | None = None
    """Where its parts are moved to when they are called, if they take turns there; else where its parameters are."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        super().__init_subclass__()
        if abstract:
            return
        needed = ("team", "track", "cite", "tiling", "halo", "stride")
        missing = [name for name in needed if not hasattr(cls, name)]
        if missing:
            raise TypeError(f"{cls.__module__}.{cls.__qualname__} does not declare {', '.join(missing)}")
        if cls.tiling not in ("exact", "method", "global"):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}: tiling is exact, method or global, not {cls.tiling!r}"
            )
        if cls.halo < 0 or cls.stride < 1:
            raise TypeError(f"{cls.__module__}.{cls.__qualname__}: expected halo >= 0 and stride >= 1")

    @classmethod
    def lq_channels(cls) -> int:
        """Channels that `forward` takes."""
        return cls.channels or (1 if cls.track == "raw" else 3)

    @property
    def device(self) -> torch.device:
        """Where it runs; the CPU for a method without parameters."""
        if self.runs_on is not None:
            return self.runs_on
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters; float32 for a method without any."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def forward(self, lq: Tensor) -> Tensor:
        """The networks, (B, C, H, W) -> (B, 3, H, W)."""
        raise NotImplementedError

    def as_claimed(self, lq: Tensor) -> Tensor:
        """What the report's figures count, where that is not all of `forward`."""
        return self(lq)

    @classmethod
    def require(cls) -> None:
        """Raise UserError (exit code 3) for what this machine lacks apart from weights; called before anything is built."""

    def deploy(self) -> None:
        """Fold or drop what is only there for training; called once, when the weights are filled."""

    def begin_stage(self, name: str) -> None:
        """Called before the first batch of each stage of the recipe, for methods that train one part after the other."""

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        """Called before each batch of training, for methods that learn more from it than lq -> gt.

        `rng` follows from the run's seed and the iteration alone: what is drawn from it is drawn again after a stop.
        """

    def memory(self) -> dict[str, Tensor]:
        """What training must know beside the weights to go on after a stop."""
        return {}

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take back what `memory` gave before the stop."""

    def begin_from(self, weights: Path) -> None:
        """Fill the networks before training, from a file of the method's own; methods built on others' networks may take those.

        Raises UserError for weights that do not fit.
        """
        fill(self, self.read_weights(weights), weights)

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a file of the whole method, without the prefix that its published files have."""
        state = read_state_dict(path)
        for prefix in {weights.prefix for weights in self.weights if weights.prefix}:
            if any(name.startswith(prefix) for name in state):
                return read_state_dict(path, prefix)
        return state

    def own_loss(self, name: "OwnLoss") -> Tensor:
        """A loss of the method's own, for the last batch that went through `forward` in training."""
        raise NotImplementedError

    def opponent(self) -> "Opponent":
        """What the loss `vsd` trains against this method."""
        raise NotImplementedError

    def read(self, path: Path) -> Frame:
        """Decode `path` on the CPU; may run ahead of `enhance` in another thread.

        Raises UnreadableImage for a file that cannot be read.
        """
        return read_raw(path) if self.track == "raw" else read_integers(path)

    @torch.no_grad()
    def enhance(self, frame: Frame) -> Tensor:
        """A raw frame, or an image (3, H, W) in [0, 1], to the restored image: RGB, float32, [0, 1], (3, H, W), on the method's
        device.
        """
        return self._enhanced(frame, lambda restored: restored.clamp(0, 1))

    @torch.no_grad()
    def enhance_to_integers(self, frame: Frame, rounding: Rounding) -> Tensor:
        """What `enhance` makes of what `read` gave, rounded on the method's device; piece by piece, with no whole image of
        floats, where a method does not do it its own way.
        """
        if type(self).enhance is not Method.enhance:
            return rounding(self.enhance(as_floats(frame)))
        return self._enhanced(frame, rounding)

    def restore(self, path: Path) -> Tensor:
        """The restored image of the picture or raw frame in `path`: RGB, float32, [0, 1], (3, H, W).

        Raises UnreadableImage for a file that cannot be read.
        """
        return self.enhance(as_floats(self.read(path)))

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Run `forward` over (C, H, W) in tiles of `self.tile`; returns float32 (3, H, W)."""
        return self._tiled(lq, Tensor.float)

    def _enhanced(self, frame: Frame, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """The restored image with `finish`, which clips, applied to each value."""
        frame = frame.to(self.device)
        if isinstance(frame, RawFrame):
            ccm = frame.ccm
            mosaic, (top, left) = balanced_rggb(frame)
            lq = mosaic if self.lq_channels() == 1 else srgb_encode(demosaic(mosaic))
            return self._through(lq, lambda camera: finish(correct_colours(camera, ccm)))[:, top:, left:]
        return self._through(frame, finish)

    def _through(self, lq: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        if type(self).in_tiles is not Method.in_tiles:
            return finish(self.in_tiles(as_image(lq)))
        return self._tiled(lq, finish)

    def _tiled(self, lq: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        network = self.network or self
        return tiled(
            lambda pieces: network(self._entering(pieces)).float(),
            lq.to(self.device),
            tile=None if self.tiling == "method" else self.tile,
            halo=self.halo,
            stride=self.stride,
            blend=self.tiling == "global",
            batch=self.batch,
            same_size=self.same_size,
            finish=finish,
            shrunk=self._shrink,
        )

    def _entering(self, pieces: Tensor) -> Tensor:
        """Pieces as the networks take them; always laid out alike, as compilers see another layout as another input."""
        return as_image(pieces).to(self.dtype).contiguous(memory_format=self.memory_format)

    def _shrink(self, side: int) -> None:
        self.tile = side


def as_floats(frame: Frame) -> Frame:
    """What `Method.enhance` takes of what `Method.read` gave."""
    return frame if isinstance(frame, RawFrame) else as_image(frame)
