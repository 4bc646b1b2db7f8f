"""Ways to run a network faster that may change its pixels in the last bits, and what they change, measured."""

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntire import UserError
from ntire.method import Method
from ntire.picture.image import psnr_of
from ntire.picture.tiling import out_of_memory
from ntire.runner.backends import export
from ntire.runner.prepare import Options, prepare

RECORDED = 4
"""Sizes of input for which a CUDA graph is kept. Further sizes run as without graphs."""
COMPILED = 8
"""Sizes of input that a network is compiled for: PyTorch's own limit, beyond which it stops compiling without a word."""

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Effect:
    """What speed cost on one picture, against the same method in fp32, eager and contiguous."""

    of: tuple[str, ...]
    """What was asked for: a precision, channels-last, compile, cuda-graphs, a backend."""
    image: str
    psnr_db: float | None
    """To the exact result, before rounding to levels; None if they are equal."""
    changed: float
    """Share of the 8-bit values that differ."""
    largest_levels: float
    """The largest difference in 8-bit levels, before rounding."""

    def __str__(self) -> str:
        distance = "equal" if self.psnr_db is None else f"{self.psnr_db:.1f} dB PSNR"
        return (
            f"{', '.join(self.of)}: {distance} to fp32 eager on {self.image}; {self.changed:.3%} of 8-bit values changed, "
            f"largest difference {self.largest_levels:.3g} levels"
        )


def speed_up(method: Method, options: Options) -> None:
    """Make a prepared method run as the options say.

    Raises UserError for CUDA graphs on a device without CUDA, and for a backend that is not here or cannot have the network.
    """
    if options.channels_last:
        method.to(memory_format=torch.channels_last)
        method.execution.memory_format = torch.channels_last
    if options.backend != "torch":
        others = [option for word, option in options.inexact_options.items() if word != options.backend]
        if others:
            raise UserError(f"--backend {options.backend} has ways of its own: leave out {', '.join(others)}.")
        method.execution.network = export(method, options.backend)
        # A graph has its own layout inside.
        method.execution.memory_format = torch.contiguous_format
    if options.compiled:
        method.execution.network = Compiled(method)
    if options.cuda_graphs:
        if method.device.type != "cuda":
            raise UserError(f"--cuda-graphs: expected a CUDA device, found {method.device}. Leave it out there.")
        method.execution.network = Graphed(method.execution.network or method)


def told(network: Network | None) -> tuple[str, ...]:
    """What a network that was sped up has done without since it was last asked, for the journal."""
    return network.told() if isinstance(network, (Compiled, Graphed)) else ()


def measure(method: Method, options: Options, restored_by: Callable[[Method], Tensor], image: str) -> Effect:
    """Restore one picture as it will be and exactly, and compare; `restored_by` seeds, and restores it with a method.

    Under a limit on memory the exact one keeps to it, too, and has the device for itself meanwhile. Raises UserError where it
    does not go under that limit.
    """
    with method.execution.making_room():
        expected = _exactly(method, options, restored_by)
        # The weights of the exact method are in a circle with the hooks that move them.
        gc.collect()
        if expected.is_cuda:
            torch.cuda.empty_cache()
    return compare(restored_by(method), expected, options.inexact, image)


def _exactly(method: Method, options: Options, restored_by: Callable[[Method], Tensor]) -> Tensor:
    exact = prepare(
        type(method),
        Options(
            device=str(method.device),
            weights=options.weights,
            settings=options.settings,
            max_memory_gb=options.max_memory_gb,
        ),
    ).method
    exact.tile = method.tile
    return restored_by(exact)


def compare(found: Tensor, expected: Tensor, of: tuple[str, ...], image: str) -> Effect:
    """The effect that makes `found` of `expected`, images (3, H, W)."""
    difference = (found.double() - expected.double()).abs()
    error = float(difference.square().mean())
    levels = [(one.clamp(0, 1) * 255).round() for one in (found, expected)]
    return Effect(
        of,
        image,
        psnr_of(error) if error else None,
        float((levels[0] != levels[1]).double().mean()),
        255 * float(difference.max()),
    )


class Compiled:
    """A network compiled for each size of input; says when it runs as it is because there are too many or one cannot be."""

    def __init__(self, network: Method) -> None:
        self._network = network
        self._compiled: Network = torch.compile(network, dynamic=False)
        self._sizes: set[torch.Size] = set()
        self._refused: dict[torch.Size, str] = {}
        self._news: list[str] = []

    def __call__(self, lq: Tensor) -> Tensor:
        size = lq.shape
        if size not in self._sizes and size not in self._refused:
            if len(self._sizes) < COMPILED:
                return self._first(lq)
            self._refused[size] = f"{COMPILED} other sizes are"
        if size in self._refused:
            self._news.append(f"not compiled for {size[2]} x {size[3]}, as {self._refused[size]}")
            return self._network(lq)
        return self._compiled(lq)

    def _first(self, lq: Tensor) -> Tensor:
        """The first call of a size, which compiles: what cannot be compiled is a reason, what fails in itself fails again."""
        try:
            restored = self._compiled(lq)
            self._sizes.add(lq.shape)
            return restored
        except Exception as error:
            if out_of_memory(error) or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = " ".join(str(error).split("\n")[:2]).strip()
        self._refused[lq.shape] = f"the compiler failed ({reason})"
        return self(lq)

    def told(self) -> tuple[str, ...]:
        """What was not compiled since the last question."""
        news, self._news = tuple(dict.fromkeys(self._news)), []
        return news


class Graphed:
    """A network recorded once for each size of input and replayed from then on: one launch instead of one a kernel.

    All recordings take their memory from one pool, as none is replayed while another is, and what a replay gives is copied.
    """

    _recording = threading.Lock()
    """CUDA forbids a process to record twice at once, on whatever devices."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._pool: Any = None
        self._news: list[str] = []
        self.bytes = 0
        """What a recording needed at its peak, at most; replays allocate nothing that PyTorch would count."""

    def __call__(self, lq: Tensor) -> Tensor:
        if lq.shape not in self._recorded:
            if len(self._recorded) == RECORDED:
                self._news.append(
                    f"no CUDA graph for {lq.shape[2]} x {lq.shape[3]}, as {RECORDED} other sizes have one"
                )
                return self._network(lq)
            with self._recording, torch.cuda.device(lq.device):
                self._recorded[lq.shape] = self._record(lq)
        graph, given, result = self._recorded[lq.shape]
        given.copy_(lq)
        graph.replay()
        return result.clone()

    def told(self) -> tuple[str, ...]:
        """What ran without a graph since the last question, and what the network itself did without."""
        news, self._news = tuple(dict.fromkeys(self._news)), []
        return (*told(self._network), *news)

    def _record(self, lq: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = lq.clone()
        # PyTorch's own stream for recordings is of the device that recorded first.
        aside = torch.cuda.Stream(lq.device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(lq.device)
        before = torch.cuda.memory_allocated(lq.device)
        torch.cuda.reset_peak_memory_stats(lq.device)
        aside.wait_stream(computing)
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries allocate and choose kernels in their first calls, which cannot be recorded
                self._network(given)
        self.bytes = max(self.bytes, torch.cuda.max_memory_allocated(lq.device) - before)
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory and wait for events meanwhile, which must not spoil the recording.
        with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
            result = self._network(given)
        computing.wait_stream(aside)
        self._pool = graph.pool()
        return graph, given, result
