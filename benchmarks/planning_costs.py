"""The figures of `ntire/benchmark/planning.toml`: multiply-adds of the metrics' networks, CPU time of files and pixel metrics.

    python benchmarks/planning_costs.py            # all
    python benchmarks/planning_costs.py --counts   # only what does not depend on the machine

Networks have random weights and are counted on the meta device at 512 x 512 and 1024 x 1024; CPU time is of one thread, the
median of three calls on a photograph with noise.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

FACE = 112
"""Side of what the identity gate's network sees, whatever the picture's size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", action="store_true", help="only count networks")
    parser.add_argument("--metrics", default="fid,adaface,lpips,dists,clipiqa,musiq,maniqa", help="networks to count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # pyiqa fixes its cache when it is imported, which has not happened yet.
        os.environ |= {"TORCH_HOME": folder, "NTIRE_WEIGHTS": folder}
        for name in options.metrics.split(","):
            small, large = (counted(name, side) / 1e9 for side in (512, 1024))
            _say(f"{name} = {{ macs_g = [{small:.3f}, {large:.3f}] }}")
        if not options.counts:
            _time_all(Path(folder))


def counted(name: str, side: int) -> int:
    """Multiply-adds of one observation."""
    import torch

    from ntire.method.counters import look
    from ntire.scoring import bench, random_weights
    from ntire.scoring.identity import AdaFace
    from ntire.scoring.metrics import METRICS

    random_weights.write(name)
    metric = METRICS[name]
    with bench._without_hashes([name]):
        instrument: Any = metric.load("cpu", metric.paths())
    instrument.device = torch.device("meta")
    for key, value in list(vars(instrument).items()):
        if isinstance(value, torch.nn.Module | torch.Tensor):
            setattr(instrument, key, value.to("meta"))
    side = FACE if isinstance(instrument, AdaFace) else side
    picture = torch.empty(1, 3, side, side, device="meta")
    reference = picture if metric.against == "gt" and not metric.apart else None
    networks = torch.nn.ModuleList(one for one in vars(instrument).values() if isinstance(one, torch.nn.Module))
    return look(networks, picture, call=lambda given: instrument.forward(given, reference)).dispatch.total()


def _time_all(folder: Path) -> None:
    import cv2
    import numpy as np
    import tifffile
    from skimage import data

    from ntire.picture.image import encode_png, read_pixels
    from ntire.picture.raw import read_raw
    from ntire.scoring.instruments import View
    from ntire.scoring.metrics import METRICS

    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)

    def photograph(height: int, width: int, sigma: float) -> Any:
        clean = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float64)
        return (clean + rng.normal(0, sigma, clean.shape)).clip(0, 255).round().astype(np.uint8)

    large = photograph(3072, 4096, 2)
    png, dng = folder / "large.png", folder / "large.dng"
    png.write_bytes(encode_png(large))
    mosaic = rng.integers(64, 1023, large.shape[:2], dtype=np.uint16)
    dng.write_bytes(_dng(mosaic, tifffile))
    _tell("write_png_ns", lambda: encode_png(large), mosaic.size)
    _tell("read_png_ns", lambda: read_pixels(png), mosaic.size)
    _tell("read_raw_ns", lambda: read_raw(dng), mosaic.size)
    _say(f"png_bytes = {png.stat().st_size / mosaic.size:.2f}")
    pair = photograph(1024, 1536, 2), photograph(1024, 1536, 6)
    for name, metric in METRICS.items():
        if not metric.weights:
            instrument = metric.load("cpu", {})
            _tell(f"{name}: cpu_ns", lambda seen=instrument: seen.observe([View(*pair)]), 1024 * 1536)


def _tell(name: str, call: Callable[[], Any], pixels: int) -> None:
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    _say(f"{name} = {1e9 * median(times) / pixels:.3g}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _dng(mosaic: Any, tifffile: Any) -> bytes:
    """An uncompressed DNG."""
    tags = [
        (50706, 1, 4, (1, 4, 0, 0), True), (50708, 2, 0, "Test Camera", True), (271, 2, 0, "Test", True),
        (272, 2, 0, "Camera", True), (33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True),
        (50714, 3, 1, 64, True), (50717, 3, 1, 1023, True), (50728, 5, 3, (5000, 10000, 10000, 10000, 6000, 10000), True),
    ]  # fmt: skip
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic, photometric=32803, extratags=tags, metadata=None)
    return file.getvalue()


if __name__ == "__main__":
    main()
