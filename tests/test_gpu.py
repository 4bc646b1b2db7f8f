"""What a CUDA device must give as well: the same pictures as the CPU, in tiles and in half precision, and training."""

import math

import pytest
import torch

from ntire import catalogue
from ntire.degradations import SrgbDegradation
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
