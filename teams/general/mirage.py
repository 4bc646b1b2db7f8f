"""MIRAGE (Ren et al. 2026): one network for many degradations, whose blocks give a third of their channels each to attention,
gated convolution and an MLP.

    LQ -> U-shape of Restormer with mixed blocks -> + LQ
           └ in training: covariances of shallow and deep features, brought together by a contrastive loss

Network, names and numbers follow the authors' program, which differs from the paper in places: see the caveats.
"""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import NoiseLevels
from ntire.picture.weather import OneOf, Weather
from ntire.teams.parts.restormer import Double, Embed, GatedFeedForward, Half, NormedBlock, TransposedAttention
from ntire.training import OwnLoss, Recipe, Stage

KERNEL = 7
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


class GatedConv(nn.Module):
    """A gate, channels that pass, and channels that a depthwise kernel made from their own means goes over."""

    def __init__(self, width: int) -> None:
        super().__init__()
        from torchvision.ops import StochasticDepth

        self.width, self.hidden = width, int(width * 8 / 3)
        self.temperature = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(width)
        self.gic1 = nn.Conv2d(width, 2 * self.hidden, 1, bias=False)
        self.kernel_generator = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(width, width * KERNEL**2, 1, bias=False),
        )
        self.gic2 = nn.Conv2d(self.hidden, width, 1, bias=False)
        self.proj_out = nn.Conv2d(width, width, 1, bias=False)
        self.drop = StochasticDepth(0.1, "row")

    def forward(self, x: Tensor) -> Tensor:
        gate, passed, mixed = self.gic1(self.norm(x)).split([self.hidden, self.hidden - self.width, self.width], dim=1)
        kernels = self.kernel_generator(mixed).reshape(-1, 1, KERNEL, KERNEL)
        # Every image of the batch has kernels of its own: all channels of all images are groups of one convolution.
        together = mixed.reshape(1, -1, *mixed.shape[-2:])
        mixed = F.conv2d(together, kernels, padding=KERNEL // 2, groups=len(kernels)).reshape(mixed.shape)
        gated = self.gic2(F.gelu(gate / self.temperature) * torch.cat([passed, mixed], dim=1))
        return self.proj_out(x + self.drop(gated))


class MixedAttention(TransposedAttention):
    """Attention, gated convolution and MLP side by side; each result gets a share of the sigmoid of the other two's sum."""

    def __init__(self, width: int, heads: int) -> None:
        third = width // 3
        super().__init__(third, heads)
        self.alpha_att, self.alpha_gated, self.alpha_mlp = (nn.Parameter(torch.ones(1)) for _ in range(3))
        self.gatedcnn = GatedConv(third)
        self.mlp = nn.Sequential(
            nn.Conv1d(third, 2 * third, 1, bias=False), nn.GELU(), nn.Conv1d(2 * third, third, 1, bias=False)
        )
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for_attention, for_gate, for_mlp = x.chunk(3, dim=1)
        attended = self.attend(for_attention)
        gated = self.gatedcnn(for_gate)
        mapped = self.mlp(for_mlp.flatten(2)).reshape(for_mlp.shape)
        fused = [
            attended + self.alpha_att * torch.sigmoid(gated + mapped),
            gated + self.alpha_gated * torch.sigmoid(attended + mapped),
            mapped + self.alpha_mlp * torch.sigmoid(attended + gated),
        ]
        return self.project_out(torch.cat(fused, dim=1))


class FeedForward(GatedFeedForward):
    """Restormer's, with one more GELU in front of its depthwise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(F.gelu(self.project_in(x))).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class Block(NormedBlock):
    """With mixed attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, MixedAttention(width, heads), FeedForward(width, 2))


def covariances(x: Tensor) -> Tensor:
    """Covariance of the channels over all positions, positive definite, flattened: (B, C, H, W) to (B, C x C)."""
    x = x.flatten(2)
    x = x - x.mean(dim=2, keepdim=True)
    covariance = x @ x.transpose(1, 2) / (x.shape[2] - 1)
    return (covariance + 1e-5 * torch.eye(x.shape[1], device=x.device, dtype=x.dtype)).flatten(1)


def contrast(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE from `first` to `second` (B, D): each row is to be most like the other's row of the same image."""
    similar = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    return F.cross_entropy(similar, torch.arange(len(first), device=first.device))


RECIPE = Recipe(
    degradation=OneOf(
        (NoiseLevels((15.0, 25.0, 50.0)), *map(Weather, ("hazy", "rainy", "blurry", "low-light"))),
    ),
    stages=(
        Stage(
            "all",
            iterations=300_000,
            patch=128,
            batch=32,
            lr=2e-4,
            lr_end=1e-6,
            losses={"l1": 1.0, "fft": 0.1, "own": 0.01},
            warmup=30_000,
        ),
    ),
    source="the authors' program: AdamW, rate, warm-up of a tenth, batch, patch, losses, noise levels; length ours",
    weight_decay=0.01,
)


class Mirage(Method):
    """The tiny network: width 24."""

    team = "MIRAGE"
    track = "general"
    variant = "tiny"
    cite = "ren2026mirage"
    code = "https://github.com/Amazingren/MIRAGE"
    claimed: ClassVar[Cost | None] = Cost(
        source="MIRAGE, table of complexity",
        reading="G are MACs at 224 x 224, the heads for training counted in",
        params_m=6.21,
        macs_g=16.0,
        at=(224, 224),
    )
    weights: ClassVar[tuple[Weights, ...]] = (
        Weights(
            "mirage-tiny-5d.ckpt",
            sha256=None,
            license="MIT",
            provenance="official",
            prefix="net.",
            urls=(f"{DRIVE}1GNjqXsVE7uik5wWpnuPAzC-C05S9DpgO",),
            size=72_100_000,
        ),
    )
    tiling = "global"
    halo = 64
    stride = 8
    caveats: ClassVar[tuple[str, ...]] = (
        "The weights are those for five degradations; the authors' others run with --weights FILE.",
        "Attention and pooled kernels see the whole image: tiles change the result slightly.",
        "Where paper and program differ (optimiser, schedule, epochs), the program is followed.",
        "The recipe makes all five degradations from clean pictures, noise at the authors' levels; theirs are paired data.",
    )
    recipe = RECIPE
    tiny = {"width": 12, "blocks": 1}

    def __init__(self, width: int = 24, blocks: int = 0, refinement: int = 2) -> None:
        super().__init__()
        counts = (blocks,) * 4 if blocks else (3, 5, 5, 7)

        def level(number: int, count: int, times: int = 1) -> nn.Sequential:
            return nn.Sequential(*[Block(width * 2**number * times, 2**number) for _ in range(count)])

        self.patch_embed = Embed(3, width)
        self.encoder_level1 = level(0, counts[0])
        self.down1_2 = Half(width)
        self.encoder_level2 = level(1, counts[1])
        self.down2_3 = Half(2 * width)
        self.encoder_level3 = level(2, counts[2])
        self.down3_4 = Half(4 * width)
        self.latent = level(3, counts[3])
        self.up4_3 = Double(4 * width)
        self.reduce_chan_level3 = nn.Conv2d(6 * width, 4 * width, 1, bias=False)
        self.reduce_dim_level3 = nn.Conv2d(8 * width, 4 * width, 1, bias=False)
        self.decoder_level3 = level(2, counts[2])
        self.up3_2 = Double(4 * width)
        self.reduce_chan_level2 = nn.Conv2d(4 * width, 2 * width, 1, bias=False)
        self.decoder_level2 = level(1, counts[1])
        self.up2_1 = Double(2 * width)
        self.decoder_level1 = level(0, counts[0], times=2)
        self.refinement = level(0, refinement, times=2)
        self.output = nn.Conv2d(2 * width, 3, 3, padding=1, bias=False)
        self.reduce_shallow = nn.Conv2d(width, 12, 1)
        self.reduce_latent = nn.Conv2d(4 * width, 24, 1)
        self.spd_proj_shallow = nn.Linear(12 * 12, 64)
        self.spd_proj_latent = nn.Linear(24 * 24, 64)
        self._heads: tuple[Tensor, Tensor] | None = None

    def forward(self, lq: Tensor) -> Tensor:
        restored, shallow, deep = self._run(lq)
        self._heads = self._manifold(shallow, deep) if self.training else None
        return restored

    def as_claimed(self, lq: Tensor) -> Tensor:
        restored, shallow, deep = self._run(lq)
        self._manifold(shallow, deep)
        return restored

    def own_loss(self, name: OwnLoss) -> Tensor:
        """The contrastive loss between covariances of shallow and deep features of the last batch."""
        if self._heads is None:
            raise RuntimeError("MIRAGE's own loss is of a batch that it has restored in training")
        return contrast(*self._heads)

    def _run(self, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level1 = self.encoder_level1(self.patch_embed(lq))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        deep = self.reduce_dim_level3(self.latent(self.down3_4(level3)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(deep), level3], dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], dim=1)))
        x = self.refinement(self.decoder_level1(torch.cat([self.up2_1(x), level1], dim=1)))
        return lq + self.output(x), level1, deep

    def _manifold(self, shallow: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.spd_proj_shallow(covariances(self.reduce_shallow(shallow))),
            self.spd_proj_latent(covariances(self.reduce_latent(deep))),
        )


class MirageSmall(Mirage):
    """The small network: width 30 and one more block of refinement."""

    variant = "small"
    claimed = Cost(
        source="MIRAGE, table of complexity",
        reading="G are MACs at 224 x 224, the heads for training counted in",
        params_m=9.68,
        macs_g=27.0,
        at=(224, 224),
    )
    weights = (
        Weights(
            "mirage-small-5d.ckpt",
            sha256=None,
            license="MIT",
            provenance="official",
            prefix="net.",
            urls=(f"{DRIVE}13C-eso1XB5VlTUCmubzrEAB4b_aSsHzb",),
            size=111_800_000,
        ),
    )

    def __init__(self, width: int = 30, blocks: int = 0, refinement: int = 3) -> None:
        super().__init__(width, blocks, refinement)


class MirageNarrow(Mirage):
    """Half the width of tiny and fewer blocks, for denoising: small enough to be trained on a CPU. Not in the paper."""

    variant = "narrow"
    claimed = None
    weights = (
        Weights(
            "mirage-narrow.safetensors",
            sha256="60b7622c9fa1254358f0c17cfd8e9e5c7af5b94ce6a1b79cb6fcf8577b73ef56",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    caveats = (
        "Not in the paper: half the width of tiny and fewer blocks, trained for denoising alone.",
        "Attention and pooled kernels see the whole image: tiles change the result slightly.",
    )
    recipe = replace(
        RECIPE,
        degradation=NoiseLevels((15.0, 25.0, 50.0)),
        source="as tiny, with the authors' noise levels only; length ours",
    )
    tiny = {"width": 12, "blocks": 1}

    def __init__(self, width: int = 12, blocks: int = 2, refinement: int = 2) -> None:
        super().__init__(width, blocks, refinement)
