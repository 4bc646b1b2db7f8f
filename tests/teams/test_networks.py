"""What single methods promise beyond what every method does: names of published weights, merged layers, published tiles."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ntire import UserError
from ntire.picture.raw import demosaic, srgb_encode
from ntire.teams.parts.attention import ChannelAttention
from ntire.teams.parts.clip_text import TOKENS
from ntire.teams.parts.restormer import TransposedAttention, gram
from ntire.teams.parts.tag_prompts import TagPrompts, tag_prompts
from ntire.teams.parts.tagger import Tagger
from ntire.teams.parts.wavelet import HaarDown, HaarUp, fold_haar, haar, inverse_haar
from ntire.teams.parts.x_restormer import WINDOW, OverlappingAttention, x_restormer
from ntire.teams.raw.polyu_aisp import PolyuAisp
from ntire.teams.raw.xianggkl import STEPS, LatentScore, Xianggkl, signal_share
from ntire.teams.srgb.teleai_vision import Span


@pytest.mark.data
def test_x_restormer_has_the_names_and_shapes_of_the_published_weights(data):
    table = data.parent / "golden" / "state_dicts" / "xrestormer.tsv"
    if not table.is_file():
        pytest.skip(f"the list of published tensors is not in {table}")
    rows = [line.split("\t") for line in table.read_text().splitlines() if line and not line.startswith("#")]
    with torch.device("meta"):
        ours = {name: "x".join(map(str, value.shape)) for name, value in x_restormer(3, 3).state_dict().items()}
    assert ours == {name: shape for name, shape, *_ in rows}


def test_overlapping_attention_is_attention_of_each_window_to_its_surroundings():
    torch.manual_seed(0)
    layer = OverlappingAttention(16, heads=1).eval()
    x = torch.rand(1, 16, 2 * WINDOW, 2 * WINDOW)
    with torch.no_grad():
        q, k, v = (part[0].double() for part in layer.qkv(x).chunk(3, dim=1))
        k, v = (torch.nn.functional.pad(part, (2, 2, 2, 2)) for part in (k, v))
        expected = torch.zeros(16, 2 * WINDOW, 2 * WINDOW, dtype=torch.float64)
        rel_y, rel_x = (part.double() for part in (layer.rel_pos_emb.rel_height, layer.rel_pos_emb.rel_width))
        for y in range(2 * WINDOW):
            for x_at in range(2 * WINDOW):
                top, left = y // WINDOW * WINDOW, x_at // WINDOW * WINDOW
                query = q[:, y, x_at] / 4
                keys, values = (part[:, top : top + 12, left : left + 12] for part in (k, v))
                logits = torch.einsum("c,cij->ij", query, keys)
                for i in range(12):
                    for j in range(12):
                        offset_y, offset_x = i - (y - top) + 11, j - (x_at - left) + 11
                        logits[i, j] += query @ rel_y[offset_y] + query @ rel_x[offset_x]
                weights = logits.flatten().softmax(0)
                expected[:, y, x_at] = values.flatten(1) @ weights
        projected = torch.nn.functional.conv2d(expected[None].float(), layer.project_out.weight)
        assert torch.allclose(layer(x), projected, atol=1e-5)


def test_the_haar_wavelet_keeps_energy_and_comes_back():
    x = torch.rand(2, 3, 8, 6)
    assert torch.allclose(inverse_haar(haar(x)), x, atol=1e-6)
    assert float(haar(x).square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)
    assert torch.allclose(haar(torch.ones(1, 1, 2, 2)).flatten(), torch.tensor([2.0, 0, 0, 0]))


@pytest.mark.parametrize("side", [1, 3])
def test_a_haar_step_folded_into_its_convolution_gives_what_it_gave(side: int):
    torch.manual_seed(0)
    steps = nn.Sequential(HaarDown(3, 5, side), HaarUp(5, 2, side))
    x = torch.randn(1, 3, 12, 20)
    expected = steps(x)
    parameters = sum(one.numel() for one in steps.parameters())
    fold_haar(steps)
    assert not any(isinstance(one, HaarDown | HaarUp) for one in steps.modules())
    assert sum(one.numel() for one in steps.parameters()) == parameters
    assert torch.allclose(steps(x), expected, atol=1e-6)


def test_span_deployed_gives_what_it_gave_in_training():
    torch.manual_seed(0)
    method = Span(**Span.tiny).train()
    lq = torch.rand(1, 3, 24, 20)
    with torch.no_grad():
        trained = method(lq)
        before = sum(parameter.numel() for parameter in method.parameters())
        method.eval().deploy()
        assert torch.allclose(method(lq), trained, atol=1e-5)
    assert sum(parameter.numel() for parameter in method.parameters()) < before / 3


def test_polyu_restores_the_rendered_frame_in_its_published_tiles(tmp_path, monkeypatch):
    np.save(tmp_path / "frame.npy", np.random.default_rng(0).integers(64, 4096, (96, 80), dtype=np.uint16))
    method = PolyuAisp(**PolyuAisp.tiny).eval()
    assert (method.published_tile, method.published_overlap) == (2048, 64)
    seen = []
    method.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    whole = method.restore(tmp_path / "frame.npy")
    assert seen == [(1, 3, 96, 80)]
    monkeypatch.setattr(PolyuAisp, "published_tile", 64)
    monkeypatch.setattr(PolyuAisp, "published_overlap", 16)
    seen.clear()
    pieces = method.restore(tmp_path / "frame.npy")
    assert seen == [(1, 3, 64, 64)] * 4
    assert float((pieces - whole).abs().mean()) < 0.05


def test_plain_rendering_is_what_networks_on_rgb_get():
    mosaic = torch.full((1, 8, 8), 0.5)
    assert torch.allclose(srgb_encode(demosaic(mosaic)), torch.full((3, 8, 8), 0.7354), atol=1e-3)


def test_xianggkl_follows_ddim_and_ends_with_the_clean_latent():
    """With a UNet that predicts the true noise, the first step already finds the clean latent, and so does the last."""
    torch.manual_seed(0)
    method = Xianggkl(**Xianggkl.tiny).eval()
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    share = signal_share(STEPS)
    assert share.tolist() == pytest.approx([0.004660, 0.277669], rel=1e-3)
    noisy = share[0].sqrt() * clean + (1 - share[0]).sqrt() * noise
    method._noise = lambda latent, step: noise
    with torch.no_grad():
        assert torch.allclose(method._denoise(noisy, STEPS), clean, atol=1e-3)


def test_xianggkl_s_tiles_come_close_to_the_whole(monkeypatch):
    torch.manual_seed(0)
    method = Xianggkl(**Xianggkl.tiny).eval()
    lq = torch.rand(3, 128, 128)
    with torch.no_grad():
        whole = method.in_tiles(lq)
        for name, value in (("LATENT_TILE", 8), ("LATENT_OVERLAP", 4), ("ENCODER_TILE", 64), ("DECODER_TILE", 8)):
            monkeypatch.setattr(f"ntire.teams.raw.xianggkl.{name}", value)
        pieces = method.in_tiles(lq)
    assert pieces.shape == (3, 128, 128)
    assert not torch.equal(pieces, whole)
    assert float((pieces - whole).abs().mean()) < 0.2


def test_vsd_pulls_latents_to_what_the_base_model_expects():
    torch.manual_seed(0)
    method = Xianggkl(**Xianggkl.tiny).train()
    score = LatentScore(method)
    method(torch.rand(2, 3, 64, 64))
    latent = method.latent.detach().clone().requires_grad_()
    method.latent = latent
    # The adapters begin at zero, so both networks agree and nothing is pulled.
    assert score.against(method, torch.empty(0)).item() == pytest.approx(0, abs=1e-8)

    class Expecting(torch.nn.Module):
        """A network whose noise means that the clean latent is `clean` wherever it is asked."""

        def __init__(self, clean):
            super().__init__()
            self.clean = clean

        def forward(self, noisy, time, prompt):
            share = score.shares[time][:, None, None, None]
            return SimpleNamespace(sample=(noisy - share.sqrt() * self.clean) / (1 - share).sqrt())

    score.real, score.fake = Expecting(latent.detach() + 1), Expecting(latent.detach())
    score.against(method, torch.empty(0)).backward()
    # wanted = latent - (fake - real) / |latent - real| = latent + 1, so the gradient is (latent - wanted) / count.
    assert torch.allclose(latent.grad, torch.full_like(latent, -1 / latent.numel()), rtol=1e-3)


def test_the_fake_score_learns_the_latents_it_is_shown():
    torch.manual_seed(0)
    method = Xianggkl(**Xianggkl.tiny).train()
    score = method.opponent()
    trained = [parameter for parameter in score.parameters() if parameter.requires_grad]
    assert 0 < sum(parameter.numel() for parameter in trained) < 0.5 * sum(p.numel() for p in score.fake.parameters())
    method.latent = torch.ones(2, 4, 8, 8)
    optimizer = torch.optim.Adam(trained, lr=5e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = score.own(method, torch.empty(0), torch.empty(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_xianggkl_trains_its_encoder_and_adapters_and_begins_from_stable_diffusion(tmp_path):
    method = Xianggkl(**Xianggkl.tiny)
    learning = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("vae.encoder", "vae.quant_conv")) or ".lora_" in name for name in learning)
    assert any(".lora_" in name for name in learning)
    with pytest.raises(UserError, match="found no unet, vae, text_encoder, tokenizer"):
        method.begin_from(tmp_path)
    base = Xianggkl(**Xianggkl.tiny)
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter)
    plain = copy.deepcopy(base.unet)
    plain.unload_lora()
    plain.save_pretrained(tmp_path / "unet")
    base.vae.save_pretrained(tmp_path / "vae")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(vocab=words, merges=[]).save_pretrained(tmp_path / "tokenizer")
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=2, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    text.save_pretrained(tmp_path / "text_encoder")
    method.begin_from(tmp_path)
    assert torch.equal(method.unet.conv_in.base_layer.weight, base.unet.conv_in.base_layer.weight)
    assert torch.equal(method.vae.encoder.conv_in.weight, base.vae.encoder.conv_in.weight)
    assert float(method.prompt.detach().abs().sum()) > 0
    assert float(method.unet.conv_in.lora_B["default"].weight.detach().abs().sum()) == 0


def test_xianggkl_is_prompted_by_tags_in_training_alone(tmp_path):
    torch.manual_seed(0)
    asked = []

    def read(texts):
        asked.append(list(texts))
        return torch.full((len(texts), TOKENS, 32), 2.0)

    method = Xianggkl(**Xianggkl.tiny).train()
    method.tags = TagPrompts(Tagger(descriptions=1, width=64), read)
    assert copy.deepcopy(method).tags is method.tags, "the average of the weights shares the tagger"
    assert not any(name.startswith("tags") for name in method.state_dict())
    lq = torch.rand(2, 3, 64, 64)
    method.begin_step(lq, lq, torch.Generator())
    assert float(method.condition(2).mean()) == 2
    assert len(asked[0]) == 2
    assert float(method.eval().condition(2).abs().sum()) == 0
    (tmp_path / "tagger").mkdir()
    with pytest.raises(UserError, match=r"found no ram_swin_large_14m.pth, DAPE.pth, ram_tag_list.txt"):
        tag_prompts(tmp_path)


def test_channel_attention_scales_each_channel_by_a_sigmoid_of_all_means():
    """Weights by hand: channel 0 is gated by the mean of channel 1, which is 2; channel 1 by nothing, half of it is left."""
    attention = ChannelAttention(2, reduction=2)
    first, second = attention.weigh[1], attention.weigh[3]
    for parameter, values in zip(
        (first.weight, first.bias, second.weight, second.bias), ([0, 1], [0], [1, 0], [0, 0]), strict=True
    ):
        parameter.data = torch.tensor(values, dtype=torch.float32).reshape(parameter.shape)
    x = torch.stack([torch.full((3, 3), 5.0), torch.arange(9.0).reshape(3, 3) - 2])[None]
    restored = attention(x)
    assert torch.allclose(restored[0, 0], x[0, 0] / (1 + math.exp(-2)))
    assert torch.allclose(restored[0, 1], x[0, 1] / 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("width", "heads"), [(12, 1), (12, 3)])
def test_transposed_attention_as_it_runs_is_that_of_the_paper(width, heads, layout):
    torch.manual_seed(0)
    attention = TransposedAttention(width, heads).double().requires_grad_(False)
    attention.temperature.mul_(3)
    x = torch.rand(2, width, 6, 8, dtype=torch.float64).to(memory_format=layout)
    printed, alone = attention.train()(x), attention.attend(x)
    assert torch.allclose(attention.eval()(x), printed, atol=1e-12)
    assert torch.allclose(attention.attend(x), alone, atol=1e-12)
    assert attention(x).is_contiguous(memory_format=layout)
    zeros = torch.zeros_like(x)
    assert torch.equal(attention(zeros), zeros)
    q, k = torch.rand(2, 1, heads, 5, 48, dtype=torch.float64)
    assert torch.allclose(gram(q, k, 16), gram(q, k), atol=1e-12)
