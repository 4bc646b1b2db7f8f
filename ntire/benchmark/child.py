"""The child of `ntire bench`: one method in a process of its own, which restores what it is handed, path by path.

Requests and answers are JSON, one a line. The parent holds the clock; what is measured here is compared with it. In a sandbox
pixels follow their answer as bytes, so that the parent sees what was made, and `ntire cost` is answered, too.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import new_class
from typing import Any

import torch
from torch import Tensor

from ntire import UserError, __version__
from ntire.benchmark.throughput import measured
from ntire.environment import choose_device, environment
from ntire.files import sha256_of
from ntire.method import Method, catalogue
from ntire.method.settings import configured, set_attributes
from ntire.picture.image import Pixels
from ntire.runner.device_worker import Device, RandomTurns, peak_on, restore_one
from ntire.runner.prepare import Options, prepare
from ntire.sandbox.confinement import confinement
from ntire.sandbox.limits import Limits, apply_rlimits


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
        if catalogue.is_folder(self.team):
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
        if self.options.fixed_shapes:
            self.method.execution.around = self._around
        else:
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
            "device_ms": None if result.seconds is None else 1e3 * result.seconds,
            # Of the input, as claims and budgets state sizes.
            "height": height // self.method.scale,
            "width": width // self.method.scale,
        }

    def throughput(self, paths: list[str], count: int, folder: str) -> dict[str, Any]:
        """A run over pictures, as `ntire run` makes it; see `ntire.benchmark.throughput`."""
        return asdict(measured(self.prepared, self.device, [Path(path) for path in paths], count, Path(folder)))

    def peaks(self) -> dict[str, float | None]:
        """Peak MB (2^20 bytes) since the last call, and begin again."""
        device = None
        if self.on_gpu:
            # Each image begins by resetting the peak.
            device = max(self.peak_mb, peak_on(self.method) / 2**20)
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
    return sha256_of(head + pixel_bytes(pixels))


def pixel_bytes(pixels: Pixels) -> bytes:
    """A picture's values, row by row, the low byte first."""
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def _resident_peak_mb() -> float:
    """The most memory this process held since the last call, where the system can forget the peak; else so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def main() -> None:
    """Answer requests from standard input until it ends. In a sandbox the first one is `begin`."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What a method reads is no request, and what it prints no answer.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def answer(what: dict[str, Any], data: bytes = b"") -> None:
        answers.write(json.dumps(what | ({"bytes": len(data)} if data else {})).encode() + b"\n" + data)
        answers.flush()

    first = json.loads(requests.readline())
    if first.get("op") == "begin":
        answer(_begin(first))
        first = json.loads(requests.readline())
    try:
        if first.get("op") == "cost":
            answer({}, json.dumps(_cost(first)).encode())
            return
        timed = Timed(Setup(**first))
        answer({"facts": timed.facts(), "scale": timed.method.scale, **timed.peaks()})
        for line in requests:
            request = json.loads(line)
            if request["do"] == "restore":
                times = timed.restore(Path(request["path"]), request["fingerprint"])
                answer(times, pixel_bytes(timed.pixels) if request.get("pixels") and timed.pixels is not None else b"")
            elif request["do"] == "throughput":
                answer(timed.throughput(request["paths"], request["count"], request["folder"]))
            elif request["do"] == "hash" and timed.pixels is not None:
                answer({"sha256": pixels_sha256(timed.pixels)})
            else:
                answer(timed.peaks())
    except UserError as error:
        answer({"error": str(error), "exit_code": error.exit_code})


def _begin(request: dict[str, Any]) -> dict[str, Any]:
    """Bind this process for good, and tell how it is held."""
    limits = Limits(**request["limits"])
    apply_rlimits(limits, gpu=request["device"] != "cpu", alone=request["sandboxed"])
    found = {"status": "ready", "ntire": __version__, **confinement()}
    if request["device"] != "cpu":
        try:
            found["device"] = environment(choose_device(request["device"]))["device"]
        except UserError as error:
            return {"status": "no device", "problem": str(error)}
    return found


def _cost(request: dict[str, Any]) -> dict[str, Any]:
    from ntire.benchmark.cost import cost_in_full

    sizes = {name: tuple(request[name]) if request[name] else None for name in ("at", "macs_at", "memory_at")}
    method = _with_settings(catalogue.load(Path(request["code"])), request["settings"])
    found = cost_in_full(method, **sizes, tile=request["tile"])
    return found | {"validation": None}


def _with_settings(method: type[Method], settings: dict[str, str]) -> type[Method]:
    """The method as it is with settings of its own, which may be what decides how much it computes."""
    if not settings:
        return method
    built = configured(method, settings)

    def build(self: Method) -> None:
        built.__init__(self)
        set_attributes(self, settings)

    body = {"__init__": build, "__module__": method.__module__, "__qualname__": f"{method.__qualname__} {settings}"}
    made: type[Method] = new_class(method.__name__, (built,), {"abstract": True}, lambda space: space.update(body))
    return made


if __name__ == "__main__":
    main()
