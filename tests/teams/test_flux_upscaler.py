"""What the FLUX stage promises: the pictures of diffusers' own pipeline, and its published files."""

import re

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file

from ntire import UserError
from ntire.method.count import count
from ntire.teams.face.ipcv import Ipcv
from ntire.teams.parts.flux_names import flux_names
from ntire.teams.parts.flux_upscaler import WORDS, FluxUpscaler, from_tokens, to_tokens
from tests.teams.published import listed_shapes


@pytest.fixture(scope="module")
def stage():
    torch.manual_seed(1)
    built = FluxUpscaler(heads=1, layers=1, vae_width=32).eval().requires_grad_(False)
    for parameter in built.control.network.controlnet_blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # they begin at zero
    return built


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(2))


def test_it_draws_what_diffusers_pipeline_draws(stage, picture):
    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            shift=3.0,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=stage.vae.network,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=stage.transformer.network,
        controlnet=stage.control.network,
    )
    stage.vae.network.register_to_config(scaling_factor=0.3611, shift_factor=0.1159)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.image_processor.config.vae_scale_factor = 8
    theirs = pipeline(
        prompt_embeds=stage.t5(),
        pooled_prompt_embeds=stage.clip(),
        control_image=picture,
        height=32,
        width=48,
        num_inference_steps=3,
        guidance_scale=3.5,
        controlnet_conditioning_scale=0.6,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    ours = stage(picture, steps=3, guidance=3.5, strength=0.6, seed=7)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(stage(picture, steps=3, strength=0.0, seed=7), ours, atol=1e-4)


def test_tokens_are_squares_of_the_latent():
    latent = torch.rand(2, 16, 4, 6)
    tokens = to_tokens(latent)
    assert tokens.shape == (2, 6, 64)
    assert torch.equal(tokens[0, 1], latent[0, :, 0:2, 2:4].flatten())
    assert torch.equal(from_tokens(tokens, (4, 6)), latent)


def test_t5_reads_an_empty_prompt_as_its_end_alone(stage):
    assert stage.t5().shape == (1, WORDS, 32)
    words = torch.zeros(1, WORDS, dtype=torch.long)
    words[0, 0] = 1
    assert torch.equal(stage.t5(), stage.t5.network(words).last_hidden_state)


def test_published_files_fill_its_parts(stage, tmp_path):
    other = FluxUpscaler(heads=1, layers=1, vae_width=32)
    clip = {
        f"text_model.{name.removeprefix('text_model.')}": value.clone()
        for name, value in stage.clip.network.state_dict().items()
    }
    save_file(clip | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, tmp_path / "clip.safetensors")
    other.clip.take(tmp_path / "clip.safetensors", "")
    t5 = {f"encoder.{name}": value.clone() for name, value in stage.t5.network.state_dict().items()}
    t5["shared.weight"] = t5.pop("encoder.embed_tokens.weight")
    save_file(t5, tmp_path / "t5.safetensors")
    other.t5.take(tmp_path / "t5.safetensors", "")
    save_file(dict(stage.vae.network.state_dict()), tmp_path / "vae.safetensors")
    other.vae.take(tmp_path / "vae.safetensors", "")
    save_file(dict(stage.transformer.network.state_dict()), tmp_path / "flux.safetensors")
    other.transformer.take(tmp_path / "flux.safetensors", "")
    for part in ("clip", "t5", "vae", "transformer"):
        own = getattr(other, part).state_dict()
        assert all(torch.equal(own[name], value) for name, value in getattr(stage, part).state_dict().items()), part
    with pytest.raises(UserError, match="missing"):
        other.vae.take(tmp_path / "clip.safetensors", "")


def test_the_authors_own_names_fill_the_transformer(stage, tmp_path):
    published = authors_names(stage.transformer.network, 1, 2)
    assert published.keys() == {name for name in listed_shapes("flux1_dev") if not FURTHER_BLOCKS.match(name)}
    save_file({name: value.clone() for name, value in published.items()}, tmp_path / "flux.safetensors")
    other = FluxUpscaler(heads=1, layers=1, vae_width=32)
    other.transformer.take(tmp_path / "flux.safetensors", "")
    own = stage.transformer.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in other.transformer.state_dict().items())
    save_file({"double_blocks.0.strange.weight": torch.ones(2)} | published, tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match="unexpected double_blocks.0.strange"):
        other.transformer.take(tmp_path / "flux.safetensors", "")


def test_the_authors_names_become_what_diffusers_makes_of_them():
    """The published widths, of which diffusers' conversion knows no others, at a depth of one."""
    published = {
        name: torch.rand(shape[0], *(min(side, 2) for side in shape[1:]))
        for name, shape in listed_shapes("flux1_dev").items()
        if not FURTHER_BLOCKS.match(name)
    }
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(published))
    ours = flux_names(published)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


FURTHER_BLOCKS = re.compile(r"double_blocks\.[1-9]|single_blocks\.([2-9]|\d\d)")
"""Those that a copy with one double and two single blocks has not."""


def authors_names(network, double, single):
    """A transformer as Black Forest Labs name its tensors."""
    own = dict(network.state_dict())
    state = {}

    def move(theirs, *ours):
        for kind in ("weight", "bias"):
            if f"{ours[0]}.{kind}" in own:
                state[f"{theirs}.{kind}"] = torch.cat([own.pop(f"{one}.{kind}") for one in ours])

    for theirs, ours in (("time", "timestep"), ("guidance", "guidance"), ("vector", "text")):
        for number, layer in ((1, "in"), (2, "out")):
            move(f"{theirs}_in.{layer}_layer", f"time_text_embed.{ours}_embedder.linear_{number}")
    move("img_in", "x_embedder")
    move("txt_in", "context_embedder")
    for number in range(double):
        block, there = f"transformer_blocks.{number}", f"double_blocks.{number}"
        for side, mark, kind in (("img", "", "to_"), ("txt", "_context", "add_")):
            names = ("q", "k", "v") if side == "img" else ("q_proj", "k_proj", "v_proj")
            move(f"{there}.{side}_mod.lin", f"{block}.norm1{mark}.linear")
            move(f"{there}.{side}_attn.qkv", *(f"{block}.attn.{kind}{name}" for name in names))
            move(f"{there}.{side}_attn.proj", f"{block}.attn.{'to_out.0' if side == 'img' else 'to_add_out'}")
            move(f"{there}.{side}_mlp.0", f"{block}.ff{mark}.net.0.proj")
            move(f"{there}.{side}_mlp.2", f"{block}.ff{mark}.net.2")
            for one in ("query", "key"):
                norm = f"norm_{one[0]}" if side == "img" else f"norm_added_{one[0]}"
                state[f"{there}.{side}_attn.norm.{one}_norm.scale"] = own.pop(f"{block}.attn.{norm}.weight")
    for number in range(single):
        block, there = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
        move(f"{there}.modulation.lin", f"{block}.norm.linear")
        move(f"{there}.linear1", *(f"{block}.attn.to_{one}" for one in "qkv"), f"{block}.proj_mlp")
        move(f"{there}.linear2", f"{block}.proj_out")
        for one in ("query", "key"):
            state[f"{there}.norm.{one}_norm.scale"] = own.pop(f"{block}.attn.norm_{one[0]}.weight")
    for kind in ("weight", "bias"):  # diffusers has scale and shift the other way round
        scale, shift = own.pop(f"norm_out.linear.{kind}").chunk(2)
        state[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    move("final_layer.linear", "proj_out")
    assert not own
    return state


def test_its_size_is_the_published_one():
    with torch.device("meta"):
        built = FluxUpscaler()
    sizes = {
        name: sum(p.numel() for p in getattr(built, name).parameters()) for name in ("transformer", "control", "t5")
    }
    assert sizes["transformer"] == 11_901_408_320
    assert sizes["t5"] == 4_762_310_656
    assert 2 * sizes["control"] == pytest.approx(3.58e9, rel=0.01), "half a file of bfloat16"


def test_all_steps_are_counted():
    class OneStep(Ipcv):
        def __init__(self):
            super().__init__(**Ipcv.tiny | {"steps": 1})

    class Four(Ipcv):
        def __init__(self):
            super().__init__(**Ipcv.tiny | {"steps": 4})

    class Two(Ipcv):
        def __init__(self):
            super().__init__(**Ipcv.tiny)

    one, two, four = (count(method, (64, 64)).macs_g for method in (OneStep, Two, Four))
    assert four - two == pytest.approx(2 * (two - one))
