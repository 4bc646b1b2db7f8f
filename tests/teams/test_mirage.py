"""MIRAGE: the published names, shapes and counts, the authors' losses, and their checkpoints' layout."""

import math

import pytest
import torch

from ntire import UserError
from ntire.method.count import count
from ntire.runner.prepare import Options, prepare
from ntire.teams.general.mirage import ABLATED, GatedConv, Mirage, MirageSmall, MixedAttention, contrast, covariances
from ntire.training.loop import start_from
from ntire.training.sources import pools_of
from tests.made import scene, write_png


@pytest.mark.parametrize(("method", "params", "macs_g"), [(Mirage, 6_207_412, 16.25), (MirageSmall, 9_678_983, 26.68)])
def test_it_has_the_published_parameters_and_multiply_adds(method, params, macs_g):
    counted = count(method, (224, 224), as_claimed=True)
    assert counted.params_m == pytest.approx(params / 1e6, abs=1e-9)
    assert counted.macs_g == pytest.approx(macs_g, abs=0.005)


@pytest.mark.data
@pytest.mark.parametrize(("method", "name"), [(Mirage, "tiny"), (MirageSmall, "small")])
def test_it_has_the_names_and_shapes_of_the_published_weights(data, method, name):
    table = data.parent / "golden" / "state_dicts" / f"mirage_{name}.tsv"
    if not table.is_file():
        pytest.skip(f"the list of published tensors is not in {table}")
    rows = [line.split("\t") for line in table.read_text().splitlines() if line and not line.startswith("#")]
    with torch.device("meta"):
        state = method().state_dict()
    ours = {name: "x".join(map(str, value.shape)) or "scalar" for name, value in state.items()}
    assert ours == {name: shape for name, shape, *_ in rows}


def test_a_lightning_checkpoint_fills_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Mirage.__init__, "__defaults__", (12, 1, 1, ""))
    torch.manual_seed(0)
    trained = Mirage().eval()
    state = {f"net.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"step": 1}]}, tmp_path / "last.ckpt")
    lq = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(prepare(Mirage, Options(weights=tmp_path / "last.ckpt")).method(lq), trained(lq))
        begun = Mirage().eval()
        start_from(begun, tmp_path / "last.ckpt")
        assert torch.equal(begun(lq), trained(lq))


def test_each_image_of_a_batch_gets_kernels_of_its_own():
    torch.manual_seed(0)
    layer = GatedConv(8).eval()
    batch = torch.randn(3, 8, 12, 10)
    with torch.no_grad():
        alone = torch.cat([layer(image[None]) for image in batch])
        assert torch.allclose(layer(batch), alone, atol=1e-5)


def test_covariances_are_those_of_the_channels_made_positive():
    x = torch.randn(2, 5, 6, 7)
    expected = torch.stack([torch.cov(image.flatten(1)) + 1e-5 * torch.eye(5) for image in x])
    assert torch.allclose(covariances(x).reshape(2, 5, 5), expected, atol=1e-6)


def test_the_contrastive_loss_is_info_nce_in_one_direction():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # Like pairs have cosine 1, unlike ones 0: -log(e^10 / (e^10 + 1)).
    assert contrast(first, second).item() == pytest.approx(math.log1p(math.exp(-10)), rel=1e-3)
    assert contrast(first, second.flip(0)).item() == pytest.approx(10, rel=1e-3)
    assert contrast(first[:1], second[:1]).item() == 0


def test_its_own_loss_belongs_to_the_last_batch_in_training():
    torch.manual_seed(0)
    method = Mirage(**Mirage.tiny)
    with pytest.raises(RuntimeError, match="in training"):
        method.own_loss("own")
    method.train()(torch.rand(2, 3, 16, 16))
    loss = method.own_loss("own")
    loss.backward()
    assert loss.item() > 0
    assert float(method.spd_proj_latent.weight.grad.abs().sum()) > 0
    assert float(method.patch_embed.proj.weight.grad.abs().sum()) > 0


def test_its_settings_are_the_paper_s_and_one_is_trained_at_a_time(tmp_path):
    recipe = Mirage.recipe
    assert [stage.name for stage in recipe.scaled().stages] == ["five"]
    stages = {stage.name: stage for stage in recipe.stages}
    assert {"five", "three", "noisy-alone", "rainy-alone", "hazy-alone", "weather", "mixed"} == set(stages)
    assert stages["weather"].iterations == 300_000
    samples = 5144 * 9 + 200 * 120 + 72_135
    assert stages["three"].iterations == 120 * samples // 32
    assert all(stage.losses == {"l1": 1.0, "fft": 0.1, "own": 0.05} for stage in recipe.stages)
    assert [stage.name for stage in recipe.scaled(stages=("mixed",)).stages] == ["mixed"]
    assert len(stages["mixed"].parts) == 11
    with pytest.raises(UserError, match="snowy, rain-and-fog, raindrop cannot be made"):
        pools_of(recipe.scaled(stages=("weather",), patch=8), tmp_path, 1)


def test_fresh_noise_stands_beside_pairs_as_often_as_the_authors_have_it(tmp_path):
    for number in range(4):
        write_png(tmp_path / "clean" / f"{number}.png", scene(16, 16, seed=number))
        for part in ("gt", "lq"):
            write_png(tmp_path / "rain" / part / f"{number}.png", scene(16, 16, seed=number))
    recipe = Mirage.recipe.scaled(stages=("three",), patch=8)
    ((even, _),) = pools_of(recipe, tmp_path / "clean", 1)
    assert {pool.weight for pool in even} == {1.0}
    ((mixed, _),) = pools_of(recipe.with_folders({"rainy": tmp_path / "rain"}), tmp_path / "clean", 1)
    assert [pool.weight for pool in mixed] == [3 * 9, 3 * 120, 3]


@pytest.mark.parametrize("ablation", ["", *ABLATED])
def test_each_arm_of_its_ablations_lacks_just_what_it_is_called_after(ablation):
    torch.manual_seed(0)
    attention = MixedAttention(24, 1, ablation).eval()
    x = torch.randn(1, 24, 9, 8)
    parts = x.chunk(len(attention.branches), dim=1)
    ways = {"att": lambda part: attention.attend(part), "gated": lambda part: attention.gatedcnn(part)}
    ways["mlp"] = lambda part: attention.mlp(part.flatten(2)).reshape(part.shape)
    with torch.no_grad():
        found = [ways[branch](part) for branch, part in zip(attention.branches, parts, strict=True)]
        if len(found) > 1 and ablation != "no-fusion":
            found = [one + torch.sigmoid(sum(found) - one) for one in found]
        expected = attention.project_out(torch.cat(found, 1))
        assert torch.allclose(attention(x), expected, atol=1e-5)
    names = {name.split(".")[0] for name, _ in attention.named_parameters()}
    lacking = {"attention-only": {"gatedcnn", "mlp"}, "no-convolution": {"gatedcnn"}, "no-mlp": {"mlp"}}.get(
        ablation, set()
    )
    assert {"gatedcnn", "mlp"} - names == lacking
    assert any(name.startswith("alpha") for name in names) == (ablation not in ("attention-only", "no-fusion"))


def test_without_spd_the_contrast_is_between_means():
    torch.manual_seed(0)
    method = Mirage(**Mirage.tiny, ablation="no-spd").train()
    method(torch.rand(2, 3, 16, 16))
    method.own_loss("own").backward()
    assert method.spd_proj_shallow.weight.shape == (64, 12)
    assert method.spd_proj_latent.weight.shape == (64, 24)
    assert float(method.reduce_latent.weight.grad.abs().sum()) > 0
    with pytest.raises(UserError, match="ablation=no-attention: expected one of attention-only"):
        Mirage(**Mirage.tiny, ablation="no-attention")
