"""What restoration in one step of a large generator promises: counts, published names, adapters, draws that a seed decides."""

import pytest
import torch
from safetensors.torch import save_file

from ntire import UserError
from ntire.method.count import count
from ntire.method.state_dict import fill_from
from ntire.teams.face.iil import Iil
from ntire.teams.parts.adapters import mix
from ntire.teams.parts.colour import adain_colour, wavelet_colour
from ntire.teams.parts.pisa_sr import PARTS, PisaSr
from ntire.teams.parts.sdxl_turbo import SdxlTurbo
from ntire.teams.parts.stored import Stored
from ntire.teams.parts.tsd_sr import TsdSr


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


@pytest.fixture(scope="module")
def pisa_sr():
    torch.manual_seed(1)
    return stirred(PisaSr(width=32).eval().requires_grad_(False))


def test_pisa_sr_takes_its_adapters_residual_from_the_latent(pisa_sr, picture):
    latent = pisa_sr.base.encode(picture.repeat(1, 1, 2, 2), torch.Generator().manual_seed(42))
    mix(pisa_sr.base.unet, {f"default_{part}_{kind}": 1.0 for part in PARTS for kind in ("pix", "sem")})
    residual = pisa_sr.base.unet(latent, torch.tensor(1), pisa_sr.base.text([""])).sample
    decoded = pisa_sr.base.decode(latent - residual).clamp(0, 1)
    expected = adain_colour(decoded, like=picture.repeat(1, 1, 2, 2)).clamp(0, 1)
    assert torch.allclose(pisa_sr(picture.repeat(1, 1, 2, 2), side=64), expected, atol=1e-4)


def test_pisa_sr_s_two_adapters_are_weighted_as_the_paper_does(pisa_sr, picture):
    """With the weights 1 and 1 the two passes are one; without semantics only the pixels' adapter is left."""
    words = pisa_sr.base.text([""])
    latent = torch.randn(1, 4, 8, 8)
    both, pixels = pisa_sr._residual(latent, words, "pix", "sem"), pisa_sr._residual(latent, words, "pix")
    assert not torch.allclose(both, pixels)
    once = pisa_sr(picture, side=64)
    assert torch.allclose(pisa_sr(picture, side=64, semantic=1.0 + 1e-7), once, atol=1e-3)
    assert not torch.allclose(pisa_sr(picture, side=64, semantic=0.0), once, atol=1e-4)


def test_pisa_sr_s_file_of_adapters_fills_them_and_only_them(pisa_sr, picture, tmp_path):
    other = PisaSr(width=32).eval().requires_grad_(False)
    other.base.load_state_dict(
        {k: v for k, v in pisa_sr.base.state_dict().items() if ".lora_" not in k}
        | {k: v for k, v in other.base.state_dict().items() if ".lora_" in k}
    )
    adapters = {name: value for name, value in pisa_sr.base.unet.state_dict().items() if ".lora_" in name}
    assert "down_blocks.0.resnets.0.conv1.lora_A.default_encoder_pix.weight" in adapters
    assert "mid_block.attentions.0.proj_in.lora_B.default_others_sem.weight" in adapters
    published = {"lora_rank_unet_pix": 4, "unet_lora_encoder_modules_pix": ["conv_in"], "state_dict_unet": adapters}
    torch.save(published, tmp_path / "pisa_sr.pkl")
    other.take(tmp_path / "pisa_sr.pkl", "")
    assert torch.equal(other(picture, side=64), pisa_sr(picture, side=64))
    adapters.pop("conv_in.lora_A.default_encoder_sem.weight")
    torch.save(published, tmp_path / "pisa_sr.pkl")
    with pytest.raises(UserError, match="missing conv_in.lora_A.default_encoder_sem.weight"):
        other.take(tmp_path / "pisa_sr.pkl", "")


def test_pisa_sr_adds_each_adapter_twice_as_its_alpha_says(pisa_sr):
    mix(pisa_sr.base.unet, {"default_encoder_pix": 1.0})
    layer = pisa_sr.base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    x = torch.rand(1, 3, layer.in_features)
    low = layer.lora_B["default_encoder_pix"](layer.lora_A["default_encoder_pix"](x))
    assert torch.allclose(layer(x), layer.base_layer(x) + 2 * low, atol=1e-5)


@pytest.fixture(scope="module")
def tsd_sr():
    torch.manual_seed(1)
    built = stirred(TsdSr(heads=1, vae_width=32, rank=2).eval().requires_grad_(False))
    built.prompt.value, built.pooled.value = torch.randn(1, 5, 32), torch.randn(1, 32)
    return built


def test_tsd_sr_takes_the_transformer_s_prediction_from_the_latent(tsd_sr, picture):
    latent = tsd_sr.vae.encode(picture * 2 - 1).latent_dist
    draw = torch.randn(latent.mean.shape, generator=torch.Generator().manual_seed(42))
    latent = (latent.mean + latent.std * draw) * 1.5305
    residual = tsd_sr.transformer(
        hidden_states=latent,
        timestep=torch.tensor([1000.0]),
        encoder_hidden_states=tsd_sr.prompt.value,
        pooled_projections=tsd_sr.pooled.value,
    ).sample
    decoded = ((tsd_sr.vae.decode((latent - residual) / 1.5305).sample + 1) / 2).clamp(0, 1)
    expected = wavelet_colour(decoded, like=picture).clamp(0, 1)
    assert torch.allclose(tsd_sr(picture, side=32), expected, atol=1e-4)
    assert not torch.allclose(tsd_sr(picture, side=32, seed=43), expected, atol=1e-4)


def test_tsd_sr_is_filled_from_stable_diffusion_3_and_the_authors_files(tsd_sr, picture, tmp_path):
    torch.manual_seed(6)
    other = TsdSr(heads=1, vae_width=32, rank=2).eval().requires_grad_(False)
    for network in (tsd_sr.transformer, tsd_sr.vae):
        save_file(plain(network), tmp_path / "base.safetensors")
        other.take(tmp_path / "base.safetensors", "")
        adapters = {
            f"transformer.{name.replace('.default', '')}": value
            for name, value in network.state_dict().items()
            if ".lora_" in name
        }
        save_file(adapters, tmp_path / "adapters.safetensors")
        other.take(tmp_path / "adapters.safetensors", "")
    for part, stored in (("prompt", tsd_sr.prompt), ("pooled", tsd_sr.pooled)):
        torch.save(stored.value, tmp_path / f"{part}.pt")
        getattr(other, part).take(tmp_path / f"{part}.pt", "")
    assert torch.equal(other(picture, side=32), tsd_sr(picture, side=32))
    third = TsdSr(heads=1, vae_width=32, rank=2).eval()
    third.load_state_dict(tsd_sr.state_dict())
    assert torch.equal(third(picture, side=32), tsd_sr(picture, side=32))
    save_file({"transformer.strange.lora_A.weight": torch.ones(2)}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="not the weights of this"):
        other.take(tmp_path / "bad.safetensors", "")


def test_the_published_sizes_are_met_at_full_size():
    with torch.device("meta"):
        tsd_sr, pisa_sr = TsdSr(), PisaSr()
    base = [p.numel() for name, p in tsd_sr.transformer.named_parameters() if ".lora_" not in name]
    assert sum(base) == 2_028_328_000, "SD3 medium's transformer"
    assert sum(p.numel() for name, p in pisa_sr.named_parameters() if ".lora_" in name) == 2 * 4_055_712
