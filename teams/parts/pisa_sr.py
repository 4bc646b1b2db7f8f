"""PiSA-SR (Sun et al. 2025): Stable Diffusion 2.1 restores in one step, with one adapter for pixels and one for semantics.

picture -> VAE encoder -> latent - UNet(latent, t = 1) -> VAE decoder -> AdaIN colour of the picture
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.tiling import pad_reflect
from ntire.teams.parts.adapters import adapted, mix
from ntire.teams.parts.clip_text import VOCABULARY
from ntire.teams.parts.colour import adain_colour
from ntire.teams.parts.stable_diffusion import SD21, StableDiffusion, enlarged, sized

STEP = 1
STRIDE = 64
RANK, ALPHA = 4, 8
"""The authors leave alpha at peft's default: adapters are added twice."""
ADAPTED = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out", "proj_out", "proj_in",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip
PARTS = ("encoder", "decoder", "others")
WEIGHTS = (
    replace(SD21, into="base"),
    replace(VOCABULARY, into="base.text.words"),
    Weights(
        "pisa_sr.pkl", None, "Apache-2.0 (by its README)", "official", size=32_500_000,
        by_hand="Get it with a browser from https://drive.google.com/drive/folders/1oLetijWNd59xwJE5oU-eXylQBifxWdss, which "
        "https://github.com/csslc/PiSA-SR names.",
    ),
)  # fmt: skip


class PisaSr(nn.Module):
    """1,290 M parameters of Stable Diffusion 2.1 and its text tower, 8.1 M of the adapters, at full size."""

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        self.base = StableDiffusion(width)
        groups = adapted_layers(self.base.unet)
        for kind in ("pix", "sem"):
            for part, layers in groups.items():
                adapted(self.base.unet, RANK, layers, name=f"default_{part}_{kind}", alpha=ALPHA)
        mix(self.base.unet, _all_of("pix", "sem"))

    def forward(
        self,
        image: Tensor,
        *,
        pixel: float = 1.0,
        semantic: float = 1.0,
        prompt: str = "",
        seed: int = 42,
        side: int = 512,
    ) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size; those smaller than `side` are enlarged meanwhile.

        `pixel` and `semantic` are the paper's lambdas; with both at 1 the UNet runs once, otherwise twice.
        """
        height, width = image.shape[-2:]
        large = enlarged(image, side)
        inside = large.shape[-2:]
        padded = pad_reflect(large, 0, -inside[1] % STRIDE, 0, -inside[0] % STRIDE)
        latent = self.base.encode(padded, torch.Generator("cpu").manual_seed(seed))
        words = self.base.text([prompt] * len(image))
        residual = self._residual(latent, words, "pix", "sem")
        if (pixel, semantic) != (1.0, 1.0):
            of_pixels = self._residual(latent, words, "pix")
            residual = pixel * of_pixels + semantic * (residual - of_pixels)
        restored = self.base.decode(latent - residual)[..., : inside[0], : inside[1]].clamp(0, 1)
        return adain_colour(sized(restored, (height, width)), like=image.float()).clamp(0, 1).to(image.dtype)

    def take(self, path: Path, prefix: str) -> None:
        """The authors' file of adapters. Raises UserError for another network's."""
        state = read_state_dict(path, prefix)
        own = self.base.unet.state_dict()
        fill(self.base.unet, {name: value for name, value in own.items() if ".lora_" not in name} | state, path)

    def _residual(self, latent: Tensor, words: Tensor, *kinds: str) -> Tensor:
        unet = self.base.unet
        mix(unet, _all_of(*kinds))
        predicted: Tensor = unet(latent.to(unet.dtype), torch.tensor(STEP, device=latent.device), words).sample
        return predicted.float()


def _all_of(*kinds: str) -> dict[str, float]:
    return {f"default_{part}_{kind}": 1.0 for kind in kinds for part in PARTS}


def adapted_layers(unet: Any) -> dict[str, tuple[str, ...]]:
    """Full names of the adapted layers on the way down, on the way up, and of the rest, as the authors group them."""
    groups: dict[str, list[str]] = {part: [] for part in PARTS}
    for name, layer in unet.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not any(
            name == one or name.endswith(f".{one}") for one in ADAPTED
        ):
            continue
        down, up = "down_blocks" in name or "conv_in" in name, "up_blocks" in name or "conv_out" in name
        groups["encoder" if down else "decoder" if up else "others"].append(name)
    return {part: tuple(names) for part, names in groups.items()}
