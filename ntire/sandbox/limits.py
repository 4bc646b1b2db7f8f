"""What submitted code may use, and who on this machine holds it to that: a systemd scope, control groups, or rlimits.

Whatever is strongest here is used; what was used is recorded, because "limited" means less where only rlimits are available.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ntire.sandbox.scratch import is_left, name_of_ours

INODE = 1 << 10
"""Bytes of the kernel's that a file without content takes."""
CGROUPS = Path("/sys/fs/cgroup")
INTO_GROUPS = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'
"""A shell that joins control groups and becomes the command."""


@dataclass(frozen=True)
class Limits:
    """How much one process in the sandbox may use."""

    seconds: float = 300.0
    """For one picture, by the clock of the parent."""
    start_seconds: float = 300.0
    """Until the method is loaded."""
    memory_bytes: int = 8 << 30
    """Of all its processes; on a GPU's host, too."""
    processes: int = 512
    """Threads count."""
    files: int = 1024
    """Open at once."""
    file_bytes: int = 1 << 30
    scratch_bytes: int = 1 << 30
    """Of each of /tmp, /dev/shm and the output folder."""
    printed_bytes: int = 16 << 20
    """On standard output and error."""


@dataclass(frozen=True)
class Held:
    """A command that is held to its limits."""

    argv: tuple[str, ...]
    by: str
    """systemd scope, cgroup v2, cgroup v1 or rlimits."""
    groups: tuple[Path, ...] = ()

    @property
    def whole_memory(self) -> bool:
        """Whether memory is limited for all processes together, not only for each."""
        return self.by != "rlimits"

    def went_over(self) -> str:
        """What it wanted too much of, as far as the control groups know; empty if nothing."""
        for group in self.groups:
            if _count(group, ("memory.events", "memory.oom_control"), "oom_kill"):
                return "memory"
            if _count(group, ("pids.events",), "max"):
                return "processes"
        return ""

    def kill(self) -> None:
        """End everything in the groups."""
        for group in self.groups:
            with contextlib.suppress(OSError):
                (group / "cgroup.kill").write_text("1")
            with contextlib.suppress(OSError, ValueError):
                # Older kernels have no such file.
                for process in (group / "cgroup.procs").read_text().split():
                    os.kill(int(process), signal.SIGKILL)

    def release(self) -> None:
        """Remove the groups; what was in them is gone or going."""
        for group in self.groups:
            for _ in range(500):
                try:
                    group.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break


def hold(argv: Sequence[str], limits: Limits) -> Held:
    """The command that runs `argv` within `limits`, by the best means of this machine. Release it in the end."""
    way = means()
    if way == "systemd scope":
        return Held((*_scope(limits), *argv), way)
    if way in ("cgroup v2", "cgroup v1"):
        groups = _groups(way, limits)
        if groups:
            joined = [str(group / "cgroup.procs") for group in groups]
            return Held(("/bin/sh", "-c", INTO_GROUPS, "sh", *joined, "--", *argv), way, groups)
    return Held(tuple(argv), "rlimits")


def apply_rlimits(limits: Limits, *, gpu: bool, alone: bool) -> None:
    """Bind the calling process and its children for good. `alone`: whether its user has no processes elsewhere."""
    bounds = {
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    if alone:
        bounds[resource.RLIMIT_NPROC] = limits.processes
    if not gpu:
        # CUDA reserves more addresses than the machine has memory.
        bounds[resource.RLIMIT_DATA] = limits.memory_bytes
    for which, most in bounds.items():
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


@cache
def means() -> str:
    """The best means of this machine, tried once."""
    if Path("/run/systemd/system").is_dir() and shutil.which("systemd-run"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            tried = subprocess.run([*_scope(Limits()), "true"], capture_output=True, timeout=20)
            if tried.returncode == 0:
                return "systemd scope"
    for way in ("cgroup v2", "cgroup v1"):
        groups = _groups(way, Limits())
        Held((), way, groups).release()
        if groups:
            return way
    return "rlimits"


def _scope(limits: Limits) -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user"]
    properties = [f"MemoryMax={limits.memory_bytes}", "MemorySwapMax=0", f"TasksMax={limits.processes}"]
    stated = [word for one in properties for word in ("-p", one)]
    # systemd-run needs to know where the bus is; what it starts does not.
    return ["systemd-run", *user, "--scope", "--quiet", "--collect", *stated, "--", "/usr/bin/env", "-i"]


def _groups(way: str, limits: Limits) -> tuple[Path, ...]:
    """New groups with the limits set, or none if this process may not make them."""
    wanted = (
        [({"memory", "pids"}, {"memory.max": limits.memory_bytes, "memory.swap.max": 0, "pids.max": limits.processes})]
        if way == "cgroup v2"
        else [
            (
                {"memory"},
                {"memory.limit_in_bytes": limits.memory_bytes, "memory.memsw.limit_in_bytes": limits.memory_bytes},
            ),
            ({"pids"}, {"pids.max": limits.processes}),
        ]
    )
    made: list[Path] = []
    for controllers, settings in wanted:
        for parent in _parents(way, controllers):
            group = _group(parent, settings)
            if group is not None:
                made.append(group)
                break
        else:
            Held((), way, tuple(made)).release()
            return ()
    return tuple(made)


def _group(parent: Path, settings: dict[str, int]) -> Path | None:
    sweep_groups(parent)
    group = parent / name_of_ours()
    try:
        group.mkdir(mode=0o700)
    except OSError:
        return None
    try:
        for name, value in settings.items():
            # Swap is not accounted for on every kernel; the memory itself is.
            if "sw" not in name or (group / name).exists():
                (group / name).write_text(str(value))
        if not os.access(group / "cgroup.procs", os.W_OK):
            raise PermissionError
    except OSError:
        group.rmdir()
        return None
    return group


@cache
def sweep_groups(parent: Path) -> None:
    """Remove the groups that killed processes have left below one; those with a process in them cannot be removed."""
    with contextlib.suppress(OSError):
        for group in parent.iterdir():
            if is_left(group.name):
                with contextlib.suppress(OSError):
                    group.rmdir()


def _parents(way: str, controllers: set[str]) -> Iterator[Path]:
    """Groups in which one of our own could be made: our own one first, then its parents."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            here = set(names.split(","))
            if way == "cgroup v2" and not names:
                for root in (CGROUPS, CGROUPS / "unified"):
                    for folder in _upwards(root, path):
                        enabled = folder / "cgroup.subtree_control"
                        if enabled.is_file() and controllers <= set(enabled.read_text().split()):
                            yield folder
            elif way == "cgroup v1" and controllers <= here:
                for folder in _upwards(CGROUPS / names, path):
                    # A group of another kind has no such file.
                    if (folder / "cgroup.procs").is_file():
                        yield folder


def _upwards(root: Path, path: str) -> Iterator[Path]:
    folder = root / path.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _count(group: Path, files: Sequence[str], key: str) -> int:
    for name in files:
        with contextlib.suppress(OSError, ValueError):
            for line in (group / name).read_text().splitlines():
                word, _, value = line.partition(" ")
                if word == key:
                    return int(value)
    return 0


def family(root: int) -> set[int]:
    """A process and everything that descends from it, as far as /proc shows it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    todo = [root]
    while todo:
        one = todo.pop()
        found.add(one)
        todo += children.get(one, [])
    return found


def cpu_seconds_of(processes: set[int]) -> float:
    """Processor time of these processes and of those children of theirs that have ended, to the tick of 10 ms."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError, ValueError):
            # utime, stime, cutime and cstime: fields 14 to 17, of which two lie before the name's end.
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_of(processes: set[int]) -> int:
    """Bytes that they hold for themselves: what is mapped from files does not count."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def scratch_of(processes: set[int], folders: Sequence[str] = ("tmp", "dev/shm", "out")) -> int:
    """Bytes that lie in the folders in memory that these processes see, and that their names take; 0 outside a sandbox."""
    outside = Path("/").stat().st_dev
    largest = 0
    for process in processes:
        with contextlib.suppress(OSError):
            root = Path(f"/proc/{process}/root")
            if root.stat().st_dev == outside:
                continue
            found = [os.statvfs(root / one) for one in folders]
            used = sum(
                (one.f_blocks - one.f_bfree) * one.f_frsize + (one.f_files - one.f_ffree) * INODE for one in found
            )
            largest = max(largest, used)
    return largest
