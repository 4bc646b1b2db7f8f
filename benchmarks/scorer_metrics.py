"""The scorer's own metrics beside scikit-image's and pyiqa's, one call each: CPU time, memory, and how far values are apart.

    python benchmarks/scorer_metrics.py --height 3000 --width 4000 --rounds 3

Both sides take the same decoded pictures in one process and one thread, in alternating order; quote the ratio. NIQE has a
random model of pristine pictures, which does not change the work.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ntire.picture.image import Pixels

Measure = Callable[[Pixels, Pixels], float]
"""Takes the restored image and the truth, uint8 (H, W, 3)."""


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        # pyiqa fixes its cache when it is imported.
        os.environ["TORCH_HOME"] = os.environ["NTIRE_WEIGHTS"] = name
        restored, gt = _pictures(options.height, options.width)
        columns = ["metric", "peer", "peer, ms", "ntire, ms", "ratio", "peer, MB", "ntire, MB", "difference"]
        table = Table(*columns, box=None, pad_edge=False)
        for metric in options.metrics:
            peer = PEERS[metric]
            theirs, ours = peer(), _ours(metric)
            table.add_row(
                metric, peer.__name__.rpartition("_")[2], *_compared(theirs, ours, restored, gt, options.rounds)
            )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"{options.height} x {options.width}, median of {options.rounds} round(s), one thread, CPU ms of one call"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3, help="calls of each side")
    parser.add_argument("--metrics", nargs="+", default=list(PEERS), choices=list(PEERS))
    return parser.parse_args()


def _compared(theirs: Measure, ours: Measure, restored: Pixels, gt: Pixels, rounds: int) -> list[str]:
    spent: dict[str, list[float]] = {"theirs": [], "ours": []}
    memory: dict[str, float] = {}
    values: dict[str, float] = {}
    sides = [("theirs", theirs), ("ours", ours)]
    for _, side in sides:
        side(restored[:256, :256], gt[:256, :256])  # what a first call loads
    for number in range(rounds):
        for name, side in sides if number % 2 == 0 else reversed(sides):
            _forget_peak()
            before, began = _resident_mb("VmRSS"), time.process_time()
            values[name] = side(restored, gt)
            spent[name].append(time.process_time() - began)
            memory[name] = max(memory.get(name, 0.0), _resident_mb("VmHWM") - before)
    ratio = median(one / other for one, other in zip(spent["theirs"], spent["ours"], strict=True))
    return [
        *(f"{1e3 * median(spent[name]):.1f}" for name in spent),
        f"{ratio:.1f}",
        *(f"{memory[name]:.0f}" for name in spent),
        f"{abs(values['theirs'] - values['ours']):.1e}",
    ]


def _ours(name: str) -> Measure:
    from ntire.scoring.instruments import View
    from ntire.scoring.metrics import METRICS

    metric = METRICS[name]
    instrument = metric.load("cpu", metric.paths())
    against = metric.against == "gt"
    return lambda restored, gt: float(instrument.observe([View(restored, gt if against else None)])[0][0])


# The peers, each built once


def psnr_by_skimage() -> Measure:
    from skimage.metrics import peak_signal_noise_ratio

    return lambda restored, gt: float(peak_signal_noise_ratio(gt, restored, data_range=255))


def ssim_rgb_by_skimage() -> Measure:
    from skimage.metrics import structural_similarity

    def measure(restored: Pixels, gt: Pixels) -> float:
        # Wang et al. 2004 as scikit-image's documentation has it.
        return float(
            structural_similarity(
                gt,
                restored,
                channel_axis=2,
                data_range=255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )

    return measure


def psnr_y_by_pyiqa() -> Measure:
    return _pyiqa("psnr", test_y_channel=True, color_space="ycbcr")


def ssim_y_by_pyiqa() -> Measure:
    return _pyiqa("ssim", test_y_channel=True, color_space="ycbcr")


def niqe_by_pyiqa() -> Measure:
    from ntire.scoring import random_weights

    random_weights.write("niqe")
    measure = _pyiqa("niqe")
    return lambda restored, gt: measure(restored, None)  # type: ignore[arg-type]


def _pyiqa(name: str, **options: str | bool) -> Measure:
    import pyiqa

    metric = pyiqa.create_metric(name, device=torch.device("cpu"), **options)

    def measure(restored: Pixels, gt: Pixels | None) -> float:
        both = (restored,) if gt is None else (restored, gt)
        tensors = [torch.from_numpy(one).permute(2, 0, 1)[None].float() / 255 for one in both]
        with torch.no_grad():
            return float(metric(*tensors))

    return measure


PEERS: dict[str, Callable[[], Measure]] = {
    "psnr": psnr_by_skimage,
    "psnr-y": psnr_y_by_pyiqa,
    "ssim-y": ssim_y_by_pyiqa,
    "ssim-rgb": ssim_rgb_by_skimage,
    "niqe": niqe_by_pyiqa,
}


def _pictures(height: int, width: int) -> tuple[Pixels, Pixels]:
    """A photograph with noise, and without."""
    from skimage import data

    photograph = data.astronaut()
    missing = [(0, max(have - was, 0)) for have, was in zip((height, width), photograph.shape, strict=False)]
    gt = np.pad(photograph, (*missing, (0, 0)), mode="symmetric")[:height, :width]
    noise = np.random.default_rng(0).normal(0, 8, gt.shape)
    return (gt + noise).round().clip(0, 255).astype(np.uint8), np.ascontiguousarray(gt)


def _resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
