"""Colours of one picture given to another: against SciPy's filters, and by what must stay and what must change."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from ntire.teams.parts.colour import adain_colour, wavelet_colour


@pytest.fixture
def pair():
    """Two pictures of different colours, of a size that no level divides."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, 37, 45, generator=generator), torch.rand(2, 3, 37, 45, generator=generator) * 0.4 + 0.1


def test_wavelet_colour_is_the_difference_of_five_dilated_binomial_blurs(pair):
    image, like = pair
    difference = (like - image).double().numpy()
    for level in range(5):
        taps = np.zeros(2 ** (level + 1) + 1)
        taps[[0, 2**level, -1]] = 0.25, 0.5, 0.25
        for axis in (2, 3):
            difference = correlate1d(difference, taps, axis=axis, mode="nearest")
    expected = image.double().numpy() + difference
    np.testing.assert_allclose(wavelet_colour(image, like=like).numpy(), expected, atol=1e-6)


def test_wavelet_colour_moves_a_tint_and_keeps_the_details(pair):
    image, _ = pair
    tinted = image + torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1)
    torch.testing.assert_close(wavelet_colour(tinted, like=image), image)
    torch.testing.assert_close(wavelet_colour(image, like=image), image)


def test_wavelet_colour_works_on_pictures_smaller_than_its_widest_blur():
    torch.testing.assert_close(
        wavelet_colour(torch.zeros(1, 3, 1, 1), like=torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1)
    )


def test_adain_gives_each_channel_of_each_picture_the_moments_of_the_other(pair):
    image, like = pair
    moved = adain_colour(image, like=like)
    torch.testing.assert_close(moved.mean((2, 3)), like.mean((2, 3)))
    torch.testing.assert_close(moved.std((2, 3)), like.std((2, 3)), rtol=1e-3, atol=0)
    torch.testing.assert_close(adain_colour(image * 0.5 + 0.2, like=image), image, rtol=0, atol=1e-3)


def test_adain_gives_a_flat_picture_the_mean_of_the_other(pair):
    _, like = pair
    flat = adain_colour(torch.full_like(like, 0.3), like=like)
    torch.testing.assert_close(flat, like.mean((2, 3), keepdim=True).expand_as(like))
