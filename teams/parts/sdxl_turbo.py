"""SDXL-Turbo (Sauer et al. 2024) as a restoration network of one step: picture -> VAE -> UNet at t = 999 -> VAE -> picture.

What the UNet gives is the clean latent itself. Low-rank adapters in UNet and VAE are all that was trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.adapters import adapted, fill_plain
from ntire.teams.parts.ldm_names import vae_names
from ntire.teams.parts.stable_diffusion import decode, encode, fill_base, need_libraries, new_vae
from ntire.teams.parts.stored import Stored

SCALE = 0.13025
"""Latents are multiplied by it before the UNet."""
STEP = 999
TOKENS = 77
ADAPTED_UNET = ("to_k", "to_q", "to_v", "to_out.0")
ADAPTED_VAE = (*ADAPTED_UNET, "conv1", "conv2")
LICENSE = "sai-nc-community (non-commercial)"
TERMS = "Read the licence at https://huggingface.co/stabilityai/sdxl-turbo first: research and other non-commercial use only."
HUB = "https://huggingface.co/stabilityai/sdxl-turbo/resolve/main"
WEIGHTS = (
    Weights(
        "sdxl-turbo/unet.safetensors", None, LICENSE, "official",
        urls=(f"{HUB}/unet/diffusion_pytorch_model.safetensors",), size=10_270_000_000, by_hand=TERMS,
    ),
    Weights(
        "sdxl-turbo/vae.safetensors", None, LICENSE, "official",
        urls=(f"{HUB}/vae/diffusion_pytorch_model.safetensors",), size=335_000_000, by_hand=TERMS,
    ),
)  # fmt: skip
"""The base model; adapters and embeddings are a team's own."""


class SdxlTurbo(nn.Module):
    """2,567.5 M parameters of the UNet and 83.65 M of the VAE at full size, and adapters: 10.8 GB in float32."""

    def __init__(self, width: int = 320, rank: int = 32) -> None:
        super().__init__()
        need_libraries("SDXL-Turbo")
        prompt_width, pooled_width = width * 32 // 5, width * 4
        self.unet = adapted(new_unet(width, prompt_width, pooled_width), rank, ADAPTED_UNET)
        self.vae = adapted(new_vae(max(width * 2 // 5, 32)), rank, ADAPTED_VAE)
        self.prompt = Stored(1, TOKENS, prompt_width)
        self.pooled = Stored(1, pooled_width)
        self.sizes = Stored(1, 6)
        """What SDXL is told of a picture's size: original, corner, target."""

    def forward(self, image: Tensor, *, seed: int | None = 0) -> Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], sides divisible by 32. The latent is a draw from the encoder's posterior, or
        its mean if `seed` is None.
        """
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        latent = encode(self.vae, image, SCALE, generator)
        many = len(image)
        clean = self.unet(
            latent.to(image.dtype),
            torch.tensor(STEP, device=image.device),
            encoder_hidden_states=self.prompt.value.expand(many, -1, -1),
            added_cond_kwargs={
                "text_embeds": self.pooled.value.expand(many, -1),
                "time_ids": self.sizes.value.expand(many, -1),
            },
        ).sample
        decoded = decode(self.vae, clean.float(), SCALE).to(image.dtype)
        return decoded if self.training else decoded.clamp(0, 1)  # what is clipped learns nothing

    def fill_base(self, folder: Path) -> None:
        """UNet and VAE of the base model as diffusers keeps them. Raises UserError for a folder without them."""
        if missing := [name for name in ("unet", "vae") if not (folder / name).is_dir()]:
            raise UserError(
                f"{folder}: expected the folders of SDXL-Turbo as diffusers keeps it, lacks {', '.join(missing)}."
            )
        fill_base(self.unet, folder / "unet")
        fill_base(self.vae, folder / "vae")

    @contextmanager
    def layers_only(self) -> Iterator[None]:
        """Meanwhile attention is its layers without the products between them: what counters of layers, such as thop, see."""
        networks = (self.unet, self.vae)
        usual = [network.attn_processors for network in networks]
        for network in networks:
            network.set_attn_processor(_LayersOnly())
        try:
            yield
        finally:
            for network, processors in zip(networks, usual, strict=True):
                network.set_attn_processor(processors)

    def take(self, path: Path, prefix: str) -> None:
        """The UNet or the VAE of the base model, or a team's file with all that it trained, the base model with it or not.

        Raises UserError for another network's.
        """
        state = read_state_dict(path, prefix)
        if not any(name.startswith(("unet.", "vae.")) for name in state):
            network = self.vae if any(name.startswith("encoder.") for name in state) else self.unet
            fill_plain(network, vae_names(state) if network is self.vae else state, path)
            return
        own = self.state_dict()
        # The embeddings have files of their own, and a file of adapters alone leaves the base as it is.
        kept = {name: value for name, value in own.items() if name.split(".")[0] in ("prompt", "pooled", "sizes")}
        if all(".lora_" in name for name in state):
            kept |= {name: value for name, value in own.items() if ".lora_" not in name}
        fill(self, kept | state, path)


class _LayersOnly:
    """Stands for diffusers' attention: all its layers run, and the queries pass for the result."""

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        inside = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        given = inside if encoder_hidden_states is None else encoder_hidden_states
        result = layer.to_q(inside)
        layer.to_k(given)
        layer.to_v(given)
        result = layer.to_out[0](result)
        return result.transpose(1, 2).reshape(hidden_states.shape) if hidden_states.ndim == 4 else result


def new_unet(width: int = 320, prompt_width: int = 2048, pooled_width: int = 1280) -> Any:
    """SDXL's UNet with random weights: latents (B, 4, h, w), sides divisible by 4."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel  # diffusers' constructors have no types
    full = width == 320
    time_width = 256 if full else 32
    return unet(
        sample_size=64,
        block_out_channels=(width, width * 2, width * 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10) if full else (1, 1, 1),
        attention_head_dim=tuple(max(width * times // 64, 1) for times in (1, 2, 4)),
        cross_attention_dim=prompt_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=pooled_width + 6 * time_width,
        use_linear_projection=True,
    )
