"""What UIR-LoRA promises: adapters mixed exactly, one trained at a time, a router that sees the picture, real base models."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from ntire import UserError
from ntire.method.count import count, on_meta
from ntire.method.method_table import facts_of
from ntire.method.state_dict import read_state_dict
from ntire.runner.prepare import Options, prepare
from ntire.teams.general.uir_lora import SKIPS, UirLora
from ntire.teams.parts.adapters import OwnConv, mix
from ntire.teams.parts.degradation_router import BANK, Bank, Router, find_clip
from ntire.teams.parts.stable_diffusion import clean_latent, signal_share
from ntire.training.loop import Settings, train
from tests.made import scene, write_png


class Three(UirLora):
    """Three adapters are enough for most tests."""

    words = ("hazy", "noisy", "rainy")


@pytest.fixture
def method():
    """Small, random, with adapters that do something."""
    return stirred(Three(**Three.tiny).eval().requires_grad_(False))


def stirred(method):
    torch.manual_seed(1)
    for name, parameter in method.named_parameters():
        if ".lora_B." in name or ".own." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return method


def words_folder(folder):
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz-"]
    known = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    CLIPTokenizer(vocab={word: number for number, word in enumerate(known)}, merges=[]).save_pretrained(folder)


def sizes(vocabulary=60):
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }


def base_models(folder, method):
    """SD-Turbo as diffusers keeps it, small: what `method` is built on, without its adapters."""
    for name, network in (("unet", method.unet), ("vae", method.vae)):
        kept = {
            inner.replace(".base_layer", ""): value
            for inner, value in network.state_dict().items()
            if not any(mark in inner for mark in (".lora_", ".own.", "skip_conv_"))
        }
        plain = type(network).from_config(network.config)
        plain.load_state_dict(kept)
        plain.save_pretrained(folder / name)
    words_folder(folder / "tokenizer")
    CLIPTextModel(CLIPTextConfig(**sizes())).save_pretrained(folder / "text_encoder")


def clip_model(folder):
    """A random CLIP that fits the small router."""
    vision = CLIPVisionConfig(
        hidden_size=48, intermediate_size=192, num_hidden_layers=1, num_attention_heads=1, projection_dim=32
    )
    config = CLIPConfig(text_config=sizes(), vision_config=vision.to_dict(), projection_dim=32)
    CLIPModel(config).save_pretrained(folder)
    words_folder(folder)


def test_ten_degradations_train_95_05_million_parameters_at_full_size():
    built = on_meta(UirLora)
    trained = {name: parameter.numel() for name, parameter in built.named_parameters() if parameter.requires_grad}

    def total(*marks):
        return sum(numbers for name, numbers in trained.items() if all(mark in name for mark in marks))

    assert total("unet.", ".lora_", ".noisy.") == 8_108_576
    assert total("vae.", ".lora_", ".noisy.") == 893_224
    assert total("vae.", ".own.noisy.") == 491_520
    assert total("unet.", ".own.noisy.") == 11_840
    assert sum(trained.values()) == 95_051_600
    bases = (("unet", 865_910_724), ("vae", 83_653_863 + 491_520))
    for name, expected in bases:
        plain = [p.numel() for p in getattr(built, name).parameters() if not p.requires_grad]
        assert sum(plain) == expected


def test_its_claim_is_compared_with_what_is_trained_and_its_cost_is_all_that_runs():
    found = facts_of(UirLora)
    assert found["difference"]["params"] == pytest.approx(95.0516 / 95.2 - 1, abs=1e-4)
    assert found["params"] > 1_100_000_000
    assert count(UirLora, (256, 256)).params_m == pytest.approx(found["params"] / 1e6)


def test_a_layer_gives_base_plus_the_weighted_sum_of_its_adapters(method):
    weights = {"hazy": 0.3, "rainy": 0.7}
    method.mix(weights)
    linear = method.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    conv = method.vae.decoder.up_blocks[0].resnets[0].conv1
    for layer, scale in ((linear, 8 / 8), (conv, 8 / 4)):
        x = torch.rand(2, 5, layer.in_features) if layer is linear else torch.rand(2, conv.in_features, 6, 6)
        expected = layer.base_layer(x)
        for word, weight in weights.items():
            expected = expected + weight * scale * layer.lora_B[word](layer.lora_A[word](x))
        assert torch.allclose(layer(x), expected, atol=1e-6)
        assert not torch.allclose(layer(x), layer.base_layer(x), atol=1e-4)
    first = method.unet.conv_in
    x = torch.rand(1, 4, 8, 8)
    expected = first.base_layer(x) + 0.3 * first.own["hazy"](x) + 0.7 * first.own["rainy"](x)
    assert torch.allclose(first(x), expected, atol=1e-6)


def test_the_mixture_of_every_adapted_layer_of_the_unet_and_the_vae_is_linear_in_the_weights(method):
    """Layer by layer: f(0.3 a + 0.7 b) - f(0) = 0.3 (f(a) - f(0)) + 0.7 (f(b) - f(0)); between layers it need not hold."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [
        layer
        for network in (method.unet, method.vae)
        for layer in network.modules()
        if isinstance(layer, (BaseTunerLayer, OwnConv))
    ]
    assert len(layers) == 257 + 1 + 74 + 4

    def results(weights):
        method.mix(weights)
        found = []
        for layer in layers:
            inner = layer.base_layer
            while hasattr(inner, "base_layer"):
                inner = inner.base_layer
            linear = isinstance(inner, torch.nn.Linear)
            shape = (1, 3, inner.in_features) if linear else (1, inner.in_channels, 4, 4)
            found.append(layer(torch.rand(shape, generator=torch.Generator().manual_seed(3))))
        return found

    base, hazy, rainy = (results(weights) for weights in ({"hazy": 0.0}, {"hazy": 1.0}, {"rainy": 1.0}))
    mixed = results({"hazy": 0.3, "rainy": 0.7})
    for of_base, of_hazy, of_rainy, of_both in zip(base, hazy, rainy, mixed, strict=True):
        expected = of_base + 0.3 * (of_hazy - of_base) + 0.7 * (of_rainy - of_base)
        assert torch.allclose(of_both, expected, atol=2e-6)


def test_mixing_again_does_not_add_up_and_keeps_what_learns(method):
    lq = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        method.mix({"noisy": 1.0})
        first = method(lq)
        method.mix({"hazy": 0.5, "rainy": 0.5})
        assert not torch.allclose(method(lq), first, atol=1e-4)
        method.mix({"noisy": 1.0})
        assert torch.equal(method(lq), first)
    assert not any(parameter.requires_grad for parameter in method.parameters())
    fresh = Three(**Three.tiny)
    learning = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in fresh.named_parameters() if ".lora_" in name or ".own." in name}
    fresh.mix({"rainy": 1.0})
    assert learning == {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    with pytest.raises(ValueError, match="at least one"):
        mix(fresh.unet, {})


def test_weights_of_zero_give_the_base_model_and_unknown_ones_are_refused(method):
    plain = Three(**Three.tiny).eval()
    plain.load_state_dict(
        {
            name: torch.zeros_like(value) if ".lora_B." in name or ".own." in name else value
            for name, value in method.state_dict().items()
        }
    )
    lq = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        method.mix({"noisy": 0.0})
        assert torch.allclose(method(lq), plain(lq), atol=1e-6)
    with pytest.raises(UserError, match="noizy.*There are: hazy, noisy, rainy"):
        method.mix({"noizy": 1.0})


def test_one_step_from_t_999_on_the_mean_latent(method):
    """With a UNet that predicts the true noise, the decoder gets the clean latent, divided by the latent scale."""
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    share = signal_share((999,))
    assert share.item() == pytest.approx(0.004660, rel=1e-3)
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    assert torch.allclose(clean_latent(noisy, noise, share), clean, atol=1e-4)
    picture = torch.rand(1, 3, 64, 64)
    for name in SKIPS:
        torch.nn.init.zeros_(getattr(method.vae.decoder, name).base_layer.base_layer.weight)
    method.mix({"noisy": 0.0})
    with torch.no_grad():
        latent, skips = method._encode(picture)
        expected = method.vae.encode(picture * 2 - 1).latent_dist.mode() * 0.18215
        assert torch.allclose(latent, expected, atol=1e-5)
        assert [tuple(skip.shape[1:]) for skip in skips] == [(32, 64, 64), (32, 32, 32), (64, 16, 16), (128, 8, 8)]
        decoded = (method.vae.decode(clean / 0.18215).sample + 1) / 2
        assert torch.allclose(method._decode(clean, skips), decoded, atol=1e-4)


def test_the_skips_carry_what_the_encoder_saw_into_the_decoder(method):
    latent = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        _, skips = method._encode(torch.rand(1, 3, 64, 64))
        _, others = method._encode(torch.rand(1, 3, 64, 64))
        assert not torch.equal(method._decode(latent, skips), method._decode(latent, others))
    fresh = Three(**Three.tiny)
    for name, channels in zip(SKIPS, ((128, 128), (64, 128), (32, 128), (32, 64)), strict=True):
        weight = getattr(fresh.vae.decoder, name).base_layer.base_layer.weight
        assert tuple(weight.shape) == (*channels[::-1], 1, 1)
        assert bool((weight == 1e-5).all())


def test_a_folder_that_lacks_tensors_is_refused_and_not_filled_up_with_random_numbers(tmp_path):
    method = Three(**Three.tiny).requires_grad_(False)
    base_models(tmp_path, method)
    clip_model(tmp_path / "clip")
    for folder, file, lost in (
        ("vae", "diffusion_pytorch_model.safetensors", "encoder.conv_in.weight"),
        ("clip", "model.safetensors", "visual_projection.weight"),
    ):
        path = tmp_path / folder / file
        whole = load_file(path)
        save_file({name: value for name, value in whole.items() if name != lost}, path, {"format": "pt"})
        with pytest.raises(UserError, match=f"{folder}: lacks 1 tensors, such as {lost}"):
            method.begin_from(tmp_path)
        save_file(whole, path, {"format": "pt"})


@pytest.fixture
def router():
    torch.manual_seed(5)
    router = Router(("hazy", "noisy", "rainy"), width=48, layers=1).eval().requires_grad_(False)
    # Words of near meanings, as degradations are, or one would always win.
    router.bank.copy_(F.normalize(torch.randn(1, 32) + 0.02 * torch.randn(3, 32), dim=1))
    return router


def test_the_router_is_a_softmax_of_a_hundred_cosines(router):
    router.correction = "none"
    picture = torch.rand(3, 224, 224)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    embedded = router.clip(pixel_values=((picture - mean) / deviation)[None]).image_embeds[0]
    cosines = [F.cosine_similarity(embedded, row, dim=0).item() for row in router.bank]
    odds = [math.exp(100 * (one - max(cosines))) for one in cosines]
    expected = [one / sum(odds) for one in odds]
    assert router.probabilities(picture).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_router_keeps_the_top_k_and_lets_them_sum_to_one(router, monkeypatch):
    monkeypatch.setattr(router, "probabilities", lambda picture: torch.tensor([0.1, 0.6, 0.3]))
    picture = torch.rand(3, 8, 8)
    assert router.weights(picture, 1) == {"noisy": 1.0}
    assert router.weights(picture, 2) == pytest.approx({"noisy": 2 / 3, "rainy": 1 / 3})
    assert router.weights(picture, 9) == pytest.approx({"noisy": 0.6, "rainy": 0.3, "hazy": 0.1})


def test_a_crop_that_is_not_resized_corrects_the_resized_picture(router):
    picture = torch.rand(3, 300, 500)
    crop = picture[:, 38:262, 138:362]
    both = router.probabilities(picture)
    router.correction = "none"
    whole, part = router.probabilities(picture), router.probabilities(crop)
    assert not torch.allclose(whole, part, atol=1e-3)
    assert torch.allclose(both, (whole + part) / 2, atol=1e-5)
    router.correction = "maximum"
    highest = torch.maximum(whole, part)
    assert torch.allclose(router.probabilities(picture), highest / highest.sum(), atol=1e-5)
    small = picture[:, :50, :70]
    router.correction = "mean"
    corrected = router.probabilities(small)
    router.correction = "none"
    assert torch.equal(corrected, router.probabilities(small)), "there is no unresized crop of a small picture"


def test_the_router_stays_in_full_precision_when_the_method_is_halved(method):
    before = method.router.probabilities(picture := torch.rand(3, 64, 64))
    method.to(torch.bfloat16)
    assert method.dtype == torch.bfloat16
    assert method.router.bank.dtype == torch.float32
    assert torch.equal(method.router.probabilities(picture), before)


def test_a_bank_is_data_that_a_user_extends(router, tmp_path):
    bank = Bank(router.words, router.bank)
    longer = bank.extended("moire", torch.full((32,), 3.0))
    longer.write(tmp_path / BANK)
    read = Bank.read(tmp_path / BANK)
    assert set(read.words) == {"hazy", "noisy", "rainy", "moire"}
    again = read.in_order(("moire", "noisy", "hazy", "rainy"))
    assert torch.allclose(again.embeddings[0], torch.full((32,), 32**-0.5))
    assert torch.allclose(again.embeddings[1], bank.embeddings[1], atol=1e-6)
    with pytest.raises(ValueError, match="already"):
        bank.extended("noisy", torch.ones(32))
    with pytest.raises(UserError, match="without an adapter moire"):
        router.use(read)
    with pytest.raises(UserError, match="expected embeddings of length 32, found 16"):
        router.use(Bank(router.words, torch.rand(3, 16)))
    save_file({"noisy": torch.rand(3), "hazy": torch.rand(4)}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="one length"):
        Bank.read(tmp_path / "bad.safetensors")


def test_a_degradation_of_one_s_own_gets_an_adapter_and_a_word():
    class WithMoire(Three):
        words = (*Three.words, "moire")

    method = WithMoire(**WithMoire.tiny).eval().requires_grad_(False)
    assert method.router.words == ("hazy", "noisy", "rainy", "moire")
    method.mix({"moire": 1.0})
    assert any(".lora_A.moire." in name for name in method.state_dict())


def test_it_restores_with_the_router_s_weights_or_with_manual_ones(method, tmp_path):
    path = write_png(tmp_path / "picture.png", scene(45, 39))
    method.top = 2
    routed = method.restore(path)
    assert routed.shape == (3, 45, 39)
    assert len(method.mixture) == 2
    assert sum(method.mixture.values()) == pytest.approx(1)
    chosen = dict(method.mixture)
    method.degradations = {"hazy": 0.25, "noisy": 0.75}
    method.router.clip = None  # not asked any more
    manual = method.restore(path)
    assert method.mixture == {"hazy": 0.25, "noisy": 0.75}
    assert not torch.equal(manual, routed)
    method.degradations = chosen
    assert torch.equal(method.restore(path), routed)


def test_a_stage_trains_one_adapter_and_leaves_all_else_alone(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / "clean" / f"{name}.png", scene(64, 64))
    torch.manual_seed(0)
    method = Three(**Three.tiny)
    recipe = replace(UirLora.recipe, stages=UirLora.recipe.stages[:1])
    assert recipe.stages[0].name == "noisy"
    recipe = recipe.scaled(without=("lpips",), iterations=2, batch=1, patch=64, lr=1e-3)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    written = train(method, recipe, Settings(tmp_path / "clean", tmp_path / "out", held_out=1), lambda step: None)
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".noisy." in name for name in changed)
    assert any(".lora_B." in name for name in changed)
    assert any(".own." in name for name in changed)
    again = Three(**Three.tiny)
    again.begin_from(written)
    saved = read_state_dict(written)
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())


def test_stages_train_their_own_adapters_on_their_own_degradation(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / "clean" / f"{name}.png", scene(64, 64))
    seen = []

    class Watched(Three):
        words = ("jpeg-compressed", "noisy")

        def forward(self, lq):
            if self.training:
                seen.append((dict(self.mixture), lq.detach().clone()))
            return super().forward(lq)

    stages = ("noisy", "jpeg-compressed")
    recipe = UirLora.recipe.scaled(stages=stages, without=("lpips",), iterations=2, batch=1, patch=64)
    train(Watched(**Three.tiny), recipe, Settings(tmp_path / "clean", tmp_path / "out", held_out=1), lambda step: None)
    assert [mixture for mixture, _ in seen] == [{"noisy": 1.0}, {"jpeg-compressed": 1.0}]

    def roughness(lq):
        return float((lq[..., 1:] - lq[..., :-1]).abs().mean())

    assert roughness(seen[0][1]) > 2 * roughness(seen[1][1]), "noise of sigma 50 is rougher than JPEG"
    card = (tmp_path / "out" / "card.toml").read_text()
    assert "Weather(kind='noisy')" in card
    assert "Weather(kind='jpeg-compressed')" in card


def test_every_adapter_has_a_stage_and_those_that_cannot_be_made_learn_from_pairs(tmp_path):
    stages = {stage.name: stage for stage in UirLora.recipe.stages}
    assert stages.keys() == set(UirLora.words)
    assert {name for name, stage in stages.items() if stage.paired} == {"raindrop", "shadowed", "snowy"}
    assert all(stage.degradation is not None for stage in stages.values() if not stage.paired)

    class Snowy(UirLora):
        words = ("snowy",)

    recipe = UirLora.recipe.scaled(stages=("snowy",), without=("lpips",), iterations=1, batch=1, patch=64)
    method = Snowy(**Snowy.tiny)
    for part, offset in (("gt", 0), ("lq", 1)):
        for name in ("a", "b"):
            write_png(tmp_path / "pairs" / part / f"{name}.png", scene(64, 64, seed=offset))
    settings = Settings(tmp_path / "pairs" / "gt", tmp_path / "out", held_out=1)
    with pytest.raises(UserError, match="the damage of snowy cannot be made.*--pairs snowy=DIR"):
        train(method, recipe, settings, lambda step: None)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    train(method, recipe.with_folders({"snowy": tmp_path / "pairs"}), settings, lambda step: None)
    changed = [name for name, value in method.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert all(".snowy." in name for name in changed)


def test_it_begins_from_sd_turbo_and_clip_and_says_all_that_is_missing(tmp_path):
    method = Three(**Three.tiny).requires_grad_(False)
    with pytest.raises(UserError) as error:
        method.begin_from(tmp_path)
    for name in ("unet", "vae", "text_encoder", "tokenizer", "clip"):
        assert str(tmp_path / name) in str(error.value)
    base = Three(**Three.tiny)
    base_models(tmp_path, base)
    with pytest.raises(UserError, match="1 part.s. of the base models missing"):
        method.begin_from(tmp_path)
    clip_model(tmp_path / "clip")
    skip = method.vae.decoder.skip_conv_1.base_layer.base_layer.weight.clone()
    method.begin_from(tmp_path)
    assert torch.equal(method.unet.conv_in.base_layer.weight, base.unet.conv_in.base_layer.weight)
    assert torch.equal(method.unet.conv_out.base_layer.weight, base.unet.conv_out.base_layer.weight)
    assert torch.equal(method.vae.encoder.conv_in.base_layer.weight, base.vae.encoder.conv_in.base_layer.weight)
    assert torch.equal(method.vae.decoder.skip_conv_1.base_layer.base_layer.weight, skip)
    assert float(method.prompt.abs().sum()) > 0
    bank = Bank.of_words(method.words, tmp_path / "clip")
    assert torch.allclose(method.router.bank, bank.embeddings)
    assert torch.allclose(bank.embeddings.norm(dim=1), torch.ones(3))
    assert not torch.allclose(bank.embeddings[0], bank.embeddings[1])
    clip = CLIPModel.from_pretrained(tmp_path / "clip")
    assert torch.equal(method.router.clip.visual_projection.weight, clip.visual_projection.weight)
    Bank(method.words, torch.eye(3, 32)).write(tmp_path / "clip" / BANK)
    method.begin_from(tmp_path)
    assert torch.equal(method.router.bank, torch.eye(3, 32))


def test_the_clip_of_the_hugging_face_cache_is_found_and_a_broken_folder_is_named(tmp_path, monkeypatch, router):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert find_clip(tmp_path) is None
    snapshot = tmp_path / "hf" / "hub" / "models--openai--clip-vit-base-patch32" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert find_clip(tmp_path) == snapshot
    with pytest.raises(UserError, match="cannot be read as a CLIP"):
        router.fill_from(snapshot)


def test_a_trained_file_is_all_that_running_needs(tmp_path):
    torch.manual_seed(0)
    trained = stirred(Three(**Three.tiny).eval().requires_grad_(False))
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")

    class Small(Three):
        def __init__(self):
            super().__init__(**Three.tiny)

    with pytest.raises(UserError, match="no weights are public"):
        prepare(Small, Options())
    ready = prepare(Small, Options(weights=tmp_path / "weights.safetensors")).method
    path = write_png(tmp_path / "picture.png", scene(45, 39))
    assert torch.equal(ready.restore(path), trained.restore(path))


METHOD = """
from ntire.teams.general.uir_lora import UirLora

class Mine(UirLora):
    words = ("hazy", "noisy", "rainy")

    def __init__(self):
        super().__init__(**UirLora.tiny)
"""


def test_from_base_models_to_a_restored_picture_with_the_commands_of_a_user(tmp_path, ntire):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "method.py").write_text(METHOD)
    base_models(tmp_path / "base", Three(**Three.tiny).requires_grad_(False))
    clip_model(tmp_path / "base" / "clip")
    for name in ("a", "b"):
        write_png(tmp_path / "clean" / f"{name}.png", scene(64, 64))
    trained = ntire(
        "train", "--team", tmp_path / "mine", "--track", "denoise", "--data", tmp_path / "clean", "--stage", "noisy",
        "--weights", tmp_path / "base", "--without", "lpips", "--iterations", 1, "--batch", 1, "--patch", 64,
        "--held-out", 1, "--device", "cpu", "-o", tmp_path / "trained",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    run = ntire(
        "run", "--team", tmp_path / "mine", "--track", "denoise", "--weights", tmp_path / "trained" / "weights.safetensors",
        tmp_path / "clean", "-o", tmp_path / "entry", "--device", "cpu",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert len(list((tmp_path / "entry").rglob("*.png"))) == 2
