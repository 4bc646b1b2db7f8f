"""The training losses that are metrics: the scorer's own networks, with gradients."""

import pytest
import torch

from ntire import UserError
from ntire.commands.training import train_method as train
from ntire.method.pyiqa_networks import build
from ntire.training.loop import Settings
from tests.made import scene, write_png

pytest.importorskip("pyiqa")


@pytest.fixture
def clean(tmp_path):
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", scene(72, 72, seed=number))
    return tmp_path / "clean"


def trained(clean, out):
    steps = []
    settings = Settings(data=clean, out=out, held_out=1)
    scaled = {"iterations": 2, "batch": 1, "patch": 64, "lr": None}
    train("NulltoZero", "srgb", None, settings, steps.append, None, stages=(), **scaled)
    return steps


def test_lpips_and_dists_train_a_method_with_the_scorer_s_networks(clean, tmp_path, random_metric):
    for name in ("lpips", "dists"):
        random_metric(name)
    assert [step.iteration for step in trained(clean, tmp_path / "out")] == [1, 2]
    restored = torch.rand(1, 3, 64, 64, requires_grad=True)
    gt = torch.rand(1, 3, 64, 64)
    for name in ("lpips", "dists"):
        judge = build(name)
        value = judge(restored, gt)
        restored.grad = None
        value.mean().backward()
        assert float(restored.grad.abs().sum()) > 0
        assert float(judge(gt, gt).detach().abs().max()) < 1e-5
        assert all(parameter.grad is None for parameter in judge.parameters())


def test_missing_networks_are_named_all_at_once_with_both_ways_out(clean, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(
        UserError, match=r"(?s)LPIPS_v0.1_alex.*DISTS_weights.*--without lpips --without dists"
    ) as caught:
        trained(clean, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()
