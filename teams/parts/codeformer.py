"""CodeFormer (Zhou et al. 2022): a transformer looks a face up in a code book, and what the input adds is set by `fidelity`.

    face -> encoder -> transformer -> nearest codes -> generator -> face
                └───────── fused at four sizes, times w ─────┘        (figure 2, eq. 3 to 6)

Written from the paper; spandrel_extra_arches has the network at one size only. 94.11 M parameters at full size. The
names are the released checkpoint's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.method.weights_files import Weights
from ntire.teams.parts.colour import adain_colour
from ntire.teams.parts.full_precision import FullPrecision

SIDE = 512
WIDTHS = (1, 2, 2, 4, 4, 8)
"""Of the levels, from full size to 1/32, as multiples of `width`."""
WEIGHTS = (
    Weights(
        "codeformer.pth", "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
        "S-Lab License 1.0: non-commercial", "official",
        urls=(
            "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth",
            "https://huggingface.co/datasets/Gourieff/ReActor/resolve/main/models/facerestore_models/codeformer-v0.1.0.pth",
        ),
        size=376_637_898,
    ),
)  # fmt: skip


class CodeFormer(FullPrecision):
    """An aligned face, `side` x `side`, to the same."""

    def __init__(self, side: int = SIDE, width: int = 64, layers: int = 9) -> None:
        super().__init__()
        self.side = side
        code_width, codes, embedding = 4 * width, 16 * width, 8 * width
        tokens = (side // 32) ** 2
        self.encoder = _Blocks(_encoder(width, code_width))
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, code_width)})
        self.generator = _Blocks(_generator(width, code_width))
        self.position_emb = nn.Parameter(torch.zeros(tokens, embedding))
        self.feat_emb = nn.Linear(code_width, embedding)
        self.ft_layers = nn.ModuleList(TransformerLayer(embedding) for _ in range(layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, codes, bias=False))
        fused = {str(side >> level): width * WIDTHS[level] for level in (4, 3, 2, 1)}
        self.fuse_convs_dict = nn.ModuleDict({size: ControlledFusion(channels) for size, channels in fused.items()})
        """By side of the features, as the checkpoint has it: 32, 64, 128 and 256 at full size."""

    def forward(self, image: Tensor, *, fidelity: float = 0.5) -> Tensor:
        """(B, 3, side, side), RGB in [0, 1]; `fidelity` is the paper's w, 0 (quality) to 1 (as the input).

        Raises ValueError for another size.
        """
        if image.shape[-2:] != (self.side, self.side):
            raise ValueError(f"expected an aligned face of {self.side} x {self.side}, found {tuple(image.shape[-2:])}")
        found, skips = self._encode(image.float() * 2 - 1)
        x = adain_colour(self._codes(found), like=found)
        for number, block in enumerate(self.generator.blocks):
            x = block(x)
            size = str(x.shape[-1])
            if number in AFTER_FIRST and fidelity > 0:
                x = x + fidelity * self.fuse_convs_dict[size](skips[size], x)
        return ((x.clamp(-1, 1) + 1) / 2).to(image.dtype)

    def _encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The features at 1/32 of the size, and those of the four sizes in between, by their side."""
        skips = {}
        for number, block in enumerate(self.encoder.blocks):
            x = block(x)
            if number in AFTER_SECOND:
                skips[str(x.shape[-1])] = x
        return x, skips

    def _codes(self, found: Tensor) -> Tensor:
        """For each place the entry of the code book that the transformer thinks likeliest."""
        tokens = self.feat_emb(found.flatten(2).permute(2, 0, 1))
        for layer in self.ft_layers:
            # A copy: PyTorch cannot count through a view of a parameter.
            tokens = layer(tokens, self.position_emb[:, None].clone())
        likeliest = self.idx_pred_layer(tokens).argmax(dim=2).T
        codes: Tensor = self.quantize["embedding"](likeliest)
        return codes.transpose(1, 2).reshape_as(found)


class _Blocks(nn.Module):
    """Layers one after the other; the checkpoint's names have this level."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)


def _encoder(width: int, code_width: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    last = width
    for level, times in enumerate(WIDTHS):
        for _ in range(2):
            layers.append(Residual(last, width * times))
            last = width * times
            if level == len(WIDTHS) - 1:
                layers.append(Attention(last))
        if level < len(WIDTHS) - 1:
            layers.append(Halving(last))
    return [*layers, *_middle(last), _norm(last), nn.Conv2d(last, code_width, 3, padding=1)]


def _generator(width: int, code_width: int) -> list[nn.Module]:
    last = width * WIDTHS[-1]
    layers: list[nn.Module] = [nn.Conv2d(code_width, last, 3, padding=1), *_middle(last)]
    for level, times in reversed(list(enumerate(WIDTHS))):
        for _ in range(2):
            layers.append(Residual(last, width * times))
            last = width * times
            if level == len(WIDTHS) - 1:
                layers.append(Attention(last))
        if level > 0:
            layers.append(Doubling(last))
    return [*layers, _norm(last), nn.Conv2d(last, 3, 3, padding=1)]


AFTER_SECOND = (5, 8, 11, 14)
"""In the encoder, the second residual block at 1/2, 1/4, 1/8 and 1/16 of the size."""
AFTER_FIRST = (9, 12, 15, 18)
"""In the generator, the first residual block at 1/16, 1/8, 1/4 and 1/2."""


def _middle(width: int) -> list[nn.Module]:
    return [Residual(width, width), Attention(width), Residual(width, width)]


def _norm(width: int) -> nn.GroupNorm:
    # 32 groups at full size; tiny copies have fewer channels.
    return nn.GroupNorm(math.gcd(32, width), width, eps=1e-6)


class Residual(nn.Module):
    """Norm, SiLU, conv, twice, with a 1 x 1 convolution around where the width changes."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(width_in), nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2, self.conv2 = _norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        restored: Tensor = self.conv_out(x) + self.conv2(F.silu(self.norm2(inner)))
        return restored


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        added: Tensor = self.proj_out(attended.transpose(1, 2).reshape_as(x))
        return x + added


class Halving(nn.Module):
    """To half the size; padded right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Doubling(nn.Module):
    """To twice the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class TransformerLayer(nn.Module):
    """Attention with places added to queries and keys, then two linear layers; norms come first. Tokens are (N, B, C)."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, width * 2), nn.Linear(width * 2, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        placed = normed + places
        tokens = tokens + self.self_attn(placed, placed, normed, need_weights=False)[0]
        added: Tensor = self.linear2(F.gelu(self.linear1(self.norm2(tokens))))
        return tokens + added


class ControlledFusion(nn.Module):
    """What the encoder's features change in the generator's: a scale and a shift for each value (eq. 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = Residual(2 * width, width)
        self.scale, self.shift = (
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(2)
        )

    def forward(self, encoded: Tensor, generated: Tensor) -> Tensor:
        both = self.encode_enc(torch.cat([encoded, generated], dim=1))
        change: Tensor = generated * self.scale(both) + self.shift(both)
        return change
