"""A picture made better by climbing a measure of quality in the latent space of Stable Diffusion: PISA-MAP's second half.

    picture -> VAE -> EDICT backwards -> a pair of noisy latents -> [EDICT -> VAE -> quality - distance -> gradient] x rounds

EDICT (Wallace et al. 2023) runs DDIM on two latents that lead each other, and so can be run backwards exactly.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ntire.method.counters import alike
from ntire.teams.parts.stable_diffusion import signal_share

Noise = Callable[[Tensor, int], Tensor]
"""What a network sees as noise in a latent at a time."""
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A picture (1, 3, H, W), RGB, [0, 1], to its quality and to what is to be raised, one number each."""
MOMENTUM, RATE, LARGEST = 0.9, 2.0, 1e-3
"""Of the climb; each number of the gradient is cut to LARGEST."""
MIXING, MIXED_AT = 0.93, 50
"""Of EDICT, and the steps that it is meant for."""


def mixing(steps: int) -> float:
    """EDICT's p for another number of steps."""
    return MIXING ** (MIXED_AT / steps)


def edict_times(steps: int) -> tuple[int, ...]:
    """The times of DDIM, from noisy to clean: 950, 900 ... 0 for 20 steps."""
    return tuple(range(0, 1000, 1000 // steps))[steps - 1 :: -1]


def denoised(pair: Tensor, noise_in: Noise, number: int, steps: int) -> Tensor:
    """One step of EDICT from noisy to clean (eq. 14 and 15): (2, C, h, w) to the same. Which latent leads alternates."""
    time, p = edict_times(steps)[number], mixing(steps)
    scale, slope = _ddim(time, time - 1000 // steps, pair)
    both = list(pair.chunk(2))
    first, second = number % 2, (number + 1) % 2
    both[first] = scale * both[first] + slope * noise_in(both[second], time)
    both[second] = scale * both[second] + slope * noise_in(both[first], time)
    one = p * both[0] + (1 - p) * both[1]
    return torch.cat((one, (1 - p) * one + p * both[1]))


def noised(pair: Tensor, noise_in: Noise, number: int, steps: int) -> Tensor:
    """The exact inverse of `denoised`."""
    time, p = edict_times(steps)[number], mixing(steps)
    scale, slope = _ddim(time, time - 1000 // steps, pair)
    one, other = pair.chunk(2)
    other = (other - (1 - p) * one) / p
    both = [(one - (1 - p) * other) / p, other]
    first, second = number % 2, (number + 1) % 2
    both[second] = (both[second] - slope * noise_in(both[first], time)) / scale
    both[first] = (both[first] - slope * noise_in(both[second], time)) / scale
    return torch.cat(both)


def climb(
    latent: Tensor,
    noise_in: Noise,
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    *,
    steps: int = 20,
    rounds: int = 30,
    enough: float = 90.0,
) -> Tensor:
    """The picture of a latent (1, C, h, w), moved to raise `objective` until the quality is `enough`, or all rounds are over.

    Memory is that of one pass of the network: each step is computed again on the way back.
    """
    with torch.no_grad():
        pair = latent.repeat(2, 1, 1, 1)
        for number in alike(range(steps - 1, -1, -1), latent.device):
            pair = noised(pair, noise_in, number, steps)
    speed = torch.zeros_like(pair)
    for turn in alike(range(rounds), latent.device):
        with torch.set_grad_enabled(not latent.is_meta):
            start = pair.detach().requires_grad_(not latent.is_meta)
            now = start
            for number in alike(range(steps), latent.device):
                now = _step_again(now, noise_in, number, steps)
            pictures = [decode(one).clamp(0, 1) for one in now.chunk(2)]
            judged = [objective(picture) for picture in pictures]
            best = pictures[0].detach()
            if latent.is_meta:  # counted is the way to the measures, not the way back
                continue
            if turn == rounds - 1 or float(judged[0][0].detach()) >= enough:
                break
            (slope,) = torch.autograd.grad(judged[0][1] + judged[1][1], start)
        speed = MOMENTUM * speed + (slope / 2).clamp(-LARGEST, LARGEST)
        pair = start.detach() + RATE * speed
    return best


def _step_again(pair: Tensor, noise_in: Noise, number: int, steps: int) -> Tensor:
    if not pair.requires_grad:
        return denoised(pair, noise_in, number, steps)
    stepped: Tensor = checkpoint(denoised, pair, noise_in, number, steps, use_reentrant=False)
    return stepped


def _ddim(time: int, before: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """DDIM's step as scale x latent + slope x noise; before the first time comes the first itself."""
    share, cleaner = signal_share((time, max(before, 0))).to(like.device)
    scale = (cleaner / share).sqrt()
    return scale, (1 - cleaner).sqrt() - scale * (1 - share).sqrt()
