"""Networks alone on a GPU at their reports' sizes, beside the reports' figures and the roofline of this GPU.

    python benchmarks/gpu_forward.py --precision bf16

The roofline is the larger of two times: the multiply-adds at the rate of a large product of matrices, and the bytes at the
rate of a large copy, both measured here first. Bytes are counted on the meta device, once as if every operator read its
inputs and wrote its outputs (eager), once as if only convolutions, products and pools did (fused).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ntire import UserError
from ntire.benchmark import nvidia_smi as nvidia
from ntire.benchmark import traffic
from ntire.method import DTYPES, Method, catalogue
from ntire.method.count import count, lq_on_meta, on_meta
from ntire.picture.tiling import tiled
from ntire.runner.prepare import Options, prepare

WARM_CALLS, WARM_SECONDS, CALLS, SECONDS = 3, 2.0, 20, 5.0


@dataclass(frozen=True)
class Case:
    """A network and the size of a whole frame of its track; what its report says of it is in the method's claim."""

    team: str
    track: str
    variant: str | None
    size: tuple[int, int]


CASES = (
    Case("MiAlgo", "raw", "phase3", (3072, 4096)),
    Case("MiAlgo", "srgb", "phase3", (3040, 4032)),
    Case("TongJi-IPOE", "raw", None, (3072, 4096)),
    Case("TongJi-IPOE", "srgb", None, (3072, 4096)),
    Case("PolyU-AISP", "raw", None, (3072, 4096)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu tries the script on small pictures")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each network, and at least 20 calls")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    if options.device == "cpu":
        _as_a_trial(options)
    elif not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA GPU, and there is none: on a CPU use `ntire bench` and benchmarks/peers.py")
    others = nvidia.compute_processes(options.device)
    if others:
        raise SystemExit(f"somebody else computes on this GPU: {', '.join(f'{one.pid} {one.name}' for one in others)}")
    few = {"side": 64, "size": 1 << 16} if options.device == "cpu" else {}
    ceiling = ceilings(DTYPES[options.precision], options.device, **few)
    rows: list[dict[str, Any]] = []
    for case in CASES:
        rows.append(measure(case, options, ceiling))
        _keep(rows, ceiling, options)
    _tell(rows, ceiling, options)


@dataclass(frozen=True)
class Ceiling:
    """What this GPU reaches: large products on random numbers, and large copies, read and write counted."""

    flops: float
    """A second."""
    bytes: float


def ceilings(dtype: torch.dtype, device: str, side: int = 8192, size: int = 1 << 30) -> Ceiling:
    """Measured, not printed on a box: zeros would be faster than real numbers, so the matrices are random."""
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    product, copy = median(time_of(lambda: first @ second)), median(time_of(lambda: target.copy_(source)))
    return Ceiling(2 * side**3 / (product / 1e3), 2 * size / (copy / 1e3))


def time_of(call: Callable[[], Any], seconds: float = 1.0) -> list[float]:
    """Milliseconds by events, each on real work of its own, after a warm-up of at least 3 calls and 2 s or as long as asked."""
    warm_until, calls = time.perf_counter() + min(seconds, WARM_SECONDS), 0
    while calls < WARM_CALLS or time.perf_counter() < warm_until:
        call()
        calls += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < CALLS or sum(times) < seconds * 1e3:
        times.append(_one_time(call))
    return times


def _one_time(call: Callable[[], Any]) -> float:
    if not torch.cuda.is_available():
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _as_a_trial(options: argparse.Namespace) -> None:
    """Everything as on a GPU, on small pictures and for no figure: that the script runs."""
    global CASES, CALLS
    CASES, CALLS = tuple(replace(case, size=(96, 128)) for case in CASES[1:2]), 2
    options.seconds = min(options.seconds, 0.01)


@torch.no_grad()
def measure(case: Case, options: argparse.Namespace, ceiling: Ceiling) -> dict[str, Any]:
    """Times of one network, its floor here, and what is implied."""
    kind = catalogue.find(case.team, case.track, case.variant)
    dtype = DTYPES[options.precision]
    method, weights = _filled(kind, dtype, options.device)
    if options.channels_last:
        method = method.to(memory_format=torch.channels_last)
    lqs = [
        torch.rand(kind.lq_channels(), *case.size, generator=torch.Generator().manual_seed(number)).to(
            options.device, dtype
        )
        for number in range(4)  # rotated, so that no cache holds what comes next
    ]
    calls = iter(range(1 << 30))

    def network(lq: Tensor) -> Tensor:
        restored: Tensor = method(lq.contiguous(memory_format=torch.channels_last) if options.channels_last else lq)
        return restored

    def call() -> Tensor:
        return tiled(network, lqs[next(calls) % 4], tile=None, halo=kind.halo, stride=kind.stride)

    on_gpu = options.device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = sorted(time_of(call, options.seconds))
    # A run has one input there; the others only rotate.
    peak = (torch.cuda.max_memory_allocated() - 3 * lqs[0].nbytes) / 2**20 if on_gpu else 0.0
    built = on_meta(kind)
    macs = count(kind, case.size, built=built).macs_g or 0.0
    seen = traffic.of_network(built.to(dtype), lq_on_meta(kind, case.size).to(dtype))
    moved = {"eager": seen.eager, "fused": seen.fused}
    floor_ms = 1e3 * max(2e9 * macs / ceiling.flops, moved["fused"] / ceiling.bytes)
    eager_ms = 1e3 * max(2e9 * macs / ceiling.flops, moved["eager"] / ceiling.bytes)
    claimed = kind.claimed
    if claimed is None or claimed.runtime_ms is None or claimed.runtime_at is None:
        raise SystemExit(f"{case.team} {case.track}: its report gives no time to stand beside")
    scale = case.size[0] * case.size[1] / (claimed.runtime_at[0] * claimed.runtime_at[1])
    return {
        **asdict(case),
        "weights": weights,
        "median_ms": median(times),
        "p10_ms": times[len(times) // 10],
        "p90_ms": times[len(times) * 9 // 10],
        "calls": len(times),
        "peak_mb": peak,
        "macs_g": macs,
        "bytes": moved,
        "floor_ms": floor_ms,
        "eager_floor_ms": eager_ms,
        "reported_ms": claimed.runtime_ms,
        "reported_at": claimed.runtime_at,
        "reported_on": claimed.device,
        "reported_scaled_ms": claimed.runtime_ms * scale,
    }


def _filled(kind: type[Method], dtype: torch.dtype, device: str) -> tuple[Method, str]:
    precision = next(name for name, one in DTYPES.items() if one == dtype)
    try:
        return prepare(kind, Options(device, precision)).method, "its own"
    except UserError:
        torch.manual_seed(0)
        method = kind().eval().requires_grad_(False)
        method.deploy()
        return method.to(device, dtype), "random"


def _keep(rows: list[dict[str, Any]], ceiling: Ceiling, options: argparse.Namespace) -> None:
    """Write what there is so far: whoever runs this may end it."""
    if options.json:
        found = {"gpu": nvidia.state(options.device), "ceilings": asdict(ceiling), "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _tell(rows: list[dict[str, Any]], ceiling: Ceiling, options: argparse.Namespace) -> None:
    columns = [
        "network",
        "at",
        "median ms",
        "p10 .. p90",
        "floor, fused",
        "floor, eager",
        "report",
        "report, scaled",
        "MB",
    ]
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            " ".join(filter(None, (row["team"], row["track"], row["variant"]))),
            f"{row['size'][0]} x {row['size'][1]}",
            f"{row['median_ms']:.2f}",
            f"{row['p10_ms']:.2f} .. {row['p90_ms']:.2f}",
            f"{row['floor_ms']:.2f}",
            f"{row['eager_floor_ms']:.2f}",
            f"{row['reported_ms']:g} ({row['reported_on']})",
            f"{row['reported_scaled_ms']:.1f}",
            f"{row['peak_mb']:.0f}",
        )
    out = Console(width=None if sys.stdout.isatty() else 180)
    out.print(table)
    name = "a trial on the CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    out.print(
        f"{name}, {options.precision}{', channels_last' if options.channels_last else ''}, torch {torch.__version__}, CUDA "
        f"{torch.version.cuda}; ceilings here: {ceiling.flops / 1e12:.0f} TFLOP/s, {ceiling.bytes / 1e12:.2f} TB/s",
        markup=False,
    )
    for row in rows:
        if row["median_ms"] < row["floor_ms"] * 0.95:
            out.print(f"not to be believed: {row['team']} {row['track']} is faster than its floor", markup=False)


if __name__ == "__main__":
    main()
