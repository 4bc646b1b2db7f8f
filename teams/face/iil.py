"""IIL, second of the face challenge 2025 ("SDFace"): SDXL-Turbo in one step.

    LQ -> VAE encoder + LoRA -> UNet + LoRA at t = 999, no noise added -> VAE decoder + LoRA -> RGB

Report: NTIRE 2025 real-world face restoration, section 4.2: 2703.64 M parameters, 2771.52 GFLOPs, 0.21 s on an A6000.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from ntire.method import Cost
from ntire.method.state_dict import fill, fill_from
from ntire.method.weights_files import Weights, locate, require
from ntire.picture.real_esrgan_degradation import SecondOrderDegradation
from ntire.teams.parts.face_pipeline import CHALLENGE, FacePipeline, from_the_challenge
from ntire.teams.parts.sdxl_turbo import WEIGHTS, SdxlTurbo
from ntire.training import Constant, Recipe, Stage

STORED = (
    "https://raw.githubusercontent.com/zhengchen1999/NTIRE2025_RealWorld_Face_Restoration/"
    "a7580abb4a69ff1b6d87e2afc1577564ec673e85/models/team02_SDFace"
)
UNSTATED = "none stated"


class Iil(FacePipeline):
    """One stage, which is all."""

    team = "IIL"
    cite = "face2025"
    code = CHALLENGE
    claimed = Cost(
        source="NTIRE 2025 face restoration report, section 4.2",
        reading="GFLOPs are MACs of layers, without the products of attention",
        params_m=2703.64,
        macs_g=2771.52,
        at=(512, 512),
        runtime_ms=210.0,
        runtime_at=(512, 512),
        device="A6000",
    )
    stride = 32
    weights = (
        *(replace(one, into="sdxl_turbo") for one in WEIGHTS),
        Weights(
            "iil-net_g_final.pth", None, UNSTATED, "official", into="sdxl_turbo",
            by_hand=from_the_challenge(2, "net_g_final.pth"),
        ),
        *(
            Weights(f"iil-{file}", None, UNSTATED, "official", into=f"sdxl_turbo.{part}", urls=(f"{STORED}/{file}",))
            for file, part in (
                ("prompt_embeds.pt", "prompt"), ("add_text_embeds.pt", "pooled"), ("add_time_ids.pt", "sizes"),
            )
        ),
    )  # fmt: skip
    caveats = (
        "The original draws the latent from the encoder's posterior without a seed, so that no two runs agree; here the seed "
        "is 0.",
        "Adapters of rank 32 on the attention of both networks and the VAE's residual convolutions, as in the team's program, "
        "give the report's count to the last digit; the report names no rank.",
        "The report's 2771.52 G leave out the products of attention, 62 G, as counters of layers do.",
        "The prompt is stored as its embedding; its words are not published.",
        "SDXL-Turbo is under Stability AI's non-commercial community licence.",
        "The team's program states 0.379 s where the report states 0.21 s.",
        "Of its training the report gives the losses, their weights, optimiser and rate; batch, length and the degradation, "
        "that of Real-ESRGAN, whose GAN it follows, are ours, and the data are the user's. Layers of VGG are Real-ESRGAN's, "
        "each a root mean square; ArcFace is facexlib's IR-SE-50, on the crop of FFHQ's alignment.",
        "Training begins from a folder with SDXL-Turbo, `ntire train --weights FOLDER`; the prompt's embeddings are the "
        "team's: `ntire weights fetch IIL`. Adapters alone are trained.",
    )
    recipe = Recipe(
        degradation=SecondOrderDegradation(),
        stages=(
            Stage(
                "sdface",
                iterations=100_000,
                patch=512,
                batch=2,
                lr=1e-4,
                lr_end=1e-4,
                losses={"l1": 1.0, "perceptual-l2": 1.0, "identity": 1.0, "gan": 0.5},
                curve=Constant(),
            ),
        ),
        betas=(0.5, 0.999),
        source=(
            "NTIRE 2025 face restoration report, section 4.2, equations 1 to 6: losses and their weights, AdamW, betas, rate; "
            "batch, length and degradation are ours"
        ),
    )
    tiny = {"width": 32, "rank": 2}

    def __init__(self, width: int = 320, rank: int = 32) -> None:
        super().__init__()
        self.sdxl_turbo = SdxlTurbo(width, rank)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        self._seed = 0

    def forward(self, lq: Tensor) -> Tensor:
        return self.sdxl_turbo(lq, seed=self._seed if self.training else 0)

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        """Draw another latent for each batch."""
        self._seed = int(torch.randint(2**31, (), generator=rng))

    def begin_from(self, weights: Path) -> None:
        """A file of this method's own weights, or a folder with SDXL-Turbo as diffusers keeps it; then the prompt's embeddings
        are the files that the method declares.
        """
        if not weights.is_dir():
            fill(self, self.read_weights(weights), weights)
            return
        stored = tuple(one for one in self.weights if one.file.endswith(".pt"))
        require({self.team: stored}, {self.team: None})
        self.sdxl_turbo.fill_base(weights)
        for one in stored:
            fill_from(self.get_submodule(one.into), one, locate(one, None)[0])

    def as_claimed(self, lq: Tensor) -> Tensor:
        with self.sdxl_turbo.layers_only():
            return self(lq)
