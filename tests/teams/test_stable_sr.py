"""What StableSR promises: published names and structure, a guide for every block and time, a decoder that sees the picture."""

import pytest
import torch
import torch.nn.functional as F

from ntire import UserError
from ntire.method.state_dict import fill_from
from ntire.teams.parts.ldm_names import vae_names
from ntire.teams.parts.stable_diffusion import SCALE, decode, signal_share
from ntire.teams.parts.stable_sr import (
    GUIDE,
    TURBO,
    WRAPPING,
    GuidedConv,
    StableSR,
    guide_names,
    guided_names,
    wrapping_names,
)
from tests.teams.published import listed_shapes, on_meta, open_clip_names, shapes_of, under_published_names

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."


@pytest.fixture(scope="module")
def stage():
    """Small and random."""
    torch.manual_seed(1)
    return StableSR(width=32).eval().requires_grad_(False)


@pytest.fixture
def picture():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def restored(stage, picture, **options):
    with torch.no_grad():
        return stage(picture, **{"steps": 2, "side": 64} | options)


def below(prefix, shapes):
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def test_the_published_tensors_are_ours_at_full_size():
    with torch.device("meta"):
        ours = StableSR()
    turbo, wrapping = listed_shapes("stablesr_turbo"), listed_shapes("stablesr_cfw")
    base = ours.base
    for prefix, to_ours, part in (
        (UNET, guided_names, base.unet),
        (VAE, vae_names, base.vae),
        (TEXT, base.text.named_as_here, base.text.transformer),
        (GUIDE, guide_names, base.guide),
    ):
        assert shapes_of(to_ours(on_meta(below(prefix, turbo)))) == shapes_of(part.state_dict()), prefix
    rest = [name for name in turbo if not name.startswith((UNET, VAE, TEXT, GUIDE))]
    assert len(rest) == 12
    assert all(turbo[name] == (1000,) for name in rest), "what is left over is the schedule"
    used = {name: shape for name, shape in wrapping.items() if not name.startswith("loss.")}
    assert shapes_of(wrapping_names(on_meta(used))) == shapes_of(ours.decoder.state_dict())
    assert round(sum(value.numel() for value in ours.parameters()) / 1e6) == 1524


@pytest.mark.parametrize(
    ("table", "weights", "trained"),
    [
        ("stablesr_turbo", TURBO, (".spade.", GUIDE)),
        ("stablesr_cfw", WRAPPING, ("fusion_layer", "loss.discriminator")),
    ],
)
def test_the_lists_account_for_the_sizes_of_the_published_files(table, weights, trained):
    """Float32, with Adam's two moments of what was trained: all but what the format itself takes, 500 bytes a tensor."""
    shapes = listed_shapes(table)
    counts = {name: torch.Size(shape).numel() for name, shape in shapes.items() if "num_batches" not in name}
    moments = {name: 2 * count for name, count in counts.items() if any(one in name for one in trained)}
    moments = {name: count for name, count in moments.items() if "running_" not in name}
    taken = 4 * (sum(counts.values()) + sum(moments.values()))
    assert 0 < weights.size - taken < 500 * (len(shapes) + 2 * len(moments))


def joined(queries, keys, values, heads=4):
    """Queries, keys and values as LDM's attention keeps them: head by head."""
    parts = [one.unflatten(0, (heads, -1)) for one in (queries, keys, values)]
    return torch.stack(parts, dim=1).flatten(0, 2)


def published_guide(guide):
    own, renamed = guide.state_dict(), {}
    for name, shape in below(GUIDE, listed_shapes("stablesr_turbo")).items():
        values = [own[ours].clone() for ours in guide_names({name: torch.empty(shape, device="meta")})]
        value = joined(*values) if len(values) == 3 else values[0]
        renamed[name] = value[:, :, None] if len(shape) == 3 else value
    return renamed


@pytest.fixture
def turbo_file(stage, tmp_path):
    """The small copy in the layout of the authors' file, with what a training leaves in it."""
    shapes = listed_shapes("stablesr_turbo")
    state = {"betas": torch.rand(1000)}
    state |= {f"{GUIDE}{name}": value for name, value in published_guide(stage.base.guide).items()}
    state |= {f"{TEXT}{name}": value for name, value in open_clip_names(stage.base.text.transformer).items()}
    for prefix, part, to_ours in ((UNET, stage.base.unet, guided_names), (VAE, stage.base.vae, vae_names)):
        renamed = under_published_names(part.state_dict(), below(prefix, shapes), to_ours)
        state |= {prefix + name: value for name, value in renamed.items()}
    torch.save({"state_dict": state, "global_step": 1, "optimizer_states": [{}]}, tmp_path / TURBO.file)
    return tmp_path / TURBO.file


@pytest.fixture
def wrapping_file(stage, tmp_path):
    shapes = {name: one for name, one in listed_shapes("stablesr_cfw").items() if not name.startswith("loss.")}
    state = under_published_names(stage.decoder.state_dict(), shapes, wrapping_names)
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(())}}, tmp_path / WRAPPING.file)
    return tmp_path / WRAPPING.file


def test_files_with_the_published_names_load_and_restore_the_same(stage, turbo_file, wrapping_file, picture):
    torch.manual_seed(5)
    other = StableSR(width=32).eval().requires_grad_(False)
    assert not torch.equal(restored(other, picture), restored(stage, picture))
    fill_from(other.base, TURBO, turbo_file)
    fill_from(other.decoder, WRAPPING, wrapping_file)
    assert torch.equal(restored(other, picture), restored(stage, picture))


@pytest.mark.parametrize(
    "missing",
    [f"{GUIDE}input_blocks.0.0.weight", f"{UNET}middle_block.0.spade.mlp_beta.weight", f"{VAE}quant_conv.bias"],
)
def test_a_file_that_lacks_something_is_refused(stage, turbo_file, missing):
    state = torch.load(turbo_file)["state_dict"]
    del state[missing]
    torch.save({"state_dict": state}, turbo_file)
    with pytest.raises(UserError, match="1 difference"):
        fill_from(stage.base, TURBO, turbo_file)


def test_the_vaes_own_file_is_no_file_of_the_wrapping(stage, wrapping_file):
    state = torch.load(wrapping_file)["state_dict"]
    torch.save({name: one for name, one in state.items() if "fusion_layer" not in name}, wrapping_file)
    with pytest.raises(UserError, match="missing coarse.encode_enc_1"):
        fill_from(stage.decoder, WRAPPING, wrapping_file)


def test_the_guides_attention_is_ldms_head_by_head(stage):
    published = published_guide(stage.base.guide)
    attention = stage.base.guide.down_blocks[0].attentions[1]
    layer = {name.removeprefix("input_blocks.2.1."): value for name, value in published.items()}
    x = torch.randn(2, 64, 3, 5)
    flat = F.group_norm(x, 32, layer["norm.weight"], layer["norm.bias"], eps=1e-5).flatten(2)
    queries, keys, values = F.conv1d(flat, layer["qkv.weight"], layer["qkv.bias"]).reshape(8, 3 * 16, 15).split(16, 1)
    attended = torch.softmax(torch.einsum("bct,bcs->bts", queries, keys) / 4, dim=-1)
    mixed = torch.einsum("bts,bcs->bct", attended, values).reshape(2, 64, 15)
    theirs = x + F.conv1d(mixed, layer["proj_out.weight"], layer["proj_out.bias"]).view_as(x)
    assert torch.allclose(attention(x), theirs, atol=1e-5)


def test_the_guide_tells_what_it_sees_before_each_halving_and_in_its_middle(stage):
    guide, given, made = stage.base.guide, [], []
    last = [*(block.attentions[-1] for block in guide.down_blocks[:3]), guide.mid_block]
    hooks = [one.register_forward_hook(lambda _, __, out: made.append(out)) for one in last]
    hooks += [one.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for one in guide.fea_tran]
    guide(torch.randn(1, 4, 8, 8), torch.tensor([333]))
    for hook in hooks:
        hook.remove()
    assert len(given) == 4
    assert all(torch.equal(one, two) for one, two in zip(given, made, strict=True))
    angles = 333 * 10_000 ** (-torch.arange(32) / 32)
    assert torch.allclose(guide.time_proj(torch.tensor([333]))[0], torch.cat((angles.cos(), angles.sin())), atol=1e-4)


def test_a_fusion_is_esrgans_dense_blocks_between_residual_ones(stage):
    shapes = {name: one for name, one in listed_shapes("stablesr_cfw").items() if not name.startswith("loss.")}
    layer = below("decoder.fusion_layer_1.", under_published_names(stage.decoder.state_dict(), shapes, wrapping_names))

    def conv(x, name, padding=1):
        return F.conv2d(x, layer[f"{name}.weight"], layer[f"{name}.bias"], padding=padding)

    def residual(x, name):
        inner = x
        for number in (1, 2):
            norm = layer[f"{name}.norm{number}.weight"], layer[f"{name}.norm{number}.bias"]
            inner = conv(F.silu(F.group_norm(inner, 32, *norm, eps=1e-6)), f"{name}.conv{number}")
        return inner + (conv(x, f"{name}.conv_out", 0) if f"{name}.conv_out.weight" in layer else x)

    def dense(x, name):
        seen = [x]
        for number in range(1, 5):
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1), f"{name}.conv{number}"), 0.2))
        return x + 0.2 * conv(torch.cat(seen, 1), f"{name}.conv5")

    x, features = torch.randn(2, 64, 6, 5), torch.randn(2, 64, 6, 5)
    inner = residual(torch.cat((features, x), 1), "encode_enc_1")
    for number in range(2):
        block = inner
        for one in (1, 2, 3):
            block = dense(block, f"encode_enc_2.{number}.rdb{one}")
        inner = inner + 0.2 * block
    theirs = x + 0.7 * residual(inner, "encode_enc_3")
    assert torch.allclose(stage.decoder.fine(x, features, 0.7), theirs, atol=1e-4)


def test_every_residual_block_is_normalised_and_told_what_the_guide_says_of_its_place(stage):
    layers = [layer for layer in stage.base.unet.modules() if isinstance(layer, GuidedConv)]
    assert len(layers) == 22
    layer = layers[0]
    layer.guide = torch.randn(1, 64, 4, 4)
    x = torch.randn(1, 32, 4, 4)
    once = layer(x)
    plain = F.group_norm(layer.conv(x), 32, layer.param_free_norm.weight, layer.param_free_norm.bias)
    said = F.relu(layer.mlp_shared[0](layer.guide))
    scale, shift = layer.mlp_gamma(said), layer.mlp_beta(said)
    assert torch.allclose(once, plain + plain * scale + shift, atol=1e-5)
    layer.guide = layer.guide.clone()
    layer.guide[..., 3, 3] += 1
    changed = (layer(x) != once).any(1)[0]
    assert changed[1:, 1:].all(), "as far as two convolutions reach"
    assert not changed[0].any()
    assert not changed[:, 0].any()


def test_another_picture_and_another_time_guide_otherwise(stage):
    latent, hint, prompt = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), stage.base.text([""])
    guides = stage.base.guide(hint, torch.tensor([999]))
    assert [one.shape for one in guides] == [(1, 64, side, side) for side in (8, 4, 2, 1)]
    later = stage.base.guide(hint, torch.tensor([0]))
    assert all(not torch.equal(one, two) for one, two in zip(guides, later, strict=True))
    noise = stage.base.noise(latent, hint, 999, prompt)
    assert torch.equal(stage.base.noise(latent, hint, 999, prompt), noise)
    assert not torch.equal(stage.base.noise(latent, hint + 1, 999, prompt), noise)


def test_without_features_the_decoder_is_the_vaes_and_they_come_from_its_encoder(stage, picture):
    latent = torch.randn(1, 4, 8, 8)
    plain = decode(stage.decoder.vae, latent, SCALE)
    assert torch.allclose(stage.decoder(latent, picture, 0.0), plain, atol=1e-5)
    half, whole = stage.decoder(latent, picture, 0.5), stage.decoder(latent, picture, 1.0)
    assert not torch.allclose(half, plain, atol=1e-3)
    assert not torch.allclose(half, whole, atol=1e-3)
    assert not torch.allclose(stage.decoder(latent, picture.flip(-1), 0.5), half, atol=1e-3)
    seen = []
    blocks = stage.decoder.vae.encoder.down_blocks
    hooks = [blocks[n].resnets[-1].register_forward_hook(lambda _, __, out: seen.append(out)) for n in (1, 2)]
    stage.decoder.vae.encode(picture * 2 - 1)
    for hook in hooks:
        hook.remove()
    coarse, fine = stage.decoder.features(picture)
    assert torch.equal(fine, seen[0])
    assert torch.equal(coarse, seen[1])


def test_it_begins_with_the_noisy_picture_and_goes_down_four_times(stage, picture, monkeypatch):
    calls = []

    def noise(latent, hint, time, prompt):
        calls.append((latent, hint, time))
        return torch.zeros_like(latent)

    monkeypatch.setattr(stage.base, "noise", noise)
    restored(stage, picture, steps=4)
    assert [time for *_, time in calls] == [999, 666, 333, 0]
    posterior = stage.base.vae.encode(picture * 2 - 1).latent_dist
    generator = torch.Generator().manual_seed(42)
    first, second = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    hint = SCALE * (posterior.mean + posterior.std * first)
    share = signal_share((999,))
    latent, told, _ = calls[0]
    assert torch.allclose(told, hint, atol=1e-5)
    assert torch.allclose(latent, share.sqrt() * hint + (1 - share).sqrt() * second, atol=1e-5)
    assert all(torch.equal(one, told) for _, one, _ in calls), "the guide sees the picture, not what becomes of it"


def test_the_seed_alone_decides(stage, picture):
    once = restored(stage, picture)
    torch.manual_seed(7)
    assert torch.equal(restored(stage, picture), once)
    assert not torch.equal(restored(stage, picture, seed=43), once)
    assert not torch.equal(restored(stage, picture, decoder=1.0), once)


@pytest.mark.parametrize("size", [(20, 31), (64, 71), (101, 70)])
def test_pictures_keep_their_size_whatever_it_is(stage, size):
    once = restored(stage, torch.rand(1, 3, *size), steps=1)
    assert once.shape == (1, 3, *size)
    assert 0 <= float(once.min()) <= float(once.max()) <= 1


def test_larger_pictures_are_denoised_in_tiles_of_one_size_that_agree_where_they_overlap(stage, monkeypatch):
    pieces = []

    def noise(latent, hint, time, prompt):
        pieces.append(tuple(latent.shape[2:]))
        return 0.5 * latent + hint

    monkeypatch.setattr(stage.base, "noise", noise)
    lq = torch.rand(1, 3, 128, 96)
    whole = stage.diffuse(lq, steps=2, seed=1, tile=16)
    assert pieces == [(16, 12)] * 2
    pieces.clear()
    tiled = stage.diffuse(lq, steps=2, seed=1, tile=8)
    assert pieces == [(8, 8)] * 12
    assert torch.allclose(tiled, whole, rtol=1e-4, atol=1e-4)


def test_colours_are_the_pictures_own(stage, monkeypatch):
    monkeypatch.setattr(stage.decoder, "forward", lambda latent, lq, weight: torch.full_like(lq, 0.3))
    assert torch.allclose(restored(stage, torch.full((1, 3, 64, 70), 0.6), steps=1), torch.tensor(0.6), atol=1e-6)
