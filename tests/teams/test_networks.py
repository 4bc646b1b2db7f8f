"""What single methods promise beyond what every method does: names of published weights, merged layers, published tiles."""

import numpy as np
import pytest
import torch

from ntire.raw import demosaic, srgb_encode
from teams.parts.wavelet import haar, inverse_haar
from teams.raw.iid_ai import WINDOW, OverlappingAttention, x_restormer
from teams.raw.polyu_aisp import PolyuAisp
from teams.raw.xianggkl import STEPS, Xianggkl, signal_share
from teams.srgb.teleai_vision import Span


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
            monkeypatch.setattr(f"teams.raw.xianggkl.{name}", value)
        pieces = method.in_tiles(lq)
    assert pieces.shape == (3, 128, 128)
    assert not torch.equal(pieces, whole)
    assert float((pieces - whole).abs().mean()) < 0.2
