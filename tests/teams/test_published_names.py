"""Every weights file of the face pipelines has a place that takes its published names and shapes, and uses them right."""

import functools
import warnings
from dataclasses import dataclass

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from ntire import UserError
from ntire.method import catalogue
from ntire.method.state_dict import fill_from
from ntire.teams.parts import sdxl_turbo, tsd_sr
from ntire.teams.parts.adapters import fill_plain
from ntire.teams.parts.gfpgan import Gfpgan
from ntire.teams.parts.pisa_sr import PARTS, PisaSr
from ntire.teams.parts.sdxl_turbo import SdxlTurbo
from ntire.teams.parts.stable_diffusion import new_unet, new_vae
from ntire.teams.parts.tsd_sr import TsdSr
from ntire.teams.parts.unaligned import Unaligned
from tests.teams.published import listed_shapes, on_meta


@dataclass(frozen=True)
class File:
    """What is in a published file."""

    table: str
    """Its list."""
    under: str = ""
    """The name that its tensors are under, if any."""
    cut: str = ""
    """Of the list's names: where two files differ in a prefix only."""


LISTED = {
    "512-base-ema.ckpt": File("stable_diffusion_2_1", under="state_dict"),
    "DAPE.pth": File("dape"),
    "GFPGANv1.3.pth": File("gfpgan", under="params_ema"),
    "GFPGANv1.4.pth": File("gfpgan", under="params_ema"),
    "RealESRGAN_x2plus.pth": File("real_esrgan_x2plus", under="params_ema"),
    "SUPIR-v0Q.ckpt": File("supir_v0q"),
    "clip_l.safetensors": File("clip_l"),
    "codeformer.pth": File("codeformer", under="params_ema"),
    "cx-0080000.pt": File("diffbir_control"),
    "detection_Resnet50_Final.pth": File("retinaface_resnet50"),
    "diffbir_v1_face.pth": File("diffbir_control"),
    "diffbir_v2.pth": File("diffbir_control"),
    "face_swinir_v1.ckpt": File("diffbir_cleaner"),
    "flux1-ae.safetensors": File("flux1_ae"),
    "flux1-dev.safetensors": File("flux1_dev"),
    "flux1-upscaler.safetensors": File("flux1_upscaler"),
    "ftn.pth": File("face_tone"),
    "iil-net_g_final.pth": File("iil_adapters", under="params"),
    "ots_train_ffa_3_19.pk": File("ffa_net", under="model"),
    "parsing_parsenet.pth": File("parsenet"),
    "pisa-map-MS_LIQE.pt": File("ms_liqe"),
    "pisa_sr.pkl": File("pisa_sr", under="state_dict_unet"),
    "ram_plus_swin_large_14m.pth": File("ram_plus", under="model"),
    "ram_swin_large_14m.pth": File("ram", under="model"),
    "sd3-medium/transformer.safetensors": File("sd3_transformer"),
    "sd3-medium/vae.safetensors": File("sd3_vae"),
    "sd_xl_base_1.0_0.9vae.safetensors": File("sdxl_base"),
    "sdxl-turbo/unet.safetensors": File("sdxl_unet"),
    "sdxl-turbo/vae.safetensors": File("sdxl_vae"),
    "seesr/controlnet.safetensors": File("seesr_controlnet"),
    "stablesr_turbo.ckpt": File("stablesr_turbo", under="state_dict"),
    "t5xxl_fp16.safetensors": File("t5xxl"),
    "tsd-sr/transformer.safetensors": File("tsd_sr_transformer"),
    "tsd-sr/vae.safetensors": File("tsd_sr_vae"),
    "uphorse-swinir.pt": File("diffbir_cleaner", cut="module."),
    "v2-1_512-ema-pruned.ckpt": File("stable_diffusion_2_1", under="state_dict"),
    "vqgan_cfw_00011.ckpt": File("stablesr_cfw", under="state_dict"),
}
UNLISTED = {
    "RN50.pt": "pyiqa reads it",
    "musiq_koniq_ckpt-e95806b9.pth": "pyiqa reads it",
    "niqe_modelparameters.mat": "pyiqa reads it",
    "bpe_simple_vocab_16e6.txt.gz": "words, not tensors",
    "iil-prompt_embeds.pt": "one tensor without a name",
    "iil-add_text_embeds.pt": "one tensor without a name",
    "iil-add_time_ids.pt": "one tensor without a name",
    "tsd-sr/prompt_embeds.pt": "one tensor without a name",
    "tsd-sr/pool_embeds.pt": "one tensor without a name",
    "ram_tag_list.txt": "words, not tensors",
    "ram_tag_list_threshold.txt": "numbers, not tensors",
}
"""Files without tensors whose names we map, and why."""


@functools.cache
def declared():
    """How each file is declared, and by which method first, for each part that is filled from it."""
    found = {}
    for method in catalogue.methods("face"):
        for weights in method.weights:
            found.setdefault(weights.file, {}).setdefault(weights.into, (method, weights))
    return found


@functools.cache
def full_size(method):
    with torch.device("meta"):
        return method()


def write(file, tensors, path):
    """As it is published, in a file of shapes only; the suffix is not part of what is tested."""
    torch.save({file.under: tensors} if file.under else tensors, path)
    return path


def test_every_file_of_the_face_pipelines_has_a_list_or_a_reason():
    assert set(declared()) == LISTED.keys() | UNLISTED.keys()


@pytest.mark.parametrize("name", LISTED)
def test_a_published_file_fills_all_full_size_parts_and_one_with_a_tensor_less_or_of_another_shape_none(name, tmp_path):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    file = LISTED[name]
    shapes = {key.removeprefix(file.cut): shape for key, shape in listed_shapes(file.table).items()}
    matrices = [key for key, shape in shapes.items() if len(shape) > 1]
    # Several, as a part need not use all that is in its file.
    less = {key: shape for key, shape in shapes.items() if key not in matrices[2::7]}
    other = shapes | {key: (*shapes[key][:-1], shapes[key][-1] + 1) for key in matrices[3::7]}
    right, wrong = write(file, on_meta(shapes), tmp_path / "right.pth"), tmp_path / "wrong.pth"
    for into, (method, weights) in declared()[name].items():
        part = full_size(method).get_submodule(into)
        fill_from(part, weights, right)
        for state in (less, other):
            write(file, on_meta(state), wrong)
            with pytest.raises(UserError, match=r"difference\(s\)"):
                fill_from(part, weights, wrong)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("GFPGANv1.4.pth", lambda: Gfpgan(side=64, width=32)),
        ("parsing_parsenet.pth", lambda: Unaligned(side=64)),
    ],
)
def test_a_small_copy_s_published_file_makes_another_restore_as_it_does(name, build, tmp_path):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    ((_, weights),) = declared()[name].values()
    file = LISTED[name]
    one, other = (build().eval().requires_grad_(False) for _ in range(2))
    inside = {"GFPGANv1.4.pth": "net", "parsing_parsenet.pth": "parser"}[name]
    state = plain(one.get_submodule(inside))
    assert state.keys() <= listed_shapes(file.table).keys()
    write(file, state, tmp_path / name)
    fill_from(other.get_submodule(inside), weights, tmp_path / name)
    face = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        made = [stage._mask(face) if name == "parsing_parsenet.pth" else stage(face) for stage in (one, other)]
    assert torch.equal(*made)


def test_iil_s_file_may_hold_the_base_model_with_its_adapters(tmp_path):
    adapters = listed_shapes("iil_adapters")
    adapted = {name.split(".lora_")[0] for name in adapters}
    base = {
        f"{part}.{name}": shape for part in ("unet", "vae") for name, shape in listed_shapes(f"sdxl_{part}").items()
    }
    wrapped = {
        f"{layer}.base_layer.{kind}" if layer in adapted else f"{layer}.{kind}": shape
        for name, shape in base.items()
        for layer, _, kind in [name.rpartition(".")]
    }
    ((method, weights),) = declared()["iil-net_g_final.pth"].values()
    path = write(File("", under="params"), on_meta(wrapped | adapters), tmp_path / weights.file)
    fill_from(full_size(method).get_submodule(weights.into), weights, path)
    write(File("", under="params"), on_meta(adapters | {"unet.conv_in.bias": (320,)}), path)
    with pytest.raises(UserError, match="missing unet.conv_in.weight"):
        fill_from(full_size(method).get_submodule(weights.into), weights, path)


def modules_of(table, cut="", adapter=""):
    """The layers that a list has adapters for."""
    return {
        name.removeprefix(cut).split(".lora_A.")[0]
        for name in listed_shapes(table)
        if ".lora_A." in name and adapter in name
    }


def adapters_of(network, names):
    """Random ones, as they are saved, all of whose names the list has."""
    own = {name: value for name, value in network.state_dict().items() if ".lora_" in name}
    for value in own.values():
        torch.nn.init.normal_(value, std=0.1)
    assert own
    return {names(name): value.clone() for name, value in own.items()}


def plain(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_sdxl_turbo_and_iil_s_adapters_work_as_diffusers_and_peft_do_it(tmp_path):
    torch.manual_seed(0)
    stage = SdxlTurbo(width=32, rank=2).eval().requires_grad_(False)
    unet, vae = sdxl_turbo.new_unet(32, 204, 128).eval(), new_vae(32).eval()
    for part, network in (("unet", unet), ("vae", vae)):
        assert network.state_dict().keys() <= listed_shapes(f"sdxl_{part}").keys()
        save_file(plain(network), tmp_path / f"{part}.safetensors")
        stage.take(tmp_path / f"{part}.safetensors", "")
        # As the team's program adds them.
        layers = ["to_k", "to_q", "to_v", "to_out.0"] + ["conv1", "conv2"] * (part == "vae")
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=layers))
    state = adapters_of(unet, "unet.{}".format) | adapters_of(vae, "vae.{}".format)
    assert state.keys() <= listed_shapes("iil_adapters").keys()
    torch.save({"params": state}, tmp_path / "net_g.pth")
    stage.take(tmp_path / "net_g.pth", "")
    given = {
        "encoder_hidden_states": torch.rand(1, 5, 204),
        "added_cond_kwargs": {"text_embeds": torch.rand(1, 128), "time_ids": torch.rand(1, 6)},
    }
    latent, picture = torch.rand(1, 4, 4, 4), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(stage.unet(latent, 999, **given).sample, unet(latent, 999, **given).sample)
        torch.testing.assert_close(stage.vae(picture).sample, vae(picture).sample)


def test_pisa_sr_s_adapters_work_as_peft_does_it_for_the_layers_that_the_file_names(tmp_path):
    torch.manual_seed(0)
    stage = PisaSr(width=32).eval().requires_grad_(False)
    unet = new_unet(32, 64).eval()
    fill_plain(stage.base.unet, plain(unet), tmp_path)
    names = [f"default_{part}_{kind}" for kind in ("pix", "sem") for part in PARTS]
    for name in names:
        config = LoraConfig(
            r=4, init_lora_weights="gaussian", target_modules=sorted(modules_of("pisa_sr", adapter=f".{name}."))
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            unet.add_adapter(config, adapter_name=name)
    state = adapters_of(unet, str)
    assert state.keys() == listed_shapes("pisa_sr").keys()
    torch.save({"lora_rank_unet_pix": 4, "state_dict_unet": state}, tmp_path / "pisa_sr.pkl")
    stage.take(tmp_path / "pisa_sr.pkl", "")
    latent, words = torch.rand(1, 4, 8, 8), torch.rand(1, 5, 64)
    for kinds in (("pix",), ("pix", "sem")):
        unet.set_adapters([name for name in names if name.endswith(kinds)])
        with torch.no_grad():
            expected = unet(latent, torch.tensor(1), words).sample
            torch.testing.assert_close(stage._residual(latent, words, *kinds), expected, rtol=1e-4, atol=1e-4)


def test_stable_diffusion_3_and_tsd_sr_s_adapters_work_as_diffusers_and_peft_do_it(tmp_path):
    torch.manual_seed(0)
    stage = TsdSr(heads=1, vae_width=32, rank=2).eval().requires_grad_(False)
    transformer, vae = tsd_sr._new_transformer(1, 32, 32).eval(), tsd_sr._new_vae(32).eval()
    for part, network in (("transformer", transformer), ("vae", vae)):
        assert network.state_dict().keys() <= listed_shapes(f"sd3_{part}").keys()
        save_file(plain(network), tmp_path / f"{part}.safetensors")
        stage.take(tmp_path / f"{part}.safetensors", "")
        layers = modules_of(f"tsd_sr_{part}", cut="transformer.") & {name for name, _ in network.named_modules()}
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=sorted(layers)))
        # Both networks' are saved as if of the transformer.
        state = adapters_of(network, lambda name: f"transformer.{name.replace('.default', '')}")
        assert state.keys() <= listed_shapes(f"tsd_sr_{part}").keys()
        save_file(state, tmp_path / "adapters.safetensors")
        stage.take(tmp_path / "adapters.safetensors", "")
    given = {
        "hidden_states": torch.rand(1, 16, 4, 4),
        "timestep": torch.tensor([1000.0]),
        "encoder_hidden_states": torch.rand(1, 5, 32),
        "pooled_projections": torch.rand(1, 32),
    }
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(stage.transformer(**given).sample, transformer(**given).sample)
        torch.testing.assert_close(stage.vae(picture).sample, vae(picture).sample)
