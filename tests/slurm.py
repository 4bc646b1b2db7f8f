"""A real Slurm of one machine for tests: munged, slurmctld and slurmd of Debian's packages, in a folder, on ports of their own.

Nothing of it outlives the process: the daemons die with it, and jobs are ended with the daemons.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "setpriv")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# What is requeued waits for credentials of this life time, two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=10
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


class CannotStart(Exception):
    """The daemons are here and do not come up."""


@dataclass
class Slurm:
    """A cluster that takes jobs."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: object, cwd: Path | None = None) -> str:
        """One of Slurm's commands; what it prints."""
        ran = subprocess.run(
            [*map(str, words)], env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, f"{words}: {ran.stderr}"
        return ran.stdout.strip()

    def states(self) -> dict[str, str]:
        """Of all jobs that the cluster remembers, by number or, of an array, number_task."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait(self, met: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Wait for something, with all logs in the message if it does not come."""
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not after {seconds} s; {self.states()}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        """The end of every log."""
        files = sorted({*self.folder.rglob("*.log"), *self.folder.rglob("slurm-*.out")})
        return "\n".join(f"== {file}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


@contextlib.contextmanager
def one_machine_slurm(folder: Path, path: str) -> Iterator[Slurm]:
    """Slurm in a folder of which the path is short, with two GPUs that are none; `path` is where jobs find programs."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    ports = [_free_port(), _free_port()]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=ports))
    if _version() >= (23, 2):  # older ones look for control groups only where they are asked to
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{path}:{PATH}"}
    slurm = Slurm(folder, environment)
    munge = [
        "--foreground",
        "--force",
        *(f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")),
    ]
    daemons = []
    try:
        for words in (
            ["munged", *munge, f"--socket={folder}/munge.socket"],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "one"],
        ):
            with (folder / f"{words[0]}.log").open("wb") as log:
                # A test process that is killed takes its daemons with it.
                dying = ["setpriv", "--pdeathsig", "KILL", *words]
                daemons.append(subprocess.Popen(dying, env=environment, stdout=log, stderr=log))
        with contextlib.suppress(AssertionError):
            slurm.wait(lambda: _ask(slurm) == "idle" or any(map(subprocess.Popen.poll, daemons)), "the node is up", 60)
        if _ask(slurm) != "idle":
            raise CannotStart(slurm.logs())
        yield slurm
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            slurm.run("scancel", "--signal=KILL", "--full", "--user=root")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()
        _end_all_of(folder)


def _ask(slurm: Slurm) -> str:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=slurm.environment, capture_output=True, text=True, timeout=60
    )
    return asked.stdout.strip()


def _version() -> tuple[int, ...]:
    said = subprocess.run(["slurmd", "-V"], env={"PATH": PATH}, capture_output=True, text=True, timeout=60).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2]))


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _end_all_of(folder: Path) -> None:
    """Steps of jobs are nobody's children: they are known by the configuration in their environment."""
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
