"""What a process has for a while and no end of it leaves behind: not an error, not SIGTERM or SIGHUP, not SIGKILL.

A folder is locked (flock) as long as its process lives. Whoever makes the next one removes those of the same user that nobody
holds. Their names say nothing of what they are for, as code in a sandbox can read them. What cannot be locked, control groups
and containers, has its process in its name.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

PREFIX = "ntire-tmp-"
OWNED = "ntire-of-"
YOUNG = 60.0
"""Seconds in which a folder may not be locked yet."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that only this user can look into, removed in the end."""
    sweep_once()
    folder, lock = _new(Path(tempfile.gettempdir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def claim(folder: Path) -> int | None:
    """Lock a folder for this process; the descriptor that holds it, or None if another process does or it is no folder."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def sweep(root: Path, young: float = YOUNG) -> int:
    """Remove what killed processes of this user have left in a folder; how many."""
    removed = 0
    for left in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = left.lstat()
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < young:
                continue
            lock = claim(left)
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
                removed += 1
    return removed


@cache
def sweep_once() -> None:
    """The same for the system's folder of temporary files, once in a process."""
    sweep(Path(tempfile.gettempdir()))


def name_of_ours() -> str:
    """A new name for something that this process makes and that cannot be locked."""
    return f"{OWNED}{_numbered_by()}-{os.getpid()}-{secrets.token_hex(8)}"


def is_left(name: str) -> bool:
    """Whether a name is one of those and its process has ended; never where processes have other numbers, as in a container."""
    space, _, rest = name.removeprefix(OWNED).partition("-")
    process = rest.partition("-")[0]
    if not name.startswith(OWNED) or space != str(_numbered_by()) or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@cache
def _numbered_by() -> int:
    """The namespace that this process has its number in."""
    return Path("/proc/self/ns/pid").stat().st_ino


class Terminated(SystemExit):
    """SIGTERM or SIGHUP, as a batch system sends before it kills; the exit code is 128 and the signal's number."""

    def __init__(self, number: int, there: str = "what is finished stays") -> None:
        super().__init__(128 + number)
        self.number, self.there = number, there

    @property
    def name(self) -> str:
        """Of the signal."""
        return signal.Signals(self.number).name


_received: list[int] = []


def received() -> Terminated | None:
    """The signal that is ending this program, for whoever finds that a library has made another SystemExit of it."""
    return Terminated(_received[0]) if _received else None


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end this program as an error does, so that it cleans up; whoever ignores them goes on doing so."""

    def stop(number: int, frame: FrameType | None) -> None:
        # A second one must not interrupt the cleaning up.
        for one in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        _received.append(number)
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        return
    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is signal.SIG_DFL:
            signal.signal(one, stop)


def _new(root: Path) -> tuple[Path, int]:
    """A folder and its lock: another process may have taken it for a leftover, and then there is another one."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = claim(folder)
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)
