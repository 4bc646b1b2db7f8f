"""Folders that were submitted with ntire 0.1 run unchanged: what they import, read, set and override is still there."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import ntire
from ntire.picture.image import read_pixels
from tests.made import scene, write_png

FACTS = """
    team = "Last Month"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 4
    stride = 2
"""
BRIGHTER = f"""
from pathlib import Path

import torch
from torch import nn

from ntire.method import Cost, Method, Weights

class Brighter(Method):
{FACTS}
    claimed = Cost(source="nowhere", params_m=0.0)

    def __init__(self):
        super().__init__()
        self.network = nn.Identity()
        self.batch = 7
        self.memory = nn.Identity()

    def forward(self, lq):
        return self.memory(self.network(lq)) + 10 / 255
"""
IN_TILES = f"""
import torch

from ntire.image import read_image
from ntire.method import Method

class Tiles(Method):
{FACTS}
    def forward(self, lq):
        assert max(lq.shape[-2:]) <= 24
        return lq + 10 / 255

    def enhance(self, frame):
        self.tile = 16
        frame = frame.to(self.device)
        assert self.tile == 16 and frame.dtype == self.dtype == torch.float32
        return self.in_tiles(frame).clamp(0, 1)
"""
READS = f"""
from ntire.image import read_image
from ntire.method import Method
from ntire.tiling import tiled
from ntire.weights import Weights
import helper

class Reads(Method):
{FACTS}
    def forward(self, lq):
        return lq + helper.TEN / 255

    def restore(self, path):
        lq = read_image(path)
        return tiled(self, lq, tile=None, halo=0, stride=1).clamp(0, 1)
"""
TRAINED = f"""
import torch
from torch import nn

from ntire.degradations import SrgbDegradation
from ntire.method import Method
from ntire.training import Recipe, Stage
from teams.parts.residual import *  # noqa
from scoring.pixels import psnr

class Trained(Method):
{FACTS}
    recipe = Recipe(
        SrgbDegradation(), (Stage("all", 2, 16, 1, 1e-3, 1e-4, {{"own": 1.0, "l1": 1.0}}),), source="ours"
    )

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))
        self.calls = []

    def begin_stage(self, name):
        self.calls.append(name)

    def begin_step(self, lq, gt, rng):
        self.calls.append("step")

    def memory(self):
        return {{"steps": torch.tensor(len(self.calls))}}

    def remember(self, memory):
        self.calls = ["again"] * int(memory["steps"])

    def own_loss(self, name):
        assert self.calls[-1] == "step"
        return (self.gain - 1).square().sum()

    def forward(self, lq):
        return lq + self.gain * 0
"""


@pytest.fixture
def submitted(tmp_path):
    def write(code):
        folder = tmp_path / "submitted"
        folder.mkdir()
        (folder / "method.py").write_text(code)
        (folder / "helper.py").write_text("TEN = 10\n")
        return folder

    return write


@pytest.mark.parametrize("code", [IN_TILES, READS], ids=["in_tiles", "own reading"])
def test_a_folder_of_last_month_runs_unchanged(code, submitted, tmp_path):
    restores(code, submitted, tmp_path)


def test_a_method_may_give_its_parts_any_name_that_a_run_or_training_has_words_for(submitted, tmp_path):
    restores(BRIGHTER, submitted, tmp_path)


def restores(code, submitted, tmp_path):
    grey = np.full((40, 44, 3), 100, np.uint8)
    done = ntire.run(
        submitted(code), "srgb", write_png(tmp_path / "lq" / "a.png", grey), tmp_path / "out", device="cpu"
    )
    assert not done.failed, done.failed
    assert (read_pixels(tmp_path / "out" / "images" / "a.png") == 110).all()


def test_a_method_of_last_month_trains_with_its_own_hooks_and_resumes(submitted, tmp_path, ntire):
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", scene(32, 32, seed=number))
    words = ["train", "--team", submitted(TRAINED), "--track", "srgb", "--data", tmp_path / "clean", "--device", "cpu"]
    words += ["--held-out", "1", "--save-every", "1", "-o", tmp_path / "trained"]
    ran = ntire(*words)
    assert ran.code == 0, ran.err
    saved = torch.load(tmp_path / "trained" / "checkpoint.pt", weights_only=True)
    assert saved["memory"]["steps"] == 3  # its stage and two steps
    again = ntire(*words, "--json")
    assert again.code == 0
    found = again.json()
    assert Path(found["weights"]) == tmp_path / "trained" / "weights.safetensors"
    assert tomllib.loads(Path(found["card"]).read_text()) == found["trained"]


def test_the_names_of_last_month_are_imported_from_where_they_were():
    from ntire.degradations import SrgbDegradation
    from ntire.weights import Weights as Old

    from ntire.method import Cost, Method, Weights
    from ntire.training import Loss, OwnLoss, Recipe, Stage
    from teams.parts.unet import UNet

    assert Old is Weights
    assert all((Cost, Method, Loss, OwnLoss, Recipe, Stage, SrgbDegradation, UNet))
