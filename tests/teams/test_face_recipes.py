"""What can be trained of the face challenge's methods: IIL's equations, and AllForFace's last stage."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from ntire import UserError
from ntire.method.catalogue import methods
from ntire.method.weights_files import ARCFACE
from ntire.teams.face.allforface import AllForFaceNaturalness
from ntire.teams.face.iil import Iil
from ntire.teams.parts.natural_vae import patches
from ntire.training.discriminator import UNetDiscriminator
from ntire.training.identity import IdentityLoss, identity_loss
from ntire.training.loop import Settings, start_from, train
from ntire.training.losses import Aids
from ntire.training.perceptual import LAYERS, PerceptualLoss
from tests.made import scene, write_png


class Means(nn.Module):
    """Stands for ArcFace: colours of a face's quarters."""

    def forward(self, face):
        assert face.shape[-2:] == (112, 112)
        return F.normalize(F.adaptive_avg_pool2d(face, 2).flatten(1), dim=1)


@pytest.fixture
def clean(tmp_path):
    for number in range(2):
        for part in ("clean", "pairs/gt", "pairs/lq"):
            write_png(tmp_path / part / f"{number}.png", scene(64, 64, seed=number))
    return tmp_path


def test_the_identity_loss_is_one_minus_the_cosine_of_the_faces_in_arcface_s_crop():
    rng = torch.Generator().manual_seed(0)
    gt, restored = (torch.rand(2, 3, 256, 256, generator=rng) for _ in range(2))
    loss = IdentityLoss(Means())
    crops = [F.adaptive_avg_pool2d(face[..., 35:223, 32:220], 112) * 2 - 1 for face in (restored, gt)]
    first, second = (Means()(crop) for crop in crops)
    assert torch.allclose(loss(restored, gt), 1 - (first * second).sum(1), atol=1e-5)
    assert float(loss(gt, gt).abs().max()) < 1e-6
    outside = gt.clone()
    outside[..., :30, :] = 0
    assert float(loss(outside, gt).max()) < 1e-6, "what lies outside the crop does not count"
    restored.requires_grad_()
    loss(restored, gt.requires_grad_()).sum().backward()
    assert float(restored.grad.abs().sum()) > 0
    assert float(gt.grad.abs().sum()) == 0, "the clean face is what is imitated"


def test_without_arcface_s_weights_it_says_where_they_are(tmp_path, monkeypatch):
    pytest.importorskip("facexlib")
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=ARCFACE.file) as caught:
        identity_loss()
    assert caught.value.exit_code == 3


def test_equation_2_sums_roots_of_mean_squares_of_vgg_s_features():
    torch.manual_seed(0)
    loss = PerceptualLoss(squared=True)
    first, second = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    expected = 0.0
    with torch.no_grad():
        ours, theirs = ((x - loss.mean) / loss.deviation for x in (first, second))
        for number, layer in enumerate(loss.features):
            ours, theirs = (layer(x) if not isinstance(layer, nn.ReLU) else x.relu() for x in (ours, theirs))
            if number in LAYERS:
                expected += float((ours - theirs).square().mean().sqrt())
        assert float(loss(first, second)) == pytest.approx(expected, rel=1e-4)
    first.requires_grad_()
    loss(first, first.detach().clone()).backward()
    assert bool(torch.isfinite(first.grad).all()), "equal pictures have a slope"


def test_iil_trains_its_adapters_alone_by_equation_6(clean, tmp_path, monkeypatch):
    recipe = Iil.recipe
    (stage,) = recipe.stages
    assert stage.losses == {"l1": 1.0, "perceptual-l2": 1.0, "identity": 1.0, "gan": 0.5}
    assert (recipe.optimiser, recipe.betas, stage.lr, stage.lr_end) == ("adamw", (0.5, 0.999), 1e-4, 1e-4)
    torch.manual_seed(0)
    source = Iil(**Iil.tiny)
    base = tmp_path / "base"
    for name in ("unet", "vae"):
        network = getattr(source.sdxl_turbo, name)
        plain = type(network).from_config(network.config)
        plain.load_state_dict(
            {
                key.replace(".base_layer", ""): value
                for key, value in network.state_dict().items()
                if ".lora_" not in key
            }
        )
        plain.save_pretrained(base / name)
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "weights"))
    method = Iil(**Iil.tiny)
    with pytest.raises(UserError, match=r"iil-prompt_embeds\.pt"):
        start_from(method, base)
    (tmp_path / "weights").mkdir()
    stored = {"prompt_embeds": "prompt", "add_text_embeds": "pooled", "add_time_ids": "sizes"}
    for file, part in stored.items():
        value = torch.rand_like(getattr(source.sdxl_turbo, part).value)
        torch.save(value, tmp_path / "weights" / f"iil-{file}.pt")
    start_from(method, base)
    assert float(method.sdxl_turbo.prompt.value.sum()) > 0
    before = {name: value.clone() for name, value in method.state_dict().items()}
    judges = {"perceptual-l2": lambda a, b: (a - b).abs().mean(), "identity": IdentityLoss(Means())}
    seeds = []
    draw = method.sdxl_turbo.forward
    monkeypatch.setattr(method.sdxl_turbo, "forward", lambda lq, seed: seeds.append(seed) or draw(lq, seed=seed))
    train(
        method,
        recipe.scaled(iterations=2, batch=1, patch=64),
        Settings(clean / "clean", tmp_path / "out", held_out=1),
        lambda step: None,
        Aids(judges, opponents={"gan": UNetDiscriminator(4)}),
    )
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert len({*seeds}) > 1, "in training each batch draws its own latent"


def test_allforface_s_last_stage_learns_from_dinov2_then_adds_skips(clean, tmp_path):
    torch.manual_seed(0)
    method = AllForFaceNaturalness(**AllForFaceNaturalness.tiny)
    base = tmp_path / "base"
    method.vae.vae.save_pretrained(base / "vae")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=1
    )
    with pytest.raises(UserError, match="lacks dinov2"):
        start_from(method, base)
    Dinov2Model(config).save_pretrained(base / "dinov2")
    start_from(method, base)
    guide = method._guide[0]
    assert patches(guide, torch.rand(2, 3, 32, 48)).shape == (2, 16, 2, 3)
    first, second = AllForFaceNaturalness.recipe.stages
    assert second.losses.keys() == {"l1", "own", "perceptual", "gan"}
    assert second.paired
    recipe = replace(
        AllForFaceNaturalness.recipe, stages=(replace(first, iterations=2), replace(second, iterations=2))
    ).with_folders({"skips": clean / "pairs"})
    recipe = recipe.scaled(batch=1, patch=32, lr=1e-3)
    steps, skipping, names = [], set(), {name for name, _ in method.named_parameters()}

    def report(step):
        steps.append(step)
        skipping.add((step.stage, method.vae.skipping, bool(method.vae.skips[0].weight.any())))

    aids = Aids({"perceptual": lambda a, b: (a - b).abs().mean()}, opponents={"gan": UNetDiscriminator(4)})
    train(method, recipe, Settings(clean / "clean", tmp_path / "out", held_out=1), report, aids)
    assert skipping == {("latent", False, False), ("skips", True, True)}
    assert not any("dinov2" in name or "guide" in name for name in names), "DINOv2 is not saved with it"
    assert len(steps) == 4


def test_its_latents_come_to_look_like_dinov2_s_patches():
    torch.manual_seed(0)
    method = AllForFaceNaturalness(**AllForFaceNaturalness.tiny).train()
    with pytest.raises(UserError, match="--without own"):
        method.own_loss("own")
    method._guide = [
        Dinov2Model(
            Dinov2Config(
                hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=1
            )
        )
    ]
    faces = torch.rand(1, 3, 32, 32)
    method.begin_step(faces, faces, torch.Generator())
    optimizer = torch.optim.Adam(method.vae.parameters(), 1e-2)
    losses = []
    for _ in range(6):
        method(faces)
        loss = method.own_loss("own")
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("method", methods("face"), ids=lambda method: f"{method.team}-{method.variant}")
def test_a_face_method_without_a_recipe_says_that_it_cannot_be_trained(method):
    told = any("cannot be trained here" in caveat for caveat in method.caveats)
    assert method.recipe is not None or told or method.team == "Copy"
