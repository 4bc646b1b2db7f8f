"""Restormer (Zamir et al. 2022): its blocks, and the U-shaped network that stacks them.

Attribute names are those of the released checkpoints of Restormer and X-Restormer, so that these load strictly.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNKS = 256
"""Into which long rows are cut, at most."""


class BiasFreeNorm(nn.Module):
    """Scales channels to unit variance, without taking out their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * self.weight


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, with scale and bias, or with a scale alone."""

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.LayerNorm(width) if bias else BiasFreeNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TransposedAttention(nn.Module):
    """Attention over channels (eq. 1): the map is C x C per head whatever H and W, so every output pixel depends on the
    whole image.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._as_printed(x):
            return self.project_out(self.attend(x))
        # The map and the projection are one small matrix a picture, so that the values are read once and nothing is kept.
        attention, v = self._map(x)
        weight = torch.unflatten(self.project_out.weight[..., 0, 0], 1, (self.heads, -1)).to(attention.dtype)
        both = torch.einsum("ohc,bhcd->bohd", weight, attention).flatten(2).to(x.dtype)
        return _each_pixel(both, v).reshape(x.shape)

    def attend(self, x: Tensor) -> Tensor:
        """The attention without the projection behind it."""
        if self._as_printed(x):
            q, k, v = self._qkv(x).unbind(1)
            attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
            attended: Tensor = (attention.softmax(dim=-1) @ v).reshape(x.shape)
            return attended
        attention, v = self._map(x)
        return (attention.to(x.dtype) @ torch.unflatten(v, 1, (self.heads, -1))).reshape(x.shape)

    def _as_printed(self, x: Tensor) -> bool:
        """Whether rows are scaled first: to train and to be counted as the authors have it, and in half precision, where longer
        rows lose more.
        """
        return self.training or x.is_meta or x.dtype in (torch.float16, torch.bfloat16)

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map (B, heads, C / heads, C / heads) and the values (B, C, H W): rows are scaled after their product, which
        is a small matrix, and not before it.
        """
        q, k, v = self._qkv(x).unbind(1)
        lengths = [torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=_wide(x)) for rows in (q, k)]
        scale = self.temperature / (lengths[0].clamp_min(1e-12) * lengths[1].clamp_min(1e-12).transpose(-2, -1))
        return (gram(q, k, _chunks_for(q)) * scale).softmax(dim=-1), v.flatten(1, 2)

    def _qkv(self, x: Tensor) -> Tensor:
        """Rows of queries, keys and values, (B, 3, heads, C / heads, H W)."""
        return torch.unflatten(self.qkv_dwconv(self.qkv(x)).flatten(2), 1, (3, self.heads, -1))


def gram(q: Tensor, k: Tensor, chunks: int = 1) -> Tensor:
    """Products of rows (B, heads, C, N) with each other, (B, heads, C, C), summed in float32 at least, N in `chunks`."""
    if chunks == 1:
        return (q @ k.transpose(-2, -1)).to(_wide(q))
    of_heads = []
    for one, other in zip(q.unbind(1), k.unbind(1), strict=True):
        rows, columns = (torch.unflatten(side, -1, (chunks, -1)).transpose(-3, -2) for side in (one, other))
        of_heads.append((rows @ columns.transpose(-2, -1)).sum(-3, dtype=_wide(q)))
    return torch.stack(of_heads, dim=1)


def _chunks_for(q: Tensor) -> int:
    """On a GPU as many as divide the rows: of a map of 48 x 48 alone only a few of its units have work."""
    # The chunks of several pictures do not lie in even steps, and would be copied.
    return math.gcd(q.shape[-1], CHUNKS) if q.device.type != "cpu" and len(q) == 1 else 1


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _each_pixel(matrix: Tensor, pixels: Tensor) -> Tensor:
    """A matrix (B, D, C) times each pixel of (B, C, N), laid out as these are."""
    if pixels.stride(1) == 1:  # channels last
        return (pixels.transpose(1, 2) @ matrix.transpose(1, 2)).transpose(1, 2)
    return matrix @ pixels


class GatedFeedForward(nn.Module):
    """Eq. 2: one half of the widened features, through a GELU, gates the other."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.project_in = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class NormedBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, attention: nn.Module, feed_forward: nn.Module, norm_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width, norm_bias)
        self.attn = attention
        self.norm2 = ChannelNorm(width, norm_bias)
        self.ffn = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class RestormerBlock(NormedBlock):
    """With attention over channels and a gated feed-forward network."""

    def __init__(self, width: int, heads: int, expansion: float = 2.66, norm_bias: bool = True) -> None:
        super().__init__(width, TransposedAttention(width, heads), GatedFeedForward(width, expansion), norm_bias)


class Embed(nn.Module):
    """The first convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Half(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Double(nn.Module):
    """Twice the size, half the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


Block = Callable[[int, int], nn.Module]
"""Makes a block from its width and its heads."""


class UShape(nn.Module):
    """Restormer's four levels around any block: widths w, 2w, 4w, 8w; the first decoder level keeps its concatenation."""

    HEADS = (1, 2, 4, 8)

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: Sequence[int], refinement: int, block: Block
    ) -> None:
        super().__init__()

        def level(number: int, count: int, times: int = 1) -> nn.Sequential:
            return nn.Sequential(*[block(width * 2**number * times, self.HEADS[number]) for _ in range(count)])

        self.patch_embed = Embed(inputs, width)
        self.encoder_level1 = level(0, blocks[0])
        self.down1_2 = Half(width)
        self.encoder_level2 = level(1, blocks[1])
        self.down2_3 = Half(2 * width)
        self.encoder_level3 = level(2, blocks[2])
        self.down3_4 = Half(4 * width)
        self.latent = level(3, blocks[3])
        self.up4_3 = Double(8 * width)
        self.reduce_chan_level3 = nn.Conv2d(8 * width, 4 * width, 1, bias=False)
        self.decoder_level3 = level(2, blocks[2])
        self.up3_2 = Double(4 * width)
        self.reduce_chan_level2 = nn.Conv2d(4 * width, 2 * width, 1, bias=False)
        self.decoder_level2 = level(1, blocks[1])
        self.up2_1 = Double(2 * width)
        self.decoder_level1 = level(0, blocks[0], times=2)
        self.refinement = level(0, refinement, times=2)
        self.output = nn.Conv2d(2 * width, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.encoder_level1(self.patch_embed(x))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))
        level3 = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), level3], dim=1)))
        level2 = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(level3), level2], dim=1)))
        level1 = self.decoder_level1(torch.cat([self.up2_1(level2), level1], dim=1))
        return self.output(self.refinement(level1))


def restormer(inputs: int, outputs: int, width: int = 48) -> UShape:
    """Restormer of real denoising: blocks 4-6-6-8 with 4 of refinement, norms without bias; no residual around it."""

    def block(width: int, heads: int) -> nn.Module:
        return RestormerBlock(width, heads, norm_bias=False)

    return UShape(inputs, outputs, width, (4, 6, 6, 8), 4, block)
