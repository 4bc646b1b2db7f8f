"""Diffusion in 50 steps, and which of them matches a kind of damage: the definitions of the paper.

Pictures are (B, 3, H, W) in [-1, 1]; steps are whole numbers (B,) from 1, nearly clean, to 50, nearly noise.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

STEPS = 50
Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy pictures, steps) to the noise in them."""
Definition = Literal["reversal", "change", "algorithm-2", "score"]
"""What makes a step match; see `distances`."""


def signal_shares() -> Tensor:
    """The share of the variance that is signal at steps 0 to 50: the linear betas of DDPM (Ho et al. 2020), whose 1000 steps
    run from 1e-4 to 0.02, for 50: from 0.002 to 0.4.
    """
    betas = torch.linspace(0.002, 0.4, STEPS, dtype=torch.float64, device="cpu")
    return torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), (1 - betas).cumprod(0)]).float()


SHARES = signal_shares()


def _share(steps: Tensor) -> Tensor:
    return SHARES.to(steps.device)[steps][:, None, None, None]


def diffuse(clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """Pictures and white noise of variance 1, mixed as they are at `steps` (Ho et al. 2020, eq. 4)."""
    share = _share(steps)
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def clean_estimate(noisy: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """The clean pictures that a prediction of the noise means (eq. 15)."""
    share = _share(steps)
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


def reverse(noisy: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """One step back without new noise (Song et al. 2021, DDIM with eta 0)."""
    return diffuse(clean_estimate(noisy, noise, steps), noise, steps - 1)


def ddpm_step(noisy: Tensor, noise: Tensor, steps: Tensor, fresh: Tensor) -> Tensor:
    """One step back as algorithm 2 prints it (Ho et al. 2020): `fresh` noise of variance beta is added, but not at step 1."""
    kept = _share(steps) / _share(steps - 1)
    mean = (noisy - (1 - kept) / (1 - _share(steps)).sqrt() * noise) / kept.sqrt()
    return mean + (1 - kept).sqrt() * fresh * (steps > 1)[:, None, None, None]


def distances(predict: Predict, lq: Tensor, gt: Tensor, definition: Definition, rng: Generator) -> Tensor:
    """How far each step 1 to 50 is from matching the damage of these pairs: 50 mean squared differences.

    `reversal` (section on time steps): diffuse the damaged picture to the step, come all the way back, compare with the clean
    one. `algorithm-2`: what one step back of DDPM takes away, compared with damaged minus clean; it starts from the diffused
    damaged picture, as from pure noise unrelated pictures would be compared. `change`: the same by DDIM, without new noise.
    `score` (appendix): the noise that is
    predicted in the damaged picture itself, scaled as at that step, taken away from it, compared with the clean one.
    The same noise serves all steps.
    """
    noise = torch.randn(lq.shape, generator=rng).to(lq)
    found = []
    with torch.no_grad():
        for number in range(1, STEPS + 1):
            steps = torch.full((len(lq),), number, device=lq.device)
            if definition == "reversal":
                x = diffuse(lq, noise, steps)
                for _ in range(number):
                    x = reverse(x, predict(x, steps), steps)
                    steps = steps - 1
                difference = x - gt
            elif definition in ("change", "algorithm-2"):
                x = diffuse(lq, noise, steps)
                found_noise = predict(x, steps)
                fresh = torch.randn(lq.shape, generator=rng).to(lq) if definition == "algorithm-2" else noise
                before = (
                    reverse(x, found_noise, steps)
                    if definition == "change"
                    else ddpm_step(x, found_noise, steps, fresh)
                )
                difference = (x - before) - (lq - gt)
            else:
                difference = lq - (1 - _share(steps)).sqrt() * predict(lq, steps) - gt
            found.append(difference.double().square().mean())
    return torch.stack(found)


def matching_step(predict: Predict, lq: Tensor, gt: Tensor, rng: Generator, definition: Definition = "reversal") -> int:
    """The step that matches the damage of these pairs best, by one of the definitions of `distances`.

    64 pairs or more of one kind of damage, and the `noise_in` of a method that has learnt to generate, give a figure that
    can be compared with the paper's.
    """
    return int(distances(predict, lq, gt, definition, rng).argmin()) + 1
