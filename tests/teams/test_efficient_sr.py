"""The reference networks of efficient super-resolution: counted as published, folded as spandrel's, trained on pairs."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from spandrel.architectures.SPAN import SPAN

from ntire import UserError
from ntire.benchmark.cost import cost_in_full
from ntire.picture.degradations import BicubicDegradation
from ntire.picture.image import as_image, as_pixels
from ntire.picture.real_esrgan_degradation import SecondOrderDegradation
from ntire.picture.resize import resized
from ntire.teams.esr.efdn import Efdn
from ntire.teams.esr.rlfn import Rlfn
from ntire.teams.esr.span import Span, SpanX2
from ntire.training.data import Pairs, Pool, paired_images, validation_pairs
from ntire.training.loop import Settings, train
from tests.made import scene, write_png


@pytest.mark.parametrize(
    ("method", "params_m", "macs_g", "activations_m", "tensors"),
    [(Span, 0.151, 9.83, 41.68, 44), (Efdn, 0.276, 16.70, 111.12, 142), (Rlfn, 0.317, 19.67, 80.05, 78)],
)
def test_it_is_counted_as_the_challenge_counts_it(method, params_m, macs_g, activations_m, tensors):
    found = cost_in_full(method, (256, 256))
    assert found["params"] / 1e6 == pytest.approx(params_m, abs=5e-4)
    assert found["macs"] / 1e9 == pytest.approx(macs_g, abs=0.015)
    assert found["activations"]["convolutions"] / 1e6 == pytest.approx(activations_m, abs=5e-3)
    assert (found["scale"], found["output_at"], found["problems"]) == (4, [1024, 1024], [])
    assert len(method().state_dict()) == tensors, "as many as the published file has"


@torch.no_grad()
def test_the_folded_network_is_spandrels_with_its_branches():
    theirs = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=12, upscale=4).eval()
    lq = torch.rand(1, 3, 20, 24)
    expected = theirs(lq)  # folds its branches
    ours = Span(channels=12).eval()
    folded = {name: value for name, value in theirs.state_dict().items() if ".sk." not in name and ".conv." not in name}
    ours.net.load_state_dict(folded)
    assert torch.allclose(ours(lq), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("method", [Rlfn, Efdn])
def test_pooled_attention_takes_any_size_and_leaves_large_pictures_alone(method):
    network = method(**method.tiny).eval()
    assert network(torch.rand(1, 3, 1, 7)).shape == (1, 3, 4, 28)
    lq = torch.rand(1, 3, 15, 16)
    assert torch.equal(network(lq), network.network(lq))


@pytest.mark.parametrize("scale", [2, 4])
def test_degradations_make_inputs_of_a_scale(scale):
    gt = as_image(scene(48, 64))
    lq, same = BicubicDegradation(scale)(gt, torch.Generator().manual_seed(0))
    assert torch.equal(lq, as_image(as_pixels(resized(gt, Fraction(1, scale)).clamp(0, 1))))
    assert torch.equal(same, gt)
    real, _ = SecondOrderDegradation(scale=scale)(gt, torch.Generator().manual_seed(0))
    assert real.shape == (3, 48 // scale, 64 // scale)


@pytest.fixture
def pairs(tmp_path):
    """Clean pictures of 48 x 64 and, in `lq`, every fourth pixel of every fourth row."""
    for number, name in enumerate("ab"):
        gt = scene(48, 64, seed=number)
        write_png(tmp_path / "gt" / f"{name}.png", gt)
        write_png(tmp_path / "lq" / f"{name}.png", np.ascontiguousarray(gt[::4, ::4]))
    return tmp_path


def test_crops_of_pairs_of_two_sizes_show_the_same_place(pairs):
    found = paired_images(pairs, 16, 4)
    for number in range(8):
        lq, gt = Pairs([Pool(found, None)], 16, seed=0)[number]
        assert (lq.shape, gt.shape) == ((3, 4, 4), (3, 16, 16))
        # A turned or flipped crop has the kept pixels at one of its corners.
        corners = [gt[:, row::4, column::4] for row in (0, 3) for column in (0, 3)]
        assert any(torch.equal(lq, one) for one in corners)
    for lq, gt in validation_pairs([Pool(found, None)], 1, 0, side=32, scale=4):
        assert torch.equal(lq, gt[:, ::4, ::4])
        assert gt.shape == (3, 32, 32)
    with pytest.raises(UserError, match=r"a\.png: not 1/2 of the size of its clean picture: 48 x 64 and 12 x 16"):
        paired_images(pairs, 16, 2)


def test_training_compares_with_bicubic_and_refuses_patches_off_the_scale(pairs, tmp_path):
    recipe = Span.recipe.scaled(iterations=2, batch=1, patch=32)
    settings = Settings(data=pairs / "gt", out=tmp_path / "out", held_out=1)
    steps = []
    train(SpanX2(channels=4), SpanX2.recipe.scaled(iterations=2, batch=1, patch=32), settings, steps.append)
    plain = []
    for name in "ab":
        pool = Pool([pairs / "gt" / f"{name}.png"], BicubicDegradation(2))
        ((lq, gt),) = validation_pairs([pool], 1, 0, scale=2)
        plain.append(float(-10 * torch.log10((resized(lq, 2).clamp(0, 1).double() - gt.double()).square().mean())))
    assert steps[-1].plain_psnr_db in [pytest.approx(one) for one in plain], "of whichever picture is held out"
    with pytest.raises(UserError, match="multiple of the scale, 4, found: l1 \\(30\\)"):
        train(Span(channels=4), recipe.scaled(patch=30), settings, steps.append)
