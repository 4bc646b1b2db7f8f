"""Pictures that become larger, from end to end: run, check, score, verify, pack, and what is said where scales disagree."""

import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.entry.journal import read_journal
from ntire.method import Method
from ntire.method.face_alignment import restore_faces, to_upright
from ntire.method.receptive_field import reach_of
from ntire.picture.image import as_image, as_pixels, read_pixels
from ntire.picture.resize import resized
from ntire.review.check import check
from ntire.review.probes import cut, turned
from ntire.runner.memory_plan import Planner
from ntire.runner.prepare import Options
from ntire.scoring.track import Track, load_track
from ntire.teams.esr.copy import Copy, CopyLanczos, CopyX3
from tests.made import scene, write_png

TRACK = load_track("image-sr-x4")
NAMES = ("a", "below/b")


@pytest.fixture
def pairs(tmp_path):
    """`lq` of 20 x 28 and 23 x 17 and their `gt`, which is larger by a rest of 2 rows in the second."""
    for number, (name, height, width) in enumerate(((NAMES[0], 80, 112), (NAMES[1], 94, 68))):
        gt = scene(height, width, seed=number)
        write_png(tmp_path / "gt" / f"{name}.png", gt)
        whole = as_image(gt[: height // 4 * 4])
        write_png(tmp_path / "lq" / f"{name}.png", as_pixels(resized(whole, Fraction(1, 4))))
    return tmp_path


@pytest.fixture
def entry(pairs, ntire):
    """The folder of a run of Copy."""
    ran = ntire(
        "run", "--team", "Copy", "--track", "image-sr-x4", pairs / "lq", "-o", pairs / "entry", "--device", "cpu"
    )
    assert ran.code == 0, ran.err
    return pairs / "entry"


def replaced(entry, name, make):
    """One image of an entry made anew of its pixels."""
    path = entry / "images" / f"{name}.png"
    write_png(path, make(read_pixels(path)))


def codes(entry, lq):
    return {(one.code, one.file): one for one in check(entry, TRACK, lambda track: lq).findings}


def test_a_run_writes_the_enlarged_picture_and_its_size_and_the_entry_breaks_no_rule(entry, pairs):
    for name in NAMES:
        lq = as_image(read_pixels(pairs / "lq" / f"{name}.png"))
        assert np.array_equal(read_pixels(entry / "images" / f"{name}.png"), as_pixels(resized(lq, 4)))
    sizes = {line["image"]: (line["height"], line["width"]) for line in read_journal(entry / "journal.jsonl")}
    assert sizes == {"a": (80, 112), "below/b": (92, 68)}
    assert not [code for code, _ in codes(entry, pairs / "lq") if code.startswith("E")]


def test_it_is_scored_against_a_truth_whose_rest_at_the_right_and_bottom_is_cut_and_that_is_said(entry, pairs, ntire):
    ran = ntire("score", entry, "--gt", pairs / "gt", "--lq", pairs / "lq", "-o", pairs / "out", "--json")
    assert ran.code == 0, ran.err
    assert "1 ground truth(s) cut at the right and at the bottom to x4 of the input: below/b" in ran.err.replace(
        "\n", " "
    )
    (line,) = ran.json()
    assert line["valid"] is True
    assert line["scored"] == 2
    without = ntire("score", entry, "--gt", pairs / "gt", "-o", pairs / "out", "--json").json()
    assert without[0]["total"] == line["total"], "without inputs the truth is cut to a multiple of the scale"
    truth, made = (read_pixels(pairs / part / "below" / "b.png") for part in ("gt", "entry/images"))
    assert truth.shape[0] == made.shape[0] + 2


def test_a_truth_that_is_no_such_enlargement_of_its_input_is_refused_by_name(entry, pairs, ntire):
    write_png(pairs / "gt" / "a.png", scene(60, 84))
    write_png(pairs / "gt" / "below" / "b.png", scene(96, 68))
    ran = ntire("score", entry, "--gt", pairs / "gt", "--lq", pairs / "lq", "-o", pairs / "out")
    assert ran.code == 2
    said = " ".join(ran.err.split())
    assert "a: expected a ground truth of 80 x 112, x4 of its input of 20 x 28, found 60 x 84, which is x3" in said
    assert "below/b: expected a ground truth of 92 x 68, x4 of its input of 23 x 17, found 96 x 68, which is no" in said


def test_a_result_of_scale_3_in_an_x4_track_is_told_as_such_and_mixed_scales_are_told_once(entry, pairs, ntire):
    replaced(entry, "a", lambda pixels: pixels[:60, :84])
    found = codes(entry, pairs / "lq")
    wrong = found["E304", "images/a.png"]
    assert (wrong.expected, wrong.found) == ("80 x 112, x4 of its input of 20 x 28", "60 x 84, which is x3")
    assert "resize before" not in wrong.do
    assert found["E316", "images"].found == "1 of x3, 1 of x4" or found["E316", "images"].found == "1 of x4, 1 of x3"
    ran = ntire("score", entry, "--gt", pairs / "gt", "-o", pairs / "out", "--json")
    assert ran.json()[0]["rank"] is None
    scores = (pairs / "out" / "entry" / "scores.csv").read_text()
    assert "found 60 x 84, which is x3" in scores


def test_the_inputs_themselves_are_a_wrong_size_in_an_x4_track(entry, pairs):
    shutil.copytree(pairs / "lq", entry / "images", dirs_exist_ok=True)
    found = codes(entry, pairs / "lq")
    assert found["E304", "images/a.png"].found == "20 x 28, which is x1"


@pytest.mark.parametrize(
    ("team", "track", "variant"), [("Copy", "image-sr-x4", "x3"), ("./mine", "image-sr-x4", None)], ids=str
)
def test_a_method_of_another_scale_than_the_track_is_refused_in_one_message(
    ntire, pairs, plugin, monkeypatch, team, track, variant
):
    folder = plugin(name="mine")
    code = (folder / "method.py").read_text().replace('track = "srgb"', 'track = "esr"')
    (folder / "method.py").write_text(code)
    monkeypatch.chdir(folder.parent)
    ran = ntire("run", "--team", team, "--track", track, *(["--variant", variant] if variant else []), pairs / "lq")
    assert ran.code == 2
    said = " ".join(ran.err.split())
    assert re.search(r"expected a method of scale 4, as track image-sr-x4 has it, found one of scale [13]\.", said)


class Shrinking(Method, abstract=True):
    """Says x4 and makes x2."""

    team, track, cite, tiling, halo, stride, scale = "S", "esr", "x", "exact", 0, 1, 4

    def forward(self, lq):
        return lq.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_network_that_does_not_keep_its_scale_fails_with_both_sizes(pairs):
    with pytest.raises(ValueError, match="returned 40 x 56 for an input of 20 x 28 and a scale of 4"):
        Shrinking().restore(pairs / "lq" / "a.png")


def test_reach_is_counted_in_pixels_of_the_input():
    assert [reach_of(method()) for method in (Copy, CopyX3, CopyLanczos)] == [2, 2, 3]


def test_the_plan_leaves_room_for_the_enlarged_picture():
    method, frame = Copy(), torch.zeros(3, 1024, 1024, dtype=torch.uint8)
    result = 3 * 4096 * 4096
    small, large = (Planner(method, Options(), budget=budget).plan(frame).tile for budget in (2 * result, 40 * result))
    assert small is not None
    assert large is None or large > small


def test_faces_are_put_back_into_a_picture_that_is_enlarged_too(tmp_path):
    picture = as_image(scene(120, 160))
    points = ((50.0, 50.0), (62.0, 50.0), (56.0, 57.0), (51.5, 63.0), (60.5, 63.0))
    assert to_upright(points) is not None

    def enlarge(face):
        return resized(face, 2)

    made, faces = restore_faces(picture, lambda image: [points], enlarge, scale=2)
    expected = resized(picture, 2).clamp(0, 1)
    assert (faces, made.shape) == (1, (3, 240, 320))
    difference = (made - expected).abs()
    assert 0 < float(difference.mean()) < 0.01, "what restores nothing moves nothing"
    black, _ = restore_faces(picture, lambda image: [points], lambda face: torch.zeros(3, 1024, 1024), scale=2)
    assert float(black[:, 2 * 57, 2 * 56].max()) == 0
    assert torch.equal(black[:, 0, 0], expected[:, 0, 0])


def enlarged_by(pixels):
    return as_pixels(resized(as_image(np.ascontiguousarray(pixels)), 4).clamp(0, 1))


def test_probes_take_an_honest_enlargement_and_know_a_table(pairs):
    pixels = scene(64, 80)
    honest = enlarged_by(pixels)
    assert turned(pixels, honest, enlarged_by).passed
    assert cut(pixels, honest, enlarged_by).passed
    truth = scene(256, 320)
    assert turned(pixels, truth, enlarged_by).passed is False
    assert cut(pixels, truth, enlarged_by).passed is False


def test_a_track_has_a_whole_scale_in_bounds():
    given = {"name": "t", "title": "t", "inputs": "esr", "metrics": ["psnr"], "source": "s"}
    assert Track(**given).scale == 1
    for wrong in (0, 17, 2.5):
        with pytest.raises(ValueError, match="scale"):
            Track(**given, scale=wrong)
    with pytest.raises(TypeError, match="scale is a whole number of at least 1"):
        type(
            "Half",
            (Method,),
            {
                **{name: getattr(Copy, name) for name in ("team", "track", "cite", "tiling", "halo", "stride")},
                "scale": 0.5,
            },
        )


def test_an_entry_is_packed_with_the_size_of_its_results(entry, pairs, ntire):
    ran = ntire("pack", entry, "--lq", pairs / "lq")
    assert ran.code == 0, ran.err
    assert "80 x 112" in (entry / "factsheet.md").read_text()


def test_a_run_with_a_method_of_another_kind_of_input_is_refused(ntire, pairs):
    ran = ntire("run", "--team", "MiAlgo", "--track", "image-sr-x4", pairs / "lq")
    assert ran.code == 2
    with pytest.raises(UserError, match="unknown track"):
        load_track("image-sr-x5")


NETWORK = """
from torch import nn

class NAME(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
"""


def test_a_model_of_a_challenges_repository_runs_and_no_pickle_is_executed(ntire, tmp_path, pairs):
    model, weights, folder = tmp_path / "team07_NAME.py", tmp_path / "team07_NAME.pth", tmp_path / "mine"
    model.write_text(NETWORK)
    state = {"0.weight": torch.zeros(48, 3, 3, 3), "0.bias": torch.full((48,), 51.0)}
    torch.save(state, weights)
    words = ["--model", model, "--weights", weights, "--data-range", "255"]
    made = ntire("new-method", folder, *words)
    assert made.code == 0, made.err
    run = ["--team", folder, "--track", "image-sr-x4", pairs / "lq", "-o", tmp_path / "out", "--device", "cpu"]
    ran = ntire("run", *run)
    assert ran.code == 0, ran.err
    assert (read_pixels(tmp_path / "out" / "images" / "a.png") == 51).all(), "in levels of 255"
    torch.save({**state, "hook": Harm()}, weights)
    assert ntire("new-method", tmp_path / "harmful", *words).code == 0
    refused = ntire("run", "--team", tmp_path / "harmful", *run[2:], "--fresh")
    assert refused.code != 0
    assert not Path("harmed").exists()


def test_what_is_wrong_with_a_model_to_wrap_is_told(ntire, tmp_path):
    model, weights = tmp_path / "team07_NAMES.py", tmp_path / "team07.pth"
    missing = ntire("new-method", tmp_path / "mine", "--model", model, "--weights", weights, "--data-range", "-1")
    assert missing.code == 2
    assert missing.err.count("expected") == 3
    model.write_text(NETWORK)
    weights.write_bytes(b"")
    other = ntire("new-method", tmp_path / "mine", "--model", model, "--weights", weights)
    assert "expected a class NAMES, found NAME. Name the model's with --model-class. Did you mean NAME?" in " ".join(
        other.err.split()
    )
    alone = ntire("new-method", tmp_path / "mine", "--model", model)
    assert "--model and --weights go together" in alone.err
    assert not (tmp_path / "mine").exists()


class Harm:
    """Leaves a file where a pickle of it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))
