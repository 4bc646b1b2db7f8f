import math

import pytest
import torch

from ntire.picture.image import as_image
from ntire.picture.real_esrgan_degradation import (
    Round,
    SecondOrderDegradation,
    blur_kernel,
    filtered,
    poisson_noise,
    sinc_kernel,
)
from tests.made import scene


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_kernels_sum_to_one_and_have_the_shapes_of_their_formulas():
    gaussian = blur_kernel(21, 2.0, 1.0, 0.0)
    position = torch.arange(21.0) - 10
    assert float((gaussian.sum(0) * position**2).sum()) == pytest.approx(4, rel=0.02)
    assert float((gaussian.sum(1) * position**2).sum()) == pytest.approx(1, rel=0.02)
    flat, plateau = blur_kernel(21, 2.0, 2.0, 0.0, "generalised", 4.0), blur_kernel(21, 2.0, 2.0, 0.0, "plateau", 2.0)
    assert float(flat[10, 11] / flat[10, 10]) == pytest.approx(math.exp(-((1 / 4) ** 4) / 2))
    assert float(plateau[10, 12] / plateau[10, 10]) == pytest.approx(1 / 2)
    for kernel in (gaussian, flat, plateau, sinc_kernel(13, 1.5)):
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)


def test_a_sinc_filter_passes_slow_waves_and_stops_fast_ones():
    x = torch.arange(200.0).expand(3, 40, 200)
    kernel = sinc_kernel(21, math.pi / 2)
    for frequency, passes in ((math.pi / 8, True), (math.pi * 7 / 8, False)):
        wave = torch.cos(frequency * x)
        left = filtered(wave, kernel)[:, :, 20:-20].std() / wave.std()
        assert (left > 0.9) if passes else (left < 0.15)


def test_poisson_noise_grows_with_the_signal():
    ramp = torch.linspace(0, 1, 256)[None, None].expand(3, 400, 256).contiguous()
    noise = poisson_noise(ramp, 1.0, False, seeded()) - ramp
    # 256 levels: the variance is the value / 256.
    assert float(noise[:, :, 120:136].var()) == pytest.approx(0.5 / 256, rel=0.1)
    assert float(noise[:, :, 248:].var()) > 3 * float(noise[:, :, 40:48].var())
    gray = poisson_noise(ramp, 1.0, True, seeded()) - ramp
    assert torch.allclose(gray[0], gray[2], atol=1e-6)


def test_it_keeps_the_size_is_seeded_and_spoils_the_picture():
    clean = as_image(scene(64, 72))
    degradation = SecondOrderDegradation()
    results = [degradation(clean, seeded(seed)) for seed in range(12)]
    for lq, gt in results:
        assert lq.shape == clean.shape
        assert torch.equal(gt, clean)
        assert 0 <= float(lq.min()) <= float(lq.max()) <= 1
        assert float((lq * 255 - (lq * 255).round()).abs().max()) < 1e-4
        assert float((lq - clean).abs().mean()) > 0.01
    assert torch.equal(degradation(clean, seeded(3))[0], results[3][0])
    assert not torch.equal(results[3][0], results[4][0])


def test_a_round_with_nothing_switched_on_only_compresses():
    still = Round(
        blur_probability=0, enlarge=0, shrink=0, noise_sigma=(0, 0), gaussian_probability=1, jpeg_quality=(100, 100)
    )
    clean = as_image(scene(40, 40))
    rng = seeded()
    assert torch.allclose(still.noise(still.scale(still.blur(clean, rng), rng), rng), clean, atol=1e-6)
    assert float((still.compress(clean, rng) - clean).abs().mean()) < 0.02
