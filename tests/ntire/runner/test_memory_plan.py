import contextlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ntire.method import Method, catalogue
from ntire.method.contract import enhanced
from ntire.picture.tiling import tiled
from ntire.runner import memory_plan as plan
from ntire.runner.device_worker import Decoded, Device, Input, RandomTurns
from ntire.runner.memory_plan import WORKSPACE, Plan, Planner, footprint, memory_need
from ntire.runner.prepare import Options
from ntire.sandbox.scratch import Terminated
from tests.made import scene, write_png


class Whole(Method):
    team, track, cite = "Whole", "srgb", "raim2025"
    tiling, halo, stride = "global", 16, 8

    def forward(self, lq):
        return lq - lq.mean() + torch.cat([lq, lq, lq], 1).mean()


class Local(Whole):
    team, tiling = "Local", "exact"


class FarLocal(Local):
    halo = 104


class Wide(Local):
    """64 channels at full size: 2^31 elements at 33.5 megapixels."""

    def forward(self, lq):
        return lq.repeat(1, 22, 1, 1)[:, :64].mean(1, keepdim=True).expand(-1, 3, -1, -1)


class OverPixels(Whole):
    """Attention over the pixels of a small grid: a map that grows with the square of their number."""

    def forward(self, lq):
        seen = nn.functional.avg_pool2d(lq, 8).flatten(2).transpose(1, 2)
        return lq + (seen @ seen.transpose(1, 2)).softmax(-1).mean()


class Unplannable(Local):
    def forward(self, lq):
        return lq * float(lq.mean())


class Ending(Whole):
    error: BaseException = SystemExit(3)

    def forward(self, lq):
        raise self.error


FRAME = torch.zeros(3, 2000, 3000, dtype=torch.uint8)


def planned(method, budget, **options):
    return Planner(method, Options(**options), budget).plan(FRAME)


def test_a_picture_that_fits_is_not_cut_and_a_larger_one_into_the_largest_tiles_that_do():
    assert planned(Whole(), 10**9) == Plan(None)
    cut = planned(Whole(), 10**8)
    need = footprint(Whole, torch.float32, cut.tile + 32, cut.tile + 32)
    assert 0.7e8 < WORKSPACE * need.bytes <= 1e8
    assert cut.tile % 8 == 0
    assert "slightly" in cut.notes[0]


def test_on_a_cpu_local_networks_that_are_light_take_tiles_of_the_size_of_the_cache():
    assert planned(Local(), 10**9) == Plan(512)
    # A long halo costs more than the cache gives.
    assert planned(FarLocal(), 10**9) == Plan(None)
    assert planned(Local(), 10**6).tile < 512


def test_what_the_user_says_counts():
    assert planned(Local(), 10**9, tile=None) == Plan(None)
    assert planned(Local(), 10**9, tile=96) == Plan(96)
    assert planned(Local(), 10**9, tile=4096) == Plan(None)
    assert "slightly" in planned(Whole(), 10**9, tile=96).notes[0]
    assert planned(Local(), 10**9, tile=96, compiled=True).same_size


def test_no_tensor_reaches_2_to_the_31_elements(monkeypatch):
    monkeypatch.setattr(plan, "CACHE_HALO", -1)
    large = torch.empty(3, 6000, 6000, dtype=torch.uint8, device="meta")
    cut = Planner(Wide(), Options(), 10**15).plan(large)
    assert 64 * (cut.tile + 32) ** 2 < 2**31 < 64 * 6000**2
    assert cut.tile > 5000
    assert Planner(Wide(), Options(), 10**15).plan(FRAME) == Plan(None)


def test_a_network_whose_memory_grows_faster_than_its_picture_is_planned_at_the_size_that_it_gets():
    budget = 10**9
    cut = planned(OverPixels(), budget)
    need = footprint(OverPixels, torch.float32, cut.tile + 32, cut.tile + 32).bytes
    assert 0.5 * budget < WORKSPACE * need <= budget
    # What a small piece needs for each pixel would promise much more.
    small = footprint(OverPixels, torch.float32, 256, 256).bytes / 256**2
    assert small * (cut.tile + 32) ** 2 < 0.3 * budget


def test_a_network_that_cannot_be_planned_says_so():
    cut = planned(Unplannable(), 10**9)
    assert cut.tile == 1024
    assert "cannot be planned" in cut.notes[0]


def test_what_a_network_ends_is_told_and_what_a_signal_ends_is_ended(monkeypatch, tmp_path):
    path = write_png(tmp_path / "a.png", scene(16, 16))
    decoded = Decoded(Input(path, "a"), "0" * 64, torch.zeros(3, 16, 16, dtype=torch.uint8))
    for error, ended in ((SystemExit(3), False), (Terminated(15), True)):
        monkeypatch.setattr(Ending, "error", error)
        with pytest.raises(Terminated) if ended else contextlib.nullcontext():
            assert "cannot be planned" in planned(Ending(), 10**9).notes[0]
        with pytest.raises(Terminated) if ended else contextlib.nullcontext():
            assert memory_need(Ending, Options("cpu"), [path]) == 0
        with pytest.raises(Terminated) if ended else contextlib.nullcontext():
            settled = Device(Ending(), Options("cpu", tile=None), RandomTurns()).restore(decoded)
            assert settled.value.problem == "SystemExit: 3"


def test_after_memory_ran_out_the_next_picture_gets_no_larger_tiles():
    planner = Planner(Local(), Options(tile=512), 10**9)
    first = planner.plan(FRAME)
    assert planner.learn(first, 512) == ()
    assert planner.learn(first, 256) == ("memory ran out with tiles of 512: went on with tiles of 256",)
    assert planner.plan(FRAME).tile == 256
    whole = Planner(Whole(), Options(), 10**9)
    assert "the whole image" in whole.learn(whole.plan(FRAME), 1024)[0]
    assert whole.plan(FRAME).tile == 1024


def test_on_a_gpu_as_many_tiles_of_one_size_go_together_as_fit(monkeypatch):
    monkeypatch.setattr(Local, "device", torch.device("cuda"))
    one = WORKSPACE * footprint(Local, torch.float32, 128 + 32, 128 + 32).bytes
    assert planned(Local(), int(5.5 * one), tile=128) == Plan(128, batch=5, same_size=True)
    assert planned(Local(), int(1.5 * one), tile=128) == Plan(128, batch=1)
    assert planned(Local(), 10**12, tile=128).batch == plan.LARGEST_BATCH
    # However much memory there is, no tensor of a batch may have more elements than can be indexed.
    whole = footprint(Local, torch.float32, 128 + 32, 128 + 32).elements
    monkeypatch.setattr(plan, "LARGEST_TENSOR", 3 * whole)
    assert planned(Local(), 10**12, tile=128).batch == 3


def observed_peak(network, lq):
    """Bytes that the allocator handed out at once, as PyTorch's profiler sees it: the input, and what is not given back."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        network(lq)
    sizes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return lq.nbytes + int(np.cumsum(sizes).max())


def test_a_footprint_that_the_release_does_not_know_is_measured_once_for_all_processes(monkeypatch):
    module, seen = sys.modules["ntire.method.footprint"], []
    measured = module.measured
    monkeypatch.setattr(module, "measured", lambda *asked: seen.append(asked[1:]) or measured(*asked))
    kind = catalogue.find("MiAlgo", "srgb")
    first = footprint(kind, torch.bfloat16, 64, 96)
    for _ in range(2):
        footprint.cache_clear()  # as another process
        assert footprint(kind, torch.bfloat16, 64, 96) == first
    assert footprint(kind, torch.float16, 64, 96) == first
    assert seen == [(torch.bfloat16, 64, 96), (torch.float16, 64, 96)]


def as_it_runs(kind):
    method = kind().eval().requires_grad_(False)
    method.deploy()
    if method.channels_last:
        method.execution.memory_format = torch.channels_last
    return method.to(memory_format=method.execution.memory_format)


@pytest.mark.parametrize(
    ("team", "track", "variant"),
    [("MiAlgo", "srgb", None), ("TongJi-IPOE", "srgb", None), ("NulltoZero", "srgb", None), ("NJUST-KMG", "raw", None)],
)
def test_the_plan_is_what_the_allocator_sees(team, track, variant):
    method = as_it_runs(catalogue.find(team, track, variant))
    lq = torch.rand(1, method.lq_channels(), 256, 320).contiguous(memory_format=method.execution.memory_format)
    expected = footprint(type(method), torch.float32, 256, 320).bytes
    assert 0.8 <= expected / observed_peak(method, lq) <= 1.2


def test_tiles_take_no_more_memory_than_planned_beyond_the_picture_itself():
    method = as_it_runs(catalogue.find("MiAlgo", "srgb"))
    method.tile = 128
    picture = torch.randint(0, 255, (3, 640, 768), dtype=torch.uint8)
    side = 128 + 2 * method.halo
    peak = observed_peak(lambda lq: enhanced(method, lq, lambda piece: (piece * 255).to(torch.uint8)), picture)
    # The picture as integers, in and out; nothing else has its size.
    assert peak - 2 * picture.nbytes <= 1.2 * footprint(type(method), torch.float32, side, side).bytes
    whole = tiled(method, picture.float() / 255, tile=None, halo=0, stride=method.stride)
    assert whole.nbytes > 2 * picture.nbytes
