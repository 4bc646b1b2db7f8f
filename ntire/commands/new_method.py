"""`ntire new-method`: a folder with a method of one's own that runs as it is, to begin from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.options import AsJson, app
from ntire.commands.screen import out, print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["srgb", "raw", "face", "general"]
SAMPLES = ("srgb", "raw")
"""Kinds of which pictures ship."""
PICTURES = '''"""{team}: a residual network of one convolution, to begin from.

    LQ -> conv 3 x 3 -> + LQ
"""

from torch import Tensor, nn

from ntire.method import Method
from ntire.method.weights_files import Weights


class {name}(Method):
    """Its weights smooth a little, against noise. `forward` is the networks and nothing else: (B, 3, H, W) in [0, 1]."""

    team = {quoted}
    track = "{track}"
    weights = (Weights("net.safetensors", sha256="{sha256}"),)
    tiling = "exact"  # or "global", if an output pixel depends on the whole image
    halo = 1  # so far does an input pixel reach: one convolution of 3 x 3
    stride = 1  # the product of the strides

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        return lq + self.body(lq)
'''
FRAMES = '''"""{team}: a pixel-unshuffled convolution from a mosaic to a picture, to begin from.

    RGGB mosaic -> 4 channels of half the size -> conv 3 x 3 -> pixel shuffle -> sRGB curve
"""

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ntire.method import Method
from ntire.method.weights_files import Weights


class {name}(Method):
    """Its weights take each colour from its own sites. `forward` gets a white-balanced linear mosaic (B, 1, H, W) in [0, 1]
    and gives sRGB-encoded camera RGB (B, 3, H, W); white balance, CFA phase and colour matrix are done around it.
    """

    team = {quoted}
    track = "{track}"
    weights = (Weights("net.safetensors", sha256="{sha256}"),)
    tiling = "exact"  # or "global", if an output pixel depends on the whole frame
    halo = 4  # so far does an input pixel reach: one convolution of 3 x 3 at half the size
    stride = 2  # the mosaic is taken apart by twos

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        return pixel_shuffle(self.body(pixel_unshuffle(lq, 2)), 2).clamp(0, 1) ** (1 / 2.2)
'''
README = """# {team}

`method.py` is the method, `weights/` holds its weights; other modules beside them are imported as usual. Change the network,
put your weights into `weights/`, and declare them in the class: `Weights("NAME.safetensors", sha256="...")`.

    ntire run --team {folder} --track {track}{samples} -o submissions/mine
    ntire cost --team {folder} --track {track}
    ntire bench --team {folder} --track {track}{samples} --quick
    ntire pack submissions/mine --code {folder}{lq}
    ntire check submissions/mine.zip{lq}
    ntire verify submissions/mine.zip{lq}

They restore {what}, count and time the method, make submissions/mine.zip with the code and a factsheet, check it as the grader
does, and see whether the code makes the images. `run`, `cost` and `bench` run it in a sandbox; `--trust` runs it as your own
program. What a method may declare stands in ntire's CONTRIBUTING.md.
"""


def _as_team(folder: Path) -> str:
    """A folder as a shell takes it for `--team`."""
    return shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")


def write_new_method(folder: Path, track: Kind, team: str | None) -> list[Path]:
    """Write `method.py`, `weights/net.safetensors` and `README.md`; returns their paths.

    Raises UserError for a folder that has something in it, or that cannot be written to.
    """
    import json
    import re

    from safetensors.numpy import save

    from ntire.files import sha256_of

    team = team or folder.resolve().name
    weights = save(_weights_of_raw() if track == "raw" else _weights_of_pictures())
    words = "".join(word.capitalize() for word in re.findall("[A-Za-z0-9]+", team))
    known = {
        "team": team,
        "quoted": json.dumps(team, ensure_ascii=False),
        "track": track,
        "name": words if words[:1].isalpha() else f"Own{words}",
        "sha256": sha256_of(weights),
        "samples": "" if track in SAMPLES else " photos/",
        "lq": "" if track in SAMPLES else " --lq photos/",
        "what": "the built-in samples (or a folder that you name)" if track in SAMPLES else "your pictures in photos/",
        "folder": _as_team(folder),
    }
    files: dict[str, str | bytes] = {
        "method.py": (FRAMES if track == "raw" else PICTURES).format(**known),
        "weights/net.safetensors": weights,
        "README.md": README.format(**known),
    }
    return _written(folder, files)


def _written(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    from ntire.files import writable_folder, write_atomically

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or empty folder, found something there. Choose another name.")
    writable_folder(writable_folder(folder) / "weights")
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _weights_of_pictures() -> dict[str, NDArray[np.float32]]:
    """Half of what the binomial filter of 3 x 3 would change."""
    import numpy as np

    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    binomial[1, 1] -= 1
    weight = np.zeros((3, 3, 3, 3), np.float32)
    for colour in range(3):
        weight[colour, colour] = 0.5 * binomial
    return {"body.weight": weight, "body.bias": np.zeros(3, np.float32)}


def _weights_of_raw() -> dict[str, NDArray[np.float32]]:
    """Each colour of the four pixels of a cell from its own sites of that cell: red, the mean of both greens, blue."""
    import numpy as np

    weight = np.zeros((12, 4, 3, 3), np.float32)
    for colour, sites in enumerate(((0,), (1, 2), (3,))):
        for pixel in range(4):
            for site in sites:
                weight[4 * colour + pixel, site, 1, 1] = 1 / len(sites)
    return {"body.weight": weight, "body.bias": np.zeros(12, np.float32)}


@app.command(
    "new-method",
    epilog="Examples: [bold]ntire new-method my-method[/], then see my-method/README.md; "
    "[bold]ntire new-method team21 --model models/team21_X.py --weights model_zoo/team21_X.pth --data-range 255[/]",
)
def new_method_command(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    track: Annotated[Kind, typer.Option(help="What it restores.")] = "srgb",
    team: Annotated[str | None, typer.Option(help="Your team's name. Default: the folder's.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Wrap a model of an efficiency challenge's repository: its models/teamXX_NAME.py."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --model: its model_zoo/teamXX_NAME.pth.")] = None,
    data_range: Annotated[float, typer.Option(help="With --model: what it takes white for, 1 or 255.")] = 1.0,
    scale: Annotated[int, typer.Option(min=1, help="With --model: how many times as large its result is.")] = 4,
    model_class: Annotated[
        str | None, typer.Option(help="With --model: its class. Default: what follows teamXX_ in the file's name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a folder with a small method of your own that runs, packs and verifies as it is, to begin from."""
    if (model is None) != (weights is None):
        raise UserError("--model and --weights go together: a model's file and its weights.")
    if model and weights:
        from ntire.commands.wrapping import wrapped_model

        files = wrapped_model(model, weights, name=model_class, team=team, scale=scale, data_range=data_range)
        written = _written(folder, files)
    else:
        written = write_new_method(folder, track, team)
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        out.print(str(path), markup=False)
    kind = "image-sr-x4 lr/" if model else track
    out.print(f"try it:  ntire run --team {_as_team(folder)} --track {kind} -o submissions/mine", markup=False)
