"""MIRAGE (Ren et al. 2026): one network for many degradations, whose blocks give a third of their channels each to attention,
gated convolution and an MLP.

    LQ -> U-shape of Restormer with mixed blocks -> + LQ
           └ in training: covariances of shallow and deep features, brought together by a contrastive loss

Network, names and numbers follow the authors' program, which differs from the paper in places: see the caveats.
"""

from collections.abc import Mapping
from functools import reduce
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.method import Cost, Method
from ntire.method.weights_files import Weights
from ntire.picture.degradations import NoiseLevels
from ntire.picture.weather import OneOf, Weather
from ntire.teams.parts.restormer import Double, Embed, GatedFeedForward, Half, NormedBlock, TransposedAttention
from ntire.training import STEADIED, Loss, OwnLoss, Part, Recipe, Stage

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


Branch = Literal["att", "gated", "mlp"]
WHOLE: tuple[Branch, ...] = ("att", "gated", "mlp")
ABLATED: dict[str, tuple[Branch, ...]] = {
    "attention-only": ("att",), "no-convolution": ("att", "mlp"), "no-mlp": ("att", "gated"), "no-fusion": WHOLE,
    "no-spd": WHOLE,
}  # fmt: skip
"""The arms of tables 7 and C by their names, and the branches that they keep, which share the channels of those left out."""


class MixedAttention(TransposedAttention):
    """Attention, gated convolution and MLP side by side; each result gets a share of the sigmoid of the others' sum."""

    def __init__(self, width: int, heads: int, ablation: str = "") -> None:
        self.branches = ABLATED.get(ablation, WHOLE)
        share = width // len(self.branches)
        super().__init__(share, heads)
        self.fused = len(self.branches) > 1 and ablation != "no-fusion"
        for branch in self.branches if self.fused else ():
            self.register_parameter(f"alpha_{branch}", nn.Parameter(torch.ones(1)))
        if "gated" in self.branches:
            self.gatedcnn = GatedConv(share)
        if "mlp" in self.branches:
            self.mlp = nn.Sequential(
                nn.Conv1d(share, 2 * share, 1, bias=False), nn.GELU(), nn.Conv1d(2 * share, share, 1, bias=False)
            )
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.branches, x.chunk(len(self.branches), dim=1), strict=True)
        found = [self._through(branch, part) for branch, part in parts]
        if self.fused:
            found = [
                one
                + self.get_parameter(f"alpha_{branch}")
                * torch.sigmoid(reduce(torch.add, [*found[:number], *found[number + 1 :]]))
                for number, (branch, one) in enumerate(zip(self.branches, found, strict=True))
            ]
        return self.project_out(torch.cat(found, dim=1))

    def _through(self, branch: Branch, x: Tensor) -> Tensor:
        if branch == "att":
            return self.attend(x)
        if branch == "gated":
            return self.gatedcnn(x)
        mapped: Tensor = self.mlp(x.flatten(2)).reshape(x.shape)
        return mapped


class FeedForward(GatedFeedForward):
    """Restormer's, with one more GELU in front of its depthwise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(F.gelu(self.project_in(x))).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class Block(NormedBlock):
    """With mixed attention."""

    def __init__(self, width: int, heads: int, ablation: str = "") -> None:
        super().__init__(width, MixedAttention(width, heads, ablation), FeedForward(width, 2))


def covariances(x: Tensor) -> Tensor:
    """Covariance of the channels over all positions, positive definite, flattened: (B, C, H, W) to (B, C x C)."""
    x = x.flatten(2)
    x = x - x.mean(dim=2, keepdim=True)
    covariance = x @ x.transpose(1, 2) / (x.shape[2] - 1)
    return (covariance + 1e-5 * torch.eye(x.shape[1], device=x.device, dtype=x.dtype)).flatten(1)


def means(x: Tensor) -> Tensor:
    """Mean of each channel over all positions, (B, C, H, W) to (B, C): what features are compared by without covariances."""
    return x.mean((2, 3))


def contrast(first: Tensor, second: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE from `first` to `second` (B, D): each row is to be most like the other's row of the same image."""
    similar = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    return F.cross_entropy(similar, torch.arange(len(first), device=first.device))


NOISE = NoiseLevels((15.0, 25.0, 50.0))
MILDER = NoiseLevels((0.0, 5.0, *NOISE.sigmas))
"""The paper's levels, little noise and none: what keeps a network from taking detail of clean pictures for noise."""
PARTS = {
    # The authors' program lists each of 5144 pictures three times for each of three levels.
    "noisy": Part("noisy", NOISE, repeats=9, fresh=True),
    "rainy": Part("rainy", Weather("rainy"), repeats=120),
    "hazy": Part("hazy", Weather("hazy")),
    "motion-blurry": Part("motion-blurry", Weather("motion-blurry"), repeats=5),
    "low-light": Part("low-light", Weather("low-light"), repeats=20),
}
EPOCH = {"noisy": 5144 * 9, "rainy": 200 * 120, "hazy": 72_135, "motion-blurry": 2103 * 5, "low-light": 485 * 20}
"""Samples of one epoch: training pictures times the program's repeats."""
CDD11 = tuple(
    Part(name)
    for name in (
        "haze", "low", "rain", "snow", "haze_rain", "haze_snow", "low_haze", "low_rain", "low_snow", "low_haze_rain",
        "low_haze_snow",
    )
)  # fmt: skip


def _stage(name: str, iterations: int, parts: tuple[Part, ...], contrastive: float) -> Stage:
    losses: dict[Loss, float] = {"l1": 1.0, "fft": 0.1, "own": contrastive}
    return Stage(name, iterations, 128, 32, 2e-4, 1e-6, losses, warmup=iterations // 10, parts=parts)


def _setting(name: str, epochs: int, kinds: tuple[str, ...], contrastive: float) -> Stage:
    samples = sum(EPOCH[kind] for kind in kinds)
    return _stage(name, epochs * samples // 32, tuple(PARTS[kind] for kind in kinds), contrastive)


def settings(contrastive: float) -> tuple[Stage, ...]:
    """The paper's settings: five kinds, three, one, bad weather, mixtures."""
    return (
        _setting("five", 130, ("noisy", "rainy", "hazy", "motion-blurry", "low-light"), contrastive),
        _setting("three", 120, ("noisy", "rainy", "hazy"), contrastive),
        *(_setting(f"{kind}-alone", 120, (kind,), contrastive) for kind in ("noisy", "rainy", "hazy")),
        _stage("weather", 300_000, tuple(map(Part, ("snowy", "rain-and-fog", "raindrop"))), contrastive),
        _stage("mixed", 170 * 1183 * 11 * 4 // 32, CDD11, contrastive),
    )


SOURCE = (
    "MIRAGE: epochs, 2e-4, cosine, batch, patch, flips, L1 + 0.1 Fourier + 0.05 contrastive, 300 K for weather; the authors' "
    "program: AdamW, warm-up of a tenth, end of the cosine, how often each set is repeated"
)
RECIPE = Recipe(
    degradation=OneOf((NOISE, *map(Weather, ("hazy", "rainy", "motion-blurry", "low-light")))),
    stages=settings(0.05),
    source=SOURCE,
    alternatives=True,
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
        reading="G are MACs at 224 x 224, the heads for training counted in; of the memory nothing is said",
        params_m=6.21,
        macs_g=16.0,
        at=(224, 224),
        memory_mb=3729.0,
        device="A100",
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
        "Paper and program differ: Adam and AdamW, a cosine and one with a warm-up (the program is followed), a weight of the "
        "contrastive loss of 0.05 or 0.1 and of 0.01 (0.05 is taken).",
        "The block is that of the program, which differs from algorithm 1: a GELU gate, one more 1 x 1 convolution behind the "
        "residual, attention between channels; shallow features are those of level 1, not of the embedding.",
        "Train one setting with --stage: five (without), three, noisy-alone, rainy-alone, hazy-alone, weather, mixed. "
        "Paired data are given by kind, `--pairs hazy=DIR`; what is not given is made of clean pictures (motion blur along "
        "straight ways, where GoPro's are averaged frames), but for weather and mixed. Noise is always made afresh.",
        "What the paper's memory, 3729 MB of tiny and 4810 MB of small, was measured of is not stated but for an A100: neither "
        "batch nor whether in training. `ntire cost` shows it beside what one picture takes on a GPU.",
        "Ablations of its tables 7 and C: `ntire train --set ablation=...`; --without own leaves out the contrast, "
        "--without fft the spectrum. Who takes over the channels of a branch that is left out is not stated, here the others "
        "evenly: attention-only has 4.59 M parameters (the paper 19.89 M), no-convolution 4.06 M (9.43 M), no-mlp 9.38 M "
        "(7.01 M), no-fusion 6.21 M (5.71 M), no-spd 6.16 M (6.10 M).",
    )
    recipe = RECIPE
    settable: ClassVar[Mapping[str, str]] = {
        "ablation": f"what is left out of the network, to train and to run it without: {', '.join(ABLATED)}"
    }
    tiny = {"width": 12, "blocks": 1}

    def __init__(self, width: int = 24, blocks: int = 0, refinement: int = 2, ablation: str = "") -> None:
        super().__init__()
        if ablation and ablation not in ABLATED:
            raise UserError(f"ablation={ablation}: expected one of {', '.join(ABLATED)}.")
        self.ablation = ablation
        counts = (blocks,) * 4 if blocks else (3, 5, 5, 7)

        def level(number: int, count: int, times: int = 1) -> nn.Sequential:
            return nn.Sequential(*[Block(width * 2**number * times, 2**number, ablation) for _ in range(count)])

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
        described = 1 if ablation == "no-spd" else 2
        self.spd_proj_shallow = nn.Linear(12**described, 64)
        self.spd_proj_latent = nn.Linear(24**described, 64)
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
        describe = means if self.ablation == "no-spd" else covariances
        return (
            self.spd_proj_shallow(describe(self.reduce_shallow(shallow))),
            self.spd_proj_latent(describe(self.reduce_latent(deep))),
        )


class MirageSmall(Mirage):
    """The small network: width 30 and one more block of refinement."""

    variant = "small"
    claimed = Cost(
        source="MIRAGE, table of complexity",
        reading="G are MACs at 224 x 224, the heads for training counted in; of the memory nothing is said",
        params_m=9.68,
        macs_g=27.0,
        at=(224, 224),
        memory_mb=4810.0,
        device="A100",
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

    def __init__(self, width: int = 30, blocks: int = 0, refinement: int = 3, ablation: str = "") -> None:
        super().__init__(width, blocks, refinement, ablation)


class MirageNarrow(Mirage):
    """Half the width of tiny and fewer blocks, for denoising: small enough to be trained on a CPU. Not in the paper."""

    variant = "narrow"
    claimed = None
    weights = (
        Weights(
            "mirage-narrow.safetensors",
            sha256="6341f60d25ef6f57216f378ec3d2ce8ad1c2253a098030a0330191bf249fe282",
            license="research and education only, as the BSDS500 pictures it is trained on",
            provenance="retrained",
        ),
    )
    caveats = (
        "Not in the paper: half the width of tiny and fewer blocks, trained for denoising alone.",
        "Clean pictures and noise of 5 are mixed with the paper's 15, 25 and 50, so that detail of clean pictures stays. The "
        "weights that ship began with 2000 iterations without them, a heavier Fourier loss and a contrastive one of 0.01.",
        STEADIED,
        "Attention and pooled kernels see the whole image: tiles change the result slightly.",
    )
    recipe = Recipe(
        degradation=MILDER,
        stages=(_stage("noisy-alone", 120 * EPOCH["noisy"] // 32, (Part("noisy", MILDER, fresh=True),), 0.05),),
        source=SOURCE,
    ).steadied()
    tiny = {"width": 12, "blocks": 1}

    def __init__(self, width: int = 12, blocks: int = 2, refinement: int = 2, ablation: str = "") -> None:
        super().__init__(width, blocks, refinement, ablation)
