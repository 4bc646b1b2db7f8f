import math

import pytest
import torch

from ntire.picture.image import as_image
from ntire.picture.raw import srgb_decode
from ntire.picture.weather import KINDS, OneOf, Weather, haze, low_light, masked, motion_blur, rain
from tests.made import scene


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_seeded_keeps_the_size_and_spoils_the_picture(kind):
    clean = as_image(scene(60, 72))
    lq, gt = Weather(kind)(clean, seeded())
    assert torch.equal(gt, clean)
    assert lq.shape == clean.shape
    assert 0 <= float(lq.min()) <= float(lq.max()) <= 1
    assert float((lq - clean).abs().mean()) > 0.005
    assert torch.equal(Weather(kind)(clean, seeded())[0], lq)


def test_an_unknown_kind_names_those_there_are():
    with pytest.raises(ValueError, match="snowy.*noisy, jpeg-compressed, blurry"):
        Weather("snowy")


def test_low_light_divides_the_light():
    clean = torch.full((3, 50, 50), 0.8)
    dark = low_light(clean, 8.0, 1.0, 0.0, seeded())
    assert float(srgb_decode(dark).mean()) == pytest.approx(float(srgb_decode(clean).mean()) / 8, rel=1e-4)


def test_haze_follows_the_law_and_is_thickest_at_the_top():
    black = torch.zeros(3, 64, 48)
    hazy = haze(black, 0.9, 1.2, seeded())
    assert float(hazy[:, :8].mean()) > float(hazy[:, -8:].mean()) + 0.2
    # Every pixel is A (1 - t) with depth in [0, 1].
    assert float(hazy.max()) <= 0.9 * (1 - math.exp(-1.2)) + 1e-5
    white = torch.full((3, 64, 48), 0.9)
    assert torch.allclose(haze(white, 0.9, 1.2, seeded()), white, atol=1e-6)


def test_streaks_are_as_long_and_as_steep_as_asked():
    streaks = rain(torch.zeros(3, 41, 41), 1e-3, 11, 0.0, 1.0, seeded(4))
    assert float(streaks.sum()) > 0
    columns = streaks[0].sum(0)
    assert set(columns.round().int().tolist()) & {11}
    assert torch.equal(streaks[0], streaks[2])


@pytest.mark.parametrize(("angle", "axis"), [(0.0, 2), (math.pi / 2, 1)])
def test_motion_smears_a_point_along_its_way_and_keeps_its_light(angle, axis):
    point = torch.zeros(3, 31, 31)
    point[:, 15, 15] = 1
    smeared = motion_blur(point, 9, angle)
    assert float(smeared.sum()) == pytest.approx(3, rel=1e-5)
    lit = (smeared[0] > 1e-3).nonzero()
    assert len(lit) == 9
    assert len(set(lit[:, 2 - axis].tolist())) == 1, "one line"
    assert torch.allclose(smeared[smeared > 1e-3], torch.tensor(1 / 9), atol=1e-5)


def test_masks_hide_about_the_share_that_is_asked_for():
    hidden = [float((masked(torch.ones(3, 90, 120), 0.2, 6, seeded(seed)) == 0).float().mean()) for seed in range(30)]
    assert 0.08 < sum(hidden) / len(hidden) < 0.22


def test_one_of_draws_every_kind():
    clean = as_image(scene(40, 40))
    either = OneOf((Weather("noisy"), Weather("jpeg-compressed")))
    rng = seeded()
    found = [either(clean, rng)[0] for _ in range(10)]
    errors = sorted(float((lq - clean).abs().mean()) for lq in found)
    assert errors[0] < 0.08 < errors[-1]
