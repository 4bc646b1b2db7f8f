import pytest
import torch
from torch import nn

from ntire.method import Method
from ntire.method.count import count, peak_bytes
from ntire.method.counters import alike


class Facts(Method, abstract=True):
    team = "T"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 1
    stride = 4


class Conv(Facts):
    """One 3 x 3 convolution, 3 -> 3, with bias."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lq):
        return self.conv(lq)


def test_one_convolution_is_counted_by_hand():
    counted = count(Conv, (16, 32))
    assert counted.params_m == pytest.approx(84e-6)
    assert counted.macs_g == pytest.approx(16 * 32 * 3 * 3 * 9 / 1e9)


def test_a_size_off_the_grid_is_counted_as_it_runs():
    assert count(Conv, (13, 30)).macs_g == count(Conv, (16, 32)).macs_g


class Attend(Facts):
    """Attention over pixels: two products of N x N x C."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, lq):
        pixels = lq.flatten(2).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(pixels, pixels, pixels)
        return attended.transpose(1, 2).reshape(lq.shape) * self.gain


def test_attention_counts():
    assert count(Attend, (8, 8)).macs_g == pytest.approx(2 * 64 * 64 * 3 / 1e9)


class Keeps(Facts):
    """Holds five float32 planes of 3 channels at its peak: the input, three sums, and their total."""

    def forward(self, lq):
        kept = [lq + number for number in range(3)]
        total = kept[0] + kept[1]
        del kept
        return total.mul_(2)


def test_peak_memory_is_the_sum_of_what_lives_at_once():
    assert peak_bytes(Keeps(), torch.empty(1, 3, 8, 8, device="meta")) == 5 * 3 * 4 * 64


class Drops(Facts):
    """A chain needs its input, the last value and the next."""

    def forward(self, lq):
        x = lq
        for _ in range(6):
            x = x + 1
        return x


def test_freed_memory_is_used_again():
    assert peak_bytes(Drops(), torch.empty(1, 3, 8, 8, device="meta")) == 3 * 3 * 4 * 64


class Rounds(Conv):
    """Five rounds of three passes."""

    def forward(self, lq):
        for _ in alike(range(5), lq.device):
            for _ in alike(range(3), lq.device):
                lq = super().forward(lq)
        return lq


def test_rounds_that_cost_the_same_are_counted_as_often_as_they_run_and_all_run_on_real_pictures():
    assert count(Rounds, (16, 32)).macs_g == pytest.approx(15 * count(Conv, (16, 32)).macs_g)
    picture, once, again = torch.rand(1, 3, 8, 8), Rounds(), Conv()
    again.load_state_dict(once.state_dict())
    expected = picture
    for _ in range(15):
        expected = again(expected)
    assert torch.equal(once(picture), expected)
