import pytest
import torch
from torch import nn

from ntire.method import Method
from ntire.method.receptive_field import reach_of, seam_error

ROUNDING = 1e-3
"""Levels of 255: a library may sum a small tile in another order."""


def method(net, tiling_="exact", halo_=8, stride_=1):
    class Probed(Method):
        team, track, cite = "Probed", "srgb", "raim2025"
        tiling, halo, stride = tiling_, halo_, stride_

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, lq):
            return self.net(lq)

    return Probed().eval()


@pytest.mark.parametrize(
    ("net", "reach"),
    [
        (nn.Identity(), 0),
        (nn.Conv2d(3, 3, 7, padding=3), 3),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=2, dilation=2)), 3),
    ],
)
def test_the_reach_of_convolutions_is_their_windows(net, reach):
    assert reach_of(method(net)) == reach


def test_every_position_on_the_grid_counts():
    net = nn.Sequential(nn.Conv2d(3, 3, 4, stride=4), nn.Upsample(scale_factor=4), nn.Conv2d(3, 3, 3, padding=1))
    # A pixel changes its own block of 4, which tiles never cut, and one pixel around it.
    assert reach_of(method(net, stride_=4)) == 1


def test_what_sees_the_whole_image_has_no_reach():
    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean((2, 3), keepdim=True)

    assert reach_of(method(Mean(), "global")) is None
    assert reach_of(method(Mean())) is None


def test_a_halo_that_is_too_small_fails_the_cost_command(ntire, tmp_path):
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "method.py").write_text('''
"""A network that reaches farther than it says."""
from torch import nn
from ntire.method import Method

class Short(Method):
    team = "Short"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 1
    stride = 1

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 5, padding=2)

    def forward(self, lq):
        return self.net(lq)
''')
    ran = ntire("cost", "--team", tmp_path / "short", "--track", "srgb", "--reach")
    assert ran.code == 1
    assert "its halo of 1 is less than its reach" in ran.err


def test_the_image_of_the_probe_leaves_the_random_numbers_alone():
    before = torch.random.get_rng_state()
    reach_of(method(nn.Identity()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tiles_of_a_local_network_change_nothing_and_of_a_global_one_something():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    exact = seam_error(method(net, halo_=2), tile=32)
    assert (exact.tile, exact.height, exact.width) == (32, 80, 80)
    assert exact.max_levels < ROUNDING

    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean((2, 3), keepdim=True)

    seams = seam_error(method(Mean(), "global"), tile=32)
    assert 0 < seams.mean_levels < seams.max_levels
    assert -20 * torch.tensor(seams.max_levels / 255).log10() < seams.psnr_db


def test_a_halo_that_is_too_short_shows_in_the_seams():
    assert seam_error(method(nn.Conv2d(3, 3, 9, padding=4), halo_=1), tile=32).max_levels > 0.1


def test_the_cost_command_tells_how_far_tiles_of_a_size_are_off(ntire):
    found = ntire("cost", "--team", "MiAlgo", "--track", "srgb", "--reach", "--tile", "64", "--json").json()
    assert (found["seams"]["tile"], found["seams"]["height"], found["seams"]["weights"]) == (64, 160, "its own")
    assert found["seams"]["max_levels"] < ROUNDING
