"""Training losses by the names that recipes use: (restored, gt) -> a number to make small."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.method.recipe import OWN, HasOwnLoss, Loss, Opponent


def ssim_loss(restored: Tensor, gt: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004) of batches (B, C, H, W) in [0, 1]: 11 x 11 Gaussian of sigma 1.5, mean over channels.

    Patches smaller than the window use the largest odd window that fits.
    """
    channels = restored.shape[1]
    side = min(11, *((size - 1) // 2 * 2 + 1 for size in restored.shape[-2:]))
    line = torch.exp(-((torch.arange(side).to(restored) - side // 2) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    window = (line[:, None] * line).expand(channels, 1, side, side)

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=channels)

    mean_r, mean_g = local_mean(restored), local_mean(gt)
    var_r = local_mean(restored**2) - mean_r**2
    var_g = local_mean(gt**2) - mean_g**2
    covariance = local_mean(restored * gt) - mean_r * mean_g
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_r * mean_g + c1) * (2 * covariance + c2)
    return 1 - (similarity / ((mean_r**2 + mean_g**2 + c1) * (var_r + var_g + c2))).mean()


def psnr_loss(restored: Tensor, gt: Tensor) -> Tensor:
    """The PSNR in dB of all values together, negative: a loss to make small."""
    return 10 * torch.log10(F.mse_loss(restored, gt) + 1e-8)


def colour_loss(restored: Tensor, gt: Tensor, block: int = 32) -> Tensor:
    """Mean absolute difference of the mean colours of blocks (sides even), of each of the four places in cells of 2 x 2 pixels
    by itself: no tint, and no pattern of the sensor's mosaic. Patches smaller than a block are one.
    """
    places = F.pixel_unshuffle(restored - gt, 2)
    return F.avg_pool2d(places, min(block // 2, *places.shape[-2:])).abs().mean()


def fft_loss(restored: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of the real and imaginary parts of the 2D spectra (B, C, H, W).

    The transform is not divided by anything, as in the programs of general restorers: it grows with the side of the patch.
    """
    return torch.view_as_real(torch.fft.fft2(restored - gt)).abs().mean()


def scaled_fft_loss(restored: Tensor, gt: Tensor) -> Tensor:
    """The same of spectra divided by their number of pixels, so that weights of hundreds weigh as much as L1."""
    return torch.view_as_real(torch.fft.rfft2(restored - gt, norm="forward")).abs().mean()


Compare = Callable[[Tensor, Tensor], Tensor]
"""(restored, gt), each (B, 3, H, W), to a number, or to one a picture."""
PIXELS: Mapping[Loss, Compare] = {
    "l1": F.l1_loss, "l2": F.mse_loss, "psnr": psnr_loss, "ssim": ssim_loss, "colour": colour_loss,
    "fft": fft_loss, "fft-scaled": scaled_fft_loss,
}  # fmt: skip
"""The losses that need no network."""


@dataclass(frozen=True)
class Aids:
    """The networks that a recipe's losses need beside the method."""

    judges: Mapping[Loss, Compare] = field(default_factory=dict)
    """For `perceptual`, `perceptual-l2`, `identity`, `lpips` and `dists`: frozen networks that compare pictures in [0, 1]."""
    teacher: Callable[[Tensor], Tensor] | None = None
    """For `distill`: lq to what the method is to imitate."""
    opponents: Mapping[Loss, Opponent] = field(default_factory=dict)
    """For `gan` and `vsd`."""


def total_loss(
    weights: Mapping[Loss, float], method: nn.Module, lq: Tensor, restored: Tensor, gt: Tensor, aids: Aids
) -> Tensor:
    """The weighted sum of a stage's losses, in float32 whatever the network ran in."""
    restored = restored.float()
    terms = []
    for name, weight in weights.items():
        if name in PIXELS:
            term = PIXELS[name](restored, gt)
        elif name in aids.judges:
            term = aids.judges[name](restored, gt).mean()
        elif name in OWN and isinstance(method, HasOwnLoss):
            term = method.own_loss(name)
        elif name in aids.opponents:
            term = aids.opponents[name].against(method, restored)
        elif name == "distill" and aids.teacher is not None:
            with torch.no_grad():
                wanted = aids.teacher(lq).float()
            term = F.l1_loss(restored, wanted)
        else:
            raise ValueError(f"nothing was given to compute the loss {name} with")
        terms.append(weight * term)
    return torch.stack(terms).sum()
