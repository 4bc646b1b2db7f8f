"""Pictures and processes that several tests make."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from ntire.picture.image import encode_png


def scene(height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    """A small picture with smooth colour, edges and some texture; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0:height, 0:width]
    ramps = [row * 160 / height + 40, column * 150 / width + 50, (row + column) * 90 / (height + width) + 60]
    smooth = np.stack(ramps, 2)
    smooth[height // 4 : height // 2, width // 3 : width // 2] = rng.integers(40, 220, 3)
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))
    return path


def start(*words: object, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own, which heeds Ctrl-C even where these tests run in the background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ntire.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )
