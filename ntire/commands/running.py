"""`ntire run`: one team or several, here, as a part of a run, or on the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ntire import UserError
from ntire.commands.foreign_code import Trust, announce
from ntire.commands.options import (
    Address,
    AsJson,
    BackendName,
    ChannelsLast,
    CompileNetworks,
    CudaGraphs,
    EngineOption,
    MaxMemory,
    PrecisionName,
    Teams,
    TrackName,
    Variant,
    Workers,
    app,
    parsed_settings,
    parsed_tile,
)
from ntire.commands.restoring import default_inputs, paths_of, refuse_unknown, run
from ntire.commands.screen import (
    print_json,
    print_summary,
    progress,
    say,
    watch_engine,
    watch_pictures,
)

if TYPE_CHECKING:
    from ntire.runner.engines import Engine, EngineName
    from ntire.runner.prepare import Options
    from ntire.runner.runner import Summary


def run_all(
    teams: Sequence[str | Path],
    track: str | Path,
    inputs: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    engine: EngineName | None = None,
    *,
    address: str = "auto",
    workers: int | None = None,
    watch_engine: Callable[[Engine], None] = lambda engine: None,
    **how: Any,
) -> list[Summary]:
    """Restore inputs with several teams' methods, each into a folder of its own below `out`; one team alone into `out`.

    Without `engine` one after the other in this process; with one all at once, in shards, on its workers: see `open_engine`.
    `how` are the other arguments of `run`. The folders are the same either way.
    """
    names = [_name_of(team, str(track)) for team in teams] if len(teams) > 1 else []
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UserError(
                f"--team {teams[names.index(name)]} and --team {teams[place]}: the results of both would go into {name}/. "
                "Name each team once; rename one of two folders."
            )
    outs = [None if out is None else Path(out) / name for name in names or [""]]
    if engine is None:
        return [run(team, track, inputs, target, **how) for team, target in zip(teams, outs, strict=True)]
    from ntire.commands.on_engine import run_on_engine
    from ntire.runner.engines import open_engine

    device, say = how.pop("device", "auto"), how.get("say", lambda line: None)
    if device not in ("auto", "cpu"):
        raise UserError(
            f"--device {device}: with --engine, workers take every GPU there is, or none with --device cpu. "
            "CUDA_VISIBLE_DEVICES chooses among them."
        )
    how.pop("shard", None)
    options = _options_from(how)
    with open_engine(engine, address=address, workers=workers, device=device, say=say) as working:
        watch_engine(working)
        summaries = run_on_engine(working, teams, str(track), paths_of(inputs), outs, options, **how)
        for node, words in working.usage_in_words().items():
            say(f"{node}: {words}")
        return summaries


def _options_from(how: dict[str, Any]) -> Options:
    """The options among the arguments of `run`, which are taken out of `how`; the device is each worker's."""
    from ntire.runner.prepare import Options

    settings, weights = how.pop("settings", None) or {}, how.pop("weights", None)
    known = {one.name for one in fields(Options)} & set(how)
    return Options(
        weights=Path(weights) if weights else None,
        settings=tuple(sorted(settings.items())),
        **{name: how.pop(name) for name in known},
    )


def _name_of(team: str | Path, track_name: str) -> str:
    """Of a team's folder beside those of others."""
    from ntire.method import catalogue
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    name = Path(team).resolve().name if catalogue.is_folder(team) else catalogue.look_up(str(team), track.inputs).team
    return f"{name}-{track.name if track_name.endswith('.toml') else track_name}".replace("/", "_")


def refuse_together(exclusive: Mapping[str, bool], of_one: Mapping[str, bool]) -> None:
    """Raise UserError for options that exclude each other, and for those that are for one method where there are several."""
    asked = [word for word, yes in exclusive.items() if yes]
    if "--shard" in asked and len(asked) > 1:
        raise UserError(
            f"{' and '.join(asked)} exclude each other: --shard makes a part, by hand; `ntire merge` joins the parts."
        )
    single = [word for word, yes in of_one.items() if yes]
    if single:
        raise UserError(f"{', '.join(single)}: for one method, and there are several --team. Run that one alone.")


def _before_and_after(out: Path, track_name: str, given: Sequence[Path]) -> Path:
    """Draw what was restored beside its inputs, beside the folder, into which only what belongs to the entry goes."""
    from ntire.commands.sheets import SHOWN, input_column, picture_column
    from ntire.entry.manifest import IMAGES
    from ntire.picture.contact_sheet import SheetPart, contact_sheet
    from ntire.runner.runner import find_inputs
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    places = list(given)
    if not places:
        track, folder = default_inputs(track)
        places = [folder]
    inputs = {one.name: one.path for one in find_inputs(places, track.inputs)}
    columns = [input_column(inputs, raw=track.inputs == "raw"), picture_column("restored", out / IMAGES)]
    file = out.resolve().with_name(f"{out.resolve().name}-sheet.png")
    for remark in contact_sheet(file, [SheetPart(columns, sorted(inputs)[:SHOWN])]):
        say(remark)
    if len(inputs) > SHOWN:
        say(f"the first {SHOWN} of {len(inputs)} pictures; `ntire sheet {out} --lq DIR --limit N` shows more")
    return file


@app.command(
    "run",
    epilog="Examples: [bold]ntire run --team MiAlgo --track raw night.dng[/]; "
    "[bold]ntire run --team ./my-method --track srgb photos/ --trust[/]",
)
def run_command(
    team: Teams,
    track: TrackName,
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders. Default: $NTIRE_DATA, else the built-in samples.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="The submission folder, of several teams the one around theirs. Default: submissions/<team>-<track>.",
        ),
    ] = None,
    variant: Variant = None,
    weights: Annotated[Path | None, typer.Option(help="A file with all weights of the method.")] = None,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda or cuda:N. Several share the pictures: cuda:0,cuda:1.")
    ] = "auto",
    precision: PrecisionName = "fp32",
    tile: Annotated[str, typer.Option(help="Side of the tiles in pixels, auto, or off for the whole image.")] = "auto",
    bits: Annotated[Literal["8", "16"], typer.Option(help="Bit depth of the PNGs; challenges expect 8.")] = "8",
    channels_last: ChannelsLast = False,
    compiled: CompileNetworks = False,
    cuda_graphs: CudaGraphs = False,
    backend: BackendName = "torch",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming an earlier run.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N inputs.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method; may be repeated.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Find the faces in whole pictures, restore each, and paste it back.")
    ] = False,
    max_memory: MaxMemory = None,
    trust: Trust = False,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox", help="Run a folder's method.py in a sandbox: the default, whatever NTIRE_TRUST says."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="Only the I-th of N parts, for N machines; `ntire merge` joins them."
        ),
    ] = None,
    engine: EngineOption = None,
    address: Address = "auto",
    workers: Workers = None,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also draw inputs and results side by side, into <folder>-sheet.png.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore files or folders with a team's method into a submission folder; resumes an interrupted run."""
    for one in team:
        refuse_unknown(one, track, variant)
        announce(one, trust and not sandbox, say)
    refuse_together(
        {"--shard": shard is not None, "--sheet": sheet, "--engine": engine is not None},
        {"--variant": variant is not None, "--weights": weights is not None, "--set": bool(given)}
        if len(team) > 1
        else {},
    )
    with progress() as bars:
        summaries = run_all(
            team, track, inputs or [], folder, engine,
            address=address, workers=workers, watch_engine=lambda working: watch_engine(bars, working),
            variant=variant, weights=weights, device=device, precision=precision, tile=parsed_tile(tile),
            bits=16 if bits == "16" else 8, channels_last=channels_last, compiled=compiled, cuda_graphs=cuda_graphs,
            backend=backend,
            fresh=fresh, limit=limit, settings=parsed_settings(given or []), whole=whole, max_memory_gb=max_memory,
            trust=trust, sandbox=sandbox, shard=shard, watch=lambda title, total: watch_pictures(bars, title, total), say=say,
        )  # fmt: skip
    for summary in summaries:
        for remark in summary.remarks:
            say(remark)
        if not as_json:
            print_summary(summary)
        if sheet:
            say(f"before and after: {_before_and_after(summary.out, track, inputs or [])}")
    if as_json:
        print_json(
            summaries[0].as_json() if len(team) == 1 else [one.as_json() | {"out": str(one.out)} for one in summaries]
        )
    if any(summary.failed for summary in summaries):
        raise typer.Exit(1)
