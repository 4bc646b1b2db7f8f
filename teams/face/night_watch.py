"""Night Watch, invalid in the face challenge 2025 (130 failed images): DiffBIR with settings of its own for each test picture.

    LQ -> SwinIR -> Stable Diffusion 2.1 under IRControlNet -> wavelet colour -> unsharp mask where there is contrast

The settings were searched for by the challenge's own metrics and stand in a table by file name. Report: NTIRE 2025 real-world
face restoration; options as in the team's program.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from ntire import UserError
from ntire.teams.parts import diffbir
from ntire.teams.parts.diffbir import DiffBIR
from ntire.teams.parts.face_pipeline import CHALLENGE, FacePipeline
from ntire.teams.parts.face_prompts import CAMERA, PORTRAIT, PORTRAIT_NEGATIVE

PROMPTS = {
    1: (f"{PORTRAIT} {CAMERA}", PORTRAIT_NEGATIVE),
    2: (
        "sufficient detail, high-resolution, feature-rich portrait, lifelike skin texture, sharp and clear focus, delicate "
        "lighting, well-defined facial details, natural expression, symmetrical features, aesthetically pleasing face, "
        "properly lit, vivid clarity, realistic color tones, refined details, expressive eyes, gentle shadows, photographic "
        f"quality, balanced proportions, pure natural lookhigh aesthetic quality, {CAMERA}",
        "blurry, pixelated, low-resolution, flattened or exaggerated features, heavy noise, over-smoothing, cartoon-like, "
        "plastic or waxy skin, inconsistent facial proportions, messy hair, artifacts eyes, artifacts teeth, unnatural "
        "highlights, harsh or uneven lighting, blurry edges, distorted or mismatched colors, strange facial expressions, "
        "out-of-focus elements, over-sharpened edges, warped geometry",
    ),
    3: (
        "sufficient detail, high-resolution, finely captured face, realistic pores and skin texture, crisp depth, soft and "
        "diffused lighting, precise facial landmarks, relaxed and natural pose, elegant expression, aesthetically unified "
        "proportions, carefully balanced highlights, high clarity and detail, immersive realism, nuanced color grading, "
        "well-defined eyes and eyelashes, distinct shadows, photorealistic finishinghigh aesthetic quality, "
        f"{CAMERA}",
        "blurry, pixelated, low-resolution, blocky or compressed texture, incorrect facial alignment, overly bright or "
        "saturated areas, jarring color banding, cartoonish or painted look, unnatural glare, unnatural facial stretching, "
        "overly harsh shadows, artifacts eyes, artifacts teeth, blur hair, mismatched or dislocated facial features, skewed "
        "perspectives, unrealistic skin color, heavy noise or grain",
    ),
}
"""Positive and negative, by the program's numbers; a missing comma of the program's is missing here."""


@dataclass(frozen=True)
class Mask:
    """A preset of the program's unsharp mask."""

    weight: float
    contrast: float
    radius: int
    threshold: int
    overshoot: float
    """How much is kept of what goes beyond the neighbours' values."""


MASKS = {
    "0.1": Mask(0.1, 0.7, 20, 10, 0.7),
    "0.3": Mask(0.3, 0.9, 30, 15, 0.6),
    "0.7": Mask(0.7, 1.2, 50, 25, 0.4),
    "1.0": Mask(1.0, 1.5, 60, 20, 0.3),
    "1.2": Mask(1.2, 2.5, 70, 30, 0.2),
}


@dataclass(frozen=True)
class DarkSettings:
    """What the team's table has for each test picture; by default the commonest values of its rows for Wider-Test."""

    prompts: int = 2
    guidance: float = 8.0
    strength: float = 0.6
    steps: int = 30
    mask: Mask | None = MASKS["1.0"]


class NightWatch(FacePipeline):
    """One choice of settings for all pictures."""

    team = "Night Watch"
    cite = "face2025"
    code = CHALLENGE
    weights = tuple(replace(one, into=f"diffbir.{one.into}") for one in diffbir.WEIGHTS)
    caveats = (
        "Prompts, guidance, strength, steps, cleaner and unsharp mask of each test picture stand in tables by file name, found "
        "by search for the best scores. Here one choice serves all pictures: `--set guidance=5 --set mask=none` for another.",
        "The program copies two inputs it cannot restore to its results (Wider 0042 and 0046), and skips unlisted pictures.",
        "Its tables say that every picture keeps its identity; the organisers' run found 130 that do not.",
        "The cleaner is DiffBIR's own. Those that the team trained on are not public but for a drive in its folder.",
        "Each picture begins from seed 231, on the CPU; the original's noise is a GPU's.",
    )
    settable = {
        "prompts": f"the number of a pair of prompts: {', '.join(map(str, PROMPTS))}",
        "guidance": "a number; the team's tables have 4 to 9",
        "strength": "of the control, a number; theirs have 0.6 to 1",
        "steps": "a number; theirs have 30, 50, 75 and 100",
        "mask": f"a preset of the unsharp mask, {', '.join(MASKS)}, or none",
    }
    tiny = {"width": 32, "steps": 2, "side": 64}

    def __init__(self, width: int = 320, steps: int = 30, side: int = 512) -> None:
        super().__init__()
        self.side = side
        self.settings = DarkSettings(steps=steps)
        self.diffbir = DiffBIR(width)

    def deploy(self) -> None:
        """Read what the user has set as words. Raises UserError for any that it does not know."""
        given: dict[str, Any] = {name: _read(name, vars(self)[name]) for name in self.settable if name in vars(self)}
        self.settings = replace(self.settings, **given)

    def forward(self, lq: Tensor) -> Tensor:
        chosen = self.settings
        prompt, negative = PROMPTS[chosen.prompts]
        detailed: Tensor = self.diffbir(
            lq,
            steps=chosen.steps,
            guidance=chosen.guidance,
            strength=chosen.strength,
            prompt=prompt,
            negative=negative,
            seed=231,
            side=self.side,
        )
        return detailed if chosen.mask is None else sharpened(detailed, chosen.mask)


def _read(name: str, word: str) -> int | float | Mask | None:
    try:
        if name == "mask":
            return None if word == "none" else MASKS[word]
        number = float(word) if name in ("guidance", "strength") else int(word)
        if number > 0 and (name != "prompts" or number in PROMPTS):
            return number
    except (KeyError, ValueError):
        pass
    raise UserError(f"--set {name}={word}: expected {NightWatch.settable[name]}.")


def sharpened(image: Tensor, mask: Mask) -> Tensor:
    """The unsharp mask where a blur changes much, softly bounded by the values around each pixel.

    The program filters for edges, too, but does not use what it finds.
    """
    side = mask.radius + 1 - mask.radius % 2
    # OpenCV's, for a kernel of which only the side is given.
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8

    def blurred(picture: Tensor) -> Tensor:
        room = min(side // 2, min(picture.shape[-2:]) - 1)  # a reflection is shorter than the picture
        kernel = 2 * room + 1
        return gaussian_blur(picture, [kernel, kernel], [sigma, sigma]) if room > 0 else picture

    detail = image - blurred(image)
    where = (mask.contrast * blurred((detail.abs() * 255 > mask.threshold).to(image.dtype))).clamp(0, 1)
    sharper = (image + mask.weight * detail).clamp(0, 1)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    highest, lowest = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
    bounded = torch.where(sharper > highest, highest + (sharper - highest) * mask.overshoot, sharper)
    bounded = torch.where(sharper < lowest, lowest - (lowest - sharper) * mask.overshoot, bounded)
    return where * bounded + (1 - where) * image
