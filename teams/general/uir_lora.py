"""UIR-LoRA (Zhang et al. 2024): one step of SD-Turbo with an adapter for each degradation, mixed by what ails the picture.

    LQ -> VAE encoder -> UNet at t = 999, empty prompt -> clean latent -> VAE decoder -> RGB
     │        └─ four skip convolutions into the decoder ──────────────────┘
     └ router: degradations s; every adapted layer gives base(x) + sum of s_k x adapter_k(x)   (eq. 5)

On diffusers and peft. Layers, and what an adapter replaces, are those of img2img-turbo (Parmar et al. 2024), whose ranks and
count the paper's agree with.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method import Cost, Method
from ntire.method.state_dict import fill
from ntire.picture.weather import Weather
from ntire.teams.parts.adapters import OwnConv, mix
from ntire.teams.parts.clip_text import TOKENS
from ntire.teams.parts.degradation_router import CLIP, Router, find_clip
from ntire.teams.parts.stable_diffusion import (
    SCALE,
    clean_latent,
    empty_prompt,
    fill_base,
    missing_parts,
    need_libraries,
    new_unet,
    new_vae,
    signal_share,
)
from ntire.training import Loss, Recipe, Stage

STEP = 999
ADAPTED_UNET = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip
SKIPS = ("skip_conv_1", "skip_conv_2", "skip_conv_3", "skip_conv_4")
ADAPTED_VAE = (
    "conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0",
    *(f"{name}.base_layer" for name in SKIPS),
)  # fmt: skip
ADDED = (".lora_", ".own.", "skip_conv_")
"""What the names of tensors contain that the base models do not have."""


WORDS = (
    "motion-blurry", "hazy", "jpeg-compressed", "low-light", "noisy", "raindrop", "rainy", "shadowed", "snowy", "uncompleted",
)  # fmt: skip
PAIRED = ("raindrop", "shadowed", "snowy")
"""Damage that cannot be made from clean pictures."""


def _stage(word: str) -> Stage:
    """The training of one adapter."""
    damage = None if word in PAIRED else Weather(word)
    losses: dict[Loss, float] = {"l2": 1.0, "lpips": 5.0}
    return Stage(word, 80_000, 256, 8, 2e-4, 0.0, losses, degradation=damage, paired=word in PAIRED)


class UirLora(Method):
    """Adapters for ten degradations, one of which is used (`top` = 1; the paper takes 2 for mixed degradations)."""

    team = "UIR-LoRA"
    track = "general"
    cite = "zhang2024uirlora"
    code = "https://github.com/Justones/UIR-LoRA"
    claimed = Cost(
        source="UIR-LoRA, table of complexity",
        reading="of what is trained: for ten degradations adapters, skip convolutions and the UNet's first layer",
        params_m=95.2,
        trained_only=True,
        at=(256, 256),
        runtime_ms=440.0,
        runtime_at=(256, 256),
        device="A100",
    )
    tiling = "global"
    halo = 64
    stride = 64
    bf16_psnr_db = 30.0
    words: ClassVar[tuple[str, ...]] = WORDS
    """What the adapters are called and the picture is compared with; a subclass may add its own."""
    caveats = (
        "No weights are public: training begins from a folder with SD-Turbo and CLIP, `ntire train --weights FOLDER --stage "
        "noisy`, and goes on to another degradation with --weights FILE.",
        "Adapted layers, alpha (peft's 8: scale 2 in the VAE, 1 in the UNet), own skip convolutions and own first layer of the "
        "UNet for each adapter are img2img-turbo's; the paper names ranks and count only.",
        "The paper's ablation speaks of rank 4 in the restorer, its settings of 4 in the VAE and 8 in the UNet: the latter, "
        "which give its count.",
        "Equation 4 normalises plain similarities; taken is softmax(100 x cosine), as its tables for K = 1, 2 and 10 agree.",
        "How a crop corrects the resized picture is not stated: the mean of both probabilities; the maximum is an option.",
        "The router is a plain CLIP ViT-B/32 unless the folder's `clip` holds DA-CLIP's degradation branch in that form; plain "
        "CLIP was not trained to tell degradations.",
        "Losses are said to suit each degradation: L2 + 5 LPIPS for all, as in img2img-turbo. The prompt is not stated: empty.",
        "The paper trains the skip convolutions on all degradations first; here each adapter trains its own from their start.",
        "Raindrops, shadows and snow need paired pictures: `ntire train --pairs snowy=DIR`. The other seven are made from "
        "clean ones, where the paper has paired data for all but noise, JPEG and masks; `--pairs` takes those as well.",
        "The latent is the mean of the encoder's posterior: the same picture gives one result.",
        "SD-Turbo's weights are under Stability AI's non-commercial community licence.",
        "Attention and norms see the whole image: tiles change the result.",
    )
    recipe = Recipe(
        degradation=Weather("noisy"),
        stages=tuple(_stage(word) for word in ("noisy", *(word for word in WORDS if word != "noisy"))),
        source="UIR-LoRA: AdamW, rate, cosine, 80,000 iterations and batch 8 an adapter; losses of img2img-turbo; patch ours",
        weight_decay=0.01,
    )
    tiny = {"width": 32, "prompt_width": 32, "clip_width": 48, "clip_layers": 1}

    degradations: Mapping[str, float] | None = None
    """Weights of the adapters for all pictures, such as {"noisy": 1.0}, instead of the router's."""
    top: int = 1
    """How many degradations of the router's are used (K)."""

    def __init__(
        self, width: int = 320, prompt_width: int = 1024, clip_width: int = 768, clip_layers: int = 12
    ) -> None:
        super().__init__()
        need_libraries(self.team)
        self.unet = new_unet(width, prompt_width)
        self.unet.conv_in = OwnConv(4, width, 3, bias=True)
        base = max(width * 2 // 5, 32)
        self.vae = new_vae(base)
        widths = ((base * 4, base * 4), (base * 2, base * 4), (base, base * 4), (base, base * 2))
        for name, (width_in, width_out) in zip(SKIPS, widths, strict=True):
            skip = OwnConv(width_in, width_out, 1, bias=False)
            nn.init.constant_(skip.base_layer.weight, 1e-5)
            self.vae.decoder.add_module(name, skip)
        self.register_buffer("prompt", torch.zeros(1, TOKENS, prompt_width))
        self.router = Router(self.words, clip_width, clip_layers)
        for word in self.words:
            self._adapt(word)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(".lora_" in name or ".own." in name)
        self.mix({self.words[0]: 1.0})

    def forward(self, lq: Tensor) -> Tensor:
        latent, skips = self._encode(lq)
        prompt = self.get_buffer("prompt").to(lq.dtype).expand(len(lq), -1, -1)
        noise = self.unet(latent, torch.tensor(STEP, device=lq.device), prompt).sample
        # In float32: at t = 999 almost nothing is signal, and rounding would be divided by 0.07.
        clean = clean_latent(latent.float(), noise.float(), signal_share((STEP,)).to(lq.device))
        return self._decode(clean.to(self.dtype), skips)

    def mix(self, weights: Mapping[str, float]) -> None:
        """Restore with these adapters and weights from now on. Raises UserError for an unknown one, or none at all."""
        unknown = [word for word in weights if word not in self.words]
        if unknown or not weights:
            raise UserError(
                f"expected weights of degradations, found {', '.join(unknown) or 'none'}. "
                f"There are: {', '.join(self.words)}."
            )
        self.mixture = dict(weights)
        mix(self.unet, weights)
        mix(self.vae, weights)

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Let the router look at the whole picture, then restore it."""
        found = self.degradations
        self.mix(self.router.weights(lq.to(self.device, torch.float32), self.top) if found is None else found)
        return super().in_tiles(lq)

    def begin_stage(self, name: str) -> None:
        """Train the adapter that the stage is called after."""
        self.mix({name: 1.0})

    def begin_from(self, weights: Path) -> None:
        """A file of this method's own weights, or a folder with SD-Turbo as diffusers keeps it, and CLIP in `clip` or in the
        cache of Hugging Face.
        """
        if not weights.is_dir():
            fill(self, self.read_weights(weights), weights)
            return
        missing = [f"{weights / name} of SD-Turbo" for name in missing_parts(weights)]
        clip = find_clip(weights)
        if clip is None:
            missing.append(f"{weights / 'clip'}, or {CLIP.file} in the cache of Hugging Face")
        if missing or clip is None:
            raise UserError(
                f"{weights}: {len(missing)} part(s) of the base models missing:\n  " + "\n  ".join(missing) + "\n"
                "Put SD-Turbo there as diffusers keeps it, and a CLIP ViT-B/32 with its tokenizer as transformers does "
                "(`save_pretrained` writes both).",
                exit_code=3,
            )
        fill_base(self.unet, weights / "unet", ADDED)
        fill_base(self.vae, weights / "vae", ADDED)
        self.get_buffer("prompt").copy_(empty_prompt(weights))
        self.router.fill_from(clip)

    def _adapt(self, word: str) -> None:
        from peft import LoraConfig

        for network, rank, layers in ((self.unet, 8, ADAPTED_UNET), (self.vae, 4, ADAPTED_VAE)):
            config = LoraConfig(r=rank, lora_alpha=8, init_lora_weights="gaussian", target_modules=list(layers))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are the point
                network.add_adapter(config, adapter_name=word)
            for layer in network.modules():
                if isinstance(layer, OwnConv):
                    layer.add(word)

    def _encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The latent, and what enters each block on the way: 128, 128, 256 and 512 channels at full size."""
        encoder = self.vae.encoder
        x = encoder.conv_in(picture * 2 - 1)
        skips = []
        for block in encoder.down_blocks:
            skips.append(x)
            x = block(x)
        x = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x)))
        mean, _ = self.vae.quant_conv(encoder.conv_out(x)).chunk(2, dim=1)
        return mean * SCALE, skips

    def _decode(self, latent: Tensor, skips: list[Tensor]) -> Tensor:
        """The picture, with the skips added to what enters each block, the last first."""
        decoder = self.vae.decoder
        x = decoder.mid_block(decoder.conv_in(self.vae.post_quant_conv(latent / SCALE)))
        for name, block, skip in zip(SKIPS, decoder.up_blocks, reversed(skips), strict=True):
            x = block(x + getattr(decoder, name)(skip))
        decoded: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return (decoded + 1) / 2
