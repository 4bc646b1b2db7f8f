"""The memory plan: how large a piece of a picture a network can take, known before it runs.

What lives at once while a network runs, and how large the largest tensor is, hold for every device. So tiles are as large as
the memory allows, and running out of it is a surprise that `ntire.picture.tiling` survives, not the way to find out.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ntire import UserError
from ntire.environment import memory_to_use
from ntire.method import DTYPES, Frame, Method
from ntire.method.catalogue import folder_of
from ntire.method.footprint import LARGE, SMALL, Footprint, footprint
from ntire.method.weights_files import locate
from ntire.picture.image import read_header
from ntire.picture.raw import RawFrame
from ntire.runner.prepare import Options
from ntire.sandbox.scratch import Terminated

CACHE_TILE, CACHE_HALO, CACHE_BYTES = 512, 64, 512
"""On a CPU, tiles of this side take 0.6 to 0.9 of the time of the whole image, as activations stay in the cache: measured for
networks up to this halo and these bytes per pixel; beyond, the overlap costs more than the cache gives, or nothing fits."""
WORKSPACE = 1.25
"""Memory that convolutions take beyond the activations that are counted."""
LARGEST_TENSOR = 2**31 - 1
"""Elements; kernels count them in 32 bits."""
LARGEST_BATCH = 16


@dataclass(frozen=True)
class Plan:
    """How one picture goes through a network."""

    tile: int | None
    """Side of the tiles; None for the whole image."""
    batch: int = 1
    same_size: bool = False
    notes: tuple[str, ...] = ()
    """What the user should know about it."""


class Planner:
    """Plans one method on one device; remembers what turned out not to fit.

    Sizes are those of what goes in, as tiles are cut there; what comes out may be larger, and its picture lies there meanwhile.
    """

    def __init__(self, method: Method, options: Options, budget: int | None = None) -> None:
        """`budget` is the memory for activations in bytes, by default what is free now: later, what is free is partly held by
        PyTorch for the next picture.
        """
        self.method = method
        self.options = options
        self._memory = memory_to_use(str(method.device)) if budget is None else budget
        self.budget = self._memory
        """What is left of it beside the picture that is put together."""
        self._ceiling: int | None = None

    def plan(self, frame: Frame | None) -> Plan:
        """The plan for what `Method.read` gave; None for a method that reads for itself.

        With `--tile auto`, the whole image where it fits; otherwise the largest tiles that do. On a CPU a local network
        takes tiles of CACHE_TILE, which give the same pixels sooner.
        """
        method = self.method
        if frame is None or type(method).enhance is not Method.enhance or method.tiling == "method":
            return Plan(None if self.options.tile == "auto" else self.options.tile)
        height, width = (size + -size % method.stride for size in _size_of(frame))
        self.budget = max(self._memory - self._result_bytes(height, width), self._memory // 4)
        try:
            tile = self._tile(height, width)
            batch = 1 if tile is None or method.device.type == "cpu" else self._batch(tile)
            notes: tuple[str, ...] = ()
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code may do anything with a tensor that has no values
            reason = (str(error) or type(error).__name__).splitlines()[0]
            tile, batch, notes = 1024, 1, (f"its memory cannot be planned ({reason}): tiles of 1024",)
        if self._ceiling is not None:
            tile = min(tile or self._ceiling, self._ceiling)
        if tile is None or max(height, width) <= tile:
            return Plan(None, notes=notes)
        if method.tiling == "global":
            return Plan(
                tile, notes=(*notes, f"tiles of {tile} change the result slightly, as this network sees all of it")
            )
        return Plan(tile, batch, same_size=batch > 1 or self.options.fixed_shapes, notes=notes)

    def set_up(self, frame: Frame | None) -> Plan:
        """Make the method restore this picture as planned."""
        planned = self.plan(frame)
        execution = self.method.execution
        execution.tile, execution.batch, execution.same_size = planned.tile, planned.batch, planned.same_size
        return planned

    def learn(self, planned: Plan, tile: int | None) -> tuple[str, ...]:
        """Take note of the tile that a picture was restored with in the end; says so if that was not the plan."""
        if tile is None or tile == planned.tile:
            return ()
        self._ceiling = tile
        exact = "" if self.method.tiling == "exact" else ", which change the result slightly"
        return (f"memory ran out with {_called(planned.tile)}: went on with tiles of {tile}{exact}",)

    def _tile(self, height: int, width: int) -> int | None:
        method, asked = self.method, self.options.tile
        if asked != "auto":
            return asked
        if height * width <= SMALL**2:
            return None  # no tile that is worth its overlap is smaller
        on_cpu = method.tiling == "exact" and method.device.type == "cpu"
        light = self._footprint(SMALL, SMALL).bytes <= CACHE_BYTES * SMALL**2
        cache_sized = on_cpu and light and method.halo <= CACHE_HALO
        largest = CACHE_TILE if cache_sized else max(height, width)
        if largest >= max(height, width) and self._fits(height, width):
            return None
        side = largest
        while side > 8 * method.stride and not self._fits(*(min(side + 2 * method.halo, n) for n in (height, width))):
            side = min(int(side * 0.9), self._side_that_fits())
        return max(side // method.stride * method.stride, 8 * method.stride)

    def _result_bytes(self, height: int, width: int) -> int:
        """Of an enlarged picture; one of the input's size is within WORKSPACE."""
        if self.method.scale == 1:
            return 0
        each = 4 if self.method.tiling == "global" else self.options.bits // 8
        return 3 * each * self.method.scale**2 * height * width

    def _side_that_fits(self) -> int:
        """The side of the largest tile by what a small piece needs for each pixel."""
        small = self._footprint(SMALL, SMALL)
        share = min(self.budget / (WORKSPACE * small.bytes), LARGEST_TENSOR / small.elements)
        return int(SMALL * share**0.5) - 2 * self.method.halo

    def _fits(self, height: int, width: int) -> bool:
        small = self._footprint(SMALL, SMALL)
        times = height * width / SMALL**2
        if WORKSPACE * small.bytes * times > self.budget or small.elements * times > LARGEST_TENSOR:
            return False
        if height * width <= 4 * SMALL**2 or self._proportional():
            return True
        exactly = self._footprint(height, width)
        return WORKSPACE * exactly.bytes <= self.budget and exactly.elements <= LARGEST_TENSOR

    def _proportional(self) -> bool:
        small, large = self._footprint(SMALL, SMALL), self._footprint(LARGE, LARGE)
        times = (LARGE / SMALL) ** 2
        return large.bytes <= 1.01 * times * small.bytes and large.elements <= 1.01 * times * small.elements

    def _batch(self, tile: int) -> int:
        one = self._footprint(tile + 2 * self.method.halo, tile + 2 * self.method.halo)
        return max(min(int(self.budget / (WORKSPACE * one.bytes)), LARGEST_TENSOR // one.elements, LARGEST_BATCH), 1)

    def _footprint(self, height: int, width: int) -> Footprint:
        stride = self.method.stride
        padded = (size + -size % stride for size in (height, width))
        return footprint(type(self.method), self.method.dtype, *padded)  # type: ignore[arg-type]  # mypy: a Module's hash


def memory_need(method: type[Method], options: Options, paths: Sequence[Path]) -> int:
    """Bytes that a device should have for a method: its weights, and what its network takes for a piece of SMALL; for the
    largest of these pictures where tiles would change the result.
    """
    folder = folder_of(method)
    files = [options.weights] if options.weights else [locate(one, folder)[0] for one in method.weights]
    weights = sum(file.stat().st_size for file in files if file.is_file())
    if options.max_memory_gb is not None:
        weights = min(weights, int(options.max_memory_gb * 1e9))
    sizes = [(SMALL, SMALL)]
    if method.tiling == "global" and options.tile == "auto" and method.track != "raw":
        for path in paths:
            with contextlib.suppress(UserError):
                header = read_header(path)
                sizes.append((header.height, header.width))
    height, width = (size + -size % method.stride for size in max(sizes, key=lambda size: size[0] * size[1]))
    try:
        needed = footprint(method, DTYPES[options.precision], height, width).bytes  # type: ignore[arg-type]  # mypy: a Module's hash
    except Terminated:
        raise
    except (Exception, SystemExit):  # noqa: BLE001 - as in `plan`
        needed = 0  # the plan of each picture says so
    return weights + int(WORKSPACE * needed)


def _size_of(frame: Frame) -> tuple[int, int]:
    height, width = (frame.samples if isinstance(frame, RawFrame) else frame).shape[-2:]
    return int(height), int(width)


def _called(tile: int | None) -> str:
    return "the whole image" if tile is None else f"tiles of {tile}"
