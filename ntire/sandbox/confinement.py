"""Whether a process is held as it should be: asked of the kernel inside, judged outside before any foreign code runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntire import UserError, __version__
from ntire.environment import environment
from ntire.text import printable

RIGHTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def confinement() -> dict[str, Any]:
    """How this process is held, by /proc, where the kernel says it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "uid": os.getuid(),
        "capabilities": sum(int(status[name], 16) for name in RIGHTS),
        "no_new_privileges": status["NoNewPrivs"].strip() == "1",
        "seccomp": status["Seccomp"].strip() == "2",
    }


def refuse_unconfined(ready: Mapping[str, Any], backend: str, device: str, said: str) -> None:
    """Raise UserError (exit code 3) unless a child that has begun is of this version, held, and on the device asked for.

    `ready` is its answer to `begin`, given before it has loaded any code; `said` is shown if there is none.
    """
    if ready.get("status") == "no device":
        raise UserError(f"inside the sandbox: {printable(str(ready.get('problem')))}", exit_code=3)
    if ready.get("status") != "ready":
        raise UserError(f"the sandbox {backend} does not start: {said}", exit_code=3)
    if ready.get("ntire") != __version__:
        raise UserError(
            f"ntire {printable(str(ready.get('ntire')))} is in the sandbox, {__version__} here: build its image again.",
            exit_code=3,
        )
    if device != "cpu" and ready.get("device") != environment(device)["device"]:
        raise UserError(
            f"the sandbox has the device {printable(str(ready.get('device')))}, not the one of {device}.", exit_code=3
        )
    held = ready.get("uid") != 0 and ready.get("capabilities") == 0
    held = held and bool(ready.get("no_new_privileges")) and bool(ready.get("seccomp"))
    if backend == "bubblewrap" and not held:
        raise UserError("the sandbox does not hold: rights are left inside. `ntire doctor` shows more.", exit_code=3)
