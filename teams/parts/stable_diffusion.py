"""Stable Diffusion 2.1 and SD-Turbo, which share one architecture, as restoration uses them.

UNet 865.9 M parameters and VAE 83.65 M at full width (Rombach et al. 2022), on diffusers.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.weights import fill

LATENT = 8
"""Pixels of the picture along one latent pixel."""
SCALE = 0.18215
"""Latents are multiplied by it before the UNet."""
TOKENS = 77
"""Length of a prompt."""


def need_libraries(team: str) -> None:
    """Raise UserError (exit code 3) unless diffusers, peft and transformers can be imported."""
    # peft loads bitsandbytes where it is; nothing here is quantised.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import diffusers  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{team} needs diffusers and peft: {error}. Install them with `pip install 'ntire[diffusion]'`.",
            exit_code=3,
        ) from None


def new_unet(width: int = 320, prompt_width: int = 1024) -> Any:
    """The UNet with random weights: latents (B, 4, h, w), a time and a prompt (B, 77, prompt_width) to noise (B, 4, h, w)."""
    from diffusers import UNet2DConditionModel

    widths = tuple(width * times for times in (1, 2, 4, 4))
    unet: Any = UNet2DConditionModel  # diffusers' constructors have no types
    return unet(
        sample_size=64,
        block_out_channels=widths,
        cross_attention_dim=prompt_width,
        attention_head_dim=[max(one // 64, 1) for one in widths],
        use_linear_projection=True,
    )


def new_vae(width: int = 128) -> Any:
    """The VAE with random weights: pictures (B, 3, H, W) in [-1, 1], sides divisible by 8, to latents (B, 4, H / 8, W / 8)."""
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL
    return vae(
        block_out_channels=(width, width * 2, width * 4, width * 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def signal_share(steps: tuple[int, ...]) -> Tensor:
    """Stable Diffusion's cumulative alphas at some of its 1000 steps: the share of the variance that is signal."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64, device="cpu") ** 2
    return (1 - betas).cumprod(0)[list(steps)].float()


def clean_latent(noisy: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """The clean latent that a prediction of the noise means (Ho et al. 2020, eq. 15)."""
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


def missing_parts(folder: Path) -> list[str]:
    """Which folders of a base model, as diffusers keeps it, are not in `folder`."""
    return [name for name in ("unet", "vae", "text_encoder", "tokenizer") if not (folder / name).is_dir()]


def fill_base(network: nn.Module, folder: Path, added: tuple[str, ...] = (".lora_",)) -> None:
    """Fill a UNet or VAE from its folder; tensors whose names contain one of `added` stay as they are.

    Layers that peft has wrapped are found by their plain names. Raises UserError for a folder that cannot be read or is
    another network's.
    """
    try:
        loaded, found = type(network).from_pretrained(  # type: ignore[attr-defined]
            folder, local_files_only=True, output_loading_info=True
        )
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read as diffusers keeps a network: {str(error).splitlines()[0]}", exit_code=3
        ) from None
    # diffusers fills with random numbers what a file lacks.
    if found["missing_keys"]:
        raise UserError(f"{folder}: lacks {len(found['missing_keys'])} tensors, such as {found['missing_keys'][0]}.")
    base = loaded.state_dict()
    own = network.state_dict()
    kept = {name: value for name, value in own.items() if any(mark in name for mark in added)}
    inner = {name.replace(".base_layer", ""): name for name in own if name not in kept}
    fill(network, {inner.get(name, name): value for name, value in base.items()} | kept, folder)


def empty_prompt(folder: Path) -> Tensor:
    """What the text encoder of a base model makes of the empty prompt: (1, 77, width)."""
    from transformers import CLIPTextModel, CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")("", padding="max_length", max_length=TOKENS)
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    with torch.no_grad():
        prompt: Tensor = text(torch.tensor([words["input_ids"]])).last_hidden_state
    return prompt
