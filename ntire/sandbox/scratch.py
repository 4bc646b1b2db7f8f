"""Folders of this process for a while, which no end of it leaves behind: not an error, not SIGTERM or SIGHUP, not SIGKILL.

A folder is locked (flock) as long as its process lives. Whoever makes the next one removes those of the same user that nobody
holds. Their names say nothing of what they are for, as code in a sandbox can read them.
"""

import contextlib
import fcntl
import os
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


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end this program as an error does, so that it cleans up; whoever ignores them goes on doing so."""

    def stop(number: int, frame: FrameType | None) -> None:
        # A second one must not interrupt the cleaning up.
        for one in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

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
