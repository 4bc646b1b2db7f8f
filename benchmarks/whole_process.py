"""What `ntire run` costs from the first second: whole processes beside a plain loop, CPU seconds of one thread.

    python benchmarks/whole_process.py --counts 1 40 --rounds 3

Both restore the same PNGs (321 x 481) with the same network and weights, in fresh processes and alternating order. The plain
loop is as little as a program can be: it imports the network, fills it, and for each file reads, restores the whole picture,
rounds and writes with OpenCV.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

HEIGHT, WIDTH = 321, 481
TEAM, TRACK = "MiAlgo", "srgb"
PLAIN = """
import sys
from pathlib import Path
import cv2, numpy, torch
from safetensors.torch import load_file
from ntire.teams.srgb import mialgo

source, out = map(Path, sys.argv[1:])
out.mkdir()
torch.set_num_threads(1)
network = mialgo.MiAlgo()
network.load_state_dict(load_file(Path(mialgo.__file__).parent / "weights" / network.weights[0].file))
network.eval()
with torch.no_grad():
    for path in sorted(source.glob("*.png")):
        decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
        lq = torch.from_numpy(decoded[..., ::-1].astype(numpy.float32).transpose(2, 0, 1) / 255)[None]
        height, width = lq.shape[2:]
        padded = torch.nn.functional.pad(lq, (0, -width % network.stride, 0, -height % network.stride), mode="reflect")
        restored = network(padded)[0, :, :height, :width].clamp(0, 1).numpy().transpose(1, 2, 0)
        cv2.imwrite(str(out / path.name), (restored * 255).round().astype(numpy.uint8)[..., ::-1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 40], help="pictures")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of processes for each count")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.counts:
            _make_pictures(folder / str(count), count)
            pairs = [_pair(folder, count, number % 2 == 0) for number in range(options.rounds)]
            ours, plain = (median(pair[side] for pair in pairs) for side in (0, 1))
            ratio = median(pair[0] / pair[1] for pair in pairs)
            console.print(
                f"{count} picture(s): ntire run {ours:.2f} CPU s, plain loop {plain:.2f} CPU s, ratio {ratio:.2f} "
                f"(median of {options.rounds} pair(s))"
            )


def _pair(folder: Path, count: int, ours_first: bool) -> tuple[float, float]:
    """CPU seconds of ntire and of the plain loop, which must give the same pictures."""
    source, ours, plain = folder / str(count), folder / "ours", folder / "plain"
    jobs = [
        (
            "ours",
            ["-m", "ntire", "run", "--team", TEAM, "--track", TRACK, str(source), "-o", str(ours), "--device", "cpu"],
        ),
        ("plain", ["-c", PLAIN, str(source), str(plain)]),
    ]
    spent = {side: _cpu_seconds(words) for side, words in (jobs if ours_first else jobs[::-1])}
    _compare(ours / "images", plain)
    for one in (ours, plain):
        shutil.rmtree(one)
    return spent["ours"], spent["plain"]


def _cpu_seconds(words: Sequence[str]) -> float:
    """User and system time of a process and its children, with one thread for numbers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env={**os.environ, **one_thread})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _compare(ours: Path, plain: Path) -> None:
    import cv2

    for path in sorted(plain.glob("*.png")):
        one, other = (cv2.imread(str(folder / path.name)).astype(int) for folder in (ours, plain))
        if np.abs(one - other).max() > 1:
            raise SystemExit(f"{path.name}: the two sides gave different pictures")


def _make_pictures(folder: Path, count: int) -> None:
    from skimage import data

    from ntire.picture.image import encode_png

    folder.mkdir()
    photograph = data.astronaut()[:HEIGHT, :WIDTH]
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 8, photograph.shape)
        path = folder / f"{number:03}.png"
        path.write_bytes(encode_png((np.roll(photograph, 5 * number, 1) + noise).round().clip(0, 255).astype(np.uint8)))


if __name__ == "__main__":
    main()
