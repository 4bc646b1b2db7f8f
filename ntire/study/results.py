"""`ntire study results`: votes to results, marks and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ntire import UserError
from ntire.scoring.spreadsheet import read_table
from ntire.study.ballots import Vote
from ntire.study.correlation import MetricAgreement, Scores, agreements
from ntire.study.design import Design, open_study
from ntire.study.outcome import Outcome, outcome_of
from ntire.study.screening import Screened, screen
from ntire.study.store import VOTES, Observer, Store


@dataclass(frozen=True)
class StudyResults:
    """Everything that a study says."""

    design: Design
    observers: tuple[Observer, ...]
    screened: tuple[Screened, ...]
    votes: tuple[Vote, ...]
    """All that count, also those of observers who do not."""
    outcomes: tuple[Outcome, ...]
    """One for each question."""
    of_all: tuple[Outcome, ...]
    """The same without screening, to see what it changes."""
    metrics: dict[str, list[MetricAgreement]]
    """For each question; empty where no scores were given."""

    @property
    def kept(self) -> frozenset[int]:
        """Observers who count."""
        return frozenset(one.observer for one in self.screened if one.kept)

    def marks(self) -> dict[str, float]:
        """For each entry its mark in phase 3, as the design makes it of the questions' shares and weights."""
        rules, total = self.design.marks, sum(one.weight for one in self.outcomes)
        shares = {one.name: 0.0 for one in self.design.entries}
        for outcome in self.outcomes:
            for entry in outcome.entries:
                shares[entry.entry] += outcome.weight / total * entry.share.value
        return {name: rules.lowest + (rules.highest - rules.lowest) * share for name, share in shares.items()}


def results_of(folder: Path, scores: Scores | None = None) -> StudyResults:
    """The results of a study, also while it runs. Raises UserError while there is nothing to say of some entry."""
    design = open_study(folder)
    if not (folder / VOTES).is_file():
        raise UserError(f"{folder}: expected votes in {VOTES}, found none. `ntire study serve {folder}` collects them.")
    store = Store(folder, design)
    try:
        observers, votes = store.observers(), store.votes()
    finally:
        store.close()
    return results_from(design, observers, votes, scores)


def results_from(
    design: Design, observers: Sequence[Observer], votes: Sequence[Vote], scores: Scores | None = None
) -> StudyResults:
    """The same of votes that have been read."""
    screened = screen(design, observers, votes)
    kept = {one.observer for one in screened if one.kept}
    counted = [vote for vote in votes if vote.observer in kept]
    outcomes = _outcomes(design, counted)
    if len(outcomes) < len(design.criteria):
        reasons = [f"observer {one.observer}: {'; '.join(one.reasons)}" for one in screened if not one.kept]
        told = f"expected votes on every entry, found {len(counted)} answers of {len(kept)} observers who count."
        raise UserError("\n".join([told, *reasons]))
    metrics = {one.criterion: agreements(design, one, counted, scores) for one in outcomes} if scores else {}
    return StudyResults(
        design, tuple(observers), tuple(screened), tuple(votes), outcomes, _outcomes(design, votes), metrics
    )  # fmt: skip


def _outcomes(design: Design, votes: Sequence[Vote]) -> tuple[Outcome, ...]:
    found = (outcome_of(design, one.name, votes, place) for place, one in enumerate(design.criteria))
    return tuple(one for one in found if one is not None)


def other_marks(path: Path, names: Sequence[tuple[str, str]]) -> tuple[list[str], dict[str, list[str]]]:
    """Columns and cells of a table of other marks, such as efficiency, for each entry; it names entries or teams.

    Raises UserError for entries that it lacks, or names twice.
    """
    table = read_table(path)
    named = next((name for name in ("entry", "team") if name in table.header), "entry")
    table.require([named])
    columns = [name for name in table.header if name not in ("entry", "team")]
    rows: dict[str, list[str]] = {}
    problems = []
    for number, row in table.rows:
        if row[named] in rows:
            problems.append(f"{path}: line {number}: {row[named]} stands here twice")
        rows[row[named]] = [row[column] for column in columns]
    found = {entry: rows.get(entry if named == "entry" else team) for entry, team in names}
    problems += [f"{path}: no line for {entry}" for entry, cells in found.items() if cells is None]
    if problems:
        raise UserError("\n".join(problems))
    return columns, {entry: cells for entry, cells in found.items() if cells is not None}
