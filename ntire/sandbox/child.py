"""Submitted code in a sandbox: no network, nothing to read but what it needs, nothing to write but scratch, limits on all.

    parent (trusted)                         child (`ntire.review.submitted_method_child`, in the sandbox)
      one input copied into /in     ----->     restores it
      one JSON line on its stdin               writes one file to /out, a sized tmpfs
      hears how far it is           <-----     perhaps short lines with the tiles that are done
      reads line and file, bounded  <-----     one JSON line and the bytes of that file on its stdout

The clock is the parent's. What the child says is never unpickled, never longer than asked for, and never believed.
"""

import contextlib
import json
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import ntire
from ntire import UserError, __version__
from ntire.sandbox.limits import Held, Limits, cpu_seconds_of, family, hold, means, memory_of, scratch_of
from ntire.sandbox.scratch import is_left, name_of_ours, scratch_folder
from ntire.sandbox.seccomp import program
from ntire.text import nearest, printable

Backend = Literal["bubblewrap", "docker", "podman", "none"]
BACKENDS: tuple[Backend, ...] = ("bubblewrap", "docker", "podman", "none")
INSTALL = (
    "Install bubblewrap (`apt-get install bubblewrap`, `dnf install bubblewrap`), or a docker or podman with the image "
    "`ntire` of this project's Dockerfile."
)
NOBODY = 61184
"""First of the 4096 user ids that systemd, too, lends to services."""
CONTAINER_SECONDS = 12 * 3600
"""Until a container is ended whatever it does."""
MOST_LINE = 1 << 16
"""Bytes of one answer's JSON line."""
LONGEST_WORD, MOST_WORDS, MOST_PARTS = 64, 10_000, 1 << 20
"""Bytes of a line that says how far the child is, such lines before an answer, and parts of the work that one may name."""
BETWEEN_WORDS = 0.1
"""Seconds within which no second one of them is passed on."""
KEPT = 4096
"""Bytes of what the code prints that are kept, from the beginning and from the end."""
PASSED_ON = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
"""Of the environment: what decides how many threads compute, and with that the last bit of a sum."""
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SCRATCH = ("/dev/shm", "/tmp", "/out")
"""Where the child may write: a tmpfs each."""
READY = "ready inside"
PROBE = f"import sys; sys.path[:0] = sys.argv[2:]; import ntire.sandbox.limits; print({READY!r})"
"""What shows that Python and this project can be found inside, wherever they are installed."""
RUN_INSIDE = "import sys; sys.path[:0] = sys.argv[2:]; from {0} import main; main()".format
"""A program of ours by its module; its arguments are folders to import from."""
INSIDE = "ntire.review.submitted_method_child"
DECODER = "ntire.review.image_check_workers"
ESCAPES = "ntire.sandbox.escape_attempts"

UNCOUNTED = "memory of processes and scratch folders, by a look every 0.1 s; not the kernel's for pipes and sockets"
"""Where no control group is to be had."""
WEAK = (
    "no control group is to be had here, so that memory is limited by rlimits only: of each process by the kernel, of all "
    "together by a look every 0.1 s. Run ntire as root, in a session of systemd, or with docker or podman as the sandbox."
)
State = Literal["answered", "timed out", "died", "over a limit"]


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    state: State
    seconds: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    data: bytes = b""
    problem: str = ""
    """Why nothing came back; empty for "answered"."""


@dataclass(frozen=True)
class Place:
    """What the child may see. Paths on this machine; inside they are mounted read-only under fixed names."""

    code: Path
    """The folder of submitted code: /sub inside."""
    exchange: Path
    """A folder of the parent's in which one input at a time appears: /in inside."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Fetched files that the code declares, by their name in the weights folder."""
    device: str = "cpu"
    shown: tuple[Path, ...] = ()
    """Files and folders that are seen under their own names; not in containers, which have a Python of their own."""


WITHOUT = "`--sandbox none` runs the code with all your rights."


def choose(wanted: str, without: str = WITHOUT) -> Backend:
    """The backend that a user means: `auto` is the first that works here, and never `none`.

    Raises UserError (exit code 3) with what was tried, why it does not work, what to install, and how to go `without`.
    """
    if wanted == "none":
        return "none"
    if wanted not in ("auto", *BACKENDS):
        raise UserError(
            f"--sandbox {wanted}: expected auto, {', '.join(BACKENDS)}.{nearest([wanted], ('auto', *BACKENDS))}"
        )
    candidates = [cast(Backend, wanted)] if wanted != "auto" else [one for one in BACKENDS if one != "none"]
    reasons = []
    for one in candidates:
        reason = why_not(one)
        if not reason:
            return one
        reasons.append(f"  {one}: {reason}")
    raise UserError("no sandbox works here:\n" + "\n".join(reasons) + f"\n{INSTALL} {without}", exit_code=3)


@cache
def why_not(backend: Backend) -> str:
    """Why a backend cannot be used here; empty if it can: it was tried."""
    if backend == "none":
        return ""
    if backend in ("docker", "podman"):
        return _why_no_container(backend)
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    if program() is None:
        return f"no seccomp filter is known for {platform.machine()}"
    with scratch_folder() as folder:
        place = Place(folder, folder)
        folder.chmod(0o755)
        with _filter() as descriptor:
            argv = bubblewrap(place, Limits(), descriptor, _python(PROBE))
            try:
                tried = subprocess.run(argv, capture_output=True, text=True, timeout=20, pass_fds=[descriptor], env={})
            except (OSError, subprocess.SubprocessError) as error:
                return str(error)
    if tried.stdout.strip() == READY:
        return ""
    lines = tried.stderr.strip().splitlines()
    return f"bwrap cannot make a sandbox here: {printable(lines[-1] if lines else f'exit code {tried.returncode}')}"


def _why_no_container(engine: Backend) -> str:
    if shutil.which(engine) is None:
        return f"{engine} is not installed"
    for question, failed in (
        (["info"], "no daemon answers"),
        (["image", "inspect", image()], f"it has no image {image()}"),
    ):
        try:
            asked = subprocess.run([engine, *question], capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if asked.returncode:
            return failed
    return ""


def image() -> str:
    """The container image with this version of ntire."""
    return os.environ.get("NTIRE_IMAGE") or f"ntire:{__version__}"


def weakness(backend: Backend, by: str | None = None) -> str:
    """What to warn of where code is held `by` rlimits only, and what to do; empty where all its memory is limited."""
    return WEAK if backend == "bubblewrap" and (by or means()) == "rlimits" else ""


def describe(backend: Backend, by: str | None = None) -> dict[str, str]:
    """What stands between the code and this machine, for results; `by`: who holds it to its limits, where that is known."""
    by = by or means()
    if backend == "none":
        return {"backend": "none", "warning": "the code ran with all rights of the user", "limits": by}
    if backend != "bubblewrap":
        return {"backend": backend, "image": image(), "limits": backend}
    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, timeout=20).stdout.split()
    return {
        "backend": backend,
        "version": version[-1] if version else "unknown",
        "user": "dropped from root" if os.geteuid() == 0 else "ordinary",
        "limits": by,
        "counted": "all memory" if by != "rlimits" else UNCOUNTED,
        **({"warning": weakness(backend, by)} if weakness(backend, by) else {}),
    }


def bubblewrap(place: Place, limits: Limits, seccomp: int, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in bubblewrap; `seccomp` is a descriptor with the filter.

    Root makes the mounts, gives its user id up for one of nobody's, and only then becomes `argv`: so also a Python in a
    home that only root may enter can be seen inside, and nothing that only root may read. Anybody else gets a user
    namespace, and no other process in it: one of the same user could be written into, and it has no filter.
    """
    root = os.geteuid() == 0
    words = [shutil.which("bwrap") or "bwrap"]
    words += [
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--hostname",
        "ntire",
    ]
    words += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"]
    if root:
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
    else:
        words += ["--as-pid-1", "--unshare-user", "--uid", "65534", "--gid", "65534"]
        words += ["--disable-userns"] if _knows("--disable-userns") else []
    for name, value in environment(place).items():
        words += ["--setenv", name, value]
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += _devices(place.device) if place.device != "cpu" else _seen("/sys/devices/system/cpu")
    # Before everything that is shown, which may lie below one of these.
    for folder in SCRATCH:
        words += ["--perms", "1777", "--size", str(limits.scratch_bytes), "--tmpfs", folder]
    words += _system()
    words += ["--ro-bind", str(place.code), "/sub", "--ro-bind", str(place.exchange), "/in", "--dir", "/weights"]
    for name, path in place.weights.items():
        words += ["--ro-bind", str(path), f"/weights/{name}"]
    for path in place.shown:
        words += _seen(str(path))
    words += f"--remount-ro /dev --remount-ro / --chdir /tmp --seccomp {seccomp} --".split()
    return [*words, *(_dropped() if root else []), *argv]


def container(engine: str, name: str, place: Place, limits: Limits, argv: Sequence[str]) -> list[str]:
    """The same with docker or podman, from the image that has ntire in it."""
    words = [engine, "run", "--name", name, "--label", _label(), "--user", f"{NOBODY}:{NOBODY}"]
    words += [
        "--rm",
        "--interactive",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    ]
    words += ["--workdir", "/tmp", "--hostname", "ntire", "--ulimit", "core=0"]
    words += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)]
    words += ["--pids-limit", str(limits.processes), "--shm-size", str(limits.scratch_bytes)]
    words += ["--ulimit", f"nofile={limits.files}", "--ulimit", f"fsize={limits.file_bytes}"]
    for folder in ("/tmp", "/out"):
        words += ["--tmpfs", f"{folder}:rw,nosuid,nodev,size={limits.scratch_bytes},mode=1777"]
    mounts = {"/sub": place.code, "/in": place.exchange}
    mounts |= {f"/weights/{name}": path for name, path in place.weights.items()}
    for target, path in mounts.items():
        words += ["--mount", f"type=bind,source={path},target={target},readonly"]
    if place.device != "cpu":
        index = place.device.partition(":")[2] or "0"
        words += ["--gpus", f"device={index}"] if engine == "docker" else ["--device", f"nvidia.com/gpu={index}"]
    for key, value in environment(place).items():
        words += ["--env", f"{key}={value}"]
    # If ntire is killed, nobody else ends what does not read its input.
    words += ["--init", "--entrypoint", "/usr/bin/timeout", image(), "--signal=KILL", str(CONTAINER_SECONDS)]
    return [*words, *argv]


def _label() -> str:
    """Of containers that this machine has started: an engine may serve several."""
    return f"ntire={platform.node()}"


@cache
def sweep_containers(engine: str) -> None:
    """End the containers that killed processes of this machine have left."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = [engine, "ps", "--filter", f"label={_label()}", "--format", "{{.Names}}"]
        running = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.split()
        left = [name for name in running if is_left(name)]
        if left:
            subprocess.run([engine, "kill", *left], capture_output=True, timeout=30)


def environment(place: Place) -> dict[str, str]:
    """All that the child finds in its environment."""
    fixed = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "nobody",
        "LOGNAME": "nobody",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "NTIRE_WEIGHTS": "/weights",
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if place.device != "cpu" and "LD_LIBRARY_PATH" in os.environ:
        passed["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return fixed | passed


def _dropped() -> list[str]:
    user = str(NOBODY + os.getpid() % 4096)
    return ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
            "--inh-caps=-all", "--bounding-set=-all", "--"]  # fmt: skip


def _system() -> list[str]:
    """The programs and libraries of the machine, Python and its packages, and of this project what a method builds on."""
    words = ["--ro-bind", "/usr", "/usr"]
    for folder in map(Path, SYSTEM):
        if folder.is_symlink():
            words += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            words += ["--ro-bind", str(folder), str(folder)]
    words += _seen("/etc/ld.so.cache") + _seen("/etc/alternatives")
    ours = Path(ntire.__file__).resolve().parent
    needed = {
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).resolve().parents[1],
        ours,
        ours.parent / "teams",
    }
    shown = [path for path in sorted(needed | set(_packages())) if not path.is_relative_to("/usr")]
    # Below scratch, what leads to them would belong to the child: it gets a tmpfs of its own, which nobody can write.
    own = sorted({top for path in shown for top in _below_scratch(path)})
    words += [word for top in own for word in ("--tmpfs", top)]
    words += [word for path in shown for word in _seen(str(path))]
    return words + [word for top in own for word in ("--remount-ro", top)]


def _below_scratch(path: Path) -> list[str]:
    """The folder directly below scratch that leads to a path; none if the path lies elsewhere or is that folder."""
    parts = [path.relative_to(folder).parts for folder in SCRATCH if path.is_relative_to(folder)]
    return [str(path.parents[len(one) - 2]) for one in parts if len(one) > 1]


def _python(code: str) -> list[str]:
    """The command that runs a line of Python inside; it finds what this process finds in `sys.argv[2:]`."""
    folders = [Path(ntire.__file__).resolve().parents[1], *_packages()]
    return [sys.executable, "-I", "-c", code, "--", *map(str, folders)]


def _packages() -> list[Path]:
    """Folders of installed packages, also where only PYTHONPATH names them."""
    return [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def _seen(path: str) -> list[str]:
    """Mounts that show a path under its own name, if it is there."""
    if not Path(path).exists():
        return []
    # What bwrap makes on the way to a mount, only root could enter.
    way = [word for parent in reversed(Path(path).parents[:-1]) for word in ("--dir", str(parent))]
    return [*way, "--ro-bind", path, path]


def _devices(device: str, root: Path = Path("/")) -> list[str]:
    """Only the nodes of one GPU; CUDA also reads /sys."""
    index = device.partition(":")[2] or "0"
    nodes = [f"nvidia{_minor(int(index), root)}", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"]
    here = [f"/dev/{name}" for name in nodes if (root / "dev" / name).exists()]
    return ["--ro-bind", "/sys", "/sys", *(word for node in here for word in ("--dev-bind", node, node))]


def _minor(index: int, root: Path) -> int:
    """The number of a GPU's device node: in the order of their places on the bus, as /proc has them."""
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "Device Minor":
                found.append(int(value))
    return found[index] if index < len(found) else index


@cache
def _knows(option: str) -> bool:
    return option in subprocess.run(["bwrap", "--help"], capture_output=True, text=True, timeout=20).stdout


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    """A descriptor with the seccomp filter, as bwrap wants it."""
    descriptor = os.memfd_create("seccomp", 0)
    try:
        os.write(descriptor, program(counted=means() != "rlimits") or b"")
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _unseen(words: list[str]) -> tuple[list[str], int]:
    """A command of bwrap with its options in a descriptor: its command line can be read inside."""
    end = words.index("--")
    descriptor = os.memfd_create("options", 0)
    os.write(descriptor, b"".join(word.encode() + b"\0" for word in words[1:end]))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return [words[0], "--args", str(descriptor), *words[end:]], descriptor


class Child:
    """One process in a sandbox, from its start to its certain end. Use it in a `with` statement."""

    def __init__(self, backend: Backend, place: Place, limits: Limits, module: str = INSIDE) -> None:
        """Start a module of ours in the sandbox; raises UserError (exit code 3) if it cannot be started at all."""
        if backend == "none" and module == ESCAPES:
            raise ValueError(f"{module} does damage outside a sandbox")
        self.backend = backend
        self.limits = limits
        self._name = name_of_ours()
        self._scratch = contextlib.ExitStack()
        # Elsewhere it is a tmpfs that only the child sees.
        out = str(self._scratch.enter_context(scratch_folder())) if backend == "none" else "/out"
        inner = _python(RUN_INSIDE(module))
        if backend in ("docker", "podman"):
            sweep_containers(backend)
            inner = ["/opt/ntire/bin/python", *inner[1:5]]
        with _filter() as descriptor, contextlib.ExitStack() as opened:
            passed: list[int] = []
            variables: dict[str, str] | None = {}
            if backend == "bubblewrap":
                words, options = _unseen(bubblewrap(place, limits, descriptor, inner))
                opened.callback(os.close, options)
                self._held = hold(words, limits)
                passed, variables = [descriptor, options], _for_the_launcher()
            elif backend == "none":
                # A program of ours, one process without children, is held by its rlimits.
                self._held = Held(tuple(inner), "rlimits") if module == DECODER else hold(inner, limits)
                variables = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
            else:
                self._held = Held(tuple(container(backend, self._name, place, limits, inner)), backend)
                variables = None
            self.paths = (
                {"code": str(place.code), "in": str(place.exchange), "out": out}
                if backend == "none"
                else {"code": "/sub", "in": "/in", "out": "/out"}
            )
            try:
                self._process = subprocess.Popen(
                    self._held.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    pass_fds=passed, env=variables, start_new_session=True, bufsize=0,
                )  # fmt: skip
            except OSError as error:
                self._held.release()
                raise UserError(f"{self._held.argv[0]}: cannot be started: {error}.", exit_code=3) from None
        self._waiting = b""
        self._printed = _Printed(self._process, limits.printed_bytes, self.kill)
        self._over = ""
        watched = not self._held.whole_memory and module != DECODER
        self._watch = _Watch(self._process.pid, limits.memory_bytes, self._too_much) if watched else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process(self) -> int:
        """The first process, of which all others descend."""
        return self._process.pid

    def cpu_seconds(self) -> float | None:
        """Processor time that it has taken so far, as the kernel counts it; None for a container, which is no child of ours."""
        return None if self.backend in ("docker", "podman") else cpu_seconds_of(family(self._process.pid))

    @property
    def held_by(self) -> str:
        """Who holds it to its limits."""
        return self._held.by

    @property
    def printed(self) -> str:
        """What the code printed, safe to show; its middle is left out if it is long."""
        return printable(self._printed.text())

    def begin(self, device: str) -> Answer:
        """Tell the child its limits and its places; it answers with how it is held, before any code is loaded."""
        request = {"op": "begin", "limits": asdict(self.limits), "device": device, **self.paths}
        return self.ask({**request, "sandboxed": self.backend != "none"}, self.limits.start_seconds)

    def path_of(self, name: str) -> str:
        """What a file in the exchange folder is called inside."""
        return f"{self.paths['in']}/{name}"

    def ask(
        self,
        request: Mapping[str, Any],
        seconds: float,
        most: int = 0,
        heard: Callable[[int, int], None] | None = None,
    ) -> Answer:
        """Send one line and wait for one line and at most `most` bytes; a child that fails at it is ended.

        With `heard`, short lines may come first that say how many parts of the work are done, and of how many: a stranger's
        word, which is passed on seldom, only if it is two whole numbers in order, and prolongs nothing.
        """
        began = time.perf_counter()
        deadline = began + seconds
        if self._waiting:
            return self._ended("died", began, "it answered before it was asked")
        try:
            self._send(json.dumps(request).encode() + b"\n")
            fields = self._answer(deadline, heard)
            size = fields.get("bytes", 0) if isinstance(fields, dict) else None
            if not isinstance(size, int) or not 0 <= size <= most:
                return self._ended("died", began, "its answer is not what was asked for")
            data = self._read(size, deadline)
        except TimeoutError:
            return self._ended("timed out", began, f"no answer within {seconds:g} s")
        except (EOFError, OSError):
            return self._ended("died", began, "")
        except (ValueError, RecursionError):
            return self._ended("died", began, "its answer is not a line of JSON")
        return Answer("answered", time.perf_counter() - began, fields, data)

    def kill(self) -> None:
        """End it and everything that it started."""
        if self.backend in ("docker", "podman"):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run([self.backend, "kill", self._name], capture_output=True, timeout=30)
        # The first process of a namespace takes all others with it; no word of the code's own keeps one of these alive.
        if self._process.poll() is None:
            for one in family(self._process.pid):
                with contextlib.suppress(OSError):
                    os.kill(one, signal.SIGKILL)
        self._held.kill()

    def close(self) -> None:
        """Make sure that nothing of it is left."""
        self.kill()
        self._process.wait()
        if self._watch:
            self._watch.stop()
        self._printed.finish()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._held.release()
        self._scratch.close()

    def _too_much(self) -> None:
        self._over = "memory"
        self.kill()

    def _ended(self, state: State, began: float, problem: str) -> Answer:
        seconds = time.perf_counter() - began
        if state == "died" and not problem:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A pipe may close a moment before its process ends.
                self._process.wait(2)
        code = self._process.poll()
        over = self._over or ("printed text" if self._printed.over else "") or self._held.went_over()
        self.kill()
        self._process.wait()
        if over and state == "died":
            return Answer("over a limit", seconds, problem=f"over its limit of {over}: {self._limit_of(over)}")
        return Answer(state, seconds, problem=problem or _how_it_ended(code))

    def _limit_of(self, what: str) -> str:
        sizes = {
            "memory": f"{self.limits.memory_bytes:,} bytes",
            "processes": f"{self.limits.processes}",
            "printed text": f"{self.limits.printed_bytes:,} bytes",
        }
        return sizes[what]

    def _send(self, data: bytes) -> None:
        if self._process.stdin is None:
            raise OSError
        self._process.stdin.write(data)

    def _answer(self, deadline: float, heard: Callable[[int, int], None] | None) -> Any:
        """The JSON of the first line that is an answer. Raises ValueError for words on the way that are not as they must be."""
        last = -BETWEEN_WORDS
        for _ in range(MOST_WORDS + 1):
            line = self._read_line(deadline)
            said = json.loads(line)
            advanced = said.get("advanced") if heard and len(line) <= LONGEST_WORD and isinstance(said, dict) else None
            if heard is None or advanced is None:
                return said
            done, of = _in_order(advanced)
            if time.perf_counter() - last >= BETWEEN_WORDS:
                last = time.perf_counter()
                heard(done, of)
        raise ValueError("it only says how far it is")

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._waiting:
            if len(self._waiting) > MOST_LINE:
                raise ValueError("a line without an end")
            self._waiting += self._more(deadline)
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _read(self, size: int, deadline: float) -> bytes:
        parts = [self._waiting[:size]]
        self._waiting = self._waiting[size:]
        have = len(parts[0])
        while have < size:
            more = self._more(deadline)
            parts.append(more[: size - have])
            self._waiting = more[size - have :]
            have += len(parts[-1])
        return b"".join(parts)

    def _more(self, deadline: float) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise EOFError
        with selectors.PollSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.perf_counter())):
                raise TimeoutError
        data = os.read(pipe.fileno(), 1 << 20)
        if not data:
            raise EOFError
        return data


def _in_order(advanced: object) -> tuple[int, int]:
    """How many parts are done, and of how many; raises ValueError for anything else."""
    match advanced:
        case [int(done), int(of)] if 0 <= done <= of <= MOST_PARTS and type(done) is type(of) is int:
            return done, of
    raise ValueError("no two whole numbers in order")


def _for_the_launcher() -> dict[str, str]:
    """What systemd-run needs; bwrap, whose own environment can be seen inside, gets nothing."""
    names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS") if means() == "systemd scope" else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "it closed its side and went on without an answer"
    # bwrap and shells tell of a signal as 128 + its number.
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        return f"it ended with {signal.Signals(number).name} and gave no answer"
    return f"it ended with exit code {code} and gave no answer"


class _Printed(threading.Thread):
    """Reads what the code prints, keeps a little of it, and ends a printer that does not stop."""

    def __init__(self, process: subprocess.Popen[bytes], most: int, stop: Any) -> None:
        super().__init__(daemon=True)
        self._pipe = process.stderr
        self._most = most
        self._stop_it = stop
        self._head, self._tail = b"", b""
        self._count = 0
        self.over = False
        self.start()

    def run(self) -> None:
        while self._pipe is not None:
            try:
                data = os.read(self._pipe.fileno(), 1 << 16)
            except (OSError, ValueError):
                return
            if not data:
                return
            self._count += len(data)
            room = KEPT - len(self._head)
            self._head += data[:room]
            self._tail = (self._tail + data[room:])[-KEPT:]
            if self._count > self._most and not self.over:
                self.over = True
                self._stop_it()

    def finish(self) -> None:
        self.join(5)
        if self._pipe is not None:
            self._pipe.close()

    def text(self) -> str:
        left_out = self._count - len(self._head) - len(self._tail)
        middle = f"\n... {left_out:,} bytes ...\n".encode() if left_out > 0 else b""
        return (self._head + middle + self._tail).decode(errors="replace")


class _Watch(threading.Thread):
    """Ends a child that takes too much memory, where no control group does."""

    def __init__(self, process: int, most: int, stop: Any) -> None:
        super().__init__(daemon=True)
        self._process, self._most, self._stop_it = process, most, stop
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.1):
            processes = family(self._process)
            if memory_of(processes) + scratch_of(processes) > self._most:
                self._stop_it()
                return

    def stop(self) -> None:
        self._done.set()
        self.join(5)
