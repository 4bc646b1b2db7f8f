"""Scores to one line per submission: means, total, gates, budgets, validity, rank."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ntire.entry.findings import Finding
from ntire.entry.manifest import Claims
from ntire.entry.measured import held_against
from ntire.entry.measured_files import MeasuredFigures
from ntire.entry.verdict import Standing
from ntire.scoring.budgets import Name, Spent
from ntire.scoring.efficiency import NAMES, EntryCost, MeanAtGate, costs_of, lacking, lacking_of_reference
from ntire.scoring.metrics import METRICS
from ntire.scoring.score import Row, Scored, subset_values
from ntire.scoring.statistics import Sample, Uncertainty, mean, order, uncertainties
from ntire.scoring.track import Gate, Track, score_by

UNVERIFIED = Standing()
NO_FIGURES = MeasuredFigures()
BINS = (-math.inf, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, math.inf)
"""Edges of the histogram of margins."""
CODE = re.compile(r"E\d{3} ")
"""What a broken rule begins with among the problems on a leaderboard."""


@dataclass(frozen=True)
class GateResult:
    """How an entry stands at a gate."""

    gate: Gate
    failed: int
    """Images strictly below their threshold; missing and unreadable ones among them."""
    worst: float | None = None
    """Smallest distance of an image above its threshold; negative for a failed one."""
    histogram: tuple[int, ...] = ()
    """Images by their distance above the threshold, between BINS."""

    @property
    def margin(self) -> int:
        """Failures that would still be allowed; negative for an entry that is not valid."""
        return self.gate.max_failures - self.failed


@dataclass(frozen=True)
class SubRank:
    """How an entry stands in one of a track's further rankings."""

    total: float | None
    rank: int | None = None


@dataclass(frozen=True)
class Line:
    """One submission on the leaderboard."""

    entry: str
    team: str
    track: Track
    means: Mapping[str, float]
    """Mean of each metric over all expected images, or its value for the set; absent where an image has none."""
    total: float | None
    images: int
    """Expected."""
    scored: int
    """With every metric."""
    problems: tuple[str, ...] = ()
    """Why it is not valid; empty if it is."""
    notes: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    budgets: tuple[Spent, ...] = ()
    reproduced: str = ""
    """The verdict of `ntire verify`, if it was asked."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """For each metric, what its numbers depend on."""
    sample: Sample | None = None
    rank: int | None = None
    """None for a submission that is not valid or has no total."""
    uncertainty: Uncertainty | None = None
    by_subset: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """For each metric its means by subset, on tracks where the subsets count alike."""
    costs: tuple[EntryCost, ...] = ()
    """What the track's cost terms ask for."""
    rankings: Mapping[str, SubRank] = field(default_factory=dict)
    """How it stands in the track's further rankings, by their names."""

    @property
    def valid(self) -> bool:
        return not self.problems

    @property
    def known_costs(self) -> dict[str, float]:
        """Costs by name, without those that have no value."""
        return {one.name: one.value for one in self.costs if one.value is not None}

    @property
    def at_mean_gates(self) -> tuple[MeanAtGate, ...]:
        """How its means stand at the track's gates on means, data set by data set."""
        return tuple(
            MeanAtGate(gate, subset, self.by_subset.get(gate.metric, {}).get(subset))
            for gate in self.track.mean_gates
            for subset in gate.least
        )


def line_of(
    scored: Scored,
    track: Track,
    metrics: Sequence[str],
    versions: Mapping[str, str],
    *,
    as_published: bool = False,
    verdict: Standing = UNVERIFIED,
    refused: Sequence[str] = (),
    figures: MeasuredFigures = NO_FIGURES,
) -> Line:
    """Average a submission's rows and hold it against the track's gates and budgets.

    A mean exists only where every expected image has a value: a submission with a gap is listed with its reason, not
    ranked. With `as_published`, means are taken as the organisers' program takes them: over the images that are there,
    subset by subset, weighted with the rules' counts, and what is missing has failed no gate. `verdict` is that of
    `ntire verify`, and what it has measured counts instead of claims; `refused` are the rules that the entry breaks beyond
    its images. `figures` are what organisers measured of it with `bench` and `cost`.
    """
    expected = [row for row in scored.rows if row.status != "unexpected"]
    bad = [row for row in expected if row.status != "ok"]
    per_image = [name for name in metrics if METRICS[name].over == "image"]
    by_subset = _by_subset(track, scored, expected, metrics, as_published) if track.average == "subsets" else {}
    if as_published:
        means = {name: _published_mean(track, expected, name) for name in per_image}
        found = {name: value for name, value in means.items() if value is not None} | dict(scored.of_present)
    elif track.average == "subsets":
        complete_ones = {name: of for name, of in by_subset.items() if of.keys() == track.subsets.keys()}
        found = {name: track.mean(of) for name, of in complete_ones.items()} | dict(scored.of_set)
    else:
        found = {
            name: mean([row.values[name] for row in expected])
            for name in per_image
            if expected and all(name in row.values for row in expected)
        } | dict(scored.of_set)
    gates = tuple(_gate_result(gate, expected, not as_published) for gate in track.gates if gate.metric in metrics)
    complete = set(metrics) >= set(track.metrics)
    values = {name: [row.values.get(name, math.nan) for row in expected] for name in per_image}
    claims = scored.submission.manifest.claims
    understated, remarks = _beside_claims(claims, verdict)
    sample = Sample(values, scored.of_set, [row.subset for row in expected], [row.image for row in expected])
    line = Line(
        scored.submission.entry,
        scored.submission.team,
        track,
        {name: found[name] for name in metrics if name in found},
        track.total(found) if complete and not track.costs else None,
        images=len(expected),
        scored=len(expected) - len(bad),
        notes=(*_notes(scored.rows, as_published), *remarks),
        gates=gates,
        budgets=track.budgets.hold_entry(claims, verdict.measured),
        reproduced=verdict.words,
        versions=versions,
        sample=sample,
        by_subset=by_subset,
        costs=costs_of(wanted_costs(track), track.cost_at, track.runtime_at, claims, verdict.measured, figures),
    )
    line = replace(line, notes=(*line.notes, *notes_at_gates(line)))
    return replace(line, problems=(*problems_of(line, [] if as_published else bad), *understated, *refused))


def _by_subset(
    track: Track, scored: Scored, expected: Sequence[Row], metrics: Sequence[str], present: bool
) -> dict[str, dict[str, float]]:
    """For each metric its means by subset, or what it says of a subset as a whole."""
    of_sets = scored.of_present if present else scored.of_set
    return {
        name: subset_values(of_sets, name)
        if METRICS[name].over == "set"
        else _means_by_subset(track, expected, name, present=present)
        for name in metrics
        if METRICS[name].over == "image" or subset_values(of_sets, name)
    }


def _beside_claims(claims: Claims, verdict: Standing) -> tuple[list[str], list[str]]:
    """Claims that break a rule beside what was measured; and what else a reader must know of the verdict."""
    found = held_against(claims, verdict.measured) if verdict.measured else ()
    remarks = [_in_short(one) for one in found if not one.breaks_a_rule]
    return [_in_short(one) for one in found if one.breaks_a_rule], [*([verdict.note] if verdict.note else []), *remarks]


def _in_short(finding: Finding) -> str:
    where = f"{finding.file.rpartition(' ')[2]} " if finding.file else ""
    return f"{finding.code} {finding.problem} ({where}{finding.found}, expected {finding.expected})".replace(";", ",")


def broken_rules(problems: Sequence[str]) -> tuple[str, ...]:
    """Those of a line's problems that no row of its images tells: rules of `ntire check`, which begin with their codes."""
    return tuple(one for one in problems if CODE.match(one))


def refused_line(entry: str, track: Track, problems: Sequence[str]) -> Line:
    """An entry whose manifest does not even say who made it."""
    return Line(entry, "", track, {}, None, 0, 0, problems=tuple(problems))


def ranked(lines: Sequence[Line]) -> list[Line]:
    """Lines by track, then rank; equal totals (after the tie-break) share a rank; those that are not valid follow, by
    total, then by name. Intervals are added where the entries' images are known.
    """
    ordered: list[Line] = []
    for name in sorted({line.track.name for line in lines}):
        of_track = with_costs([line for line in lines if line.track.name == name])
        able = sorted((line for line in of_track if line.valid and line.total is not None), key=_order)
        placed: list[Line] = []
        for place, line in enumerate(able):
            tied = place > 0 and _order(line)[:-1] == _order(able[place - 1])[:-1]
            placed.append(replace(line, rank=placed[-1].rank if tied else place + 1))
        placed = _sub_ranked(placed)
        ordered += _with_uncertainty(placed)
        ordered += sorted((line for line in of_track if line not in able), key=_order)
    return ordered


def wanted_costs(track: Track) -> list[Name]:
    """The costs that the track's terms ask for."""
    return [name for name in NAMES if any(term.cost == name for term in track.cost_terms)]


def _called_reference(lines: Sequence[Line]) -> list[Line]:
    """The entries of one track that are called as its reference: by their names, else by their teams'."""
    name = lines[0].track.reference.casefold()
    by_entry = [line for line in lines if name and line.entry.casefold() == name]
    return by_entry or [line for line in lines if name and line.team.casefold() == name]


def reference_of(lines: Sequence[Line]) -> Line | None:
    """The entry of one track that its costs are held against; None where none or, as anybody may take a team's name, several
    are called so.
    """
    found = _called_reference(lines)
    return found[0] if len(found) == 1 else None


def why_no_reference(lines: Sequence[Line]) -> str:
    """Why nothing can be held against the reference entry of the track of these lines; empty if it can."""
    track = lines[0].track
    if not any(term.function != "linear" for term in track.cost_terms):
        return ""
    found = reference_of(lines)
    if found is None:
        several = _called_reference(lines)
        there = ", ".join(line.entry for line in (several or lines)[:8]) + (
            ", ..." if len(several or lines) > 8 else ""
        )
        if several:
            return (
                f"expected one reference entry {track.reference} of track {track.name}, found {len(several)}: {there}"
            )
        return f"expected the reference entry {track.reference} of track {track.name}, found only {there}"
    missing = lacking_of_reference(track.cost_terms, found.known_costs)
    return f"the reference entry {found.entry} has no {', '.join(missing)} above 0" if missing else ""


def with_costs(lines: Sequence[Line]) -> list[Line]:
    """Lines of one track with the totals that need to know what the reference entry costs."""
    if not lines or not (lines[0].track.cost_terms or lines[0].track.rankings):
        return list(lines)
    reference = reference_of(lines)
    known = reference.known_costs if reference else {}
    why_not = why_no_reference(lines)
    return [_with_costs(line, known, why_not) for line in lines]


def _with_costs(line: Line, reference: Mapping[str, float], why_not: str) -> Line:
    track, own = line.track, line.known_costs
    complete = all(name in line.means for name in track.metrics)
    rankings = {one.name: SubRank(score_by(one.terms, one.costs, line.means, own, reference)) for one in track.rankings}
    if not track.costs:
        return replace(line, rankings=rankings)
    missing = lacking(track.cost_terms, own)
    unknown = f"{', '.join(missing)} neither measured nor claimed" + (_size_in_words(track, missing))
    return replace(
        line,
        total=track.total(line.means, own, reference) if complete else None,
        rankings=rankings,
        problems=tuple(dict.fromkeys((*line.problems, *([unknown] if missing else [])))),
        notes=tuple(dict.fromkeys((*line.notes, *([f"no total: {why_not}"] if why_not else [])))),
    )


def _size_in_words(track: Track, missing: Sequence[str]) -> str:
    sized = track.cost_at and {"macs_g", "memory_mb"} & {*missing}
    return f" at {track.cost_at[0]} x {track.cost_at[1]}" if track.cost_at and sized else ""


def _sub_ranked(placed: Sequence[Line]) -> list[Line]:
    """Ranked entries with their ranks in the track's further rankings."""
    found = list(placed)
    for one in placed[0].track.rankings if placed else ():
        less_is_better = bool(one.costs)
        totals = [line.rankings[one.name].total if one.name in line.rankings else None for line in placed]
        known = [total for total in totals if total is not None]
        for number, total in enumerate(totals):
            if total is not None:
                better = sum(other < total if less_is_better else other > total for other in known)
                ranks = {**found[number].rankings, one.name: SubRank(total, 1 + better)}
                found[number] = replace(found[number], rankings=ranks)
    return found


def notes_at_gates(line: Line) -> list[str]:
    """What a reader must know of means that lie at a threshold."""
    return [note for one in line.at_mean_gates if (note := one.note())]


def _with_uncertainty(placed: Sequence[Line]) -> list[Line]:
    samples = [line.sample for line in placed if line.sample is not None]
    if not placed or len(samples) != len(placed):
        return list(placed)
    found = uncertainties(placed[0].track, samples)
    if found is None:
        return list(placed)
    return [replace(line, uncertainty=own) for line, own in zip(placed, found, strict=True)]


def _order(line: Line) -> tuple[float | str, ...]:
    return (*order(line.track, line.total, line.means), line.entry)


def _published_mean(track: Track, rows: Sequence[Row], metric: str) -> float | None:
    """Mean of the subsets' means over the images that have a value, weighted with the rules' counts."""
    if not track.subsets:
        present = [row.values[metric] for row in rows if metric in row.values]
        return mean(present) if present else None
    found = _means_by_subset(track, rows, metric, present=True)
    return track.mean(found) if found.keys() == track.subsets.keys() else None


def _means_by_subset(track: Track, rows: Sequence[Row], metric: str, *, present: bool) -> dict[str, float]:
    """Mean of a metric in each subset that has a value for every image, or, if `present`, for any."""
    found = {}
    for subset in track.subsets:
        inside = [row for row in rows if row.subset == subset]
        values = [row.values[metric] for row in inside if metric in row.values]
        if values and (present or len(values) == len(inside)):
            found[subset] = mean(values)
    return found


def _gate_result(gate: Gate, rows: Sequence[Row], missing_fails: bool) -> GateResult:
    margins = []
    failed = 0
    for row in rows:
        if gate.metric not in row.values or row.subset not in gate.thresholds:
            failed += missing_fails
            continue
        margins.append(row.values[gate.metric] - gate.thresholds[row.subset])
        failed += row.values[gate.metric] < gate.thresholds[row.subset]
    histogram = tuple(sum(low <= margin < high for margin in margins) for low, high in itertools.pairwise(BINS))
    return GateResult(gate, failed, min(margins, default=None), histogram)


def problems_of(line: Line, bad: Sequence[Row]) -> tuple[str, ...]:
    counts: dict[tuple[str, str], list[str]] = {}
    for row in bad:
        counts.setdefault((row.status, row.code), []).append(row.image)
    found = [
        f"{len(images)} {status} ({', '.join(images[:3])}{', ...' if len(images) > 3 else ''}){f' {code}' if code else ''}"
        for (status, code), images in counts.items()
    ]
    for result in line.gates:
        if result.margin < 0:
            found.append(f"gate {result.gate.name}: {result.failed} failed, {result.gate.max_failures} allowed")
    found += [problem for one in line.at_mean_gates if (problem := one.problem())]
    for budget in line.budgets:
        if budget.value is None:
            at = f" at {budget.at[0]} x {budget.at[1]}" if budget.at else ""
            found.append(f"budget {budget.name}: not stated{at}, {budget.limit:.10g} allowed")
        elif budget.over:
            # With a code it is known again in a table that is read back, where the claim would stand alone.
            found.append(f"E502 {budget.in_words()}" if budget.source == "measured" else budget.in_words())
    return tuple(found)


def _notes(rows: Sequence[Row], as_published: bool) -> tuple[str, ...]:
    unexpected = sum(row.status == "unexpected" for row in rows)
    same = Counter(name for row in rows for name, value in row.values.items() if math.isinf(value))
    copies = sum(row.values.get("adaface", 0.0) > 0.999999 for row in rows)
    found = ["means as the organisers' program takes them"] if as_published else []
    found += [f"{unexpected} unexpected image(s), not counted"] if unexpected else []
    found += [
        f"{count} image(s) equal to the ground truth{f' in {name}' * (name != 'psnr')}" for name, count in same.items()
    ]
    found += [f"{copies} image(s) with the very face of the input"] if copies else []
    return tuple(found)
