"""MWRCAN (Ignatov et al. 2020, the AIM challenge on learned ISP): a U-Net of residual channel attention on Haar bands."""

from torch import Tensor, nn

from ntire.teams.parts.attention import RCAGroup
from ntire.teams.parts.wavelet import HaarDown, haar, inverse_haar


class Mwrcan(nn.Module):
    """Picture to picture, (B, 3, H, W) with sides that are multiples of 8; three levels of `widths`, one group each way.

        Haar -> conv, group -> Haar -> conv, group -> Haar -> conv, group
           -> conv, inverse Haar, + -> group -> conv, inverse Haar, + -> group -> conv, + first bands, inverse Haar -> conv

    The authors' program has two groups in the middle. As there, no activation follows what is added to the first bands.
    """

    def __init__(self, widths: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        upper, middle, lower = widths

        def group(width: int) -> RCAGroup:
            return RCAGroup(width, blocks, reduction=16)

        self.down1 = nn.Sequential(nn.Conv2d(12, upper, 3, padding=1), nn.PReLU())
        self.encoder1 = group(upper)
        self.down2 = nn.Sequential(HaarDown(upper, middle, 3), nn.PReLU())
        self.encoder2 = group(middle)
        self.down3 = nn.Sequential(HaarDown(middle, lower, 3), nn.PReLU())
        self.middle = group(lower)
        self.up3 = nn.Sequential(nn.Conv2d(lower, 4 * middle, 3, padding=1), nn.PReLU())
        self.decoder2 = group(middle)
        self.up2 = nn.Sequential(nn.Conv2d(middle, 4 * upper, 3, padding=1), nn.PReLU())
        self.decoder1 = group(upper)
        self.up1 = nn.Sequential(nn.Conv2d(upper, 12, 3, padding=1))
        self.tail = nn.Conv2d(3, 3, 3, padding=1)

    def begin_as_identity(self) -> None:
        """Nothing is added to the first bands yet, and the last convolution keeps the picture."""
        for parameter in (*self.up1.parameters(), *self.tail.parameters()):
            nn.init.zeros_(parameter)
        nn.init.dirac_(self.tail.weight)

    def forward(self, lq: Tensor) -> Tensor:
        bands = haar(lq)
        level1 = self.encoder1(self.down1(bands))
        level2 = self.encoder2(self.down2(level1))
        level3 = self.middle(self.down3(level2))
        level2 = self.decoder2(level2 + inverse_haar(self.up3(level3)))
        level1 = self.decoder1(level1 + inverse_haar(self.up2(level2)))
        restored: Tensor = self.tail(inverse_haar(bands + self.up1(level1)))
        return restored
