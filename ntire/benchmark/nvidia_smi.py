"""What NVIDIA's own program says of a GPU: who computes on it, how fast it is clocked. Nothing is changed."""

import os
import subprocess
from dataclasses import dataclass

THROTTLED = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""Why clocks are lower than they could be, as newer and as older drivers call it."""
FIELDS = (
    "name", "uuid", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "temperature.gpu",
    THROTTLED[0], "memory.used",
)  # fmt: skip
OLDER = tuple(THROTTLED[1] if field == THROTTLED[0] else field for field in FIELDS)


@dataclass(frozen=True)
class ComputeProcess:
    """A process that computes on a GPU."""

    pid: str
    name: str
    memory: str


def compute_processes(device: str) -> list[ComputeProcess] | None:
    """Processes on the device ("cuda", "cuda:1"), or None where that cannot be known."""
    said = _ask(device, "--query-compute-apps=pid,process_name,used_memory")
    if said is None:
        return None
    cells = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.strip()]
    return [ComputeProcess(row[0], row[1], row[-1]) for row in cells if len(row) >= 3]


def state(device: str) -> dict[str, str]:
    """FIELDS of the device as they are now, or OLDER, as a driver answers nothing where it does not know one; empty where they
    cannot be read.
    """
    return _values(device, FIELDS) or _values(device, OLDER)


def _values(device: str, fields: tuple[str, ...]) -> dict[str, str]:
    said = _ask(device, f"--query-gpu={','.join(fields)}")
    values = [cell.strip() for cell in (said or "").strip().split(",")]
    return dict(zip(fields, values, strict=True)) if said and len(values) == len(fields) else {}


def _ask(device: str, question: str) -> str | None:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = int(number or 0)
    which = visible[index] if index < len(visible) else str(index)
    command = ["nvidia-smi", "-i", which, question, "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
