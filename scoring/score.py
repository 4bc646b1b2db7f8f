"""A submission and its references to one row per expected image; what cannot be scored is a status, not a number.

Every file is read once and decoded once; networks look only at what they have not seen before.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ntire.entry.manifest import Submission
from ntire.environment import usable_cores
from ntire.method.weights_files import require, verify
from ntire.picture.image import Pixels, UnreadableImage
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.instruments import Instrument, PixelInstrument, Vector, View
from ntire.scoring.metrics import METRICS, Metric
from ntire.scoring.opened import (
    OpenedReferences,
    OwnPictures,
    RefusedPicture,
    ScoredPicture,
    Source,
    Status,
    chunks,
    groups,
    open_references,
)
from ntire.scoring.pixels import MetricError
from ntire.scoring.references import Expected, by_stem
from ntire.scoring.track import Track

BATCH_PIXELS = 1 << 21
"""Of images that go through a network at once: eight faces of 512 x 512, one photograph."""


@dataclass(frozen=True)
class Row:
    """One image of a submission."""

    image: str
    """Relative to `images/`, without the suffix; for tracks that pair by file name, the stem."""
    subset: str
    status: Status
    values: Mapping[str, float] = field(default_factory=dict)
    """Metrics by name, unrounded; a metric that has no value is absent."""
    problem: str = ""
    """What is wrong, for every status but "ok"."""
    code: str = ""
    """Of `ntire check`, where it has one for that."""
    sha256: str = field(default="", compare=False)
    """Of the file that was looked at; empty for one that was refused, or that nobody knows any more."""


@dataclass(frozen=True)
class Scored:
    """All that is known of a submission."""

    submission: Submission
    rows: tuple[Row, ...]
    """In the order of the expected images' names, then what nobody expected."""
    of_set: Mapping[str, float]
    """Metrics over all images together; absent if an image could not be observed. On tracks whose subsets count alike
    also those over a subset, as `<metric>/<subset>`.
    """
    of_present: Mapping[str, float]
    """The same over those images that could be, whatever is missing: what the organisers' program computes."""


@dataclass(frozen=True)
class Listed:
    """A submission and its images by the names of the track."""

    submission: Submission
    pictures: Mapping[str, Path]
    twice: frozenset[str] = frozenset()
    """Names that stand in several folders."""


@dataclass(frozen=True)
class LookedAt:
    """What was found of one image of one submission."""

    row: Row
    features: Mapping[str, Vector] = field(default_factory=dict)
    """What metrics over sets are made of, by their names, with the subset's where subsets count alike."""


@dataclass(frozen=True)
class NotSeen:
    """An image of a submission that has to be looked at."""

    path: Path
    sha256: str
    known: Mapping[str, Vector]
    """Observations of it and its references that were made before."""


class Scorer:
    """Scores submissions of one track by some of its metrics; loads each metric once."""

    def __init__(
        self,
        track: Track,
        metrics: Sequence[str],
        device: str,
        cache: Cache,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        """With the `identities` of other machines these observe, and here only the values of sets are computed.

        Raises UserError (exit code 3) that lists every weights file that is missing, before anything is computed.
        """
        self.track = track
        self.metrics = [METRICS[name] for name in metrics]
        self.device = device
        self.cache = cache
        self.loading_seconds = 0.0
        self.compared: dict[str, tuple[str, str]] = {}
        """sha256 of the truth and of the input of every image that was looked at, by its name; empty where there is none."""
        files = {one.name: one.weights if identities is None else one.statistics for one in self.metrics}
        require(files, dict.fromkeys(files))
        self._instruments: dict[str, Instrument] = {}
        own = {metric.name: metric.identity(device) for metric in self.metrics} if identities is None else identities
        self._identities = dict(own)

    def identities(self) -> dict[str, str]:
        """For each metric, all that its numbers depend on beside the images: versions, weights, device, precision."""
        return dict(self._identities)

    def score(
        self,
        submissions: Sequence[Submission],
        expected: Sequence[Expected],
        report: Callable[[], None] = lambda: None,
        source: Source | None = None,
    ) -> list[Scored]:
        """Score submissions side by side, image by image, so that references are decoded and observed once for all.

        `report` is called for every image of every submission that is done. Strangers' pictures need a `source` of their own.
        """
        source = source or OwnPictures()
        entries = [listed(self.track, one, source) for one in submissions]
        return self.gathered(entries, expected, self.look(entries, expected, source, report))

    def look(
        self,
        entries: Sequence[Listed],
        expected: Sequence[Expected],
        source: Source,
        report: Callable[[], None] = lambda: None,
    ) -> list[list[LookedAt]]:
        """Look at every expected image of every entry; one list an entry."""
        looked: list[list[LookedAt]] = [[] for _ in entries]
        with ThreadPoolExecutor(usable_cores() + 2) as pool:
            for chunk, references in self._groups(expected, pool):
                for number, entry in enumerate(entries):
                    checked = list(pool.map(partial(_checked, source, entry), chunk, references))
                    looked[number] += self._looked(chunk, references, checked, pool)
                    for _ in chunk:
                        report()
        return looked

    def known(
        self, entries: Sequence[Listed], expected: Sequence[Expected], source: Source
    ) -> Iterator[tuple[Expected, OpenedReferences, list[LookedAt | NotSeen]]]:
        """For every expected image what is known of each entry's without decoding it, and which has to be looked at."""
        with ThreadPoolExecutor(usable_cores() + 2) as pool:
            for chunk, references in self._groups(expected, pool):
                of_entries = []
                for entry in entries:
                    checked = pool.map(partial(_checked, source, entry), chunk, references)
                    asked = zip(chunk, references, checked, strict=True)
                    of_entries.append([self._known(*one, pool) for one in asked])
                for number, (one, beside) in enumerate(zip(chunk, references, strict=True)):
                    yield one, beside, [of_entry[number] for of_entry in of_entries]

    def gathered(
        self, entries: Sequence[Listed], expected: Sequence[Expected], looked: Sequence[Sequence[LookedAt]]
    ) -> list[Scored]:
        """What was found of all images of each entry, with the metrics over sets."""
        wanted = Counter(one.subset for one in expected) | {"": len(expected)}
        scored = []
        for entry, images in zip(entries, looked, strict=True):
            features: dict[str, list[Vector]] = {}
            for image in images:
                for name, vector in image.features.items():
                    features.setdefault(name, []).append(vector)
            present = self._of_set(features)
            whole = {name for name, vectors in features.items() if len(vectors) == wanted[name.partition("/")[2]]}
            of_set = self._with_means({name: value for name, value in present.items() if name in whole})
            rows = (*(image.row for image in images), *_unexpected(entry.pictures, expected, self.track))
            scored.append(Scored(entry.submission, rows, of_set, self._with_means(present)))
        return scored

    def _groups(
        self, expected: Sequence[Expected], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Expected], list[OpenedReferences]]]:
        for chunk, references in groups(self.track, expected, pool):
            for one, own in zip(chunk, references, strict=True):
                self.compared[one.name] = own.gt.sha256 if own.gt else "", own.lq.sha256 if own.lq else ""
            yield chunk, references

    def _known(
        self, one: Expected, references: OpenedReferences, image: ScoredPicture | Row, pool: ThreadPoolExecutor
    ) -> LookedAt | NotSeen:
        if isinstance(image, Row):
            return LookedAt(image)
        of_metrics = [self._keys(metric, image, references.of(metric)) for metric in self.metrics]
        keys = {key for own, other in of_metrics for key in (own, other) if key}
        known = self.cache.get(keys)
        if image.examined and len(known) == len(keys):
            (looked,) = self._looked([one], [references], [image], pool)
            return looked
        return NotSeen(image.path, image.sha256, known)

    def _looked(
        self,
        chunk: Sequence[Expected],
        references: Sequence[OpenedReferences],
        checked: Sequence[ScoredPicture | Row],
        pool: ThreadPoolExecutor,
    ) -> list[LookedAt]:
        """What is found of each image of a chunk."""
        values: list[dict[str, float]] = [{} for _ in chunk]
        features: list[dict[str, Vector]] = [{} for _ in chunk]
        problems: list[list[str]] = [[] for _ in chunk]
        statuses: dict[int, Status] = {}
        broken: dict[int, Row] = {number: one for number, one in enumerate(checked) if isinstance(one, Row)}
        for metric in self.metrics:
            wanted, keys = self._asked(metric, references, checked)
            observed = self._observe(metric, wanted, pool)
            for number, (own, other) in keys.items():
                vector, beside = observed[own], observed.get(other)
                if isinstance(vector, UnreadableImage):
                    broken.setdefault(
                        number,
                        Row(chunk[number].name, chunk[number].subset, "unreadable", problem=str(vector), code="E307"),
                    )
                elif isinstance(vector, MetricError) or isinstance(beside, MetricError):
                    error = vector if isinstance(vector, MetricError) else beside
                    problems[number].append(f"{metric.name}: {error}")
                    statuses.setdefault(number, error.status if isinstance(error, MetricError) else "ok")
                elif isinstance(beside, UnreadableImage):
                    raise beside
                elif metric.over == "set":
                    of = f"/{chunk[number].subset}" if self.track.average == "subsets" else ""
                    both = vector if beside is None else np.concatenate([vector, beside])
                    features[number][f"{metric.name}{of}"] = both
                elif metric.of_pair is not None and beside is not None:
                    values[number][metric.name] = metric.of_pair(vector, beside)
                else:
                    values[number][metric.name] = float(vector[0])
        return [
            LookedAt(
                broken.get(number)
                or Row(
                    one.name,
                    one.subset,
                    statuses.get(number, "ok"),
                    values[number],
                    "; ".join(problems[number]),
                    sha256=image.sha256 if isinstance(image, ScoredPicture) else "",
                ),
                features[number],
            )
            for number, (one, image) in enumerate(zip(chunk, checked, strict=True))
        ]

    def _asked(
        self, metric: Metric, references: Sequence[OpenedReferences], checked: Sequence[ScoredPicture | Row]
    ) -> tuple[dict[str, tuple[ScoredPicture, ScoredPicture | None]], dict[int, tuple[str, str]]]:
        """What a metric is to observe, by its cache keys, and the two keys of each image."""
        wanted: dict[str, tuple[ScoredPicture, ScoredPicture | None]] = {}
        keys: dict[int, tuple[str, str]] = {}
        for number, image in enumerate(checked):
            if isinstance(image, Row):
                continue
            reference = references[number].of(metric)
            own, other = self._keys(metric, image, reference)
            keys[number] = own, other
            wanted[own] = image, None if metric.apart else reference
            if metric.apart and reference is not None:
                wanted[other] = reference, None
        return wanted, keys

    def _keys(self, metric: Metric, image: ScoredPicture, reference: ScoredPicture | None) -> tuple[str, str]:
        """Cache keys of an image's observation and, where both sides are observed apart, of its reference's."""
        common = (self._identities[metric.name], str(self.track.border_of(metric.name)))
        if metric.apart and reference is not None:
            points = repr(image.landmarks)
            cut = (f"/ {reference.multiple}",) if reference.multiple > 1 else ()
            return key_of(*common, image.sha256, points), key_of(*common, reference.sha256, points, *cut)
        beside = f"{reference.sha256} / {reference.multiple}" if reference else ""
        beside += f" / {reference.corner}" if reference and reference.corner else ""
        return key_of(*common, image.sha256, beside), ""

    def _observe(
        self, metric: Metric, wanted: Mapping[str, tuple[ScoredPicture, ScoredPicture | None]], pool: ThreadPoolExecutor
    ) -> dict[str, Vector | MetricError | UnreadableImage]:
        """Observations by key: those that were made before, then the rest in batches of one size."""
        found: dict[str, Vector | MetricError | UnreadableImage] = dict(self.cache.get(wanted))
        todo = {key: pair for key, pair in wanted.items() if key not in found}
        if not todo:
            return found
        views: dict[str, View] = {}
        look = partial(self._view, self.track.border_of(metric.name))
        for key, view in zip(todo, pool.map(look, todo.values()), strict=True):
            if isinstance(view, View):
                views[key] = view
            else:
                found[key] = view
        fresh: dict[str, Vector] = {}
        for key, outcome in self._measure(metric, views, pool):
            found[key] = outcome
            if not isinstance(outcome, MetricError):
                fresh[key] = outcome
        self.cache.put(fresh)
        return found

    def _view(
        self, border: int, pair: tuple[ScoredPicture, ScoredPicture | None]
    ) -> View | MetricError | UnreadableImage:
        image, reference = pair
        if reference is not None:
            reference.open()  # what is wrong with it is no fault of the entry's
        try:
            image.open()
            return image.view(border, reference)
        except (MetricError, UnreadableImage) as error:
            return error

    def _measure(
        self, metric: Metric, views: Mapping[str, View], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[str, Vector | MetricError]]:
        if not views:
            return
        instrument = self._instrument(metric)
        if isinstance(instrument, PixelInstrument):
            yield from zip(views, pool.map(partial(_single, instrument), views.values()), strict=True)
            return
        sizes: dict[tuple[int, ...], list[str]] = {}
        for key, view in views.items():
            sizes.setdefault(view.pixels.shape, []).append(key)
        for alike in sizes.values():
            height, width = views[alike[0]].pixels.shape[:2]
            for keys in chunks(alike, max(min(instrument.batch, BATCH_PIXELS // (height * width)), 1)):
                try:
                    vectors: Sequence[Vector | MetricError] = instrument.observe([views[key] for key in keys])
                except (MetricError, RuntimeError):
                    # One image must not take its batch with it, nor leave a trace in the network: a new one, one by one.
                    del self._instruments[metric.name]
                    instrument = self._instrument(metric)
                    vectors = [_single(instrument, views[key]) for key in keys]
                yield from zip(keys, vectors, strict=True)

    def _instrument(self, metric: Metric) -> Instrument:
        if metric.name not in self._instruments:
            paths = metric.paths()
            for weights in metric.weights:
                verify(weights, paths[weights.file])
            began = time.perf_counter()
            self._instruments[metric.name] = metric.load(self.device, paths)
            self.loading_seconds += time.perf_counter() - began
        return self._instruments[metric.name]

    def _of_set(self, features: Mapping[str, list[Vector]]) -> dict[str, float]:
        known = {metric.name: metric for metric in self.metrics}
        found = {}
        for name, vectors in features.items():
            metric = known[name.partition("/")[0]]
            if metric.of_set is not None and len(vectors) >= 2:
                found[name] = metric.of_set(vectors, metric.paths())
        return found

    def _with_means(self, found: Mapping[str, float]) -> dict[str, float]:
        """With the mean over the subsets of each metric that has a value for all of them."""
        if self.track.average != "subsets":
            return dict(found)
        of = {metric.name: subset_values(found, metric.name) for metric in self.metrics if metric.over == "set"}
        means = {
            name: self.track.mean(values) for name, values in of.items() if values.keys() == self.track.subsets.keys()
        }
        return means | dict(found)


def listed(track: Track, submission: Submission, source: Source) -> Listed:
    """A submission with its images by the names of its track."""
    pictures = source.pictures(submission)
    if track.pair_by == "path":
        return Listed(submission, pictures)
    found, twice = by_stem(pictures)
    return Listed(submission, found, frozenset(twice))


def opened_pairs(
    track: Track, submission: Submission, expected: Sequence[Expected], source: Source
) -> Iterator[tuple[Expected, Pixels, Pixels] | Row]:
    """The pixels of every expected image, restored and truth in levels of 255, or the row that says why it has none."""
    entry = listed(track, submission, source)
    for one in expected:
        references = open_references(track, one)
        found = _checked(source, entry, one, references)
        if isinstance(found, Row) or references.gt is None:
            yield (
                found if isinstance(found, Row) else Row(one.name, one.subset, "missing", problem="has no ground truth")
            )
            continue
        try:
            yield one, found.open(), references.gt.open()
        except UnreadableImage as error:
            yield Row(one.name, one.subset, "unreadable", problem=str(error), code="E307")


def _checked(source: Source, entry: Listed, one: Expected, references: OpenedReferences) -> ScoredPicture | Row:
    """The submitted image, ready to be decoded, or the row that says why it is not."""
    if one.name not in entry.pictures:
        found: ScoredPicture | RefusedPicture = RefusedPicture(
            "missing", f"expected {one.name}.png, found no such file", "E301"
        )
    elif one.name in entry.twice:
        problem = f"{one.name} stands in several folders, and which one is meant is unknown"
        found = RefusedPicture("duplicate", problem, "E303")
    else:
        found = source.open(entry.submission, entry.pictures[one.name], references.asked)
    if isinstance(found, RefusedPicture):
        return Row(one.name, one.subset, found.status, problem=found.problem, code=found.code)
    found.landmarks = one.landmarks
    return found


def _unexpected(pictures: Mapping[str, Path], expected: Sequence[Expected], track: Track) -> Iterator[Row]:
    names = {one.name for one in expected}
    for name in sorted(set(pictures) - names):
        first = name.partition("/")[0]
        subset = first if first in track.subsets else ""
        yield Row(name, subset, "unexpected", problem="the track has no such picture", code="E302")


def _single(instrument: Instrument, view: View) -> Vector | MetricError:
    try:
        return instrument.observe([view])[0]
    except MetricError as error:
        return error


def subset_values(of_set: Mapping[str, float], metric: str) -> dict[str, float]:
    """What `<metric>/<subset>` says of each subset."""
    return {name.partition("/")[2]: value for name, value in of_set.items() if name.startswith(f"{metric}/")}
