"""How much faster is the scorer than the plain loop, and does it give the same numbers?

The plain loop is what the organisers' program does: one metric after another, one image at a time, each opened again by
each metric; both faces embedded for every pair; the landmarks' table read for every image; FID by a matrix square root.
Both sides run in this process on the same weights, in turn. Weights are random: their values do not change the work.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ntire.entry.manifest import Manifest, Submission
from ntire.environment import keep_freed_memory
from ntire.method.pyiqa_networks import guarded
from ntire.picture.image import encode_png, read_pixels
from ntire.scoring import random_weights
from ntire.scoring.cache import Cache
from ntire.scoring.fid import Features, read_statistics
from ntire.scoring.identity import AdaFace, Face, read_landmarks, write_landmarks
from ntire.scoring.instruments import Instrument, View, as_batch
from ntire.scoring.metrics import METRICS, Metric
from ntire.scoring.references import References, expected_images
from ntire.scoring.score import Scorer
from ntire.scoring.track import Gate, Track

SIDE = 512
FACE = ((193.0, 240.0), (320.0, 241.0), (257.0, 314.0), (202.0, 371.0), (309.0, 371.0))


@dataclass(frozen=True)
class BenchedPart:
    """One metric, or all together."""

    name: str
    plain_s: float
    """CPU seconds of the process, on a GPU of the wall; median over the rounds."""
    ours_s: float
    ratio: float
    """Median over the rounds of plain / ours."""
    difference: float
    """Largest difference between a number of one side and of the other."""


@dataclass(frozen=True)
class ScorerReport:
    """What `ntire bench --scorer` found."""

    parts: tuple[BenchedPart, ...]
    again_s: float
    """Wall seconds for scoring all entries a second time."""
    harness_share: float
    """Share of the time that is not spent inside a metric: reading, decoding, bookkeeping, tables."""
    images: int
    entries: int
    rounds: int
    left_out: tuple[str, ...] = ()
    """Metrics that the time did not suffice for."""


def bench_scorer(
    folder: Path,
    names: Sequence[str],
    images: int,
    entries: int,
    rounds: int,
    device: str = "cpu",
    minutes: float = math.inf,
) -> ScorerReport:
    """Measure in `folder`, with the caches of weights that the environment names; those must not be a user's own.

    After so many minutes no further metric and no further round is begun.
    """
    ends = time.monotonic() + 60 * minutes
    parts: list[BenchedPart] = []
    with _without_hashes(names):
        field = _Field.make(folder, names, images, entries, device)
        for name in names:
            if not parts or time.monotonic() < ends:
                random_weights.write(name)
                parts.append(_part(field, name, rounds, ends))
        measured = [part.name for part in parts]
        field = field.with_metrics(measured)
        plain, ours = (sum(getattr(part, side) for part in parts) for side in ("plain_s", "ours_s"))
        parts.append(BenchedPart("all", plain, ours, plain / ours, max(part.difference for part in parts)))
        share, again = field.overhead()
    left_out = tuple(name for name in names if name not in measured)
    return ScorerReport(tuple(parts), again, share, images, entries, rounds, left_out)


@dataclass(frozen=True)
class _Field:
    """Pictures, entries, and the track that both sides score."""

    track: Track
    submissions: tuple[Submission, ...]
    lq: Path
    landmarks: Path
    device: str

    @classmethod
    def make(cls, folder: Path, names: Sequence[str], images: int, entries: int, device: str) -> "_Field":
        from skimage import data

        photograph = np.ascontiguousarray(data.astronaut()[:SIDE, :SIDE])  # type: ignore[no-untyped-call]
        table = {f"{number:06d}": ("CelebA", Face(FACE)) for number in range(images)}
        submissions = []
        for entry in range(-1, entries):
            root = folder / ("lq" if entry < 0 else f"entry{entry}/images")
            root.mkdir(parents=True, exist_ok=True)
            for number, stem in enumerate(table):
                noise = np.random.default_rng((entry + 1, number)).normal(0, 8, photograph.shape)
                picture = np.roll(photograph, 7 * number, axis=1) + noise
                (root / f"{stem}.png").write_bytes(encode_png(picture.round().clip(0, 255).astype(np.uint8)))
            if entry >= 0:
                manifest = Manifest.model_validate({"team": f"T{entry}", "track": "bench", "date": "2000-01-01"})
                submissions.append(Submission(root.parent, manifest))
        write_landmarks(folder / "landmarks.csv", table)
        gates = [Gate(name="identity", metric="adaface", thresholds={"CelebA": 0.5}, max_failures=10)]
        track = Track(
            name="bench",
            title="bench",
            inputs="face",
            pair_by="stem",
            subsets={"CelebA": images},
            metrics=tuple(names),
            gates=tuple(gates) if "adaface" in names else (),
            source="bench",
        )
        return cls(track, tuple(submissions), folder / "lq", folder / "landmarks.csv", device)

    def with_metrics(self, names: Sequence[str]) -> "_Field":
        """The same with a track of these metrics alone."""
        gates = self.track.gates if "adaface" in names else ()
        return replace(self, track=self.track.model_copy(update={"metrics": tuple(names), "gates": gates}))

    def ours(
        self, names: Sequence[str], cache: Cache, scorer: Scorer | None = None
    ) -> dict[tuple[str, str, str], float]:
        """Values by (entry, image, metric); a set's value stands under an empty image."""
        expected = expected_images(self.track, References(None, self.lq, self.landmarks), names)
        scorer = scorer or Scorer(self.track, names, self.device, cache)
        found: dict[tuple[str, str, str], float] = {}
        for scored in scorer.score(self.submissions, expected):
            entry = scored.submission.entry
            found |= {(entry, row.image, name): value for row in scored.rows for name, value in row.values.items()}
            found |= {(entry, "", name): value for name, value in scored.of_set.items()}
        return found

    def overhead(self) -> tuple[float, float]:
        """Share of the harness in a first scoring, and the seconds of a second one."""
        inside = 0.0

        def timed(instrument: Instrument) -> Instrument:
            observe = instrument.observe

            def measured(views: Sequence[View]) -> Any:
                nonlocal inside
                began = _now(self.device)
                observed = observe(views)
                inside += _now(self.device) - began
                return observed

            instrument.observe = measured  # type: ignore[method-assign]
            return instrument

        with Cache(None) as cache:
            scorer = Scorer(self.track, self.track.metrics, self.device, cache)
            for metric in scorer.metrics:
                timed(scorer._instrument(metric))
            scorer.metrics = [_instant_set(metric) for metric in scorer.metrics]
            began = _now(self.device)
            self.ours(self.track.metrics, cache, scorer)
            total = _now(self.device) - began
            clock = time.perf_counter()
            self.ours(self.track.metrics, cache, scorer)
            return 1 - inside / total, time.perf_counter() - clock


def _instant_set(metric: Metric) -> Metric:
    """The distance between sets is a metric's work, not the harness's."""
    return replace(metric, of_set=lambda vectors, paths: 0.0) if metric.of_set else metric


def _part(field: _Field, name: str, rounds: int, ends: float) -> BenchedPart:
    """Both sides in turn, the second round in the other order, no round but the first after `ends`; models are loaded before
    the clock starts.
    """
    plain = _PLAIN.get(name, _plain_iqa)(field, name)
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    values: dict[str, dict[tuple[str, str, str], float]] = {}
    loaded = Scorer(field.track, (name,), field.device, Cache(None))
    loaded._instrument(METRICS[name])

    def run_ours() -> dict[tuple[str, str, str], float]:
        loaded.cache = Cache(None)
        return field.ours((name,), loaded.cache, loaded)

    sides: list[tuple[str, Callable[[], dict[tuple[str, str, str], float]]]] = [("plain", plain), ("ours", run_ours)]
    for number in range(rounds):
        if number and time.monotonic() > ends:
            break
        for side, run in sides if number % 2 == 0 else reversed(sides):
            # Both get memory as they would in programs of their own.
            keep_freed_memory(side == "ours")
            began = _now(field.device)
            values[side] = run()
            times[side].append(_now(field.device) - began)
    difference = max(abs(values["plain"][key] - values["ours"][key]) for key in values["ours"])
    ratio = median(one / other for one, other in zip(times["plain"], times["ours"], strict=True))
    return BenchedPart(name, median(times["plain"]), median(times["ours"]), ratio, difference)


def _plain_iqa(field: _Field, name: str) -> Callable[[], dict[tuple[str, str, str], float]]:
    """Pyiqa's own object, called for one image after another."""
    import pyiqa

    with guarded(name):
        options = {"backbone": str(METRICS[name].paths()["RN50.pt"])} if name == "clipiqa" else {}
        metric = pyiqa.create_metric(name, device=torch.device(field.device), **options)

    def run() -> dict[tuple[str, str, str], float]:
        found = {}
        for submission in field.submissions:
            for path in sorted(submission.images.glob("*.png")):
                found[submission.entry, path.stem, name] = float(metric(_tensor(path, field.device)))
        return found

    return run


def _plain_identity(field: _Field, name: str) -> Callable[[], dict[tuple[str, str, str], float]]:
    gate = METRICS[name].load(field.device, METRICS[name].paths())
    assert isinstance(gate, AdaFace)

    def embedding(path: Path) -> Any:
        _, points = read_landmarks(field.landmarks)[path.stem]
        return gate.observe([View(read_pixels(path), None, points)])[0]

    def run() -> dict[tuple[str, str, str], float]:
        found = {}
        for submission in field.submissions:
            for path in sorted(submission.images.glob("*.png")):
                partner = next(field.lq.rglob(path.name))
                found[submission.entry, path.stem, name] = float(embedding(path) @ embedding(partner))
        return found

    return run


def _plain_fid(field: _Field, name: str) -> Callable[[], dict[tuple[str, str, str], float]]:
    from scipy.linalg import sqrtm

    paths = METRICS[name].paths()
    inception = Features(field.device, paths["pt_inception-2015-12-05-6726825d.pth"])
    mean, covariance = read_statistics(paths["inception_FFHQ_512.pth"])

    def run() -> dict[tuple[str, str, str], float]:
        found = {}
        for submission in field.submissions:
            files = sorted(submission.images.glob("*.png"))
            features = np.stack([inception.observe([View(read_pixels(path))])[0] for path in files])
            own = np.cov(features, rowvar=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                root = sqrtm(own @ covariance)
            shift = ((features.mean(0) - mean) ** 2).sum()
            found[submission.entry, "", name] = float(
                shift + np.trace(own) + np.trace(covariance) - 2 * np.trace(root).real
            )
        return found

    return run


_PLAIN = {"adaface": _plain_identity, "fid": _plain_fid}


def _tensor(path: Path, device: str) -> torch.Tensor:
    return as_batch([read_pixels(path)], torch.device(device))


def _now(device: str) -> float:
    """Seconds: of the process on a CPU, where others are at work, too; of the wall on a GPU, when it has done its work."""
    if not device.startswith("cuda"):
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def _without_hashes(names: Sequence[str]) -> Iterator[None]:
    """Random files do not have the hashes of the real ones."""
    changed = {
        name: replace(METRICS[name], weights=tuple(replace(weights, sha256=None) for weights in METRICS[name].weights))
        for name in names
    }
    own = {name: METRICS[name] for name in names}
    METRICS.update(changed)
    try:
        yield
    finally:
        METRICS.update(own)
