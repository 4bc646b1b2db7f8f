import json

import pytest

from ntire.text import markdown_cell, meant, printable_json, spreadsheet_cell

FORMULAS = ["=1+1", "＝1", "  =1", "\u00a0@x", "\t+1", "\n-x", "－cmd", "+cmd|' /C calc'!A0", "\u2003＠a"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_takes_for_a_formula_becomes_text(text):
    assert spreadsheet_cell(text).startswith("'")
    assert "\n" not in spreadsheet_cell(text)


@pytest.mark.parametrize("text", ["-1.5", "+3", "1e-7", "inf", "MiAlgo", "a=b", ""])
def test_numbers_and_plain_words_stay_as_they_are(text):
    assert spreadsheet_cell(text) == text


def test_names_become_no_links_pictures_or_mentions_in_markdown():
    cell = markdown_cell("![x](https://evil/t.png) <b> WWW.evil.org a|b @all `c` \\[d]")
    assert cell == (
        "!\\[x\\](https&#58;//evil/t.png) &lt;b> WWW&#46;evil.org a\\|b &#64;all \\`c\\` \\\\\\[d\\]"
    )  # fmt: skip
    assert markdown_cell("Team_X & co") == "Team_X &amp; co"


def test_json_has_no_character_that_a_terminal_acts_on_and_stands_for_the_same_value():
    value = {"name": "a\x9b31m\u202eb\x1b\udcff\U000e0041é", "lines": "x\ny"}
    text = printable_json(value, indent=2)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "é" in text
    assert json.loads(text) == value


def test_a_name_that_is_nearly_right_is_asked_about_and_all_are_told_otherwise():
    assert meant("mialog", ["MiAlgo", "NJUST-KMG", "MiAlgo"]) == "Did you mean MiAlgo?"
    assert meant("x", ["one", "two"]) == "There are: one, two."
    assert meant("x", []) == "There are: none."
