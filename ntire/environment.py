"""What a result depends on beside code and weights: versions, processor, devices."""

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from ntire import UserError, __version__

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "rawpy", "safetensors", "pandas")
MALLOC = ((-3, 1 << 30), (-1, 1 << 30), (-8, 1))
"""Of mallopt: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in bytes, M_ARENA_MAX."""
USUAL_MALLOC = ((-3, 32 << 20), (-1, 64 << 20), (-8, 0))
"""What glibc comes to by itself in a program that frees large blocks."""


def user_cache() -> Path:
    """Where programs of this user keep what can be made or fetched again: `$XDG_CACHE_HOME`, by default `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def own_cache() -> Path:
    """The part of it that is ntire's."""
    return user_cache() / "ntire"


def versions() -> dict[str, str]:
    """Versions of ntire, Python and the libraries that touch pixels; absent ones are left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"ntire": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def usable_cores(system: Path = Path("/")) -> int:
    """Processors that this process may keep busy: by its affinity and by the quotas of its control groups, one at least.

    A batch system or a container gives a program a few of a machine's many. `system` is where /proc and /sys are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([cores, *(math.ceil(quota) for quota in _quotas(system))]), 1)


def _quotas(system: Path) -> Iterator[float]:
    """Processors' worth of time that each control group around this process may use, where it is limited."""
    for folder, first in _control_groups(system, "cpu"):
        try:
            if first:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue  # the root of a tree has no such file
        if quota.strip() not in ("max", "-1"):
            yield int(quota) / int(period)


def _room_in_groups(system: Path) -> Iterator[int]:
    """Bytes of memory that each control group around this process has left, files in the cache that can go counted in."""
    for folder, first in _control_groups(system, "memory"):
        limit, usage = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        cached = "total_inactive_file" if first else "inactive_file"
        try:
            most = int((folder / f"memory.{limit}").read_text())
            held = int((folder / f"memory.{usage}").read_text())
            lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield most - held + int(lines.get(cached, 0))
        except (OSError, ValueError):
            continue  # no limit ("max"), or the root of a tree


def _control_groups(system: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups around this process that a controller has, and whether they are of version 1."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one tree for all controllers; version 1 one for each, or for several, by their names.
        top = system / "sys/fs/cgroup" / controllers
        own = top / place.lstrip("/")
        for folder in (own, *(one for one in own.parents if one.is_relative_to(top))):
            yield folder, bool(controllers)


def processor() -> str:
    """The processor's name, as /proc/cpuinfo or the platform gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment(device: str) -> dict[str, str]:
    """Versions and the device that computes; flat strings, as they go into submission.toml."""
    import torch

    found = versions() | {"os": platform.platform(), "processor": f"{processor()}, {os.cpu_count()} threads"}
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "device_memory_gb": f"{properties.total_memory / 2**30:.0f}",
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    else:
        found["device"] = "cpu"
    return found


def choose_device(wanted: str) -> str:
    """The device that a user means: `auto` is the GPU where there is one, else the CPU; others must be usable here.

    Raises UserError for a device that PyTorch does not know or this machine does not have.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {wanted}: cannot be used here ({reason}). Use auto, cpu, or cuda:N.") from None
    return str(device)


def choose_devices(wanted: str) -> str:
    """The same for several devices, separated by commas."""
    return ",".join(choose_device(one.strip()) for one in wanted.split(","))


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep memory that it has given back and use it again, where its C library is glibc.

    It would return every large block to the system and get fresh pages for the next, which it clears one by one: half of the
    time of a network whose activations are larger than 32 MiB. One pool serves all threads: each finds what another gave back.
    Without `keep` it does as it would by itself.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        for parameter, value in MALLOC if keep else USUAL_MALLOC:
            mallopt(parameter, value)


def memory_to_use(device: str, system: Path = Path("/")) -> int:
    """Bytes of activations that one image may take: on a GPU most of what is free; on the host half of what is free, in the
    control groups around this process as well, and at most 2 GiB. `system` is where /proc and /sys are.
    """
    import torch

    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.8)
    available = 2 << 30
    try:
        for line in (system / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        pass
    return max(min(2 << 30, min([available, *_room_in_groups(system)]) // 2), 0)
