"""The tables of what reports say are complete and point to code that is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from ntire.method.catalogue import methods
from ntire.method.fidelity import Statement, markdown, mistakes_of, passages
from tests import reports

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("passage", passages(), ids=lambda passage: f"{passage.team}-{passage.track}")
def test_every_sentence_is_accounted_for_and_every_place_is_there(passage):
    assert mistakes_of(passage) == []


@pytest.mark.data
@pytest.mark.parametrize("passage", passages(), ids=lambda passage: f"{passage.team}-{passage.track}")
def test_the_numbers_are_those_of_the_report_s_sentences(data, passage):
    folder = data.parent / "reports"
    if not folder.is_dir():
        pytest.skip(f"the reports are not in {folder}")
    found = reports.passage(reports.read(folder, passage.report), passage.stretches)
    assert reports.marks(found).split() == list(passage.marks), "the passage, or the way to count, has changed"


@pytest.mark.parametrize("track", ["raw", "srgb", "face", "general"])
def test_every_method_has_a_table(track):
    told = {passage.team for passage in passages() if passage.track == track}
    assert {method.team for method in methods(track)} - told <= {"Copy", "OSEDiff"}


def test_gaps_unknown_statuses_and_lost_places_are_found():
    whole = passages()[0]
    short = replace(whole, statements=whole.statements[1:], sentences=whole.sentences + 1)
    assert f"no row accounts for sentence {whole.sentences + 1}" in "\n".join(mistakes_of(short))
    assert f"{len(whole.marks)} marks for {whole.sentences + 1} sentences" in "\n".join(mistakes_of(short))
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


def test_sentences_end_at_full_stops_that_are_not_those_of_abbreviations():
    text = """Intro
4.1 The method
**Idea.** As Chen et al. [2] do, see Fig. 1, we cut. The rest of a line that a figure
Figure 3. A caption. It is left out.
interrupts goes on.
w/o parts 1.5 2.5
1: first step
2: second step
- 1. Numbers of lists. Are none.
A\t1.0\t2.0
4.2 The next
"""
    found = reports.passage(text, [("4.1 The", "4.2 The")])
    assert found == [
        "**Idea.** As Chen et al. [2] do, see Fig. 1, we cut.",
        "The rest of a line that a figure interrupts goes on. w/o parts 1.5 2.5",
        "1: first step",
        "2: second step",
        "Numbers of lists.",
        "Are none.",
    ]
    assert reports.passage(text, [("A\t", "")]) == ["A\t1.0\t2.0"], "a row that is named alone"
    assert reports.marks(found) != reports.marks(found[::-1])
    with pytest.raises(ValueError, match="begins with '5. Nothing'"):
        reports.passage(text, [("5. Nothing", "")])
