"""More of what `make reliability` tries: cheats, entries that are traps, files that rot, two writers at once."""

import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import ntire.sandbox.child as sandbox
from ntire import UserError
from ntire.entry.journal import Journal
from ntire.entry.manifest import content_of
from ntire.entry.verdict import sealed, standing_of
from ntire.scoring.cache import Cache, key_of
from tests.made import scene, write_png
from tests.ntire.review.test_acceptance import HOSTILE, NAMES, content, entry
from tests.ntire.review.test_verify import HONEST, ZOO, in_place_of_torch, made_case

TABLE = {
    "attempts": ("tried", "misbehaved", "kills"),
    "stopped": ("stopped", "ended"),
    "escapes": ("escapes", "as a user: got through"),
    "tracebacks": ("tracebacks",),
    "hangs": ("hangs",),
    "wrong values": ("wrong values", "honest accused"),
    "lost images": ("lost images",),
}
"""Columns, and the counts that go into each."""
CHEATS = ("E603", "E604", "E605", "E606")
LONG = 180
"""Seconds after which scoring a few small entries counts as hanging."""
WRITING = """
import sys
from pathlib import Path
from ntire.files import write_atomically
for number in range(int(sys.argv[2])):
    write_atomically(Path(sys.argv[1]), sys.argv[3].encode() * 300_000)
"""
KEY = b"k" * 32


@dataclass
class Outcome:
    """One line of the table, and what is wrong."""

    name: str
    counts: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    skipped: str = ""

    def row(self) -> str:
        """In Markdown; `-` where a part has no such count."""
        cells = []
        for keys in TABLE.values():
            there = [self.counts[key] for key in keys if key in self.counts]
            cells.append(f"{sum(there):,}" if there else "-")
        return f"| {self.name} | {self.skipped or ' | '.join(cells)} |"


def cheats(until: float, start: int) -> Outcome:
    """Code that looks its answers up, and honest code of every kind, through `verify`."""
    outcome = Outcome("cheats against verify", Counter({"tried": 0, "stopped": 0, "honest": 0, "honest accused": 0}))
    if sandbox.why_not("bubblewrap"):
        outcome.skipped = sandbox.why_not("bubblewrap")
        return outcome
    plain, sandbox.RUN_INSIDE = sandbox.RUN_INSIDE, in_place_of_torch
    try:
        for number, (name, change, codes) in enumerate(_in_turn(random.Random(start))):
            if number >= 4 and time.monotonic() > until:
                break
            _verify(name, change, codes, start + number, outcome)
    finally:
        sandbox.RUN_INSIDE = plain
    return outcome


def _in_turn(rng: random.Random) -> Iterator[tuple[str, Callable, set[str]]]:
    """Cheats and honest methods, one after the other, in an order of their own in each round."""
    dishonest = [(change.__name__, change, codes) for code in CHEATS for change, codes in ZOO[code]]
    honest = [(name, lambda case, body=body: _honest(case, body), set()) for name, body in HONEST.items()]
    while True:
        for two in zip(rng.sample(dishonest, len(dishonest)), rng.choices(honest, k=len(dishonest)), strict=True):
            yield from two


def _honest(case: object, body: str) -> None:
    """Code, and the images that it makes."""
    case.code(body)
    made: dict = {}
    exec(f"import numpy as np, hashlib\ndef run(lq):\n    {body}\n    return lq // 2 + 40", made)
    for number, path in enumerate(sorted(case.lq.rglob("*.png"))):
        lq = scene(64, 72, seed=20 + number)
        write_png(path, lq)
        write_png(case.root / "images" / path.relative_to(case.lq), made["run"](lq.copy()))


def _verify(name: str, change: Callable, codes: set[str], seed: int, outcome: Outcome) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        case = made_case(Path(folder))
        change(case)
        case.options = replace(case.options, seed=seed)
        found = {one.code for one in case.verify().findings}
    if codes:
        outcome.counts["tried"] += 1
        outcome.counts["stopped"] += bool(found & codes)
        outcome.broken += [] if found & codes else [f"{name}, seed {seed}: it passed"]
    else:
        outcome.counts["honest"] += 1
        outcome.counts["honest accused"] += bool(found)
        outcome.broken += [f"{name}, seed {seed}: honest, and accused of {sorted(found)}"] if found else []


def many_directories(field: Path, image: Path) -> None:
    """A TIFF of 32,000 directories, each of which points to the next."""
    image.unlink()
    each = 2 + 12 + 4
    body = b"".join(
        b"\1\0" + b"\0\1\3\0\1\0\0\0\1\0\0\0" + (8 + (number + 1) * each).to_bytes(4, "little")
        for number in range(32_000)
    )
    image.with_suffix(".tif").write_bytes(b"II*\0\x08\0\0\0" + body)


def folders(until: float, start: int) -> Outcome:
    """Entries with links, FIFOs, giants and the like in them, beside an honest one, through `score`."""
    zero = {"tried": 0, "stopped": 0, "escapes": 0, "tracebacks": 0, "hangs": 0, "wrong values": 0}
    outcome = Outcome("hostile folders", Counter(zero))
    rng = random.Random(start)
    traps = [*HOSTILE, many_directories]
    totals = set()
    for number in range(10_000):
        if number and time.monotonic() > until:
            break
        with tempfile.TemporaryDirectory() as name:
            totals.add(_score(Path(name), rng.sample(traps, 4) if number else traps, outcome))
    outcome.counts["wrong values"] += len(totals) - 1
    outcome.broken += [f"an honest entry has other totals: {totals}"] if len(totals) > 1 else []
    return outcome


def _score(folder: Path, traps: list[Callable], outcome: Outcome) -> float | None:
    """Score them beside an honest entry, whose total is returned."""
    for seed, stem in enumerate(NAMES):
        write_png(folder / "gt" / f"{stem}.png", scene(seed=seed))
        write_png(folder / "lq" / f"{stem}.png", scene(seed=seed) // 2)
    entry(folder, "honest")
    for make in traps:
        make(folder, entry(folder, make.__name__) / "images" / "a.png")
    before = content(folder / "entries"), content(folder / "gt")
    words = [sys.executable, "-m", "ntire", "score", folder / "entries", "--gt", folder / "gt", "--lq", folder / "lq"]
    outcome.counts["tried"] += len(traps)
    try:
        ran = subprocess.run([*words, "--json", "--device", "cpu"], capture_output=True, text=True, timeout=LONG)
        lines = {line["entry"]: line for line in json.loads(ran.stdout)}
    except subprocess.TimeoutExpired:
        outcome.counts["hangs"] += 1
        outcome.broken.append(f"scoring {[make.__name__ for make in traps]} hangs")
        return None
    except ValueError:
        outcome.counts["tracebacks"] += 1
        outcome.broken.append(ran.stderr[-2000:])
        return None
    if (content(folder / "entries"), content(folder / "gt")) != before:
        outcome.counts["escapes"] += 1
        outcome.broken.append("scoring has changed an entry or a reference")
    ranked = [make.__name__ for make in traps if lines[make.__name__]["rank"] is not None]
    outcome.counts["stopped"] += len(traps) - len(ranked)
    outcome.broken += [f"{name}: ranked" for name in ranked]
    return lines["honest"]["total"]


def damage(until: float, start: int) -> Outcome:
    """One bit changed at random in a journal, a cache of observations, a signed verdict."""
    zero = {"tried": 0, "stopped": 0, "tracebacks": 0, "wrong values": 0, "lost images": 0}
    outcome = Outcome("damaged files", Counter(zero))
    rng = random.Random(start)
    with tempfile.TemporaryDirectory() as name:
        rotten = [make(Path(name)) for make in (_journal, _cache, _verdict)]
        number = 0
        while number < 60 or time.monotonic() < until:
            path, data, wrong_in = rotten[number % 3]
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            outcome.counts["tried"] += 1
            number += 1
            try:
                wrong, lost = wrong_in()
            except Exception:  # noqa: BLE001 - counting these is what this is for
                outcome.counts["tracebacks"] += 1
                outcome.broken.append(traceback.format_exc())
                continue
            outcome.counts.update({"wrong values": wrong, "lost images": lost, "stopped": not wrong and not lost})
            outcome.broken += (
                [f"{path.name}: {wrong} wrong, {lost} lost after one changed bit"] if wrong or lost else []
            )
    return outcome


Rotten = tuple[Path, bytes, Callable[[], tuple[int, int]]]
"""A file, its bytes, and what asks how many values are wrong and how many images lost."""


def _journal(folder: Path) -> Rotten:
    path, header = folder / "journal.jsonl", {"team": "T", "torch": "2"}
    lines = [{"image": f"{number}", "status": "done", "input_sha256": f"{number}" * 9} for number in range(30)]
    with Journal(path, header) as journal:
        for line in lines:
            journal.append(line)

    def wrong() -> tuple[int, int]:
        try:
            with Journal(path, header) as journal:
                found = journal.lines
        except UserError:
            return 0, 0  # it is left as it is
        # The picture of the line that was changed is made again.
        return sum(line not in lines for line in found), max(0, len(lines) - 1 - len(found))

    return path, path.read_bytes(), wrong


def _cache(folder: Path) -> Rotten:
    vectors = {key_of(str(number)): np.arange(9.0) * number for number in range(30)}
    with Cache(folder / "observations") as cache:
        cache.put(vectors)
    (path,) = (folder / "observations").iterdir()

    def wrong() -> tuple[int, int]:
        with Cache(path.parent) as cache:
            found = cache.get(vectors)
        for merged in path.parent.iterdir():
            merged.unlink()
        changed = sum(not np.array_equal(vector, vectors[key]) for key, vector in found.items())
        return changed, max(0, len(vectors) - 1 - len(found))

    return path, path.read_bytes(), wrong


def _verdict(folder: Path) -> Rotten:
    path, root = folder / "verification.json", folder / "entry"
    write_png(root / "images" / "a.png", scene())
    body = {"verdict": "pass", "of": 2, "images": [{"image": "a"}], "content": content_of(root), "seed": 1}
    path.write_text(json.dumps(sealed(body, KEY), indent=2))
    words = standing_of(path, root, KEY).words

    def wrong() -> tuple[int, int]:
        return int(standing_of(path, root, KEY).words not in ("", words)), 0

    return path, path.read_bytes(), wrong


def writers(until: float, start: int) -> Outcome:
    """Two processes that write one file again and again, and a reader."""
    outcome = Outcome("two writers at once", Counter({"tried": 0, "tracebacks": 0, "wrong values": 0}))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "scores.csv"
        while not outcome.counts["tried"] or time.monotonic() < until:
            words = [sys.executable, "-c", WRITING, path, "100"]
            both = [subprocess.Popen([*words, one], stderr=subprocess.PIPE, text=True) for one in "ab"]
            while any(one.poll() is None for one in both):
                if path.exists():
                    outcome.counts["wrong values"] += path.read_bytes() not in (b"a" * 300_000, b"b" * 300_000)
            for one in both:
                said = one.communicate()[1]
                outcome.counts["tried"] += 100
                outcome.counts["tracebacks"] += one.returncode != 0
                outcome.broken += [said[-1000:]] if one.returncode else []
        if outcome.counts["wrong values"]:
            outcome.broken.append(f"half a file was read {outcome.counts['wrong values']} times")
        left = [one.name for one in Path(name).iterdir() if one != path]
        outcome.broken += [f"left behind: {left}"] if left else []
    return outcome


MORE: dict[str, Callable[[float, int], Outcome]] = {
    "cheats": cheats, "folders": folders, "damage": damage, "writers": writers,
}  # fmt: skip
