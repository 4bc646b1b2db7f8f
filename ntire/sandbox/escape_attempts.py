"""Ways out of the sandbox, tried from inside it: for `ntire doctor`, the tests and `make reliability`.

Run as a program it reads one JSON line with what is outside (`Bait`), tries everything, and answers one JSON line: for each
attempt how it was stopped, or what it got. Only the standard library is used, so that it starts at once.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import resource
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ntire.sandbox.seccomp import DENIED, MACHINES


@dataclass(frozen=True)
class Bait:
    """What the parent has put up outside."""

    secret: str = "/etc/shadow"
    """A file that no submitted code needs."""
    port: int = 0
    """Of a service of the host that listens on 127.0.0.1."""
    abstract: str = ""
    """Name of an abstract Unix socket that listens."""
    process: int = 1
    """A process outside."""


class Escaped(Exception):
    """An attempt that got through."""


def main() -> None:
    """Try all attempts once; outside of a sandbox some of them would do real damage, so there it refuses."""
    if not (socket.gethostname() == "ntire" and os.getppid() in (0, 1) and Path("/sub").is_dir()):
        raise SystemExit("these attempts are only made in a sandbox")
    bait = Bait(**json.loads(sys.stdin.readline()))
    print(json.dumps(tried(bait)), flush=True)  # noqa: T201 - the answer to the parent


def tried(bait: Bait) -> dict[str, dict[str, object]]:
    """For every attempt: whether it was stopped, and how or with what it came back."""
    found: dict[str, dict[str, object]] = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt(bait)
        except Escaped as escaped:
            found[name] = {"stopped": False, "how": str(escaped)}
        except (OSError, ValueError, RuntimeError) as error:
            found[name] = {"stopped": True, "how": f"{type(error).__name__}: {error}"}
        else:
            found[name] = {"stopped": True, "how": "nothing there"}
    return found


def _internet(bait: Bait) -> None:
    with socket.create_connection(("1.1.1.1", 53), 2):
        raise Escaped("connected to 1.1.1.1")


def _name_server(bait: Bait) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sent:
        sent.sendto(b"x", ("8.8.8.8", 53))
        raise Escaped("sent a datagram to 8.8.8.8")


def _loopback(bait: Bait) -> None:
    with socket.create_connection(("127.0.0.1", bait.port or 22), 2):
        raise Escaped("reached a service of the host")


def _abstract_socket(bait: Bait) -> None:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(f"\0{bait.abstract or 'ntire'}")
        raise Escaped("reached an abstract socket of the host")


def _family(number: int) -> Callable[[Bait], None]:
    def attempt(bait: Bait) -> None:
        with socket.socket(number, socket.SOCK_DGRAM if number == 17 else socket.SOCK_STREAM):
            raise Escaped(f"opened a socket of family {number}")

    return attempt


def _head(path: str) -> str:
    with Path(path).open("rb") as file:
        return file.read(40).decode(errors="replace")


def _reading(*paths: str) -> Callable[[Bait], None]:
    def attempt(bait: Bait) -> None:
        for path in paths or (bait.secret,):
            with contextlib.suppress(OSError):
                shown = [one.name for one in Path(path).iterdir()] if Path(path).is_dir() else [_head(path)]
                if any(shown):
                    raise Escaped(f"read {path}: {shown[:3]!r}")

    return attempt


def _folders_of_the_host(bait: Bait) -> None:
    """Nothing is listed but what the sandbox makes and what leads to Python, its packages and ntire."""
    project = Path(__file__).resolve().parents[2]
    packages = [Path(one) for one in sys.path if Path(one).name in ("site-packages", "dist-packages")]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]]
    shown = {project / "ntire", project / "teams", *python, *packages}
    way = {parent for path in shown for parent in path.parents}
    known = {*shown, *way, *map(Path, MADE)}
    for folder in sorted(way | set(map(Path, SCRATCH))):
        # Devices have an attempt of their own.
        if folder == Path("/dev") or any(folder.is_relative_to(path) for path in {*shown, Path("/usr")}):
            continue
        with contextlib.suppress(OSError):
            others = sorted(set(folder.iterdir()) - known)
            if others:
                raise Escaped(f"sees {', '.join(map(str, others[:3]))}")


def _secret_through_proc(bait: Bait) -> None:
    _reading(*(f"/proc/{process}/root{bait.secret}" for process in ("1", str(bait.process))))(bait)


def _environment_of_others(bait: Bait) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(os.getpid()):
            _reading(f"{folder}/environ")(bait)
            with contextlib.suppress(OSError), (folder / "mem").open("r+b"):
                raise Escaped(f"opened the memory of process {folder.name}")


def _writing(*folders: str) -> Callable[[Bait], None]:
    def attempt(bait: Bait) -> None:
        for folder in folders:
            with contextlib.suppress(OSError):
                Path(folder, "ntire-escape").write_text("x")
                raise Escaped(f"wrote into {folder}")

    return attempt


def _packages(bait: Bait) -> None:
    _writing(str(Path(__file__).parent), str(Path(json.__file__).parent), *(one for one in sys.path if one))(bait)


def _kernel_settings(bait: Bait) -> None:
    settings = {"/proc/sys/kernel/core_pattern": "|/tmp/x", "/proc/sysrq-trigger": "h", "/proc/1/oom_score_adj": "-999"}
    for path, text in settings.items():
        with contextlib.suppress(OSError):
            Path(path).write_text(text)
            raise Escaped(f"wrote {path}")


def _control_groups(bait: Bait) -> None:
    for path in Path("/sys/fs").rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            path.write_text(str(os.getpid()))
            raise Escaped(f"joined {path.parent}")


def _signal_outside(bait: Bait) -> None:
    if bait.process > 1:
        os.kill(bait.process, 0)
        if Path(f"/proc/{bait.process}").exists() and bait.process not in (os.getpid(), os.getppid()):
            raise Escaped(f"can signal process {bait.process}")


def _signal_first(bait: Bait) -> None:
    os.kill(1, 9)
    if os.geteuid() == 0:
        raise Escaped("killed process 1")


def _root_again(bait: Bait) -> None:
    os.setuid(0)
    if os.getuid() == 0 and "0" in Path("/proc/self/uid_map").read_text().split()[:2]:
        raise Escaped("is root")


def _capabilities(bait: Bait) -> None:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("CapInh", "CapPrm", "CapEff", "CapAmb") and int(value, 16):
            raise Escaped(f"has {name} {value.strip()}")
        if name == "NoNewPrivs" and value.strip() != "1":
            raise Escaped("may gain privileges")
        if name == "Seccomp" and value.strip() != "2":
            raise Escaped("has no seccomp filter")


def _device_node(bait: Bait) -> None:
    os.mknod("/tmp/memory", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    raise Escaped("made a device node")


def _devices(bait: Bait) -> None:
    known = [
        "core",
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
        "console",
        "mqueue",
    ]
    names = sorted(one.name for one in Path("/dev").iterdir())
    others = [name for name in names if name not in known and not name.startswith("nvidia")]
    if others:
        raise Escaped(f"sees /dev/{', /dev/'.join(others[:5])}")


def _type_into_terminal(bait: Bait) -> None:
    for name in ("/dev/tty", "/dev/stdin"):
        with contextlib.suppress(OSError), Path(name).open("rb") as terminal:
            fcntl.ioctl(terminal, 0x5412, b"x")
            raise Escaped("typed into a terminal")


def _inherited_files(bait: Bait) -> None:
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if not target.startswith(("pipe:", "socket:", "/dev/null", "/proc/")):
                raise Escaped(f"was given {target}")


def _more_of_everything(bait: Bait) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if hard != resource.RLIM_INFINITY:
        raise Escaped("raised a limit")


def _run_as_root(bait: Bait) -> None:
    for program in map(Path, ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/usr/bin/newgrp")):
        owned = program.exists() and program.stat().st_mode & stat.S_ISUID
        if owned and not os.statvfs(program).f_flag & os.ST_NOSUID:
            raise Escaped(f"{program} would run as its owner")


def _system_call(name: str) -> Callable[[Bait], None]:
    def attempt(bait: Bait) -> None:
        known = MACHINES[platform.machine()]
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        # Arguments that no call refuses for themselves before its right is looked at; a refusal by the filter is EPERM.
        outcome = library.syscall(ctypes.c_long(DENIED[name][known.column]), *([ctypes.c_long(0)] * 6))
        number = ctypes.get_errno()
        if outcome >= 0:
            raise Escaped(f"{name} went through")
        if number not in (1, 38):
            raise Escaped(f"{name} was looked at: {os.strerror(number)}")
        raise OSError(number, os.strerror(number))

    return attempt


def _new_namespace(bait: Bait) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    # CLONE_NEWUSER and SIGCHLD by the plain call: a filter that knows only `unshare` would let it through.
    outcome = library.syscall(
        ctypes.c_long(MACHINES[platform.machine()].clone), ctypes.c_long(0x10000011), *([ctypes.c_long(0)] * 4)
    )
    if outcome == 0:
        os._exit(0)
    if outcome > 0:
        os.waitpid(outcome, 0)
        raise Escaped("made a user namespace")
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


SCRATCH = ("/dev/shm", "/tmp", "/out")
MADE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/sys", "/dev", "/tmp", "/out", "/in",
    "/sub", "/weights",
)  # fmt: skip
"""What the sandbox itself puts in the root folder."""
ATTEMPTS: dict[str, Callable[[Bait], None]] = {
    "network: a literal address": _internet,
    "network: a datagram": _name_server,
    "network: a service of the host on loopback": _loopback,
    "network: an abstract socket of the host": _abstract_socket,
    "network: a vsock": _family(40),
    "network: a packet socket": _family(17),
    "network: a Bluetooth socket": _family(31),
    "files: a planted secret": _reading(),
    "files: the secret through /proc": _secret_through_proc,
    "files: passwords and keys": _reading("/etc/shadow", "/etc/passwd", "/root/.ssh"),
    "files: folders of the host": _folders_of_the_host,
    "files: memory and kernel": _reading("/dev/mem", "/dev/kmem", "/proc/kcore", "/sys/kernel", "/sys/firmware"),
    "files: what was inherited open": _inherited_files,
    "files: write into the system": _writing("/", "/usr", "/usr/bin", "/etc", "/lib", "/dev", "/proc", "/sys"),
    "files: write into code, inputs or weights": _writing("/sub", "/in", "/weights"),
    "files: write into Python's packages": _packages,
    "files: other devices": _devices,
    "files: a device node": _device_node,
    "processes: environment and memory of others": _environment_of_others,
    "processes: signal one outside": _signal_outside,
    "processes: signal the first": _signal_first,
    "rights: root again": _root_again,
    "rights: capabilities, new privileges": _capabilities,
    "rights: a program that runs as its owner": _run_as_root,
    "rights: a user namespace by clone": _new_namespace,
    "kernel: settings": _kernel_settings,
    "kernel: control groups": _control_groups,
    "kernel: typing into a terminal": _type_into_terminal,
    "limits: raise them": _more_of_everything,
    **{f"system call: {name}": _system_call(name) for name in DENIED},
}  # fmt: skip
