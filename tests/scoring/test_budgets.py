import pytest

from ntire.entry.manifest import Claims
from ntire.entry.measured import AtSize, Measured
from ntire.scoring.budgets import Budgets, Spent

LIMITS = Budgets(params_m=1.0, macs_g=20.0, at=(64, 96), memory_mb=100.0, memory_at=(3072, 4096))


def test_only_limits_that_are_set_are_held_each_at_its_own_size():
    held = LIMITS.hold({"params_m": 0.5, "runtime_ms": 1e9})
    assert [(one.name, one.value, one.at) for one in held] == [
        ("params_m", 0.5, None), ("macs_g", None, (64, 96)), ("memory_mb", None, (3072, 4096)),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [1.0, 1.0 + 1e-12])
def test_what_is_exactly_at_the_limit_is_within_and_a_trillionth_more_is_not(value):
    assert Spent("params_m", value, 1.0).over == (value > 1.0)


def test_a_claim_for_another_size_is_no_claim():
    there = Claims(memory_mb=99.0, memory_at=(3072, 4096))
    assert LIMITS.hold_claims(there)[2].margin == pytest.approx(0.01)
    assert LIMITS.hold_claims(Claims(memory_mb=99.0, memory_at=(64, 64)))[2].value is None
    assert LIMITS.hold_claims(Claims(memory_mb=99.0))[2].value is None


def test_the_margin_is_in_the_sentence():
    assert Spent("params_m", 0.25, 1.0).in_words() == "budget params_m: 0.25, 1 allowed, 75.000% left"
    assert Spent("macs_g", 30.0, 20.0, (64, 96)).in_words() == "budget macs_g: 30, 20 allowed, 50.000% over"
    assert Spent("macs_g", None, 20.0, (64, 96)).rule == "macs_g <= 20 at 64 x 96"


@pytest.mark.parametrize("half", [{"memory_mb": 1}, {"memory_at": (1, 1)}, {"macs_g": 1}, {"at": (1, 1)}])
def test_a_limit_that_depends_on_the_size_names_it(half):
    with pytest.raises(ValueError, match="needs the size"):
        Budgets(**half)


def test_what_was_measured_at_a_budget_s_size_counts_and_what_was_not_stays_a_claim():
    claims = Claims(params_m=0.1, macs_g=2.0, at=(64, 96), memory_mb=50.0, memory_at=(3072, 4096))
    measured = Measured(params_m=0.5, macs_g=(AtSize(30.0, (128, 96)),))
    held = {spent.name: spent for spent in LIMITS.hold_entry(claims, measured)}
    assert (held["params_m"].value, held["params_m"].source) == (0.5, "measured")
    assert (held["macs_g"].value, held["macs_g"].source) == (2.0, "claimed")
    assert (held["memory_mb"].value, held["memory_mb"].source) == (50.0, "claimed")
    assert LIMITS.hold_entry(claims, None) == LIMITS.hold_claims(claims)


def test_figures_say_where_they_come_from_where_something_was_measured():
    over = Spent("params_m", 1.5, 1.0, source="measured")
    assert over.in_words() == "budget params_m: 1.5 measured, 1 allowed, 50.000% over"
    assert over.as_json()["source"] == "measured"
    assert "source" not in Spent("params_m", 1.5, 1.0).as_json()
