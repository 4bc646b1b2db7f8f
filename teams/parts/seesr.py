"""SeeSR's ControlNet (Wu et al. 2024): Stable Diffusion's, with one more attention behind each, to what RAM sees.

picture -> Swin-L of RAM, tuned by DAPE -> 145 tokens -> ControlNet (picture, latent, prompt, tokens) -> 13 residuals
"""

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.weights import Weights, fill, read_state_dict
from teams.parts.full_precision import FullPrecision

RANK, ALPHA = 8, 1
"""Of DAPE's adapters."""
TOKEN = 512
"""Length of a token of the picture."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LICENSE = "Apache-2.0"
DRIVE = "Get it from the Google Drive that https://github.com/cswry/SeeSR names, with a browser."
WEIGHTS = (
    Weights("seesr/controlnet.safetensors", None, LICENSE, "official", into="control", size=1_600_000_000,
            by_hand=f"{DRIVE} It is `seesr/controlnet/diffusion_pytorch_model.safetensors` there."),
    Weights("ram_swin_large_14m.pth", None, LICENSE, "official", into="sight", size=5_630_000_000,
            urls=("https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/ram_swin_large_14m.pth",)),
    Weights("DAPE.pth", None, LICENSE, "official", into="sight", by_hand=DRIVE),
)  # fmt: skip


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
        state = {}
        for name, value in read_state_dict(path, prefix).items():
            if ".image_attentions." in name:
                before, after = name.split(".image_attentions.")
                number, _, rest = after.partition(".")
                state[f"{before}.attentions.{number}.image.{rest}"] = value
            elif ".attentions." in name:
                before, after = name.split(".attentions.")
                number, _, rest = after.partition(".")
                state[f"{before}.attentions.{number}.text.{rest}"] = value
            else:
                state[name] = value
        fill(self.network, state, path)


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
        """RAM's file, of which only this part is used, or DAPE's adapters, which are merged into it.

        Raises UserError for another network's.
        """
        state, own = read_state_dict(path, prefix), self.state_dict()
        if any(".lora_A" in name for name in state):
            fill(self, own | _merged(own, state), path)
            return
        places = ("relative_position_index", "attn_mask")
        used = {
            name: value
            for name, value in state.items()
            if name.startswith(("visual_encoder.", "image_proj.")) and not name.endswith(places)
        }
        fill(self, {name: value for name, value in own.items() if name.endswith(places)} | used, path)


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


def _merged(own: dict[str, Tensor], adapters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers for query, key and value with DAPE's adapters of query and value added to them; anything else as it is given."""
    merged = {name: value for name, value in adapters.items() if ".lora_" not in name}
    for name, down in adapters.items():
        if not name.endswith(".lora_A"):
            continue
        layer, up = name.removesuffix(".lora_A"), adapters[f"{name.removesuffix('.lora_A')}.lora_B"]
        weight = own[f"{layer}.weight"].clone()
        third = len(weight) // 3
        for part, place in ((0, 0), (1, 2)):
            low = down[part * RANK : (part + 1) * RANK]
            weight[place * third : (place + 1) * third] += ALPHA / RANK * up[part * third : (part + 1) * third] @ low
        merged[f"{layer}.weight"] = weight
    return merged


def _untyped(of: Any) -> Any:
    """Diffusers' constructors and bare modules' parts have no types."""
    return of
