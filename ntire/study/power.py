"""`ntire study plan`: how many votes tell two entries apart, by simulating whole studies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ntire.study.davidson import fit
from ntire.study.design import Criterion, Design, Kind, Participant, Region, Session
from ntire.study.simulation import Behaviour, Dealt, answers, felt, shown_to

Floats = NDArray[np.float64]
SETS = 600
"""Studies that are simulated for each figure: a power of 0.8 is known to about 0.03 then."""
PER_PASS = 2_000_000
"""Answers that are simulated at once."""


@dataclass(frozen=True)
class Power:
    """Of one difference with so many observers."""

    difference: float
    """Share of decided comparisons that the better of two entries wins; of opinions, levels between their means."""
    observers: int
    votes: int
    """Of all observers."""
    power: float
    """Share of simulated studies that tell the two apart, at 5 % error."""


def assumptions(design: Design, how: Behaviour) -> list[str]:
    """What the figures rest on, in words."""
    scale = "levels" if design.kind == "opinion" else "log-odds"
    ties = []
    if design.kind == "pairs" and design.ties:
        ties = [f"two equal entries are a tie in {np.exp(how.tie) / (2 + np.exp(how.tie)):.0%} of the trials"]
    noise = [f"a single opinion varies by {how.noise:g} levels"] if design.kind == "opinion" else []
    size = f"{len(design.entries)} entries, {len(design.regions)} regions, {design.session.trials} trials an observer"
    return [
        f"{size} ({design.kind})",
        "the two entries differ as stated, all others lie halfway between them",
        f"what an entry is worth varies by {how.taste:g} {scale} between observers and by {how.peculiarity:g} between pictures",
        *ties,
        *noise,
        f"told apart: the estimated difference lies beyond 95 % of those of {SETS} studies in which the two are equal",
    ]


def sketch(kind: Kind, entries: int, regions: int, trials: int, ties: bool = True, size: int = 4) -> Design:
    """A design with no pictures yet, to plan with."""
    return Design(
        title="plan", track="general", kind=kind, ties=ties, size=size,
        session=Session(trials=trials), criteria=(Criterion(name="overall", question="?"),),
        entries=tuple(Participant(name=f"{number}", team=f"{number}") for number in range(entries)),
        regions=tuple(Region(picture=f"{n}", top=0, left=0, height=1, width=1, anchor_of=0) for n in range(regions)),
    )  # fmt: skip


def powers(
    design: Design, observers: Sequence[int], differences: Sequence[float], how: Behaviour, seed: int,
    done: Callable[[], None] = lambda: None,
) -> list[Power]:  # fmt: skip
    """The power for each number of observers and each difference."""
    found = []
    for count in observers:
        shown = shown_to(design, count)
        alike = np.abs(_differences(design, shown, how, 0.0, seed))
        beyond = float(np.quantile(alike, 0.95))
        for number, difference in enumerate(differences):
            gaps = _differences(design, shown, how, _on_scale(design, difference), seed + 1 + number)
            power = float((np.abs(gaps) > beyond).mean())
            found.append(Power(difference, count, count * design.session.trials * len(design.criteria), power))
            done()
    return found


def _on_scale(design: Design, difference: float) -> float:
    return difference if design.kind == "opinion" else float(np.log(difference / (1 - difference)))


def _differences(design: Design, shown: Dealt, how: Behaviour, gap: float, seed: int) -> Floats:
    """The estimated difference between the first two entries in each of SETS studies."""
    rng = np.random.default_rng([design.seed, seed])
    count = len(design.entries)
    middle = 3.0 if design.kind == "opinion" else 0.0
    strengths = (middle + gap / 2, middle - gap / 2, *[middle] * (count - 2))
    how = replace(how, strengths=strengths)
    at_once = max(1, PER_PASS // shown.entries.size)
    parts = []
    for start in range(0, SETS, at_once):
        seems = felt(shown, how, min(at_once, SETS - start), rng)
        parts.append(_estimated(design, shown, answers(design, seems, how, rng)))
    return np.concatenate(parts)


def _estimated(design: Design, shown: Dealt, given: NDArray[np.int64]) -> Floats:
    count = len(design.entries)
    if design.kind == "opinion":
        means = [given[:, shown.entries[:, 0] == entry, 0].mean(1) for entry in (0, 1)]
        return means[0] - means[1]
    wins, ties = np.zeros((2, len(given), count, count))
    places = range(shown.entries.shape[1])
    for one in places:
        for other in places:
            cells = shown.entries[:, one] * count + shown.entries[:, other]
            for into, chosen in (
                (wins, given[..., one] < given[..., other]),
                (ties, given[..., one] == given[..., other]),
            ):
                if one != other:
                    into += _per_set(cells, chosen, count)
    values = fit(wins, ties).values
    return values[:, 0] - values[:, 1]


def _per_set(cells: NDArray[np.int64], chosen: NDArray[np.bool_], count: int) -> Floats:
    """How often each cell of (n, n) is chosen in each set."""
    sets, trial = np.nonzero(chosen)
    found = np.bincount(sets * count**2 + cells[trial], minlength=len(chosen) * count**2)
    return found.reshape(len(chosen), count, count).astype(np.float64)
