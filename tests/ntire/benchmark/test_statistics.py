import numpy as np
import pytest

from ntire.benchmark.statistics import FULL, QUICK, Protocol, Ratio, Times


def test_the_median_of_medians_is_quoted_not_the_mean_of_all_calls():
    # One slow first call, and a picture that is timed more often than the others.
    found = Times.of({"a": [1000, 10, 10, 10, 10], "b": [20] * 5, "c": [30] * 50})
    assert found.median_ms == 20
    assert found.mean_ms == pytest.approx((1040 + 100 + 1500) / 60)
    assert found.quartiles_ms == (30, 30)
    assert found.p90_ms == 30
    assert found.calls == 60


def test_the_interval_holds_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        found = Times.of({str(number): rng.lognormal(3, 0.3, 5) for number in range(25)})
        held += found.low_ms <= np.exp(3) <= found.high_ms
    assert 50 <= held <= 60


def test_the_90th_percentile_is_over_all_calls():
    assert Times.of({"a": list(range(6)), "b": list(range(6, 11))}).p90_ms == 9


def test_one_call_on_one_picture_is_its_own_interval():
    found = Times.of({"a": [7.0]})
    assert (found.median_ms, found.low_ms, found.high_ms) == (7, 7, 7)


def test_a_ratio_is_taken_pair_by_pair_so_that_a_slow_spell_falls_on_both():
    spell = [(2.0, 1.0)] * 10 + [(20.0, 10.0)] * 9
    assert Ratio.of(spell) == Ratio(2.0, 2.0, 2.0, 19)


def test_the_protocol_goes_on_until_passes_seconds_and_pairs_are_all_there():
    assert (FULL.warm_calls, FULL.warm_calls_in_all, FULL.warm_seconds, FULL.passes, FULL.seconds) == (3, 10, 2, 5, 30)
    assert FULL.more(4, 100, None)
    assert FULL.more(100, 29, None)
    assert FULL.more(100, 100, 14)
    assert not FULL.more(5, 30, None)
    assert not FULL.more(5, 30, 15)
    assert QUICK.quick
    assert not Protocol().quick
