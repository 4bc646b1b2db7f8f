import pickle
import struct
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ntire import UserError
from ntire.method.checkpoints import read_state_dict
from ntire.method.state_dict import fill
from ntire.method.weights_files import Weights, verify


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def filled_from(checkpoint, tmp_path, network=None):
    """A new network, filled from what torch saved."""
    torch.save(checkpoint, tmp_path / "net.pth")
    target = network or Network()
    notes = fill(target, read_state_dict(tmp_path / "net.pth"), tmp_path / "net.pth")
    return target, " ".join(notes)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed("module.", state),
        lambda state: prefixed("_orig_mod.module.", state),
        lambda state: {name.replace("body.", "body._orig_mod."): value for name, value in state.items()},
        lambda state: {"params": prefixed("module.", state)},
        lambda state: {"state_dict": prefixed("model.", state), "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"net": state},
        lambda state: {"my_generator": state, "lr": 0.1},
        lambda state: {
            "state_dict": {**prefixed("net_g.", state), "net_d.weight": torch.ones(2), "loss.w": torch.ones(1)}
        },
        lambda state: {"ema": {"state_dict": prefixed("module.", state)}},
        lambda state: {**state, "epoch": 7},
    ],
)
def test_whatever_a_training_program_wrapped_around_a_network_is_taken_off(wrap, tmp_path):
    trained = Network()
    found, _ = filled_from(wrap(trained.state_dict()), tmp_path)
    assert same(trained, found)


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("params", "params_ema"),
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("g", "g_ema"),
        ("net", "ema"),
    ],
)
def test_averaged_weights_are_taken_and_that_is_said(raw, averaged, tmp_path, caplog):
    first, ema = Network(), Network()
    found, note = filled_from({raw: first.state_dict(), averaged: ema.state_dict()}, tmp_path)
    assert same(ema, found)
    if raw != "g":  # a name that nobody knows is no rival
        assert f"{averaged} taken (averaged weights), not {raw}" in note
        assert note in caplog.text


def test_averaged_weights_side_by_side_with_others_under_a_prefix_are_taken_and_that_is_said(tmp_path):
    first, ema = Network(), Network()
    states = prefixed("online_model.", first.state_dict()) | prefixed("ema_model.", ema.state_dict())
    found, note = filled_from(states, tmp_path)
    assert same(ema, found)
    assert "ema_model. taken rather than online_model." in note


def test_weights_averaged_by_pytorch_lose_their_wrapper_and_count(tmp_path):
    averaged = AveragedModel(Network())
    found, _ = filled_from(averaged.state_dict(), tmp_path)
    assert same(averaged.module, found)


def test_of_two_networks_alike_none_is_guessed_and_both_are_named(tmp_path):
    states = prefixed("net_a.", Network().state_dict()) | prefixed("net_b.", Network().state_dict())
    with pytest.raises(UserError, match=r"(?s)missing first.weight.*The file holds net_a.first.weight \(4, 3, 3, 3\)"):
        filled_from(states, tmp_path)
    with pytest.raises(UserError, match=r"It holds one \(9: first.weight .*two \(9: "):
        filled_from({"one": Network().state_dict(), "two": Network().state_dict()}, tmp_path)


def test_one_missing_tensor_under_a_prefix_is_the_only_difference_told(tmp_path):
    state = prefixed("module.net_g.", Network().state_dict())
    del state["module.net_g.first.bias"]
    with pytest.raises(UserError, match=r"1 difference\(s\):\n  missing first.bias"):
        filled_from(state, tmp_path)


def test_a_network_of_its_own_name_takes_a_bare_file(tmp_path):
    class Method(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Network()

    trained = Network()
    found, _ = filled_from(trained.state_dict(), tmp_path, Method())
    assert same(trained, found.net)


def test_files_are_told_by_content_whatever_their_suffix(tmp_path):
    state = Network().state_dict()
    save_file(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    for path in (tmp_path / name for name in ("a.pth", "b.safetensors", "c.bin")):
        found = read_state_dict(path)
        assert all(torch.equal(found[name], value) for name, value in state.items()), path


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 174654321\n"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.safetensors", POINTER, r"a Git LFS pointer of 74 bytes.*174654321.*git lfs pull"),
        ("b.pth", b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded", "a web page"),
        ("c.pth", b"\n<html>", "a web page"),
        ("d.pth", b"", "an empty file"),
        ("e.ckpt", b"Not Found", "text that begins with 'Not Found'"),
        ("f.pt", b"\x1f\x8b\x08\x00abc", "a gzip archive"),
        ("g.safetensors", struct.pack("<Q", 5000) + b'{"a":', "not a whole weights file"),
        ("h.pth", pickle.dumps([1])[:9], "not a whole weights file"),
    ],
)
def test_a_file_that_holds_no_weights_is_called_what_it_is(name, data, words, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
        read_state_dict(tmp_path / name)


def test_archives_that_are_not_pytorchs_are_called_what_they_are(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, that such programs are going out of use
        torch.jit.script(nn.ReLU()).save(str(tmp_path / "program.pt"))
    with pytest.raises(UserError, match="TorchScript program"):
        read_state_dict(tmp_path / "program.pt")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w") as archive:
        archive.writestr("inside/net.pth", "x")
    with pytest.raises(UserError, match="ZIP archive of inside/net.pth: unpack it"):
        read_state_dict(tmp_path / "packed.pth")


def test_a_wrong_hash_says_that_the_file_is_a_pointer(tmp_path):
    (tmp_path / "net.pth").write_bytes(POINTER)
    with pytest.raises(UserError, match="a Git LFS pointer"):
        verify(Weights("net.pth", "0" * 64, "MIT", "official"), tmp_path / "net.pth")


def test_what_is_there_is_named_when_nothing_fits(tmp_path):
    torch.save({"epoch": 3, "history": {"loss": [1.0]}}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"It holds epoch \(int\); history \(1: loss \(list\)\)"):
        read_state_dict(tmp_path / "net.pth")
