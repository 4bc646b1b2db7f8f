"""Nothing of a process is left behind, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ntire.sandbox.child import sweep_containers
from ntire.sandbox.limits import sweep_groups
from ntire.sandbox.scratch import OWNED, PREFIX, claim, name_of_ours, scratch_folder, sweep

HOLDING = """
import signal, sys, time
from ntire.sandbox.scratch import end_by_signals, scratch_folder
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
end_by_signals()
with scratch_folder() as folder:
    (folder / "entry").mkdir()
    print(folder, flush=True)
    for _ in range(1200):  # short ones: a signal that comes just before a sleep begins is seen after it
        time.sleep(0.05)
"""


def started(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)}
    )
    with process.stdout as said:
        return process, Path(said.readline().strip())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_was_scratch(tmp_path, number):
    process, folder = started(tmp_path)
    assert folder.is_dir()
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_a_signal_is_known_where_a_library_makes_another_exit_of_it():
    code = (
        "import os, signal\nfrom ntire.sandbox.scratch import end_by_signals, received\nassert received() is None\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nend_by_signals()\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except SystemExit:\n    raise received() from None"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 128 + signal.SIGTERM


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_has_is_not(tmp_path):
    killed, left = started(tmp_path)
    living, kept = started(tmp_path)
    killed.kill()
    killed.wait()
    assert left.is_dir()
    assert sweep(tmp_path) == 0, "too young: it may only just have been made"
    assert sweep(tmp_path, young=0) == 1
    assert not left.exists()
    assert kept.is_dir()
    living.terminate()
    living.wait(20)
    assert list(tmp_path.glob(f"{PREFIX}*")) == []


def test_what_is_not_ours_is_never_swept(tmp_path, monkeypatch):
    theirs, elsewhere = tmp_path / f"{PREFIX}x", tmp_path / "precious"
    elsewhere.mkdir()
    theirs.symlink_to(elsewhere)
    (tmp_path / "other").mkdir()
    assert sweep(tmp_path, young=0) == 0
    assert elsewhere.is_dir()
    folder = tmp_path / f"{PREFIX}y"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert sweep(tmp_path, young=0) == 0
    assert claim(folder) is not None
    assert claim(theirs) is None


def test_a_folder_is_gone_after_an_error():
    with pytest.raises(ZeroDivisionError):
        _fails()
    assert not SEEN[0].exists()


SEEN = []


def _fails():
    with scratch_folder() as folder:
        SEEN.append(folder)
        (folder / "a").write_text("b")
        raise ZeroDivisionError


def ended() -> str:
    """A name that a process has given and that has ended since."""
    words = [sys.executable, "-c", "from ntire.sandbox.scratch import name_of_ours as n; print(n())"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_control_groups_of_killed_processes_are_swept(tmp_path):
    left, used, ours = ended(), ended(), name_of_ours()
    for name in (left, used, ours, "system.slice", f"{OWNED}1-1-x"):
        (tmp_path / "groups" / name).mkdir(parents=True)
    (tmp_path / "groups" / used / "cgroup.procs").touch()
    sweep_groups.__wrapped__(tmp_path / "groups")
    assert {one.name for one in (tmp_path / "groups").iterdir()} == {used, ours, "system.slice", f"{OWNED}1-1-x"}


def test_containers_of_killed_processes_are_ended(tmp_path, monkeypatch):
    left, ours = ended(), name_of_ours()
    engine = tmp_path / "docker"
    engine.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\n[ $1 = ps ] && echo {ours} && echo {left} && echo db\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    sweep_containers.__wrapped__("docker")
    listed, killed = (tmp_path / "asked").read_text().splitlines()
    assert killed == f"kill {left}"
    assert "--filter label=ntire=" in listed


def test_the_group_of_a_sandbox_is_gone_after_sigkill_and_a_sweep(tmp_path):
    """From its start to the sweep, with the groups of this machine, where it has any."""
    program = (
        "import time, os\nfrom ntire.sandbox.limits import Limits, hold\n"
        "held = hold(['true'], Limits())\nprint(*held.groups, sep='\\n', flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    groups = [Path(line) for line in ran.stdout.split()]
    assert all(group.is_dir() for group in groups)
    for group in groups:
        sweep_groups.__wrapped__(group.parent)
    assert not any(group.exists() for group in groups)
