"""The same sigma, handed to a network in three ways, as three families of published tables have it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from ntire.picture.image import UnreadableImage, cut_to_multiple, read_header, read_image, read_pixels
from ntire.picture.samples import add_noise
from ntire.scoring.track import load_track
from tests.made import scene, write_png

FOREIGN = """
from pathlib import Path
import torch
from ntire.method import Method

class Foreign(Method):
    team = "Foreign"
    track = "general"
    cite = "raim2025"
    tiling = "exact"
    halo = 0
    stride = 1

    READ

    def forward(self, lq):
        if not lq.is_meta:
            torch.save(lq[0], Path(__file__).with_name("seen.pt"))
        return lq
"""
OWN_READ = """
    def read(self, path):
        from ntire.picture.image import read_image
        return read_image(path) * 3 - 1
"""


@pytest.fixture
def clean(tmp_path):
    """Two pictures with dark and bright parts, which noise drives out of [0, 1]."""
    for number in range(2):
        picture = scene(37, 53, seed=number).astype(int) * 2 - 128
        write_png(tmp_path / "clean" / f"{number}.png", picture.clip(0, 255).astype(np.uint8))
    return {str(number): tmp_path / "clean" / f"{number}.png" for number in range(2)}


def foreign(tmp_path, read=""):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "method.py").write_text(FOREIGN.replace("    READ\n", read))
    return tmp_path / "foreign"


def test_unclipped_noise_is_the_noise_itself_and_the_others_are_made_of_it(clean):
    noisy = {name: read_image(add_noise(clean, 50, 0, name)["0"]) for name in ("float", "rounded", "truncated")}
    floats = noisy["float"]
    assert floats.min() < -0.1
    assert floats.max() > 1.1
    residual = (floats - read_image(clean["0"])) * 255
    assert float(residual.std()) == pytest.approx(50, rel=0.03)
    assert abs(float(residual.mean())) < 2.5
    assert torch.equal(noisy["rounded"], (floats.clamp(0, 1) * 255).round() / 255)
    assert torch.equal(noisy["truncated"], (floats.clamp(0, 1) * 255).floor() / 255)


def test_pictures_are_cut_about_their_centre_as_the_evaluation_programs_cut_them(clean):
    """The arithmetic is written out as those programs have it."""
    pixels = read_pixels(clean["0"])
    height, width = pixels.shape[:2]
    down, right = height % 16, width % 16
    expected = pixels[down // 2 : height - down + down // 2, right // 2 : width - right + right // 2]
    assert np.array_equal(cut_to_multiple(pixels, 16), expected)
    header = read_header(add_noise(clean, 25, 0, "truncated", 16)["0"])
    assert (header.height, header.width) == (32, 48)


def test_a_foreign_method_gets_floats_beyond_the_range_of_8_bit_pictures(clean, tmp_path, ntire):
    method = foreign(tmp_path)
    ran = ntire("run", "--team", method, "--track", "denoise-50-float", clean["0"], "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "neither clipped nor rounded" in ran.err
    seen = torch.load(method / "seen.pt")
    assert torch.equal(seen, read_image(add_noise({"0": clean["0"]}, 50, 0, "float")["0"]))
    assert seen.min() < -0.1


def test_a_foreign_method_that_reads_for_itself_hands_on_floats_as_they_are(clean, tmp_path, ntire):
    method = foreign(tmp_path, OWN_READ)
    ran = ntire("run", "--team", method, "--track", "general", clean["0"], "--device", "cpu")
    assert ran.code == 0, ran.err
    assert torch.equal(torch.load(method / "seen.pt"), read_image(clean["0"]) * 3 - 1)


def test_what_was_cut_is_scored_against_a_truth_cut_alike(clean, tmp_path, ntire):
    for kind in ("float", "truncated"):
        words = ("--track", f"denoise-25-{kind}", tmp_path / "clean", "--device", "cpu", "-o", f"entries/{kind}")
        assert ntire("run", "--team", "Copy", *words).code == 0
    assert read_pixels(Path("entries/truncated/images/0.png")).shape == (32, 48, 3)
    noisy = read_pixels(Path("entries/truncated/images/0.png")).astype(float)
    truth = cut_to_multiple(read_pixels(clean["0"]), 16)
    expected = 10 * np.log10(255**2 / np.mean((noisy - truth) ** 2))
    ran = ntire("score", "entries/truncated", "--gt", tmp_path / "clean", "--json", "-o", "board")
    assert ran.code == 0, ran.err
    rows = {
        row["image"]: row for row in csv.DictReader(next(Path("board").rglob("scores.csv")).read_text().splitlines())
    }
    assert float(rows["0"]["psnr"]) == pytest.approx(expected, abs=1e-6)


def test_published_rows_of_another_protocol_are_listed_with_the_reason_and_not_ranked(ntire):
    for protocol, ranked in (("float", {"DnCNN", "IRCNN", "FFDNet", "BRDNet"}), ("truncated", None)):
        lines = ntire("leaderboard", "--track", f"denoise-25-{protocol}", "--published", "--json").json()
        first = {line["team"] for line in lines if line["rank"] is not None}
        assert first == ranked if ranked else {"AirNet", "PromptIR"} < first
        for line in lines:
            assert (line["rank"] is None) == any("another protocol" in problem for problem in line["problems"])
    assert all(
        line["rank"] is None for line in ntire("leaderboard", "--track", "denoise", "--published", "--json").json()
    )


@pytest.mark.parametrize("name", ["denoise", "denoise-25-float", "denoise-25-truncated"])
def test_the_protocol_of_a_track_is_said_in_words(name, ntire):
    words = {
        "denoise": "clipped and rounded to 8 bits",
        "denoise-25-float": "neither clipped nor rounded",
        "denoise-25-truncated": "clipped and truncated to 8 bits, on pictures cut about their centre to a multiple of 16",
    }
    assert words[name] in " ".join(ntire("tracks", name).out.split())
    assert load_track(name).noise.sigma == 25


def test_a_check_expects_the_size_that_pictures_are_cut_to(clean, tmp_path, ntire):
    words = ("--track", "denoise-25-truncated", tmp_path / "clean", "--device", "cpu", "-o", "entry")
    assert ntire("run", "--team", "MiAlgo", *words).code == 0
    ran = ntire("check", "entry", "--lq", tmp_path / "clean", "--json")
    assert "E304" not in ran.out, ran.out
    write_png(Path("entry/images/0.png"), scene(37, 53))
    ran = ntire("check", "entry", "--lq", tmp_path / "clean", "--json")
    assert "E304" in ran.out


def test_pictures_without_noise_are_cut_where_the_track_s_program_cuts_them(clean, tmp_path, ntire):
    for number in range(2):
        write_png(tmp_path / "lq" / f"{number}.png", scene(37, 53, seed=number) // 2)
        write_png(tmp_path / "gt" / f"{number}.png", scene(37, 53, seed=number))
    words = ("--track", "dehaze-sots", tmp_path / "lq", "--device", "cpu", "-o", "entry")
    ran = ntire("run", "--team", "Copy", *words)
    assert ran.code == 0, ran.err
    assert "2 picture(s) cut about their centre to a multiple of 16" in ran.err + ran.out
    expected = cut_to_multiple(scene(37, 53) // 2, 16)
    assert np.array_equal(read_pixels(Path("entry/images/0.png")), expected)
    ran = ntire("score", "entry", "--gt", tmp_path / "gt", "--json", "-o", "board")
    assert ran.code == 0, ran.err
    error = (expected.astype(float) - cut_to_multiple(scene(37, 53), 16)) ** 2
    first = next(csv.DictReader(next(Path("board").rglob("scores.csv")).read_text().splitlines()))
    assert float(first["psnr"]) == pytest.approx(10 * np.log10(255**2 / error.mean()))
    ran = ntire("check", "entry", "--lq", tmp_path / "lq", "--json")
    assert "E304" not in ran.out, ran.out


def test_a_damaged_file_of_floats_is_told(clean):
    path = add_noise(clean, 25, 0, "float")["0"]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableImage, match="not a whole file of unclipped floats"):
        read_image(path)
