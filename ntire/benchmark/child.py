"""The child of `ntire bench`: one method in a process of its own, which restores what it is handed, path by path.

Requests and answers are JSON, one a line. The parent holds the clock; what is measured here is compared with it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntire import UserError
from ntire.environment import environment
from ntire.files import sha256_of
from ntire.method import Method, catalogue
from ntire.picture.image import Pixels
from ntire.runner.device_worker import Device, RandomTurns, restore_one
from ntire.runner.prepare import Options, prepare


@dataclass(frozen=True)
class Setup:
    """What a child is to be: a method and how it runs."""

    team: str
    """A name, or the path of a folder with a method.py."""
    track: str
    """The kind of input."""
    variant: str | None
    options: dict[str, Any]
    """Of `Options`; `weights` as text."""
    threads: int

    def method(self) -> type[Method]:
        """The class; see `ntire.method.catalogue`."""
        if "/" in self.team or (Path(self.team) / "method.py").is_file():
            return catalogue.load(Path(self.team))
        return catalogue.find(self.team, self.track, self.variant)

    def run_options(self) -> Options:
        weights = self.options.get("weights")
        return Options(**{**self.options, "weights": Path(weights) if weights else None})


class Timed:
    """A method that is ready, and a clock around its networks."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self.options = setup.run_options()
        self.prepared = prepare(setup.method(), self.options)
        self.method = self.prepared.method
        self.on_gpu = self.method.device.type == "cuda"
        self.forwards: list[Callable[[], float]] = []
        self.method.forward = self._around(self.method.forward)  # type: ignore[method-assign, assignment]
        self.device = Device(self.method, self.options, RandomTurns())
        self.pixels: Pixels | None = None
        self.peak_mb = 0.0
        self.synchronise()

    def restore(self, path: Path, fingerprint: str) -> dict[str, Any]:
        """Path to restored integers on the host; milliseconds of the whole and of the networks in it."""
        self.forwards.clear()
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        result, self.pixels = restore_one(self.device, path, fingerprint)
        self.synchronise()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        if self.pixels is None:
            raise UserError(f"{path}: {result.problem}", exit_code=3)
        if self.on_gpu:
            self.peak_mb = max(self.peak_mb, result.peak_memory_mb or 0.0)
        height, width = self.pixels.shape[:2]
        return {
            "wall_ms": wall / 1e6,
            "cpu_ms": cpu / 1e6,
            "forward_ms": sum(one() for one in self.forwards) if self.forwards else None,
            "height": height,
            "width": width,
        }

    def peaks(self) -> dict[str, float | None]:
        """Peak MB (2^20 bytes) since the last call, and begin again."""
        device = None
        if self.on_gpu:
            # Each image begins by resetting the peak.
            device = max(self.peak_mb, torch.cuda.max_memory_allocated(self.method.device) / 2**20)
            torch.cuda.reset_peak_memory_stats(self.method.device)
            self.peak_mb = 0.0
        return {"device_mb": device, "host_mb": _resident_peak_mb()}

    def facts(self) -> dict[str, Any]:
        """What the times depend on."""
        return {
            **environment(self.options.device),
            "precision": self.options.precision,
            "threads": torch.get_num_threads(),
            "tf32": {
                "convolutions": torch.backends.cudnn.allow_tf32,
                "products": torch.backends.cuda.matmul.allow_tf32,
            },
            "autocast": torch.is_autocast_enabled(self.method.device.type),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "weights": [one.sha256 for one in self.prepared.weights_used],
            "code": self.prepared.code_sha256,
        }

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.method.device)

    def _around(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """On a GPU by events, which wait for nothing; on a CPU by the clock."""

        def timed(lq: Tensor) -> Tensor:
            if lq.is_meta:  # its memory is being planned
                return forward(lq)
            if self.on_gpu:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                start.record()
                restored = forward(lq)
                end.record()
                self.forwards.append(lambda: float(start.elapsed_time(end)))
                return restored
            began = time.perf_counter_ns()
            restored = forward(lq)
            took = (time.perf_counter_ns() - began) / 1e6
            self.forwards.append(lambda: took)
            return restored

        return timed


def pixels_sha256(pixels: Pixels) -> str:
    """The sha256 of a picture's values, and of its size and depth: files may differ, pixels not."""
    head = f"{pixels.shape[0]} {pixels.shape[1]} {pixels.dtype}\n".encode()
    return sha256_of(head + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())


def _resident_peak_mb() -> float:
    """The most memory this process held since the last call, where the system can forget the peak; else so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def main() -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a method prints is not an answer

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")

    try:
        timed = Timed(Setup(**json.loads(sys.stdin.readline())))
        answer({"facts": timed.facts(), **timed.peaks()})
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "restore":
                answer(timed.restore(Path(request["path"]), request["fingerprint"]))
            elif request["do"] == "hash" and timed.pixels is not None:
                answer({"sha256": pixels_sha256(timed.pixels)})
            else:
                answer(timed.peaks())
    except UserError as error:
        answer({"error": str(error), "exit_code": error.exit_code})


if __name__ == "__main__":
    main()
