"""The paper's own network, as far as its text says: the U-Net of IR-SDE (Luo et al. 2023), which diffusion restorers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire.teams.general.diffusion_trained.experts import Clock

HEADS, HEAD = 4, 32


class TimedBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip; the time scales and shifts what the first one gives."""

    def __init__(self, width_in: int, width: int, time_width: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(width_in, width, 1, bias=False) if width_in != width else nn.Identity()
        self.time = nn.Linear(time_width, 2 * width)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        skipped = self.skip(x)
        x = F.silu(self.conv1(x) * (1 + scale) + shift)
        return skipped + F.silu(self.conv2(x))


class GainNorm(nn.Module):
    """LayerNorm over the channels of each pixel with a scale alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.gain


class LinearAttention(nn.Module):
    """x + attention whose cost grows with the pixels only: keys meet values first, over all positions (Shen et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GainNorm(width)
        self.qkv = nn.Conv2d(width, 3 * HEADS * HEAD, 1, bias=False)
        self.project_out = nn.Sequential(nn.Conv2d(HEADS * HEAD, width, 1), GainNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(1, (3, HEADS, HEAD)).flatten(4).unbind(1)
        # Values are divided by the number of pixels as in IR-SDE; the norm behind takes the scale out again.
        summary = k.softmax(dim=3) @ (v / v.shape[3]).transpose(2, 3)
        mixed = summary.transpose(2, 3) @ (q.softmax(dim=2) * HEAD**-0.5)
        return x + self.project_out(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))


class Level(nn.Module):
    """Two blocks, attention, a change of size, and room for experts."""

    def __init__(self, width_in: int, width: int, time_width: int, resize: nn.Module) -> None:
        super().__init__()
        self.block1 = TimedBlock(width_in, width, time_width)
        self.block2 = TimedBlock(width_in, width, time_width)
        self.attention = LinearAttention(width)
        self.resize = resize
        self.experts = nn.Sequential()


class Down(Level):
    """Puts what each block gives on the pile of skips; experts come behind the change of size."""

    def forward(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.block1(x, time)
        skips.append(x)
        x = self.attention(self.block2(x, time))
        skips.append(x)
        return self.experts(self.resize(x))


class Up(Level):
    """Takes the skips from the pile; experts come before the change of size."""

    def forward(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.block1(torch.cat([x, skips.pop()], dim=1), time)
        x = self.attention(self.block2(torch.cat([x, skips.pop()], dim=1), time))
        return self.resize(self.experts(x))


class TimedUNet(nn.Module):
    """Widths w, 2w, 4w, 8w over four levels, (B, 3, H, W) to the same; sides are multiples of 8."""

    def __init__(self, width: int, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.width = width
        time_width = 4 * width
        self.time = nn.Sequential(nn.Linear(width, time_width), nn.GELU(), nn.Linear(time_width, time_width))
        self.first = nn.Conv2d(3, width, 7, padding=3, bias=False)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        upper = width
        for number in range(4):
            lower = width * 2**number
            down = nn.Conv2d(upper, lower, 4, 2, 1) if number < 3 else nn.Conv2d(upper, lower, 3, padding=1, bias=False)
            self.downs.append(Down(upper, upper, time_width, down))
            up = nn.Conv2d(lower, upper, 3, padding=1, bias=number > 0)
            doubled = nn.Sequential(nn.Upsample(scale_factor=2), up) if number else up
            self.ups.insert(0, Up(lower + upper, lower, time_width, doubled))
            upper = lower
        self.middle1 = TimedBlock(upper, upper, time_width)
        self.middle_attention = LinearAttention(upper)
        self.middle2 = TimedBlock(upper, upper, time_width)
        self.last_block = TimedBlock(2 * width, width, time_width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def levels(self) -> list[tuple[nn.Sequential, int]]:
        """Where experts go, and how wide it is there."""
        widths = [self.width * times for times in (1, 2, 4, 8)]
        experts = [module.experts for module in self.modules() if isinstance(module, Level)]
        return list(zip(experts, [*widths, *reversed(widths)], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        time = self.time(self.clock.prompt(self.width, x))
        x = first = self.first(x)
        skips: list[Tensor] = []
        for level in self.downs:
            x = level(x, time, skips)
        x = self.middle2(self.middle_attention(self.middle1(x, time)), time)
        for level in self.ups:
            x = level(x, time, skips)
        return self.last(self.last_block(torch.cat([x, first], dim=1), time))
