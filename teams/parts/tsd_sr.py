"""TSD-SR (Dong et al. 2025): Stable Diffusion 3 restores in one step, with adapters in transformer and VAE encoder.

picture -> VAE encoder + LoRA -> latent - transformer(latent, t = 1000) -> VAE decoder -> wavelet colour of the picture
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.tiling import pad_reflect
from ntire.teams.parts.adapters import adapted, fill_plain
from ntire.teams.parts.colour import wavelet_colour
from ntire.teams.parts.ldm_names import vae_names
from ntire.teams.parts.stable_diffusion import decode, encode, enlarged, need_libraries, sized
from ntire.teams.parts.stored import Stored

SCALE = 1.5305
"""Latents are multiplied by it; the shift that Stable Diffusion 3 has besides is left out, as the authors do."""
STEP = 1000.0
STRIDE = 16
RANK = 64
CHANNELS = 16
"""Of latents."""
ADAPTED = ("to_k", "to_q", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "proj", "linear", "proj_out")
ADAPTED_VAE = (
    "encoder.conv_in",
    *(
        f"encoder.down_blocks.{level}.resnets.{block}.conv{n}"
        for level in range(4)
        for block in range(2)
        for n in (1, 2)
    ),
    *(f"encoder.down_blocks.{level}.downsamplers.0.conv" for level in range(3)),
    *(f"encoder.down_blocks.{level}.resnets.0.conv_shortcut" for level in (1, 2)),
    *(f"encoder.mid_block.attentions.0.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"encoder.mid_block.resnets.{block}.conv{n}" for block in range(2) for n in (1, 2)),
    "encoder.conv_out",
)
SD3_LICENSE = "Stability AI Community License"
SD3 = "https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers"
TERMS = f"Accept the licence at {SD3} with an account of your own and download"
OWN = (
    "with a browser from https://drive.google.com/drive/folders/1XJY9Qxhz0mqjTtgDXr07oFy9eJr8jphI, which "
    "https://github.com/Microtreei/TSD-SR names."
)
LICENSE = "Apache-2.0"
WEIGHTS = (
    Weights(
        "sd3-medium/transformer.safetensors", None, SD3_LICENSE, "official", size=4_170_000_000,
        by_hand=f"{TERMS} `transformer/diffusion_pytorch_model.safetensors`.",
    ),
    Weights(
        "sd3-medium/vae.safetensors", None, SD3_LICENSE, "official", size=168_000_000,
        by_hand=f"{TERMS} `vae/diffusion_pytorch_model.safetensors`.",
    ),
    Weights(
        "tsd-sr/transformer.safetensors", None, LICENSE, "official",
        by_hand=f"Get `tsdsr/transformer.safetensors` {OWN}",
    ),
    Weights(
        "tsd-sr/vae.safetensors", None, LICENSE, "official",
        by_hand=f"Get `tsdsr/vae.safetensors` {OWN}",
    ),
    Weights(
        "tsd-sr/prompt_embeds.pt", None, LICENSE, "official", into="prompt",
        by_hand=f"Get `default/prompt_embeds.pt` {OWN}",
    ),
    Weights(
        "tsd-sr/pool_embeds.pt", None, LICENSE, "official", into="pooled",
        by_hand=f"Get `default/pool_embeds.pt` {OWN}",
    ),
)  # fmt: skip


class TsdSr(nn.Module):
    """About 2,085 M parameters of the transformer and 84 M of the VAE at full size (`heads` of 64, as many blocks)."""

    def __init__(self, heads: int = 24, vae_width: int = 128, rank: int = RANK) -> None:
        super().__init__()
        need_libraries("TSD-SR")
        full = heads == 24
        prompt_width, pooled_width = (4096, 2048) if full else (32, 32)
        self.transformer = adapted(_new_transformer(heads, prompt_width, pooled_width), rank, ADAPTED)
        self.vae = adapted(_new_vae(vae_width), rank, ADAPTED_VAE)
        self.prompt = Stored(1, None, prompt_width)
        self.pooled = Stored(1, pooled_width)

    def forward(self, image: Tensor, *, seed: int = 42, side: int = 512) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size; those smaller than `side` are enlarged meanwhile."""
        height, width = image.shape[-2:]
        large = enlarged(image, side)
        inside = large.shape[-2:]
        padded = pad_reflect(large, 0, -inside[1] % STRIDE, 0, -inside[0] % STRIDE).clamp(0, 1)
        latent = encode(self.vae, padded, SCALE, torch.Generator("cpu").manual_seed(seed))
        many = len(image)
        residual = self.transformer(
            hidden_states=latent.to(self.transformer.dtype),
            timestep=torch.full((many,), STEP, device=latent.device, dtype=self.transformer.dtype),
            encoder_hidden_states=self.prompt.value.expand(many, -1, -1),
            pooled_projections=self.pooled.value.expand(many, -1),
        ).sample
        restored = decode(self.vae, latent - residual.float(), SCALE)[..., : inside[0], : inside[1]].clamp(0, 1)
        return wavelet_colour(sized(restored, (height, width)), like=image.float()).clamp(0, 1).to(image.dtype)

    def take(self, path: Path, prefix: str) -> None:
        """Stable Diffusion 3's transformer or VAE as diffusers keeps them, or the authors' adapters of either.

        Raises UserError for another network's.
        """
        state = read_state_dict(path, prefix)
        network = (
            self.vae if any("encoder.conv_in" in name or "decoder." in name for name in state) else self.transformer
        )
        if any(".lora_" in name for name in state):
            # Published without the adapter's name, and both networks' as if of the transformer.
            named = {
                name.removeprefix("transformer.")
                .replace(".lora_A.", ".lora_A.default.")
                .replace(".lora_B.", ".lora_B.default."): value
                for name, value in state.items()
            }
            own = network.state_dict()
            fill(network, {name: value for name, value in own.items() if ".lora_" not in name} | named, path)
        else:
            fill_plain(network, vae_names(state) if network is self.vae else state, path)


def _new_transformer(heads: int, prompt_width: int, pooled_width: int) -> Any:
    from diffusers import SD3Transformer2DModel

    transformer: Any = SD3Transformer2DModel  # diffusers' constructors have no types
    return transformer(
        sample_size=128,
        patch_size=2,
        in_channels=CHANNELS,
        num_layers=heads,
        attention_head_dim=64,
        num_attention_heads=heads,
        joint_attention_dim=prompt_width,
        caption_projection_dim=heads * 64,
        pooled_projection_dim=pooled_width,
        out_channels=CHANNELS,
        pos_embed_max_size=192,
    )


def _new_vae(width: int) -> Any:
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL
    return vae(
        block_out_channels=(width, width * 2, width * 4, width * 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=1024,
    )
