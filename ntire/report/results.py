"""A folder of results, read back to be shown: ranks, rows, verdicts. Every text of a stranger is made printable here."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ntire import UserError
from ntire.entry.results import place_of
from ntire.entry.verdict import in_short, read_verdict
from ntire.scoring.metrics import METRICS
from ntire.scoring.sources import ScoredTrack, read_sources
from ntire.scoring.spreadsheet import read_table
from ntire.scoring.statistics import sensitivity
from ntire.scoring.tables import BROKEN, OF_SET
from ntire.scoring.track import Track, all_tracks, without_rules
from ntire.text import printable

LONGEST = 120
"""Characters of a name that are shown."""


@dataclass(frozen=True)
class ShownImage:
    """One row of `scores.csv`."""

    name: str
    subset: str
    status: str
    values: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class ShownEntry:
    """One line of the leaderboard with its images."""

    number: int
    """From 1, in the order of the leaderboard; what its pages and pictures are called."""
    line: Mapping[str, Any]
    """The object of `leaderboard.json`, its texts printable."""
    key: str
    """Its name as it is on the disk."""
    images: Mapping[str, ShownImage] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    """`verification.json`, its texts printable; empty without one."""

    @property
    def name(self) -> str:
        return str(self.line["entry"])


@dataclass(frozen=True)
class ShownTrack:
    """One track's part of a leaderboard."""

    number: int
    rules: Track
    metrics: tuple[str, ...]
    """With a value for anybody, in the order of the rules."""
    entries: tuple[ShownEntry, ...]
    images: tuple[str, ...]
    sources: ScoredTrack | None = None

    @property
    def ranked(self) -> list[ShownEntry]:
        """Entries with a rank."""
        return [one for one in self.entries if one.line["rank"] is not None]

    @property
    def per_image(self) -> tuple[str, ...]:
        """Metrics that have a value for each image."""
        return tuple(name for name in self.metrics if METRICS[name].over == "image")

    def moved(self) -> dict[str, dict[int, int]]:
        """Ranks by entry's number, for the whole formula ("all") and without each of its metrics; empty if nothing can move."""
        placed = {one.number: (one.line["total"], one.line["metrics"]) for one in self.ranked}
        usable = all(isinstance(value, float | int) for _, of in placed.values() for value in of.values())
        return sensitivity(self.rules, placed) if usable else {}

    def score_of(self, image: ShownImage) -> float | None:
        """One number for a picture, larger being better: its part of the total, else its first metric."""
        terms = [term for term in self.rules.terms if METRICS[term.metric].over == "image"]
        if terms and all(term.metric in image.values for term in terms):
            return math.fsum(term.scale * image.values[term.metric] for term in terms)
        first = next((name for name in self.per_image if name in image.values), None)
        if terms or first is None:
            return None
        return image.values[first] if METRICS[first].higher_is_better else -image.values[first]

    def beside_field(self) -> dict[str, dict[int, float]]:
        """By image: how far each entry's score lies above the median of all entries, by their numbers."""
        found: dict[str, dict[int, float]] = {}
        for name in self.images:
            scores = {
                one.number: score
                for one in self.entries
                if name in one.images
                and (score := self.score_of(one.images[name])) is not None
                and math.isfinite(score)
            }
            middle = statistics.median(scores.values()) if scores else 0.0
            found[name] = {number: score - middle for number, score in scores.items()}
        return found


def read_results(folder: Path) -> tuple[ShownTrack, ...]:
    """Everything that `ntire score` wrote into a folder, by track.

    Raises UserError for a folder without a leaderboard, or one that is damaged.
    """
    path = folder / "leaderboard.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: expected results of `ntire score`, found no leaderboard.json. Name its folder of tables."
        )
    try:
        lines = json.loads(path.read_bytes())
        names = list(dict.fromkeys(line["track"] for line in lines))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged: {error}. Score again to have it written anew.") from None
    if not names:
        raise UserError(f"{path}: has no entry.")
    sources = read_sources(folder)
    found: list[ShownTrack] = []
    count = 0
    for name in names:
        own = [line for line in lines if line["track"] == name]
        compared = sources.of(name) if sources else None
        rules = compared.rules if compared else _rules(name, own, path)
        entries = tuple(_entry(folder, line, count + at, rules) for at, line in enumerate(own, 1))
        count += len(entries)
        metrics = tuple(one for one in rules.metrics if any(one in entry.line["metrics"] for entry in entries))
        seen = {row.name: None for entry in entries for row in entry.images.values() if row.status != "unexpected"}
        images = [one.name for one in compared.images] if compared else sorted(seen)
        rows = {metric: None for entry in entries for row in entry.images.values() for metric in row.values}
        both = tuple(one for one in rules.metrics if one in metrics or one in rows)
        found.append(ShownTrack(len(found) + 1, rules, both, entries, tuple(images), compared))
    return tuple(found)


def _rules(name: str, lines: Sequence[Mapping[str, Any]], path: Path) -> Track:
    known = next((track for track in all_tracks() if track.name == name), None)
    metrics = list(dict.fromkeys(metric for line in lines for metric in line["metrics"]))
    if known is None and not (metrics and all(metric in METRICS for metric in metrics)):
        raise UserError(f"{path}: track {printable(name)} is unknown, and no sources.json has its rules. Score again.")
    return known or without_rules(metrics)


def _entry(folder: Path, line: Mapping[str, Any], number: int, rules: Track) -> ShownEntry:
    key = str(line["entry"])
    place = place_of(folder, key)
    table = place / "scores.csv"
    images: dict[str, ShownImage] = {}
    if _inside(table, folder) and table.is_file():
        for _, row in read_table(table).rows:
            if row.get("status") not in (OF_SET, BROKEN):
                one = _image(row, rules.metrics)
                images[one.name] = one
    path = place / "verification.json"
    verdict = read_verdict(path.read_bytes()) if _inside(path, folder) and path.is_file() else None
    # Another one than that of the leaderboard was written since, or lies elsewhere.
    counted = verdict is not None and in_short(verdict) == line.get("reproduced")
    return ShownEntry(number, _printable(line), key, images, _printable(verdict) if counted else {})


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path made of an entry's name stays below the results."""
    return path.resolve().is_relative_to(folder.resolve())


def _image(row: Mapping[str, str], metrics: Sequence[str]) -> ShownImage:
    values = {}
    for name in metrics:
        try:
            values[name] = float(row.get(name, ""))
        except ValueError:
            continue
    # An apostrophe in front is for spreadsheets alone.
    name = row.get("image", "").removeprefix("'")
    return ShownImage(name, row.get("subset", ""), row.get("status", ""), values, printable(row.get("problem", "")))


def _printable(value: Any) -> Any:
    """The same object with every text in it safe to show, and not longer than people read."""
    if isinstance(value, str):
        shown = printable(value)
        return shown if len(shown) <= 4 * LONGEST else f"{shown[: 4 * LONGEST]}…"
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
