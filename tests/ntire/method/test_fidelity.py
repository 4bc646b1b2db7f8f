"""The tables of what reports say are complete and point to code that is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from ntire.method.catalogue import methods
from ntire.method.fidelity import Statement, markdown, mistakes_of, passages

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("passage", passages(), ids=lambda passage: f"{passage.team}-{passage.track}")
def test_every_sentence_is_accounted_for_and_every_place_is_there(passage):
    assert mistakes_of(passage) == []


@pytest.mark.parametrize("track", ["raw", "srgb"])
def test_every_method_has_a_table(track):
    told = {passage.team for passage in passages() if passage.track == track}
    assert {method.team for method in methods(track)} - told <= {"Copy", "OSEDiff"}


def test_gaps_unknown_statuses_and_lost_places_are_found():
    whole = passages()[0]
    short = replace(whole, statements=whole.statements[1:], sentences=whole.sentences + 1)
    assert f"no row accounts for sentence {whole.sentences + 1}" in "\n".join(mistakes_of(short))
    wrong = (
        Statement("1-99", "x", "as stated", "", "raw.mialgo:Nothing"),
        Statement("2", "x", "read as", "", "raw.mialgo:MiAlgo"),
        Statement("3", "x", "done", "", "raw.mialgo:MiAlgo"),
    )
    found = "\n".join(mistakes_of(replace(whole, statements=wrong)))
    for part in (
        "there is no sentence 99",
        "no raw.mialgo:Nothing",
        "read as without a reason",
        "'done' is not one of",
    ):
        assert part in found


def test_the_document_is_what_the_tables_say():
    assert (ROOT / "docs" / "fidelity.md").read_text("utf-8") == markdown(passages()), (
        "run `ntire teams --fidelity --markdown > docs/fidelity.md`"
    )
