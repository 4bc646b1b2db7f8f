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
from torch import Generator, Tensor, nn

from ntire import UserError
from ntire.files import sha256_of
from ntire.method import Cost, Method
from ntire.method.state_dict import fill, read_state_dict
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


CHOICES = {
    "strategy": ("top", "average", "random"),
    "similarity": ("softmax", "printed"),
    "correction": ("mean", "maximum", "none"),
}


def _parsed(given: str) -> dict[str, float]:
    """`hazy:0.7,noisy:0.3` to weights by word. Raises UserError for anything else."""
    found = {}
    for one in given.split(","):
        word, _, weight = one.partition(":")
        try:
            found[word.strip()] = float(weight)
        except ValueError:
            raise UserError(f"weights={given}: expected such as hazy:0.7,noisy:0.3, found {one!r}.") from None
    return found


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
    router_size: ClassVar[tuple[int, ...]] = ()
    """Width and layers of the router's tower, where they are not those of CLIP ViT-B/32."""
    caveats = (
        "No weights are public: training begins from a folder with SD-Turbo and CLIP, `ntire train --weights FOLDER --stage "
        "noisy`, and goes on to another degradation with --weights FILE.",
        "Adapted layers, alpha (peft's 8: scale 2 in the VAE, 1 in the UNet), own skip convolutions and own first layer of the "
        "UNet for each adapter are img2img-turbo's; the paper names ranks and count only.",
        "The paper's ablation speaks of rank 4 in the restorer, its settings of 4 in the VAE and 8 in the UNet: the latter, "
        "which give its count.",
        "Equation 4 normalises plain similarities; taken is softmax(100 x cosine), as its tables for K = 1, 2 and 10 agree; "
        "`--set similarity=printed` takes it as it stands.",
        "How a crop corrects the resized picture is not stated: the mean of both probabilities; `--set correction=maximum` "
        "or none.",
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

    settable: ClassVar[Mapping[str, str]] = {
        "top": "how many degradations of the router's are used (K): 1 for one, 2 for mixed ones in the paper",
        "weights": "weights of adapters for all pictures, such as hazy:0.7,noisy:0.3, instead of the router's",
        "strategy": "which adapters are used: top, average (all alike) or random (one, by the picture)",
        "similarity": "how the router's weights are made: softmax, or printed for equation 4 as it stands",
        "correction": "how a crop that is not resized corrects the router: mean, maximum or none",
        "rank": "rank of the UNet's adapters, to train and to run with (8), as in the paper's comparison of ranks",
        "vae_rank": "rank of the VAE's adapters, to train and to run with (4)",
    }

    degradations: Mapping[str, float] | None = None
    """Weights of the adapters for all pictures, such as {"noisy": 1.0}, instead of the router's."""
    top: int | str = 1
    """How many degradations of the router's are used (K)."""
    strategy: str = "top"
    similarity: str = "softmax"
    correction: str = "mean"

    def __init__(
        self,
        width: int = 320,
        prompt_width: int = 1024,
        clip_width: int = 768,
        clip_layers: int = 12,
        rank: int = 8,
        vae_rank: int = 4,
    ) -> None:
        super().__init__()
        if min(rank, vae_rank) < 1:
            raise UserError(f"rank={rank}, vae_rank={vae_rank}: expected ranks of 1 and more.")
        self.rank, self.vae_rank = rank, vae_rank
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

    def deploy(self) -> None:
        """Raise UserError that lists all settings that it cannot use, before the first picture."""
        wrong = [
            f"{name}={getattr(self, name)}: expected {', '.join(known)}"
            for name, known in CHOICES.items()
            if getattr(self, name) not in known
        ]
        if not (str(self.top).isdigit() and 1 <= int(self.top) <= len(self.words)):
            wrong.append(f"top={self.top}: expected a number from 1 to {len(self.words)}")
        if wrong:
            raise UserError("\n".join(wrong))
        self.router.correction = self.correction  # type: ignore[assignment]
        given = vars(self).pop("weights", None)  # a setting; the class's `weights` are files
        if given is not None:
            self.degradations = _parsed(str(given))
            self.mix(self.degradations)

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Let the router look at the whole picture, then restore it."""
        self.mix(self.chosen(lq.to(self.device, torch.float32)))
        return super().in_tiles(lq)

    def chosen(self, picture: Tensor) -> Mapping[str, float]:
        """The adapters for a picture (3, H, W) and their weights, which sum to 1."""
        if self.degradations is not None:
            return self.degradations
        if self.strategy == "average":
            return dict.fromkeys(self.words, 1 / len(self.words))
        if self.strategy == "random":
            seed = int(sha256_of(picture.cpu().numpy().tobytes())[:15], 16)
            return {self.words[int(torch.randint(len(self.words), (), generator=Generator().manual_seed(seed)))]: 1.0}
        return self.router.weights(picture, int(self.top), printed=self.similarity == "printed")

    @classmethod
    def router_from(cls, weights: Path | None, settings: Mapping[str, str]) -> Router:
        """The router alone: of a file of this method's weights, of the CLIP in a folder, or of that in Hugging Face's cache.

        Raises UserError for settings other than the router's, and for weights that are missing or do not fit.
        """
        correction = settings.get("correction", cls.correction)
        if (strange := set(settings) - {"correction"}) or correction not in CHOICES["correction"]:
            given = ", ".join(f"{name}={settings[name]}" for name in sorted(strange or settings))
            raise UserError(f"{given}: the router has the setting correction, of {', '.join(CHOICES['correction'])}.")
        router = Router(cls.words, *cls.router_size)
        router.correction = correction  # type: ignore[assignment]
        if weights is not None and not weights.is_dir():
            fill(router, read_state_dict(weights, "router."), weights)
        elif clip := find_clip(weights or Path()):
            router.fill_from(clip)
        else:
            raise UserError(
                f"{weights or Path() / 'clip'}: found no CLIP there, nor {CLIP.file} in the cache of Hugging Face. Name a file "
                f"of {cls.team}'s weights, or a folder with CLIP in `clip`: --weights.",
                exit_code=3,
            )
        return router.requires_grad_(False)

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

        for network, rank, layers in ((self.unet, self.rank, ADAPTED_UNET), (self.vae, self.vae_rank, ADAPTED_VAE)):
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
