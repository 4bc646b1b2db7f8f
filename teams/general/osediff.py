"""OSEDiff (Wu et al. 2024): one step of Stable Diffusion 2.1, prompted by what RAM sees in the picture.

LQ -> RAM, tuned by DAPE -> tags, the prompt
LQ -> VAE encoder + LoRA -> UNet + LoRA at t = 999 -> clean latent -> VAE decoder -> AdaIN colour of the LQ
"""

from dataclasses import replace

from torch import Tensor

from ntire import UserError
from ntire.method import Method
from ntire.teams.parts import osediff, tagger
from ntire.teams.parts.colour import adain_colour, wavelet_colour
from ntire.teams.parts.osediff import OVERLAP
from ntire.teams.parts.osediff import OseDiffNetwork as OneStep
from ntire.teams.parts.stable_diffusion import LATENT, enlarged, sized
from ntire.teams.parts.tagger import Tagger

COLOURS = {"adain": adain_colour, "wavelet": wavelet_colour}


class OseDiff(Method):
    """Invents details where damage has left none; for photographs damaged by everything at once."""

    team = "OSEDiff"
    track = "general"
    cite = "wu2024osediff"
    code = "https://github.com/cswry/OSEDiff"
    tiling = "global"
    halo = OVERLAP * LATENT
    stride = LATENT
    bf16_psnr_db = 20.0
    weights = (
        *(replace(one, into=f"osediff.{one.into}".rstrip(".")) for one in osediff.WEIGHTS),
        *(replace(one, into=f"tagger.{one.into}".rstrip(".")) for one in tagger.RAM_WITH_DAPE),
    )
    caveats = (
        "Trained to enlarge four times; here as its program does at --upscale 1. Pictures below 512 are enlarged meanwhile.",
        "The original draws the latent from what the encoder leaves open, without a seed; here it is the mean, so tiles agree.",
        "The UNet goes over latents larger than 96 x 96 in tiles, as in the original, whose VAE does, too. Here --tile bounds "
        "what the VAE sees at once; tags and colours are the whole picture's.",
        "The tagger's picture is made smaller with antialiasing, the original's without, by the torchvision that it pins.",
    )
    settable = {
        "prompt": "what is in the pictures, in place of RAM's tags",
        "colour": "how a result gets the colours of its input: adain, wavelet or none",
    }
    tiny = {"width": 32, "side": 64}

    prompt: str | None = None
    """What is in the picture, for all pictures; None for the tags that RAM gives each."""
    colour: str = "adain"
    """How the result gets the colours of the input: a word of COLOURS, or none."""

    _whole: list[str] | None = None
    """The prompt of the picture whose tiles are being restored."""

    def __init__(self, width: int = 320, side: int = 512) -> None:
        super().__init__()
        full = width == 320
        self.side = side
        self.osediff = OneStep(width) if full else OneStep(width, tile=12)
        self.tagger = Tagger(descriptions=1) if full else Tagger(descriptions=1, width=64)

    def deploy(self) -> None:
        """Raise UserError for a way with colours that it does not know, before the first picture."""
        if self.colour not in (*COLOURS, "none"):
            raise UserError(f"colour={self.colour}: expected {', '.join(COLOURS)} or none.")

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.osediff(lq, self._whole or self.prompts(lq))
        return restored

    def prompts(self, image: Tensor) -> list[str]:
        """The prompt of each picture (B, 3, H, W)."""
        if self.prompt is not None:
            return [self.prompt] * len(image)
        # The program puts words of the user's own between the last two commas, none unless asked.
        return [f"{', '.join(tags)}, ," for tags in self.tagger(image)]

    def in_tiles(self, lq: Tensor) -> Tensor:
        """Look at the whole picture (3, H, W), restore it, and give it its colours back."""
        lq = lq.to(self.device).float()[None]
        large = enlarged(lq, self.side)
        self._whole = self.prompts(large)
        try:
            restored = super().in_tiles(large[0])[None]
        finally:
            self._whole = None
        if self.colour != "none":
            restored = COLOURS[self.colour](restored, like=large)
        height, width = lq.shape[-2:]
        return sized(restored, (height, width))[0].clamp(0, 1)
