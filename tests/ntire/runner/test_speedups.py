import copy
import json
import math

import pytest
import torch
from torch import nn

from ntire import UserError
from ntire.method import Method, catalogue
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import find_inputs, run
from ntire.runner.speedups import compare, speed_up
from tests.made import scene, write_png


class Small(Method):
    team, track, cite = "Small", "srgb", "raim2025"
    tiling, halo, stride = "exact", 2, 1

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, lq):
        return lq + self.body(lq)


@pytest.fixture
def method():
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


def test_the_effect_is_measured_in_decibels_levels_and_changed_values():
    exact = torch.full((3, 10, 10), 0.5)
    found = exact.clone()
    found[0, 0, 0] += 0.1
    effect = compare(found, exact, ("bf16",), "a")
    assert effect.psnr_db == pytest.approx(-10 * math.log10(0.1**2 / 300), abs=1e-4)
    assert effect.changed == pytest.approx(1 / 300)
    assert effect.largest_levels == pytest.approx(25.5, rel=1e-5)
    same = compare(exact, exact, ("compile",), "a")
    assert (same.psnr_db, same.changed, same.largest_levels) == (None, 0, 0)
    assert "equal to fp32 eager on a" in str(same)


def test_channels_last_changes_the_layout_and_hardly_a_bit(method):
    plain = copy.deepcopy(method)
    speed_up(method, Options(channels_last=True))
    seen = []
    method.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lq = torch.rand(3, 40, 56)
    assert torch.allclose(method.in_tiles(lq), plain.in_tiles(lq), atol=1e-5)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert method.body[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_compiling_goes_through_pytorch_and_gives_the_same_picture(method, monkeypatch):
    asked = []
    plain = copy.deepcopy(method)

    def compiled(module, **words):
        # Inductor takes a minute to start: the simplest of PyTorch's compilers shows that the way is there.
        asked.append(words)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager", **words)

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    speed_up(method, Options(compiled=True))
    assert asked == [{"dynamic": False}]
    method.execution.tile, method.execution.same_size = 16, True
    lq = torch.rand(3, 40, 56)
    with torch.no_grad():
        assert torch.allclose(method.in_tiles(lq), plain.in_tiles(lq), atol=1e-6)


def test_cuda_graphs_need_cuda(method):
    with pytest.raises(UserError, match="--cuda-graphs: expected a CUDA device, found cpu"):
        speed_up(method, Options(cuda_graphs=True))


@pytest.fixture
def inputs(tmp_path):
    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", scene(64, 72, seed=number))
    return tmp_path / "in"


def restored(inputs, out, **chosen):
    options = Options(**chosen)
    method = prepare(catalogue.find("MiAlgo", "srgb"), options)
    return run(method, find_inputs([inputs], "srgb"), out, "raim-2025-srgb")


def test_a_run_says_what_its_precision_costs_and_an_exact_one_says_nothing(inputs, tmp_path):
    assert restored(inputs, tmp_path / "exact").effect is None
    half = restored(inputs, tmp_path / "half", precision="bf16")
    assert half.effect.of == ("bf16",)
    assert half.effect.image == "0"
    assert 35 < half.effect.psnr_db < 75
    assert 0 < half.effect.changed < 0.6
    layout = restored(inputs, tmp_path / "layout", channels_last=True)
    assert layout.effect.of == ("channels-last",)
    assert layout.effect.psnr_db is None or layout.effect.psnr_db > 100


def test_what_may_change_a_byte_is_another_run(inputs, tmp_path):
    restored(inputs, tmp_path / "out", channels_last=True)
    header = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert header["inexact"] == ["channels-last"]
    with pytest.raises(UserError, match="inexact"):
        restored(inputs, tmp_path / "out")


def test_the_command_line_prints_stages_and_effect(ntire, inputs):
    words = ("run", "--team", "MiAlgo", "--track", "srgb", inputs, "--device", "cpu,cpu", "--channels-last")
    ran = ntire(*words)
    assert "the bottleneck is" in ran.out
    assert "channels-last: " in ran.out
    assert "to fp32 eager on " in ran.out
    told = ntire(*words, "--fresh", "--json").json()
    assert [stage["name"] for stage in told["stages"]] == ["read", "restore", "write"]
    assert told["bottleneck"] in ("read", "restore", "write")
    assert told["effect"]["of"] == ["channels-last"]
    assert told["computed"] == len(told["images"]) == 3
    again = ntire(*words, "--json").json()
    assert (again["computed"], again["bottleneck"], again["effect"]) == (0, None, None)
    assert ntire(*words, "--cuda-graphs", "--fresh").code == 2
