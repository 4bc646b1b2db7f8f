"""Who sees what: pairs, sides and regions are balanced, whatever the numbers; `ntire study plan` says what they can tell."""

import itertools
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from ntire.study.deck import blocks_of, card, hand
from ntire.study.design import Marks
from ntire.study.power import powers, sketch
from ntire.study.simulation import Behaviour


def spread(counts, of):
    """How far the most frequent is from the rarest."""
    return max(counts.get(one, 0) for one in of) - min(counts.get(one, 0) for one in of)


@settings(max_examples=60)
@given(
    entries=st.integers(2, 9), regions=st.integers(1, 9), trials=st.integers(1, 40), observers=st.integers(1, 12),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_after_any_number_of_observers_every_pair_was_seen_equally_often(entries, regions, trials, observers, seed):
    design = sketch("pairs", entries, regions, trials).model_copy(update={"seed": seed})
    seen = [card(design, number) for number in range(observers * trials)]
    pairs = list(itertools.combinations(range(entries), 2))
    assert spread(Counter(tuple(sorted(one.shown)) for one in seen), pairs) <= 1
    of_regions = Counter((one.region, *sorted(one.shown)) for one in seen)
    assert spread(of_regions, [(region, *pair) for region in range(regions) for pair in pairs]) <= 1
    sides = Counter(one.shown for one in seen)
    assert all(abs(sides[a, b] - sides[b, a]) <= 1 for a, b in pairs)


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ({"highest": -5.0}, "expected lowest below highest, found 0 and -5"),
        ({"highest": float("inf")}, "finite number"),
        ({"column": "entry"}, "expected a column of its own"),
    ],
)
def test_marks_that_would_turn_the_order_or_say_nothing_are_refused(marks, told):
    with pytest.raises(ValidationError, match=told):
        Marks(**marks)


@settings(max_examples=25)
@given(entries=st.integers(3, 13), size=st.integers(3, 6))
def test_a_ranking_brings_every_two_entries_together_equally_often(entries, size):
    blocks = blocks_of(entries, size)
    together = Counter(pair for block in blocks for pair in itertools.combinations(block, 2))
    assert len(set(together.values())) == 1
    assert set(together) == set(itertools.combinations(range(entries), 2))
    assert len(blocks) <= 20 * entries


@settings(max_examples=30)
@given(slot=st.integers(0, 50), kind=st.sampled_from(["pairs", "ranking", "opinion"]))
def test_a_hand_has_its_cards_repeats_turned_and_anchors(slot, kind):
    design = sketch(kind, 5, 7, 20)
    trials = hand(design, slot)
    assert trials == hand(design, slot)
    assert Counter(one.role for one in trials) == {"vote": 20, "repeat": 4, "anchor": 4}
    votes = [one for one in trials if one.role == "vote"]
    dealt = Counter(card(design, slot * 20 + number) for number in range(20))
    assert Counter(votes) == dealt
    for place, one in enumerate(trials):
        if one.role == "repeat":
            before = [trials[at] for at in range(place) if trials[at].role == "vote"]
            assert any(first.region == one.region and first.shown == one.shown[::-1] for first in before)
        if one.role == "anchor" and kind != "opinion":
            assert {design.regions[one.region].anchor_of, 5} <= set(one.shown)
            assert len(set(one.shown)) == len(one.shown) == design.shown_at_once


def test_orders_differ_between_observers_and_regions_do_not_follow_themselves():
    design = sketch("pairs", 4, 6, 24)
    assert len({hand(design, slot) for slot in range(20)}) == 20
    following = [
        one.region == other.region
        for slot in range(10)
        for one, other in itertools.pairwise([card for card in hand(design, slot) if card.role == "vote"])
    ]
    assert sum(following) <= len(following) * 0.1


def test_power_grows_with_difference_and_observers_and_is_the_error_where_there_is_none():
    design = sketch("pairs", 4, 15, 30)
    found = {
        (one.observers, one.difference): one.power
        for one in powers(design, [4, 16], [0.5001, 0.6, 0.75], Behaviour(()), 1)
    }
    assert found[4, 0.5001] == pytest.approx(0.05, abs=0.03)
    assert found[16, 0.5001] == pytest.approx(0.05, abs=0.03)
    assert found[4, 0.6] < found[4, 0.75] < found[16, 0.75]
    assert found[16, 0.75] > 0.85


def test_the_power_of_votes_without_tastes_is_that_of_the_text_book():
    """Two entries, no ties, 100 votes, 65 % preferred: a binomial test has a power of 0.86."""
    design = sketch("pairs", 2, 1, 100, ties=False)
    (found,) = powers(design, [1], [0.65], Behaviour((), taste=0, peculiarity=0), 0)
    assert found.votes == 100
    assert found.power == pytest.approx(0.86, abs=0.05)


@pytest.mark.parametrize("kind", ["ranking", "opinion"])
def test_rankings_and_opinions_can_be_planned(ntire, kind):
    difference = "0.5" if kind == "opinion" else "0.7"
    ran = ntire(
        "study", "plan", "--entries", 5, "--regions", 10, "--kind", kind, "--observers", "4,12", "--difference", difference,
        "--trials", 20, "--json",
    )  # fmt: skip
    assert ran.code == 0
    few, many = (one["power"] for one in ran.json()["powers"])
    assert few < many
    assert any("standard" in line or "varies" in line for line in ran.json()["assumptions"])


def test_wrong_plans_are_told(ntire):
    for words, told in (
        (("--difference", "1.2"), "between 0.5 and 1, found 1.2"),
        (("--observers", "x"), "--observers: expected numbers"),
        (("--observers", "2.5"), "whole numbers from 1 to 2000"),
        (("--study", "nowhere"), "expected a study with a study.toml"),
    ):
        ran = ntire("study", "plan", *words)
        assert ran.code == 2
        assert told in " ".join(ran.err.split())
