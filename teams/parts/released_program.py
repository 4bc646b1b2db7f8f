"""Stages that are whole projects of their own, run as their authors released them, from a folder that the user names.

ntire downloads none of these programs and none of their weights, and changes nothing in their folders. They run in the
sandbox of submitted code (`ntire.sandbox`): without network, their folder and environment for reading only, one picture in, one
PNG out. What they look for in a home is found in `.home` of their folder.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.picture.image import as_image, decode, write_image
from ntire.sandbox.child import Backend, Child, Place, why_not
from ntire.sandbox.limits import Limits

FOLDER = "NTIRE_PROGRAMS"
"""The environment variable that names the folder with one folder for each program."""
SANDBOX = "NTIRE_SANDBOX"
"""The environment variable that may say `none`: programs then run with all rights of the user."""
INTERPRETERS = (".venv/bin/python", "venv/bin/python")
MOST = 1 << 28
"""Bytes of a result."""


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
    memory_gb: int = 64
    """Of the host, before it is ended."""


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
        return torch.stack([_run(self.program, one, options) for one in image]).to(image)


def locate(program: Program) -> tuple[Path, Path]:
    """The program's folder and its Python. Raises UserError that names all that is missing and how to get it."""
    root = os.environ.get(FOLDER)
    folder = (Path(root or "").expanduser() / program.name).resolve()
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
    return folder, python


def require_programs(programs: Sequence[Program]) -> None:
    """Raise one UserError (exit code 3) that tells of every program that is not ready, and of a sandbox that cannot be made."""
    answers = []
    for ready in (*(partial(locate, program) for program in programs), *((_backend,) if programs else ())):
        try:
            ready()
        except UserError as error:
            answers.append(str(error))
    if answers:
        raise UserError("\n".join(answers), exit_code=3)


def _backend() -> Backend:
    wanted = os.environ.get(SANDBOX, "bubblewrap")
    if wanted == "none":
        return "none"
    if wanted != "bubblewrap":
        raise UserError(f"{SANDBOX}={wanted}: expected bubblewrap or none; containers have no program's environment.")
    if reason := why_not("bubblewrap"):
        raise UserError(
            f"released programs run in a sandbox, and none works here: {reason}.\n"
            f"Install bubblewrap (`apt-get install bubblewrap`). {SANDBOX}=none runs them with all your rights.",
            exit_code=3,
        )
    return "bubblewrap"


def _shown(program: Program, folder: Path, python: Path) -> tuple[Path, ...]:
    """What the program may read: its folder, its environment, the Python below, and weights that lie elsewhere."""
    environment = python.parents[1].resolve()
    needed = {folder, environment, python.resolve().parents[1], *((folder / name).resolve() for name in program.needs)}
    outer = [path for path in needed if not any(path != other and path.is_relative_to(other) for other in needed)]
    return tuple(sorted(path for path in outer if not path.is_relative_to("/usr")))


def _run(program: Program, image: Tensor, options: Mapping[str, str | float]) -> Tensor:
    folder, python = locate(program)
    backend = _backend()
    limits = Limits(
        seconds=program.minutes * 60, memory_bytes=program.memory_gb << 30, processes=4096, scratch_bytes=8 << 30
    )
    with tempfile.TemporaryDirectory(prefix="ntire-") as scratch:
        given = Path(scratch)
        given.chmod(0o755)
        write_image(given / "picture.png", image.float().clamp(0, 1).cpu())
        (given / "picture.png").chmod(0o644)
        place = Place(given, given, device=str(image.device), shown=_shown(program, folder, python))
        with Child(backend, place, limits, "ntire.sandbox.released_program_child") as child:
            ready = child.begin(place.device)
            words = {"input": child.paths["in"], "output": child.paths["out"]}
            words |= {name: str(value) for name, value in options.items()}
            argv = [str(python), *(word.format(**words) for word in program.command)]
            home = folder / ".home"
            request = {"op": "run", "argv": argv, "folder": str(folder), "out": child.paths["out"]}
            request |= {"home": str(home) if home.is_dir() else ""}
            answer = child.ask(request, limits.seconds, MOST) if ready.state == "answered" else ready
        if answer.state != "answered" or answer.fields.get("code") or not answer.data:
            last = "\n  ".join(child.printed.strip().splitlines()[-8:])
            found = answer.problem or answer.fields.get("problem") or f"it ended with {answer.fields.get('code')}"
            raise UserError(
                f"{program.name}: expected one PNG, found {answer.fields.get('written', 0)}; {found}:\n  {last}\n"
                f"The command, in {folder}: {' '.join(argv)}",
                exit_code=3,
            )
        return as_image(decode(Path(f"{program.name}.png"), answer.data))
