"""OSEDiff (Wu et al. 2024): Stable Diffusion 2.1 restores in one step, from the picture itself and what is in it.

picture -> VAE encoder + LoRA -> the clean latent that UNet + LoRA, asked at t = 999, sees in it -> VAE decoder
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.tiling import overlapping, pad_reflect
from ntire.teams.parts.adapters import adapted, mix
from ntire.teams.parts.clip_text import VOCABULARY
from ntire.teams.parts.pisa_sr import ALPHA, PARTS, RANK, adapted_layers
from ntire.teams.parts.stable_diffusion import LATENT, SD21, StableDiffusion, bell, clean_latent, signal_share

STEP = 999
TILE, OVERLAP = 96, 32
"""Of the UNet, in pixels of the latent: larger ones go through it in tiles."""
ENCODER = "default_encoder"
WEIGHTS = (
    replace(SD21, into="base"),
    replace(VOCABULARY, into="base.text.words"),
    Weights(
        "osediff.pkl", None, "Apache-2.0", "official", size=17_980_000,
        urls=("https://github.com/cswry/OSEDiff/raw/main/preset/models/osediff.pkl",),
    ),
)  # fmt: skip


class OseDiffNetwork(nn.Module):
    """1,290 M parameters of Stable Diffusion 2.1 and its text tower, 4.4 M of the adapters, at full size."""

    def __init__(self, width: int = 320, tile: int = TILE) -> None:
        super().__init__()
        self.tile = tile
        self.base = StableDiffusion(width)
        vae, unet = self.base.vae, self.base.unet
        adapted(vae, RANK, _encoder_layers(vae), name=ENCODER, alpha=ALPHA)
        for part, layers in adapted_layers(unet).items():
            adapted(unet, RANK, layers, name=f"default_{part}", alpha=ALPHA)
        mix(vae, {ENCODER: 1.0})
        mix(unet, {f"default_{part}": 1.0 for part in PARTS})

    def forward(self, image: Tensor, prompts: Sequence[str], *, seed: int | None = None) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size, with a prompt each; colours are not set right.

        The latent is the encoder's mean, or drawn from what it leaves open with `seed`, as the authors do; no noise is added.
        """
        height, width = image.shape[-2:]
        padded = pad_reflect(image, 0, -width % LATENT, 0, -height % LATENT)
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        latent = self.base.encode(padded, generator)
        words = self.base.text(prompts)
        noise = self._noise(latent, words)
        # In float32: at t = 999 almost nothing is signal, and rounding would be divided by 0.07.
        clean = clean_latent(latent, noise, signal_share((STEP,)).to(latent.device))
        return self.base.decode(clean)[..., :height, :width].clamp(0, 1).to(image.dtype)

    def take(self, path: Path, prefix: str) -> None:
        """The authors' file: adapters of both networks, and the UNet's first layer. Raises UserError for another network's."""
        for network, name in ((self.base.unet, "state_dict_unet"), (self.base.vae, "state_dict_vae")):
            state = read_state_dict(path, prefix, under=name)
            kept = {
                name: value
                for name, value in network.state_dict().items()
                if ".lora_" not in name and not name.startswith("conv_in.")
            }
            fill(network, kept | state, path)

    def _noise(self, latent: Tensor, words: Tensor) -> Tensor:
        unet, time = self.base.unet, torch.tensor(STEP, device=latent.device)

        def predicted(part: Tensor) -> Tensor:
            noise: Tensor = unet(part.to(unet.dtype), time, words).sample
            return noise.float()

        height, width = latent.shape[-2:]
        if height * width <= self.tile**2:
            return predicted(latent)
        tile = min(self.tile, height, width)
        # The authors' bell lies half a pixel lower than its tile's middle, from top to bottom only.
        return overlapping(predicted, latent, tile=tile, overlap=min(OVERLAP, tile // 2), weight=bell)


def _encoder_layers(vae: nn.Module) -> tuple[str, ...]:
    """Full names of the layers of the VAE on the way to the latent."""
    return tuple(
        name
        for name, layer in vae.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and (name.startswith("encoder.") or name == "quant_conv")
    )
