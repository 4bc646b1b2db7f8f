"""MIRAGE: the published names, shapes and counts, the authors' losses, and their checkpoints' layout."""

import math

import pytest
import torch

from ntire.method.count import count
from ntire.runner.prepare import Options, prepare
from ntire.teams.general.mirage import GatedConv, Mirage, MirageSmall, contrast, covariances
from ntire.training.loop import start_from


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
    monkeypatch.setattr(Mirage.__init__, "__defaults__", (12, 1, 1))
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
