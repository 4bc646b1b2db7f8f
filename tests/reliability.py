"""`make reliability`: promises put to the test for a given time. Exit code 1 if one of them is broken.

Hostile archives made by Hypothesis go through `ntire check`; attempts to get out are made from inside the sandbox; runs are
killed with SIGKILL at random moments and started again; and more in `reliability_parts`. Seeds are printed, and `--seed`
repeats a run. The table in the end is that of docs/security.md.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Another package of this name may be installed; ours has no __init__.py.
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [str(ROOT / "tests")]

import numpy as np
import torch
from hypothesis import HealthCheck, given, seed, settings

from ntire import UserError
from ntire.entry.journal import read_journal
from ntire.method import catalogue
from ntire.review.check import check
from ntire.runner.device_worker import Decoded, Device
from ntire.runner.memory_plan import Planner
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import AHEAD, find_inputs, run
from ntire.sandbox.child import Child, Place, why_not
from ntire.sandbox.limits import Limits, means
from tests.made import scene, write_png
from tests.ntire.entry.test_archive import FLIPS, MEMBERS, hostile
from tests.ntire.review.test_growth import PARSED
from tests.ntire.sandbox.test_sandbox import AS_USER, LIGHT, SMALL
from tests.reliability_parts import MORE, TABLE, Outcome

SHARES = {
    "kills": 0.25, "escapes": 0.15, "growth": 0.05, "archives": 0.2,
    "cheats": 0.2, "folders": 0.1, "damage": 0.03, "writers": 0.02,
}  # fmt: skip
"""Of the time."""
MOST = {"archives": 10_000, "escapes": 4_000, "kills": 200}
IN_FLIGHT = 1 + AHEAD + 8 + 1
"""Pictures of a killed run that may be computed and not in the journal: one at the device, those that wait, one for each thread
that writes, and one on its way into the journal."""
LEAST = 40
"""Archives, however short the time: making the first one takes seconds."""
MISBEHAVIOUR = {
    "fork bomb": "while True: os.fork()",
    "memory": "keep = [bytearray(b'x' * (1 << 26)) for _ in range(64)]",
    "1 GB printer": "[print('x' * (1 << 16)) for _ in range(1 << 14)]",
    "sleeper": "time.sleep(600)",
    "sleeper that ignores its parent's death": "import ctypes; ctypes.CDLL(None).prctl(1, 0); time.sleep(600)",
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "exit without output": "os._exit(0)",
    "full disk": "[Path(f'/tmp/{n}').write_bytes(bytes(1 << 20)) for n in range(9)]",
    "huge file": "Path('/out/big').write_bytes(bytes(2 << 20))",
    "open files": "files = [open('/dev/null') for _ in range(500)]",
    "answer without a question": "[os.write(n, b'{}' * 9 + b'\\n') for n in range(3, 9) if os.path.exists(f'/dev/fd/{n}')]",
}


def archives(until: float, start: int) -> Outcome:
    """Archives of strangers through `check`: nothing outside, no traceback, a bounded time for each."""
    outcome = Outcome("hostile archives")
    counts = outcome.counts
    counts.update(tried=0, escapes=0, tracebacks=0)
    slowest = 0.0

    def more() -> bool:
        return counts["tried"] < LEAST or (time.monotonic() < until and counts["tried"] < MOST["archives"])

    def examine(form: str, members: list, flips: list) -> None:
        nonlocal slowest
        if not more():
            return
        with tempfile.TemporaryDirectory() as name:
            inside = Path(name) / "deep" / "down"
            inside.mkdir(parents=True)
            archive = inside / "archive"
            hostile(archive, members, form)
            data = bytearray(archive.read_bytes())
            for place, value in flips:
                data[int(place * len(data))] = value
            archive.write_bytes(data)
            began = time.monotonic()
            try:
                report = check(archive, None, lambda track: None)
                json.dumps(report.as_json(), allow_nan=False)
            except UserError as error:
                outcome.broken.append(f"an archive is called a mistake of the user: {error}")
            except Exception:  # noqa: BLE001 - counting these is what this is for
                counts["tracebacks"] += 1
                outcome.broken.append(traceback.format_exc())
            slowest = max(slowest, time.monotonic() - began)
            counts["tried"] += 1
            there = {path.relative_to(name).as_posix() for path in Path(name).rglob("*")}
            if there != {"deep", "deep/down", "deep/down/archive"} or archive.read_bytes() != data:
                counts["escapes"] += 1
                outcome.broken.append(f"written outside: {sorted(there)}")

    round_number = 0
    while more():
        form = ("zip", "tar", "tgz")[round_number % 3]

        @seed(start + round_number)
        @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(MEMBERS, FLIPS)
        def batch(members: list, flips: list) -> None:
            examine(form, members, flips)  # noqa: B023 - it is called before the next round

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # zipfile's, of two members of one name
            batch()
        round_number += 1
    counts["stopped"] = counts["tried"] - counts["escapes"] - counts["tracebacks"]
    counts["slowest, ms"] = round(1000 * slowest)
    if slowest > 20:
        outcome.broken.append(f"one archive took {slowest:.1f} s")
    return outcome


def escapes(until: float, start: int) -> Outcome:
    """Every way out that we know, again and again, as root and as an ordinary user; then code that takes too much."""
    outcome = Outcome("ways out of the sandbox")
    counts = outcome.counts
    if why_not("bubblewrap"):
        outcome.skipped = why_not("bubblewrap")
        return outcome
    counts.update(tried=0, stopped=0, escapes=0, misbehaved=0, ended=0)
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as service:
        place, secret = _place(Path(name))
        bait = {"secret": str(secret), "port": service.getsockname()[1], "process": os.getpid()}
        rng = random.Random(start)
        misbehaviour = list(MISBEHAVIOUR)
        rng.shuffle(misbehaviour)
        number = 0
        while (time.monotonic() < until or number < 2 * len(misbehaviour)) and counts["tried"] < MOST["escapes"]:
            number += 1
            with Child("bubblewrap", place, SMALL, "ntire.sandbox.escape_attempts") as child:
                answer = child.ask(bait, 60)
            if answer.state != "answered":
                outcome.broken.append(f"the attempts ended: {answer.problem}")
                break
            counts["tried"] += len(answer.fields)
            through = [f"{name}: {one['how']}" for name, one in answer.fields.items() if not one["stopped"]]
            counts.update(stopped=len(answer.fields) - len(through), escapes=len(through))
            outcome.broken += through
            if number <= len(misbehaviour):
                _misbehave(misbehaviour[number - 1], place, outcome)
        if os.geteuid() == 0:
            _as_user(place, outcome)
    return outcome


def _place(folder: Path) -> tuple[Place, Path]:
    for part in ("", "sub", "in"):
        (folder / part).mkdir(mode=0o755, exist_ok=True)
        (folder / part).chmod(0o755)
    write_png(folder / "in" / "a.png", scene())
    secret = folder / "secret"
    secret.write_text("planted")
    return Place(folder / "sub", folder / "in"), secret


def _misbehave(what: str, place: Place, outcome: Outcome) -> None:
    import ntire.sandbox.child as sandbox

    plain, sandbox.RUN_INSIDE = sandbox.RUN_INSIDE, lambda module: LIGHT
    limits = Limits(**{**SMALL.__dict__, "seconds": 3.0})
    began = time.monotonic()
    try:
        with Child("bubblewrap", place, limits) as child:
            process = child._process.pid
            child.begin("cpu")
            child.ask({"op": "load", "file": MISBEHAVIOUR[what]}, 20)
            answer = child.ask({"op": "restore", "path": child.path_of("a.png"), "fingerprint": "a" * 64}, 3.0, 1 << 20)
    finally:
        sandbox.RUN_INSIDE = plain
    outcome.counts["misbehaved"] += 1
    took = time.monotonic() - began
    if answer.fields.get("status") == "done" and what != "answer without a question":
        outcome.broken.append(f"{what}: it was done")
    elif took > 30:
        outcome.broken.append(f"{what}: it took {took:.0f} s")
    elif Path(f"/proc/{process}").exists():
        outcome.broken.append(f"{what}: it is still there")
    else:
        outcome.counts["ended"] += 1


def _as_user(place: Place, outcome: Outcome) -> None:
    """With the system's Python, as ours may lie where only root can go."""
    words = ["setpriv", "--reuid", "1500", "--regid", "1500", "--clear-groups", "/usr/bin/python3", "-c", AS_USER]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([*words, place.code, "/etc/shadow"], capture_output=True, text=True, cwd="/", env=variables)
    if ran.returncode:
        outcome.counts["as a user: not tried"] = 1
        return
    _, _, through = json.loads(ran.stdout)
    outcome.counts["as a user: got through"] = len(through)
    outcome.broken += [f"as a user: {name}" for name in through]


def kills(until: float, start: int) -> Outcome:
    """Three methods over ten pictures, killed at random moments and started again until they are done."""
    outcome = Outcome("kills of a run")
    counts = outcome.counts
    counts.update(
        {"kills": 0, "finished": 0, "wrong values": 0, "lost images": 0, "computed again": 0, "most in flight": 0}
    )
    torch.set_num_threads(1)
    rng = random.Random(start)
    methods = [
        prepare(found, Options())
        for found in (
            catalogue.find("Copy", "srgb"),
            catalogue.load(ROOT / "submissions" / "example" / "median" / "method"),
            catalogue.find("MiAlgo", "srgb"),
        )
    ]
    for method in methods:
        # What planning imports takes seconds, which every fork would spend again.
        Planner(method.method, Options()).plan(torch.zeros(3, 32, 32))
    # A kill leaves the page cache as it is: memory is as good as a disk here, and takes less time.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        for number in range(10):
            write_png(folder / "in" / f"{number}.png", scene(32, 32, seed=number))
        wanted, seconds = {}, {}
        for number, method in enumerate(methods):
            began = time.monotonic()
            _in_a_fork(method, folder, folder / f"whole{number}", None)
            seconds[number] = time.monotonic() - began
            wanted[number] = _pictures(folder / f"whole{number}")
        round_number = 0
        while (round_number == 0 or time.monotonic() < until) and counts["kills"] < MOST["kills"]:
            for number, method in enumerate(methods):
                out = folder / f"killed{round_number}-{number}"
                _kill_until_done(method, folder, out, seconds[number], rng, outcome, until)
                made = _pictures(out)
                counts["lost images"] += len(wanted[number].keys() - made.keys())
                counts["wrong values"] += sum(made[name] != wanted[number].get(name) for name in made)
                if made != wanted[number]:
                    outcome.broken.append(f"{method.method.team}: other bytes than without a kill")
                if list(out.rglob("*.part")):
                    outcome.broken.append(f"{method.method.team}: half a file was left")
            round_number += 1
    return outcome


def _kill_until_done(
    method: object, folder: Path, out: Path, seconds: float, rng: random.Random, outcome: Outcome, until: float
) -> None:
    """Six kills a run; whatever the journal knew before a start must not be computed after it."""
    for attempt in range(7):
        last = attempt == 6 or (attempt > 1 and time.monotonic() > until)
        known = {line["image"] for line in read_journal(out / "journal.jsonl") if line["status"] == "done"}
        with contextlib.suppress(FileNotFoundError):
            (folder / "calls").unlink()
        killed = _in_a_fork(method, folder, out, None if last else rng.uniform(0, 1.1 * seconds))
        calls = (folder / "calls").read_text().split() if (folder / "calls").exists() else []
        outcome.counts["kills"] += killed
        outcome.counts["computed again"] += len(known & set(calls))
        done = {line["image"] for line in read_journal(out / "journal.jsonl")}
        lost = len(set(calls) - done)
        outcome.counts["most in flight"] = max(outcome.counts["most in flight"], lost)
        if lost > IN_FLIGHT:
            outcome.broken.append(f"{lost} pictures were computed and not written when the run was killed")
        if known & set(calls):
            outcome.broken.append(f"computed again although it was done: {sorted(known & set(calls))}")
        if not killed:
            outcome.counts["finished"] += 1
            return


def _in_a_fork(method: object, folder: Path, out: Path, kill_after: float | None) -> bool:
    """Run in a process of its own; whether it was killed before it was done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        try:
            restore = Device.restore

            def noted(device: Device, decoded: Decoded) -> object:
                with (folder / "calls").open("a") as calls:
                    calls.write(f"{decoded.item.name}\n")
                return restore(device, decoded)

            Device.restore = noted
            run(method, find_inputs([folder / "in"], "srgb"), out, "demo-srgb")
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the parent asks for the exit code
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the run failed with exit code {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def _pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "images").glob("*.png")}


def growth(until: float, start: int) -> Outcome:
    """Text of strangers at ten sizes: no parser takes longer than in proportion."""
    outcome = Outcome("text that would hang")
    outcome.counts.update(tried=0, stopped=0, hangs=0)
    for made in PARSED:
        for step in (1, 10):
            with tempfile.TemporaryDirectory() as name:
                parse = made(Path(name), step)
                began = time.process_time()
                try:
                    parse()
                except Exception:  # noqa: BLE001 - counting these is what this is for
                    outcome.broken.append(traceback.format_exc())
                slow = time.process_time() - began > 5
            outcome.counts["tried"] += 1
            outcome.counts["hangs" if slow else "stopped"] += 1
            if slow:
                outcome.broken.append(f"{made.__name__} of size {step} took over 5 s")
    return outcome


PARTS: dict[str, Callable[[float, int], Outcome]] = {
    "archives": archives, "growth": growth, "escapes": escapes, "kills": kills, **MORE,
}  # fmt: skip


def main() -> int:
    """Run the parts and print a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="for everything, at most 15")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="only this part; may be repeated")
    given_words = parser.parse_args()
    start = given_words.seed if given_words.seed is not None else random.SystemRandom().randrange(2**31)
    np.random.seed(0)  # noqa: NPY002 - no part may depend on it
    chosen = given_words.only or list(PARTS)
    minutes = min(given_words.minutes, 15.0)
    share = sum(SHARES[name] for name in chosen)
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    print(f"seed {start}, {minutes:g} minute(s), as {who}, limits by {means()}", flush=True)
    outcomes = []
    # Forks come before there are threads.
    for name in sorted(chosen, key=list(SHARES).index):
        began = time.monotonic()
        outcome = PARTS[name](began + 60 * minutes * SHARES[name] / share, start)
        outcomes.append(outcome)
        shown = outcome.skipped or ", ".join(f"{key} {value}" for key, value in outcome.counts.items())
        print(f"{outcome.name:26} {shown}  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"\n| | {' | '.join(TABLE)} |\n|---|{'---:|' * len(TABLE)}")
    print(*(outcome.row() for outcome in outcomes), "", sep="\n")
    broken = [line for outcome in outcomes for line in outcome.broken]
    for line in broken[:20]:
        print(f"BROKEN: {line}")
    print(f"{len(broken)} promise(s) broken" if broken else "all promises held")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
