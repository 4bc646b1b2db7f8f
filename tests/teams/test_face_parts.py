"""The lighter stages of the face pipelines: published names load strictly, and results agree with other implementations."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from spandrel.architectures.ESRGAN import ESRGANArch
from spandrel.architectures.GFPGAN import GFPGANArch

from ntire import UserError
from ntire.method.face_alignment import TEMPLATE
from ntire.method.state_dict import fill, read_state_dict
from ntire.teams.parts.codeformer import CodeFormer
from ntire.teams.parts.face_tone import FaceTone
from ntire.teams.parts.ffa_net import FfaNet
from ntire.teams.parts.gfpgan import Gfpgan
from ntire.teams.parts.real_esrgan import RealEsrgan2x, halved
from ntire.teams.parts.sharpening import saturate, unsharp
from ntire.teams.parts.unaligned import Unaligned
from ntire.teams.parts.zssr import Zssr
from tests.teams.published import listed_shapes


def test_ffa_net_takes_the_published_file_with_its_prefix_and_what_training_left_in_it(tmp_path):
    published = {name: torch.rand(shape) * 0.02 for name, shape in listed_shapes("ffa_net").items()}
    torch.save({"step": 1, "max_psnr": 2.0, "losses": [0.1], "model": published}, tmp_path / "ots.pk")
    network = FfaNet().eval()
    fill(network, read_state_dict(tmp_path / "ots.pk", "module."), tmp_path / "ots.pk")
    with torch.no_grad():
        restored = network(torch.rand(1, 3, 8, 9))
    assert restored.shape == (1, 3, 8, 9)
    assert torch.equal(network.g2.gp[3].conv1.weight, published["module.g2.gp.3.conv1.weight"])


def test_ffa_net_takes_means_and_deviations_out_of_its_input_and_adds_that_input():
    network = FfaNet(blocks=1, width=8).eval()
    for parameter in network.post.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        restored = network(torch.tensor([0.64 + 0.14 / 2, 0.6 + 0.15 / 4, 0.0]).view(1, 3, 1, 1).expand(1, 3, 5, 5))
    torch.testing.assert_close(restored[0, :, 0, 0], torch.tensor([0.5, 0.25, 0.0]))


def test_real_esrgan_takes_basicsr_names_and_agrees_with_spandrels_own_loading(tmp_path):
    generator = torch.Generator().manual_seed(0)
    published = {
        name: torch.randn(shape, generator=generator) * 0.02
        for name, shape in listed_shapes("real_esrgan_x2plus").items()
    }
    torch.save({"params_ema": published}, tmp_path / "x2.pth")
    ours = RealEsrgan2x().eval()
    ours.take(tmp_path / "x2.pth", "")
    theirs = ESRGANArch().load(dict(published)).model.eval()
    picture = torch.rand(1, 3, 11, 14)
    with torch.no_grad():
        assert torch.equal(ours(picture), theirs(picture).clamp(0, 1))
        assert ours(picture, outscale=1).shape == picture.shape
    del published["conv_hr.bias"]
    torch.save({"params_ema": published}, tmp_path / "x2.pth")
    with pytest.raises(UserError, match=r"missing model\.8\.bias"):
        ours.take(tmp_path / "x2.pth", "")


def test_halving_is_opencvs_lanczos():
    picture = torch.rand(1, 3, 34, 46)
    theirs = cv2.resize(picture[0].permute(1, 2, 0).contiguous().numpy(), (23, 17), interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_allclose(halved(picture)[0].permute(1, 2, 0).numpy(), theirs.clip(0, 1), atol=1e-5)


def test_gfpgan_is_the_network_that_spandrel_finds_in_a_checkpoint_and_gives_one_result_for_one_face():
    with torch.device("meta"):
        full = Gfpgan()
        found = GFPGANArch().load(full.net.state_dict()).model
    assert {name: value.shape for name, value in found.state_dict().items()} == {
        name: value.shape for name, value in full.net.state_dict().items()
    }
    small = Gfpgan(side=64, width=32).eval()
    for style in small.net.stylegan_decoder.style_convs:
        torch.nn.init.constant_(style.weight, 0.5)  # of the noise, which starts at zero
    face = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(small(face), small(face))
        with pytest.raises(ValueError, match="64 x 64"):
            small(face[..., :63])


def test_codeformers_fidelity_blends_what_the_encoder_saw_and_zero_leaves_it_out():
    torch.manual_seed(1)
    small = CodeFormer(side=64, width=8, layers=1).eval()
    face = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        quality, both, fidelity = (small(face, fidelity=w) for w in (0.0, 0.5, 1.0))
        for fusion in small.fuse_convs_dict.values():
            for parameter in fusion.parameters():
                parameter.fill_(float("nan"))
        assert torch.equal(small(face, fidelity=0.0), quality)
    assert 0 < float((both - quality).abs().mean()) < float((fidelity - quality).abs().mean())


def test_faces_are_pasted_where_the_parser_sees_skin_and_the_rest_is_the_background(monkeypatch):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    stage = Unaligned(side=128).eval().requires_grad_(False)
    points = [tuple(map(tuple, TEMPLATE / 8 + [40, 30]))]  # a face of 64 pixels
    monkeypatch.setattr(stage.finder, "forward", lambda picture: points)
    classes = torch.zeros(1, 19, 128, 128)
    classes[:, 0, :, :64] = 1  # background on the left half of the face, skin on the right
    classes[:, 1, :, 64:] = 1
    monkeypatch.setattr(stage.parser, "forward", lambda face: (classes, face))
    picture, behind = torch.rand(1, 3, 120, 140), torch.rand(1, 3, 120, 140)
    pasted = stage(picture, torch.zeros_like, background=behind)
    assert torch.equal(pasted[..., :20], behind[..., :20])
    assert torch.equal(pasted[..., :30, :], behind[..., :30, :])
    skin, other = pasted[..., 50:75, 90:98], pasted[..., 50:75, 42:50]
    assert float(skin.mean()) < 0.1
    assert float((other - behind[..., 50:75, 42:50]).abs().mean()) < 0.1
    monkeypatch.setattr(stage.finder, "forward", lambda picture: [])
    assert torch.equal(stage(picture, torch.zeros_like), picture)


def test_what_stays_in_float32_moves_and_is_not_converted():
    small = CodeFormer(side=64, width=8, layers=1).to("meta", torch.bfloat16)
    assert {(value.device.type, value.dtype) for value in small.parameters()} == {("meta", torch.float32)}


def test_face_tone_averages_its_result_with_its_input():
    small = FaceTone(downs=5, width=4).eval()
    for parameter in small.model.model[3].parameters():
        torch.nn.init.zeros_(parameter)
    face = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(small(face), (face + 0.5) / 2)


PIXELS = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)
PICTURE = torch.from_numpy(PIXELS).permute(2, 0, 1)[None].float() / 255


def as_bytes(picture):
    return (picture[0] * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("radius", "percent", "threshold"), [(0, 50, 0), (1.3, 150, 3), (2, 80, 0), (5, 120, 2)])
def test_an_unsharp_mask_is_pillows(radius, percent, threshold):
    theirs = Image.fromarray(PIXELS).filter(ImageFilter.UnsharpMask(radius, percent, threshold))
    ours = unsharp(PICTURE, radius=radius, percent=percent, threshold=threshold)
    np.testing.assert_array_equal(as_bytes(ours), np.asarray(theirs))


@pytest.mark.parametrize("factor", [1.1, 0.0, 0.5, 2.5])
def test_saturation_is_pillows(factor):
    theirs = ImageEnhance.Color(Image.fromarray(PIXELS)).enhance(factor)
    np.testing.assert_array_equal(as_bytes(saturate(PICTURE, factor=factor)), np.asarray(theirs))


def test_both_cut_a_picture_down_to_bytes_as_the_program_does():
    between = torch.full((1, 3, 4, 4), 100.7 / 255)
    assert np.unique(as_bytes(unsharp(between, radius=0, percent=50))) == [100]
    assert np.unique(as_bytes(saturate(between, factor=1.1))) == [100]


def test_zssr_learns_a_picture_from_itself_the_same_every_time_and_leaves_the_callers_randomness_alone():
    row, column = torch.meshgrid(torch.arange(24), torch.arange(20), indexing="ij")
    picture = ((row // 4 + column // 4) % 2 * 0.6 + 0.2).expand(1, 3, 24, 20).clone()
    stage = Zssr(width=8, layers=1)
    few = {"factor": 1, "patch": 12, "batch": 2, "lr": 1e-2, "seed": 3}
    torch.manual_seed(5)
    with torch.inference_mode():
        untrained, trained, again = (stage(picture, steps=steps, **few) for steps in (0, 60, 60))
        other = stage(picture, steps=60, **few | {"seed": 4})
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    assert torch.equal(trained, again)
    assert not torch.equal(trained, other)
    assert float((trained - picture).abs().mean()) < 0.5 * float((untrained - picture).abs().mean())
    assert stage(picture, **few | {"factor": 2}, steps=1).shape == (1, 3, 48, 40)


def test_zssr_keeps_the_result_of_the_highest_quality():
    seen = []

    def darkness(pictures):
        if len(pictures) == 1:
            seen.append(float(pictures.mean()))
        return 1 - pictures.mean((1, 2, 3))

    picture = torch.full((1, 3, 16, 16), 0.9)
    result = Zssr(width=8, layers=1, quality=darkness)(picture, factor=1, steps=250, patch=8, batch=2, scales=2)
    assert len(seen) == 3
    assert float(result.mean()) == pytest.approx(min(seen))
