"""The residual block of EDSR: the plain brick of the light networks."""

from torch import Tensor, nn


class ResBlock(nn.Module):
    """x + conv(ReLU(conv(x))), 3 x 3, no normalisation (Lim et al. 2017, figure 2c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual
