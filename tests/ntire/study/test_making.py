"""`ntire study new`: a folder with a design to edit, and pictures that nothing tells apart."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ntire.picture.image import read_pixels
from ntire.study.design import files_of, open_study
from ntire.study.pictures import read_shown
from ntire.study.regions import places
from tests.made import scene, write_png
from tests.ntire.study.conftest import ENTRIES, PICTURES, make_entries


def test_a_study_has_the_pictures_of_its_entries_and_its_design_is_read_back(study, material):
    folder = study()
    design = open_study(folder)
    assert [one.name for one in design.entries] == list(ENTRIES)
    assert [one.team for one in design.entries] == [f"Team {name}" for name in ENTRIES]
    assert [one.picture for one in design.regions] == list(PICTURES)
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == sorted(files_of(design))
    for number, region in enumerate(design.regions):
        cut = (slice(region.top, region.top + region.height), slice(region.left, region.left + region.width))
        for place, name in enumerate(ENTRIES):
            whole = read_pixels(material[0] / name / "images" / f"{region.picture}.png")
            shown = read_pixels(folder / "pictures" / f"region{number:04d}-entry{place:02d}.png")
            assert np.array_equal(shown, whole[cut])
    assert (folder / "secret.key").stat().st_mode & 0o077 == 0


def test_no_file_of_a_region_differs_from_the_others_in_length_or_carries_more_than_pixels(study):
    folder = study()
    design = open_study(folder)
    for region in range(len(design.regions)):
        files = [path.read_bytes() for path in sorted((folder / "pictures").glob(f"region{region:04d}-*"))]
        assert len(files) == len(ENTRIES) + 2
        assert len({len(data) for data in files}) == 1
        for data in files:
            assert not any(name.encode() in data for name in (*ENTRIES, "Team"))
            picture = Image.open(io.BytesIO(data))
            picture.load()
            assert (picture.format, picture.mode, picture.info) == ("PNG", "RGB", {})


def test_an_anchor_is_clearly_worse_than_what_it_is_made_of(study):
    folder = study()
    for number, region in enumerate(open_study(folder).regions):
        anchor, original = (
            read_pixels(folder / "pictures" / f"region{number:04d}-{what}.png").astype(float)
            for what in ("anchor", f"entry{region.anchor_of:02d}")
        )
        assert np.abs(anchor - original).mean() > 2


def test_metadata_of_an_entry_is_gone_and_16_bits_are_rounded(ntire, tmp_path):
    entries, lq = make_entries(tmp_path, ("A", "B"), ("x",))
    picture = Image.fromarray(scene(72, 72))
    exif = Image.Exif()
    exif[0x013B] = "Made by A"
    picture.save(entries / "A" / "images" / "x.png", exif=exif, pnginfo=None)
    deep = scene(72, 72, 3).astype(np.uint16) * 257
    write_png(entries / "B" / "images" / "x.png", deep)
    assert ntire("study", "new", entries, "--track", "srgb", "--lq", lq, "--crop", 0, "-o", "s").code == 0
    assert not any(b"Made by" in path.read_bytes() for path in Path("s/pictures").iterdir())
    assert np.array_equal(read_pixels(Path("s/pictures/region0000-entry01.png")), deep // 257)


def test_regions_are_where_the_entries_differ_most():
    pictures = [scene(80, 90) for _ in range(3)]
    pictures[1][50:60, 20:30] = 255
    ((top, left),) = places("disagreement", pictures, 24, 1, "0")
    assert top <= 50 <= 60 <= top + 24
    assert left <= 20 <= 30 <= left + 24
    several = places("disagreement", pictures, 24, 3, "0")
    assert several[0] == (top, left)
    assert all(abs(a[0] - b[0]) >= 24 or abs(a[1] - b[1]) >= 24 for a in several for b in several if a != b)
    assert (
        places("seed", pictures, 24, 1, "7")
        == places("seed", pictures, 24, 1, "7")
        != places("seed", pictures, 24, 1, "8")
    )
    assert places("centre", pictures, 24, 1, "") == [(28, 33)]
    assert places("disagreement", pictures, 500, 2, "") == [(0, 0)]


def test_regions_may_be_chosen_by_hand(ntire, material, tmp_path):
    table = tmp_path / "regions.csv"
    table.write_text("picture,top,left,side\n0002,3,5,16\n0002,30,30,\n0004,0,0,8\n")
    words = ("study", "new", material[0], "--track", "srgb", "--lq", material[1], "--crop", 20)
    assert ntire(*words, "--regions", table, "-o", tmp_path / "s").code == 0
    found = [(one.picture, one.top, one.left, one.height) for one in open_study(tmp_path / "s").regions]
    assert found == [("0002", 3, 5, 16), ("0002", 30, 30, 20), ("0004", 0, 0, 8)]
    for text, told in (
        ("picture,top,left\n0009,1,1\n", "no such picture among the inputs: 0009"),
        ("picture,top,left\n0001,x,1\n0002,1,-4\n", "line 3: expected whole numbers"),
        ("picture,top,left\n0001,900,1\n", "lies outside of 72 x 72"),
        ("picture,left\n0001,1\n", "found none of top"),
    ):
        table.write_text(text)
        ran = ntire(*words, "--regions", table, "-o", tmp_path / "t")
        assert ran.code == 2
        assert told in " ".join(ran.err.split())


def test_everything_that_is_wrong_with_the_entries_is_told_at_once(ntire, tmp_path):
    entries, lq = make_entries(tmp_path)
    (entries / "Anemone" / "images" / "0001.png").unlink()
    (entries / "Clover" / "images" / "0003.png").unlink()
    ran = ntire("study", "new", entries, "--track", "srgb", "--lq", lq, "-o", "s")
    assert ran.code == 2
    assert "Anemone: no picture 0001" in ran.err
    assert "Clover: no picture 0003" in ran.err
    entries, lq = make_entries(tmp_path)
    write_png(entries / "Borage" / "images" / "0002.png", scene(71, 72))
    ran = ntire("study", "new", entries, "--track", "srgb", "--lq", lq, "-o", "s")
    assert ran.code == 2
    assert "0002" in ran.err
    shutil.rmtree(entries / "Borage")
    shutil.rmtree(entries / "Clover")
    assert "two entries" in ntire("study", "new", entries, "--track", "srgb", "--lq", lq, "-o", "s2").err


def test_a_study_is_not_written_over(ntire, study, material):
    folder = study()
    ran = ntire("study", "new", material[0], "--track", "srgb", "--lq", material[1], "-o", folder)
    assert ran.code == 2
    assert "may have votes" in ran.err


def test_mistakes_in_the_design_are_told_with_their_lines(ntire, study):
    folder = study()
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(
        text.replace("least_seconds = 2.0", "least_seconds = -2").replace("repeats =", "repeat =")
    )
    ran = ntire("study", "plan", "--study", folder)
    assert ran.code == 2
    assert "session.least_seconds" in ran.err
    assert "session.repeat" in ran.err


@pytest.mark.parametrize("size", [(36, 36), (24, 24)])
def test_a_small_input_of_super_resolution_is_enlarged(ntire, tmp_path, size):
    entries, lq = make_entries(tmp_path, ("A", "B"), ("x",))
    write_png(lq / "x.png", scene(*size))
    assert ntire("study", "new", entries, "--track", "srgb", "--lq", lq, "--crop", 0, "-o", tmp_path / "s").code == 0
    assert read_pixels(tmp_path / "s" / "pictures" / "region0000-input.png").shape == (72, 72, 3)


def test_a_raw_input_is_developed_to_be_looked_at(tmp_path):
    mosaic = np.full((12, 16), 264, np.uint16)
    mosaic[::2, ::2] //= 2
    np.save(tmp_path / "frame.npy", mosaic)
    (tmp_path / "frame.toml").write_text(
        'cfa = "RGGB"\nblack_level = 64\nwhite_level = 1064\nwhite_balance = [1, 1, 1]\n'
    )
    shown = read_shown(tmp_path / "frame.npy", raw=True)
    assert shown.shape == (12, 16, 3)
    # Of linear light 0.068 and 0.2 the sRGB curve makes 0.291 and 0.485.
    assert np.abs(shown[4, 6].astype(int) - (74, 124, 124)).max() <= 1
