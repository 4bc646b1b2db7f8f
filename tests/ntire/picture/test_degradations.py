import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntire.picture.degradations import (
    NoiseLevels,
    RawDegradation,
    RenderedDegradation,
    SrgbDegradation,
    bad_pixels,
    bilateral,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    mosaic_of,
    sensor_noise,
    shot_and_read,
    unsharp_mask,
)
from ntire.picture.image import as_image
from ntire.picture.raw import demosaic, srgb_decode, srgb_encode
from tests.made import scene


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_gaussian_noise_has_the_stated_sigma_in_levels_of_255():
    noise = gaussian_noise(torch.zeros(3, 200, 200), 25, seeded()) * 255
    assert float(noise.std()) == pytest.approx(25, rel=0.01)
    assert abs(float(noise.mean())) < 0.3


def test_blur_keeps_a_flat_picture_and_spreads_a_point_by_its_sigma():
    assert torch.allclose(gaussian_blur(torch.full((3, 20, 20), 0.4), 1.5, 0.7, 0.3), torch.tensor(0.4), atol=1e-6)
    point = torch.zeros(3, 41, 41)
    point[:, 20, 20] = 1
    spread = gaussian_blur(point, 2.0, 1.0, 0.0)[0]
    position = torch.arange(41.0) - 20
    assert float((spread.sum(0) * position**2).sum()) == pytest.approx(4, rel=0.05)
    assert float((spread.sum(1) * position**2).sum()) == pytest.approx(1, rel=0.05)


def test_jpeg_gets_worse_with_quality_and_is_what_opencv_gives():
    picture = as_image(scene(64, 64))
    errors = [float((jpeg(picture, quality) - picture).abs().mean()) for quality in (95, 60, 20)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_sensor_noise_grows_with_signal_and_iso_as_its_variance_says():
    for iso in (200.0, 6400.0):
        shot, read = shot_and_read(iso)
        for level in (0.05, 0.6):
            noisy = sensor_noise(torch.full((1, 400, 400), level), iso, seeded())
            assert float(noisy.var()) == pytest.approx(shot * level + read, rel=0.02)
    assert shot_and_read(12_000)[0] == pytest.approx(0.012)
    assert shot_and_read(100)[1] == pytest.approx(math.exp(2.18 * math.log(1e-4) + 1.2))


def test_bad_pixels_hit_the_stated_share():
    hit = bad_pixels(torch.full((1, 500, 500), -1.0), 0.01, seeded()) >= 0
    assert float(hit.float().mean()) == pytest.approx(0.01, rel=0.1)


def test_a_mosaic_keeps_one_colour_a_pixel():
    image = as_image(scene(6, 8))
    mosaic = mosaic_of(image)[0]
    assert torch.equal(mosaic[0::2, 0::2], image[0, 0::2, 0::2])
    assert torch.equal(mosaic[0::2, 1::2], image[1, 0::2, 1::2])
    assert torch.equal(mosaic[1::2, 0::2], image[1, 1::2, 0::2])
    assert torch.equal(mosaic[1::2, 1::2], image[2, 1::2, 1::2])


@pytest.mark.parametrize("degradation", [RawDegradation(), SrgbDegradation()])
def test_one_seed_gives_one_pair_in_range_and_another_seed_another(degradation):
    gt = as_image(scene(32, 32))
    lq, target = degradation(gt, seeded(5))
    again, _ = degradation(gt, seeded(5))
    other, _ = degradation(gt, seeded(6))
    assert torch.equal(lq, again)
    assert not torch.equal(lq, other)
    assert target.shape == gt.shape
    assert lq.shape == ((1 if isinstance(degradation, RawDegradation) else 3), 32, 32)
    for image in (lq, target):
        assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_darkening_with_digital_gain_makes_more_noise_at_the_same_brightness():
    gt = as_image(np.full((64, 64, 3), 128, np.uint8))

    def noise(darkening):
        degradation = RawDegradation(
            iso=(1600, 1600), darkening=(darkening,) * 2, blur_probability=0, bad_pixel_share=(0, 0), bits=(14,)
        )
        frame, _ = degradation.frame(gt, seeded(1))
        return float(frame.mosaic.mean()), float(frame.mosaic[0, 0::2, 0::2].std())

    (plain, quiet), (gained, loud) = noise(1.0), noise(4.0)
    assert gained == pytest.approx(plain, rel=0.02)
    assert loud > 1.7 * quiet


def test_a_bilateral_filter_smooths_noise_but_not_edges():
    step = torch.zeros(3, 40, 40)
    step[..., 20:] = 0.8
    noisy = step + torch.randn(step.shape, generator=seeded()) * 0.02
    smooth = bilateral(noisy, 3.0, 0.2)
    assert float((smooth - step)[..., :15].std()) < 0.01
    assert float((smooth - step)[..., 18:22].abs().mean()) < 0.02
    blurred = gaussian_blur(noisy, 3.0, 3.0, 0.0)
    assert float((blurred - step)[..., 18:22].abs().mean()) > 0.1


def test_an_unsharp_mask_raises_the_contrast_of_edges_only():
    picture = torch.full((3, 120, 120), 0.3)
    picture[..., 60:] = 0.6
    sharp = unsharp_mask(picture, 0.5)
    assert torch.allclose(sharp[..., :8], picture[..., :8], atol=1e-3)
    assert float(sharp[0, 60, 59]) < 0.27
    assert float(sharp[0, 60, 60]) > 0.63
    flat = picture[..., :50].contiguous()
    assert torch.allclose(unsharp_mask(flat, 0.5), flat, atol=1e-6)


def test_what_recipes_switch_on_changes_only_what_it_names():
    clean = as_image(scene(64, 64))
    mosaic, camera = RawDegradation()(clean, seeded(1))
    picture, same = RawDegradation(rendered=True)(clean, seeded(1))
    assert mosaic.shape == (1, 64, 64)
    assert picture.shape == (3, 64, 64)
    assert torch.equal(picture, srgb_encode(demosaic(mosaic)))
    assert torch.equal(camera, same)
    tinted = RawDegradation(channel_gain=(0.5, 0.5), iso=(1, 1), bad_pixel_share=(0, 0))
    plain = RawDegradation(channel_gain=(1.0, 1.0), iso=(1, 1), bad_pixel_share=(0, 0))
    ratio = srgb_decode(tinted(clean, seeded(2))[1]).mean() / srgb_decode(plain(clean, seeded(5))[1]).mean()
    assert float(ratio) == pytest.approx(0.5, abs=0.06)


def test_a_darker_exposure_is_dark_in_the_target_as_well():
    clean = torch.full((3, 32, 32), 0.6)
    night, day = (
        RawDegradation(exposure=(factor, factor), iso=(1, 1), bad_pixel_share=(0, 0)) for factor in (0.02, 1.0)
    )
    ratio = srgb_decode(night(clean, seeded(2))[1]).mean() / srgb_decode(day(clean, seeded(5))[1]).mean()
    assert float(ratio) == pytest.approx(0.02, rel=0.05)


def test_noise_levels_are_drawn_and_cut_off_to_8_bits():
    gray = torch.full((3, 100, 100), 0.5)
    rng = seeded()
    deviations = set()
    for _ in range(12):
        lq, gt = NoiseLevels((15.0, 50.0))(gray, rng)
        assert torch.equal(gt, gray)
        assert torch.allclose(lq * 255, (lq * 255).round(), atol=1e-4)
        deviations.add(round(float((lq - gt).std()) * 255 / 5) * 5)
    assert deviations == {15, 50}


def test_a_picture_taken_again_keeps_its_colours_and_gets_noise():
    clean = as_image(scene(64, 64))
    quiet = RenderedDegradation(
        RawDegradation(iso=(1, 1), darkening=(1, 1), blur_probability=0, bad_pixel_share=(0, 0))
    )
    loud = RenderedDegradation(replace(quiet.sensor, iso=(6400, 6400)))
    (near, gt), (noisy, _) = quiet(clean, seeded(1)), loud(clean, seeded(1))
    assert torch.equal(gt, clean)
    assert (near.mean((1, 2)) - clean.mean((1, 2))).abs().max() < 0.02
    assert float((noisy - clean).abs().mean()) > 1.5 * float((near - clean).abs().mean())


def test_iso_levels_blur_windows_and_lost_resolution_are_drawn_where_a_recipe_says_so():
    clean = as_image(scene(64, 64))
    levels = RawDegradation(iso_levels=(1600.0, 3200.0, 6400.0))
    assert {levels.frame(clean, seeded(seed))[0].iso for seed in range(30)} == {1600.0, 3200.0, 6400.0}
    sharp = RawDegradation(iso=(1, 1), darkening=(1, 1), blur_probability=0, bad_pixel_share=(0, 0))
    blurred = replace(sharp, blur_probability=1, blur_sigma=(1.2, 1.2), blur_sides=(3,))
    smaller = replace(sharp, shrinking=(2.0, 2.0))

    def detail(degradation):
        mosaic = degradation(clean, seeded(3))[0]
        return float((mosaic[:, 2::2, 1::2] - mosaic[:, :-2:2, 1::2]).abs().mean())

    assert detail(smaller) < detail(sharp)
    assert detail(replace(blurred, blur_sides=(7,))) < detail(blurred) < detail(sharp)


def test_untouched_pictures_stay_as_they_are():
    clean = as_image(scene(32, 32))
    found = [SrgbDegradation(untouched=0.5)(clean, seeded(seed))[0] for seed in range(40)]
    assert 12 <= sum(torch.equal(lq, clean) for lq in found) <= 28
