"""StableSR (Wang et al. 2024): a guide tells every residual block of Stable Diffusion what the picture shows, and features of
the picture go around the latent into the decoder.

    LQ -> VAE -> hint -> + noise -> [UNet <- guide(hint, time)] x steps -> decoder <- features of LQ -> wavelet colour of LQ

StableSR-turbo is SD-Turbo with the same guide, for 4 steps. Follows the authors' program where the paper is silent: spaced DDPM
steps from the noisy picture, the empty prompt without guidance, tiles of the latent beyond 512 pixels.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire.method.counters import alike
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.tiling import overlapping, pad_reflect
from ntire.teams.parts.clip_text import VOCABULARY
from ntire.teams.parts.colour import wavelet_colour
from ntire.teams.parts.diffbir import spaced_step
from ntire.teams.parts.ldm_names import PER_LEVEL, unet_names, vae_names
from ntire.teams.parts.stable_diffusion import (
    LATENT,
    SCALE,
    StableDiffusion,
    bell,
    draw,
    enlarged,
    new_vae,
    signal_share,
    sized,
)

STRIDE = 32
"""Sides of pictures are padded to multiples of it."""
GUIDE = "structcond_stage_model."
"""What the guide's tensors begin with in the authors' file."""
HEADS = 4
"""Of the guide's attentions."""
LICENSE = "S-Lab License 1.0, non-commercial"
HUB = "https://huggingface.co/Iceclear/StableSR/resolve/main"
TURBO = Weights(
    "stablesr_turbo.ckpt",
    sha256="3615aa00dcab2868042dcd1bba4979edbb6051e6e49c147cda6a2d550fb62c58",
    license=LICENSE,
    provenance="official",
    into="base",
    urls=(f"{HUB}/stablesr_turbo.ckpt",),
    size=6_481_632_291,
)
WRAPPING = Weights(
    "vqgan_cfw_00011.ckpt",
    sha256="5b20ed9a80e9bdbf9e76ff1642a6a5428ca3427b08b779248a88bfbba2e74e8e",
    license=LICENSE,
    provenance="official",
    into="decoder",
    urls=(f"{HUB}/vqgan_cfw_00011.ckpt",),
    size=959_719_471,
)
WEIGHTS = (TURBO, replace(VOCABULARY, into="base.text.words"), WRAPPING)
"""Without Stable Diffusion's own file: the authors' holds all of it."""


class StableSR(nn.Module):
    """The whole pipeline: 1,524 M parameters at full size, 6.1 GB in float32, 72 M of them only because the files have them."""

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        self.base = GuidedDiffusion(width)
        self.decoder = WrappedDecoder(max(width * 2 // 5, 32))

    def forward(
        self, image: Tensor, *, steps: int = 4, decoder: float = 0.5, seed: int = 42, side: int = 512
    ) -> Tensor:
        """Restore pictures (B, 3, H, W), RGB in [0, 1], at their own size; those smaller than `side` are enlarged meanwhile.

        `decoder` is the factor on what the picture's features add in the decoder: 0 for the most details, 1 for the most
        fidelity. `side`, a multiple of 64, is also that of the diffusion's tiles; encoder and decoder see pictures whole, where
        the program cuts what is larger than 1280.
        """
        large = enlarged(image, side).clamp(0, 1)
        height, width = large.shape[-2:]
        lq = pad_reflect(large, 0, -width % STRIDE, 0, -height % STRIDE)
        latent = self.diffuse(lq, steps=steps, seed=seed, tile=side // LATENT)
        coloured = wavelet_colour(self.decoder(latent, lq, decoder), like=lq.float())[..., :height, :width]
        height, width = image.shape[-2:]
        return sized(coloured, (height, width)).clamp(0, 1).to(image.dtype)

    def diffuse(self, lq: Tensor, *, steps: int, seed: int, tile: int) -> Tensor:
        """What a draw of the diffusion makes of pictures: latents (B, 4, H / 8, W / 8), float32."""
        generator = torch.Generator("cpu").manual_seed(seed)
        hint = self.base.encode(lq, generator)
        prompt = self.base.text([""] * len(lq))

        def noise_in(latent: Tensor, time: int) -> Tensor:
            def in_tile(both: Tensor) -> Tensor:
                noisy, shown = both.chunk(2, dim=1)
                return self.base.noise(noisy, shown, time, prompt)

            # The program's bell lies half a latent pixel lower than its tile's middle, which tells in overlaps alone.
            both = torch.cat((latent, hint), dim=1)
            return overlapping(in_tile, both, tile=tile, overlap=tile // 2, weight=bell)

        share = signal_share((999,)).to(hint.device)
        latent = share.sqrt() * hint + (1 - share).sqrt() * draw(hint, generator)
        for number in alike(range(steps - 1, -1, -1), latent.device):
            latent = spaced_step(latent, noise_in, number, steps, generator)
        return latent


class GuidedDiffusion(StableDiffusion):
    """Stable Diffusion with the guide: 53.0 M more parameters in the UNet and 52.5 M of the guide's own."""

    def __init__(self, width: int = 320) -> None:
        super().__init__(width)
        guide_width = max(width * 4 // 5, 64)
        self.guide = Guide(guide_width)
        downs, ups = self.unet.down_blocks, self.unet.up_blocks
        last = len(downs) - 1
        places = [*enumerate(downs), (last, self.unet.mid_block), *((last - n, block) for n, block in enumerate(ups))]
        for level, block in places:
            for residual in block.resnets:
                residual.conv2 = GuidedConv(residual.conv2, level, guide_width)

    def noise(self, latent: Tensor, hint: Tensor, time: int, prompt: Tensor) -> Tensor:
        """The noise in latents (B, 4, h, w), float32; `hint` are the latents of the pictures."""
        dtype = self.unet.dtype
        times = torch.full((len(latent),), time, device=latent.device)
        guides = self.guide(hint.to(dtype), times)
        for layer in self.unet.modules():
            if isinstance(layer, GuidedConv):
                layer.guide = guides[layer.level]
        predicted: Tensor = self.unet(latent.to(dtype), times, prompt).sample
        return predicted.float()

    def take(self, path: Path, prefix: str) -> None:
        """StableSR's file: Stable Diffusion's parts and the guide, in LDM's names. Raises UserError for another network's."""
        state = read_state_dict(path, prefix)
        self.fill_parts(state, path)
        guide = {name.removeprefix(GUIDE): value for name, value in state.items() if name.startswith(GUIDE)}
        fill(self.guide, guide_names(guide), path)

    def unet_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return guided_names(state)


class GuidedConv(nn.Module):
    """A residual block's last convolution, whose result is normalised, then scaled and shifted by what the guide says of each
    place, as in SPADE (Park et al. 2019, eq. 1).
    """

    guide: Tensor
    """(B, guide_width, h, w): set before each pass."""

    def __init__(self, conv: nn.Conv2d, level: int, guide_width: int) -> None:
        super().__init__()
        self.level = level
        self.conv = conv
        # Published names, below `spade`.
        self.param_free_norm = nn.GroupNorm(32, conv.out_channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(guide_width, guide_width // 2, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(guide_width // 2, conv.out_channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(guide_width // 2, conv.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        said = self.mlp_shared(self.guide)
        guided: Tensor = self.param_free_norm(self.conv(x)) * (1 + self.mlp_gamma(said)) + self.mlp_beta(said)
        return guided


class Guide(nn.Module):
    """The paper's time-aware encoder: what the latent of a picture shows, on four levels, as it matters at a time."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.unets.unet_2d_blocks import AttnDownBlock2D, DownBlock2D, UNetMidBlock2D

        widths, time = (width, width, width * 2, width * 2), width * 4
        usual: Any = {"temb_channels": time, "resnet_eps": 1e-5}
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, time)
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            AttnDownBlock2D(before, after, num_layers=PER_LEVEL, attention_head_dim=after // HEADS, **usual)
            for before, after in zip((width, *widths), widths[:3], strict=False)
        )
        self.down_blocks.append(DownBlock2D(widths[2], widths[3], num_layers=PER_LEVEL, add_downsample=False, **usual))
        self.mid_block = UNetMidBlock2D(widths[3], attention_head_dim=widths[3] // HEADS, **usual)
        # Published name.
        self.fea_tran = nn.ModuleList(_residual(one, width, time, 1e-5) for one in widths)

    def forward(self, hint: Tensor, times: Tensor) -> list[Tensor]:
        """Latents (B, 4, h, w) at times (B,) to four guides (B, width, ...), each half as large as the one before."""
        time = self.time_embedding(self.time_proj(times).to(hint.dtype))
        x = self.conv_in(hint)
        seen = []
        for block in self.down_blocks:
            x, outputs = block(x, time)
            seen.append(outputs[PER_LEVEL - 1])
        seen[-1] = self.mid_block(x, time)
        return [narrow(one, time) for narrow, one in zip(self.fea_tran, seen, strict=True)]


class WrappedDecoder(nn.Module):
    """The VAE, whose decoder also sees features of the picture: the paper's controllable feature wrapping, 128.0 M parameters.

    It is published with a whole VAE, whose encoder is not used beyond the features.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.vae = new_vae(width)
        self.coarse, self.fine = Fusion(width * 4), Fusion(width * 2)

    def forward(self, latent: Tensor, lq: Tensor, weight: float) -> Tensor:
        """The picture (B, 3, H, W), float32, [0, 1] but not clamped, of a latent (B, 4, H / 8, W / 8) made from `lq`."""
        coarse, fine = self.features(lq)
        decoder, dtype = self.vae.decoder, self.vae.dtype
        x = decoder.mid_block(decoder.conv_in(self.vae.post_quant_conv((latent / SCALE).to(dtype))))
        first, second, third, last = decoder.up_blocks
        x = self.coarse(_residuals(second, first(x)), coarse, weight)
        x = self.fine(_residuals(third, second.upsamplers[0](x)), fine, weight)
        x = last(third.upsamplers[0](x))
        decoded: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return (decoded.float() + 1) / 2

    def features(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees in a picture at a quarter and at half of its sides, before it reduces further."""
        encoder = self.vae.encoder
        first, second, third, _ = encoder.down_blocks
        fine = _residuals(second, first(encoder.conv_in((lq * 2 - 1).to(self.vae.dtype))))
        return _residuals(third, second.downsamplers[0](fine)), fine

    def take(self, path: Path, prefix: str) -> None:
        """The published file, which also holds the losses' networks. Raises UserError for another network's."""
        state = {name: one for name, one in read_state_dict(path, prefix).items() if not name.startswith("loss.")}
        fill(self, wrapping_names(state), path)


class Fusion(nn.Module):
    """What the encoder's features add to the decoder's: residual blocks around two of ESRGAN's dense ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from spandrel.architectures.__arch_helpers.block import RRDB

        # Published names.
        self.encode_enc_1 = _residual(width * 2, width)
        self.encode_enc_2 = nn.Sequential(RRDB(width), RRDB(width))
        self.encode_enc_3 = _residual(width, width)

    def forward(self, x: Tensor, features: Tensor, weight: float) -> Tensor:
        both = self.encode_enc_1(torch.cat((features, x), dim=1), None)
        added: Tensor = self.encode_enc_3(self.encode_enc_2(both), None)
        return x + weight * added


def guided_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The guided UNet's tensors in LDM's names under ours."""
    named = unet_names(state)
    return {name.replace(".conv2.", ".conv2.conv.").replace(".spade.", ".conv2."): one for name, one in named.items()}


def guide_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The guide's tensors in LDM's names under diffusers'. Attentions keep matrices in place of 1 x 1 convolutions: three for
    queries, keys and values, which LDM holds in one, head by head.
    """
    named = {}
    for name, value in unet_names(state).items():
        layer, _, kind = name.rpartition(".")
        if ".attentions." not in name:
            named[name] = value
            continue
        matrix = value[:, :, 0] if value.ndim == 3 else value
        if layer.endswith(".qkv"):
            parts = matrix.reshape(HEADS, 3, -1, *matrix.shape[1:])
            for number, one in enumerate("qkv"):
                named[f"{layer.removesuffix('qkv')}to_{one}.{kind}"] = parts[:, number].flatten(0, 1)
        else:
            layer = layer.replace(".norm", ".group_norm").replace(".proj_out", ".to_out.0")
            named[f"{layer}.{kind}"] = matrix
    return named


def wrapping_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the VAE and of the fusions in their published names under ours."""
    named = {}
    for name, value in vae_names(state).items():
        if not name.startswith("decoder.fusion_layer_"):
            named[f"vae.{name}"] = value
            continue
        ours = name.replace("decoder.fusion_layer_2.", "coarse.").replace("decoder.fusion_layer_1.", "fine.")
        # spandrel keeps the names of the first ESRGAN, diffusers has its own for a shortcut.
        ours = re.sub(r"\.rdb(\d)\.conv(\d)\.", r".RDB\1.conv\2.0.", ours)
        named[ours.replace(".conv_out.", ".conv_shortcut.")] = value
    return named


def _residual(before: int, after: int, time: int | None = None, eps: float = 1e-6) -> Any:
    from diffusers.models.resnet import ResnetBlock2D

    block: Any = ResnetBlock2D  # diffusers' constructors have no types
    return block(in_channels=before, out_channels=after, temb_channels=time, eps=eps)


def _residuals(block: Any, x: Tensor) -> Tensor:
    """A level of the VAE without the change of size at its end."""
    for residual in block.resnets:
        x = residual(x, None)
    return x
