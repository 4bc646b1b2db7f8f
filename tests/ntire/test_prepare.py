"""A method is built without drawing what its files fill, and keeps what no file fills."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ntire.method import Method
from ntire.prepare import Options, prepare
from ntire.weights import Weights


class Partly(Method, abstract=True):
    """Of two layers, a file fills one."""

    team, track, cite, tiling, halo, stride = "Partly", "srgb", "raim2025", "exact", 1, 1
    built = 0

    def __init__(self):
        super().__init__()
        type(self).built += 1
        self.filled, self.kept = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)


@pytest.fixture
def ship(monkeypatch, tmp_path):
    """Write the weights of a part of the method, the whole by default."""

    def write(network, into=""):
        monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path))
        save_file(network.state_dict(), tmp_path / "partly.safetensors")
        monkeypatch.setattr(Partly, "weights", (Weights("partly.safetensors", None, "none", "official", into=into),))
        monkeypatch.setattr(Partly, "built", 0)

    return write


def test_what_the_files_fill_is_never_drawn(ship, monkeypatch):
    expected = Partly()
    ship(expected)
    draws = []
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, *given, **named: draws.append(tensor.shape) or tensor)
    made = prepare(Partly, Options())
    assert (draws, Partly.built) == ([], 1)
    for name, value in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


def test_what_no_file_fills_is_what_it_is_built_with(ship):
    expected = nn.Conv2d(3, 4, 3)
    ship(expected, into="filled")
    made = prepare(Partly, Options())
    assert torch.equal(made.filled.weight, expected.weight)
    bound = 1 / 36**0.5
    assert 0.5 * bound < made.kept.weight.abs().max() <= bound
    assert made.kept.weight.std() > 0.3 * bound
