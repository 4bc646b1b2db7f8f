"""A submission and its references to one row per expected image; what cannot be scored is a status, not a number.

Every file is read once and decoded once; networks look only at what they have not seen before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from ntire.entry.manifest import Submission
from ntire.files import sha256_of
from ntire.method.weights_files import require, verify
from ntire.picture.image import Header, Pixels, UnreadableImage, cut_to_multiple, decode, header_of, read_bytes
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.identity import Face
from ntire.scoring.instruments import Instrument, PixelInstrument, Vector, View
from ntire.scoring.metrics import METRICS, Metric
from ntire.scoring.pixels import Failure, MetricError, levels
from ntire.scoring.references import Expected, by_stem, pictures_below
from ntire.scoring.track import RESULTS, Result, Track

CHUNK = 16
"""Images that are in memory at once."""

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


@dataclass(frozen=True)
class Scored:
    """All that is known of a submission."""

    submission: Submission
    rows: tuple[Row, ...]
    """In the order of the expected images' names, then what nobody expected."""
    of_set: Mapping[str, float]
    """Metrics over all images together; absent if an image could not be observed."""
    of_present: Mapping[str, float]
    """The same over those images that could be, whatever is missing: what the organisers' program computes."""


@dataclass
class _Image:
    """A file that was read, and its pixels once somebody has asked for them."""

    path: Path
    data: bytes
    sha256: str
    landmarks: Face | None = None
    pixels: Pixels | None = None
    multiple: int = 1
    """Cut to sides of a multiple of it before anything else."""

    def open(self) -> None:
        """Decode it, once. Raises UnreadableImage."""
        if self.pixels is None:
            self.pixels = cut_to_multiple(levels(decode(self.path, self.data)), self.multiple)

    def view(self, border: int, reference: "_Image | None" = None) -> View:
        """What a metric sees; MetricError if nothing is left inside the border."""
        return View(_inside(self, border), _inside(reference, border) if reference else None, self.landmarks)


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
        self, submissions: Sequence[Submission], expected: Sequence[Expected], report: Callable[[], None] = lambda: None
    ) -> list[Scored]:
        """Score submissions side by side, image by image, so that references are decoded and observed once for all.

        `report` is called for every image of every submission that is done.
        """
        restored = [_submitted(submission, self.track) for submission in submissions]
        rows: list[list[Row]] = [[] for _ in submissions]
        features: list[dict[str, list[Vector]]] = [{} for _ in submissions]
        with ThreadPoolExecutor() as pool:
            for chunk in _chunks(expected, CHUNK):
                references = list(pool.map(_references, chunk))
                for number, (pictures, twice) in enumerate(restored):
                    checked = list(
                        pool.map(
                            partial(_checked, pictures=pictures, twice=twice, results=self.track.results),
                            chunk,
                            references,
                        )
                    )
                    rows[number] += self._rows(chunk, references, checked, features[number], pool)
                    for _ in chunk:
                        report()
        scored = []
        for number, submission in enumerate(submissions):
            present = self._of_set(features[number])
            whole = {name for name, vectors in features[number].items() if len(vectors) == len(expected)}
            of_set = {name: value for name, value in present.items() if name in whole}
            unexpected = _unexpected(restored[number][0], expected, self.track)
            scored.append(Scored(submission, (*rows[number], *unexpected), of_set, present))
        return scored

    def _rows(
        self,
        chunk: Sequence[Expected],
        references: Sequence["_References"],
        checked: Sequence["_Image | Row"],
        features: dict[str, list[Vector]],
        pool: ThreadPoolExecutor,
    ) -> list[Row]:
        """One row for each image of a chunk; what sets are made of is appended to `features`."""
        values: list[dict[str, float]] = [{} for _ in chunk]
        problems: list[list[str]] = [[] for _ in chunk]
        statuses: dict[int, Status] = {}
        broken: dict[int, Row] = {number: one for number, one in enumerate(checked) if isinstance(one, Row)}
        for metric in self.metrics:
            wanted: dict[str, tuple[_Image, _Image | None]] = {}
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
                        number, Row(chunk[number].name, chunk[number].subset, "unreadable", problem=str(vector))
                    )
                elif isinstance(vector, MetricError) or isinstance(beside, MetricError):
                    error = vector if isinstance(vector, MetricError) else beside
                    problems[number].append(f"{metric.name}: {error}")
                    statuses.setdefault(number, error.status if isinstance(error, MetricError) else "ok")
                elif isinstance(beside, UnreadableImage):
                    raise beside
                elif metric.over == "set":
                    features.setdefault(metric.name, []).append(vector)
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

    def _keys(self, metric: Metric, image: _Image, reference: _Image | None) -> tuple[str, str]:
        """Cache keys of an image's observation and, where both sides are observed apart, of its reference's."""
        common = (self._identities[metric.name], str(self.track.border))
        if metric.apart and reference is not None:
            points = repr(image.landmarks)
            return key_of(*common, image.sha256, points), key_of(*common, reference.sha256, points)
        beside = f"{reference.sha256} / {reference.multiple}" if reference else ""
        return key_of(*common, image.sha256, beside), ""

    def _observe(
        self, metric: Metric, wanted: Mapping[str, tuple[_Image, _Image | None]], pool: ThreadPoolExecutor
    ) -> dict[str, Vector | MetricError | UnreadableImage]:
        """Observations by key: those that were made before, then the rest in batches of one size."""
        found: dict[str, Vector | MetricError | UnreadableImage] = dict(self.cache.get(wanted))
        todo = {key: pair for key, pair in wanted.items() if key not in found}
        if not todo:
            return found
        views: dict[str, View] = {}
        for key, view in zip(todo, pool.map(self._view, todo.values()), strict=True):
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

    def _view(self, pair: tuple[_Image, _Image | None]) -> View | MetricError | UnreadableImage:
        image, reference = pair
        if reference is not None:
            reference.open()  # what is wrong with it is no fault of the entry's
        try:
            image.open()
            return image.view(self.track.border, reference)
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
            for keys in _chunks(alike, instrument.batch):
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
        found = {}
        for metric in self.metrics:
            vectors = features.get(metric.name, [])
            if metric.of_set is not None and len(vectors) >= 2:
                found[metric.name] = metric.of_set(vectors, metric.paths())
        return found


@dataclass(frozen=True)
class _References:
    """What one expected image is compared with."""

    gt: _Image | None
    lq: _Image | None
    height: int
    width: int

    def of(self, metric: Metric) -> _Image | None:
        return {"gt": self.gt, "lq": self.lq, "nothing": None}[metric.against]


def _references(one: Expected) -> _References:
    gt, lq = (_opened(path, one.landmarks, one.multiple) if path else None for path in (one.gt, one.lq))
    sized = gt or lq
    if sized is None:
        raise ValueError(f"{one.name} has no reference")
    header = header_of(sized.path, sized.data)
    height, width = (side - side % one.multiple for side in (header.height, header.width))
    return _References(gt, lq, height, width)


def _opened(path: Path, landmarks: Face | None, multiple: int = 1) -> _Image:
    data = read_bytes(path)
    return _Image(path, data, sha256_of(data), landmarks, multiple=multiple)


def _submitted(submission: Submission, track: Track) -> tuple[dict[str, Path], set[str]]:
    """The images of an entry by the names of the track, and the names that stand in several folders."""
    pictures = pictures_below(submission.images)
    if track.pair_by == "path":
        return pictures, set()
    found, twice = by_stem(pictures)
    return found, set(twice)


def _checked(
    one: Expected,
    references: _References,
    pictures: Mapping[str, Path],
    twice: set[str],
    results: Sequence[Result],
) -> _Image | Row:
    """The submitted image, ready to be decoded, or the row that says why it is not."""

    def bad(status: Status, problem: str) -> Row:
        return Row(one.name, one.subset, status, problem=problem)

    if one.name not in pictures:
        return bad("missing", f"expected {one.name}.png, found no such file")
    if one.name in twice:
        return bad("duplicate", f"{one.name} stands in several folders, and which one is meant is unknown")
    try:
        image = _opened(pictures[one.name], one.landmarks)
        header = header_of(image.path, image.data)
    except UnreadableImage as error:
        return bad("unreadable", str(error))
    if header.mode != "RGB" or result_of(header) not in results:
        wanted = " or ".join(RESULTS[result] for result in results)
        found = f"{header.format} {header.mode} of {'floats' if header.floating else f'{header.bits} bits'}"
        return bad("wrong format", f"expected {wanted}, found {found}")
    if (header.height, header.width) != (references.height, references.width):
        expected = f"{references.height} x {references.width} as in its reference"
        return bad("wrong size", f"expected {expected}, found {header.height} x {header.width}")
    return image


def result_of(header: Header) -> str:
    """What a file is in the words of a track's `results`."""
    if header.format == "NPY":
        return "npy"
    return f"{header.format.lower()}{'-float' if header.floating else header.bits}"


def _unexpected(pictures: Mapping[str, Path], expected: Sequence[Expected], track: Track) -> Iterator[Row]:
    names = {one.name for one in expected}
    for name in sorted(set(pictures) - names):
        first = name.partition("/")[0]
        subset = first if first in track.subsets else ""
        yield Row(name, subset, "unexpected", problem="the track has no such picture")


def _single(instrument: Instrument, view: View) -> Vector | MetricError:
    try:
        return instrument.observe([view])[0]
    except MetricError as error:
        return error


def _inside(image: _Image, border: int) -> Pixels:
    pixels = image.pixels
    if pixels is None:
        raise ValueError(f"{image.path} is not decoded")
    if min(pixels.shape[:2]) <= 2 * border:
        raise MetricError(f"nothing is left of {pixels.shape[0]} x {pixels.shape[1]} inside a border of {border}")
    return pixels[border:-border, border:-border] if border else pixels


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
