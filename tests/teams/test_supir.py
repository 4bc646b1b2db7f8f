"""What SUPIR promises: published names and structure, SDXL untouched behind it, the sampler of its program."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntire import UserError
from ntire.method.state_dict import fill_from
from ntire.teams.parts.clip_text import TwoTowers, tower_names
from ntire.teams.parts.ldm_names import unet_names, vae_names
from ntire.teams.parts.sdxl import SDXL, Sdxl
from ntire.teams.parts.stable_diffusion import encode, noise_levels
from ntire.teams.parts.supir import (
    ADDED,
    HIGHEST,
    Additions,
    Supir,
    ZeroAttention,
    ZeroSft,
    added_names,
    levels_of,
    sample,
    working_size,
)
from tests.teams.published import (
    OpenClipBlock,
    listed_shapes,
    on_meta,
    open_clip_names,
    shapes_of,
    under_published_names,
)

UNET, VAE = "model.diffusion_model.", "first_stage_model."
SMALL, LARGE = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
UNUSED = "model.control_model.mask_LQ"
WORDS = {"prompt": "a face", "negative": "blurry"}


@pytest.fixture(scope="module")
def stage():
    """Small and random; its connectors have something to say."""
    torch.manual_seed(1)
    return Supir(width=32).eval().requires_grad_(False)


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 30, generator=torch.Generator().manual_seed(2))


def restored(stage, picture, **options):
    with torch.no_grad():
        return stage(picture, **{"steps": 2, "side": 64} | WORDS | options)


def same(network, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def part(state, prefix):
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def small_copy(own, published, to_ours):
    """A small network's tensors under published names, of which it has fewer than there are."""
    kept = {name: shape for name, shape in published.items() if next(iter(to_ours(on_meta({name: shape})))) in own}
    return under_published_names(own, kept, to_ours)


def test_the_lists_are_all_that_the_published_files_have_room_for():
    for name, weights, bytes_each in (("sdxl_base", SDXL, 2), ("supir_v0q", ADDED, 4)):
        numbers = sum(value.numel() for value in on_meta(listed_shapes(name)).values())
        assert 0 < weights.size - bytes_each * numbers < 600 * len(listed_shapes(name))


def test_all_of_sdxls_published_tensors_are_ours_at_full_size():
    published = on_meta(listed_shapes("sdxl_base"))
    with torch.device("meta"):
        ours = Sdxl()
    small, large = part(published, SMALL), part(published, LARGE)
    named = {
        "unet": (ours.unet, unet_names(part(published, UNET))),
        "vae": (ours.vae.network, vae_names(part(published, VAE))),
        "small": (ours.text.small, tower_names(ours.text.small, small)),
        "large": (ours.text.large, tower_names(ours.text.large, large)),
    }
    for network, state in named.values():
        assert shapes_of(state) == shapes_of(network.state_dict())
    assert len(published) == sum(len(part(published, prefix)) for prefix in (UNET, VAE, SMALL, LARGE))
    assert small.keys() - {f"text_model.{name.removeprefix('text_model.')}" for name in named["small"][1]} == {
        "text_model.embeddings.position_ids"
    }


def test_all_of_supirs_published_tensors_are_ours_at_full_size():
    published = on_meta(listed_shapes("supir_v0q"))
    with torch.device("meta"):
        ours = Supir()
    assert shapes_of(added_names(published)) == shapes_of(ours.added.state_dict())
    # The program's own two networks count so many.
    assert sum(p.numel() for p in ours.added.control.parameters()) == 1_243_378_880
    assert sum(p.numel() for p in ours.base.unet.parameters()) == 2_567_463_684


@pytest.fixture
def sdxl_file(stage, tmp_path):
    """A small file in the layout of SDXL's authors."""
    from safetensors.torch import save_file

    published, base = listed_shapes("sdxl_base"), stage.base
    state = {
        f"{prefix}{name}": value
        for prefix, network, to_ours in ((UNET, base.unet, unet_names), (VAE, base.vae.network, vae_names))
        for name, value in small_copy(network.state_dict(), part(published, prefix), to_ours).items()
    }
    small = {name.removeprefix("text_model."): value for name, value in base.text.small.state_dict().items()}
    state |= {f"{SMALL}text_model.{name}": value.clone() for name, value in small.items()}
    state[f"{SMALL}text_model.embeddings.position_ids"] = torch.arange(77.0)[None]
    state |= {f"{LARGE}{name}": value for name, value in open_clip_names(base.text.large, last=0).items()}
    state = {name: value.contiguous() for name, value in state.items()}
    return lambda: save_file(state, tmp_path / SDXL.file) or tmp_path / SDXL.file, state


def test_one_file_of_sdxl_fills_unet_vae_and_text(stage, sdxl_file):
    save, state = sdxl_file
    assert state.keys() <= listed_shapes("sdxl_base").keys()
    other = Sdxl(width=32)
    fill_from(other, SDXL, save())
    assert same(other, stage.base)
    del state[f"{LARGE}text_projection"]
    with pytest.raises(UserError, match="missing text_projection.weight"):
        fill_from(other, SDXL, save())


def test_a_file_of_supirs_own_loads_under_its_published_names_and_no_other(stage, tmp_path):
    published = listed_shapes("supir_v0q")
    del published[UNUSED]
    state = small_copy(stage.added.state_dict(), published, added_names)
    path = tmp_path / ADDED.file
    torch.save({"state_dict": state | {UNUSED: torch.zeros(1, 4, 64, 64)}}, path)
    other = Additions(stage.base.unet, width=32)
    fill_from(other, ADDED, path)
    assert same(other, stage.added)
    torch.save({"state_dict": state | {f"{UNET}out.2.weight": torch.zeros(4, 32, 3, 3)}}, path)
    with pytest.raises(UserError, match="unexpected out.2.weight"):
        fill_from(other, ADDED, path)


def test_the_names_agree_with_the_conversion_of_diffusers(stage):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = stage.base.unet
    published = small_copy(unet.state_dict(), part(listed_shapes("sdxl_base"), UNET), unet_names)
    theirs = convert_ldm_unet_checkpoint(
        {UNET + name: value for name, value in published.items()}, config=dict(unet.config)
    )
    ours = unet_names(published)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_the_two_towers_give_their_last_but_one_blocks_and_the_larger_the_whole_prompt():
    torch.manual_seed(0)
    text = TwoTowers(64, 128, layers=(3, 3), merges=0).eval().requires_grad_(False)
    prompts = ["a face", "sharp " * 40]
    words, pooled = text(prompts)
    assert (words.shape, pooled.shape) == ((2, 77, 192), (2, 128))
    results = {}
    for tower, width, pad, activation in (
        (text.small, 64, text.words.end, lambda x: x * torch.sigmoid(1.702 * x)),
        (text.large, 128, 0, F.gelu),
    ):
        state = open_clip_names(tower, last=0)
        numbers = text.words(prompts, pad=pad)
        x = state["token_embedding.weight"][numbers] + state["positional_embedding"]
        for layer in range(3):
            results[width] = x
            block = OpenClipBlock(width, width // 64, activation).eval().requires_grad_(False)
            block.load_state_dict(part(state, f"transformer.resblocks.{layer}."))
            x = block(x)
        last = F.layer_norm(x, (width,), state["ln_final.weight"], state["ln_final.bias"])
    assert torch.allclose(words, torch.cat((results[64], results[128]), dim=-1), atol=1e-5)
    ends = text.words(prompts, pad=0).argmax(dim=1)
    assert ends.tolist() == [6, 76]
    assert torch.allclose(pooled, last[range(2), ends] @ state["text_projection"], atol=1e-5)


@pytest.fixture
def step(stage):
    """What a UNet is given in one step."""
    torch.manual_seed(4)
    latent, hint, words, pooled = (
        torch.randn(shape) for shape in ((2, 4, 8, 12), (2, 4, 8, 12), (2, 77, 204), (2, 128))
    )
    return {"latent": latent, "times": torch.tensor([321, 321]), "words": words, "pooled": pooled}, hint


def plain_noise(unet, latent, times, words, pooled):
    sizes = torch.tensor([(1024, 1024, 0, 0, 1024, 1024)] * len(latent))
    return unet(latent, times, words, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample


def test_without_control_it_is_sdxl(stage, step):
    given, hint = step
    seen = stage.added.control(hint=hint, **given)
    noise = [stage.added.controlled(stage.base.unet, seen=seen, scale=scale, **given) for scale in (0.0, 1.0)]
    plain = plain_noise(stage.base.unet, **given)
    assert torch.allclose(noise[0], plain, atol=1e-5)
    assert float((noise[1] - plain).abs().max()) > 0.01


def test_each_connector_hears_the_control_at_its_own_place(stage, step):
    """In the program's order: the middle, then the skips from the last to the first, and twice what goes up a level."""
    given, hint = step
    seen = [torch.full_like(one, number) for number, one in enumerate(stage.added.control(hint=hint, **given))]
    heard = []
    hooks = [
        connector.register_forward_pre_hook(lambda _, words, name=name: heard.append((name, int(words[0].mean()))))
        for name, connector in enumerate(stage.added.project_modules)
    ]
    stage.added.controlled(stage.base.unet, seen=seen, scale=1.0, **given)
    for hook in hooks:
        hook.remove()
    assert heard == list(zip(range(11, -1, -1), (9, 8, 7, 6, 6, 5, 4, 3, 3, 2, 1, 0), strict=True))


@pytest.mark.parametrize("said", [(0.0, 0.0, 0.0), (0.5, 2.0, 1.0)])
def test_a_connector_shifts_the_skip_and_then_scales_and_shifts_both_behind_their_norm(said):
    connector = ZeroSft(32, 64, hidden=16).requires_grad_(False)
    scale, shift, share = said
    for conv, constant in ((connector.zero_mul, scale), (connector.zero_add, shift), (connector.zero_conv, 0.0)):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, constant)
    connector.zero_conv.weight += share * torch.eye(32)[:, :, None, None]
    hint, skip, up = torch.randn(1, 32, 4, 4), torch.randn(1, 32, 4, 4), torch.randn(1, 64, 4, 4)
    expected = F.group_norm(torch.cat((up, skip + share * hint), dim=1), 32) * (1 + scale) + shift
    plain = torch.cat((up, skip), dim=1)
    assert torch.allclose(connector(hint, skip, up, 1.0), expected, atol=1e-5)
    assert torch.allclose(connector(hint, skip, up, 0.25), 0.25 * expected + 0.75 * plain, atol=1e-5)
    assert torch.equal(connector(hint, skip, up, 0.0), plain)
    middle = ZeroSft(32, 0, hidden=16)
    assert torch.equal(middle(hint, skip, None, 0.0), skip)


def test_what_goes_up_a_level_looks_at_the_control_as_pytorchs_attention_would():
    torch.manual_seed(0)
    connector = ZeroAttention(128, 32).requires_grad_(False)
    theirs = nn.MultiheadAttention(128, 2, kdim=32, vdim=32, batch_first=True).requires_grad_(False)
    own = connector.attn
    theirs.q_proj_weight.copy_(own.to_q.weight)
    theirs.k_proj_weight.copy_(own.to_k.weight)
    theirs.v_proj_weight.copy_(own.to_v.weight)
    nn.init.zeros_(theirs.in_proj_bias)
    theirs.out_proj.load_state_dict(own.to_out[0].state_dict())
    hint, up = torch.randn(2, 32, 4, 6), torch.randn(2, 128, 4, 6)
    asking, asked = (F.group_norm(one, 32).flatten(2).transpose(1, 2) for one in (up, hint))
    found = theirs(asking, asked, asked, need_weights=False)[0].transpose(1, 2).reshape(up.shape)
    assert torch.allclose(connector(hint, up, 0.7), up + 0.7 * found, atol=1e-5)


def test_the_control_equals_the_unets_own_first_half(stage, step):
    """With the UNet's weights, and none on the hint, it passes on what the UNet passes on."""
    given, hint = step
    unet = stage.base.unet
    control = Additions(unet, width=32).control.requires_grad_(False)
    own = {name: value for name, value in unet.state_dict().items() if name in control.state_dict()}
    nothing = {name: torch.zeros_like(value) for name, value in control.input_hint_block.state_dict().items()}
    control.load_state_dict(own | {f"input_hint_block.{name}": value for name, value in nothing.items()})
    passed = []
    hooks = [block.register_forward_hook(lambda _, __, out: passed.extend(out[1])) for block in unet.down_blocks]
    hooks.append(unet.mid_block.register_forward_hook(lambda _, __, out: passed.append(out)))
    plain_noise(unet, **given)
    for hook in hooks:
        hook.remove()
    seen = control(hint=hint, **given)
    assert len(seen) == 10
    assert torch.allclose(seen[0], unet.conv_in(given["latent"]), atol=1e-5)
    for ours, theirs in zip(seen[1:], passed, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_hint_is_added_to_the_first_thing_that_the_control_makes_of_the_latent(stage, step):
    given, hint = step
    control = stage.added.control
    added = control(hint=hint, **given)[0] - control(hint=torch.zeros_like(hint), **given)[0]
    assert torch.allclose(added, F.conv2d(hint, control.input_hint_block[0].weight, padding=1), atol=1e-5)


def test_with_the_vaes_own_encoder_the_hint_is_the_vaes_latent(stage, picture):
    first_stage = Additions(stage.base.unet, width=32).first_stage.requires_grad_(False)
    first_stage.encoder.load_state_dict(stage.base.vae.network.encoder.state_dict())
    square = picture[..., :24, :24]
    ours = stage.base.vae.latent(first_stage(square))
    assert torch.allclose(ours, encode(stage.base.vae.network, square, 0.13025), atol=1e-5)
    assert float(ours.abs().mean()) > 0.01


def test_it_restores_at_the_size_of_the_input_and_the_seed_alone_decides(stage, picture):
    once = restored(stage, picture)
    assert once.shape == picture.shape
    assert 0 <= float(once.min()) < float(once.max()) <= 1
    torch.manual_seed(7)
    assert torch.equal(restored(stage, picture), once)
    assert not torch.equal(restored(stage, picture, seed=1235), once)


def test_prompts_and_options_matter(stage, picture):
    once = restored(stage, picture)
    for option in (
        {"prompt": "a dog"}, {"negative": "sharp"}, {"guidance": 4.0}, {"guidance_start": 7.5}, {"churn": 0.0}, {"noise": 1.1},
        {"control": 0.9}, {"steps": 3}, {"side": 128},
    ):  # fmt: skip
        assert not torch.equal(restored(stage, picture, **option), once), option


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((512, 512), 1536, (1536, 1536)),
        ((45, 39), 64, (64, 64)),
        ((300, 199), 1536, (2304, 1536)),
        ((1000, 2010), 512, (1024, 1984)),
        ((30, 20), 20, (64, 64)),
    ],
)
def test_pictures_are_brought_to_their_least_side_and_to_multiples_of_64(size, side, expected):
    assert working_size(*size, side) == expected


def test_the_hint_is_of_the_enlarged_picture_and_every_third_pixel_comes_back(stage, monkeypatch):
    seen, decoded = [], []
    encode, decode = stage.added.first_stage.forward, stage.base.vae.decode
    monkeypatch.setattr(stage.added.first_stage, "forward", lambda image: seen.append(image) or encode(image))
    monkeypatch.setattr(stage.base.vae, "decode", lambda latent: decoded.append(decode(latent)) or decoded[-1])
    coloured = []
    monkeypatch.setattr(
        "ntire.teams.parts.supir.wavelet_colour", lambda image, like: coloured.append((image, like)) or image
    )
    picture = torch.rand(1, 3, 64, 64)
    result = restored(stage, picture, side=192)
    assert torch.equal(seen[0], F.interpolate(picture, size=(192, 192), mode="bicubic", antialias=True))
    clean, drawn = decoded
    assert clean.shape == drawn.shape == (1, 3, 192, 192)
    assert coloured[0][0] is drawn
    assert coloured[0][1] is clean
    assert torch.allclose(result, drawn[:, :, 1::3, 1::3].clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize(("level", "scale"), [(0.0, 7.5), (HIGHEST / 2, 5.75), (HIGHEST, 4.0)])
def test_guidance_goes_from_the_negative_prompt_and_grows_as_the_noise_falls(stage, picture, monkeypatch, level, scale):
    positive = stage.base.text([WORDS["prompt"]])[0]
    given = []

    def keep(like, noise_in, steps, **options):
        given.append((noise_in, steps, options))
        return like

    def noise(latent, time, words, pooled, hint, control):
        return torch.full_like(latent, 3.0 if torch.equal(words, positive) else 1.0)

    monkeypatch.setattr("ntire.teams.parts.supir.sample", keep)
    monkeypatch.setattr(stage, "_noise", noise)
    restored(stage, picture)
    noise_in, steps, options = given[0]
    assert (steps, options) == (2, {"churn": 5.0, "noise": 1.003, "seed": 1234})
    assert torch.allclose(noise_in(torch.zeros(1, 4, 8, 8), 5, level), torch.tensor(1.0 + scale * (3.0 - 1.0)))


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_the_levels_and_the_sampler_are_those_of_diffusers_where_no_noise_is_added_again():
    from diffusers import EulerDiscreteScheduler

    steps = 50
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    assert torch.allclose(torch.tensor(levels_of(steps)), scheduler.sigmas, rtol=1e-5)
    pattern = torch.randn(1, 4, 3, 5)

    def noise_in(latent, time, level):
        return torch.sin(latent * pattern) + time / 1000

    latent = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(3)) * (1 + HIGHEST**2) ** 0.5
    for time in scheduler.timesteps:
        given = scheduler.scale_model_input(latent, time)
        latent = scheduler.step(noise_in(given, int(time), None), time, latent).prev_sample
    ours = sample(pattern, noise_in, steps, churn=0.0, noise=1.0, seed=3)
    assert torch.allclose(ours, latent, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [10, 50, 100])
def test_the_levels_are_those_of_the_program(steps):
    import numpy as np

    times = np.linspace(999, 0, steps, endpoint=False).astype(int)
    assert levels_of(steps)[:-1] == [noise_levels()[time] for time in times]
    assert levels_of(steps)[0] == pytest.approx(HIGHEST, abs=1e-3)
    assert levels_of(steps)[-1] == 0


def of_normal_latents(deviation, centre=0.0):
    """The best prediction where latents are normal."""
    table = noise_levels()

    def noise_in(latent, time, level):
        found = table[time]
        unscaled = latent * (1 + found**2) ** 0.5
        return found * (unscaled - centre) / (deviation**2 + found**2)

    return noise_in


def test_the_sampler_follows_the_flow_of_normal_latents():
    """Its solution is known: the start times deviation / sqrt(deviation^2 + level^2). Errors halve as steps double."""
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6)) * (1 + HIGHEST**2) ** 0.5
    exact = start * 0.8 / (0.8**2 + HIGHEST**2) ** 0.5
    errors = []
    for steps in (100, 200):
        found = sample(start, of_normal_latents(0.8), steps, churn=0.0, noise=1.0, seed=6)
        errors.append(float((found - exact).abs().max()))
    assert errors[0] < 0.1
    assert errors[1] < 0.6 * errors[0]


def test_noise_that_is_added_again_leaves_the_spread_and_any_one_picture_alone():
    like = torch.empty(1, 4, 64, 64)
    spreads = [
        float(sample(like, of_normal_latents(0.8), 200, churn=20.0, noise=noise, seed=8).std()) for noise in (1.0, 0.0)
    ]
    assert spreads[0] == pytest.approx(0.8, rel=0.05)
    assert spreads[1] < 0.5, "the sampler looks for noise that nobody added"
    one = torch.randn(1, 4, 64, 64)
    found = sample(like, of_normal_latents(0.0, one), 50, churn=5.0, noise=1.003, seed=8)
    assert torch.allclose(found, one, atol=1e-5)


def test_steps_are_raised_by_a_share_of_the_churn_and_asked_at_the_nearest_time():
    asked = []
    sample(
        torch.empty(1, 4, 1, 1),
        lambda latent, time, level: asked.append((time, level)) or torch.zeros_like(latent),
        50,
        churn=5.0,
        noise=1.0,
        seed=0,
    )
    table = noise_levels()
    for (time, level), now in zip(asked, levels_of(50)[:-1], strict=True):
        assert level == pytest.approx(1.1 * now)
        assert abs(table[time] - level) == min(abs(one - level) for one in table)
    assert len(asked) == 50
    assert asked[0][0] == 999, "above the highest level there is none"


def test_the_vae_stays_in_float32_whatever_the_rest_does(picture):
    torch.manual_seed(1)
    stage = Supir(width=32).eval().requires_grad_(False)
    usual = restored(stage, picture)
    stage.to(torch.bfloat16)
    assert {p.dtype for p in (*stage.base.vae.parameters(), *stage.added.first_stage.parameters())} == {torch.float32}
    assert stage.base.unet.dtype == torch.bfloat16
    assert float((restored(stage, picture) - usual).abs().mean()) < 0.1
