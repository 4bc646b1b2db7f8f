"""What decides the difference: each choice of a protocol, changed alone, gives what a metric of that protocol gives."""

import json

import numpy as np
import pytest

from ntire import UserError
from ntire.entry.manifest import Manifest, Submission
from ntire.method.published_costs import published_costs
from ntire.scoring.instruments import View
from ntire.scoring.metrics import METRICS
from ntire.scoring.opened import OwnPictures
from ntire.scoring.protocol_diff import choices_of, protocol_diff
from ntire.scoring.references import References, expected_images
from ntire.scoring.track import load_track
from tests.made import scene, write_png

TRACK = load_track("general")


@pytest.fixture
def entry(tmp_path):
    for number in range(3):
        gt = scene(37, 53, seed=number)
        noisy = gt + np.random.default_rng(number).integers(-2 - 6 * number, 3 + 6 * number, gt.shape)
        write_png(tmp_path / "gt" / f"{number}.png", gt)
        write_png(tmp_path / "entry" / "images" / f"{number}.png", noisy.clip(0, 255).astype(np.uint8))
    return Submission(tmp_path / "entry", Manifest(team="T", track="general", date="2026-01-01"))


def moved_of(entry, track=TRACK):
    expected = expected_images(track, References(entry.root.parent / "gt"), ("psnr",))
    return {(one.choice, one.setting): one for one in protocol_diff(track, entry, expected, OwnPictures())}


def mean_of(name, entry, border=0):
    from ntire.picture.image import read_pixels

    values = []
    for number in range(3):
        pair = [read_pixels(entry.root.parent / folder / f"{number}.png") for folder in ("entry/images", "gt")]
        pair = [one[border:-border, border:-border] if border else one for one in pair]
        values.append(METRICS[name].load("cpu", {}).observe([View(*pair)])[0][0])
    return np.mean(values)


def test_each_choice_alone_gives_the_metric_of_that_choice(entry):
    moved = moved_of(entry)
    own = moved["all", "as the track has it"]
    assert own.own
    assert own.psnr == pytest.approx(mean_of("psnr", entry))
    assert own.ssim == pytest.approx(mean_of("ssim-skimage", entry))
    assert moved["border", "4 px"].psnr == pytest.approx(mean_of("psnr", entry, 4))
    assert moved["border", "4 px"].ssim == pytest.approx(mean_of("ssim-skimage", entry, 4))
    assert moved["window of SSIM", "gaussian 11"].ssim == pytest.approx(mean_of("ssim-rgb", entry))
    assert moved["window of SSIM", "gaussian 11"].psnr == own.psnr
    assert moved["colour", "Y of BT.601, 16 to 235"].psnr == pytest.approx(mean_of("psnr-y", entry), abs=5e-3)
    assert moved["depth", "rounded to 8 bits"].psnr == own.psnr, "8 bits stay what they are"
    assert moved["mean", "one error of all pixels together, R, G, B"].psnr < own.psnr - 0.5
    assert {key for key, one in moved.items() if one.own} == {
        ("all", "as the track has it"), ("border", "0 px"), ("colour", "R, G, B"), ("window of SSIM", "uniform 7"),
        ("mean", "over images"),
    }  # fmt: skip


def test_the_choices_are_the_track_s_own():
    assert (choices_of(load_track("multi-10")).border, choices_of(load_track("multi-10")).window) == (4, "gaussian 11")
    assert choices_of(load_track("raim-2024")).psnr_on == "ycbcr"
    with pytest.raises(UserError, match="face-2025 has no PSNR"):
        choices_of(load_track("face-2025"))


def test_nothing_is_told_of_a_part(entry):
    (entry.images / "1.png").unlink()
    write_png(entry.images / "2.png", scene(20, 20))
    with pytest.raises(UserError, match=r"(?s)not all of its images.*1: missing.*2: wrong size"):
        moved_of(entry)


def test_a_choice_that_leaves_nothing_of_a_picture_has_no_number_and_says_why(entry):
    """One picture of 13 x 20: too small for the window of 11 without 2 pixels on each side, and for a multiple of 16."""
    for folder in ("gt", "entry/images"):
        write_png(entry.root.parent / folder / "1.png", scene(13, 20, seed=len(folder)))
    moved = moved_of(entry)
    assert moved["border", "0 px"].ssim is not None
    assert (moved["border", "4 px"].ssim, moved["cut", "to a multiple of 16"].psnr) == (None, None)
    assert moved["border", "4 px"].psnr is not None
    assert moved["border", "4 px"].remark == "1: SSIM needs at least 7 x 7 pixels, the image has 5 x 12"
    assert moved["cut", "to a multiple of 16"].remark == "1: nothing is left of 13 x 20"
    narrow = TRACK.model_copy(update={"border": 7})
    with pytest.raises(UserError, match="1: metric failed: nothing is left of 13 x 20"):
        moved_of(entry, narrow)


def test_the_command_shows_that_nothing_moves_the_truth_itself(ntire, entry):
    for number in range(3):
        write_png(entry.images / f"{number}.png", scene(37, 53, seed=number))
    (entry.root / "submission.toml").write_text('format = 1\nteam = "T"\ntrack = "general"\ndate = "2026-01-01"\n')
    asked = ("score", entry.root, "--gt", entry.root.parent / "gt", "--protocol-diff")
    ran = ntire(*asked)
    assert ran.code == 0, ran.err
    assert "nan" not in ran.out
    first = json.loads(ntire(*asked, "--json").out, parse_constant=pytest.fail)[0]
    assert (first["psnr"], first["ssim"]) == ("inf", 1.0)


def test_the_command_shows_also_what_the_noise_protocol_moves(ntire, tmp_path):
    for number in range(2):
        write_png(tmp_path / "gt" / f"{number}.png", scene(37, 53, seed=number))
    words = ("--track", "denoise-50-truncated", tmp_path / "gt", "--device", "cpu", "-o", tmp_path / "entry")
    assert ntire("run", "--team", "Copy", *words).code == 0
    ran = ntire("score", tmp_path / "entry", "--gt", tmp_path / "gt", "--protocol-diff", "--json")
    assert ran.code == 0, ran.err
    noise = {one["setting"]: one for one in ran.json() if one["choice"] == "noise"}
    assert len(noise) == 4
    (own,) = (one for one in noise.values() if one["own"])
    assert own["psnr"] == pytest.approx(ran.json()[0]["psnr"]), "the very pictures of the entry are made again"
    assert len({round(one["psnr"], 6) for one in noise.values()}) >= 3
    assert not (tmp_path / "entry" / "scores.csv").exists()
    shown = ntire("score", tmp_path / "entry", "--gt", tmp_path / "gt", "--protocol-diff").out
    assert "on pictures cut about their centre" in " ".join(shown.split())
    assert ntire("score", tmp_path / "entry", tmp_path, "--gt", tmp_path / "gt", "--protocol-diff").code == 2


def test_the_papers_complexity_stands_beside_our_counts(ntire):
    rows = ntire("cost", "--published", "--json").json()
    assert {row["table"] for row in rows} == {
        "MIRAGE table 6", "MIRAGE table A", "UIR-LoRA table 1", "Lu et al. table 5",
    }  # fmt: skip
    ours = {(row["table"], row["method"]): row for row in rows if row["counted"]}
    assert len(ours) == 8
    tiny = ours["MIRAGE table 6", "MIRAGE-T"]
    assert tiny["published"] == {"params_m": 6.21, "macs_g": 16.0, "memory_mb": 3729.0, "runtime_ms": None}
    assert tiny["counted"]["params_m"] == pytest.approx(6.21, rel=0.01)
    assert tiny["counted"]["macs_g"] == pytest.approx(16, rel=0.05)
    assert 4 * tiny["counted"]["params_m"] < tiny["counted"]["memory_mb"] < 3729
    assert ours["UIR-LoRA table 1", "UIR-LoRA"]["counted"]["params_m"] == pytest.approx(95.2, rel=0.01)
    assert "say what to count" in ntire("cost").err
    assert "Did you mean MIRAGE table A or MIRAGE table 6" in ntire("cost", "--table", "MIRAGE table 7").err


@pytest.mark.data
def test_the_complexity_is_the_papers(data):
    if not (data.parent / "reports").is_dir():
        pytest.skip(f"the papers are not in {data.parent / 'reports'}")
    papers = {
        one: next((data.parent / "reports").glob(f"{one}_*")).read_text(encoding="utf-8") for one in ("002", "003")
    }
    for row in published_costs():
        if row.table == "MIRAGE table 6":
            printed = f" {row.memory_mb:.0f}M {row.params_m:.2f}M {row.macs_g:g}G"
            lines = [one for one in papers["002"].splitlines() if one.startswith(row.method[:6])]
            assert any(printed in one for one in lines), row
        if row.table == "UIR-LoRA table 1":
            printed = [f"{row.params_m:.1f}", f"{row.runtime_ms / 1000:.2f}"]
            lines = [one.split("\t") for one in papers["003"].splitlines() if one.startswith(row.method)]
            assert any(printed == one[5:7] for one in lines), row
