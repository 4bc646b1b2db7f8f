"""Ways to run a network faster that may change its pixels in the last bits, and what they change, measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntire import UserError
from ntire.method import Method
from ntire.picture.image import psnr_of
from ntire.runner.prepare import Options, prepare

RECORDED = 4
"""Sizes of input for which a CUDA graph is kept; each holds the memory of a run. Further sizes run as without graphs."""


@dataclass(frozen=True)
class Effect:
    """What speed cost on one picture, against the same method in fp32, eager and contiguous."""

    of: tuple[str, ...]
    """What was asked for: a precision, channels-last, compile, cuda-graphs."""
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

    Raises UserError for CUDA graphs on a device without CUDA.
    """
    if options.channels_last:
        method.to(memory_format=torch.channels_last)
        method.execution.memory_format = torch.channels_last
    if options.compiled:
        method.compile(dynamic=False)
    if options.cuda_graphs:
        if method.device.type != "cuda":
            raise UserError(f"--cuda-graphs: expected a CUDA device, found {method.device}. Leave it out there.")
        method.execution.network = Graphed(method)


def measure(method: Method, options: Options, restored_by: Callable[[Method], Tensor], image: str) -> Effect:
    """Restore one picture as it will be and exactly, and compare; `restored_by` seeds, and restores it with a method."""
    exact = prepare(
        type(method), Options(device=str(method.device), weights=options.weights, settings=options.settings)
    ).method
    exact.tile = method.tile
    expected = restored_by(exact)
    return compare(restored_by(method), expected, options.inexact, image)


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


class Graphed:
    """A network recorded once for each size of input and replayed from then on: one launch instead of one a kernel."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self._network = network
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, lq: Tensor) -> Tensor:
        if lq.shape not in self._recorded:
            if len(self._recorded) == RECORDED:
                return self._network(lq)
            self._recorded[lq.shape] = self._record(lq)
        graph, given, result = self._recorded[lq.shape]
        given.copy_(lq)
        graph.replay()
        return result.clone()

    def _record(self, lq: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = lq.clone()
        aside = torch.cuda.Stream(lq.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(lq.device))
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries allocate and choose kernels in their first calls, which cannot be recorded
                self._network(given)
        torch.cuda.current_stream(lq.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory and wait for events meanwhile, which must not spoil the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._network(given)
        return graph, given, result
