"""Submitted code is counted by our counters and timed by our clock, whatever it claims; in a sandbox."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ntire.benchmark.figures import MeasurePlan, changed, figures_of
from ntire.benchmark.sandboxed import Sandbox
from ntire.entry.measured import AtSize
from ntire.picture.image import read_pixels
from ntire.picture.raw import read_raw
from ntire.picture.samples import sample_set
from ntire.sandbox.child import why_not
from tests.made import CONVOLVING_MACS, CONVOLVING_PARAMS, scene, ship_convolving, write_png

sandboxed = pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")


def place(tmp_path, body="pass", file="method.py"):
    ship_convolving(tmp_path / "code", file, body)
    return Sandbox("bubblewrap", tmp_path / "code", tmp_path, file=file)


@sandboxed
def test_code_is_counted_at_every_size_with_its_settings_and_timed_in_a_sandbox(tmp_path):
    write_png(tmp_path / "lq" / "a.png", scene())
    asked = MeasurePlan(
        ((16, 24), (32, 48)), ((16, 24),), [tmp_path / "lq" / "a.png"], "srgb", settings={"size": "big"}
    )
    found = figures_of(place(tmp_path, file="net/main.py"), asked)
    assert found.problems == ()
    assert found.params_m == CONVOLVING_PARAMS / 1e6
    counts = [AtSize(2 * CONVOLVING_MACS * height * width / 1e9, (height, width)) for height, width in asked.macs_at]
    assert found.macs_g == tuple(counts)
    assert found.runtime_at((16, 24)) > 0
    assert found.device


@sandboxed
def test_code_that_does_not_let_itself_be_measured_gets_a_reason_for_each_figure(tmp_path):
    write_png(tmp_path / "a.png", scene())
    asked = MeasurePlan(((16, 24), (10**9, 3)), (None, (-1, 2)), [tmp_path / "a.png"], "srgb")
    found = figures_of(place(tmp_path, "raise RuntimeError('not with me')"), asked)
    assert (found.params_m, found.macs_g, found.runtime_ms) == (None, (), ())
    starts = [
        "counting at 1000000000 x 3: no size",
        "counting at 16 x 24: ",
        "timing at its own size: ",
        "timing at -1 x 2: ",
    ]
    assert len(found.problems) == len(starts)
    for problem, start in zip(found.problems, starts, strict=True):
        assert problem.startswith(start)


@sandboxed
def test_parameters_that_hide_from_the_counters_show_in_the_weights_files(tmp_path):
    where = place(tmp_path)
    save_file({"hidden": torch.zeros(1000)}, where.code / "weights" / "more.safetensors")
    found = figures_of(where, MeasurePlan(((16, 24),), (), [], "srgb"))
    assert found.params_m == CONVOLVING_PARAMS / 1e6
    assert "0.000443 M parameters, but its weights files hold 0.001443 M values" in found.problems[0]


def test_pictures_to_time_on_are_of_the_size_and_no_two_are_alike(tmp_path):
    write_png(tmp_path / "a.png", scene())
    known = read_pixels(tmp_path / "a.png")
    for size in ((7, 9), (200, 150), None):
        made = [read_pixels(one.path) for one in changed([tmp_path / "a.png"], "srgb", size, 4, tmp_path)]
        assert {one.shape for one in made} == {(*(size or known.shape[:2]), 3)}
        assert len({one.tobytes() for one in made}) == 4
        assert {*np.unique(made[0])} <= {*np.unique(known)}


def test_raw_frames_to_time_on_keep_the_colours_of_their_mosaic(tmp_path):
    source = min(path for path in (sample_set() / "raw" / "lq").iterdir() if path.suffix == ".png")
    before = read_raw(source)
    (made,) = changed([source], "raw", (40, 60), 1, tmp_path)
    after = read_raw(made.path)
    assert (after.mosaic.shape, after.cfa, after.ccm) == ((1, 40, 60), before.cfa, before.ccm)
    for row in (0, 1):
        for column in (0, 1):
            ours, theirs = (frame.mosaic[0, row::2, column::2] for frame in (after, before))
            assert np.isin((ours * 65535).round(), (theirs * 65535).round()).all()
