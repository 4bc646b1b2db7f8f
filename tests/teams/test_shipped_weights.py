"""Weights that ship are worth running: held to figures on pictures and a frame that they have not been trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ntire.method import catalogue
from ntire.picture.raw import read_raw
from ntire.runner.prepare import Options, prepare
from ntire.teams.raw.copy import Copy
from tests.test_benchmarks import loaded

shipped_weights = loaded("shipped_weights")


@pytest.fixture(params=shipped_weights.shipped(), ids=shipped_weights.name_of)
def kind(request):
    return request.param


@pytest.mark.data
def test_shipped_weights_meet_their_limits_on_crops(kind, data):
    method = prepare(kind, Options()).method
    if kind.track == "raw":
        frame = read_raw(data / shipped_weights.FRAME)
        found = shipped_weights.on_frame(method, replace(frame, samples=frame.samples[:, 256:768, 256:768]))
    else:
        found = shipped_weights.on_pictures(method, shipped_weights.pictures(data / "cbsd68", side=160, every=9))
    missed = shipped_weights.missed(found)
    assert not missed, missed


def test_a_tint_a_grid_and_a_line_are_found(tmp_path):
    frame = tmp_path / "frame.npy"
    rng = np.random.default_rng(0)
    np.save(frame, rng.integers(900, 1100, (192, 192), dtype=np.uint16))
    (tmp_path / "frame.toml").write_text("white_level = 4095\nwhite_balance = [1, 1, 1]\n")

    def found(spoil):
        class Spoilt(Copy):
            variant = "spoilt"

            def forward(self, lq):
                picture = super().forward(lq)
                spoil(picture)
                return picture

        return shipped_weights.on_frame(Spoilt(), read_raw(frame))

    def tint(picture):
        picture[:, 2] += 4 / 255

    def grid(picture):
        picture[..., ::2, 1::2] += 4 / 255

    def line(picture):
        picture[..., 0, ::2] += 8 / 255

    good = found(lambda picture: None)
    assert good == {"colour_levels": 0, "phase_ratio": 1, "border_excess_levels": 0}
    assert found(tint)["colour_levels"] == pytest.approx(4, abs=0.5)
    assert found(grid)["phase_ratio"] > 1.3
    assert found(line)["border_excess_levels"] > 7


def test_lost_detail_and_noise_that_is_left_are_found():
    copy = catalogue.find("Copy", "srgb")()
    shown = {"1": torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25}
    shown = {name: shipped_weights.as_saved(picture) for name, picture in shown.items()}
    found = shipped_weights.on_pictures(copy, shown)
    assert found["clean_db"] == np.inf
    assert found["noisy_db"] == pytest.approx(20.2, abs=0.3), "the noise itself"
