"""Do the track's metrics say what observers say? Of entries by their ranks, of single votes by the picture's own values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntire import UserError
from ntire.scoring.metrics import METRICS
from ntire.scoring.spreadsheet import read_table
from ntire.study.ballots import Vote
from ntire.study.design import Design
from ntire.study.outcome import Outcome

BOARD, IMAGES = "leaderboard.csv", "scores.csv"


@dataclass(frozen=True)
class MetricAgreement:
    """One metric and one question. Positive means that the metric likes what observers like, whichever way it runs."""

    metric: str
    entries: int
    """Entries that have a value."""
    spearman: float | None
    """Between the metric's means and the entries' strengths; None for fewer than three entries."""
    pearson: float | None
    votes: int
    """Decided comparisons of two entries on a picture of which both have a value."""
    foretold: float | None
    """Share of these comparisons that the metric's values on the picture foretell; 0.5 is chance."""


@dataclass(frozen=True)
class Scores:
    """What `ntire score` has found."""

    means: Mapping[str, Mapping[str, float]]
    """For each metric the mean of each entry."""
    images: Mapping[str, Mapping[tuple[str, str], float]]
    """For each metric the value of each entry and picture."""


def read_scores(folder: Path, design: Design) -> Scores:
    """The tables of `ntire score` in a folder. Raises UserError where there are none, or none of the study's entries, and where
    they have several images of the name of one of its pictures.
    """
    if not (folder / BOARD).is_file():
        raise UserError(f"{folder}: expected the tables of `ntire score`, {BOARD} among them, found none.")
    names = {one.name for one in design.entries}
    table = read_table(folder / BOARD)
    table.require(["entry"])
    metrics = [name for name in table.header if name in METRICS]
    means: dict[str, dict[str, float]] = {name: {} for name in metrics}
    for _, row in table.rows:
        if row["entry"] in names:
            for name in metrics:
                _put(means[name], row["entry"], row[name], table.number)
    if not any(means.values()):
        raise UserError(f"{folder / BOARD}: expected values of {', '.join(sorted(names))}, found none.")
    images: dict[str, dict[tuple[str, str], float]] = {name: {} for name in metrics}
    for entry in sorted(names):
        if (folder / entry / IMAGES).is_file():
            own = read_table(folder / entry / IMAGES)
            _refuse_two_of_a_name(folder / entry / IMAGES, [row["image"] for _, row in own.rows], design)
            for _, row in own.rows:
                for name in set(metrics) & set(own.header):
                    _put(images[name], (entry, row["image"].rpartition("/")[2]), row[name], own.number)
    return Scores(means, images)


def _refuse_two_of_a_name(path: Path, images: Sequence[str], design: Design) -> None:
    """A study calls its pictures by the last part of their names: two subsets may each have one of that."""
    shown = {region.picture for region in design.regions}
    by_name: dict[str, list[str]] = {}
    for image in images:
        by_name.setdefault(image.rpartition("/")[2], []).append(image)
    twice = [
        f"{name}: {', '.join(found)}" for name, found in sorted(by_name.items()) if name in shown and len(found) > 1
    ]
    if twice:
        raise UserError(
            f"{path}: expected one image for each picture of the study, found several of a name. Score the folder that the "
            "study is made of by itself.\n  " + "\n  ".join(twice)
        )


def _put(into: dict[Any, float], key: object, cell: str, number: Callable[[str], float]) -> None:
    try:
        value = number(cell)
    except ValueError:
        return
    if math.isfinite(value):
        into[key] = value


def agreements(design: Design, outcome: Outcome, votes: Sequence[Vote], scores: Scores) -> list[MetricAgreement]:
    """Every metric beside the result of one question."""
    strengths = {one.entry: one.strength.value for one in outcome.entries}
    found = []
    for metric, means in scores.means.items():
        sign = 1.0 if METRICS[metric].higher_is_better else -1.0
        both = [(sign * means[entry], strengths[entry]) for entry in strengths if entry in means]
        own = scores.images.get(metric, {})
        right = _foretold(design, [vote for vote in votes if vote.criterion == outcome.criterion], own, sign)
        found.append(
            MetricAgreement(
                metric, len(both), _correlation(both, ranked=True), _correlation(both, ranked=False), len(right),
                float(np.mean(right)) if right else None,
            )
        )  # fmt: skip
    return found


def _correlation(both: Sequence[tuple[float, float]], ranked: bool) -> float | None:
    import pandas as pd

    table = pd.DataFrame(both)
    if len(table) < 3 or table.nunique().min() < 2:
        return None
    if ranked:
        table = table.rank()
    return float(np.corrcoef(table.to_numpy().T)[0, 1])


def _foretold(design: Design, votes: Sequence[Vote], own: Mapping[tuple[str, str], float], sign: float) -> list[float]:
    """1, 0 or, where the metric ties, 1/2 for every decided comparison of a picture; an opinion compares nothing."""
    right = []
    for vote in votes:
        if vote.role != "vote":
            continue
        picture = design.regions[vote.region].picture
        values = [own.get((design.entries[entry].name, picture)) for entry in vote.shown]
        for place, (value, rank) in enumerate(zip(values, vote.answer, strict=True)):
            for other, worse in zip(values[place + 1 :], vote.answer[place + 1 :], strict=True):
                if value is not None and other is not None and rank != worse:
                    right.append(float(np.sign(sign * (value - other)) * np.sign(worse - rank) + 1) / 2)
    return right
