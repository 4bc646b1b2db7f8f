"""The perceptual loss of ESRGAN and Real-ESRGAN: pictures are compared by what VGG-19 sees in them."""

import torch
from torch import Tensor, nn

from ntire.method.state_dict import read_state_dict
from ntire.method.weights_files import VGG19, locate, require

LAYERS = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
"""Weight of each layer's difference, before its ReLU: conv1_2, conv2_2, conv3_4, conv4_4, conv5_4 of Real-ESRGAN."""


class PerceptualLoss(nn.Module):
    """Weighted sum of the mean absolute differences of VGG-19's features; with `squared`, plain sum of the roots of their mean
    squares. Pictures (B, 3, H, W) in [0, 1] from 16 x 16 on.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, squared: bool = False) -> None:
        super().__init__()
        self.squared = squared
        from torchvision.models import vgg19

        self.features = vgg19(weights=None).features[: max(LAYERS) + 1].requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        pairs = torch.cat([restored, gt])
        x = (pairs - self.mean) / self.deviation
        loss = restored.new_zeros(())
        for number, layer in enumerate(self.features):
            # Not in place: the features before the ReLU are what is compared.
            x = torch.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if number in LAYERS:
                of_restored, of_gt = x.chunk(2)
                difference = of_restored - of_gt.detach()
                if self.squared:
                    # The root of nothing has no slope.
                    loss = loss + (difference.square().mean() + 1e-12).sqrt()
                else:
                    loss = loss + LAYERS[number] * difference.abs().mean()
        return loss


def perceptual_loss(squared: bool = False) -> PerceptualLoss:
    """The loss with torchvision's weights. Raises UserError if they are not here."""
    require({"perceptual": (VGG19,)}, {"perceptual": None})
    loss = PerceptualLoss(squared)
    state = read_state_dict(locate(VGG19, None)[0])
    loss.features.load_state_dict(
        {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    )
    return loss
