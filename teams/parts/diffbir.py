"""DiffBIR (Lin et al. 2024): a regression network removes the degradation, a controlled Stable Diffusion 2.1 adds the details.

    LQ -> SwinIR -> clean -> VAE -> hint ----------------+
                      |    noise -> [UNet + IRControlNet] x steps -> VAE decoder -> wavelet colour of clean

The versions 1 (faces) and 2 are two files of one architecture. Follows the authors' program where the paper is silent:
spaced DDPM steps, both prompts in turn, the hint as the latent's mean.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.method.counters import alike
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.clip_text import VOCABULARY
from ntire.teams.parts.colour import wavelet_colour
from ntire.teams.parts.ldm_names import unet_names
from ntire.teams.parts.stable_diffusion import (
    SD21,
    StableDiffusion,
    clean_latent,
    draw,
    enlarged,
    new_unet,
    signal_share,
    sized,
)

STRIDE = 64
"""Sides of pictures are padded to multiples of it."""
NEGATIVE = "low quality, blurry, low-resolution, noisy, unsharp, weird textures"
"""The program's usual negative prompt for versions 1 and 2."""
LONG_PROMPT = (
    "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper detailed photo - realistic maximum "
    "detail, 32k, Color Grading, ultra HD, extreme meticulous detailing, skin pore detailing, hyper sharpness, perfect without "
    "deformations."
)
LONG_NEGATIVE = (
    "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, 3D render, unreal engine, "
    "blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, deformed, lowres, "
    "over-smooth."
)
"""Both prompts that the program takes where the user gives none."""
LICENSE = "Apache-2.0"
CLEANER = Weights(
    "face_swinir_v1.ckpt",
    sha256=None,
    license=LICENSE,
    provenance="official",
    into="cleaner",
    prefix="module.",
    urls=("https://huggingface.co/lxq007/DiffBIR/resolve/main/face_swinir_v1.ckpt",),
    size=90_000_000,
)
CONTROL_V2 = Weights(
    "diffbir_v2.pth",
    sha256=None,
    license=LICENSE,
    provenance="official",
    into="control",
    urls=("https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v2.pth",),
    size=1_453_000_000,
)
CONTROL_V1_FACE = replace(
    CONTROL_V2,
    file="diffbir_v1_face.pth",
    urls=("https://huggingface.co/lxq007/DiffBIR-v2/resolve/main/v1_face.pth",),
)
DIFFUSION = (replace(SD21, into="base"), replace(VOCABULARY, into="base.text.words"))
WEIGHTS = (CLEANER, *DIFFUSION, CONTROL_V2)
"""Of version 2; version 1 for faces has CONTROL_V1_FACE in place of CONTROL_V2."""


class DiffBIR(nn.Module):
    """The whole pipeline: 1,669 M parameters with the cleaner at full size, 6.7 GB in float32."""

    def __init__(self, width: int = 320, cleaner: bool = True) -> None:
        super().__init__()
        self.cleaner = FaceCleaner(width * 9 // 16) if cleaner else None
        self.base = StableDiffusion(width)
        self.control = IRControlNet(width)

    def forward(
        self,
        image: Tensor,
        *,
        steps: int = 50,
        guidance: float = 4.0,
        strength: float = 1.0,
        prompt: str = "",
        negative: str = NEGATIVE,
        seed: int = 231,
        side: int = 512,
    ) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size; those smaller than `side` are enlarged meanwhile.

        `guidance` is the scale on prompt against negative prompt, `strength` the factor on what IRControlNet adds.
        """
        clean = enlarged(image, side)
        if self.cleaner is not None:
            clean = self.cleaner(clean)
        detailed = self.diffuse(
            clean, steps=steps, guidance=guidance, strength=strength, prompt=prompt, negative=negative, seed=seed
        )
        coloured = wavelet_colour(detailed, like=clean.float())
        height, width = image.shape[-2:]
        return sized(coloured, (height, width)).clamp(0, 1).to(image.dtype)

    def diffuse(
        self, clean: Tensor, *, steps: int, guidance: float, strength: float, prompt: str, negative: str, seed: int
    ) -> Tensor:
        """The second stage alone: what a draw of the diffusion makes of a clean picture; its colours are not set right."""
        height, width = clean.shape[-2:]
        hint = self.base.encode(_padded(clean))
        prompts = [self.base.text([words] * len(clean)) for words in (prompt, negative)]
        generator = torch.Generator("cpu").manual_seed(seed)

        def noise_in(latent: Tensor, time: int) -> Tensor:
            positive = self._noise(latent, time, prompts[0], hint, strength)
            if guidance == 1.0:
                return positive
            unwanted = self._noise(latent, time, prompts[1], hint, strength)
            return unwanted + guidance * (positive - unwanted)

        latent = draw(hint, generator)
        for number in alike(range(steps - 1, -1, -1), latent.device):
            latent = spaced_step(latent, noise_in, number, steps, generator)
        return self.base.decode(latent)[..., :height, :width]

    def _noise(self, latent: Tensor, time: int, prompt: Tensor, hint: Tensor, strength: float) -> Tensor:
        dtype = self.base.unet.dtype
        times = torch.full((len(latent),), time, device=latent.device)
        control = [strength * one for one in self.control(latent, hint, times, prompt)]
        predicted: Tensor = self.base.unet(
            latent.to(dtype),
            times,
            prompt,
            down_block_additional_residuals=control[:-1],
            mid_block_additional_residual=control[-1],
        ).sample
        return predicted.float()


class IRControlNet(nn.Module):
    """A copy of the UNet's first half that sees latent and hint, and gives 13 residuals for the UNet: 363.2 M parameters."""

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        half: Any = new_unet(width, max(width // 20, 1) * 64, channels=8)
        self.time_proj, self.time_embedding, self.conv_in = half.time_proj, half.time_embedding, half.conv_in
        self.down_blocks, self.mid_block = half.down_blocks, half.mid_block
        one, two, four = width, width * 2, width * 4
        # Published names: a sequence of one convolution for each residual.
        self.zero_convs = nn.ModuleList(
            nn.Sequential(_zero_conv(channels)) for channels in (one,) * 4 + (two,) * 3 + (four,) * 5
        )
        self.middle_block_out = nn.Sequential(_zero_conv(four))

    def forward(self, latent: Tensor, hint: Tensor, times: Tensor, prompt: Tensor) -> list[Tensor]:
        x = self.conv_in(torch.cat((latent, hint), dim=1).to(prompt.dtype))
        time = self.time_embedding(self.time_proj(times).to(x.dtype))
        passed = [x]
        for block in self.down_blocks:
            attends = {"encoder_hidden_states": prompt} if hasattr(block, "attentions") else {}
            x, outputs = block(hidden_states=x, temb=time, **attends)
            passed += outputs
        middle = self.mid_block(x, time, encoder_hidden_states=prompt)
        residuals = [conv(one) for conv, one in zip(self.zero_convs, passed, strict=True)]
        return [*residuals, self.middle_block_out(middle)]

    def take(self, path: Path, prefix: str) -> None:
        """DiffBIR's own file, in LDM's names. Raises UserError for another network's."""
        fill(self, unet_names(read_state_dict(path, prefix)), path)


class FaceCleaner(nn.Module):
    """SwinIR at an eighth of the resolution (15.8 M parameters), trained by DifFace to remove the degradations of faces."""

    def __init__(self, width: int = 180) -> None:
        super().__init__()
        from spandrel.architectures.SwinIR import SwinIR

        groups = max(width * 8 // 180, 1)
        # SwinIR computes with values while it is built, which the meta device has none of.
        with torch.device("cpu"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid")  # spandrel's, of an argument that it does not pass
            network = SwinIR(
                img_size=64,
                embed_dim=width,
                depths=[6] * groups,
                num_heads=[6] * groups,
                window_size=8,
                mlp_ratio=2,
                upscale=8,
                upsampler="nearest+conv",
                start_unshuffle=8,
            )
        self.network = network.to(torch.get_default_device())

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        clean: Tensor = self.network(_padded(image.float()))
        return clean[..., :height, :width]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FaceCleaner":
        # Moves, but stays in float32, as in the authors' program; its masks know nothing else.
        moved: FaceCleaner = super()._apply(  # type: ignore[no-untyped-call]
            lambda value: value.to(fn(value.flatten()[:0]).device), recurse
        )
        return moved

    def take(self, path: Path, prefix: str) -> None:
        """A file of DifFace's or of DiffBIR's own training. Raises UserError for another network's."""
        state = read_state_dict(path, prefix)
        # spandrel keeps the pixel unshuffle that comes first outside of its layers.
        named = {
            name.removeprefix("module.").replace("conv_first.1.", "conv_first."): value for name, value in state.items()
        }
        fill(self.network, named, path)


def spaced_step(
    latent: Tensor, noise_in: Callable[[Tensor, int], Tensor], number: int, steps: int, generator: torch.Generator
) -> Tensor:
    """One step of DDPM (Ho et al. 2020, eq. 6 and 7) over `steps` of the 1000 times, spaced evenly; `number` counts down to 0.

    `noise_in(latent, time)` predicts the noise. Nothing is added in the last step.
    """
    times = spaced_times(steps)
    share = signal_share((times[number],)).to(latent.device)
    before = signal_share((times[number - 1],)).to(latent.device) if number else torch.ones_like(share)
    clean = clean_latent(latent, noise_in(latent, times[number]), share)
    beta = 1 - share / before
    mean = (beta * before.sqrt() * clean + (1 - before) * (1 - beta).sqrt() * latent) / (1 - share)
    if number == 0:
        return mean
    return mean + (beta * (1 - before) / (1 - share)).sqrt() * draw(latent, generator)


def spaced_times(steps: int) -> tuple[int, ...]:
    """`steps` of the times 0 ... 999, the first and the last among them, as guided-diffusion spaces them."""
    return tuple(round(number * 999 / (steps - 1)) for number in range(steps)) if steps > 1 else (0,)


def _zero_conv(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def _padded(image: Tensor) -> Tensor:
    """With black to the right and below up to multiples of 64, as the authors' program pads."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))
