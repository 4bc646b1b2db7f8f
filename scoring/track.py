"""A track's rules, read from one TOML and checked: nothing about a track is written in code."""

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ntire import UserError
from ntire.files import read_toml
from scoring.metrics import METRICS

RULES = Path(str(files("scoring"))) / "tracks"


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Term(_Rules):
    """One summand of the total: max(floor, offset + scale * mean of the metric)."""

    metric: str
    scale: float
    offset: float = 0.0
    floor: float | None = None

    def of(self, mean: float) -> float:
        """The term's value for a mean over all images."""
        value = self.offset + self.scale * mean
        return value if self.floor is None else max(self.floor, value)

    def in_words(self) -> str:
        """The term as a formula."""
        scaled = f"{self.scale:g} x {self.metric}" if self.scale != 1 else self.metric
        inner = scaled if not self.offset else f"{self.offset:g} {'-' if self.scale < 0 else '+'} {scaled.lstrip('-')}"
        return inner if self.floor is None else f"max({self.floor:g}, {inner})"


class Track(_Rules):
    """The rules of one track and edition."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    title: str
    inputs: Literal["raw", "srgb", "face", "general"]
    """The folder of methods that can run on it."""
    default: bool = False
    """Whether `--track <inputs>` means this one."""
    samples: bool = False
    """Whether it is played on the built-in sample set."""
    subsets: dict[str, Annotated[int, Field(gt=0)]] = {}
    """Images per subset; empty where the ground truth's folder says which images there are."""
    border: Annotated[int, Field(ge=0)] = 0
    """Pixels cut from every side before any metric."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    terms: tuple[Term, ...] = ()
    tie_break: tuple[str, ...] = ()
    """Metrics that decide between equal totals, the first first."""
    decimals: Annotated[int, Field(ge=0, le=10)] = 4
    """Of the printed table; ranks, gates and files use unrounded values."""
    verified: bool = True
    """Whether the formula is the organisers' own; if not, `remark` says why it is used."""
    remark: str = ""
    source: str

    @model_validator(mode="after")
    def _consistent(self) -> "Track":
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
        for name in [*(term.metric for term in self.terms), *self.tie_break]:
            if name not in self.metrics:
                raise ValueError(f"{name!r} is scored but is not among the track's metrics")
        if not self.verified and not self.remark:
            raise ValueError("a track that is not verified needs a remark that says why")
        return self

    def total(self, means: Mapping[str, float]) -> float | None:
        """The track's score from the metrics' means over all images; None if a term's metric is not there."""
        if not self.terms or any(term.metric not in means for term in self.terms):
            return None
        return math.fsum(term.of(means[term.metric]) for term in self.terms)


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
    raise UserError(f"unknown track: {name!r}. There are: {', '.join(known)}; or give the path of a track's TOML.")


@cache
def all_tracks() -> tuple[Track, ...]:
    """Every track that ships, by name."""
    return tuple(read_toml(path, Track) for path in sorted(RULES.glob("*.toml")))


def in_words(track: Track) -> str:
    """The rules of a track as a few lines of text."""
    total = " + ".join(term.in_words() for term in track.terms) or "none"
    images = ", ".join(f"{name} {count}" for name, count in track.subsets.items())
    lines = [
        f"{track.name}: {track.title}",
        f"input      {track.inputs}",
        f"images     {images or 'all of the ground truth'}",
        f"border     {track.border} px cut from every side before any metric",
        f"total      {total}",
        f"ties       {', then '.join(track.tie_break) or 'share a rank'}",
        f"source     {track.source}",
        *([f"remark     {track.remark}"] if track.remark else []),
        "metrics",
    ]
    for name in track.metrics:
        metric = METRICS[name]
        direction = "higher is better" if metric.higher_is_better else "lower is better"
        lines.append(f"  {name:9} {direction}; {metric.protocol}; after {metric.source}")
    return "\n".join(lines)


def sample_track(inputs: str) -> Track | None:
    """The track of the built-in sample set for a kind of input, if there is one."""
    return next((track for track in all_tracks() if track.samples and track.inputs == inputs), None)
