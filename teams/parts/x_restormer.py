"""X-Restormer (Chen et al. 2024): Restormer's U-shape with attention over channels and over overlapping windows by turns.

The configuration is that of its published option files, which is not the one of its class's defaults.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.teams.parts.restormer import ChannelNorm, GatedFeedForward, TransposedAttention, UShape

WINDOW, OVERLAPPED = 8, 12
"""Queries come from windows of 8, keys and values from the 12 around them (overlap 0.5)."""
HEAD = 16


class RelativePosition(nn.Module):
    """Logits from the distance of query and key along each axis (HaloNet): q . rel_height[dy] + q . rel_width[dx]."""

    def __init__(self) -> None:
        super().__init__()
        self.rel_height = nn.Parameter(torch.randn(2 * OVERLAPPED - 1, HEAD) * HEAD**-0.5)
        self.rel_width = nn.Parameter(torch.randn(2 * OVERLAPPED - 1, HEAD) * HEAD**-0.5)

    def forward(self, q: Tensor) -> Tensor:
        """Queries (N, 64, 16) of a window to logits (N, 64, 144)."""
        distance = OVERLAPPED - 1 + torch.arange(OVERLAPPED) - torch.arange(WINDOW)[:, None]
        q = q.reshape(-1, WINDOW, WINDOW, HEAD)
        along_x = torch.einsum("nyxd,xkd->nyxk", q, self.rel_width[distance.to(q.device)])
        along_y = torch.einsum("nyxd,ykd->nyxk", q, self.rel_height[distance.to(q.device)])
        logits = along_y[..., :, None] + along_x[..., None, :]
        return logits.flatten(3, 4).flatten(1, 2)


class OverlappingAttention(nn.Module):
    """Attention of each window to itself and its surroundings; beyond the border lie zeros."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * heads * HEAD, 1, bias=False)
        self.project_out = nn.Conv2d(heads * HEAD, width, 1, bias=False)
        self.rel_pos_emb = RelativePosition()

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=1)
        q = self._windows(F.unfold(q, WINDOW, stride=WINDOW), batch)
        surrounding = {"kernel_size": OVERLAPPED, "stride": WINDOW, "padding": (OVERLAPPED - WINDOW) // 2}
        k, v = (self._windows(F.unfold(one, **surrounding), batch) for one in (k, v))
        q = q * HEAD**-0.5
        attention = (q @ k.transpose(-2, -1) + self.rel_pos_emb(q)).softmax(dim=-1)
        mixed = (attention @ v).unflatten(0, (batch, self.heads, -1))
        columns = mixed.permute(0, 1, 4, 3, 2).flatten(1, 3)
        return self.project_out(F.fold(columns, (height, width), WINDOW, stride=WINDOW))

    def _windows(self, columns: Tensor, batch: int) -> Tensor:
        """Unfolded (B, heads x 16 x K, L) to (B x heads x L, K, 16)."""
        pixels = columns.shape[1] // (self.heads * HEAD)
        return columns.reshape(batch, self.heads, HEAD, pixels, -1).permute(0, 1, 4, 3, 2).flatten(0, 2)


class XRestormerBlock(nn.Module):
    """Channel attention and feed-forward, then overlapping window attention and feed-forward, each on a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.spatial_attn = OverlappingAttention(width, heads)
        self.channel_attn = TransposedAttention(width, heads)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.norm3, self.norm4 = ChannelNorm(width), ChannelNorm(width)
        self.channel_ffn = GatedFeedForward(width, 2.66)
        self.spatial_ffn = GatedFeedForward(width, 2.66)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.channel_attn(self.norm1(x))
        x = x + self.channel_ffn(self.norm2(x))
        x = x + self.spatial_attn(self.norm3(x))
        return x + self.spatial_ffn(self.norm4(x))


def x_restormer(inputs: int, outputs: int, width: int = 48) -> UShape:
    """X-Restormer of the option files: blocks 2-4-4-4, 4 of refinement; no residual around it."""
    return UShape(inputs, outputs, width, (2, 4, 4, 4), 4, XRestormerBlock)
