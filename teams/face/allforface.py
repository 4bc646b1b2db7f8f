"""AllForFace, first of the face challenge 2025: fidelity, realness and naturalness, a network each.

    LQ -> StyleGAN2 with a dictionary of facial parts -> face
    face, tags of RAM++ for it -> Stable Diffusion 2.1 under IRControlNet -> a VAE with skips, guided by DINOv2

Report: NTIRE 2025 real-world face restoration, section 4.1; options as in the team's program.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill
from ntire.teams.parts import tagger
from ntire.teams.parts.diffbir import CONTROL_V2, DIFFUSION, NEGATIVE, DiffBIR
from ntire.teams.parts.face_pipeline import CHALLENGE, FacePipeline
from ntire.teams.parts.natural_vae import NaturalVae, fill_from_folders
from ntire.teams.parts.released_program import Program, ReleasedProgram
from ntire.teams.parts.tagger import Tagger
from ntire.teams.parts.upright_face import UprightFace
from ntire.training import Constant, OwnLoss, Recipe, Stage

MODELS = "model_zoo/team01_AllForFace"
RUN = """
import importlib, pathlib, sys, numpy, torch
from PIL import Image
given, made, stage = sys.argv[1:]
if stage == "fidelity":
    source = importlib.import_module("models.team01_AllForFace.FidelityGenerationModel")
    network = source.FidelityModel(out_size=512, num_style_feat=512, channel_multiplier=1, decoder_load_path=None,
        fix_decoder=True, num_mlp=8, input_is_latent=True, different_w=True, narrow=1, sft_half=False)
    network.load_state_dict(torch.load("MODELS/fidelity_model.pth", map_location="cpu"))
else:
    network = torch.load("MODELS/naturalness_model.pt", map_location="cpu")
device = "cuda" if torch.cuda.is_available() else "cpu"
network.eval().to(device)
torch.manual_seed(231)
pixels = numpy.asarray(Image.open(pathlib.Path(given) / "picture.png").convert("RGB"))
face = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(device) / 255
with torch.no_grad():
    face = (network(face * 2 - 1)[0].clamp(-1, 1) + 1) / 2 if stage == "fidelity" else network(face).clamp(0, 1)
restored = (face[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
Image.fromarray(restored).save(pathlib.Path(made) / "picture.png")
""".replace("MODELS", MODELS)
"""What the program's own `main` does for one of the two stages, for one picture."""
FIDELITY = Program(
    name="AllForFace",
    code=CHALLENGE,
    license="its repository MIT; of the networks nothing is said",
    needs=("models/team01_AllForFace/FidelityGenerationModel.pyc", f"{MODELS}/fidelity_model.pth"),
    advice="The environment must be Python 3.10 with torch 2.1, for which its network was compiled; the weights are in the "
    "folder of models that model_zoo/link_for_all_models.txt names.",
    command=("-c", RUN, "{input}", "{output}", "fidelity"),
)
NATURALNESS = replace(
    FIDELITY,
    needs=("models/team01_AllForFace/main.py", f"{MODELS}/naturalness_model.pt"),
    command=("-c", RUN, "{input}", "{output}", "naturalness"),
)


@dataclass(frozen=True)
class Same:
    """No damage: a picture is to come out as it goes in."""

    def __call__(self, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        return gt, gt


class AllForFace(UprightFace):
    """The middle stage and its tagger in ntire; the outer two as released, as there is no source of the first, and no weights
    but a pickle of the third.
    """

    team = "AllForFace"
    cite = "face2025"
    code = CHALLENGE
    weights = (
        *(replace(one, into=f"tagger.{one.into}".rstrip(".")) for one in tagger.RAM_PLUS),
        *(replace(one, into=f"realness.{one.into}") for one in (*DIFFUSION, CONTROL_V2)),
    )
    caveats = (
        "The first network is public as compiled code for Python 3.10 only, the last as a pickle that runs code as it is read: "
        "both run in the user's clone of the program, in $NTIRE_PROGRAMS/AllForFace, in the sandbox of submitted code.",
        "The original appends the tags of all earlier pictures to a picture's own, so a result depends on their order; "
        "here a picture is prompted by its own.",
        "The original's RAM++ sees a picture of [-1, 1] where [0, 1] is meant: what is below the middle wraps around. Here it "
        "sees the face as it is, unless `wrapped` is set.",
        "Pictures go through 8 bits between the stages.",
        "Each picture begins from seed 231; the original sets it once and draws on from picture to picture, on a GPU.",
        "The report does not say how the first network is trained: there is no recipe, and it cannot be trained here. The last "
        "one can, as far as the text goes: see the variant naturalness.",
    )
    programs = (replace(FIDELITY, needs=(*FIDELITY.needs, *NATURALNESS.needs)),)
    settable = {"prompt": "what is in the pictures, in place of RAM++'s tags"}
    tiny = {"width": 32, "steps": 2, "side": 64, "released": 0}

    prompt: str | None = None
    """What is in the picture, for all pictures; None for the tags that RAM++ gives each."""
    wrapped: bool = False
    """Whether RAM++ sees the face as in the original, its darker half wrapped around."""

    def __init__(self, width: int = 320, steps: int = 50, side: int = 512, released: int = 1) -> None:
        """With `released` 0 the two stages that run as released are left out; that is not the method."""
        super().__init__()
        self.steps, self.side = steps, side
        self.fidelity = ReleasedProgram(FIDELITY) if released else None
        self.tagger = Tagger() if width == 320 else Tagger(descriptions=3, width=64)
        self.realness = DiffBIR(width, cleaner=False)
        self.naturalness = ReleasedProgram(NATURALNESS) if released else None

    def face(self, lq: Tensor) -> Tensor:
        faithful = lq if self.fidelity is None else self.fidelity(lq)
        real = torch.cat([self._real(one) for one in faithful.split(1)])
        return real if self.naturalness is None else self.naturalness(real)

    def _real(self, face: Tensor) -> Tensor:
        """The second stage for one face (1, 3, side, side)."""
        prompt = self.prompt
        if prompt is None:
            (tags,) = self.tagger(wrapped(face) if self.wrapped else face)
            prompt = ", ".join(tags)
        real: Tensor = self.realness(
            face,
            steps=self.steps,
            guidance=4.0,
            strength=1.2,
            prompt=prompt,
            negative=f"{NEGATIVE}, artifacts",
            seed=231,
            side=self.side,
        )
        return real


def wrapped(face: Tensor) -> Tensor:
    """A face in [0, 1] as it looks when its values in [-1, 1] are written as bytes: those below zero come out 256 higher."""
    return (((face.float() * 2 - 1) * 255).int() % 256) / 255


class AllForFaceNaturalness(FacePipeline):
    """The last network, to be trained by what the report says of it; it takes what the second stage gives.

    faces -> VAE guided by DINOv2, with skips -> faces
    """

    team = "AllForFace"
    variant = "naturalness"
    cite = "face2025"
    code = CHALLENGE
    stride = 16
    notice = (
        "AllForFace: this is the last of its three networks alone, for results of the second one; the whole method is the "
        "variant without a name."
    )
    caveats = (
        "Not the whole method: its last stage alone, to be run on what the second one gives. No weights are public that ntire "
        "reads; the team's pickle runs in the whole method.",
        "The report gives no network, numbers or data: Stable Diffusion's VAE, latents drawn to DINOv2-base's patches by their "
        "cosine as in VA-VAE, skips by 1 x 1 convolutions as in img2img-turbo, and all lengths, rates and weights of losses "
        "are ours. The latent is the mean of the posterior, which nothing draws to a normal distribution.",
        "Training begins from a folder with Stable Diffusion's `vae` and facebook/dinov2-base in `dinov2`, `ntire train "
        "--weights FOLDER`. The stage skips needs pairs of what the second stage gives and clean faces: `--pairs skips=DIR`.",
    )
    recipe = Recipe(
        degradation=Same(),
        stages=(
            Stage("latent", 100_000, 256, 8, 1e-4, 1e-4, {"l1": 1.0, "own": 0.1}, curve=Constant()),
            Stage(
                "skips",
                iterations=100_000,
                patch=512,
                batch=4,
                lr=1e-4,
                lr_end=1e-4,
                losses={"l1": 1.0, "own": 0.1, "perceptual": 1.0, "gan": 0.1},
                curve=Constant(),
                paired=True,
            ),
        ),
        source=(
            "NTIRE 2025 face restoration report, section 4.1: two stages, DINOv2 as the latent's guide, then skips with "
            "reconstruction, perceptual and GAN losses on results of the second stage; all numbers are ours"
        ),
    )
    tiny = {"width": 32, "features": 16}

    def __init__(self, width: int = 128, features: int = 768) -> None:
        super().__init__()
        self.vae = NaturalVae(width, features)
        # Not a part of it: neither saved with its weights nor counted.
        self._guide: list[nn.Module] = []
        self._gt: Tensor | None = None

    def forward(self, lq: Tensor) -> Tensor:
        return self.vae(lq)

    def begin_stage(self, name: str) -> None:
        """Without skips the latent must hold everything."""
        self.vae.skipping = name != "latent"

    def begin_step(self, lq: Tensor, gt: Tensor, rng: Generator) -> None:
        self._gt = gt

    def own_loss(self, name: OwnLoss) -> Tensor:
        """How far the latents of the last batch are from what DINOv2 sees in its clean faces."""
        if not self._guide:
            raise UserError(
                "the loss own compares latents with DINOv2: begin from a folder with it, --weights FOLDER, or leave it out: "
                "--without own."
            )
        if self._gt is None:
            raise RuntimeError("its own loss is of a batch in training")
        self._guide[0].to(self._gt.device)
        return self.vae.guidance(self._guide[0], self._gt)

    def begin_from(self, weights: Path) -> None:
        """A file of this stage's own weights, or a folder with Stable Diffusion's VAE and DINOv2."""
        if not weights.is_dir():
            fill(self, self.read_weights(weights), weights)
            return
        self._guide = [fill_from_folders(self.vae, weights)]
