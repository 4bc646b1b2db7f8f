"""xianggkl, sixth of RAIM 2025 track 1: two steps of Stable Diffusion 2.1 with low-rank adapters.

    mosaic -> plain rendering -> VAE encoder -> UNet + LoRA at t = 999, then at 499, empty prompt -> VAE decoder -> RGB

Report: RAIM 2025 report, supplement, xianggkl ("Enhanced Degradation Adaptation Diffusion"): 2124.36 GFLOPs at 512 x 512,
37.48 s at 3072 x 4096; built on OSEDiff (Wu et al. 2024), whose tiles and adapter layers are taken. On diffusers and peft.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method import Cost, Method
from ntire.tiling import overlapping, pad_reflect

STEPS = (999, 499)
LATENT = 8
"""Pixels of the picture along one latent pixel."""
SCALE = 0.18215
LATENT_TILE, LATENT_OVERLAP = 96, 32
ENCODER_TILE, DECODER_TILE = 1024, 224
"""In pixels of the picture and of the latent."""
ADAPTED = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out", "proj_out", "proj_in",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip


def signal_share(steps: tuple[int, ...]) -> Tensor:
    """Stable Diffusion's cumulative alphas at some of its 1000 steps: the share of the variance that is signal."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64, device="cpu") ** 2
    return (1 - betas).cumprod(0)[list(steps)].float()


class Xianggkl(Method):
    """Encoder, two denoising steps, decoder."""

    team = "xianggkl"
    track = "raw"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, xianggkl",
        reading="GFLOPs are MACs, one of two passes of the UNet",
        macs_g=2124.36,
        at=(512, 512),
        runtime_ms=37_480.0,
        runtime_at=(3072, 4096),
    )
    tiling = "method"
    halo = 256
    stride = 64
    channels = 3
    bf16_psnr_db = 30.0
    caveats = (
        "The printed GFLOPs count one pass of the UNet; the method makes two.",
        "The second time step, 499, and the adapters' rank, 4, are not in the report; OSEDiff gives the rank.",
        "The latent is the mean of the encoder's posterior, where OSEDiff draws from it: the same picture gives one result.",
        "The VAE is tiled as diffusers does it, with ramps; OSEDiff pools its group norms over all tiles.",
        "The encoder that the team trains, its adapters and the embedding of the empty prompt are not public; the VSD training "
        "that makes them is not built.",
    )
    tiny = {"width": 32, "prompt_width": 32}

    def __init__(self, width: int = 320, prompt_width: int = 1024) -> None:
        super().__init__()
        logging.getLogger("bitsandbytes").setLevel(
            logging.ERROR
        )  # peft loads it where it is; nothing here is quantised
        try:
            from diffusers import AutoencoderKL, UNet2DConditionModel
            from peft import LoraConfig
        except ImportError as error:
            raise UserError(
                f"xianggkl needs diffusers and peft: {error}. Install them with `pip install 'ntire[diffusion]'`.",
                exit_code=3,
            ) from None
        widths = tuple(width * times for times in (1, 2, 4, 4))
        unet: Any = UNet2DConditionModel  # diffusers' constructors have no types
        self.unet = unet(
            sample_size=64,
            block_out_channels=widths,
            cross_attention_dim=prompt_width,
            attention_head_dim=[max(one // 64, 1) for one in widths],
            use_linear_projection=True,
        )
        self.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=list(ADAPTED)))
        base = max(width * 2 // 5, 32)
        vae: Any = AutoencoderKL
        self.vae = vae(
            block_out_channels=(base, base * 2, base * 4, base * 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
        self.prompt = nn.Parameter(torch.zeros(1, 77, prompt_width), requires_grad=False)
        """The text encoder's embedding of the empty prompt."""
        self.register_buffer("alphas", signal_share(STEPS), persistent=False)

    def forward(self, lq: Tensor) -> Tensor:
        return self._decode(self._denoise(self._encode(lq), STEPS))

    def as_claimed(self, lq: Tensor) -> Tensor:
        return self._decode(self._denoise(self._encode(lq), STEPS[:1]))

    def deploy(self) -> None:
        """Merge the adapters into the layers that they adapt."""
        self.unet.fuse_lora()
        self.unet.unload_lora()

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Encoder, UNet and decoder each in tiles of their own, as the report's method does it."""
        height, width = lq.shape[-2:]
        padded = pad_reflect(lq.to(self.device, self.dtype), 0, -width % self.stride, 0, -height % self.stride)
        self.vae.enable_tiling()
        restored: Tensor = self(padded[None])[0, :, :height, :width]
        return restored.float()

    def _encode(self, picture: Tensor) -> Tensor:
        self.vae.tile_sample_min_size, self.vae.tile_latent_min_size = ENCODER_TILE, ENCODER_TILE // LATENT
        latent: Tensor = self.vae.encode(picture * 2 - 1).latent_dist.mode() * SCALE
        return latent

    def _decode(self, latent: Tensor) -> Tensor:
        self.vae.tile_latent_min_size, self.vae.tile_sample_min_size = DECODER_TILE, DECODER_TILE * LATENT
        decoded: Tensor = self.vae.decode((latent / SCALE).to(self.dtype)).sample
        return (decoded + 1) / 2

    def _denoise(self, latent: Tensor, steps: tuple[int, ...]) -> Tensor:
        """DDIM (Song et al. 2021, eq. 12, sigma 0) over the steps; ends with the predicted clean latent."""
        # In float32: at t = 999 almost nothing is signal, and rounding would be divided by 0.07.
        latent = latent.float()
        alphas = self.get_buffer("alphas").to(latent)
        for number, step in enumerate(steps):
            noise = self._noise(latent, step)
            clean = (latent - (1 - alphas[number]).sqrt() * noise) / alphas[number].sqrt()
            if number + 1 == len(steps):
                break
            latent = alphas[number + 1].sqrt() * clean + (1 - alphas[number + 1]).sqrt() * noise
        return clean

    def _noise(self, latent: Tensor, step: int) -> Tensor:
        """The UNet's prediction, over tiles of the latent weighted by a Gaussian, as OSEDiff does it."""
        prompt = self.prompt.expand(len(latent), -1, -1)
        time = torch.tensor(step, device=latent.device)

        def predict(piece: Tensor) -> Tensor:
            noise: Tensor = self.unet(piece.to(self.dtype), time, prompt).sample
            return noise.float()

        return overlapping(predict, latent, tile=LATENT_TILE, overlap=LATENT_OVERLAP, weight=_bell)


def _bell(length: int, _overlap: int) -> Tensor:
    """A Gaussian over a tile with a variance of 0.01 of its side squared."""
    position = (torch.arange(length, device="cpu") - (length - 1) / 2) / length
    return torch.exp(-(position**2) / (2 * 0.01))
