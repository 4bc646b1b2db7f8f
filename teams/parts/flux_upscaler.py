"""FLUX.1-dev (Black Forest Labs 2024) drawing a picture anew under a ControlNet that was trained to undo degradations.

    picture -> VAE -> control -+
         noise -> [ControlNet + transformer] x steps of a straightened flow -> VAE decoder -> picture

The prompt is empty: what CLIP-L and T5-XXL make of it is all that they are here for.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire.method.counters import alike
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.picture.tiling import pad_reflect
from ntire.teams.parts.flux_names import flux_names
from ntire.teams.parts.ldm_names import vae_names
from ntire.teams.parts.stable_diffusion import draw, need_libraries

SCALE, SHIFT = 0.3611, 0.1159
"""Latents have SHIFT taken from them, then are multiplied by SCALE."""
CHANNELS = 16
"""Of latents; four neighbours in a square are one of the transformer's tokens."""
STRIDE = 16
WORDS = 512
"""Length of T5's prompt; CLIP's is 77."""
FLUX_LICENSE = "FLUX.1 [dev] Non-Commercial License"
FLUX = "https://huggingface.co/black-forest-labs/FLUX.1-dev"
TERMS = f"Accept the licence at {FLUX} with an account of your own and download"
TEXT = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main"
UPSCALER = "https://huggingface.co/jasperai/Flux.1-dev-Controlnet-Upscaler/resolve/main"
WEIGHTS = (
    Weights(
        "flux1-dev.safetensors", "4610115bb0c89560703c892c59ac2742fa821e60ef5871b33493ba544683abd7", FLUX_LICENSE, "official",
        into="transformer", size=23_802_932_552,
        by_hand=f"{TERMS} `flux1-dev.safetensors`.",
    ),
    Weights(
        "flux1-ae.safetensors", "afc8e28272cd15db3919bacdb6918ce9c1ed22e96cb12c4d5ed0fba823529e38", FLUX_LICENSE, "official",
        into="vae", size=335_304_388,
        by_hand=f"{TERMS} `ae.safetensors`.",
    ),
    Weights(
        "flux1-upscaler.safetensors", None, FLUX_LICENSE, "official", into="control.network", size=3_583_000_000,
        urls=(f"{UPSCALER}/diffusion_pytorch_model.safetensors",),
        by_hand="It is under FLUX.1 [dev]'s licence, too: for non-commercial use only.",
    ),
    Weights(
        "clip_l.safetensors", "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd", "MIT", "official",
        into="clip", size=246_144_152, urls=(f"{TEXT}/clip_l.safetensors",),
    ),
    Weights(
        "t5xxl_fp16.safetensors", "6e480b09fae049a72d2a8c5fbccb8d3e92febeb233bbe9dfe7256958a9167635", "Apache-2.0", "official",
        into="t5", size=9_787_841_024, urls=(f"{TEXT}/t5xxl_fp16.safetensors",),
    ),
)  # fmt: skip


class FluxUpscaler(nn.Module):
    """18.6 billion parameters at full size: transformer 11.9, ControlNet 1.8, T5 4.8; 37 GB in bfloat16.

    `heads` of 128 and `layers` say how small a copy is: 24 and 19 as published.
    """

    def __init__(self, heads: int = 24, layers: int = 19, vae_width: int = 128) -> None:
        super().__init__()
        need_libraries("FLUX.1")
        full = heads == 24
        self.transformer = _Transformer(heads, layers, full)
        self.control = _Control(heads, min(layers, 5), full)
        self.vae = _Vae(vae_width)
        self.clip = _Clip(full)
        self.t5 = _T5(full)

    def forward(
        self, image: Tensor, *, steps: int = 28, guidance: float = 3.5, strength: float = 0.6, seed: int = 0
    ) -> Tensor:
        """Redraw pictures (B, 3, H, W), RGB in [0, 1], at their own size.

        `guidance` is what the transformer is told of its own guidance, `strength` the factor on what the ControlNet adds.
        """
        height, width = image.shape[-2:]
        padded = pad_reflect(image, 0, -width % STRIDE, 0, -height % STRIDE)
        generator = torch.Generator("cpu").manual_seed(seed)
        control = self.vae.encode(padded, generator)
        size = (control.shape[-2], control.shape[-1])
        x, hint = to_tokens(draw(control, generator)), to_tokens(control)
        flow = self._flow(hint, size, guidance, strength)
        times = shifted_times(steps, tokens=x.shape[1])
        # Euler's method along the flow from noise, at time 1, to the picture, at time 0.
        for number in alike(range(steps), x.device):
            x = x + (times[number + 1] - times[number]) * flow(x, times[number])
        restored = self.vae.decode(from_tokens(x, size))
        return restored[..., :height, :width].clamp(0, 1).to(image.dtype)

    def _flow(self, hint: Tensor, size: tuple[int, int], guidance: float, strength: float) -> Any:
        dtype = self.transformer.network.dtype
        many = len(hint)
        given = {
            "pooled_projections": self.clip().expand(many, -1).to(dtype),
            "encoder_hidden_states": self.t5().expand(many, -1, -1).to(dtype),
            "txt_ids": torch.zeros(WORDS, 3, device=hint.device, dtype=dtype),
            "img_ids": _places(size).to(hint.device, dtype),
            "guidance": torch.full((many,), guidance, device=hint.device, dtype=dtype),
        }

        def flow(x: Tensor, time: float) -> Tensor:
            now = {"hidden_states": x.to(dtype), "timestep": torch.full((many,), time, device=x.device, dtype=dtype)}
            added, added_single = self.control.network(
                **now, **given, controlnet_cond=hint.to(dtype), conditioning_scale=strength, return_dict=False
            )
            predicted: Tensor = self.transformer.network(
                **now, **given, controlnet_block_samples=added, controlnet_single_block_samples=added_single
            ).sample
            return predicted.float()

        return flow


class _Transformer(nn.Module):
    """The generator; its one published file has the names of the authors' program."""

    def __init__(self, heads: int, layers: int, full: bool) -> None:
        super().__init__()
        from diffusers import FluxTransformer2DModel

        transformer: Any = FluxTransformer2DModel  # diffusers' constructors have no types
        self.network = transformer(**_sizes(heads, full), num_layers=layers, num_single_layers=layers * 2)

    def take(self, path: Path, prefix: str) -> None:
        """The authors' file, or diffusers'. Raises UserError for another network's."""
        fill(self.network, flux_names(read_state_dict(path, prefix)), path)


class _Control(nn.Module):
    def __init__(self, heads: int, layers: int, full: bool) -> None:
        super().__init__()
        from diffusers import FluxControlNetModel

        control: Any = FluxControlNetModel
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated")  # diffusers' own class does it
            self.network = control(**_sizes(heads, full), num_layers=layers, num_single_layers=0)


class _Vae(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        vae: Any = AutoencoderKL
        self.network = vae(
            block_out_channels=(width, width * 2, width * 4, width * 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=CHANNELS,
            use_quant_conv=False,
            use_post_quant_conv=False,
            sample_size=1024,
        )

    def encode(self, image: Tensor, generator: torch.Generator) -> Tensor:
        posterior = self.network.encode((image * 2 - 1).to(self.network.dtype)).latent_dist
        latent: Tensor = posterior.mean.float() + posterior.std.float() * draw(posterior.mean, generator)
        return (latent - SHIFT) * SCALE

    def decode(self, latent: Tensor) -> Tensor:
        decoded: Tensor = self.network.decode((latent / SCALE + SHIFT).to(self.network.dtype)).sample
        return (decoded.float() + 1) / 2

    def take(self, path: Path, prefix: str) -> None:
        fill(self.network, vae_names(read_state_dict(path, prefix)), path)


class _Clip(nn.Module):
    """CLIP-L's text tower: the empty prompt's pooled embedding (1, 768)."""

    START, END = 49_406, 49_407

    def __init__(self, full: bool) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel

        width = 768 if full else 32
        self.network: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=self.END + 1 if full else 64,
                hidden_size=width,
                intermediate_size=width * 4,
                num_hidden_layers=12 if full else 1,
                num_attention_heads=max(width // 64, 1),
                bos_token_id=self.START if full else 62,
                eos_token_id=self.END if full else 63,
                pad_token_id=1,
            )
        )

    def forward(self) -> Tensor:
        config = self.network.config
        words = torch.tensor([[config.bos_token_id, *[config.eos_token_id] * 76]], device=self.network.device)
        pooled: Tensor = self.network(words).pooler_output
        return pooled

    def take(self, path: Path, prefix: str) -> None:
        outer = "text_model." if any(name.startswith("text_model.") for name in self.network.state_dict()) else ""
        state = {outer + k.removeprefix("text_model."): v for k, v in read_state_dict(path, prefix).items()}
        unused = ("embeddings.position_ids", "text_projection.weight", "logit_scale")
        fill(self.network, {name: value for name, value in state.items() if not name.endswith(unused)}, path)


class _T5(nn.Module):
    """T5-XXL's encoder: the empty prompt's embedding (1, 512, 4096)."""

    def __init__(self, full: bool) -> None:
        super().__init__()
        from transformers import T5Config, T5EncoderModel

        sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64, "vocab_size": 32_128}
        small = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4, "vocab_size": 8}
        config: Any = T5Config  # its arguments' types are not those that it documents
        model: Any = T5EncoderModel(
            config(**(sizes if full else small), feed_forward_proj="gated-gelu", dropout_rate=0.0)
        )
        self.network = model.encoder

    def forward(self) -> Tensor:
        # The end of the text, and nothing more.
        words = torch.tensor([[1, *[0] * (WORDS - 1)]], device=self.network.embed_tokens.weight.device)
        embedded: Tensor = self.network(input_ids=words).last_hidden_state
        return embedded

    def take(self, path: Path, prefix: str) -> None:
        """T5's encoder as transformers keeps it. Raises UserError for another network's."""
        state = read_state_dict(path, prefix)
        # One table under two names, of which some files hold both and some one.
        if "shared.weight" in state:
            state["encoder.embed_tokens.weight"] = state.pop("shared.weight")
        fill(self.network, {name.removeprefix("encoder."): value for name, value in state.items()}, path)


def shifted_times(steps: int, tokens: int) -> list[float]:
    """From 1 to 0 in `steps`, later for larger pictures (Esser et al. 2024, section 5.3.2, as FLUX.1 sets it)."""
    shift = math.exp(0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256))
    even = [1 - (1 - 1 / steps) * number / max(steps - 1, 1) for number in range(steps)]
    return [shift / (shift + 1 / time - 1) for time in even] + [0.0]


def to_tokens(latent: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h w / 4, 4 C): squares of four neighbours."""
    return nn.functional.pixel_unshuffle(latent, 2).flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `to_tokens` for latents of `size` (h, w)."""
    height, width = size
    squares = tokens.transpose(1, 2).reshape(len(tokens), -1, height // 2, width // 2)
    return nn.functional.pixel_shuffle(squares, 2)


def _places(size: tuple[int, int]) -> Tensor:
    """Row and column of each token, (h w / 4, 3); the first of the three numbers is not used."""
    rows, columns = torch.meshgrid(
        torch.arange(size[0] // 2, device="cpu"), torch.arange(size[1] // 2, device="cpu"), indexing="ij"
    )
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).flatten(0, 1)


def _sizes(heads: int, full: bool) -> dict[str, Any]:
    return {
        "in_channels": CHANNELS * 4,
        "attention_head_dim": 128 if full else 16,
        "num_attention_heads": heads,
        "joint_attention_dim": 4096 if full else 32,
        "pooled_projection_dim": 768 if full else 32,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56) if full else (4, 6, 6),
    }
