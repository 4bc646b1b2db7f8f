"""Which observers count: rules that the design states, what each found, and nobody dropped without being listed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntire.study.answers import Unit, sayings
from ntire.study.ballots import Vote
from ntire.study.design import Design
from ntire.study.store import Observer

FEWEST_SCORES = 4
"""Scores of a presentation from which its mean and kurtosis say something."""
FEWEST_DECIDED = 10
"""Decided pairs from which a preference for one side says something."""
PARTED, ONE_SIDED = 0.05, 0.3
"""BT.500: the share of an observer's scores far from the mean, and how far above and below may differ."""


@dataclass(frozen=True)
class Screened:
    """An observer, with what each rule found; None where a rule had nothing to go by."""

    observer: int
    answered: int
    anchors_failed: float | None
    repeats_changed: float | None
    one_side: float | None
    far_scores: float | None
    """Share of opinion scores far from the mean; None unless the design is of opinions."""
    reasons: tuple[str, ...]
    """Rules that are broken; empty for an observer who counts."""

    @property
    def kept(self) -> bool:
        """Whether the observer counts."""
        return not self.reasons


def screen(design: Design, observers: Sequence[Observer], votes: Sequence[Vote]) -> list[Screened]:
    """Hold every observer against the rules."""
    by_observer: dict[int, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_observer[vote.observer].append(vote)
    rejected = far_scores(votes) if design.kind == "opinion" else {}
    return [_screened(design, one, by_observer[one.id], rejected.get(one.id)) for one in observers]


def _screened(design: Design, observer: Observer, votes: Sequence[Vote], far: tuple[float, bool] | None) -> Screened:
    rules = design.screening
    anchors, repeats, side = _anchors(design, votes), _repeats(votes), _one_side(votes)
    share = observer.answered / design.length
    reasons = [f"left out by hand: {observer.reason}"] if observer.excluded else []
    if share < rules.least_share:
        reasons.append(f"answered {observer.answered} of {design.length}, less than {rules.least_share:.0%}")
    for found, most, words in (
        (anchors, rules.anchors_failed, "of the anchors not judged worse"),
        (repeats, rules.repeats_changed, "of the repeats answered otherwise"),
        (side, rules.one_side, "of the decided pairs won by one side"),
    ):
        if found is not None and found > most:
            reasons.append(f"{found:.0%} {words}, more than {most:.0%}")
    if rules.kurtosis and far is not None and far[1]:
        reasons.append(f"{far[0]:.0%} of the scores far from the mean on both sides (BT.500)")
    return Screened(observer.id, observer.answered, anchors, repeats, side, far[0] if far else None, tuple(reasons))


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _anchors(design: Design, votes: Sequence[Vote]) -> float | None:
    """The share of anchors that the first question's answers do not put below what they were made of."""
    first, degraded = design.criteria[0].name, len(design.entries)
    asked = [vote for vote in votes if vote.role == "anchor" and vote.criterion == first]
    if design.kind == "opinion":
        levels = [vote.answer[0] for vote in votes if vote.role == "vote" and vote.criterion == first]
        return _share([bool(vote.answer[0] >= np.mean(levels)) for vote in asked]) if levels else None
    failed = []
    for vote in asked:
        ranks = dict(zip(vote.shown, vote.answer, strict=True))
        failed.append(ranks[degraded] <= ranks[design.regions[vote.region].anchor_of])
    return _share(failed)


def _repeats(votes: Sequence[Vote]) -> float | None:
    """The share of repeats answered the other way: most comparisons turned round, or an opinion off by more than a level."""
    before: dict[tuple[str, Unit], float] = {}
    changed = []
    for vote in sorted(votes, key=lambda one: one.position):
        said = sayings(vote)
        if vote.role == "repeat":
            both = [
                (before[vote.criterion, unit], value)
                for unit, value in said.items()
                if (vote.criterion, unit) in before
            ]
            if len(vote.shown) == 1:
                turned = [abs(first - second) > 1 for first, second in both]
            else:
                turned = [first * second < 0 for first, second in both]
            if turned:
                changed.append(sum(turned) * 2 > len(turned))
        elif vote.role == "vote":
            before.update({(vote.criterion, unit): value for unit, value in said.items()})
    return _share(changed)


def _one_side(votes: Sequence[Vote]) -> float | None:
    """The share of decided pairs won by the side that won more."""
    won = [
        vote.answer == (1, 2)
        for vote in votes
        if len(vote.shown) == 2 and vote.answer != (1, 1) and vote.role != "anchor"
    ]
    return max(sum(won), len(won) - sum(won)) / len(won) if len(won) >= FEWEST_DECIDED else None


def far_scores(votes: Sequence[Vote]) -> Mapping[int, tuple[float, bool]]:
    """For each observer the share of opinion scores far from their mean, and whether BT.500 rejects the observer.

    Far is 2 standard deviations where the scores of a presentation look normal (a kurtosis of 2 to 4), else sqrt(20). Rejected
    is who is far in more than 5 % of the scores, about as often above as below: who is always stern or always mild stays.
    """
    presentations: dict[tuple[str, int, int], list[Vote]] = defaultdict(list)
    for vote in votes:
        if vote.role == "vote":
            presentations[vote.criterion, vote.region, vote.shown[0]].append(vote)
    counted: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for scores in presentations.values():
        levels = np.array([vote.answer[0] for vote in scores], float)
        away = levels - levels.mean()
        spread = float((away**2).mean())
        if len(levels) < FEWEST_SCORES or not spread:
            continue
        kurtosis = float((away**4).mean()) / spread**2
        limit = (2 if 2 <= kurtosis <= 4 else 20**0.5) * float(levels.std(ddof=1))
        for vote, distance in zip(scores, away, strict=True):
            tally = counted[vote.observer]
            tally[0] += distance >= limit
            tally[1] += distance <= -limit
            tally[2] += 1
    return {observer: _rejected(*tally) for observer, tally in counted.items()}


def _rejected(above: int, below: int, scores: int) -> tuple[float, bool]:
    share = (above + below) / scores
    return share, share > PARTED and abs(above - below) / (above + below) < ONE_SIDED
