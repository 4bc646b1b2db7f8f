"""What the reference networks of efficient super-resolution share: recipe, claims, how small a picture may be."""

from torch import Tensor

from ntire.method import Cost, Method
from ntire.method.recipe import Recipe, Stage
from ntire.picture.degradations import BicubicDegradation
from ntire.picture.real_esrgan_degradation import SecondOrderDegradation
from ntire.picture.tiling import pad_reflect
from ntire.teams.parts.spatial_attention import LEAST_SIDE

REPOSITORIES = "https://raw.githubusercontent.com/"


def recipe(source: str, scale: int = 4, *, real: bool = False) -> Recipe:
    """Bicubic inputs, or those of Real-ESRGAN; L1 and then L2, as most of these networks are trained; the figures are ours."""
    return Recipe(
        degradation=SecondOrderDegradation(scale=scale) if real else BicubicDegradation(scale),
        stages=(
            Stage("l1", iterations=500_000, patch=64 * scale, batch=32, lr=5e-4, lr_end=1e-6, losses={"l1": 1.0}),
            Stage("l2", iterations=200_000, patch=64 * scale, batch=32, lr=1e-4, lr_end=1e-6, losses={"l2": 1.0}),
        ),
        source=f"the order of losses: {source}; all figures are ours",
        optimiser="adam",
    )


def claim(params_m: float, macs_g: float, source: str) -> Cost:
    """A reference's published figures, which are for an input of 256 x 256."""
    return Cost(source=source, reading="FLOPs are MACs", params_m=params_m, macs_g=macs_g, at=(256, 256))


class PooledNetwork(Method, abstract=True):
    """A network whose attention pools: pictures that are smaller than its pool are continued by reflection."""

    track = "esr"
    scale = 4
    tiling = "global"
    halo = 64
    stride = 1

    def forward(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        below, right = max(LEAST_SIDE - height, 0), max(LEAST_SIDE - width, 0)
        return self.network(pad_reflect(lq, 0, right, 0, below))[..., : self.scale * height, : self.scale * width]

    def network(self, lq: Tensor) -> Tensor:
        """The network as published."""
        raise NotImplementedError
