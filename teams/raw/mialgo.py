"""MiAlgo, first of RAIM 2025 track 1: joint denoising and demosaicing of night frames, phase 3.

    mosaic -> gamma, pack RGGB -> U-Net 56-112-224 with two Restormer blocks at the bottom -> pixel shuffle -> RGB

Report: RAIM 2025 report, supplement, MiAlgo (track 1): a light U-Net of basic blocks with two Restormer modules in the
bottleneck, 4.62 M parameters, 372.09 GFLOPs at 1024 x 1024, 320 ms at 3072 x 4096 on an A100.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.degradations import RawDegradation
from ntire.method import Cost, Method
from ntire.raw import pack
from ntire.training import Recipe, Stage
from teams.parts.residual import ResBlock


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, with scale and bias (Restormer's WithBias)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TransposedAttention(nn.Module):
    """Attention over channels (Restormer eq. 1): the map is C x C per head whatever H and W, so every output pixel
    depends on the whole image.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_depthwise = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.project = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        qkv = self.qkv_depthwise(self.qkv(x)).reshape(batch, 3, self.heads, width // self.heads, height * columns)
        q, k, v = qkv.unbind(1)
        attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
        return self.project((attention.softmax(dim=-1) @ v).reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Restormer eq. 2: one half of the widened features, through a GELU, gates the other."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.widen = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depthwise(self.widen(x)).chunk(2, dim=1)
        return self.project(F.gelu(gate) * value)


class RestormerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(ChannelNorm(width), TransposedAttention(width, heads))
        self.feed_forward = nn.Sequential(ChannelNorm(width), GatedFeedForward(width, expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class Up(nn.Module):
    """Double the size, halve the channels, join the encoder's features of that level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.fuse = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.up(x), skip], dim=1))


class MiAlgo(Method):
    """The compressed network of phase 3."""

    team = "MiAlgo"
    track = "raw"
    variant = "phase3"
    cite = "raim2025"
    claimed = Cost(
        source="RAIM 2025 supplement, MiAlgo track 1 phase 3: 372.09 GFLOPs, read as 2 x MAC with attention",
        params_m=4.62,
        macs_g=372.09 / 2,
        at=(1024, 1024),
        runtime_ms=320.0,
        runtime_at=(3072, 4096),
        device="A100",
    )
    tiling = "global"
    halo = 64
    stride = 8
    caveats = (
        "Widths, levels and block counts are a fit to the published parameters and GFLOPs: the report gives the idea.",
        "The report also down-samples in its synthetic data; the recipe here does not.",
        "The gamma of 1/2.2 in front of the network is our reading: the report does not say in which domain it works.",
        "Transposed attention sees the whole image: tiles change the result slightly.",
        "The report distils this network from phase 2; the recipe here trains it directly, with the losses of phase 2, "
        "stage 1, but for their perceptual and LPIPS terms.",
    )
    recipe = Recipe(
        degradation=RawDegradation(),
        stages=(
            Stage("l1", iterations=300_000, patch=256, batch=32, lr=3e-4, lr_end=1e-6, losses={"l1": 1.0}),
            Stage(
                "ssim", iterations=100_000, patch=512, batch=8, lr=1e-5, lr_end=1e-6, losses={"l2": 1.0, "ssim": 0.1}
            ),
        ),
        source="RAIM 2025 supplement, MiAlgo track 1: stage lengths, patches and losses; rates and batches are ours",
    )
    tiny = {"width": 8}

    def __init__(self, width: int = 56) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, width, 3, padding=1)
        self.encoder1 = nn.Sequential(ResBlock(width), ResBlock(width))
        self.down1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.encoder2 = nn.Sequential(ResBlock(2 * width), ResBlock(2 * width))
        self.down2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.bottleneck = nn.Sequential(
            ResBlock(4 * width),
            RestormerBlock(4 * width, heads=4, expansion=2.66),
            RestormerBlock(4 * width, heads=4, expansion=2.66),
            ResBlock(4 * width),
        )
        self.up2 = Up(2 * width)
        self.decoder2 = nn.Sequential(ResBlock(2 * width), ResBlock(2 * width))
        self.up1 = Up(width)
        self.decoder1 = nn.Sequential(ResBlock(width), ResBlock(width))
        self.tail = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, lq: Tensor) -> Tensor:
        level1 = self.encoder1(self.head(pack(lq.clamp(0, 1).pow(1 / 2.2))))
        level2 = self.encoder2(self.down1(level1))
        level3 = self.bottleneck(self.down2(level2))
        level2 = self.decoder2(self.up2(level3, level2))
        level1 = self.decoder1(self.up1(level2, level1))
        restored: Tensor = self.tail(level1)
        return restored
