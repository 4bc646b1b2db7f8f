"""A VAE whose latents follow DINOv2's features, and which carries detail past the latent: the last stage of AllForFace.

    picture -> encoder -> latent ─────> decoder -> picture      latent -> 1 x 1 convolution ~ DINOv2's patches
                  └── skip convolutions ──┘ in the second stage

As far as the report's text goes, section 4.1: latents guided as in VA-VAE (Yao and Wang 2025), skips as in img2img-turbo
(Parmar et al. 2024), on Stable Diffusion's VAE.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.teams.parts.stable_diffusion import LATENT, fill_base, need_libraries, new_vae

PATCH = 14
"""Pixels along one of DINOv2's patches."""
POOLED = 2
"""Pixels of the latent along one such patch: the picture is made smaller for DINOv2."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pictures that DINOv2 was trained on."""


class NaturalVae(nn.Module):
    """83.65 M parameters at full size and the skips' 0.49 M; pictures (B, 3, H, W) in [0, 1], sides divisible by 16."""

    def __init__(self, width: int = 128, features: int = 768) -> None:
        super().__init__()
        need_libraries("AllForFace")
        self.vae = new_vae(width)
        widths = ((width * 4, width * 4), (width * 2, width * 4), (width, width * 4), (width, width * 2))
        skips = [nn.Conv2d(*one, 1, bias=False) for one in widths]
        for skip in skips:
            nn.init.zeros_(skip.weight)
        self.skips = nn.ModuleList(skips)
        self.towards = nn.Conv2d(4, features, 1)
        self.skipping = True
        self.latent: Tensor | None = None
        """Of the last batch in training."""

    def forward(self, picture: Tensor) -> Tensor:
        encoder, decoder = self.vae.encoder, self.vae.decoder
        x, entered = encoder.conv_in(picture * 2 - 1), []
        for block in encoder.down_blocks:
            entered.append(x)
            x = block(x)
        moments = self.vae.quant_conv(encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x)))))
        latent, _ = moments.chunk(2, dim=1)
        self.latent = latent if self.training else None
        x = decoder.mid_block(decoder.conv_in(self.vae.post_quant_conv(latent)))
        for skip, block, own in zip(self.skips, decoder.up_blocks, reversed(entered), strict=True):
            x = block(x + skip(own) if self.skipping else x)
        decoded: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return (decoded + 1) / 2

    def guidance(self, guide: nn.Module, picture: Tensor) -> Tensor:
        """1 minus the mean cosine between the last batch's latents and what `guide` sees in the pictures (B, 3, H, W)."""
        if self.latent is None:
            raise RuntimeError("guidance is of a batch that has gone through in training")
        wanted = patches(guide, picture)
        found = self.towards(F.avg_pool2d(self.latent.float(), POOLED))
        return 1 - F.cosine_similarity(found, wanted, dim=1).mean()


@torch.no_grad()
def patches(guide: nn.Module, picture: Tensor) -> Tensor:
    """DINOv2's features, one for each 2 x 2 of the latent: (B, 3, H, W) in [0, 1] to (B, D, H / 16, W / 16)."""
    high, wide = (side // (LATENT * POOLED) for side in picture.shape[-2:])
    small = F.interpolate(picture.float(), (high * PATCH, wide * PATCH), mode="bicubic", antialias=True)
    mean, deviation = (small.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    seen: Any = guide(pixel_values=(small - mean) / deviation)
    features: Tensor = seen.last_hidden_state[:, 1:].transpose(1, 2)
    return features.reshape(*features.shape[:2], high, wide)


def fill_from_folders(vae: NaturalVae, folder: Path) -> nn.Module:
    """Fill the VAE from a base model's `vae` and return the DINOv2 in `dinov2`, as diffusers and transformers keep them.

    Raises UserError that names what is missing, and for a DINOv2 of another width.
    """
    from transformers import Dinov2Model

    if missing := [name for name in ("vae", "dinov2") if not (folder / name / "config.json").is_file()]:
        raise UserError(
            f"{folder}: lacks {', '.join(missing)}: expected Stable Diffusion's VAE in `vae` as diffusers keeps it, and "
            "facebook/dinov2-base in `dinov2` as transformers does.",
            exit_code=3,
        )
    fill_base(vae.vae, folder / "vae")
    loaded: Any = Dinov2Model
    guide: Any = loaded.from_pretrained(folder / "dinov2", local_files_only=True).eval().requires_grad_(False)
    width = guide.config.hidden_size
    if width != vae.towards.out_channels:
        raise UserError(f"{folder / 'dinov2'}: expected features of {vae.towards.out_channels} numbers, found {width}.")
    found: nn.Module = guide
    return found
