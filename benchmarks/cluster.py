"""What an engine costs and survives: overhead over a plain run, scaling of a task of one second, and workers that are killed.

    python benchmarks/cluster.py overhead --pictures 450 --rounds 1
    python benchmarks/cluster.py scaling --slots 1 2 4 8
    python benchmarks/cluster.py kills --pictures 450 --kills 6    (each at a random moment after another shard is finished)

Overhead is CPU seconds of all processes of a command, Ray's own included; `on ray` is a cluster that was there before, of which
counts what it takes meanwhile. Scaling is wall time of tasks that sleep, so that it
shows the engine and not the processors.
"""

import argparse
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from ntire.runner.engines import Desk, Task, open_engine

SIDE = 128
TEAM, TRACK = "MiAlgo", "srgb"
WAYS = {
    "plain": [],
    "local": ["--engine", "local", "--workers", "1"],
    "ray": ["--engine", "ray", "--address", "local", "--workers", "1"],
    "on ray": ["--engine", "ray", "--workers", "1"],
}
MANY_SHARDS = "from ntire.cli import main; from ntire.commands import on_engine; on_engine.SHARDS_EACH = 12; main()"
PR_SET_CHILD_SUBREAPER = 36
console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "scaling", "kills"))
    parser.add_argument("--pictures", type=int, default=450)
    parser.add_argument("--side", type=int, default=SIDE, help="of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=1.0, help="that a task of scaling sleeps")
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as name:
        if options.what == "overhead":
            overhead(Path(name), options.pictures, options.side, options.rounds)
        elif options.what == "scaling":
            scaling(options.slots, options.seconds)
        else:
            kills(Path(name), options.pictures, options.side, options.kills)


def overhead(folder: Path, count: int, side: int, rounds: int) -> None:
    """CPU seconds of one picture and of all, each way; the difference is what more pictures cost."""
    make_pictures(folder / "one", 1, side)
    make_pictures(folder / "all", count, side)
    found: dict[str, dict[str, list[float]]] = {way: {"one": [], "all": []} for way in WAYS}
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            for many in ("one", "all"):
                words = command(folder / many, folder / f"{way}-{many}-{number}", way)
                with cluster() if way == "on ray" else contextlib.nullcontext([]) as more:
                    found[way][many].append(cpu_seconds([*words, *more]))
                reap()
    base = {many: median(found["plain"][many]) for many in ("one", "all")}
    for way, seconds in found.items():
        one, all_of_them = median(seconds["one"]), median(seconds["all"])
        more = (all_of_them - one) / (base["all"] - base["one"])
        console.print(
            f"{way:6} 1 picture {one:6.1f} CPU s, {count} pictures {all_of_them:6.1f} CPU s: "
            f"{all_of_them / base['all']:.2f} x plain; the {count - 1} more {more:.2f} x plain"
        )


@contextlib.contextmanager
def cluster() -> Iterator[list[str]]:
    """A cluster of one node that has come to rest; how a run is told of it."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        time.sleep(10)
        yield ["--address", started.address]
    finally:
        # A minute after the cluster's end Ray ends every process that still asks it what there is.
        started.global_state.disconnect()
        started.shutdown()


def scaling(slots: Sequence[int], seconds: float) -> None:
    """Efficiency of eight tasks a slot, once the workers are there."""
    for engine in ("local", "ray"):
        for count in slots:
            with open_engine(engine, address="local", workers=count, device="cpu") as working:
                warm = [Task(f"warm {number}", sleep, (0.5,)) for number in range(count)]
                working.ready()
                list(working.run(warm))
                began = time.monotonic()
                done = sum(
                    not one.problem for one in working.run(Task(f"{n}", sleep, (seconds,)) for n in range(8 * count))
                )
                wall = time.monotonic() - began
            console.print(
                f"{engine:6} {count} slot(s): {done} tasks in {wall:.2f} s, efficiency {8 * seconds / wall:.3f}"
            )


def sleep(desk: Desk, seconds: float) -> None:
    time.sleep(seconds)


def kills(folder: Path, count: int, side: int, times: int) -> None:
    """Workers of a run are killed one after the other; its images are those of a plain run."""
    make_pictures(folder / "all", count, side)
    cpu_seconds(command(folder / "all", folder / "plain", "plain"))
    reap()
    for way in ("local", "ray"):
        run = subprocess.Popen(
            [str(word) for word in command(folder / "all", folder / way, way)], stderr=subprocess.DEVNULL
        )
        killed: list[int] = []
        threading.Thread(target=kill_workers, args=(run, folder / way, times, killed), daemon=True).start()
        code = run.wait()
        reap()
        same = images(folder / way) == images(folder / "plain")
        console.print(
            f"{way:6} {len(killed)} workers killed, exit code {code}, {'the same bytes' if same else 'OTHER BYTES'}"
        )


def kill_workers(run: "subprocess.Popen[bytes]", out: Path, times: int, killed: list[int]) -> None:
    """Kill one of the processes that hold a method, each time some while after another shard is finished."""
    draw, seen = random.Random(0), 0
    while run.poll() is None and len(killed) < times:
        time.sleep(0.05)
        finished = sum(not one.name.startswith(".") and one.is_dir() for one in (out / "shards").glob("*"))
        workers = [pid for pid in below(os.getpid()) if is_worker(pid)]
        if finished > seen and workers:
            seen = finished
            time.sleep(draw.uniform(0, 0.5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[-1], signal.SIGKILL)
                killed.append(workers[-1])


def is_worker(pid: int) -> bool:
    """Whether a process is one that works for an engine, and has loaded PyTorch."""
    try:
        named = Path(f"/proc/{pid}/cmdline").read_bytes()
        return (b"spawn_main" in named or b"_RemoteWorker" in named) and "libtorch" in Path(
            f"/proc/{pid}/maps"
        ).read_text()
    except OSError:
        return False


def below(pid: int) -> list[int]:
    """All processes that descend from one."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(
                int(status.parent.name)
            )
        except OSError:
            continue
    found = list(parents.get(pid, []))
    for one in found:
        found += parents.get(one, [])
    return found


def cpu_seconds(words: Sequence[Any]) -> float:
    """Of a command and of all that goes on below this process meanwhile, looked up in /proc ten times a second: Ray does not
    wait for its processes.
    """
    before = spent()
    found = dict(before)
    run = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None:
        found |= spent()
        time.sleep(0.1)
    if run.returncode:
        raise SystemExit(f"{words} ended with exit code {run.returncode}")
    return sum(found.values()) - sum(before.values())


def spent() -> dict[tuple[int, str], float]:
    """CPU seconds so far of each process that descends from this one, by its number and when it began."""
    found = {}
    for pid in below(os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[pid, fields[19]] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def reap() -> None:
    """Wait for what a command has left, and end what does not end itself."""
    until = time.monotonic() + 20
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.1)
            if time.monotonic() > until:
                for one in below(os.getpid()):
                    os.kill(one, signal.SIGKILL)


def command(source: Path, out: Path, way: str) -> list[Any]:
    """A run in a process of its own."""
    ours = [
        sys.executable,
        "-m",
        "ntire",
        "run",
        "--team",
        TEAM,
        "--track",
        TRACK,
        source,
        "-o",
        out,
        "--device",
        "cpu",
        "--quiet",
    ]
    return ours + WAYS[way]


def make_pictures(folder: Path, count: int, side: int) -> None:
    """Noise, smoothed a little."""
    folder.mkdir()
    random_numbers = np.random.default_rng(0)
    for number in range(count):
        small = random_numbers.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:04}.png")


def images(out: Path) -> dict[str, bytes]:
    """The images of a submission folder."""
    return {path.name: path.read_bytes() for path in (out / "images").rglob("*.png")}


if __name__ == "__main__":
    main()
