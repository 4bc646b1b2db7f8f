"""What commands share: the app, the options that several of them take, and how their values are read."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError

if TYPE_CHECKING:
    from ntire.method.recipe import Loss

EPILOG = (
    "Exit codes: 0 done and valid; 1 the entry breaks a rule or an image could not be restored; 2 wrong usage; "
    "3 something of ours or of the machine is missing or failed; 130 stopped with Ctrl-C."
)


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    help="Run, check, score and rank what teams submit to the NTIRE image-restoration challenges.",
)


def team_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """What the shell offers for `--team`: the teams of the track that stands before it, else all."""
    from ntire.method.catalogue import listed, serving
    from ntire.scoring.track import load_track

    try:
        kinds: tuple[str | None, ...] = (
            serving(load_track(ctx.params["track"]).inputs) if ctx.params.get("track") else (None,)
        )
    except UserError:
        kinds = (None,)
    names = sorted({method.team for kind in kinds for method in listed(kind)})
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def track_names(incomplete: str) -> list[str]:
    """What the shell offers for `--track`."""
    from ntire.scoring.track import all_tracks

    names = sorted({name for track in all_tracks() for name in (track.name, track.inputs)})
    return [name for name in names if name.startswith(incomplete)]


def variant_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """What the shell offers for `--variant`: those of the team that stands before it."""
    from ntire.method.catalogue import listed

    given = ctx.params.get("team") or ()
    teams = [given] if isinstance(given, str) else given
    return sorted({one.variant for one in listed() if one.team in teams and one.variant.startswith(incomplete)} - {""})


Team = Annotated[
    str,
    typer.Option("--team", autocompletion=team_names, help="A team's name, or a folder with a method.py: ./NAME."),
]


Teams = Annotated[
    list[str],
    typer.Option(
        "--team",
        autocompletion=team_names,
        help="A team's name, or a folder with a method.py: ./NAME. May be repeated: every team restores all inputs.",
    ),
]


TrackName = Annotated[
    str,
    typer.Option(
        "--track",
        autocompletion=track_names,
        help="Track: raw, srgb, a full name as in `ntire tracks`, or the path of a TOML.",
    ),
]


Variant = Annotated[
    str | None, typer.Option(autocompletion=variant_names, help="Variant of the team's method. Default: the first.")
]


Out = Annotated[Path | None, typer.Option("-o", "--out", help="Output folder.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]


PrecisionName = Annotated[
    Literal["fp32", "bf16", "fp16"], typer.Option(help="Precision of the networks; fp32 is exact.")
]


Inputs = Annotated[Path | None, typer.Option("--lq", help="Folder of inputs. Default: $NTIRE_DATA/<track>/lq.")]


Names = Annotated[list[str] | None, typer.Argument(help="Names of teams, metrics or files. Default: all.")]


OfTrack = Annotated[str | None, typer.Option("--track", help="Only what this track's metrics and methods need.")]


Key = Annotated[
    Path | None, typer.Option("--key", help="The organiser's key, a file: signs verdicts, and only signed ones count.")
]


ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="Use the channels-last memory layout; reports the effect on pixels.")
]


BackendName = Annotated[
    Literal["torch", "openvino", "onnx"],
    typer.Option(help="Program that runs the networks on a CPU; others than torch report their effect on pixels."),
]


CompileNetworks = Annotated[
    bool, typer.Option("--compile", help="Compile the networks with torch.compile; reports the effect on pixels.")
]


CudaGraphs = Annotated[bool, typer.Option("--cuda-graphs", help="Use CUDA graphs; reports the effect on pixels.")]


EngineOption = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        "--engine",
        help="Where to work: processes of this machine (local), or the nodes of a Ray cluster. Default: here.",
    ),
]


Address = Annotated[
    str,
    typer.Option(help="The Ray cluster: auto for the one this machine is part of, HOST:PORT, or local to start one."),
]


Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Worker processes here or on each node. Default: one a GPU, or one for every 4 processors."
    ),
]


Memory = Annotated[float, typer.Option(min=0.25, help="Memory limit for submitted code, in GiB.")]


MaxMemory = Annotated[
    float | None,
    typer.Option(min=0.001, help="Limit for weights on the GPU, in GB; parts of a method are moved there in turn."),
]


TimeLimit = Annotated[float, typer.Option(min=1, help="Time limit for submitted code, in seconds per image.")]


def command_line(data: Path, folder: Path | None) -> str:
    """The command as typed, but for places on this machine: a card is read elsewhere."""
    words = [
        {str(data): data.name, str(folder): folder.name if folder else ""}.get(word, word) for word in sys.argv[1:]
    ]
    return " ".join(["ntire", *words])


def command_without(option: str) -> list[str]:
    """The command as typed, without an option and its value."""
    words = ["ntire", *sys.argv[1:]]
    dropped = {number + step for number, word in enumerate(words) if word == option for step in (0, 1)}
    return [word for number, word in enumerate(words) if number not in dropped and not word.startswith(f"{option}=")]


def parsed_folders(given: Iterable[str], option: str = "--pairs") -> dict[str, Path]:
    """`snowy=DIR` to {"snowy": DIR}."""
    found = {}
    for one in given:
        stage, equals, folder = one.partition("=")
        if not (stage and equals and folder):
            raise UserError(f"{option} {one}: expected a name and a path, such as snowy=DIR.")
        found[stage] = Path(folder)
    return found


def parsed_losses(given: Iterable[str]) -> dict[Loss, float]:
    """`colour=1` to {"colour": 1.0}; the last of a name counts. Raises UserError that lists what is no such loss."""
    from ntire.training.losses import PIXELS

    found: dict[Loss, float] = {}
    problems = []
    for one in given:
        name, _, value = one.partition("=")
        known = next((loss for loss in PIXELS if loss == name), None)
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if known is None:
            problems.append(f"--loss {one}: no loss {name} that needs no network; there are {', '.join(PIXELS)}.")
        elif not 0 < weight < math.inf:
            problems.append(f"--loss {one}: expected NAME=WEIGHT with a number above 0, such as {name}=0.5.")
        else:
            found[known] = weight
    if problems:
        raise UserError("\n".join(problems))
    return found


def parsed_settings(given: Iterable[str]) -> dict[str, str]:
    """`damage=rainy` to {"damage": "rainy"}; the last of a name counts."""
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise UserError(f"--set {one}: expected NAME=VALUE, such as damage=rainy.")
        found[name] = value
    return found


def parsed_tile(given: str) -> int | Literal["auto"] | None:
    if given == "auto":
        return "auto"
    if given == "off":
        return None
    if given.isdecimal() and int(given) > 0:
        return int(given)
    raise UserError(f"--tile {given}: expected a number of pixels, auto or off.")


def parsed_size(at: str | None, option: str = "--at") -> tuple[int, int] | None:
    """`3072x4096` to (3072, 4096)."""
    if at is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,5})\s*x\s*([1-9]\d{0,5})", at)
    if sides is None:
        raise UserError(f"{option} {at}: expected height x width, such as 3072x4096.")
    return int(sides[1]), int(sides[2])
