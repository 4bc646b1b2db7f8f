"""Whether observers agree: Krippendorff's alpha for answers, Kendall's W for their orders of the entries."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["nominal", "ordinal", "interval"]


def alpha(answers: NDArray[np.float64], level: Level) -> float | None:
    """Krippendorff's alpha of answers (observers, units); NaN where there is none. 1 is agreement, 0 what chance gives.

    None if no unit has two answers, or all answers are the same. By the matrix of coincidences (Krippendorff, Computing
    Krippendorff's Alpha-Reliability, 2011).
    """
    values = np.unique(answers[~np.isnan(answers)])
    counts = (answers[:, :, None] == values).sum(0).astype(float)
    per_unit = counts.sum(1)
    counts, per_unit = counts[per_unit > 1], per_unit[per_unit > 1]
    if not len(counts):
        return None
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, range(len(values)), range(len(values))] -= counts
    coincidences = (pairs / (per_unit - 1)[:, None, None]).sum(0)
    totals = coincidences.sum(1)
    distance = _distances(values, totals, level)
    expected = float((np.outer(totals, totals) * distance).sum()) / (totals.sum() - 1)
    observed = float((coincidences * distance).sum())
    return 1 - observed / expected if expected else None


def _distances(values: NDArray[np.float64], totals: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """Squared distances between values."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None, :]) ** 2
    # What lies between two ranks, both ends by half.
    middle = totals.cumsum() - totals / 2
    return (middle[:, None] - middle[None, :]) ** 2


def kendall_w(scores: NDArray[np.float64]) -> float | None:
    """Kendall's coefficient of concordance of scores (observers, entries), ranked by each observer, corrected for ties.

    None for fewer than two observers or entries, or if every observer ties everything.
    """
    observers, entries = scores.shape
    if observers < 2 or entries < 2:
        return None
    ranks = (scores[:, :, None] > scores[:, None, :]).sum(2) + (
        (scores[:, :, None] == scores[:, None, :]).sum(2) + 1
    ) / 2
    squares = ((ranks.sum(0) - ranks.sum() / entries) ** 2).sum()
    tied = sum(float((counts**3 - counts).sum()) for counts in (np.unique(row, return_counts=True)[1] for row in ranks))
    whole = observers**2 * (entries**3 - entries) - observers * tied
    return None if math.isclose(whole, 0) else float(12 * squares / whole)
