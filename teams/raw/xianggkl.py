"""xianggkl, sixth of RAIM 2025 track 1: two steps of Stable Diffusion 2.1 with low-rank adapters.

    mosaic -> plain rendering -> VAE encoder -> UNet + LoRA at t = 999, then at 499, empty prompt -> VAE decoder -> RGB

Report: RAIM 2025 report, supplement, xianggkl ("Enhanced Degradation Adaptation Diffusion"): 2124.36 GFLOPs at 512 x 512,
37.48 s at 3072 x 4096; built on OSEDiff (Wu et al. 2024), whose tiles and adapter layers are taken. On diffusers and peft.
"""

import copy
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from ntire import UserError
from ntire.method import Cost, Method
from ntire.method.recipe import Opponent
from ntire.method.state_dict import fill
from ntire.picture.degradations import RawDegradation
from ntire.picture.tiling import overlapping, pad_reflect
from ntire.teams.parts.clip_text import TOKENS
from ntire.teams.parts.stable_diffusion import (
    LATENT,
    SCALE,
    bell,
    clean_latent,
    empty_prompt,
    fill_base,
    missing_parts,
    need_libraries,
    new_unet,
    new_vae,
    signal_share,
)
from ntire.teams.parts.tag_prompts import TagPrompts, tag_prompts
from ntire.training import Constant, Loss, Recipe, Stage

STEPS = (999, 499)
LATENT_TILE, LATENT_OVERLAP = 96, 32
ENCODER_TILE, DECODER_TILE = 1024, 224
"""In pixels of the picture and of the latent."""
ADAPTED = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out", "proj_out", "proj_in",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip


LOSSES: dict[Loss, float] = {"l2": 1.0, "lpips": 2.0, "vsd": 1.0}
HIGH_ISO = RawDegradation(iso=(6400.0, 25_600.0), rendered=True)


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
        "The encoder that the team trains, its adapters and the embedding of the empty prompt are not public: training begins "
        "from a folder with Stable Diffusion 2.1 base, `ntire train --weights FOLDER`.",
        "VSD, the weights of the losses and the rate are OSEDiff's; the report gives none.",
        "In training, the prompt is that of DAPE's tags of the input if the folder of the base model holds the tagger's "
        "files in a folder `tagger`; without, the empty one, which the report, too, uses afterwards.",
        "The batches of 4 and 2 are read as those of all GPUs together, the last stage's as that of its two. How much "
        "noise the second stage has is our reading: ISO 6400 to 25,600.",
        "The report trains on the challenge's frames; the recipe makes frames of clean pictures.",
    )
    recipe = Recipe(
        degradation=RawDegradation(rendered=True),
        stages=(
            Stage("crops", 60_000, 256, 4, 5e-5, 5e-5, LOSSES, curve=Constant()),
            Stage("high-iso", 20_000, 256, 2, 5e-5, 5e-5, LOSSES, curve=Constant(), degradation=HIGH_ISO),
            Stage("large", 50_000, 512, 2, 5e-5, 5e-5, LOSSES, curve=Constant()),
        ),
        source=(
            "RAIM 2025 supplement, xianggkl: three stages with their lengths, crops and batches, MSE + LPIPS + VSD; "
            "weights of the losses and rate as in OSEDiff"
        ),
    )
    tiny = {"width": 32, "prompt_width": 32}

    def __init__(self, width: int = 320, prompt_width: int = 1024) -> None:
        super().__init__()
        need_libraries(self.team)
        from peft import LoraConfig

        self.unet = new_unet(width, prompt_width)
        self.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=list(ADAPTED)))
        self.vae = new_vae(max(width * 2 // 5, 32))
        self.prompt = nn.Parameter(torch.zeros(1, TOKENS, prompt_width), requires_grad=False)
        """The text encoder's embedding of the empty prompt."""
        self.register_buffer("alphas", signal_share(STEPS), persistent=False)
        self.vae.decoder.requires_grad_(False)
        self.vae.post_quant_conv.requires_grad_(False)
        self.latent: Tensor | None = None
        """The clean latent of the last batch in training, which VSD judges."""
        self.tags: TagPrompts | None = None
        """What makes the prompts in training; None for the empty one."""
        self._tagged: Tensor | None = None

    def forward(self, lq: Tensor) -> Tensor:
        clean = self._denoise(self._encode(lq), STEPS)
        self.latent = clean if self.training else None
        return self._decode(clean)

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        self._tagged = self.tags(lq) if self.tags is not None else None

    def condition(self, count: int) -> Tensor:
        """The prompts of a batch of `count` pictures: their tags' in training, where there is a tagger, else the empty one."""
        if self.training and self._tagged is not None:
            return self._tagged.to(self.prompt)
        return self.prompt.expand(count, -1, -1)

    def as_claimed(self, lq: Tensor) -> Tensor:
        return self._decode(self._denoise(self._encode(lq), STEPS[:1]))

    def begin_from(self, weights: Path) -> None:
        """A file of this method's own weights, or a folder with Stable Diffusion 2.1 base as diffusers keeps it, and perhaps
        RAM's and DAPE's files in `tagger` below it.
        """
        if not weights.is_dir():
            fill(self, self.read_weights(weights), weights)
            return
        missing = missing_parts(weights)
        if missing:
            raise UserError(
                f"{weights}: expected the folders of Stable Diffusion 2.1 base, found no {', '.join(missing)}."
            )
        fill_base(self.unet, weights / "unet")
        fill_base(self.vae, weights / "vae")
        with torch.no_grad():
            self.prompt.copy_(empty_prompt(weights))
        self.tags = tag_prompts(weights)

    def opponent(self) -> "LatentScore":
        return LatentScore(self)

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
            clean = clean_latent(latent, noise, alphas[number])
            if number + 1 == len(steps):
                break
            latent = alphas[number + 1].sqrt() * clean + (1 - alphas[number + 1]).sqrt() * noise
        return clean

    def _noise(self, latent: Tensor, step: int) -> Tensor:
        """The UNet's prediction, over tiles of the latent weighted by a Gaussian, as OSEDiff does it."""
        prompt = self.condition(len(latent))
        time = torch.tensor(step, device=latent.device)

        def predict(piece: Tensor) -> Tensor:
            noise: Tensor = self.unet(piece.to(self.dtype), time, prompt).sample
            return noise.float()

        return overlapping(predict, latent, tile=LATENT_TILE, overlap=LATENT_OVERLAP, weight=bell)


class LatentScore(Opponent):
    """Variational score distillation as in OSEDiff (Wu et al. 2024, section 3.3): results are pulled to where the base model
    expects clean latents more than a copy of it does that learns what results look like.

    Times and noise come from PyTorch's global generator.
    """

    def __init__(self, method: Xianggkl) -> None:
        super().__init__()
        self.real = copy.deepcopy(method.unet)
        self.real.unload_lora()
        self.real.requires_grad_(False)
        self.fake = copy.deepcopy(method.unet)
        self.register_buffer("shares", signal_share(tuple(range(1000))), persistent=False)

    def against(self, method: nn.Module, restored: Tensor) -> Tensor:
        """Half the squared step from the method's latent to where VSD wants it; its gradient is that of VSD."""
        latent, prompt = self._of(method)
        with torch.no_grad():
            noisy, _, time, share = self._noised(latent)
            expected, usual = (
                (noisy - (1 - share).sqrt() * network(noisy, time, prompt).sample) / share.sqrt()
                for network in (self.real, self.fake)
            )
            scale = (latent - expected).abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
            wanted = latent - (usual - expected) / scale
        return 0.5 * (latent - wanted).square().mean()

    def own(self, method: nn.Module, restored: Tensor, gt: Tensor) -> Tensor:
        """The loss of a diffusion model on the method's latents."""
        latent, prompt = self._of(method)
        noisy, noise, time, _ = self._noised(latent.detach())
        return (self.fake(noisy, time, prompt).sample - noise).square().mean()

    def _of(self, method: nn.Module) -> tuple[Tensor, Tensor]:
        if not isinstance(method, Xianggkl) or method.latent is None:
            raise TypeError("VSD needs the latents of a batch that xianggkl has restored in training")
        return method.latent.float(), method.condition(len(method.latent))

    def _noised(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents with noise of a random time each: noisy, the noise, times, and the share that is signal."""
        time = torch.randint(20, 980, (len(latent),), device=latent.device)
        noise = torch.randn_like(latent)
        share = self.get_buffer("shares")[time][:, None, None, None].to(latent)
        return share.sqrt() * latent + (1 - share).sqrt() * noise, noise, time, share
