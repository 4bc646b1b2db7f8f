"""What OSEDiff promises: published names, one step from the picture itself, the whole picture's prompt and colours in tiles."""

import pytest
import torch
from torch import nn

from ntire import UserError
from ntire.teams.general.osediff import OseDiff as Method
from ntire.teams.parts.colour import adain_colour, wavelet_colour
from ntire.teams.parts.osediff import OseDiffNetwork
from ntire.teams.parts.stable_diffusion import bell, signal_share
from tests.teams.published import listed_shapes, shapes_of


@pytest.fixture(scope="module")
def osediff():
    """Small and random, with adapters that do something: their second halves begin at zero."""
    torch.manual_seed(1)
    built = OseDiffNetwork(width=32, tile=12).eval().requires_grad_(False)
    for name, parameter in built.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.02)
    return built


@pytest.fixture
def picture():
    return torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(2))


def published(osediff):
    """The file as the authors write it."""
    unet, vae = (dict(network.state_dict()) for network in (osediff.base.unet, osediff.base.vae))
    return {
        "rank_unet": 4,
        "vae_lora_encoder_modules": ["encoder.conv_in", "quant_conv"],
        "state_dict_unet": {name: value for name, value in unet.items() if "lora" in name or "conv_in" in name},
        "state_dict_vae": {name: value for name, value in vae.items() if "lora" in name},
    }


def test_the_published_tensors_are_ours_at_full_size():
    with torch.device("meta"):
        ours = published(OseDiffNetwork())
    names = {
        f"{part}.{name}": shape
        for part in ("state_dict_unet", "state_dict_vae")
        for name, shape in shapes_of(ours[part]).items()
    }
    assert names == listed_shapes("osediff")


def test_the_authors_file_fills_adapters_and_the_unet_s_first_layer_and_nothing_else(osediff, picture, tmp_path):
    torch.manual_seed(3)
    other = OseDiffNetwork(width=32, tile=12).eval().requires_grad_(False)
    base = {k: v for k, v in osediff.base.state_dict().items() if ".lora_" not in k and "unet.conv_in." not in k}
    other.base.load_state_dict(other.base.state_dict() | base)
    assert not torch.equal(other(picture, [""]), osediff(picture, [""]))
    file = published(osediff)
    assert "conv_in.base_layer.weight" in file["state_dict_unet"]
    assert "mid_block.attentions.0.proj_in.lora_A.default_others.weight" in file["state_dict_unet"]
    torch.save(file, tmp_path / "osediff.pkl")
    other.take(tmp_path / "osediff.pkl", "")
    assert torch.equal(other(picture, [""]), osediff(picture, [""]))
    for part, name in (
        ("state_dict_unet", "conv_in.base_layer.bias"),
        ("state_dict_unet", "conv_out.lora_B.default_decoder.weight"),
        ("state_dict_vae", "quant_conv.lora_A.default_encoder.weight"),
    ):
        torch.save(file | {part: {k: v for k, v in file[part].items() if k != name}}, tmp_path / "osediff.pkl")
        with pytest.raises(UserError, match=f"1 difference.*\n  missing {name}"):
            other.take(tmp_path / "osediff.pkl", "")
    torch.save({"state_dict_unet": file["state_dict_unet"]}, tmp_path / "osediff.pkl")
    with pytest.raises(UserError, match="expected tensors under state_dict_vae, found none"):
        other.take(tmp_path / "osediff.pkl", "")


def test_the_result_is_the_clean_latent_that_the_noise_at_the_last_step_means(osediff, picture):
    latent = osediff.base.encode(picture)
    noise = osediff.base.unet(latent, torch.tensor(999), osediff.base.text(["a cat"])).sample
    share = float(signal_share((999,)))
    assert share == pytest.approx(0.0047, abs=1e-4), "Stable Diffusion's last cumulative alpha"
    expected = osediff.base.decode((latent - (1 - share) ** 0.5 * noise) / share**0.5).clamp(0, 1)
    assert torch.allclose(osediff(picture, ["a cat"]), expected, atol=1e-5)
    assert not torch.allclose(osediff(picture, ["a dog"]), expected, atol=1e-5)
    drawn = osediff(picture, ["a cat"], seed=3)
    assert torch.equal(osediff(picture, ["a cat"], seed=3), drawn)
    assert not torch.equal(drawn, osediff(picture, ["a cat"]))


def test_encoder_and_unet_add_their_adapters_twice_as_the_alpha_says_and_the_decoder_has_none(osediff):
    unet, vae = osediff.base.unet, osediff.base.vae
    for layer, name in (
        (vae.encoder.mid_block.attentions[0].to_q, "default_encoder"),
        (unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q, "default_others"),
        (unet.up_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q, "default_decoder"),
    ):
        x = torch.rand(1, 3, layer.in_features)
        low = layer.lora_B[name](layer.lora_A[name](x))
        assert torch.allclose(layer(x), layer.base_layer(x) + 2 * low, atol=1e-5)
    assert not any(".lora_" in name for name in vae.decoder.state_dict())
    assert not any(".lora_" in name for name in vae.post_quant_conv.state_dict())


def test_larger_latents_go_through_the_unet_in_tiles_that_are_bell_shaped(osediff, monkeypatch):
    seen = []
    forward = osediff.base.unet.forward

    def watched(latent, time, words):
        seen.append(tuple(latent.shape[-2:]))
        return forward(latent, time, words)

    words = osediff.base.text([""])
    monkeypatch.setattr(osediff.base.unet, "forward", watched)
    osediff._noise(torch.randn(1, 4, 9, 16), words)
    assert seen == [(9, 16)], "as large as a tile, if longer"
    seen.clear()
    latent = torch.randn(1, 4, 12, 24)
    tiles = osediff._noise(latent, words)
    assert seen == [(12, 12)] * 3
    left, middle = (forward(latent[..., start : start + 12], torch.tensor(999), words).sample for start in (0, 6))
    weight = torch.signal.windows.gaussian(12, std=1.2)
    assert torch.allclose(bell(12, 6), weight, atol=1e-6)
    expected = (left[..., 8] * weight[8] + middle[..., 2] * weight[2]) / (weight[8] + weight[2])
    assert torch.allclose(tiles[..., 8], expected, atol=1e-5)


@pytest.fixture
def method(osediff, tmp_path):
    torch.manual_seed(4)
    built = Method(**Method.tiny).eval().requires_grad_(False)
    built.osediff.load_state_dict(osediff.state_dict())
    (tmp_path / "names.txt").write_text("\n".join(f"thing {number}" for number in range(16)))
    built.tagger.names.take(tmp_path / "names.txt", "")
    return built


@pytest.fixture
def calls(method, monkeypatch):
    """Sizes and prompts that the networks are given; they change nothing."""
    given = []

    def stand_in(lq, prompts):
        given.append((tuple(lq.shape[-2:]), *prompts))
        return lq

    monkeypatch.setattr(method.osediff, "forward", stand_in)
    return given


def test_the_prompt_is_the_whole_picture_s_tags_for_each_tile_or_the_caller_s(method, calls):
    lq = torch.rand(3, 64, 600, generator=torch.Generator().manual_seed(5))
    method.tagger.thresholds.value.copy_(method.tagger.probabilities(lq[None])[0])
    method.tagger.thresholds.value[[2, 9]] -= 1e-4
    method.tile = 64
    method.in_tiles(lq)
    assert len(calls) == 10
    assert {prompt for _, prompt in calls} == {"thing 2, thing 9, ,"}
    method(lq[None, :, :, :64])
    assert calls[-1] != ((64, 64), "thing 2, thing 9, ,"), "another picture"
    method.prompt = "a cat"
    method.in_tiles(lq)
    assert {prompt for _, prompt in calls[11:]} == {"a cat"}


def test_colours_are_the_whole_picture_s_as_asked_for(method):
    lq = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(6))
    method.prompt = ""
    made = method(lq[None])
    for colour, expected in (
        ("none", made),
        ("adain", adain_colour(made, like=lq[None]).clamp(0, 1)),
        ("wavelet", wavelet_colour(made, like=lq[None]).clamp(0, 1)),
    ):
        method.colour = colour
        method.deploy()
        assert torch.allclose(method.in_tiles(lq), expected[0], atol=1e-5), colour
    method.colour = "sepia"
    with pytest.raises(UserError, match="colour=sepia: expected adain, wavelet or none"):
        method.deploy()


def test_small_pictures_are_restored_enlarged(method, calls):
    method.prompt = ""
    assert method.in_tiles(torch.rand(3, 20, 30)).shape == (3, 20, 30)
    assert calls == [((64, 96), "")]


def test_every_file_has_a_place_that_takes_it(method):
    for weights in Method.weights:
        assert hasattr(method.get_submodule(weights.into), "take"), weights.file
