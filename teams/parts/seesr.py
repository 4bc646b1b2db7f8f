"""SeeSR's ControlNet (Wu et al. 2024): Stable Diffusion's, with one more attention behind each, to what RAM sees.

picture -> Swin-L of RAM, tuned by DAPE -> 145 tokens -> ControlNet (picture, latent, prompt, tokens) -> 13 residuals
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.full_precision import FullPrecision

RANK, ALPHA = 8, 1
"""Of DAPE's adapters."""
TOKEN = 512
"""Length of a token of the picture."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LICENSE = "Apache-2.0"
DRIVE = "Get it from the Google Drive that https://github.com/cswry/SeeSR names, with a browser."
RAM = Weights(
    "ram_swin_large_14m.pth", "15c729c793af28b9d107c69f85836a1356d76ea830d4714699fb62e55fcc08ed", LICENSE, "official",
    into="sight", size=5_630_000_000,
    urls=("https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/ram_swin_large_14m.pth",),
)  # fmt: skip
DAPE = Weights(
    "DAPE.pth",
    "a7028be2edcbe9ab0bd1c4ab6f2a2a86f4b44d32261a4faa50ae10fdd9b2feba",
    LICENSE,
    "official",
    into="sight",
    size=7_190_000,
    by_hand=DRIVE,
)
WEIGHTS = (
    Weights("seesr/controlnet.safetensors", None, LICENSE, "official", into="control", size=1_956_000_000,
            by_hand=f"{DRIVE} It is `seesr/controlnet/diffusion_pytorch_model.safetensors` there."),
    RAM,
    DAPE,
)  # fmt: skip
KINDS = {"image_": "image", None: "text"}
COMPUTED = ("relative_position_index", "attn_mask")
"""Buffers of Swin's that follow from its sizes: files hold them or not."""


class SeesrControl(nn.Module):
    """The ControlNet, on diffusers' one: its image attentions take their turn behind the text's."""

    def __init__(self, width: int = 320, token: int = TOKEN) -> None:
        super().__init__()
        from diffusers import ControlNetModel
        from diffusers.models.transformers.transformer_2d import Transformer2DModel

        control, transformer = _untyped(ControlNetModel), _untyped(Transformer2DModel)
        widths = tuple(width * times for times in (1, 2, 4, 4))
        heads = [max(one // 64, 1) for one in widths]
        full = width == 320
        self.network = control(
            block_out_channels=widths,
            cross_attention_dim=max(width // 20, 1) * 64,
            attention_head_dim=heads,
            use_linear_projection=True,
            conditioning_embedding_out_channels=(16, 32, 96, 256) if full else (16, 16, 16, 16),
        )
        places = [
            *zip(self.network.down_blocks, heads, widths, strict=True),
            (self.network.mid_block, heads[-1], widths[-1]),
        ]
        for block, head, channels in places:
            for number, text in enumerate(getattr(block, "attentions", ())):
                image = transformer(
                    num_attention_heads=head,
                    attention_head_dim=channels // head,
                    in_channels=channels,
                    cross_attention_dim=token,
                    use_linear_projection=True,
                )
                block.attentions[number] = _TextThenImage(text, image)

    def forward(self, latent: Tensor, times: Tensor, prompt: Tensor, image: Tensor, tokens: Tensor) -> list[Tensor]:
        """Residuals for the UNet's 12 skips and its middle; the picture (B, 3, H, W) is in [0, 1]."""
        for layer in self.network.modules():
            if isinstance(layer, _TextThenImage):
                layer.tokens = tokens
        skips, middle = self.network(
            latent, times, encoder_hidden_states=prompt, controlnet_cond=image, return_dict=False
        )
        return [*skips, middle]

    def take(self, path: Path, prefix: str) -> None:
        """SeeSR's file. Raises UserError for another network's."""
        fill(self.network, control_names(read_state_dict(path, prefix)), path)


def control_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SeeSR's ControlNet under the names of `SeesrControl.network`, where both attentions of a place are one module."""
    return {
        re.sub(
            r"\.(image_)?attentions\.(\d+)\.", lambda found: f".attentions.{found[2]}.{KINDS[found[1]]}.", name
        ): value
        for name, value in state.items()
    }


class _TextThenImage(nn.Module):
    """Attention to the prompt, as diffusers calls it, and then to the picture's tokens."""

    tokens: Tensor
    """(B, tokens, token): set before each pass."""

    def __init__(self, text: Any, image: Any) -> None:
        super().__init__()
        self.text, self.image = text, image

    def forward(self, hidden_states: Tensor, **usual: Any) -> Any:
        seen = self.text(hidden_states, **usual)[0]
        return self.image(seen, encoder_hidden_states=self.tokens, return_dict=False)


class ImageSight(FullPrecision):
    """What RAM's Swin sees: pictures to 145 tokens of 512, the first of which is the mean; 195 M parameters."""

    def __init__(
        self, width: int = 192, depths: tuple[int, ...] = (2, 2, 18, 2), window: int = 12, token: int = TOKEN
    ) -> None:
        super().__init__()
        self.side = window * 4 * 2 ** (len(depths) - 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid")  # spandrel's, of an argument that it does not pass
            self.visual_encoder = _Swin(width, depths, window, self.side // 4)
        self.image_proj = nn.Linear(width * 2 ** (len(depths) - 1), token)

    def forward(self, image: Tensor) -> Tensor:
        resized = F.interpolate(image.float(), (self.side, self.side), mode="bilinear", antialias=True)
        mean, deviation = (torch.tensor(one, device=image.device).view(3, 1, 1) for one in (MEAN, DEVIATION))
        seen = self.visual_encoder((resized - mean) / deviation)
        tokens: Tensor = self.image_proj(torch.cat((seen.mean(dim=1, keepdim=True), seen), dim=1))
        return tokens

    def take(self, path: Path, prefix: str) -> None:
        """RAM's or RAM++'s file, of which only this part is used, or DAPE's adapters, which are merged into it.

        Raises UserError for another network's.
        """
        fill(self, of_ram(self.state_dict(), read_state_dict(path, prefix), path), path)


class _Swin(nn.Module):
    """Swin's (Liu et al. 2021) blocks as spandrel has them, with its own names."""

    def __init__(self, width: int, depths: tuple[int, ...], window: int, side: int) -> None:
        super().__init__()
        from spandrel.architectures.SwinIR.__arch.SwinIR import PatchMerging, SwinTransformerBlock

        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 4, stride=4)
        self.patch_embed.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList()
        for level, depth in enumerate(depths):
            channels, size = width * 2**level, (side >> level, side >> level)
            layer: Any = nn.Module()  # of two parts, which types do not know
            layer.blocks = nn.ModuleList(
                SwinTransformerBlock(
                    channels,
                    size,
                    num_heads=max(channels // 32, 1),
                    window_size=window,
                    shift_size=window // 2 if number % 2 else 0,
                )
                for number in range(depth)
            )
            layer.downsample = PatchMerging(size, channels) if level + 1 < len(depths) else None
            self.layers.append(layer)
        self.norm = nn.LayerNorm(width * 2 ** (len(depths) - 1))

    def forward(self, image: Tensor) -> Tensor:
        x = _untyped(self.patch_embed).proj(image)
        size = (x.shape[-2], x.shape[-1])
        x = _untyped(self.patch_embed).norm(x.flatten(2).transpose(1, 2))
        for layer in map(_untyped, self.layers):
            for block in layer.blocks:
                x = block(x, size)
            if layer.downsample is not None:
                x, size = layer.downsample(x), (size[0] // 2, size[1] // 2)
        seen: Tensor = self.norm(x)
        return seen


def of_ram(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """What `own`, the state of parts of RAM under RAM's names, becomes with a file of all of RAM, or with DAPE's adapters.

    What the file has for RAM's other parts, which write captions, is left out. Raises UserError for other adapters.
    """
    if any(".lora_" in name for name in state):
        return {**own, **_merged(own, state, source)}
    parts = {name.partition(".")[0] for name in own}
    used = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    computed = {name: value for name, value in own.items() if name.endswith(COMPUTED)}
    return {name: value for name, value in used.items() if not name.endswith(COMPUTED)} | computed


def _merged(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The layers that DAPE adapts with their adapters added: Swin's queries and values, the tagging head's queries and keys."""
    parts = {name.partition(".")[0] for name in own}
    found = {name: tuple(value.shape) for name, value in state.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    merged: dict[str, Tensor] = {}
    for layer, adapters in _adapted(own).items():
        weight = merged[f"{layer}.weight"] = own[f"{layer}.weight"].clone()
        # The rows for query, key and value lie one below the other; keys have no adapter there.
        places = weight.chunk(3)[::2] if layer.endswith(".qkv") else (weight,)
        for adapter in adapters:
            low, high = f"{adapter}.lora_A", f"{adapter}.lora_B"
            shapes |= {low: (len(places) * RANK, weight.shape[1]), high: (sum(map(len, places)), RANK)}
            if all(found.get(name) == shapes[name] for name in (low, high)):
                downs, ups = state[low].chunk(len(places)), state[high].chunk(len(places))
                for place, down, up in zip(places, downs, ups, strict=True):
                    place += ALPHA / RANK * up @ down
    wanted = shapes.keys() | {name for name in found if name.partition(".")[0] in parts}
    wrong = sorted(name for name in wanted if shapes.get(name) != found.get(name))
    if wrong:
        raise UserError(
            f"{source}: these are not DAPE's adapters of this network, {len(wrong)} difference(s):\n  "
            + "\n  ".join(f"{name}: expected {shapes.get(name)}, found {found.get(name)}" for name in wrong[:8])
        )
    return merged


def _adapted(own: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """The layers of RAM that DAPE adapts, and the names of the adapters of each."""
    layers = [name.removesuffix(".weight") for name in own if name.endswith(".weight")]
    adapted = {name: (name,) for name in layers if name.endswith((".attn.qkv", ".self.query", ".self.key"))}
    # RAM's caption writer shares the head's weights, so the authors' program merges its adapters into them as well.
    return {
        name: (*names, name.replace("tagging_head.", "tag_encoder.")) if name.startswith("tagging_head.") else names
        for name, names in adapted.items()
    }


def _untyped(of: Any) -> Any:
    """Diffusers' constructors and bare modules' parts have no types."""
    return of
