"""What a CUDA device must give as well: the same pictures as the CPU, in tiles and in half precision, and training."""

import math

import numpy as np
import pytest
import torch

from ntire.benchmark.traffic import CCM
from ntire.method import catalogue
from ntire.picture import levels
from ntire.picture.degradations import SrgbDegradation
from ntire.picture.image import Rounding, as_image, read_pixels
from ntire.picture.raw import RawFrame
from ntire.runner.memory_plan import WORKSPACE, footprint
from ntire.runner.pinned_ring import PinnedRing
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import Input, find_inputs, run
from ntire.runner.speedups import RECORDED
from ntire.training import Recipe, Stage
from ntire.training.discriminator import UNetDiscriminator
from ntire.training.loop import Settings, train
from ntire.training.losses import Aids
from tests.made import scene, write_png

pytestmark = pytest.mark.gpu
METHODS = catalogue.methods()


@pytest.fixture(params=METHODS, ids=lambda method: f"{method.track}-{method.team}-{method.variant}".strip("-"))
def method(request):
    torch.manual_seed(1)
    return request.param(**request.param.tiny).eval().requires_grad_(False)


def psnr(a, b):
    error = float((a.double() - b.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def test_it_restores_as_the_cpu_does(method):
    lq = torch.rand(method.lq_channels(), 2 * max(method.stride, 32), 3 * max(method.stride, 32))
    on_cpu = method.in_tiles(lq)
    method.cuda()
    whole = method.in_tiles(lq)
    assert whole.is_cuda
    assert psnr(whole.cpu(), on_cpu) > 60
    assert torch.equal(method.in_tiles(lq), whole)
    assert psnr(method.bfloat16().in_tiles(lq).cpu().clamp(0, 1), on_cpu.clamp(0, 1)) > method.bf16_psnr_db


def test_exact_tiles_agree_with_the_whole(method):
    if method.tiling != "exact":
        pytest.skip("its tiles are an approximation or its own")
    method.cuda()
    lq = torch.rand(method.lq_channels(), 48 * method.stride, 40 * method.stride)
    whole = method.in_tiles(lq)
    method.tile = 16 * method.stride
    assert torch.allclose(method.in_tiles(lq), whole, atol=1e-4)


def picture_on_disk(folder, count, height=512, width=640):
    for number in range(count):
        write_png(folder / f"{number:02}.png", scene(height, width, seed=number))
    return find_inputs([folder], "srgb")


def run_on(device, inputs, out, **chosen):
    options = Options(device=device, **chosen)
    method = prepare(catalogue.find("MiAlgo", "srgb"), options)
    return run(method, inputs, out, "raim-2025-srgb")


def levels_apart(one, two):
    pairs = [(read_pixels(path), read_pixels(two / path.relative_to(one))) for path in sorted(one.rglob("*.png"))]
    assert pairs
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs)


@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_through_pinned_memory_and_streams_are_those_of_the_cpu(tmp_path, bits):
    inputs = picture_on_disk(tmp_path / "in", 8)
    summary = run_on("cuda", inputs, tmp_path / "gpu", bits=bits)
    assert not summary.failed
    assert all(result.seconds > 0 and result.peak_memory_mb > 0 for result in summary.results)
    run_on("cpu", inputs, tmp_path / "cpu", bits=bits)
    assert levels_apart(tmp_path / "gpu", tmp_path / "cpu") <= (1 if bits == 8 else 8)


def test_integers_become_the_same_floats_as_on_the_host():
    for dtype, top in ((torch.uint8, 256), (torch.uint16, 65536)):
        levels = torch.arange(top, dtype=torch.int32).to(dtype).reshape(1, 16, -1)
        on_gpu = as_image(levels.cuda())
        assert torch.equal(on_gpu.cpu(), as_image(levels))
        rounding = Rounding(8 if top == 256 else 16)
        assert torch.equal(rounding(on_gpu).cpu(), levels)
        assert bool(rounding.finite)


def test_one_pass_each_way_gives_the_bits_of_the_steps():
    assert levels.told(torch.device("cuda")) == ()
    given = torch.randint(0, 256, (2, 61, 47, 3), dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        image = levels.entered(given, dtype, torch.channels_last)
        assert torch.equal(image, levels.values_of(given).to(dtype))
    samples = torch.randint(0, 1024, (1, 23, 18), device="cuda").to(torch.uint16)
    how = ((64.0, 63.5, 64.25, 65.0), 1015.3, (2.1, 1.0, 1.0, 1.7), (1, 1))
    assert torch.equal(levels.entered_mosaic(samples, *how, torch.float32), levels.balanced(samples, *how))
    image = 1.4 * torch.rand(3, 301, 203, device="cuda") - 0.2
    for bits in (8, 16):
        finite = torch.ones((), dtype=torch.bool, device="cuda")
        assert torch.equal(levels.left(image, bits, finite).int(), levels.levels_of(image, bits).int())
        assert bool(finite)
        coloured = levels.left(image, bits, finite, CCM).int() - levels.levels_of(image, bits, CCM).int()
        assert coloured.abs().max() <= 1
    image[1, 7, 9] = math.nan
    levels.left(image, 8, finite)
    assert not bool(finite)


def test_the_ring_of_pinned_memory_is_pinned():
    found = PinnedRing(1 << 20).take(torch.empty(3, 5, dtype=torch.uint8))
    assert found.is_pinned()


def test_two_workers_on_one_gpu_give_the_same_bytes(tmp_path):
    inputs = picture_on_disk(tmp_path / "in", 10)
    run_on("cuda", inputs, tmp_path / "one")
    run_on("cuda:0,cuda:0", inputs, tmp_path / "two")
    assert levels_apart(tmp_path / "one", tmp_path / "two") == 0


def test_real_lack_of_memory_shrinks_the_tiles_and_leaves_no_pixel_wrong(tmp_path):
    method = catalogue.find("MiAlgo", "srgb")().eval().requires_grad_(False).cuda()
    lq = torch.rand(3, 2048, 2048, device="cuda")
    whole = method.in_tiles(lq)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        # Room for tiles of about 1024, not for the whole.
        torch.cuda.set_per_process_memory_fraction((used + 400 * 2**20) / total)
        pieces = method.in_tiles(lq)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert method.tile is not None
    assert torch.allclose(pieces, whole, atol=1e-4)


def test_the_memory_plan_is_what_the_device_sees():
    method = catalogue.find("MiAlgo", "srgb")().eval().requires_grad_(False).cuda()
    lq = torch.rand(1, 3, 1024, 1024, device="cuda")
    with torch.no_grad():
        method(lq)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - lq.nbytes
        method(lq)
    observed = torch.cuda.max_memory_allocated() - before
    assert 0.8 <= WORKSPACE * footprint(type(method), torch.float32, 1024, 1024).bytes / observed <= 1.35


def test_cuda_graphs_replay_the_same_pixels_for_every_size_and_past_the_last_that_is_kept(tmp_path):
    for number in range(RECORDED + 2):
        write_png(tmp_path / "in" / f"{number}.png", scene(200 + 16 * number, 304, seed=number))
    inputs = 2 * find_inputs([tmp_path / "in"], "srgb")
    inputs = [Input(item.path, f"{place:02}") for place, item in enumerate(inputs)]
    plain = run_on("cuda", inputs, tmp_path / "plain", tile=128)
    fast = run_on("cuda", inputs, tmp_path / "fast", tile=128, cuda_graphs=True)
    assert not plain.failed + fast.failed
    assert levels_apart(tmp_path / "plain", tmp_path / "fast") <= 1
    assert fast.effect is not None
    assert fast.effect.of == ("cuda-graphs",)


def test_graphs_of_two_devices_are_each_of_its_own(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    inputs = picture_on_disk(tmp_path / "in", 10)
    plain = run_on("cuda:0", inputs, tmp_path / "plain", tile=256)
    fast = run_on("cuda:0,cuda:1", inputs, tmp_path / "fast", tile=256, cuda_graphs=True)
    assert not plain.failed + fast.failed
    assert levels_apart(tmp_path / "plain", tmp_path / "fast") <= 1


def test_a_raw_frame_with_colours_to_correct_is_that_of_the_cpu_in_tiles_and_blended():
    samples = (torch.rand(1, 250, 310) * 1023).to(torch.int32).to(torch.uint16)
    frame = RawFrame(samples, "GRBG", (2.0, 1.0, 1.6), CCM, None, None, (), (64.0,) * 4, 1023.0)
    for team in ("MiAlgo", "TongJi-IPOE"):
        kind = catalogue.find(team, "raw")
        torch.manual_seed(1)
        method = kind(**kind.tiny).eval().requires_grad_(False)
        method.tile = 64
        on_cpu = method.enhance(frame)
        assert psnr(method.cuda().enhance(frame).cpu(), on_cpu) > 55


def test_half_precision_under_a_limit_of_memory_is_measured_against_an_exact_method_under_it(tmp_path):
    inputs = picture_on_disk(tmp_path / "in", 2)
    sizes = [sum(value.nbytes for value in part.parameters()) for part in catalogue.find("MiAlgo", "srgb")().children()]
    summary = run_on("cuda", inputs, tmp_path / "out", precision="bf16", max_memory_gb=1.2 * max(sizes) / 1e9)
    assert not summary.failed
    assert summary.effect is not None
    assert summary.effect.psnr_db > 40


def test_a_graph_counts_the_memory_that_its_replays_use(tmp_path):
    inputs = picture_on_disk(tmp_path / "in", 3)
    plain = run_on("cuda", inputs, tmp_path / "plain")
    fast = run_on("cuda", inputs, tmp_path / "fast", cuda_graphs=True)
    assert fast.results[-1].peak_memory_mb > 0.5 * plain.results[-1].peak_memory_mb


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_trains_with_an_opponent_in_every_precision(tmp_path, precision):
    for number in range(4):
        write_png(tmp_path / "clean" / f"{number}.png", scene(64, 64, seed=number))
    recipe = Recipe(
        degradation=SrgbDegradation(),
        stages=(Stage("gan", 20, patch=32, batch=4, lr=2e-3, lr_end=1e-3, losses={"l1": 1.0, "gan": 0.01}),),
        source="made for tests",
    )
    torch.manual_seed(0)
    steps = []
    settings = Settings(data=tmp_path / "clean", out=tmp_path / "out", device="cuda", precision=precision, held_out=1)
    network = catalogue.find("TongJi-IPOE", "srgb")(width=4)
    train(network, recipe, settings, steps.append, Aids(opponents={"gan": UNetDiscriminator(8)}))
    assert sum(step.loss for step in steps[-5:]) < sum(step.loss for step in steps[:5])
