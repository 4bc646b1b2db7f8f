"""Scoring by the workers of an engine: each looks at some images of all entries, and what it observed comes back.

    what is known already | what has to be looked at -> tasks -> observations and rows, in any order -> the cache, the tables

The unit is an image, so that its references are decoded and observed once for all entries. Workers say first what their numbers
depend on; only those that agree in it observe, so that a table is made on one kind of device with one version of everything.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ntire import UserError
from ntire.environment import environment
from ntire.method.weights_files import require
from ntire.review.acceptance import Entrance
from ntire.runner.engines import Desk, Engine, State, Task, TaskFile, TaskResult
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.metrics import METRICS
from ntire.scoring.references import Expected
from ntire.scoring.score import Listed, LookedAt, NotSeen, Scored, Scorer, listed

if TYPE_CHECKING:
    from ntire.entry.findings import Finding
    from ntire.entry.manifest import Submission
    from ntire.scoring.instruments import Vector
    from ntire.scoring.track import Track

SECONDS, MOST_SECONDS = 120.0, 300.0
"""A task is made to last so long, and cut between the entries of one image if it would last longer than the second."""
MOST_BYTES = 256 << 20
"""Of a task's files, which may have to be sent; an image of all entries at least."""
ROUNDS = 4
"""Tasks a worker at least, so that the last ones end together."""
PROBED = 4
"""Entries of an image by which the time is measured."""


def identities_of(engine: Engine, metrics: Sequence[str]) -> dict[str, str]:
    """All that the numbers of metrics depend on at most of the workers.

    Raises UserError (exit code 3) with what each machine lacks if none can compute them.
    """
    result = _identified(engine, metrics, "")
    named = Counter(worker.device_name for worker in engine.workers.values() if worker.ready)
    usual, count = named.most_common(1)[0]
    own = engine.workers.get(result.worker)
    if own is not None and named[own.device_name] < count and any("fp32" in one for one in result.value.values()):
        other = _identified(engine, metrics, usual)
        result = result if other.problem else other
    return dict(result.value)


def _identified(engine: Engine, metrics: Sequence[str], device_name: str) -> TaskResult:
    state = State(key_of("metrics of", *metrics, device_name), say_identities, (tuple(metrics), device_name))
    task = Task(state.key, state_of, title=f"the metrics {', '.join(metrics)}", seconds=math.inf, state=state)
    (result,) = engine.run([task])
    if result.problem and not device_name:
        raise UserError(f"no worker can compute {', '.join(metrics)}: {result.problem}", exit_code=3)
    return result


def say_identities(desk: Desk, metrics: Sequence[str], device_name: str) -> dict[str, str]:
    """At a worker: what the numbers of metrics depend on there. Raises UserError (exit code 3) for what it lacks."""
    files = {name: METRICS[name].weights for name in metrics}
    require(files, dict.fromkeys(files))
    if device_name and environment(desk.device)["device"] != device_name:
        raise UserError(f"expected {device_name}, found {environment(desk.device)['device']}", exit_code=3)
    return {name: METRICS[name].identity(desk.device) for name in metrics}


def state_of(desk: Desk) -> object:
    """At a worker: what it has prepared."""
    return desk.state


@dataclass(frozen=True)
class ImageTodo:
    """An image, and the entries whose picture of it has to be looked at."""

    number: int
    """Of the image."""
    one: Expected
    references: Mapping[Path, str]
    """What it is compared with, and the sha256 of each."""
    pictures: Mapping[int, NotSeen]
    """By the number of the entry."""
    cost: float
    """In pixels: those of a reference by the number of entries."""

    def of(self, entries: Iterable[int]) -> ImageTodo:
        """The same for some of its entries."""
        kept = {entry: self.pictures[entry] for entry in entries}
        return replace(self, pictures=kept, cost=self.cost * len(kept) / len(self.pictures))

    @property
    def files(self) -> dict[Path, str]:
        """All that is read for it, and the sha256 of each."""
        return {**self.references, **{one.path: one.sha256 for one in self.pictures.values()}}

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Observed:
    """What a worker found."""

    looked: Mapping[tuple[int, int], LookedAt]
    """By the numbers of image and entry."""
    kept: Mapping[str, Vector]
    """For the cache."""
    count: int
    """Of these, observations of metrics."""
    findings: Mapping[int, tuple[Finding, ...]]
    """What is wrong with pictures, by the number of the entry."""
    seconds: float
    """Without loading networks."""


def score_on(
    engine: Engine,
    scorer: Scorer,
    submissions: Sequence[Submission],
    expected: Sequence[Expected],
    entrance: Entrance,
    report: Callable[[], None] = lambda: None,
) -> list[Scored]:
    """Score submissions as `Scorer.score` does, by the workers of an engine; `scorer` has their identities.

    What tasks observe is in the scorer's cache when they end. Raises UserError (exit code 3) for tasks that failed.
    """
    entries = [listed(scorer.track, one, entrance) for one in submissions]
    work = _Work(engine, scorer, entries, entrance, report)
    failed = []
    for result in engine.run(work.probes(expected), work.others):
        if result.problem:
            failed.append(result)
        else:
            work.take(result.value)
    if failed:
        raise UserError(_failures(failed), exit_code=3)
    return scorer.gathered(entries, expected, work.in_order(len(expected)))


class _Work:
    """What is to be looked at, as tasks, and what was found."""

    def __init__(
        self, engine: Engine, scorer: Scorer, entries: Sequence[Listed], entrance: Entrance, report: Callable[[], None]
    ) -> None:
        self._engine, self._scorer, self._entries = engine, scorer, entries
        self._entrance, self._report = entrance, report
        self._looked: dict[tuple[int, int], LookedAt] = {}
        self._left: list[ImageTodo] = []
        arguments = scorer.track, tuple(one.name for one in scorer.metrics), scorer.identities()
        key = key_of("scorer", scorer.track.model_dump_json(), repr(sorted(arguments[2].items())))
        self._state = State(key, make_scorer, arguments)

    def probes(self, expected: Sequence[Expected]) -> list[Task]:
        """See what is known already; of the rest, a few images to measure the time by, one for each worker."""
        self._left = list(self._todo(expected))
        count = min(max(len(self._engine.workers), 1), len(self._left))
        begin, self._left = self._left[:count], self._left[count:]
        probes = [one.of(list(one.pictures)[:PROBED]) for one in begin]
        self._left += [one.of(list(one.pictures)[PROBED:]) for one in begin if len(one.pictures) > PROBED]
        return [self._task([one], math.inf) for one in probes]

    def others(self, result: TaskResult) -> list[Task]:
        """The other tasks, once the first result says how long they take."""
        left, self._left = self._left, []
        if not left:
            return []
        measured = 0.0 if result.problem else result.value.seconds / sum(one.cost for one in result.task.arguments[0])
        rate = measured or SECONDS  # what is not known goes image by image
        pieces = [piece for one in left for piece in _cut(one, MOST_SECONDS / rate)]
        share = rate * sum(one.cost for one in pieces) / (ROUNDS * max(len(self._engine.workers), 1))
        tasks: list[list[ImageTodo]] = [[]]
        seconds, size = 0.0, 0
        for piece in pieces:
            seconds, size = seconds + rate * piece.cost, size + piece.size
            if tasks[-1] and (seconds > min(SECONDS, share) or size > MOST_BYTES):
                tasks.append([])
                seconds, size = rate * piece.cost, piece.size
            tasks[-1].append(piece)
        return [self._task(one, rate * sum(piece.cost for piece in one)) for one in tasks]

    def take(self, observed: Observed) -> None:
        """Keep what a task has found."""
        cache = self._scorer.cache
        cache.note(observed.kept)
        cache.observed += observed.count
        self._looked |= observed.looked
        for entry, findings in observed.findings.items():
            self._entrance.add(self._entries[entry].submission.root, findings)
        for _ in observed.looked:
            self._report()

    def in_order(self, images: int) -> list[list[LookedAt]]:
        """What was found of every image, one list an entry."""
        return [[self._looked[number, entry] for number in range(images)] for entry in range(len(self._entries))]

    def _todo(self, expected: Sequence[Expected]) -> Iterator[ImageTodo]:
        seen = Entrance(self._scorer.cache, look=False)
        for number, (one, references, images) in enumerate(self._scorer.known(self._entries, expected, seen)):
            pictures = {}
            for entry, image in enumerate(images):
                if isinstance(image, NotSeen):
                    pictures[entry] = image
                else:
                    self._looked[number, entry] = image
                    self._report()
            if pictures:
                beside = {picture.path: picture.sha256 for picture in references.pictures}
                height, width = references.asked.size
                yield ImageTodo(number, one, beside, pictures, float(height * width * len(pictures)))
        for listing in self._entries:
            self._entrance.add(listing.submission.root, seen.found(listing.submission.root))

    def _task(self, images: Sequence[ImageTodo], seconds: float) -> Task:
        entries = sorted({entry for one in images for entry in one.pictures})
        submissions = {entry: self._entries[entry].submission for entry in entries}
        files = {path: sha256 for one in images for path, sha256 in one.files.items()}
        at = {path: Path(os.path.abspath(path)) for path in files}  # noqa: PTH100 - resolve() would follow a link
        what = [
            f"{one.one.name} {submissions[entry].entry} {picture.sha256} {sorted(one.references.values())}"
            for one in images
            for entry, picture in one.pictures.items()
        ]
        more = f" and {len(images) - 1} more" if len(images) > 1 else ""
        return Task(
            key_of("score", self._state.key, *what),
            look_at,
            (tuple(images), submissions, at),
            title=f"{images[0].one.name}{more} of {len(entries)} entries",
            seconds=seconds,
            state=self._state,
            files=tuple(TaskFile(at[path], sha256) for path, sha256 in files.items()),
        )


def _cut(image: ImageTodo, most: float) -> list[ImageTodo]:
    """An image, in parts of some of its entries if all of them cost too much."""
    parts = min(math.ceil(image.cost / most), len(image.pictures))
    entries = list(image.pictures)
    return [image.of(entries[part::parts]) for part in range(parts)]


def _failures(failed: Sequence[TaskResult]) -> str:
    """What went wrong, each cause once."""
    causes: dict[str, list[TaskResult]] = {}
    for one in failed:
        causes.setdefault(one.problem, []).append(one)
    lines = [
        f"{some[0].task.title}{f', and {len(some) - 1} more tasks' if len(some) > 1 else ''}: {problem}"
        for problem, some in causes.items()
    ]
    log = f"\n{failed[0].log.rstrip()}" if failed[0].log.strip() else ""
    return "\n".join(lines) + f"{log}\nWhat the others observed is kept: run the same command again."


def make_scorer(desk: Desk, track: Track, metrics: Sequence[str], identities: Mapping[str, str]) -> Scorer:
    """At a worker: the scorer that it keeps. Raises UserError (exit code 3) if its numbers would be other ones."""
    own = say_identities(desk, metrics, "")
    differing = [f"expected {identities[name]}, found {own[name]}" for name in metrics if own[name] != identities[name]]
    if differing:
        raise UserError("its numbers would not be those of the others: " + "; ".join(differing), exit_code=3)
    return Scorer(track, metrics, desk.device, Cache(None))


class _TaskCache(Cache):
    """What is known to a task, and what it adds."""

    def __init__(self, known: Mapping[str, Vector]) -> None:
        super().__init__(None)
        super().note(known)
        self.added: dict[str, Vector] = {}

    def note(self, vectors: Mapping[str, Vector]) -> None:
        super().note(vectors)
        self.added |= vectors


def look_at(
    desk: Desk, images: Sequence[ImageTodo], submissions: Mapping[int, Submission], at: Mapping[Path, Path]
) -> Observed:
    """At a worker: look at images of entries. `at` is where each file lies on the machine that asks, from the root."""
    scorer: Scorer = desk.state
    known = {key: vector for one in images for own in one.pictures.values() for key, vector in own.known.items()}
    cache = scorer.cache = _TaskCache(known)
    entrance, began, loaded = Entrance(cache), time.perf_counter(), scorer.loading_seconds
    here = {path: desk.here(place) for path, place in at.items()}
    first = {entry: picture.path for one in images for entry, picture in one.pictures.items()}
    roots = {entry: _root(submissions[entry].root, path, here[path]) for entry, path in first.items()}
    alike: dict[tuple[int, ...], list[ImageTodo]] = {}
    for one in images:
        alike.setdefault(tuple(one.pictures), []).append(one)
    looked: dict[tuple[int, int], LookedAt] = {}
    for entries, some in alike.items():
        listings = [
            Listed(
                replace(submissions[entry], root=roots[entry]),
                {one.one.name: here[one.pictures[entry].path] for one in some},
            )
            for entry in entries
        ]
        expected = [
            replace(one.one, gt=one.one.gt and here.get(one.one.gt), lq=one.one.lq and here.get(one.one.lq))
            for one in some
        ]
        for entry, found in zip(entries, scorer.look(listings, expected, entrance), strict=True):
            looked |= {(one.number, entry): image for one, image in zip(some, found, strict=True)}
    seconds = time.perf_counter() - began - (scorer.loading_seconds - loaded)
    there = {str(place): str(path) for path, place in here.items()}
    return Observed(
        {key: replace(one, row=replace(one.row, problem=_said(one.row.problem, there))) for key, one in looked.items()},
        cache.added,
        cache.observed,
        {
            entry: tuple(replace(one, found=_said(one.found, there)) for one in entrance.found(root))
            for entry, root in roots.items()
        },
        seconds,
    )


def _root(root: Path, path: Path, here: Path) -> Path:
    """Where an entry's folder is on the machine where one of its files is `here`."""
    return here.parents[len(path.relative_to(root).parts) - 1]


def _said(text: str, there: Mapping[str, str]) -> str:
    """A message that names files as the machine knows them that asked."""
    for place, path in there.items():
        text = text.replace(place, path)
    return text
