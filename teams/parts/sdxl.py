"""Stable Diffusion XL (Podell et al. 2024): UNet, VAE and both text towers, filled from the one file of its authors."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.clip_text import MERGES, TwoTowers, tower_names
from ntire.teams.parts.full_precision import FullPrecision
from ntire.teams.parts.ldm_names import unet_names, vae_names
from ntire.teams.parts.sdxl_turbo import SCALE, new_unet
from ntire.teams.parts.stable_diffusion import decode, need_libraries, new_vae

SIZES = (1024, 1024, 0, 0, 1024, 1024)
"""What the UNet is told of a picture of its usual size: original size, corner of the crop, target size (section 2.2)."""
SDXL = Weights(
    "sd_xl_base_1.0_0.9vae.safetensors",
    sha256="e6bb9ea85bbf7bf6478a7c6d18b71246f22e95d41bcdd80ed40aa212c33cfeff",
    license="CreativeML Open RAIL++-M",
    provenance="official",
    urls=(
        "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0_0.9vae.safetensors",
    ),
    size=6_938_078_334,
)
"""Version 1.0 with the VAE of version 0.9."""


class Sdxl(nn.Module):
    """UNet 2,567.5 M parameters, VAE 83.65 M and text 817.7 M at full size: 13.9 GB in float32."""

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        need_libraries("Stable Diffusion XL")
        full = width == 320
        prompt_width, pooled_width = width * 32 // 5, width * 4
        self.unet = new_unet(width, prompt_width, pooled_width)
        self.vae = Vae(max(width * 2 // 5, 32))
        self.text = TwoTowers(
            prompt_width - pooled_width,
            pooled_width,
            layers=(12, 32) if full else (2, 2),
            merges=MERGES if full else 0,
        )

    def take(self, path: Path, prefix: str) -> None:
        """The authors' file. Raises UserError for another network's."""
        state = read_state_dict(path, prefix)

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}

        small, large = part("conditioner.embedders.0.transformer."), part("conditioner.embedders.1.model.")
        fill(self.unet, unet_names(part("model.diffusion_model.")), path)
        fill(self.vae.network, vae_names(part("first_stage_model.")), path)
        fill(self.text.small, tower_names(self.text.small, small), path)
        fill(self.text.large, tower_names(self.text.large, large), path)


class Vae(FullPrecision):
    """The VAE, whose activations are too large for float16."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.network = new_vae(width)

    def latent(self, features: Tensor) -> Tensor:
        """The latent (B, 4, H / 8, W / 8) that an encoder's result means: the posterior's mean, scaled."""
        mean: Tensor = self.network.quant_conv(features).chunk(2, dim=1)[0]
        return mean * SCALE

    def decode(self, latent: Tensor) -> Tensor:
        """The picture of a latent, float32, [0, 1] but not clamped."""
        return decode(self.network, latent, SCALE)


def conditions(network: Any, times: Tensor, pooled: Tensor) -> Tensor:
    """What a UNet, or a control network like it, is told of time, prompt (B, pooled width) and size, as one embedding."""
    sizes = network.add_time_proj(torch.tensor(SIZES, device=pooled.device)).flatten().expand(len(pooled), -1)
    told: Tensor = network.add_embedding(torch.cat((pooled, sizes.to(pooled.dtype)), dim=1))
    return told + network.time_embedding(network.time_proj(times).to(pooled.dtype))
