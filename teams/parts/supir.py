"""SUPIR (Yu et al. 2024): SDXL draws a picture anew under a control network that saw what is left of it.

    LQ -> robust encoder -> hint ---------> VAE decoder -> clean
                              |
    noise -> [UNet + 12 connectors + control] x steps -> VAE decoder -> wavelet colour of clean

Follows the authors' program where the paper is silent: sizes in multiples of 64, the noise of Karras et al. 2022 on SDXL's
1000 levels, guidance that goes with the noise. Their restoration guidance, which the program leaves out unless it is asked
for, and the captions by LLaVA are not here.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import zip_longest
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
from ntire.teams.parts.full_precision import FullPrecision
from ntire.teams.parts.ldm_names import unet_names, vae_names
from ntire.teams.parts.sdxl import SDXL, Sdxl, conditions
from ntire.teams.parts.stable_diffusion import draw, new_vae, noise_levels, sized

STRIDE = 64
"""Sides of pictures are brought to multiples of it."""
HIGHEST = 14.6146
"""The level of noise at which guidance begins."""
PUBLISHED: tuple[tuple[str, str, Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]], ...] = (
    ("model.control_model.", "control.", unet_names),
    ("model.diffusion_model.", "", dict),
    ("first_stage_model.denoise_", "first_stage.", vae_names),
)
"""Beginnings of names in SUPIR's file, in `Additions`, and what becomes of the rest."""
ADDED = Weights(
    "SUPIR-v0Q.ckpt",
    sha256="d7f418398bb024d0d3c779c4ee4e9f171eb072306093f5bcfb2bf096aa2738f8",
    license="SUPIR Software License (non-commercial)",
    provenance="official",
    into="added",
    urls=(
        "https://huggingface.co/camenduru/SUPIR/resolve/main/SUPIR-v0Q.ckpt",
        "https://huggingface.co/XCogni/Supir/resolve/main/v0Q.ckpt",
    ),
    size=5_329_810_432,
    by_hand="These are mirrors: the authors' own place is the Google Drive that https://github.com/Fanghua-Yu/SUPIR names. "
    "Read the licence there first: non-commercial use only.",
)
WEIGHTS = (replace(SDXL, into="base"), replace(VOCABULARY, into="base.text.words"), ADDED)
"""Of version 0 for quality. The program begins with other files for the CLIPs, but SDXL's are laid over them."""


class Supir(nn.Module):
    """The whole pipeline: 4,801 M parameters at full size, 19.2 GB in float32 and 9.8 GB in half of that.

    Beside them a picture of 1536 x 1536 takes 11.5 GB, in half types too: the VAE stays in float32.
    """

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        self.base = Sdxl(width)
        self.added = Additions(self.base.unet, width)

    def forward(
        self,
        image: Tensor,
        *,
        prompt: str,
        negative: str,
        side: int = 1536,
        steps: int = 50,
        guidance: float = 7.5,
        guidance_start: float = 4.0,
        churn: float = 5.0,
        noise: float = 1.003,
        control: float = 1.0,
        seed: int = 1234,
    ) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size; those smaller than `side` are enlarged meanwhile.

        The scale on prompt against negative prompt goes from `guidance_start` at the highest noise to `guidance` without any.
        `churn` is the sum of the shares by which the steps raise the noise again, `noise` the factor on what they add,
        `control` how much the connectors count: at 0 it is SDXL alone.
        """
        height, width = image.shape[-2:]
        hint = self.base.vae.latent(self.added.first_stage(sized(image.float(), working_size(height, width, side))))
        clean = self.base.vae.decode(hint)
        told = [self.base.text([words] * len(image)) for words in (prompt, negative)]

        def noise_in(latent: Tensor, time: int, level: float) -> Tensor:
            positive, unwanted = (self._noise(latent, time, words, pooled, hint, control) for words, pooled in told)
            scale = guidance + (guidance_start - guidance) * level / HIGHEST
            return unwanted + scale * (positive - unwanted)

        latent = sample(hint, noise_in, steps, churn=churn, noise=noise, seed=seed)
        coloured = wavelet_colour(self.base.vae.decode(latent), like=clean)
        # Without antialiasing, as in the program: a third of 1536 is every third pixel.
        return F.interpolate(coloured, size=(height, width), mode="bicubic").clamp(0, 1).to(image.dtype)

    def _noise(self, latent: Tensor, time: int, words: Tensor, pooled: Tensor, hint: Tensor, control: float) -> Tensor:
        dtype, times = self.base.unet.dtype, torch.full((len(latent),), time, device=latent.device)
        latent, hint = latent.to(dtype), hint.to(dtype)
        seen = self.added.control(latent, hint, times, words, pooled)
        return self.added.controlled(self.base.unet, latent, times, words, pooled, seen, control).float()


class Additions(nn.Module):
    """What SUPIR adds to SDXL, 1,332.3 M parameters: an encoder, a control network, and connectors from that to the UNet."""

    def __init__(self, unet: Any, width: int = 320) -> None:
        super().__init__()
        self.first_stage = RobustEncoder(max(width * 2 // 5, 32))
        self.control = Control(unet, width)
        # Published names. Channels of the UNet's skips, and of what comes up to each of them; the last is its middle's.
        skips = [width * times for times in (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)]
        up = [width * times for times in (1, 1, 2, 2, 2, 4, 4, 4, 4, 0)]
        connectors: list[nn.Module] = [ZeroSft(*channels, width * 2 // 5) for channels in zip(skips, up, strict=True)]
        for place in (6, 3):  # what goes up to the next level
            connectors.insert(place, ZeroAttention(up[place], skips[place]))
        self.project_modules = nn.ModuleList(connectors)

    def controlled(
        self, unet: Any, latent: Tensor, times: Tensor, words: Tensor, pooled: Tensor, seen: list[Tensor], scale: float
    ) -> Tensor:
        """SDXL's noise (B, 4, h, w), where connectors take the place of its skips; `seen` is what the control network saw."""
        told = conditions(unet, times, pooled)
        x = unet.conv_in(latent)
        skips = [x]
        for block in unet.down_blocks:
            x, outputs = _run(block, x, told, words)
            skips += outputs
        x = unet.mid_block(x, told, encoder_hidden_states=words)
        connectors, hints = iter(reversed(self.project_modules)), iter(reversed(seen))
        x = next(connectors)(next(hints), x, None, scale)
        for block in unet.up_blocks:
            for resnet, attention in zip_longest(block.resnets, getattr(block, "attentions", ())):
                hint = next(hints)
                x = resnet(next(connectors)(hint, skips.pop(), x, scale), told)
                x = x if attention is None else attention(x, words, return_dict=False)[0]
            for upsampler in block.upsamplers or ():
                x = upsampler(next(connectors)(hint, x, scale))
        noise: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
        return noise

    def take(self, path: Path, prefix: str) -> None:
        """SUPIR's own file. Raises UserError for another network's."""
        fill(self, added_names(read_state_dict(path, prefix)), path)


class RobustEncoder(FullPrecision):
    """The VAE's encoder, trained on to give of a degraded picture the latent of a clean one."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.encoder = new_vae(width).encoder

    def forward(self, image: Tensor) -> Tensor:
        """Pictures in [0, 1] to features (B, 8, H / 8, W / 8)."""
        features: Tensor = self.encoder(image * 2 - 1)
        return features


class Control(nn.Module):
    """A copy of the UNet's first half that sees latent and hint, and gives the ten tensors that it passes on.

    1,243.4 M parameters: the paper's is trimmed (section 3.1), the released one is whole.
    """

    def __init__(self, unet: Any, width: int = 320) -> None:
        super().__init__()
        from diffusers import ControlNetModel

        half: Any = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        self.time_proj, self.time_embedding = half.time_proj, half.time_embedding
        self.add_time_proj, self.add_embedding = half.add_time_proj, half.add_embedding
        self.conv_in, self.down_blocks, self.mid_block = half.conv_in, half.down_blocks, half.mid_block
        # Published name, and a sequence of one.
        self.input_hint_block = nn.Sequential(nn.Conv2d(4, width, 3, padding=1))

    def forward(self, latent: Tensor, hint: Tensor, times: Tensor, words: Tensor, pooled: Tensor) -> list[Tensor]:
        told = conditions(self, times, pooled)
        x = self.conv_in(latent) + self.input_hint_block(hint)
        seen = [x]
        for block in self.down_blocks:
            x, outputs = _run(block, x, told, words)
            seen += outputs
        return [*seen, self.mid_block(x, told, encoder_hidden_states=words)]


class ZeroSft(nn.Module):
    """Skip and what comes up side by side, shifted and scaled pixel by pixel as the control says (section 3.1, ZeroSFT)."""

    def __init__(self, skip: int, up: int, hidden: int) -> None:
        super().__init__()
        # Published names.
        self.param_free_norm = nn.GroupNorm(32, skip + up)
        self.mlp_shared = nn.Sequential(nn.Conv2d(skip, hidden, 3, padding=1), nn.SiLU())
        self.zero_mul = nn.Conv2d(hidden, skip + up, 3, padding=1)
        self.zero_add = nn.Conv2d(hidden, skip + up, 3, padding=1)
        self.zero_conv = nn.Conv2d(skip, skip, 1)

    def forward(self, hint: Tensor, skip: Tensor, up: Tensor | None, scale: float) -> Tensor:
        """`scale` mixes the result, at 1, with the plain tensors, at 0; `up` is None in the middle."""
        before = [] if up is None else [up]
        plain = torch.cat([*before, skip], dim=1)
        told = self.mlp_shared(hint)
        normed = self.param_free_norm(torch.cat([*before, skip + self.zero_conv(hint)], dim=1))
        return scale * (normed * (1 + self.zero_mul(told)) + self.zero_add(told)) + (1 - scale) * plain


class ZeroAttention(nn.Module):
    """Attention from what goes up to the next level to what the control passed down from there."""

    def __init__(self, up: int, hint: int) -> None:
        super().__init__()
        from diffusers.models.attention_processor import Attention

        heads = max(up // 64, 1)
        # Published names.
        self.attn: Any = Attention(up, cross_attention_dim=hint, heads=heads, dim_head=up // heads)
        self.norm1, self.norm2 = nn.GroupNorm(32, up), nn.GroupNorm(32, hint)

    def forward(self, hint: Tensor, up: Tensor, scale: float) -> Tensor:
        asking, asked = (one.flatten(2).transpose(1, 2) for one in (self.norm1(up), self.norm2(hint)))
        found: Tensor = self.attn(asking, encoder_hidden_states=asked)
        return up + scale * found.transpose(1, 2).reshape(up.shape)


def sample(
    like: Tensor, noise_in: Callable[[Tensor, int, float], Tensor], steps: int, *, churn: float, noise: float, seed: int
) -> Tensor:
    """A latent from noise: Euler's method down `steps` of SDXL's levels of noise, each raised a little before by noise that is
    added again (Karras et al. 2022, algorithm 2 without its second order).

    `noise_in(latent, time, level)` predicts the noise, of deviation 1, in a latent scaled to that deviation; `time` is of
    SDXL's 1000 the one whose level is nearest.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    table, levels = noise_levels(), levels_of(steps)
    added = min(churn / steps, 2**0.5 - 1)
    latent = draw(like, generator) * (1 + levels[0] ** 2) ** 0.5
    for number in alike(range(steps), like.device):
        now, after = levels[number], levels[number + 1]
        level = now * (1 + added)
        if added > 0:
            latent = latent + noise * (level**2 - now**2) ** 0.5 * draw(latent, generator)
        time = min(range(len(table)), key=lambda one: abs(table[one] - level))
        nearest = table[time]
        predicted = noise_in(latent / (1 + nearest**2) ** 0.5, time, level)
        # The slope from the latent to the picture that is predicted, which lies `nearest` away.
        latent = latent + (after - level) * (nearest / level) * predicted
    return latent


def levels_of(steps: int) -> list[float]:
    """The levels of noise from which to which `steps` lead, evenly spaced in SDXL's times from 999 on, and 0 at the end."""
    table = noise_levels()
    return [*(table[999 * (steps - number) // steps] for number in range(steps)), 0.0]


def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """The size that pictures are restored at: at least `side`, and in multiples of 64."""
    times = max(side / min(height, width), 1.0)
    return _rounded(height * times), _rounded(width * times)


def added_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SUPIR's published file under the names of `Additions`; unknown names stay as they are."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "model.control_model.mask_LQ":  # of no module of the program that was released
            continue
        for published, ours, to_ours in PUBLISHED:
            if name.startswith(published):
                renamed = to_ours({name.removeprefix(published): value})
                named |= {ours + new: one for new, one in renamed.items()}
                break
        else:
            named[name] = value
    return named


def _run(block: Any, x: Tensor, told: Tensor, words: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One level on the way down, with attention to the words where it has any."""
    attends = {"encoder_hidden_states": words} if hasattr(block, "attentions") else {}
    passed: tuple[Tensor, tuple[Tensor, ...]] = block(hidden_states=x, temb=told, **attends)
    return passed


def _rounded(side: float) -> int:
    return max(round(side / STRIDE), 1) * STRIDE
