"""Is this installation able to do what it promises? One check a line, each with what was found."""

import os
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ntire import UserError
from ntire.commands.weights import declared_weights
from ntire.environment import choose_device, environment, processor, versions
from ntire.files import writable_folder
from ntire.method.method_table import Declared
from ntire.method.weights_files import cache_folder, verify
from ntire.picture import image as images
from ntire.picture.suffixes import RAW
from ntire.sandbox.child import BACKENDS, ESCAPES, INSTALL, Child, Place, describe, why_not
from ntire.sandbox.limits import Limits, means
from ntire.sandbox.scratch import scratch_folder
from ntire.scoring.calibration import CHECKED, can_be_checked, drifted
from ntire.scoring.track import all_tracks

HELD = ("time", "memory", "processes and threads", "open files, file size", "scratch space", "printed text")
"""What submitted code has only so much of."""
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
        ("sandbox", _sandbox),
        *((f"sandbox: {part}", partial(_wall, part)) for part in ("network", "files", "processes", "rights", "kernel")),
        *((f"sandbox: {what}", partial(_limit, what)) for what in HELD),
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
    return "ok", f"8- and 16-bit PNG come back bit by bit; reads {images.READ}"


def _raw_frames() -> tuple[State, str]:
    import rawpy

    return "ok", f"LibRaw {'.'.join(map(str, rawpy.libraw_version))}; reads {' '.join(sorted(RAW))}"


def _calibration() -> tuple[State, str]:
    drift = drifted(CHECKED)
    if drift:
        return "broken", f"values differ from the pinned ones: {'; '.join(drift)}"
    skipped = [name for name in CHECKED if not can_be_checked(name)]
    note = f"; not checked, as their files are not here: {', '.join(skipped)}" if skipped else ""
    return "ok", f"{', '.join(name for name in CHECKED if name not in skipped)} give their pinned values{note}"


def calibration(folder: Path, device: str) -> Iterator[Check]:
    """One check for each metric: whether it gives, with its weights, the values that are published for pyiqa's pictures.

    Raises UserError if `folder` does not have those pictures.
    """
    from ntire.scoring.published_values import SOURCE, calibrate

    states: dict[str, State] = {"proven": "ok", "drifted": "broken", "missing": "absent", "no values": "absent"}
    for proof in calibrate(folder, device):
        note = f"; as in {SOURCE}" if proof.state in ("proven", "drifted") else ""
        yield Check(f"published values: {proof.metric}", states[proof.state], f"{proof.found}{note}")


def _weights() -> Iterator[tuple[str, Callable[[], tuple[State, str]]]]:
    """One check for each method, metric or loss: all its files."""
    needed: dict[str, list[Declared]] = {}
    for one in declared_weights([], None):
        needed.setdefault(one.needed_by, []).append(one)
    for name, files in needed.items():
        yield f"weights for {name}", partial(_weights_of, files)


def _weights_of(files: list[Declared]) -> tuple[State, str]:
    missing = [one for one in files if one.state == "missing"]
    for one in files:
        if one not in missing:
            verify(one.weights, one.path)
    if missing:
        size = sum(one.weights.size or 0 for one in missing) / 1e6
        known = f", {size:.0f} MB{'' if all(one.weights.size for one in missing) else ' and more'}" if size else ""
        fetch = f"`ntire weights fetch {shlex.quote(missing[0].name)}`"
        return "absent", f"{len(missing)} of {len(files)} file(s) are not here{known}: {fetch}"
    return "ok", f"{len(files)} file(s), sha256 as declared"


def _sandbox() -> tuple[State, str]:
    reasons = {one: why_not(one) for one in BACKENDS if one != "none"}
    usable = [one for one, reason in reasons.items() if not reason]
    if not usable:
        return "absent", "; ".join(f"{one}: {reason}" for one, reason in reasons.items()) + f". {INSTALL}"
    return "ok", "; ".join(", ".join(f"{key} {value}" for key, value in describe(one).items()) for one in usable)


def _wall(part: str) -> tuple[State, str]:
    """One kind of attempt to get out, made just now from inside."""
    found = _attempts()
    if found is None:
        return "absent", "not tried: bubblewrap does not work here"
    kinds = {"kernel": ("kernel", "system call"), "rights": ("rights", "limits")}.get(part, (part,))
    mine = {name: one for name, one in found.items() if name.startswith(tuple(f"{kind}:" for kind in kinds))}
    through = [f"{name}: {one['how']}" for name, one in mine.items() if not one["stopped"]]
    if through or not mine:
        return "broken", "; ".join(through) or "the attempts were not made"
    return "ok", f"{len(mine)} of {len(mine)} attempts to get out were stopped"


@cache
def _attempts() -> dict[str, dict[str, Any]] | None:
    if why_not("bubblewrap"):
        return None
    with scratch_folder() as folder, socket.create_server(("127.0.0.1", 0)) as service:
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.write_text("planted")
        inside = folder / "in"
        inside.mkdir(mode=0o755)
        with Child("bubblewrap", Place(inside, inside), Limits(), ESCAPES) as child:
            bait = {"secret": str(secret), "port": service.getsockname()[1], "process": os.getpid()}
            return dict(child.ask(bait, 60).fields)


def _limit(what: str) -> tuple[State, str]:
    if why_not("bubblewrap"):
        return "absent", "no bubblewrap: a container's engine holds code to its limits"
    by, limits = means(), Limits()
    memory = f"{limits.memory_bytes >> 30} GiB"
    said = {
        "time": f"{limits.seconds:g} s a picture, by the clock of the parent",
        "memory": f"{memory} for all processes together, by {by}"
        if by != "rlimits"
        else f"{memory} for each process by rlimit, for all together by a look every 0.1 s",
        "processes and threads": f"{limits.processes}, by {by if by != 'rlimits' else 'rlimit'}",
        "open files, file size": f"{limits.files}; {limits.file_bytes >> 30} GiB; by rlimits",
        "scratch space": f"{limits.scratch_bytes >> 30} GiB each of /tmp, /dev/shm and the output folder, by tmpfs",
        "printed text": f"{limits.printed_bytes >> 20} MiB, by the parent",
    }
    return "ok", said[what]
