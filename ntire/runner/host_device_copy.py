"""The way to a device and back: pixels go as integers, on CUDA from pinned memory and on streams of their own.

    pinned integers --upload stream--> device --compute stream--> device --download stream--> pinned integers

So the next picture arrives and the last one leaves while this one is computed, and the thread that gives the orders waits for
none of them. On the host there is no way to go.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ntire.method import Frame
from ntire.picture.raw import RawFrame
from ntire.runner.pinned_ring import PinnedRing

UP, DOWN = PinnedRing(128 << 20), PinnedRing(192 << 20)
"""Pinned memory for pictures on their way to devices and back, of all runs in this process: three of 12 megapixels that wait
for a device, five that are on their way to a file. What finds no room goes through other memory, and its copy is waited for."""

Mark = float | torch.cuda.Event
"""A moment on the clock of the host, or of a device."""


class Arriving:
    """Tensors on their way to the host."""

    def __init__(self, tensors: tuple[Tensor, ...], began: Mark, ended: Mark, arrived: torch.cuda.Event | None) -> None:
        self._tensors = tensors
        self._began, self._ended, self._arrived = began, ended, arrived
        self._error: Exception | None = None

    def wait(self) -> None:
        """Wait until they are there. An error of the device shows here; `tensors` raises it."""
        try:
            if self._arrived is not None:
                self._arrived.synchronize()
        except RuntimeError as error:
            self._error = error

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors on the host; raises RuntimeError if the device failed before they were there."""
        if self._error is not None:
            raise self._error
        return self._tensors

    def seconds(self) -> float:
        """What the device took to compute them."""
        if isinstance(self._began, torch.cuda.Event) and isinstance(self._ended, torch.cuda.Event):
            return self._began.elapsed_time(self._ended) / 1e3
        assert isinstance(self._began, float)
        assert isinstance(self._ended, float)
        return self._ended - self._began


class HostLane:
    """Computes where the pixels are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def enter(self) -> None:
        """Called once in the thread that computes."""

    def upload(self, frame: Frame) -> Frame:
        return frame

    def mark(self) -> Mark:
        return time.perf_counter()

    def download(self, tensors: tuple[Tensor, ...], began: Mark) -> Arriving:
        return Arriving(tensors, began, self.mark(), None)


class CudaLane(HostLane):
    """Copies and computes at the same time."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copying: list[tuple[torch.cuda.Event, tuple[Tensor, ...]]] = []
        """What is read or written by copies that may still be under way: its memory must not be given to another picture."""

    def enter(self) -> None:
        torch.cuda.set_device(self.device)

    def upload(self, frame: Frame) -> Frame:
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            moved = on(frame, lambda tensor: tensor.to(self.device, non_blocking=True))
        computing.wait_stream(self._up)
        self._keep((frame.samples if isinstance(frame, RawFrame) else frame,), self._up)
        # Its memory must not be given to another upload before it is computed with.
        (moved.samples if isinstance(moved, RawFrame) else moved).record_stream(computing)
        return moved

    def mark(self) -> Mark:
        moment = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        moment.record(torch.cuda.current_stream(self.device))
        return moment

    def download(self, tensors: tuple[Tensor, ...], began: Mark) -> Arriving:
        ended = self.mark()
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        hosts = []
        with torch.cuda.stream(self._down):
            for tensor in tensors:
                host = _landing_for(tensor)
                host.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._down)
                hosts.append(host)
        return Arriving(tuple(hosts), began, ended, self._keep(tuple(hosts), self._down))

    def _keep(self, tensors: tuple[Tensor, ...], stream: torch.cuda.Stream) -> torch.cuda.Event:
        """Hold memory of the host until a stream has done what it was told so far; returns that moment."""
        self._copying = [one for one in self._copying if not one[0].query()]  # type: ignore[no-untyped-call]
        # Whoever waits sleeps: readers and writers of files need the cores.
        moment = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        moment.record(stream)
        self._copying.append((moment, tensors))
        return moment


def lane_to(device: torch.device) -> HostLane:
    """The way to that device."""
    return {"cuda": CudaLane}.get(device.type, HostLane)(device)


def pinned(frame: Frame, kind: str) -> Frame:
    """A frame in memory from which a device of that kind can copy by itself.

    Where there is no room for it, the frame as it is: its copy waits, which costs time alone.
    """
    return on(frame, _pinned) if kind == "cuda" else frame


def _pinned(tensor: Tensor) -> Tensor:
    room = UP.take(tensor)
    return tensor if room is None else room.copy_(tensor)


def _landing_for(tensor: Tensor) -> Tensor:
    """Memory on the host for a tensor to arrive in, pinned if there is any."""
    room = DOWN.take(tensor)
    return torch.empty_like(tensor, device="cpu") if room is None else room


def on(frame: Frame, move: Callable[[Tensor], Tensor]) -> Frame:
    """A frame whose pixels have been moved."""
    return replace(frame, samples=move(frame.samples)) if isinstance(frame, RawFrame) else move(frame)
