"""What DiffBIR promises: published names and structure, the sampler of its paper, prompts as CLIP reads them."""

import gzip

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntire import UserError
from ntire.method.state_dict import fill_from
from ntire.teams.face.uphorse import TRAINED_CLEANER
from ntire.teams.parts.clip_text import VOCABULARY, TextTower, Words
from ntire.teams.parts.diffbir import (
    CLEANER,
    CONTROL_V2,
    NEGATIVE,
    DiffBIR,
    FaceCleaner,
    IRControlNet,
    spaced_step,
    spaced_times,
)
from ntire.teams.parts.ldm_names import unet_names, vae_names
from ntire.teams.parts.pisa_sr import PisaSr
from ntire.teams.parts.stable_diffusion import SD21, StableDiffusion, signal_share
from tests.teams.published import (
    OpenClipBlock,
    beginning_with,
    listed_shapes,
    open_clip_names,
    shapes_of,
    under_published_names,
)

STABLE_DIFFUSION = listed_shapes("stable_diffusion_2_1")


@pytest.fixture(scope="module")
def stage():
    """Small and random; the control has something to say."""
    torch.manual_seed(1)
    built = DiffBIR(width=32).eval().requires_grad_(False)
    for conv in built.control.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1):
            nn.init.normal_(conv.weight, std=0.05)
    return built


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 30, generator=torch.Generator().manual_seed(2))


def restored(stage, picture, **options):
    with torch.no_grad():
        return stage(picture, **{"steps": 2, "side": 64} | options)


def test_a_checkpoint_of_the_cleaner_with_the_published_names_loads_and_runs(tmp_path):
    torch.manual_seed(0)
    state = {
        name: torch.zeros(shape, dtype=torch.long) if name.endswith("_index") else torch.randn(shape) * 0.02
        for name, shape in listed_shapes("diffbir_cleaner").items()
    }
    torch.save(state, tmp_path / CLEANER.file)
    cleaner = FaceCleaner().eval().requires_grad_(False)
    fill_from(cleaner, CLEANER, tmp_path / CLEANER.file)
    fill_from(FaceCleaner(), TRAINED_CLEANER, tmp_path / CLEANER.file)  # its program takes names of either kind
    assert torch.equal(cleaner.network.conv_first.weight, state["module.conv_first.1.weight"])
    assert cleaner(torch.rand(1, 3, 50, 64)).shape == (1, 3, 50, 64)
    assert sum(p.numel() for p in cleaner.parameters()) == 15_792_587


@pytest.fixture
def checkpoint(stage):
    """Stable Diffusion's three parts in the names of its authors."""
    base = stage.base
    state = {"model_ema.decay": torch.tensor(0.99)}
    for prefix, own, to_ours in (
        ("model.diffusion_model.", base.unet, unet_names),
        ("first_stage_model.", base.vae, vae_names),
    ):
        renamed = under_published_names(own.state_dict(), beginning_with(prefix, STABLE_DIFFUSION), to_ours)
        state |= {prefix + name: value for name, value in renamed.items()}
    text = {f"cond_stage_model.model.{name}": value for name, value in open_clip_names(base.text.transformer).items()}
    assert text.keys() <= STABLE_DIFFUSION.keys()
    return state | text


def test_one_file_of_stable_diffusion_fills_unet_vae_and_text(checkpoint, tmp_path, stage):
    torch.save({"state_dict": checkpoint}, tmp_path / SD21.file)
    other = StableDiffusion(width=32)
    fill_from(other, SD21, tmp_path / SD21.file)
    for name, value in stage.base.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    del checkpoint["first_stage_model.encoder.conv_in.bias"]
    torch.save({"state_dict": checkpoint}, tmp_path / SD21.file)
    with pytest.raises(UserError, match="missing encoder.conv_in.bias"):
        fill_from(other, SD21, tmp_path / SD21.file)


def test_the_same_file_fills_a_network_that_has_adapters_and_leaves_those(checkpoint, tmp_path, stage):
    torch.save({"state_dict": checkpoint}, tmp_path / SD21.file)
    adapted = PisaSr(width=32).base
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    fill_from(adapted, SD21, tmp_path / SD21.file)
    plain = stage.base.state_dict()
    for name, value in adapted.state_dict().items():
        expected = before[name] if ".lora_" in name else plain[name.replace(".base_layer", "")]
        assert torch.equal(value, expected), name


def test_the_names_agree_with_the_conversion_of_diffusers(stage):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    for own, to_ours, convert, prefix in (
        (stage.base.unet, unet_names, convert_ldm_unet_checkpoint, "model.diffusion_model."),
        (stage.base.vae, vae_names, convert_ldm_vae_checkpoint, "first_stage_model."),
    ):
        published = under_published_names(own.state_dict(), beginning_with(prefix, STABLE_DIFFUSION), to_ours)
        theirs = convert({prefix + name: value for name, value in published.items()}, config=dict(own.config))
        ours = to_ours(published)
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_a_file_of_the_control_loads_under_its_published_names(tmp_path, stage):
    published = listed_shapes("diffbir_control")
    torch.save(under_published_names(stage.control.state_dict(), published, unet_names), tmp_path / CONTROL_V2.file)
    other = IRControlNet(width=32)
    fill_from(other, CONTROL_V2, tmp_path / CONTROL_V2.file)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in stage.control.state_dict().items())


def test_it_restores_at_the_size_of_the_input_and_the_seed_alone_decides(stage, picture):
    once = restored(stage, picture)
    assert once.shape == picture.shape
    assert 0 <= float(once.min()) <= float(once.max()) <= 1
    torch.manual_seed(7)
    assert torch.equal(restored(stage, picture), once)
    assert not torch.equal(restored(stage, picture, seed=232), once)


def test_prompts_and_strength_matter_where_they_should(stage, picture):
    once = restored(stage, picture)
    assert not torch.equal(restored(stage, picture, prompt="a face"), once)
    assert not torch.equal(restored(stage, picture, negative="blurry"), once)
    assert not torch.equal(restored(stage, picture, strength=0.5), once)
    alone = restored(stage, picture, guidance=1.0)
    assert torch.equal(restored(stage, picture, guidance=1.0, negative="blurry"), alone)


def test_guidance_goes_from_the_negative_prompt_through_the_positive_one(stage):
    clean = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    seen = []
    original = stage._noise
    stage._noise = lambda *words: seen.append(original(*words)) or seen[-1]
    try:
        with torch.no_grad():
            options = {"steps": 1, "strength": 1.0, "prompt": "sharp", "negative": NEGATIVE, "seed": 5}
            guided = stage.diffuse(clean, guidance=4.0, **options)
    finally:
        del stage._noise
    noise = seen[1] + 4.0 * (seen[0] - seen[1])
    share = signal_share((0,))
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    latent = (start - (1 - share).sqrt() * noise) / share.sqrt()
    assert torch.allclose(guided, stage.base.decode(latent), atol=1e-4)


def test_a_control_of_zeros_leaves_the_unet_as_it_is(stage):
    quiet = IRControlNet(width=32).requires_grad_(False)
    latent, hint, prompt = torch.rand(1, 4, 8, 8), torch.rand(1, 4, 8, 8), stage.base.text([""])
    residuals = quiet(latent, hint, torch.tensor([5]), prompt)
    assert len(residuals) == 13
    assert all(float(one.abs().sum()) == 0 for one in residuals)
    loud = stage.control(latent, hint, torch.tensor([5]), prompt)
    with_hint = stage.control(latent, hint + 1, torch.tensor([5]), prompt)
    assert all(not torch.equal(one, other) for one, other in zip(loud, with_hint, strict=True))


def test_the_control_equals_the_unet_s_own_first_half(stage):
    """With the UNet's weights, and none on the hint, what it passes on is what the UNet passes on."""
    unet, control = stage.base.unet, IRControlNet(width=32).requires_grad_(False)
    own = {name: value for name, value in unet.state_dict().items() if name in control.state_dict()}
    own["conv_in.weight"] = torch.cat((own["conv_in.weight"], torch.zeros(32, 4, 3, 3)), dim=1)
    control.load_state_dict(own, strict=False)
    for conv in (*control.zero_convs, control.middle_block_out):
        nn.init.dirac_(conv[0].weight)
    passed = []
    hooks = [block.register_forward_hook(lambda _, __, out: passed.extend(out[1])) for block in unet.down_blocks]
    hooks.append(unet.mid_block.register_forward_hook(lambda _, __, out: passed.append(out)))
    latent, prompt = torch.rand(1, 4, 8, 8), stage.base.text([""])
    unet(latent, torch.tensor([321]), prompt)
    for hook in hooks:
        hook.remove()
    residuals = control(latent, torch.rand(1, 4, 8, 8), torch.tensor([321]), prompt)
    for ours, theirs in zip(residuals[1:], passed, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_without_a_cleaner_the_picture_itself_is_the_condition(picture):
    torch.manual_seed(1)
    stage = DiffBIR(width=32, cleaner=False).eval().requires_grad_(False)
    assert stage.cleaner is None
    seen = []
    original = stage.diffuse
    stage.diffuse = lambda clean, **options: seen.append(clean) or original(clean, **options)
    restored(stage, picture)
    assert torch.equal(seen[0], F.interpolate(picture, size=(68, 64), mode="bicubic", antialias=True))


def test_the_steps_are_those_of_diffusers_ddpm_at_the_spaced_times():
    from diffusers import DDPMScheduler

    steps = 7
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="leading"
    )
    scheduler.set_timesteps(timesteps=list(reversed(spaced_times(steps))))
    latent = torch.randn(1, 4, 3, 5)
    for number in range(steps - 1, -1, -1):
        noise = torch.randn(1, 4, 3, 5)
        one, two = (torch.Generator().manual_seed(9) for _ in range(2))
        ours = spaced_step(latent, lambda _, __, noise=noise: noise, number, steps, one)
        theirs = scheduler.step(noise, spaced_times(steps)[number], latent, generator=two).prev_sample
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        latent = ours


def test_the_times_are_spaced_from_the_first_to_the_last():
    assert spaced_times(50)[:3] == (0, 20, 41)
    assert spaced_times(75)[:4] == (0, 14, 27, 40)
    for steps in (1, 30, 50, 75, 100, 1000):
        times = spaced_times(steps)
        assert len(set(times)) == steps
        assert times[0] == 0
        assert times[-1] == (999 if steps > 1 else 0)


@pytest.fixture
def published_words(tmp_path):
    """OpenAI's own list of pairs, where the package `clip` (of pyiqa) is installed."""
    from pathlib import Path

    folder = Path(pytest.importorskip("clip").__file__).parent
    words = Words()
    fill_from(words, VOCABULARY, folder / VOCABULARY.file)
    return words


@pytest.mark.filterwarnings("ignore")
def test_prompts_become_openai_s_numbers(published_words):
    import clip

    prompts = ["", NEGATIVE, "It's a face, isn't it? Größe 32k", "word " * 100]
    ours = published_words(prompts)
    theirs = clip.tokenize(prompts, truncate=True)
    for row, other in zip(ours, theirs, strict=True):
        length = int((other != 0).sum())
        assert torch.equal(row[:length], other[:length])
        assert bool((row[length:] == published_words.end).all())
    assert len(published_words) == 49_408


def test_words_go_with_the_weights_and_a_wrong_list_is_refused(tmp_path):
    words = Words(merges=2, pad=0)
    (tmp_path / "words.txt.gz").write_bytes(gzip.compress(b"#version\na b</w>\nc ab</w>\n"))
    spelled = words(["cab"])
    assert len(set(spelled[0].tolist())) == 6
    words.take(tmp_path / "words.txt.gz", "")
    assert words(["cab"])[0, :4].tolist() == [514, 513, 515, 0]
    other = Words(merges=2, pad=0)
    other.load_state_dict(words.state_dict())
    assert torch.equal(other(["cab ab"]), words(["cab ab"]))
    with pytest.raises(UserError, match="expected 3 pairs"):
        Words(merges=3).take(tmp_path / "words.txt.gz", "")
    (tmp_path / "words.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match="not CLIP's list"):
        words.take(tmp_path / "words.txt.gz", "")


def test_the_text_tower_is_openclip_s_without_its_last_block():
    torch.manual_seed(0)
    text = TextTower(width=128, layers=2, merges=0).eval().requires_grad_(False)
    state = open_clip_names(text.transformer)
    x = state["token_embedding.weight"][text.words(["a face"])] + state["positional_embedding"]
    for layer in range(2):
        block = OpenClipBlock(128, 2).eval().requires_grad_(False)
        prefix = f"transformer.resblocks.{layer}."
        block.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
        x = block(x)
    theirs = F.layer_norm(x, (128,), state["ln_final.weight"], state["ln_final.bias"])
    assert torch.allclose(text(["a face"]), theirs, atol=1e-5)
    assert shapes_of(text.named_as_here(state)) == shapes_of(text.transformer.state_dict())
