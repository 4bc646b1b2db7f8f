"""Settings: what changes a method, and what changes what it is built of."""

import pytest
import torch

from ntire import UserError
from ntire.benchmark.memory import measured_memory
from ntire.commands.measuring import cost
from ntire.method.count import on_meta
from ntire.method.settings import configured, set_attributes
from ntire.runner.prepare import Options, prepare
from ntire.teams.general.diffusion_trained import DiffusionTrained, DiffusionTrainedExperts
from ntire.teams.general.diffusion_trained.experts import TimeExperts
from ntire.teams.general.mirage import Mirage
from ntire.training.loop import Settings, train
from tests.made import scene, write_png


def test_a_setting_of_the_constructor_changes_the_network_and_drops_the_claim():
    without = configured(DiffusionTrainedExperts, {"experts": "0", "decay": "0.1"})
    assert without.__qualname__ == "DiffusionTrainedExperts(experts=0)"
    assert not any(isinstance(module, TimeExperts) for module in without(**DiffusionTrained.tiny).modules())
    few = configured(DiffusionTrainedExperts, {"experts": "3"})(**DiffusionTrained.tiny)
    assert {module.gate.out_features for module in few.modules() if isinstance(module, TimeExperts)} == {3}
    assert configured(Mirage, {}) is Mirage
    assert configured(Mirage, {"ablation": "no-mlp"}).claimed is None
    assert Mirage.claimed is not None


def test_values_are_of_the_kind_of_what_they_replace():
    method = DiffusionTrained(**DiffusionTrained.tiny)
    set_attributes(method, {"decay": "0", "parts": "3", "exchanged": "yes", "damage": "hazy"})
    assert (method.decay, method.parts, method.exchanged, method.damage) == (0.0, 3, True, "hazy")
    for name, value, kind in (
        ("decay", "x", "a number"),
        ("parts", "2.5", "a whole number"),
        ("exchanged", "1", "yes or no"),
    ):
        with pytest.raises(UserError, match=f"{name}={value}: expected {kind}"):
            set_attributes(method, {name: value})
    with pytest.raises(UserError, match="experts=many: expected a whole number"):
        configured(DiffusionTrainedExperts, {"experts": "many"})
    with pytest.raises(UserError, match="experts=-1: expected 0 or more"):
        on_meta(configured(DiffusionTrainedExperts, {"experts": "-1"}))
    with pytest.raises(UserError, match="MIRAGE has no setting expert. It has ablation: "):
        configured(Mirage, {"expert": "1"})


def test_what_was_trained_with_a_setting_runs_with_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Mirage.__init__, "__defaults__", (12, 1, 1, ""))
    for number in range(2):
        write_png(tmp_path / "clean" / f"{number}.png", scene(24, 24, seed=number))
    method = configured(Mirage, {"ablation": "no-convolution"})
    recipe = Mirage.recipe.scaled(stages=("noisy-alone",), iterations=1, batch=2, patch=16)
    settings = Settings(tmp_path / "clean", tmp_path / "out", held_out=1, settings=(("ablation", "no-convolution"),))
    weights = train(method(), recipe, settings, lambda step: None)
    assert 'ablation = "no-convolution"' in weights.with_name("card.toml").read_text()
    ready = prepare(Mirage, Options(weights=weights, settings=settings.settings)).method
    assert not any("gatedcnn" in name for name, _ in ready.named_parameters())
    with pytest.raises(UserError, match="not the weights of this Mirage"):
        prepare(Mirage, Options(weights=weights))
    with pytest.raises(UserError, match="settings"):
        train(Mirage(), recipe, Settings(tmp_path / "clean", tmp_path / "out", held_out=1), lambda step: None)


def test_a_cost_with_settings_is_of_what_they_build_and_a_claim_of_memory_stands_beside_what_is_measured():
    whole, less = (cost("MIRAGE", "general", settings=settings) for settings in ({}, {"ablation": "attention-only"}))
    assert whole["claimed"]["memory_mb"] == 3729
    found = whole["measured_memory"]
    assert (found["memory_mb"] is None) == bool(found["why_not"])
    assert less["params"] == 4_587_840
    assert less["claimed"]["memory_mb"] is None
    assert "measured_memory" not in less


@pytest.mark.gpu
def test_memory_on_a_gpu_is_what_parameters_and_a_pass_take():
    small, large = (measured_memory(Mirage, (side, side)) for side in (64, 256))
    parameters = sum(one.numel() * 4 for one in Mirage().parameters()) / 2**20
    assert parameters < small["memory_mb"] < large["memory_mb"]
    assert small["device"] == torch.cuda.get_device_name(0)
