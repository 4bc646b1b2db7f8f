"""AllForFace's outer stages run in a clone of its program: here one whose networks are a few lines."""

import sys

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.prepare import Options, prepare
from ntire.sandbox import why_not
from teams.face.allforface import FIDELITY, MODELS, NATURALNESS, AllForFace
from teams.parts.released_program import FOLDER, WALL, ReleasedProgram

NETWORK = """
import torch
class FidelityModel(torch.nn.Module):
    def __init__(self, *, out_size, channel_multiplier, sft_half, **others):
        super().__init__()
        assert (out_size, channel_multiplier, sft_half, others["fix_decoder"]) == (512, 1, False, True)
        self.shift = torch.nn.Parameter(torch.zeros(1))
    def forward(self, face):
        assert face.min() < -0.5, "in [-1, 1]"
        return face * 0 + self.shift, None
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A program's folder with this Python for its environment."""
    folder = tmp_path / "programs" / "AllForFace"
    source = folder / "models" / "team01_AllForFace"
    (folder / MODELS).mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    source.mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (source / "FidelityGenerationModel.py").write_text(NETWORK)
    (source / "FidelityGenerationModel.pyc").touch()
    (source / "main.py").touch()
    torch.save({"shift": torch.tensor([0.5])}, folder / MODELS / "fidelity_model.pth")
    monkeypatch.setenv(FOLDER, str(tmp_path / "programs"))
    if why_not("bubblewrap"):
        monkeypatch.setenv(WALL, "none")
    return folder


def test_the_fidelity_network_is_built_filled_and_run_as_the_program_does_it(clone):
    face = torch.rand(1, 3, 16, 16)
    restored = ReleasedProgram(FIDELITY)(face)
    np.testing.assert_allclose(restored.numpy(), 0.75, atol=1 / 255)


def test_what_lacks_is_told_with_the_python_that_it_needs(clone):
    (clone / MODELS / "fidelity_model.pth").unlink()
    with pytest.raises(UserError, match=r"(?s)fidelity_model\.pth: no such file.*Python 3\.10"):
        ReleasedProgram(FIDELITY)(torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"naturalness_model\.pt: no such file"):
        ReleasedProgram(NATURALNESS)(torch.rand(1, 3, 8, 8))


def test_a_run_says_all_that_lacks_before_the_first_picture(clone):
    with pytest.raises(UserError, match=r"naturalness_model\.pt: no such file") as caught:
        prepare(AllForFace, Options())
    assert "fidelity_model.pth: no such file" not in str(caught.value)
    assert "diffbir_v2.pth" in str(caught.value), "the weights are named with it"
    (clone / MODELS / "naturalness_model.pt").touch()
    AllForFace.require()


def test_realness_comes_between_with_more_control_and_the_callers_prompt(monkeypatch):
    method = AllForFace(**AllForFace.tiny | {"released": 1, "steps": 50})
    calls = []

    def stand_in(name):
        return lambda image, **options: calls.append((name, options)) or image

    for name in ("fidelity", "realness", "naturalness"):
        monkeypatch.setattr(getattr(method, name), "forward", stand_in(name))
    method.prompt = "a man in a hat"
    with torch.no_grad():
        method(torch.rand(1, 3, 64, 64))
    assert [name for name, _ in calls] == ["fidelity", "realness", "naturalness"]
    options = calls[1][1]
    assert (options["strength"], options["guidance"], options["steps"]) == (1.2, 4.0, 50)
    assert options["prompt"] == "a man in a hat"
    assert options["negative"].endswith("weird textures, artifacts")
