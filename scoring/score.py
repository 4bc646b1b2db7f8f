"""A submission and its references to one row per expected image; what cannot be scored is a status, not a number.

Every file is read once and decoded once; networks look only at what they have not seen before.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

from ntire.entry.manifest import Submission
from ntire.environment import usable_cores
from ntire.files import sha256_of
from ntire.method.weights_files import require, verify
from ntire.picture.header import result_of
from ntire.picture.image import Header, Pixels, UnreadableImage, cut_to_multiple, decode, header_of, read_bytes
from ntire.picture.scale import expected_in_words, found_in_words, result_size
from ntire.picture.suffixes import Result, in_words
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.identity import Face
from ntire.scoring.instruments import Instrument, PixelInstrument, Vector, View
from ntire.scoring.metrics import METRICS, Metric
from ntire.scoring.pixels import Failure, MetricError, levels
from ntire.scoring.references import Expected, by_stem, pictures_below
from ntire.scoring.track import Track

CHUNK, CHUNK_BYTES = 16, 256 << 20
"""Images, and bytes of their pixels, references and one entry's, that are in memory at once; one image at least."""
BATCH_PIXELS = 1 << 21
"""Of images that go through a network at once: eight faces of 512 x 512, one photograph."""

Status = Failure | Literal["ok", "missing", "unexpected", "duplicate", "unreadable", "wrong format", "wrong size"]
Item = TypeVar("Item")


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


@dataclass
class ScoredPicture:
    """A picture that was read, known by its hash, and its pixels once somebody has asked for them."""

    path: Path
    sha256: str
    decode: Callable[[], Pixels]
    """Raises UnreadableImage."""
    landmarks: Face | None = None
    pixels: Pixels | None = None
    multiple: int = 1
    """Cut to sides of a multiple of it before anything else."""
    corner: tuple[int, int] | None = None
    """Height and width of the part at the top left that is the picture, where not all of it is."""

    def open(self) -> Pixels:
        """Decode it, once. Raises UnreadableImage."""
        if self.pixels is None:
            height, width = self.corner or (None, None)
            self.pixels = cut_to_multiple(levels(self.decode())[:height, :width], self.multiple)
        return self.pixels

    def view(self, border: int, reference: "ScoredPicture | None" = None) -> View:
        """What a metric sees; MetricError if nothing is left inside the border."""
        return View(_inside(self, border), _inside(reference, border) if reference else None, self.landmarks)


@dataclass(frozen=True)
class RefusedPicture:
    """Why a submitted picture is not scored."""

    status: Status
    problem: str
    code: str = ""


@dataclass(frozen=True)
class AskedFor:
    """What a submitted picture has to be."""

    size: tuple[int, int]
    """Height and width."""
    results: Sequence[Result]
    """Formats that the track takes."""
    lq: ScoredPicture | None = None
    """The input that it is made from, where that is known."""
    scale: int = 1
    """How many times as large as its input it has to be."""

    def refuse(self, header: Header) -> RefusedPicture | None:
        """What its header says that it should not."""
        if header.mode != "RGB" or result_of(header) not in self.results:
            wanted = in_words(self.results)
            found = f"{header.format} {header.mode} of {'floats' if header.floating else f'{header.bits} bits'}"
            return RefusedPicture("wrong format", f"expected {wanted}, found {found}", "E305")
        if (header.height, header.width) != self.size:
            lq = self.size[0] // self.scale, self.size[1] // self.scale
            expected = expected_in_words(lq, self.scale).replace("as its input", "as in its reference")
            found = found_in_words((header.height, header.width), lq, self.scale)
            return RefusedPicture("wrong size", f"expected {expected}, found {found}", "E304")
        return None


class Source(Protocol):
    """Who reads the pictures of entries."""

    def pictures(self, submission: Submission) -> dict[str, Path]:
        """By their names relative to `images/`, without suffix."""

    def open(self, submission: Submission, path: Path, asked: AskedFor) -> ScoredPicture | RefusedPicture:
        """One picture, if it is what was asked for."""


class OwnPictures:
    """Pictures that ntire itself has written, or that the user trusts: read and decoded in this process."""

    def pictures(self, submission: Submission) -> dict[str, Path]:
        """See `Source`."""
        return pictures_below(submission.images)

    def open(self, submission: Submission, path: Path, asked: AskedFor) -> ScoredPicture | RefusedPicture:
        """See `Source`."""
        try:
            picture, header = _opened(path)
        except UnreadableImage as error:
            return RefusedPicture("unreadable", str(error), "E307")
        return asked.refuse(header) or picture


class Scorer:
    """Scores submissions of one track by some of its metrics; loads each metric once."""

    def __init__(self, track: Track, metrics: Sequence[str], device: str, cache: Cache) -> None:
        """Raises UserError (exit code 3) that lists every weights file that is missing, before anything is computed."""
        self.track = track
        self.metrics = [METRICS[name] for name in metrics]
        self.device = device
        self.cache = cache
        require({one.name: one.weights for one in self.metrics}, {one.name: None for one in self.metrics})
        self._instruments: dict[str, Instrument] = {}
        self._identities = {metric.name: metric.identity(device) for metric in self.metrics}

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
        restored = [_submitted(source.pictures(submission), self.track) for submission in submissions]
        rows: list[list[Row]] = [[] for _ in submissions]
        features: list[dict[str, list[Vector]]] = [{} for _ in submissions]
        with ThreadPoolExecutor(usable_cores() + 2) as pool:
            for chunk, references in _groups(self.track, expected, pool):
                for number, (submission, (pictures, twice)) in enumerate(zip(submissions, restored, strict=True)):
                    open_one = partial(_checked, source, submission, pictures, twice)
                    checked = list(pool.map(open_one, chunk, references))
                    rows[number] += self._rows(chunk, references, checked, features[number], pool)
                    for _ in chunk:
                        report()
        scored = []
        for number, submission in enumerate(submissions):
            present = self._of_set(features[number])
            wanted = Counter(one.subset for one in expected) | {"": len(expected)}
            whole = {
                name for name, vectors in features[number].items() if len(vectors) == wanted[name.partition("/")[2]]
            }
            of_set = self._with_means({name: value for name, value in present.items() if name in whole})
            present = self._with_means(present)
            unexpected = _unexpected(restored[number][0], expected, self.track)
            scored.append(Scored(submission, (*rows[number], *unexpected), of_set, present))
        return scored

    def _rows(
        self,
        chunk: Sequence[Expected],
        references: Sequence["_References"],
        checked: Sequence["ScoredPicture | Row"],
        features: dict[str, list[Vector]],
        pool: ThreadPoolExecutor,
    ) -> list[Row]:
        """One row for each image of a chunk; what sets are made of is appended to `features`."""
        values: list[dict[str, float]] = [{} for _ in chunk]
        problems: list[list[str]] = [[] for _ in chunk]
        statuses: dict[int, Status] = {}
        broken: dict[int, Row] = {number: one for number, one in enumerate(checked) if isinstance(one, Row)}
        for metric in self.metrics:
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
                    features.setdefault(f"{metric.name}{of}", []).append(both)
                elif metric.of_pair is not None and beside is not None:
                    values[number][metric.name] = metric.of_pair(vector, beside)
                else:
                    values[number][metric.name] = float(vector[0])
        return [
            broken.get(number)
            or Row(
                one.name,
                one.subset,
                statuses.get(number, "ok"),
                values[number],
                "; ".join(problems[number]),
            )
            for number, one in enumerate(chunk)
        ]

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
            for keys in _chunks(alike, max(min(instrument.batch, BATCH_PIXELS // (height * width)), 1)):
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
            self._instruments[metric.name] = metric.load(self.device, paths)
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


@dataclass(frozen=True)
class _References:
    """What one expected image is compared with."""

    gt: ScoredPicture | None
    lq: ScoredPicture | None
    asked: AskedFor
    bytes: int
    """Of the pixels, and of as many of an entry."""

    def of(self, metric: Metric) -> ScoredPicture | None:
        return {"gt": self.gt, "lq": self.lq, "nothing": None}[metric.against]


def _references(track: Track, one: Expected) -> _References:
    gt, lq = (_opened(path, one.landmarks, one.multiple) if path else None for path in (one.gt, one.lq))
    sized = gt or lq
    if sized is None:
        raise ValueError(f"{one.name} has no reference")
    # Where the track adds the noise itself, the clean picture is what an entry must not be equal to.
    given = lq or (gt if track.noise_of(one.subset) else None)
    if track.scale > 1:
        size = result_size(track.scale, header_size(lq), header_size(gt))
        if gt is not None and header_size(gt) != size:
            gt[0].corner = size
    else:
        height, width = (side - side % one.multiple for side in (sized[1].height, sized[1].width))
        size = height, width
    asked = AskedFor(size, track.results, given[0] if given else None, track.scale)
    held = [(one[1].height * one[1].width, one[1].bits) for one in (gt, lq) if one]
    held.append((size[0] * size[1], sized[1].bits))
    pixels = sum(area * (3 if bits <= 8 else 12) for area, bits in held)
    return _References(gt[0] if gt else None, lq[0] if lq else None, asked, pixels)


def _groups(
    track: Track, expected: Sequence[Expected], pool: ThreadPoolExecutor
) -> Iterator[tuple[list[Expected], list[_References]]]:
    """Images with their references, opened and not yet decoded, as many as may be in memory at once."""
    for chunk in _chunks(expected, CHUNK):
        waiting = deque(zip(chunk, pool.map(partial(_references, track), chunk), strict=True))
        while waiting:
            group, size = [waiting[0][0]], waiting[0][1].bytes
            references = [waiting.popleft()[1]]
            while waiting and size + waiting[0][1].bytes <= CHUNK_BYTES:
                one, reference = waiting.popleft()
                group.append(one)
                references.append(reference)
                size += reference.bytes
            yield group, references


def opened_pairs(
    track: Track, submission: Submission, expected: Sequence[Expected], source: Source
) -> Iterator[tuple[Expected, Pixels, Pixels] | Row]:
    """The pixels of every expected image, restored and truth in levels of 255, or the row that says why it has none."""
    pictures, twice = _submitted(source.pictures(submission), track)
    for one in expected:
        references = _references(track, one)
        found = _checked(source, submission, pictures, twice, one, references)
        if isinstance(found, Row) or references.gt is None:
            yield (
                found if isinstance(found, Row) else Row(one.name, one.subset, "missing", problem="has no ground truth")
            )
            continue
        try:
            yield one, found.open(), references.gt.open()
        except UnreadableImage as error:
            yield Row(one.name, one.subset, "unreadable", problem=str(error), code="E307")


def header_size(opened: tuple[ScoredPicture, Header] | None) -> tuple[int, int] | None:
    """Height and width of a reference, if there is one."""
    return (opened[1].height, opened[1].width) if opened else None


def _opened(path: Path, landmarks: Face | None = None, multiple: int = 1) -> tuple[ScoredPicture, Header]:
    data = read_bytes(path)
    found = ScoredPicture(path, sha256_of(data), partial(decode, path, data), landmarks, multiple=multiple)
    return found, header_of(path, data)


def _submitted(pictures: dict[str, Path], track: Track) -> tuple[dict[str, Path], set[str]]:
    """The images of an entry by the names of the track, and the names that stand in several folders."""
    if track.pair_by == "path":
        return pictures, set()
    found, twice = by_stem(pictures)
    return found, set(twice)


def _checked(
    source: Source,
    submission: Submission,
    pictures: Mapping[str, Path],
    twice: set[str],
    one: Expected,
    references: _References,
) -> ScoredPicture | Row:
    """The submitted image, ready to be decoded, or the row that says why it is not."""
    if one.name not in pictures:
        found: ScoredPicture | RefusedPicture = RefusedPicture(
            "missing", f"expected {one.name}.png, found no such file", "E301"
        )
    elif one.name in twice:
        problem = f"{one.name} stands in several folders, and which one is meant is unknown"
        found = RefusedPicture("duplicate", problem, "E303")
    else:
        found = source.open(submission, pictures[one.name], references.asked)
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


def _inside(image: ScoredPicture, border: int) -> Pixels:
    pixels = image.pixels
    if pixels is None:
        raise ValueError(f"{image.path} is not decoded")
    if min(pixels.shape[:2]) <= 2 * border:
        raise MetricError(f"nothing is left of {pixels.shape[0]} x {pixels.shape[1]} inside a border of {border}")
    return pixels[border:-border, border:-border] if border else pixels


def subset_values(of_set: Mapping[str, float], metric: str) -> dict[str, float]:
    """What `<metric>/<subset>` says of each subset."""
    return {name.partition("/")[2]: value for name, value in of_set.items() if name.startswith(f"{metric}/")}


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
