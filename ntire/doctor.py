"""Is this installation able to do what it promises? One check a line, each with what was found."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ntire import UserError, raw
from ntire import image as images
from ntire.environment import choose_device, environment, processor, versions
from ntire.facts import Declared
from ntire.files import writable_folder
from ntire.weights import cache_folder, verify
from ntire.workflow import declared_weights
from scoring.calibration import CHECKED, can_be_checked, drifted
from scoring.track import all_tracks

State = Literal["ok", "absent", "broken"]
"""`absent`: something that one can do without; `broken` makes `ntire doctor` exit with 3."""


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    state: State
    found: str


def examine() -> Iterator[Check]:
    """All checks, one after another; a check that fails is an answer, not an exception."""
    checks: list[tuple[str, Callable[[], tuple[State, str]]]] = [
        ("versions", lambda: ("ok", ", ".join(f"{name} {number}" for name, number in versions().items()))),
        ("processor", lambda: ("ok", processor())),
        ("gpu", _gpu),
        ("pictures", _pictures),
        ("raw frames", _raw_frames),
        ("tracks", lambda: ("ok", ", ".join(track.name for track in all_tracks()))),
        ("metric calibration", _calibration),
        ("weights folder", lambda: ("ok", str(writable_folder(cache_folder())))),
        *_weights(),
    ]
    for name, check in checks:
        try:
            state, found = check()
        except (UserError, ImportError, OSError) as error:
            state, found = "broken", str(error)
        yield Check(name, state, found)


def _gpu() -> tuple[State, str]:
    device = choose_device("auto")
    if device == "cpu":
        return "absent", "no CUDA device: methods run on the CPU"
    found = environment(device)
    return "ok", f"{found['device']}, {found['device_memory_gb']} GB, CUDA {found['cuda']}, cuDNN {found['cudnn']}"


def _pictures() -> tuple[State, str]:
    for bits in (8, 16):
        pixels = np.arange(12 * 3, dtype=np.uint16).reshape(3, 4, 3) * 7
        pixels = pixels.astype(np.uint8) if bits == 8 else pixels
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            path.write_bytes(images.encode_png(pixels))
            if not np.array_equal(images.read_pixels(path), pixels):
                return "broken", f"a PNG of {bits} bits does not come back as it was written"
    return "ok", f"8- and 16-bit PNG come back bit by bit; reads {', '.join(images.FORMATS)}"


def _raw_frames() -> tuple[State, str]:
    import rawpy

    return "ok", f"LibRaw {'.'.join(map(str, rawpy.libraw_version))}; reads {' '.join(sorted(raw.SUFFIXES))}"


def _calibration() -> tuple[State, str]:
    drift = drifted(CHECKED)
    if drift:
        return "broken", f"values differ from the pinned ones: {'; '.join(drift)}"
    skipped = [name for name in CHECKED if not can_be_checked(name)]
    note = f"; not checked, as their files are not here: {', '.join(skipped)}" if skipped else ""
    return "ok", f"{', '.join(name for name in CHECKED if name not in skipped)} give their pinned values{note}"


def _weights() -> Iterator[tuple[str, Callable[[], tuple[State, str]]]]:
    for one in declared_weights([], None):
        yield f"weights for {one.needed_by}", partial(_weights_file, one)


def _weights_file(declared: Declared) -> tuple[State, str]:
    if declared.state == "missing":
        return "absent", f"{declared.path} is not here: `ntire weights fetch {declared.weights.file}`"
    verify(declared.weights, declared.path)
    return "ok", f"{declared.path}, sha256 as declared"
