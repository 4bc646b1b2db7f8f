"""AllForFace's outer stages run in a clone of its program: here one whose networks are a few lines."""

import sys

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.runner.prepare import Options, prepare
from ntire.sandbox.child import why_not
from ntire.teams.face.allforface import FIDELITY, MODELS, NATURALNESS, AllForFace, wrapped
from ntire.teams.parts.released_program import FOLDER, SANDBOX, ReleasedProgram

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
        monkeypatch.setenv(SANDBOX, "none")
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


@pytest.fixture
def recorded(monkeypatch):
    """A method whose stages write down what they are given; its tagger sees how bright a picture is."""
    method = AllForFace(**AllForFace.tiny | {"released": 1, "steps": 50})
    calls = []

    def stand_in(name, change=0.0):
        return lambda image, **options: calls.append((name, image, options)) or image + change

    for name, change in (("fidelity", 0.1), ("realness", 0.0), ("naturalness", 0.0)):
        monkeypatch.setattr(getattr(method, name), "forward", stand_in(name, change))
    monkeypatch.setattr(method.tagger, "forward", lambda image: [["face", f"{float(one.mean()):.1f}"] for one in image])
    return method, calls


def prompts(method, calls, faces):
    calls.clear()
    with torch.no_grad():
        method(faces)
    return [options["prompt"] for name, _, options in calls if name == "realness"]


def test_realness_comes_between_with_more_control_and_the_callers_prompt(recorded):
    method, calls = recorded
    method.prompt = "a man in a hat"
    with torch.no_grad():
        method(torch.rand(1, 3, 64, 64))
    assert [name for name, _, _ in calls] == ["fidelity", "realness", "naturalness"]
    options = calls[1][2]
    assert (options["strength"], options["guidance"], options["steps"]) == (1.2, 4.0, 50)
    assert options["prompt"] == "a man in a hat"
    assert options["negative"].endswith("weird textures, artifacts")


def test_the_prompt_is_the_tags_of_the_faithful_face_and_of_no_other(recorded):
    faces = torch.stack([torch.full((3, 64, 64), brightness) for brightness in (0.2, 0.6)])
    assert prompts(*recorded, faces) == ["face, 0.3", "face, 0.7"]
    assert prompts(*recorded, faces.flip(0)) == ["face, 0.7", "face, 0.3"]
    recorded[0].prompt = ""
    assert prompts(*recorded, faces) == ["", ""]


def test_the_original_s_range_is_there_for_who_wants_it(recorded):
    method, _ = recorded
    method.wrapped = True
    # 0.3 is -0.4 in [-1, 1], which as a byte is 154.
    assert prompts(*recorded, torch.full((1, 3, 64, 64), 0.2)) == ["face, 0.6"]
    transforms = pytest.importorskip("torchvision.transforms")
    face = torch.rand(3, 50, 60)
    seen = np.asarray(transforms.ToPILImage()(face * 2 - 1))
    ours = wrapped(face[None])[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(ours.numpy(), seen, atol=1e-3)


def test_its_tagger_prompts_its_diffusion_by_the_names_that_it_read(tmp_path):
    torch.manual_seed(1)
    method = AllForFace(**AllForFace.tiny).eval().requires_grad_(False)
    face = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        nameless = method(face)
        (tmp_path / "names.txt").write_text("\n".join(f"thing {number}" for number in range(16)))
        method.tagger.names.take(tmp_path / "names.txt", "")
        method.tagger.thresholds.value.zero_()
        assert method.tagger(face) == [[f"thing {number}" for number in range(16)]]
        named = method(face)
        method.prompt = ", ".join(f"thing {number}" for number in range(16))
        assert torch.equal(method(face), named)
        method.prompt = ""
        assert torch.equal(method(face), nameless)
    assert not torch.equal(named, nameless)


def test_every_file_has_a_place_that_takes_it():
    method = AllForFace(**AllForFace.tiny)
    for weights in AllForFace.weights:
        assert hasattr(method.get_submodule(weights.into), "take"), weights.file
