"""The results as one page: plots drawn as SVG, no script, nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from ntire.study.outcome import LEVEL, RESAMPLES, Between, JudgedEntry, Outcome
from ntire.study.results import StudyResults

WIDTH, ROW = 640.0, 34.0
TOP = 30.0


@dataclass(frozen=True)
class Forest:
    """A plot of values with their intervals, one line each, in units of an SVG."""

    rows: tuple[dict[str, Any], ...]
    ticks: tuple[tuple[float, str], ...]
    height: float
    zero: float | None


def forest(entries: Sequence[JudgedEntry], opinion: bool) -> Forest:
    """Of strengths, or mean opinions, the best on top."""
    values = [one.strength for one in entries]
    low, high = (1.0, 5.0) if opinion else _span(values)

    def across(value: float) -> float:
        return round((value - low) / (high - low) * WIDTH, 1)

    rows = tuple(
        {
            "entry": one, "y": TOP + ROW * (place + 0.5), "x": across(one.strength.value), "low": across(one.strength.low),
            "high": across(one.strength.high),
        }
        for place, one in enumerate(entries)
    )  # fmt: skip
    step = 1.0 if opinion else _step(high - low)
    first = np.ceil(low / step - 1e-9)
    marks = [step * (first + number) for number in range(int((high - low) / step + 1e-9) + 1)]
    ticks = tuple((across(mark), f"{mark:g}".replace("-", "−")) for mark in marks if low - 1e-9 <= mark <= high + 1e-9)
    return Forest(rows, ticks, TOP + ROW * len(rows) + 6, None if opinion else across(0.0))


def _span(values: Sequence[Between]) -> tuple[float, float]:
    low, high = min(one.low for one in values), max(one.high for one in values)
    room = max((high - low) * 0.04, 0.05)
    return min(low - room, 0.0), max(high + room, 0.0)


def _step(span: float) -> float:
    """A round distance that gives four to nine ticks."""
    power = 10 ** np.floor(np.log10(span / 4))
    return float(max(step for step in (1, 2, 2.5, 5, 10) if span / (step * power) >= 4) * power)


def duels_of(outcome: Outcome) -> list[dict[str, Any]]:
    """For each entry, by rank, its cells against the others: points won, and whether they are told apart."""
    known = {}
    for one in outcome.duels:
        played = one.wins + one.losses + one.ties
        for names, wins, losses, sign in (
            ((one.first, one.second), one.wins, one.losses, 1), ((one.second, one.first), one.losses, one.wins, -1),
        ):  # fmt: skip
            known[names] = {
                "share": (wins + one.ties / 2) / played if played else None, "apart": one.told_apart,
                "words": f"{wins} won, {losses} lost, {one.ties} tied" if played else "",
                "gap": sign * one.difference.value,
            }  # fmt: skip
    ordered = [one.entry for one in outcome.entries]
    return [{"entry": name, "cells": [known.get((name, other)) for other in ordered]} for name in ordered]


def as_page(found: StudyResults) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("ntire.study"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    opinion = found.design.kind == "opinion"
    parts = [
        {
            "outcome": one,
            "forest": forest(one.entries, opinion),
            "duels": duels_of(one),
            "metrics": found.metrics.get(one.criterion),
        }
        for one in found.outcomes
    ]
    everybody = {one.criterion: [entry.entry for entry in one.entries] for one in found.of_all}
    changed = [
        one.question for one in found.outcomes if [entry.entry for entry in one.entries] != everybody.get(one.criterion)
    ]
    return environment.get_template("results.html").render(
        found=found, design=found.design, parts=parts, marks=sorted(found.marks().items(), key=lambda one: -one[1]),
        observers=list(zip(found.screened, found.observers, strict=True)), kept=len(found.kept), changed=changed,
        opinion=opinion, width=WIDTH, top=TOP, resamples=RESAMPLES, level=LEVEL,
    )  # fmt: skip
