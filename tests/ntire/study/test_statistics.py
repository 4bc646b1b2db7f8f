"""The study's statistics, held against other implementations and published worked examples."""

import choix
import krippendorff
import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from ntire.study.agreement import alpha, kendall_w
from ntire.study.davidson import fit, probabilities

PUDDING = [
    (1, 2, 19, 22, 16), (1, 3, 16, 19, 12), (2, 3, 19, 19, 10), (1, 4, 18, 23, 13), (2, 4, 23, 19, 9), (3, 4, 19, 20, 15),
    (1, 5, 13, 19, 18), (2, 5, 16, 20, 12), (3, 5, 16, 15, 17), (4, 5, 17, 14, 16), (1, 6, 18, 21, 12), (2, 6, 22, 20, 12),
    (3, 6, 13, 18, 10), (4, 6, 14, 19, 18), (5, 6, 11, 21, 12),
]  # fmt: skip
"""Davidson 1970, example 2: six brands of chocolate pudding; wins of the first, of the second, ties."""
BASEBALL = [
    [0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10], [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0],
]  # fmt: skip
"""American League 1987, eastern division: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore."""


def pudding():
    wins, ties = np.zeros((6, 6)), np.zeros((6, 6))
    for i, j, first, second, tied in PUDDING:
        wins[i - 1, j - 1], wins[j - 1, i - 1] = first, second
        ties[i - 1, j - 1] = ties[j - 1, i - 1] = tied
    return wins, ties


def test_davidsons_puddings_have_the_worths_that_he_published():
    """His own iteration, stopped after seven steps, is why they agree to four digits and not to more."""
    wins, ties = pudding()
    found = fit(wins[None], ties[None], penalty=0)
    worth = np.exp(found.values[0])
    published = [0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855]
    assert worth / worth.sum() == pytest.approx(published, abs=1e-4)
    assert np.exp(found.tie[0]) == pytest.approx(0.7468147, abs=1e-4)


def test_the_baseball_teams_of_the_text_book_have_its_abilities():
    """Agresti, Categorical Data Analysis, table 10.10: abilities relative to Baltimore."""
    wins = np.array(BASEBALL, float)
    found = fit(wins[None], np.zeros((1, 7, 7)), penalty=0)
    assert found.values[0] - found.values[0, -1] == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0], abs=0.006)
    assert np.isneginf(found.tie[0])


def test_strengths_without_ties_are_those_of_choix_also_where_one_entry_wins_always():
    rng = np.random.default_rng(3)
    for always in (False, True):
        pairs = [tuple(rng.choice(5, 2, replace=False)) for _ in range(200)]
        pairs = [(0, max(a, b)) if always and 0 in (a, b) else (a, b) for a, b in pairs]
        wins = np.zeros((5, 5))
        for winner, loser in pairs:
            wins[winner, loser] += 1
        expected = choix.opt_pairwise(5, pairs, alpha=0.01, tol=1e-10)
        found = fit(wins[None], np.zeros((1, 5, 5)), penalty=0.01).values[0]
        assert found == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_sets_of_comparisons_are_fitted_together_as_one_by_one():
    wins, ties = pudding()
    double = fit(np.stack([wins, 2 * wins, wins]), np.stack([ties, 2 * ties, 0 * ties]), penalty=0)
    assert double.values[0] == pytest.approx(double.values[1], abs=1e-8)
    assert double.values[2] == pytest.approx(fit(wins[None], 0 * ties[None], penalty=0).values[0], abs=1e-8)


def test_expected_shares_are_the_observed_points():
    """The likelihood is at its maximum where the model expects of each entry the points that it won."""
    wins, ties = pudding()
    found = fit(wins[None], ties[None], penalty=0)
    win, tie = probabilities(found.values, found.tie)
    played = wins + wins.T + ties
    assert (played * (win + tie / 2)[0]).sum(1) == pytest.approx(wins.sum(1) + ties.sum(1) / 2, abs=1e-6)
    assert found.win_share()[0].mean() == pytest.approx(0.5)


def test_alpha_is_that_of_krippendorffs_own_example():
    """Computing Krippendorff's Alpha-Reliability, example D: four observers, twelve units, some without an answer."""
    nan = np.nan
    answers = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert alpha(answers, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert alpha(answers, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert alpha(answers, "interval") == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_package(level):
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 6, 30)
    answers = (truth + rng.integers(-1, 2, (7, 30))).astype(float)
    answers[rng.random(answers.shape) < 0.4] = np.nan
    expected = krippendorff.alpha(reliability_data=answers, level_of_measurement=level)
    assert alpha(answers, level) == pytest.approx(expected, abs=1e-9)


def test_agreement_of_nothing_is_not_a_number_but_none():
    assert alpha(np.array([[1.0, np.nan], [np.nan, 2.0]]), "ordinal") is None
    assert alpha(np.ones((3, 4)), "ordinal") is None
    assert kendall_w(np.ones((1, 4))) is None
    assert kendall_w(np.ones((3, 4))) is None


def test_w_is_friedmans_statistic_in_another_scale():
    rng = np.random.default_rng(2)
    scores = np.round(rng.normal(size=(9, 5)) + np.arange(5), 0)
    statistic = friedmanchisquare(*scores.T).statistic
    assert kendall_w(scores) == pytest.approx(statistic / (9 * 4))
    assert kendall_w(np.array([[3, 1, 2], [30, 10, 20]])) == pytest.approx(1)
