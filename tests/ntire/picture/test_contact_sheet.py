"""Contact sheets: before and after, whole and at single pixels, with scores, gaps that are said, and letters of any script."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ntire.commands.sheets import psnr_in_words
from ntire.picture import lettering as letters
from ntire.picture.contact_sheet import CELL, GAP, LINE, Column, SheetPart, contact_sheet
from ntire.picture.lettering import Lettering
from tests.made import scene, write_png


def column(title, folder):
    return Column(title, {path.stem: path for path in folder.glob("*.png")})


@pytest.fixture
def drawn(monkeypatch):
    """The texts that are drawn."""
    texts = []
    before = Lettering.of

    def of(self, text):
        texts.append(text)
        return before(self, text)

    monkeypatch.setattr(Lettering, "of", of)
    return texts


def pixels(path):
    return np.asarray(Image.open(path))


def test_the_crop_has_the_pictures_own_pixels_where_there_is_most_to_see(tmp_path):
    busy = np.full((600, 800, 3), 90, np.uint8)
    busy[310:, 510:] = np.random.default_rng(0).integers(0, 255, (290, 290, 3))
    write_png(tmp_path / "after" / "a.png", busy)
    contact_sheet(tmp_path / "sheet.png", [SheetPart([column("after", tmp_path / "after")], ["a"])])
    sheet = pixels(tmp_path / "sheet.png")
    whole = round(600 * CELL / 800)
    top = LINE + GAP // 2 + 2 * LINE + whole + GAP
    crop = sheet[top : top + CELL, GAP : GAP + CELL]
    found = [
        (y, x)
        for y in range(300, 321)
        for x in range(500, 521)
        if np.array_equal(busy[y : y + CELL, x : x + CELL], crop)
    ]
    assert len(found) == 1


def test_cells_say_scores_gaps_and_other_sizes(tmp_path, drawn):
    for name in ("a", "b"):
        write_png(tmp_path / "gt" / f"{name}.png", scene())
    write_png(tmp_path / "one" / "a.png", scene() ^ 1)
    write_png(tmp_path / "small" / "a.png", scene()[::2, ::2])
    (tmp_path / "small" / "b.png").write_text("no picture")
    truth = column("truth", tmp_path / "gt")
    columns = [column("one", tmp_path / "one"), column("small", tmp_path / "small"), truth]
    contact_sheet(tmp_path / "sheet.png", [SheetPart(columns, ["a", "b"], truth)], psnr_in_words)
    assert drawn == [
        "a", "one", "48.13 dB PSNR", "small", "20 x 24, shown at 40 x 48", "truth", "",
        "b", "one", "missing", "small", "cannot be read", "truth", "",
    ]  # fmt: skip
    assert psnr_in_words(scene(), scene()) == "equal to the truth"
    # Two blocks of three cells stand in one row.
    assert pixels(tmp_path / "sheet.png").shape[1] > 6 * CELL


def test_letters_that_no_font_has_are_codes_and_that_is_said(monkeypatch):
    monkeypatch.setattr(letters, "_files", tuple)
    lettering = Lettering(14)
    assert lettering.of("Team 1")[1] == "Team 1"
    assert lettering.remark() is None
    assert lettering.of("a深b")[1] == "aU+6DF1 b"
    assert "has 深: they are written as codes" in lettering.remark()
    # A letter that turns the text around is a code in any case.
    assert lettering.of("\u202ex")[1] == "\\u202ex"


def test_a_font_of_the_machine_is_taken_for_letters_that_the_own_one_lacks(monkeypatch):
    fonts = [path for path in letters._files() if letters._has(letters._font(path, 14), "Ж")]
    if not fonts:
        pytest.skip("no font with Cyrillic here")
    font, shown = Lettering(14).of("Ж")
    assert (shown, letters._has(font, "Ж")) == ("Ж", True)


def test_the_command_shows_inputs_entries_and_truth(ntire, pictures, drawn, tmp_path):
    assert (
        ntire("run", "--team", "Copy", "--track", "srgb", pictures, "--device", "cpu", "-o", "r1", "--sheet").code == 0
    )
    assert pixels("r1-sheet.png").shape[1] > 2 * CELL
    assert drawn.count("restored") == drawn.count("input") == 3
    assert not Path("r1/contact-sheet.png").exists()
    drawn.clear()
    shutil.make_archive("r2", "zip", "r1")
    (Path("r1") / "images" / "b.png").unlink()
    ran = ntire("sheet", "r1", "r2.zip", "--lq", pictures, "--gt", pictures, "--limit", 2)
    assert ran.code == 0, ran.err
    assert "the first 2 of 3" in ran.err
    assert drawn[:9] == [
        "a",
        "input",
        "equal to the truth",
        "r1",
        "equal to the truth",
        "r2",
        "equal to the truth",
        "truth",
        "",
    ]
    assert drawn[9:14] == ["b", "input", "equal to the truth", "r1", "missing"]
    found = ntire("sheet", "r1", "--lq", pictures, "--gt", pictures, "--limit", 2, "--json").json()
    equal = "equal to the truth"
    assert found == {
        "file": "contact-sheet.png",
        "pictures": {
            "a": {"input": equal, "r1": equal, "truth": ""}, "below/c": {"input": equal, "r1": equal, "truth": ""},
        },
    }  # fmt: skip
    write_png(tmp_path / "other" / "x.png", scene())
    wrong = ntire("sheet", "r1", "--gt", tmp_path / "other")
    assert (wrong.code, "has the name of one in" in wrong.err.replace("\n", " ")) == (2, True)


def test_inputs_of_a_track_that_adds_noise_are_shown_with_it(ntire, pictures, monkeypatch):
    assert ntire("run", "--team", "Copy", "--track", "denoise-15", pictures, "--device", "cpu", "-o", "r").code == 0
    given = ntire("sheet", "r", "--lq", pictures, "--gt", pictures, "--json").json()["pictures"]
    assert len(given) == 3
    for words in given.values():
        assert words["input"] == words["r"] != "equal to the truth"
    monkeypatch.setenv("NTIRE_DATA", "data")
    shutil.copytree(pictures, "data/denoise-15/gt")
    assert ntire("sheet", "r", "--json").json()["pictures"] == given
