"""Bradley-Terry with ties, as Davidson has it, fitted to many weighted sets of comparisons at once.

With strengths s, i wins against j with a probability proportional to exp(s_i), loses with exp(s_j), and ties with
exp(tie + (s_i + s_j) / 2) (R. R. Davidson, JASA 65, 1970, eq. 2.4). Without ties this is Bradley and Terry's model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PENALTY = 0.01
"""Times the sum of squared strengths is taken from the log-likelihood: an entry that wins always stays finite, and others move
by less than a hundredth of their intervals. The same as `alpha` of choix."""
ITERATIONS = 60


@dataclass(frozen=True)
class Strengths:
    """Of n entries, for each of b sets of comparisons."""

    values: Floats
    """(b, n), log scale, their mean 0."""
    tie: Floats
    """(b,), log scale; -inf where nothing was tied."""

    def win_share(self) -> Floats:
        """(b, n): the share of comparisons that an entry is expected to win against the others, a tie as half of one."""
        win, tie = probabilities(self.values, self.tie)
        count = self.values.shape[1]
        share = win + tie / 2
        share[:, range(count), range(count)] = 0
        found: Floats = share.sum(2) / (count - 1)
        return found


def probabilities(values: Floats, tie: Floats) -> tuple[Floats, Floats]:
    """Of strengths (b, n): the probabilities (b, n, n) that the row wins against the column, and that the two tie."""
    gap = np.clip((values[:, :, None] - values[:, None, :]) / 2, -40, 40)
    nu = np.exp(tie)[:, None, None]
    ahead, behind = np.exp(gap), np.exp(-gap)
    whole = ahead + behind + nu
    return ahead / whole, nu / whole


def fit(wins: Floats, ties: Floats, penalty: float = PENALTY) -> Strengths:
    """Maximum of the penalised likelihood, by Newton's method.

    `wins` (b, n, n): how often the row won against the column; `ties` (b, n, n), symmetric, counts a tie in both places.
    """
    sets, count = wins.shape[:2]
    played = wins + wins.transpose(0, 2, 1) + ties
    tied = ties.sum((1, 2)) / 2
    points = wins.sum(2) + ties.sum(2) / 2
    with_ties = tied > 0
    values, tie = np.zeros((sets, count)), np.where(with_ties, 0.0, -np.inf)
    for _ in range(ITERATIONS):
        step = _newton(values, tie, played, points, tied, penalty)
        values = values + step[:, :count]
        tie = np.where(with_ties, tie + step[:, count], -np.inf)
        if np.abs(step).max(initial=0) < 1e-9:
            break
    return Strengths(values - values.mean(1, keepdims=True), tie)


def _newton(values: Floats, tie: Floats, played: Floats, points: Floats, tied: Floats, penalty: float) -> Floats:
    """(b, n + 1): the step for the strengths and, last, the tie; at most 2 each, so that it never jumps over the hill."""
    sets, count = values.shape
    win, drawn = probabilities(values, tie)
    lost = 1 - win - drawn
    share = win + drawn / 2
    gradient = np.empty((sets, count + 1))
    gradient[:, :count] = points - (played * share).sum(2) - 2 * penalty * values
    gradient[:, count] = tied - (played * drawn).sum((1, 2)) / 2
    # The points of a pair are 1, 1/2 or 0: their variance is the curvature, and a tie's goes along with them.
    bend = played * (win + drawn / 4 - share**2)
    hessian = np.zeros((sets, count + 1, count + 1))
    hessian[:, :count, :count] = -bend
    diagonal = range(count)
    hessian[:, diagonal, diagonal] = bend.sum(2) - bend[:, diagonal, diagonal] + 2 * penalty + 1e-12
    together = (played * drawn * (0.5 - share)).sum(2)
    hessian[:, :count, count] = hessian[:, count, :count] = together
    hessian[:, count, count] = (played * drawn * (win + lost)).sum((1, 2)) / 2
    never = tied == 0
    gradient[never, count] = 0
    hessian[never, :count, count] = hessian[never, count, :count] = 0
    hessian[never, count, count] = 1
    step: Floats = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    return np.clip(step, -2, 2)
