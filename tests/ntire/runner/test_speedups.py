import contextlib
import copy
import json
import math
import threading
import time

import pytest
import torch
from torch import nn

from ntire import UserError
from ntire.method import Method, catalogue
from ntire.method.state_dict import read_state_dict
from ntire.method.weights_files import locate
from ntire.runner import device_worker, speedups
from ntire.runner.prepare import Options, Prepared, prepare
from ntire.runner.runner import find_inputs, run
from ntire.runner.speedups import Compiled, Graphed, compare, measure, speed_up, told
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


@pytest.mark.parametrize("team", ["MiAlgo", "TongJi-IPOE"])
def test_a_layout_for_the_cpu_changes_hardly_a_bit_and_none_between_tiles_and_whole(team):
    kind = catalogue.find(team, "srgb")
    laid_out = prepare(kind, Options()).method
    assert laid_out.execution.memory_format == torch.channels_last
    lq = torch.rand(3, 200, 260)
    whole = laid_out.in_tiles(lq)
    laid_out.tile = 96
    assert torch.equal(laid_out.in_tiles(lq), whole)
    plain = kind().eval().requires_grad_(False)
    plain.load_state_dict({name: value for one in kind.weights for name, value in read_of(one, kind).items()})
    assert torch.allclose(plain.in_tiles(lq), whole, atol=2e-6)


def read_of(weights, kind):
    path, _ = locate(weights, catalogue.folder_of(kind))
    return read_state_dict(path)


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


@pytest.fixture
def compiler(monkeypatch):
    """PyTorch's simplest compiler, as Inductor takes a minute to start; returns what was asked for."""
    asked, own = [], torch.compile

    def compiled(module, **words):
        asked.append(words)
        return own(module, backend="eager", **words)

    monkeypatch.setattr(torch, "compile", compiled)
    return asked


def test_compiling_goes_through_pytorch_and_gives_the_same_picture(method, compiler):
    plain = copy.deepcopy(method)
    speed_up(method, Options(compiled=True))
    assert compiler == [{"dynamic": False}]
    method.execution.tile, method.execution.same_size = 16, True
    lq = torch.rand(3, 40, 56)
    with torch.no_grad():
        assert torch.allclose(method.in_tiles(lq), plain.in_tiles(lq), atol=1e-6)
    assert told(method.execution.network) == ()


def test_beyond_the_sizes_that_pytorch_compiles_for_a_network_runs_as_it_is_and_says_so(method, compiler, monkeypatch):
    monkeypatch.setattr(speedups, "COMPILED", 2)
    network = Compiled(method)
    with torch.no_grad():
        for side in (8, 9, 10, 8):
            lq = torch.rand(1, 3, side, 12)
            assert torch.allclose(network(lq), method(lq), atol=1e-6)
    assert network.told() == ("not compiled for 10 x 12, as 2 other sizes are",)
    assert network.told() == ()


def test_what_cannot_be_compiled_runs_as_it_is_and_says_why_but_a_failing_network_fails(method, monkeypatch):
    calls = []

    def refuses(graph, example):
        calls.append(1)
        raise ValueError("no C++ compiler")

    own = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **words: own(module, backend=refuses, **words))
    network = Compiled(method)
    lq = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(network(lq), method(lq))
        network(lq)
    (news,) = network.told()
    assert "not compiled for 8 x 12, as the compiler failed" in news
    assert "no C++ compiler" in news
    assert len(calls) == 1
    method.forward = lambda lq: lq.view(7)
    with pytest.raises(RuntimeError, match="invalid for input"):
        network(torch.rand(1, 3, 9, 12))


class FakeCuda:
    """Stands for CUDA's streams, graphs and statistics on the host; writes down who records where."""

    def __init__(self, monkeypatch):
        self.recordings, self.at_once, self.most_at_once, self.lock = [], 0, 0, threading.Lock()
        self.devices = threading.local()
        fake = self

        class Stream:
            def __init__(self, device):
                self.device = device

            def wait_stream(self, other):
                pass

        class Graph:
            def replay(self):
                self.replayed = True

            def pool(self):
                return (1, 2)

        @contextlib.contextmanager
        def record(graph, pool=None, stream=None, capture_error_mode="global"):
            with fake.lock:
                fake.at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake.at_once)
            time.sleep(0.02)
            fake.recordings.append((stream.device, fake.devices.now, pool, capture_error_mode))
            yield
            with fake.lock:
                fake.at_once -= 1

        @contextlib.contextmanager
        def device(one):
            fake.devices.now = one
            yield

        for name, value in {
            "Stream": Stream, "CUDAGraph": Graph, "graph": record, "device": device,
            "stream": lambda stream: contextlib.nullcontext(), "current_stream": Stream,
            "memory_allocated": lambda device: 100, "max_memory_allocated": lambda device: 350,
            "reset_peak_memory_stats": lambda device: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)


def test_graphs_are_recorded_one_at_a_time_each_on_a_stream_of_the_device_of_its_pictures(method, monkeypatch):
    cuda = FakeCuda(monkeypatch)
    devices = [torch.device("cpu"), torch.device("meta")]
    networks = [Graphed(copy.deepcopy(method).to(device)) for device in devices]

    def work(network, device):
        with torch.no_grad():
            for side in (8, 9):
                network(torch.rand(1, 3, side, 12, device=device))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(networks, devices, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cuda.most_at_once == 1
    assert sorted((str(on), str(current)) for on, current, _, _ in cuda.recordings) == [
        ("cpu", "cpu"), ("cpu", "cpu"), ("meta", "meta"), ("meta", "meta"),
    ]  # fmt: skip
    # The first recording of a network makes the pool that its others share.
    assert sorted(str(pool) for _, _, pool, _ in cuda.recordings) == ["(1, 2)", "(1, 2)", "None", "None"]
    assert {network.bytes for network in networks} == {250}


def test_beyond_the_graphs_that_are_kept_a_network_runs_without_and_says_so(method, monkeypatch):
    FakeCuda(monkeypatch)
    monkeypatch.setattr(speedups, "RECORDED", 1)
    network = Graphed(method)
    with torch.no_grad():
        network(torch.rand(1, 3, 8, 12))
        lq = torch.rand(1, 3, 9, 12)
        assert torch.equal(network(lq), method(lq))
    assert told(network) == ("no CUDA graph for 9 x 12, as 1 other sizes have one",)


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


def test_the_exact_twin_keeps_to_the_limit_of_memory_and_has_the_device_for_itself(method, monkeypatch):
    log = []

    @contextlib.contextmanager
    def making_room():
        log.append("away")
        yield
        log.append("back")

    method.execution.making_room = making_room
    asked = []

    def prepared(kind, options):
        asked.append(options)
        return Prepared(copy.deepcopy(method), options, None, ())

    monkeypatch.setattr(speedups, "prepare", prepared)

    def restored_by(one):
        log.append("itself" if one is method else "exactly")
        return torch.full((3, 4, 4), 0.5)

    measure(method, Options(precision="bf16", max_memory_gb=8, settings=(("a", "b"),)), restored_by, "a")
    assert log == ["away", "exactly", "back", "itself"]
    assert asked == [Options(device="cpu", max_memory_gb=8, settings=(("a", "b"),))]


def test_an_effect_that_cannot_be_measured_is_a_note_and_the_pictures_are_restored(inputs, tmp_path, monkeypatch):
    tried = []

    def has_no_room(*_):
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_worker, "measure", has_no_room)
    summary = restored(inputs, tmp_path / "half", precision="bf16")
    assert [result.status for result in summary.results] == ["done"] * 3
    (note,) = summary.results[0].notes
    assert note.startswith("what bf16 changes was not measured: out of memory on the device")
    assert not summary.results[1].notes
    assert len(tried) == 1


@pytest.mark.parametrize("chosen", [{"compiled": True}, {"cuda_graphs": True}, {"compiled": True, "cuda_graphs": True}])
def test_what_remembers_where_weights_lie_does_not_go_with_weights_that_move(chosen):
    with pytest.raises(UserError, match="--max-memory moves weights about, which --c.* cannot follow"):
        prepare(catalogue.find("MiAlgo", "srgb"), Options(device="cuda", max_memory_gb=1, **chosen))


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDA error: out of memory", False),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", False),
    ],
)
def test_a_device_without_memory_is_not_lost(message, lost):
    for kind in (RuntimeError, torch.AcceleratorError):
        assert device_worker._lost(kind(message)) is lost
        assert device_worker.why(kind(message)).startswith("out of memory") is not lost
