"""Bicubic as MATLAB has it, against Pillow, which has the same kernel and widens it alike but ends pictures another way."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from ntire.picture.resize import resized

SCALES = [2, 3, 4, Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(3, 2)]


def by_pillow(pixels, scale, kernel):
    """On a picture that is continued by reflection, edge repeated, farther than any kernel reaches."""
    margin = 24
    wide = np.pad(pixels, margin, mode="symmetric")
    size = (int(wide.shape[1] * scale), int(wide.shape[0] * scale))
    made = np.asarray(Image.fromarray(wide, mode="F").resize(size, kernel))
    cut = int(margin * scale)
    return made[cut:-cut, cut:-cut]


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize(("kernel", "theirs"), [("bicubic", Image.BICUBIC), ("lanczos3", Image.LANCZOS)])
def test_it_is_an_independent_implementations_result_also_at_the_border(scale, kernel, theirs):
    pixels = np.random.default_rng(0).random((24, 36), dtype=np.float32)
    ours = resized(torch.from_numpy(pixels), scale, kernel).numpy()
    expected = by_pillow(pixels, scale, theirs)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 1e-6


def test_its_weights_are_those_that_the_formula_gives_by_hand():
    # At x2, output 10 lies at 4.75 of the input and output 11 at 5.25; of their four pixels the step has one and two.
    step = torch.zeros(1, 12)
    step[:, 6:] = 1
    found = resized(step.expand(4, 12), 2)[4]
    far, near, farthest = (keys(x) for x in (1.25, 0.75, 1.75))
    assert found[10].item() == pytest.approx(far, abs=1e-7)
    assert found[11].item() == pytest.approx(near + farthest, abs=1e-7)


def keys(x):
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2


def test_a_side_that_is_no_multiple_is_rounded_up_and_keeps_the_ratio():
    pixels = torch.rand(3, 41, 30)
    small = resized(pixels, Fraction(1, 4))
    assert small.shape == (3, 11, 8)
    assert torch.equal(small[:, :8], resized(pixels[:, :40], Fraction(1, 4))[:, :8]), (
        "the first rows know nothing of the last"
    )
