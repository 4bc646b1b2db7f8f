"""A method is built without drawing what its files fill, and keeps what no file fills."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ntire import UserError
from ntire.method import Method
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.runner.prepare import Options, prepare


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
    made = prepare(Partly, Options()).method
    assert (draws, Partly.built) == ([], 1)
    for name, value in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], value), name


def test_what_no_file_fills_is_what_it_is_built_with(ship):
    expected = nn.Conv2d(3, 4, 3)
    ship(expected, into="filled")
    made = prepare(Partly, Options()).method
    assert torch.equal(made.filled.weight, expected.weight)
    bound = 1 / 36**0.5
    assert 0.5 * bound < made.kept.weight.abs().max() <= bound
    assert made.kept.weight.std() > 0.3 * bound


class InTurns(nn.Module):
    """A base and what is added to it, each of which a file of its own fills."""

    def __init__(self):
        super().__init__()
        self.base, self.added = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def take(self, path, prefix):
        fill(self, self.state_dict() | read_state_dict(path, prefix), path)


class Wrapped(Partly, abstract=True):
    def __init__(self):
        nn.Module.__init__(self)
        type(self).built += 1
        self.part = InTurns()


def test_two_files_fill_one_part_in_turns(monkeypatch, tmp_path):
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path))
    expected = InTurns().state_dict()
    files = []
    for name in ("base", "added"):
        save_file(
            {key: value for key, value in expected.items() if key.startswith(name)}, tmp_path / f"{name}.safetensors"
        )
        files.append(Weights(f"{name}.safetensors", None, "none", "official", into="part"))
    monkeypatch.setattr(Wrapped, "weights", tuple(files))
    monkeypatch.setattr(Wrapped, "built", 0)
    made = prepare(Wrapped, Options()).method
    assert Wrapped.built == 1
    for name, value in made.part.state_dict().items():
        assert torch.equal(value, expected[name]), name
    damaged = {name: value.fill_(torch.nan) for name, value in expected.items() if name.startswith("added")}
    save_file(damaged, tmp_path / "added.safetensors")
    with pytest.raises(UserError, match="added.bias: contains NaN or infinity"):
        prepare(Wrapped, Options())


class Taken(Method, abstract=True):
    team, track, cite, tiling, halo, stride = "Taken", "srgb", "raim2025", "exact", 1, 1

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def test_a_parameter_with_the_name_of_a_fact_is_told_and_the_way_out():
    with pytest.raises(UserError, match=r"Taken: attribute 'scale' already exists in every Method.*self\.net"):
        prepare(Taken, Options())
