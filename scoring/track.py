"""A track's rules, read from one TOML and checked: nothing about a track is written in code."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ntire import UserError
from ntire.files import read_toml
from ntire.picture.noise_protocol import NoiseProtocol
from ntire.picture.scale import MOST_SCALE, SCALE_RULE
from ntire.picture.suffixes import Result
from ntire.picture.suffixes import in_words as formats_in_words
from ntire.scoring.budgets import Budgets as Budgets
from ntire.scoring.budgets import Positive
from ntire.scoring.dataset import DATA_SETS, DataSet
from ntire.scoring.efficiency import CostTerm, MeanGate, cost_total
from ntire.scoring.metrics import DEPTH_RULE, METRICS
from ntire.text import markdown_table, meant

RULES = Path(str(files("ntire.scoring"))) / "tracks"
GROUPS = (
    "Challenges", "Pictures of your own, and samples", "Denoising, by what becomes of the noise",
    "MIRAGE (Ren et al., ICLR 2026)", "UIR-LoRA (Zhang et al.) and Lu et al. 2025",
)  # fmt: skip
"""Headings, in the order of their listing."""
PUBLISHED = Path(str(files("ntire.scoring"))) / "published"


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Term(_Rules):
    """One summand of the total: max(floor, offset + scale * mean of the metric over all images)."""

    metric: str
    scale: float
    offset: float = 0.0
    floor: float | None = None

    def of(self, mean: float) -> float:
        """The term's value for a mean."""
        value = self.offset + self.scale * mean
        return value if self.floor is None else max(self.floor, value)

    def in_words(self) -> str:
        """The term as a formula."""
        scaled = self.metric if abs(self.scale) == 1 else f"{abs(self.scale):g} {self.metric}"
        if self.scale < 0:
            summed = f"{self.offset:g} - {scaled}"
        elif self.offset:
            summed = f"{scaled} {'-' if self.offset < 0 else '+'} {abs(self.offset):g}"
        else:
            summed = scaled
        if self.floor is not None:
            return f"max({self.floor:g}, {summed})"
        return f"({summed})" if " " in summed.removeprefix(scaled) or self.scale < 0 else summed


class Gate(_Rules):
    """A test that an entry must pass to be ranked: a metric below its subset's threshold fails an image."""

    name: str
    metric: str
    thresholds: dict[str, float]
    """By subset; an image fails strictly below it."""
    max_failures: Annotated[int, Field(ge=0)]
    """An entry with more failed images is not valid. A missing or unreadable image has failed."""


class Ranking(_Rules):
    """A ranking beside the main one, by terms of its own; the same gates hold."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    terms: tuple[Term, ...] = ()
    costs: tuple[CostTerm, ...] = ()

    def in_words(self) -> str:
        """Its formula."""
        return _summed(self.terms, self.costs)


class Noise(_Rules):
    """White Gaussian noise that the harness itself adds to clean inputs."""

    sigma: Positive
    """Levels of 255."""
    seed: int
    protocol: NoiseProtocol = "rounded"
    """What becomes of the noisy values before a network gets them."""
    multiple: Annotated[int, Field(ge=1)] = 1
    """Pictures and truth are cut about their centre to sides of a multiple of it."""

    def in_words(self) -> str:
        """What is done to a clean picture."""
        return f"Gaussian, sigma {self.sigma:g} of 255, seed {self.seed}, {self.handed()}"

    def handed(self) -> str:
        """The protocol in words."""
        cut = f", on pictures cut about their centre to a multiple of {self.multiple}" if self.multiple > 1 else ""
        return PROTOCOLS[self.protocol] + cut


PROTOCOLS: dict[NoiseProtocol, str] = {
    "rounded": "clipped and rounded to 8 bits",
    "float": "neither clipped nor rounded: the network gets floats beyond [0, 1]",
    "truncated": "clipped and truncated to 8 bits",
}


class Reproduction(_Rules):
    """How far an image may lie from what its code makes and still count as made by it."""

    levels: Annotated[int, Field(ge=0)] = 1
    """Largest difference of a sample."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Of the pixels that differ at all."""


class Final(_Rules):
    """How a part that no program can mark is joined to the total: w2 x total + w3 x (sum of weight x mark)."""

    w2: float = 1.0
    w3: float = 1.0
    inputs: Annotated[dict[str, float], Field(min_length=1)]
    """Weight of each column of the table of marks."""
    remark: str
    """What of this is the organisers' word, and what is inferred."""

    def in_words(self) -> str:
        """The final as a formula."""
        marks = " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in self.inputs.items())
        return f"{self.w2:g} x phase 2 + {self.w3:g} x ({marks})"


class Track(_Rules):
    """The rules of one track and edition."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    title: str
    group: str = ""
    """Under which heading it is listed; by default the tracks of the user's own."""
    inputs: Literal["raw", "srgb", "face", "general", "esr"]
    """The kind of method that can run on it."""
    scale: Annotated[int, Field(ge=1, le=MOST_SCALE)] = 1
    """How many times as high and as wide as its input a result is."""
    default: bool = False
    """Whether `--track <inputs>` means this one."""
    samples: bool = False
    """Whether it is played on the built-in sample set."""
    subsets: dict[str, Annotated[int, Field(gt=0)]] = {}
    """Images per subset; empty where the references say which images there are."""
    average: Literal["images", "subsets"] = "images"
    """Whether a mean is that of all images, or that of the subsets' means, each of which counts alike."""
    pair_by: Literal["path", "stem"] = "path"
    """Whether an image is found by its path below `images/`, or by its file name in whatever folder."""
    border: Annotated[int, Field(ge=0)] = 0
    """Pixels cut from every side before a metric."""
    whole: tuple[str, ...] = ()
    """Metrics for which no border is cut."""
    multiple: Annotated[int, Field(ge=1)] = 1
    """Inputs and truth are cut about their centre to sides of a multiple of it."""
    results: Annotated[tuple[Result, ...], Field(min_length=1)] = ("png8",)
    """What an entry may hand in; any depth is compared in levels of 255."""
    noise: Noise | None = None
    noises: dict[str, Noise] = {}
    """By subset, for subsets whose inputs are clean."""
    data: dict[str, str | DataSet] = {}
    """By subset the data set that it is played on: the name of one that ships, or one of the track's own; `all` where the
    track has no subsets.
    """
    published: str = ""
    """The table of published rows, where it is another than the track's name; `table/subset` for one column of it."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    also: tuple[str, ...] = ()
    """Metrics of the papers' tables beside those, which are computed where they are asked for."""
    terms: tuple[Term, ...] = ()
    costs: tuple[CostTerm, ...] = ()
    """Terms of the total over what a method costs."""
    reference: str = ""
    """The entry, or the team of one, whose costs the others are held against."""
    cost_at: tuple[int, int] | None = None
    """Height and width of the input that multiply-adds and memory of the cost terms are for."""
    runtime_at: tuple[int, int] | None = None
    """The same for runtimes; by default that of the inputs as they are."""
    better: Literal["higher", "lower"] = "higher"
    """Which totals are better; those of cost terms are, if lower."""
    rankings: tuple[Ranking, ...] = ()
    """Sub-tracks: further rankings of the same entries."""
    gates: tuple[Gate, ...] = ()
    mean_gates: tuple[MeanGate, ...] = ()
    """Tests of means, each over the images of one subset."""
    columns: dict[str, str] = {}
    """What published tables call a column that ours call otherwise, such as `flops_g = "macs_g"`."""
    budgets: Budgets = Budgets()
    final: Final | None = None
    """The part that is judged by people and by cost, where there is one; see `ntire leaderboard --phase3`."""
    tie_break: tuple[str, ...] = ()
    """Metrics that decide between equal totals, the first first."""
    decimals: Annotated[int, Field(ge=0, le=10)] = 4
    """Of the printed table; ranks, gates, budgets and files use unrounded values."""
    tolerance: Annotated[float, Field(ge=0)] = 0.01
    """How far a reproduced total may lie from the submitted one."""
    baseline: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Of an entry that the organiser hands out and whose results may be its inputs: its `ntire.entry.manifest.content_of`."""
    reproduction: Reproduction = Reproduction()
    verified: bool = True
    """Whether the formula is the organisers' own; if not, `remark` says why it is used."""
    remark: str = ""
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> "Track":
        for name in (*self.known_metrics, *self.whole):
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
        terms = [*self.terms, *(term for one in self.rankings for term in one.terms)]
        used = [*(term.metric for term in terms), *(gate.metric for gate in self.gates), *self.tie_break]
        used += [gate.metric for gate in self.mean_gates]
        for name in used:
            if name not in self.metrics:
                raise ValueError(f"{name!r} is used but is not among the track's metrics")
        for gate in self.gates:
            if set(gate.thresholds) != set(self.subsets):
                raise ValueError(f"gate {gate.name!r} needs one threshold for each of: {', '.join(self.subsets)}")
            if METRICS[gate.metric].over == "set":
                raise ValueError(f"gate {gate.name!r}: {gate.metric!r} has no value for an image")
        self._costs_are_consistent()
        if self.average == "subsets" and not self.subsets:
            raise ValueError("an average over subsets needs to know them: subsets is empty")
        for name in self.noises:
            if name not in self.subsets:
                raise ValueError(f"noises: {name!r} is not among the subsets")
        known = self.subsets or {"all": 0}
        for name, one in self.data.items():
            if name not in known:
                raise ValueError(f"data: {name!r} is not among the subsets")
            if isinstance(one, str) and not (DATA_SETS / f"{one}.toml").is_file():
                raise ValueError(f"data: there is no data set {one!r} in {DATA_SETS}")
        if not self.verified and not self.remark:
            raise ValueError("a track that is not verified needs a remark that says why")
        return self

    def _costs_are_consistent(self) -> None:
        for gate in self.mean_gates:
            if self.average != "subsets":
                raise ValueError(f'mean gate {gate.name!r} needs means by subset: average is not "subsets"')
            for subset in gate.least:
                if subset not in self.subsets:
                    raise ValueError(
                        f"mean gate {gate.name!r}: {subset!r} is not among the data sets: {', '.join(self.subsets) or 'none'}"
                    )
            if METRICS[gate.metric].over == "set":
                raise ValueError(f"mean gate {gate.name!r}: {gate.metric!r} has no mean over images")
        terms = self.cost_terms
        if any(term.function != "linear" for term in terms) and not self.reference:
            raise ValueError("cost terms that are held against a reference need one: reference is empty")
        if any(term.cost in ("macs_g", "memory_mb") for term in terms) and self.cost_at is None:
            raise ValueError("cost terms of macs_g and memory_mb need the size `cost_at` that they are for")
        if self.costs and self.better != "lower":
            raise ValueError('a total with costs is better if lower: better = "lower"')

    @property
    def cost_terms(self) -> tuple[CostTerm, ...]:
        """Of the total and of all further rankings."""
        return (*self.costs, *(term for one in self.rankings for term in one.costs))

    def noise_of(self, subset: str) -> Noise | None:
        """The noise that is added to the clean pictures of a subset, if any."""
        return self.noises.get(subset, self.noise)

    def multiple_of(self, subset: str) -> int:
        """To sides of which multiple pictures and truth of a subset are cut."""
        noise = self.noise_of(subset)
        return noise.multiple if noise else self.multiple

    def border_of(self, metric: str) -> int:
        """Pixels that are cut from every side before a metric."""
        return 0 if metric in self.whole else self.border

    @property
    def known_metrics(self) -> tuple[str, ...]:
        """Those that every entry is scored by, and those that can be asked for."""
        return (*self.metrics, *self.also)

    @property
    def count(self) -> int | None:
        """Images of all subsets, where the rules state them."""
        return sum(self.subsets.values()) or None

    def mean(self, of_subsets: Mapping[str, float]) -> float:
        """The mean over subsets by name: each counts alike, or by its images."""
        weights = {name: 1 if self.average == "subsets" else count for name, count in self.subsets.items()}
        return math.fsum(weights[name] * of_subsets[name] for name in weights) / sum(weights.values())

    def total(
        self,
        means: Mapping[str, float],
        costs: Mapping[str, float] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> float | None:
        """The track's score from the metrics' means over all images and what the entry and the reference cost; None if
        something that a term needs is not there.
        """
        return score_by(self.terms, self.costs, means, costs or {}, reference or {})


def score_by(
    terms: Sequence[Term],
    costs: Sequence[CostTerm],
    means: Mapping[str, float],
    own: Mapping[str, float],
    reference: Mapping[str, float],
) -> float | None:
    """The sum of terms over means and over costs; None without terms, or if something that one needs is not there."""
    of_costs = cost_total(costs, own, reference)
    if not (terms or costs) or of_costs is None or any(term.metric not in means for term in terms):
        return None
    return math.fsum([*(term.of(means[term.metric]) for term in terms), of_costs])


def load_track(name: str) -> Track:
    """A track by its full name ("raim-2025-raw"), by its kind of input ("raw": that kind's default), or by the path of
    a TOML.

    Raises UserError that lists the tracks for an unknown name, or all mistakes of a TOML.
    """
    if name.endswith(".toml"):
        return read_toml(Path(name), Track)
    tracks = all_tracks()
    for track in tracks:
        if name == track.name or (track.default and name == track.inputs):
            return track
    known = sorted({track.name for track in tracks} | {track.inputs for track in tracks if track.default})
    raise UserError(
        f"unknown track: {name!r}. {meant(name, known)} `ntire tracks` lists all; a track of your own is the path of its TOML."
    )


NO_RULES = "pictures"
"""What the track of pictures that no rules are for is called."""


def without_rules(metrics: Sequence[str]) -> Track:
    """What any pictures are compared by: the metrics that are asked for, in whatever format, without total, gate or budget.

    Raises UserError for a metric that is not there.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"unknown metric: {name!r}. {meant(name, METRICS)}")
    return Track(
        name=NO_RULES,
        title="pictures compared by the metrics that were asked for",
        inputs="general",
        results=get_args(Result),
        metrics=tuple(dict.fromkeys(metrics)),
        source="no challenge",
    )


@cache
def all_tracks() -> tuple[Track, ...]:
    """Every track that ships, by name."""
    return tuple(read_toml(path, Track) for path in sorted(RULES.glob("*.toml")))


def grouped(tracks: Iterable[Track]) -> dict[str, list[Track]]:
    """Tracks by the heading under which they are listed: challenges first, then papers."""
    found: dict[str, list[Track]] = {}
    for track in sorted(tracks, key=lambda track: GROUPS.index(track.group) if track.group in GROUPS else len(GROUPS)):
        found.setdefault(track.group or "Tracks of your own", []).append(track)
    return found


def published_rows(track: Track) -> Path:
    """The table of what papers report on a track. Raises UserError that says for which tracks there is one."""
    path = _published(track)
    if not path.is_file():
        known = ", ".join(one.name for one in all_tracks() if _published(one).is_file())
        raise UserError(f"no published rows ship for track {track.name}; there are some for: {known}.")
    return path


def _published(track: Track) -> Path:
    return PUBLISHED / f"{(track.published or track.name).partition('/')[0]}.csv"


def sample_track(inputs: str) -> Track | None:
    """The track of the built-in sample set for a kind of input, if there is one."""
    return next((track for track in all_tracks() if track.samples and track.inputs == inputs), None)


def formula(track: Track) -> str:
    """The total in words, empty for a track without one."""
    return _summed(track.terms, track.costs)


def _summed(terms: Sequence[Term], costs: Sequence[CostTerm]) -> str:
    return " + ".join([*(term.in_words() for term in terms), *(term.in_words() for term in costs)])


def in_words(track: Track) -> str:
    """The rules of a track as a few lines of text."""
    images = ", ".join(f"{name} {count}" for name, count in track.subsets.items())
    paired = {"path": "by path below images/", "stem": "by file name, in whatever folder"}[track.pair_by]
    lines = [
        f"{track.name}: {track.title}",
        f"input      {track.inputs}",
        *([f"scale      x{track.scale}: {SCALE_RULE}"] if track.scale > 1 else []),
        f"images     {images or 'all of the references'}; paired {paired}",
        *(["average    of the subsets' means, each counting alike"] if track.average == "subsets" else []),
        f"results    {formats_in_words(track.results)}",
        f"depth      compared in levels of 255: {DEPTH_RULE}",
        f"border     {_border(track)}",
        *([f"cut        inputs and truth about their centre to a multiple of {track.multiple}"] * (track.multiple > 1)),
        f"total      {formula(track) or 'none'}{'; less is better' if track.better == 'lower' else ''}",
        *([f"costs      {_costs_in_words(track)}"] if track.cost_terms else []),
        *(f"ranking    {one.name}: {one.in_words()}" for one in track.rankings),
        *([f"final      {track.final.in_words()}; {track.final.remark}"] if track.final else []),
    ]
    if track.noise:
        lines.append(f"noise      {track.noise.in_words()}")
    for name, noise in track.noises.items():
        lines.append(f"noise      {name}: {noise.in_words()}")
    for gate in track.gates:
        thresholds = ", ".join(f"{subset} {threshold:g}" for subset, threshold in gate.thresholds.items())
        lines.append(
            f"gate       {gate.name}: an image fails with {gate.metric} below {thresholds}; "
            f"more than {gate.max_failures} failed images are not valid"
        )
    lines += [
        *(f"gate       {gate.in_words()}" for gate in track.mean_gates),
        *(f"budget     {limit.rule}" for limit in track.budgets.hold({})),
        f"ties       {', then '.join(track.tie_break) or 'share a rank'}",
        f"rounding   {track.decimals} decimals, half to even, for display only",
        f"source     {track.source}",
        *([f"remark     {track.remark}"] if track.remark else []),
        "metrics",
    ]
    for name in track.known_metrics:
        metric = METRICS[name]
        direction = "higher is better" if metric.higher_is_better else "lower is better"
        against = {"gt": "with the ground truth", "lq": "with the input", "nothing": "of the image alone"}[
            metric.against
        ]
        asked = "" if name in track.metrics else "only where asked for; "
        lines.append(f"  {name:12} {asked}{against}; {direction}; {metric.protocol}; after {metric.source}")
    return "\n".join(lines)


def _costs_in_words(track: Track) -> str:
    at = f"multiply-adds and memory for an input of {track.cost_at[0]} x {track.cost_at[1]}" if track.cost_at else ""
    runtime = (
        f"runtimes at {track.runtime_at[0]} x {track.runtime_at[1]}" if track.runtime_at else "runtimes of the inputs"
    )
    reference = f"the reference is {track.reference}" if track.reference else ""
    return "; ".join(part for part in (at, runtime, reference) if part)


def _border(track: Track) -> str:
    spared = f", but for {', '.join(track.whole)}" if track.border and track.whole else ""
    return f"{track.border} px cut from every side before any metric{spared}"


def markdown() -> str:
    """The README's tables of tracks."""
    return "\n\n".join(f"## {group}\n\n{_table(tracks)}" for group, tracks in grouped(all_tracks()).items())


def _table(tracks: Iterable[Track]) -> str:
    rows = []
    for track in tracks:
        settings = [f"{gate.metric} gate, at most {gate.max_failures} failed images" for gate in track.gates]
        settings += [gate.in_words() for gate in track.mean_gates]
        settings += [f"rankings {', '.join(one.name for one in track.rankings)}"] if track.rankings else []
        settings += [f"scale x{track.scale}"] if track.scale > 1 else []
        settings += [_border(track)] if track.border else []
        settings += [f"cut to a multiple of {track.multiple}"] if track.multiple > 1 else []
        settings += [f"noise of sigma {track.noise.sigma:g} added, {track.noise.handed()}"] if track.noise else []
        settings += [f"average of {len(track.subsets)} subsets"] if track.average == "subsets" else []
        settings += [f"also {', '.join(track.also)}"] if track.also else []
        settings += [] if track.verified else ["protocol not verified"]
        named = f"`{track.name}`" + (f" (`--track {track.inputs}`)" if track.default else "")
        rows.append([named, formula(track), "; ".join(settings), track.title])
    return markdown_table(["track", "total", "gates and settings", "title"], rows)
