"""Stages that are whole projects of their own, run as their authors released them, from a folder that the user names.

ntire downloads none of these programs and none of their weights, and changes nothing in their folders. They run with the
user's own rights: a program that you do not trust belongs into a container.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ntire import UserError

FOLDER = "NTIRE_PROGRAMS"
"""The environment variable that names the folder with one folder for each program."""
INTERPRETERS = (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "venv/Scripts/python.exe")


@dataclass(frozen=True)
class Program:
    """What was released, and how it is run for one picture.

    In `command`, `{input}` and `{output}` are folders: one with `picture.png`, and an empty one for the result; `{name}` of
    any other word is an option of the call.
    """

    name: str
    """Of its folder below $NTIRE_PROGRAMS."""
    code: str
    license: str
    needs: tuple[str, ...]
    """Files that must lie in its folder, weights among them."""
    advice: str
    """What to do beyond cloning it."""
    command: tuple[str, ...]
    """Words after the Python interpreter of the program's own environment."""
    minutes: float = 30.0
    """Before it is given up."""


class ReleasedProgram(nn.Module):
    """Runs a program once for each picture; pictures go through 8-bit PNGs, as they did in the pipelines."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def forward(self, image: Tensor, **options: str | float) -> Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], to what the program makes of them, of the program's size.

        Raises UserError (exit code 3) where the program is not here, is not whole, or fails. Counts nothing: on the meta device
        pictures come back as they are.
        """
        if image.is_meta:
            return image
        folder, python = locate(self.program)
        restored = [_run(self.program, folder, python, one, options) for one in image]
        return torch.stack(restored).to(image)


def locate(program: Program) -> tuple[Path, Path]:
    """The program's folder and its Python. Raises UserError that names all that is missing and how to get it."""
    root = os.environ.get(FOLDER)
    folder = Path(root or "").expanduser() / program.name
    python = next((folder / one for one in INTERPRETERS if (folder / one).is_file()), None)
    missing = [f"${FOLDER} is not set"] if not root else []
    if root and not folder.is_dir():
        missing.append(f"{folder}: no such folder")
    elif root:
        missing += [f"{folder / name}: no such file" for name in program.needs if not (folder / name).exists()]
        if python is None:
            missing.append(f"{folder}: no environment of its own ({INTERPRETERS[0]})")
    if missing or python is None:
        raise UserError(
            f"{program.name} runs as its authors released it, and is not ready:\n  " + "\n  ".join(missing) + "\n"
            f"Clone {program.code} ({program.license}) to {program.name} in a folder that {FOLDER} names, and give it an "
            f"environment of its own in .venv. {program.advice}",
            exit_code=3,
        )
    return folder.resolve(), python.absolute()


def require_programs(method: nn.Module) -> None:
    """Raise one UserError (exit code 3) that tells of every released program in a method that is not ready."""
    answers = []
    for stage in method.modules():
        if isinstance(stage, ReleasedProgram):
            try:
                locate(stage.program)
            except UserError as error:
                answers.append(str(error))
    if answers:
        raise UserError("\n".join(answers), exit_code=3)


def _run(program: Program, folder: Path, python: Path, image: Tensor, options: Mapping[str, str | float]) -> Tensor:
    with tempfile.TemporaryDirectory(prefix="ntire-") as scratch:
        given, result = Path(scratch) / "input", Path(scratch) / "output"
        given.mkdir()
        result.mkdir()
        pixels = (image.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(given / "picture.png")
        words = {"input": str(given), "output": str(result)} | {name: str(value) for name, value in options.items()}
        command = [str(python), *(word.format(**words) for word in program.command)]
        try:
            ran = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=program.minutes * 60, check=False
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{program.name}: gave nothing within {program.minutes:g} minutes.", exit_code=3) from None
        written = sorted(path for path in result.rglob("*.png") if path.is_file())
        if ran.returncode or len(written) != 1:
            last = "\n  ".join((ran.stderr or ran.stdout).strip().splitlines()[-8:])
            raise UserError(
                f"{program.name}: expected one PNG, found {len(written)}; it ended with {ran.returncode}:\n  {last}\n"
                f"The command, in {folder}: {' '.join(command)}",
                exit_code=3,
            )
        with Image.open(written[0]) as picture:
            restored = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(restored).permute(2, 0, 1)


STABLE_SR_TURBO = Program(
    name="StableSR",
    code="https://github.com/IceClear/StableSR",
    license="S-Lab License 1.0, non-commercial",
    needs=("scripts/sr_val_ddpm_text_T_vqganfin_oldcanvas_tile.py", "stablesr_turbo.ckpt", "vqgan_cfw_00011.ckpt"),
    advice="Its README names both checkpoints (stablesr_turbo.ckpt and vqgan_cfw_00011.ckpt); they belong into its folder.",
    command=(
        "scripts/sr_val_ddpm_text_T_vqganfin_oldcanvas_tile.py",
        "--config", "configs/stableSRNew/v2-finetune_text_T_512.yaml", "--ckpt", "stablesr_turbo.ckpt",
        "--vqgan_ckpt", "vqgan_cfw_00011.ckpt", "--init-img", "{input}", "--outdir", "{output}", "--ddpm_steps", "{steps}",
        "--dec_w", "{decoder}", "--seed", "{seed}", "--n_samples", "1", "--colorfix_type", "wavelet", "--upscale", "1",
        "--input_size", "512",
    ),
)  # fmt: skip
"""StableSR-turbo (Wang et al. 2024). Options: steps, decoder (its fidelity weight), seed."""
