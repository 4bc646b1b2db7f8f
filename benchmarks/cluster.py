"""What an engine costs and survives: overhead over a plain run, scaling of a task of one second, and workers that are killed.

    python benchmarks/cluster.py overhead --pictures 450 --rounds 1
    python benchmarks/cluster.py scaling --slots 1 2 4 8
    python benchmarks/cluster.py kills --pictures 450 --kills 6

Overhead is CPU seconds of all processes of a command, Ray's own included: this process adopts what is left of them and waits
for it. Scaling is wall time of tasks that sleep, so that it shows the engine and not the processors.
"""

import argparse
import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
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
}
PR_SET_CHILD_SUBREAPER = 36
console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "scaling", "kills"))
    parser.add_argument("--pictures", type=int, default=450, help=f"of {SIDE} x {SIDE}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=1.0, help="that a task of scaling sleeps")
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as name:
        if options.what == "overhead":
            overhead(Path(name), options.pictures, options.rounds)
        elif options.what == "scaling":
            scaling(options.slots, options.seconds)
        else:
            kills(Path(name), options.pictures, options.kills)


def overhead(folder: Path, count: int, rounds: int) -> None:
    """CPU seconds of one picture and of all, each way; the difference is what more pictures cost."""
    make_pictures(folder / "one", 1)
    make_pictures(folder / "all", count)
    found: dict[str, dict[str, list[float]]] = {way: {"one": [], "all": []} for way in WAYS}
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            for many in ("one", "all"):
                found[way][many].append(cpu_seconds(command(folder / many, folder / f"{way}-{many}-{number}", way)))
    base = {many: median(found["plain"][many]) for many in ("one", "all")}
    for way, seconds in found.items():
        one, all_of_them = median(seconds["one"]), median(seconds["all"])
        more = (all_of_them - one) / (base["all"] - base["one"])
        console.print(
            f"{way:6} 1 picture {one:6.1f} CPU s, {count} pictures {all_of_them:6.1f} CPU s: "
            f"{all_of_them / base['all']:.2f} x plain; the {count - 1} more {more:.2f} x plain"
        )


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


def kills(folder: Path, count: int, times: int) -> None:
    """Workers of a run are killed one after the other; its images are those of a plain run."""
    make_pictures(folder / "all", count)
    cpu_seconds(command(folder / "all", folder / "plain", "plain"))
    for way in ("local", "ray"):
        run = subprocess.Popen(
            [str(word) for word in command(folder / "all", folder / way, way)], stderr=subprocess.DEVNULL
        )
        killed: list[int] = []
        threading.Thread(target=kill_workers, args=(run, times, killed), daemon=True).start()
        code = run.wait()
        reap()
        same = images(folder / way) == images(folder / "plain")
        console.print(
            f"{way:6} {len(killed)} workers killed, exit code {code}, {'the same bytes' if same else 'OTHER BYTES'}"
        )


def kill_workers(run: "subprocess.Popen[bytes]", times: int, killed: list[int]) -> None:
    """Kill one of the processes that hold a method, some seconds after each other."""
    draw = random.Random(0)
    while run.poll() is None and len(killed) < times:
        time.sleep(draw.uniform(2, 4))
        workers = [pid for pid in below(os.getpid()) if is_worker(pid)]
        if workers:
            killed.append(draw.choice(workers))
            os.kill(killed[-1], signal.SIGKILL)


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
    """Of a command and of all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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


def make_pictures(folder: Path, count: int) -> None:
    """Noise, smoothed a little."""
    folder.mkdir()
    random_numbers = np.random.default_rng(0)
    for number in range(count):
        small = random_numbers.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:04}.png")


def images(out: Path) -> dict[str, bytes]:
    """The images of a submission folder."""
    return {path.name: path.read_bytes() for path in (out / "images").rglob("*.png")}


if __name__ == "__main__":
    main()
