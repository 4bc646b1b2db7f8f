"""200 observers at once: how long `ntire study serve` takes to acknowledge a vote, and whether it lost or doubled any.

    python benchmarks/study_load.py STUDY_FOLDER [--observers 200] [--votes 10] [--think 5]

STUDY_FOLDER is an open study with `least_seconds = 0`, of which a copy is served. Every observer fetches the pictures of
each trial, thinks for about `think` seconds, and votes; clients share the machine with the server.
"""

import argparse
import asyncio
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx

SCREEN = {"width": 1366, "height": 768, "ratio": 1.0, "zoom": 1.0, "dark": 2, "light": 2, "colour": 2}


async def observe(base: str, number: int, votes: int, think: float, took: list[float], sent: list[str]) -> None:
    """One observer, from registration to the last vote."""
    limits = httpx.Limits(max_connections=3)
    async with httpx.AsyncClient(base_url=base, follow_redirects=True, timeout=60, limits=limits) as client:
        await asyncio.sleep(random.random() * think)
        form = re.search(r'name="form" content="([^"]+)"', (await client.get("/")).text)[1]
        await client.post("/register", data={"name": f"observer {number}", "form": form})
        await client.post("/consent", data={"form": form})
        await client.post("/check", json=SCREEN, headers={"X-Form": form})
        asked = (await client.get("/api/trial")).json()
        for _ in range(votes):
            names = [*asked["trial"]["pictures"], *asked["trial"]["beside"]]
            await asyncio.gather(*(client.get(f"/picture/{name}") for name in names))
            await asyncio.sleep(think * (0.5 + random.random()))
            ballot = {
                "position": asked["position"], "nonce": str(uuid.uuid4()), "answers": {"overall": [1, 2]}, "seconds": think,
            }  # fmt: skip
            begun = time.perf_counter()
            answer = await client.post("/api/vote", json=ballot, headers={"X-Form": form})
            took.append(time.perf_counter() - begun)
            answer.raise_for_status()
            sent.append(ballot["nonce"])
            asked = answer.json()


async def crowd(base: str, observers: int, votes: int, think: float) -> tuple[list[float], list[str]]:
    """All of them at once."""
    took: list[float] = []
    sent: list[str] = []
    await asyncio.gather(*(observe(base, number, votes, think, took, sent) for number in range(observers)))
    return took, sent


def main() -> None:
    """Serve a copy, let the crowd in, and compare what was sent with what is stored."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--observers", type=int, default=200)
    parser.add_argument("--votes", type=int, default=10)
    parser.add_argument("--think", type=float, default=5.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = shutil.copytree(
            given.study, Path(scratch) / "study", ignore=shutil.ignore_patterns("votes.sqlite*", "*.lock")
        )
        command = [sys.executable, "-m", "ntire", "study", "serve", str(study), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            base = re.search(r"http\S+", server.stdout.readline())[0]
            took, sent = asyncio.run(crowd(base, given.observers, given.votes, given.think))
            server.terminate()
            server.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        with sqlite3.connect(study / "votes.sqlite") as database:
            stored = [row[0] for row in database.execute("SELECT nonce FROM votes WHERE undone IS NULL")]
    took.sort()
    p50, p95 = (took[int(share * (len(took) - 1))] * 1000 for share in (0.5, 0.95))
    times = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, most {took[-1] * 1000:.0f} ms"
    lost, doubled = len(set(sent) - set(stored)), len(stored) - len(set(stored))
    sys.stdout.write(f"{given.observers} observers, {len(sent)} votes: {times}; lost {lost}, doubled {doubled}\n")
    seconds = used.ru_utime + used.ru_stime
    sys.stdout.write(
        f"the server: {seconds:.1f} s of processor time, start included, {seconds / len(sent) * 1000:.1f} ms a vote\n"
    )


if __name__ == "__main__":
    main()
