"""Pictures and processes that several tests make."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

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


CONVOLVING = """
import torch
from ntire.method import Method
from ntire.method.weights_files import Weights

class Convolving(Method):
    team, track, cite, tiling, halo, stride = "Convolving", "srgb", "x", "exact", 4, 1
    settable = {"size": "small or big"}
    size = "small"
    weights = (Weights("net.safetensors", None, "MIT", "official"),)
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 3, 3, padding=1))
    def forward(self, lq):
        BODY
        return lq * 0.5 + 0.1 + 0.0 * self.body(self.body(lq) if self.size == "big" else lq)
"""
"""A network of a stranger that halves contrast, whatever its weights are; with the setting "big" it computes twice as much."""
CONVOLVING_PARAMS = 3 * 8 * 9 + 8 + 8 * 3 * 9 + 3
CONVOLVING_MACS = 2 * 3 * 8 * 9
"""For one pixel."""


def ship_convolving(folder: Path, file: str = "method.py", body: str = "pass") -> None:
    """Write it and its weights; `body` is a line at the start of its forward."""
    code = folder / file
    (code.parent / "weights").mkdir(parents=True)
    code.write_text(CONVOLVING.replace("BODY", body))
    shapes = {"0.weight": (8, 3, 3, 3), "0.bias": (8,), "1.weight": (3, 8, 3, 3), "1.bias": (3,)}
    tensors = {f"body.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    weights = code.parent / "weights" / "net.safetensors"
    save_file(tensors, weights)
    weights.chmod(0o644)
