import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ntire.picture.image import read_pixels
from ntire.scoring import pixels
from ntire.scoring.instruments import View
from ntire.scoring.metrics import METRICS
from ntire.scoring.pixels import MetricError
from tests.made import scene

SKIMAGE = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


def distorted(picture, sigma=8.0, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


PIXELS = ("psnr", "psnr-y", "psnr-y-bgr", "ssim", "ssim-y", "ssim-y-bgr", "ssim-rgb", "ssim-skimage")


def measure(name, restored, gt):
    (vector,) = METRICS[name].load("cpu", {}).observe([View(restored, gt)])
    return float(vector[0])


@given(seed=st.integers(0, 99), sigma=st.floats(0.5, 60))
@settings(max_examples=25)
def test_psnr_is_what_scikit_image_measures(seed, sigma):
    gt = scene(31, 45, seed=seed)
    restored = distorted(gt, sigma, seed)
    assert measure("psnr", restored, gt) == pytest.approx(peak_signal_noise_ratio(gt, restored), abs=1e-9)


@given(seed=st.integers(0, 99), sigma=st.floats(0.5, 25))
@settings(max_examples=25)
def test_ssim_is_what_scikit_image_measures_where_no_structure_is_negative(seed, sigma):
    gt = scene(31, 45, seed=seed)
    # A blend with the truth keeps every local correlation positive, so that clipping it changes nothing.
    restored = np.rint(0.8 * gt + 0.2 * distorted(gt, sigma, seed)).astype(np.uint8)
    expected = structural_similarity(gt, restored, channel_axis=2, **SKIMAGE)
    assert measure("ssim-rgb", restored, gt) == pytest.approx(expected, abs=1e-9)
    luma = [np.rint(image @ np.array([0.299, 0.587, 0.114])) for image in (gt, restored)]
    assert measure("ssim", restored, gt) == pytest.approx(structural_similarity(*luma, **SKIMAGE), abs=1e-9)


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("size", [(61, 40), (62, 40), (63, 40), (64, 40)])
def test_strips_give_what_the_whole_gives(name, size, monkeypatch):
    gt = scene(*size, seed=3)
    restored = distorted(gt, 12)
    deep = [image.astype(np.float32) * np.float32(0.999) for image in (restored, gt)]
    whole = [measure(name, restored, gt), measure(name, *deep)]
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 21 * 40)
    assert [measure(name, restored, gt), measure(name, *deep)] == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("name", ["psnr", "psnr-y"])
def test_psnr_of_levels_counts_without_an_error(name):
    # Differences of 255 all over: the largest sums there are.
    for value in (255, 1):
        gt = np.zeros((700, 900, 3), np.uint8)
        restored = np.full_like(gt, value)
        seen = 1.0 if name == "psnr" else 219 / 255
        expected = -10 * math.log10((value / 255 * seen) ** 2 + (1e-8 if name == "psnr-y" else 0))
        assert measure(name, restored, gt) == pytest.approx(expected, abs=1e-12)
    gt = scene(200, 300, seed=1)
    restored = distorted(gt, 9)
    as_floats = measure(name, restored.astype(np.float32), gt.astype(np.float32))
    assert measure(name, restored, gt) == pytest.approx(as_floats, abs=1e-12)


@pytest.mark.parametrize(("channel", "weight"), [(0, 65.481), (1, 128.553), (2, 24.966)])
def test_luma_weighs_red_green_and_blue_as_matlab_does(channel, weight):
    gt = np.zeros((16, 16, 3), np.uint8)
    restored = gt.copy()
    restored[..., channel] = 100
    assert measure("psnr-y", restored, gt) == pytest.approx(20 * math.log10(255 / (weight * 100 / 255)), abs=1e-2)


def test_weather_is_measured_on_a_luma_with_red_and_blue_exchanged_as_its_program_reads_them():
    gt, weights = scene(31, 45), np.array([65.481, 128.553, 24.966]) / 255
    restored = distorted(gt)
    bgr = [(image[..., ::-1] @ weights + 16) / 255 for image in (gt, restored)]
    expected = structural_similarity(*bgr, win_size=11, data_range=1)
    assert measure("psnr-y-bgr", restored, gt) == pytest.approx(peak_signal_noise_ratio(*bgr, data_range=1), abs=1e-6)
    assert measure("ssim-y-bgr", restored, gt) == pytest.approx(expected, abs=1e-6)


def test_luma_psnr_is_the_rgb_error_seen_through_the_matlab_luma():
    gt = scene()
    brighter = np.clip(gt.astype(int) + 10, 0, 255).astype(np.uint8)
    assert gt.max() <= 245
    shift = 10 * (65.481 + 128.553 + 24.966) / 255
    assert measure("psnr-y", brighter, gt) == pytest.approx(20 * math.log10(255 / shift), abs=1e-3)
    # 219 of 255 levels are used: 1.32 dB above the same error on full-range luma.
    assert measure("psnr-y", brighter, gt) - measure("psnr", brighter, gt) == pytest.approx(1.3219, abs=1e-3)


def test_equal_pictures_are_the_explicit_cases():
    gt = scene()
    assert measure("psnr", gt, gt) == math.inf
    assert measure("psnr-y", gt, gt) == pytest.approx(80)
    for name in ("ssim", "ssim-y", "ssim-rgb", "ssim-skimage"):
        assert measure(name, gt, gt) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", PIXELS)
def test_more_noise_is_worse_in_the_declared_direction(name):
    gt = scene(64, 64)
    values = [measure(name, distorted(gt, sigma), gt) for sigma in (2, 8, 30)]
    assert values == sorted(values, reverse=METRICS[name].higher_is_better)


@pytest.mark.parametrize("name", PIXELS)
def test_channels_are_read_as_red_green_blue(name):
    gt = scene(64, 64)
    restored = gt.copy()
    restored[..., 0] = distorted(gt[..., 0], 20)
    swapped = measure(name, restored[..., ::-1], gt[..., ::-1])
    symmetric = name in ("psnr", "ssim-rgb", "ssim-skimage")
    assert (swapped == pytest.approx(measure(name, restored, gt))) is symmetric


def test_ssim_of_a_picture_smaller_than_its_window_is_refused():
    with pytest.raises(MetricError, match="at least 11 x 11 pixels, the image has 5 x 7"):
        measure("ssim", scene(5, 7), scene(5, 7))
    assert measure("psnr", scene(5, 7), scene(5, 7, seed=1)) > 0


@pytest.mark.data
def test_the_calibration_pictures_give_the_published_values(data):
    with (data / "calibration" / "expected.csv").open() as file:
        for row in csv.DictReader(file):
            restored = read_pixels(data / "calibration" / "dist" / row["image"])
            gt = read_pixels(data / "calibration" / "ref" / row["image"])
            # pyiqa adds 1e-8 to the squared error, which shows in the fourth decimal.
            assert measure("psnr", restored, gt) == pytest.approx(float(row["psnr"]), abs=2e-4)
            assert measure("ssim", restored, gt) == pytest.approx(float(row["ssim"]), abs=6e-5)
