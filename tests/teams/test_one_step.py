"""What restoration in one step of a large generator promises: counts, published names, adapters, draws that a seed decides."""

import pytest
import torch

from ntire import UserError
from ntire.cost import count
from ntire.weights import fill_from
from teams.face.iil import Iil
from teams.parts.sdxl_turbo import SdxlTurbo
from teams.parts.stored import Stored


@pytest.fixture(scope="module")
def sdxl_turbo():
    torch.manual_seed(1)
    return stirred(SdxlTurbo(width=32, rank=2).eval().requires_grad_(False))


def stirred(network):
    """With adapters that do something: their second halves begin at zero."""
    for name, parameter in network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return network


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def plain(network):
    """A network's tensors without its adapters, as its authors publish it."""
    return {k.replace(".base_layer", ""): v.clone() for k, v in network.state_dict().items() if ".lora_" not in k}


def test_iil_has_the_report_s_parameters_to_the_digit_and_its_macs_within_a_tenth_of_a_percent():
    counted = count(Iil, (512, 512), as_claimed=True)
    assert round(counted.params_m, 2) == Iil.claimed.params_m
    assert counted.macs_g == pytest.approx(Iil.claimed.macs_g, rel=1e-3)


def test_the_count_of_layers_leaves_the_network_as_it_was(sdxl_turbo, picture):
    before = sdxl_turbo(picture)
    with sdxl_turbo.layers_only():
        assert not torch.equal(sdxl_turbo(picture), before)
    assert torch.equal(sdxl_turbo(picture), before)


def test_the_latent_is_a_draw_that_the_seed_decides_or_the_mean(sdxl_turbo, picture):
    once = sdxl_turbo(picture, seed=3)
    assert torch.equal(sdxl_turbo(picture, seed=3), once)
    assert not torch.equal(sdxl_turbo(picture, seed=4), once)
    assert torch.equal(sdxl_turbo(picture, seed=None), sdxl_turbo(picture, seed=None))


def test_the_unet_s_output_is_the_clean_latent_itself(sdxl_turbo, picture):
    """No noise is added and none is subtracted: what the UNet gives goes to the decoder."""
    seen = []
    hook = sdxl_turbo.unet.register_forward_hook(lambda _, __, output: seen.append(output.sample))
    restored = sdxl_turbo(picture)
    hook.remove()
    decoded = sdxl_turbo.vae.decode(seen[0] / 0.13025).sample
    assert torch.allclose(restored, ((decoded + 1) / 2).clamp(0, 1), atol=1e-5)


def test_iil_is_filled_from_the_base_model_and_the_team_s_file(sdxl_turbo, picture, tmp_path):
    torch.manual_seed(5)
    other = SdxlTurbo(width=32, rank=2).eval().requires_grad_(False)
    torch.save(plain(sdxl_turbo.unet), tmp_path / "unet.pth")
    torch.save(plain(sdxl_turbo.vae), tmp_path / "vae.pth")
    other.take(tmp_path / "unet.pth", "")
    other.take(tmp_path / "vae.pth", "")
    assert torch.equal(other.unet.conv_in.weight, sdxl_turbo.unet.conv_in.weight)
    assert not torch.equal(other(picture), sdxl_turbo(picture)), "adapters are still its own"
    trained = {name: value for name, value in sdxl_turbo.state_dict().items() if ".lora_" in name}
    torch.save({"params": trained}, tmp_path / "adapters.pth")
    other.take(tmp_path / "adapters.pth", "")
    assert torch.equal(other(picture), sdxl_turbo(picture))
    whole = {name: value for name, value in sdxl_turbo.state_dict().items() if name.startswith(("unet.", "vae."))}
    torch.save({"params": whole}, tmp_path / "whole.pth")
    third = SdxlTurbo(width=32, rank=2).eval()
    third.take(tmp_path / "whole.pth", "")
    assert torch.equal(third(picture), sdxl_turbo(picture))
    torch.save({"params": trained | {"unet.strange.lora_A.default.weight": torch.ones(2)}}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="unexpected unet.strange"):
        other.take(tmp_path / "bad.pth", "")


def test_every_file_of_iil_has_a_place_in_it():
    tiny = Iil(**Iil.tiny)
    for weights in Iil.weights:
        assert hasattr(tiny.get_submodule(weights.into), "take")


def test_a_stored_tensor_is_read_only_if_it_is_one_of_its_shape(tmp_path):
    stored = Stored(1, 6)
    torch.save(torch.arange(6.0)[None].half(), tmp_path / "sizes.pt")
    weights = next(one for one in Iil.weights if one.file == "iil-add_time_ids.pt")
    fill_from(stored, weights, tmp_path / "sizes.pt")
    assert stored.value.tolist() == [[0, 1, 2, 3, 4, 5]]
    for wrong in (torch.zeros(2, 6), {"a": torch.zeros(1, 6)}, torch.full((1, 6), float("nan"))):
        torch.save(wrong, tmp_path / "wrong.pt")
        with pytest.raises(UserError, match="expected a finite tensor"):
            stored.take(tmp_path / "wrong.pt", "")
    (tmp_path / "wrong.pt").write_bytes(b"no")
    with pytest.raises(UserError, match="saved by torch"):
        stored.take(tmp_path / "wrong.pt", "")
