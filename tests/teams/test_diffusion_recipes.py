"""The recipes that mostly consist of diffusion run their stages in order, with the constants of the teams' programs."""

import pytest
import torch
from safetensors.torch import save_file

from ntire import UserError
from ntire.runner.prepare import Options, prepare
from ntire.teams.face.cx import Cx
from ntire.teams.face.iil import Iil
from ntire.teams.face.ipcv import Ipcv
from ntire.teams.face.pisa_map import PisaMap
from ntire.teams.parts.diffbir import NEGATIVE, DiffBIR
from ntire.teams.parts.flux_upscaler import FluxUpscaler
from ntire.teams.parts.pisa_sr import PisaSr
from ntire.teams.parts.sdxl_turbo import SdxlTurbo


@pytest.fixture
def called(monkeypatch):
    """What each stage was called with, in order; stages give their input back."""
    calls = []
    for stage in (DiffBIR, FluxUpscaler, PisaSr, SdxlTurbo):

        def record(self, image, *, stage=stage, **options):
            calls.append((stage.__name__, options))
            return image

        monkeypatch.setattr(stage, "forward", record)
    return calls


def run(method, **sizes):
    with torch.no_grad():
        return method(**method.tiny | sizes).eval()(torch.rand(1, 3, 64, 64))


def test_cx_is_diffbir_with_the_options_of_its_program(called):
    run(Cx, steps=50, side=512)
    options = {
        "steps": 50,
        "guidance": 4.0,
        "strength": 1.0,
        "prompt": "",
        "negative": NEGATIVE,
        "seed": 231,
        "side": 512,
    }
    assert called == [("DiffBIR", options)]
    controls = [weights for weights in Cx.weights if weights.into == "diffbir.control"]
    assert [weights.file for weights in controls] == ["cx-0080000.pt"]


def test_iil_is_one_step(called):
    run(Iil)
    assert called == [("SdxlTurbo", {"seed": 0})]


def test_ipcv_is_flux_with_the_options_of_its_repository(called):
    run(Ipcv, steps=28)
    assert called == [("FluxUpscaler", {"steps": 28, "guidance": 3.5, "strength": 0.6, "seed": 0})]


def test_pisa_map_climbs_from_pisa_sr_s_picture(called, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "ntire.teams.face.pisa_map.climb", lambda latent, *_, **options: seen.append(options) or latent[:, :3]
    )
    monkeypatch.setattr("ntire.teams.face.pisa_map.Ascent._quality", lambda self, picture: picture.mean())
    run(PisaMap, steps=20, rounds=30)
    assert called == [("PisaSr", {"seed": 42, "side": 64})]
    assert seen == [{"steps": 20, "rounds": 30}]


@pytest.mark.parametrize("method", [Cx, Iil, Ipcv, PisaMap])
def test_every_file_has_a_place_and_what_is_missing_is_named_with_its_way(method, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # other tests put files of pyiqa's where all tests share them
    tiny = method(**method.tiny | ({"judged": 1} if method is PisaMap else {}))
    for weights in method.weights:
        tiny.get_submodule(weights.into)
        assert weights.urls or weights.by_hand or weights.home != "ntire"
    with pytest.raises(UserError) as error:
        prepare(method, Options())
    for weights in method.weights:
        assert weights.file in str(error.value)
        assert weights.license in str(error.value)
        assert weights.by_hand in str(error.value)


def test_iil_is_made_ready_from_its_base_model_adapters_and_embeddings(monkeypatch, tmp_path):
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path))

    class Small(Iil, abstract=True):
        def __init__(self):
            super().__init__(**Iil.tiny)

    expected = Small()
    stage = expected.sdxl_turbo
    for weights in Iil.weights:
        path = tmp_path / weights.file
        path.parent.mkdir(exist_ok=True)
        if weights.file.startswith("sdxl-turbo/"):
            own = (stage.unet if "unet" in weights.file else stage.vae).state_dict()
            plain = {name.replace(".base_layer", ""): value for name, value in own.items() if ".lora_" not in name}
            save_file({name: value.clone() for name, value in plain.items()}, path)
        elif weights.into == "sdxl_turbo":
            torch.save(
                {"params": {name: value for name, value in stage.state_dict().items() if ".lora_" in name}}, path
            )
        else:
            torch.save(expected.get_submodule(weights.into).value, path)
    made = prepare(Small, Options()).method.state_dict()
    assert all(torch.equal(made[name], value) for name, value in expected.state_dict().items())
