"""`ntire run`: a method found, given its inputs, and run; `ntire sheet`: results side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.options import AsJson, PrecisionName, Team, TrackName, Variant, app, parsed_settings, parsed_tile
from ntire.commands.screen import (
    out,
    print_json,
    print_table,
    progress,
    say,
    watch_pictures,
)
from ntire.text import printable

if TYPE_CHECKING:
    from ntire.method import Method
    from ntire.runner.device_worker import Result
    from ntire.runner.prepare import Options
    from ntire.runner.runner import Input, Summary
    from ntire.sandbox.child import Backend
    from ntire.sandbox.limits import Limits
    from ntire.scoring.track import Track

    Watch = Callable[[Result, bool], None]

Say = Callable[[str], None]
"""Takes one line about what is going on."""


@dataclass(frozen=True)
class Job:
    """One method and what it is to restore."""

    method: type[Method]
    track: Track
    inputs: tuple[Input, ...]
    out: Path


def plan(
    team: str,
    track_name: str,
    given: Sequence[Path],
    out: Path | None,
    variant: str | None,
    limit: int | None,
    say: Say,
) -> Job:
    """Find method, track and inputs.

    Without inputs: the track's folder below `$NTIRE_DATA`, else the built-in sample set, which is a track of its own.
    Raises UserError for an unknown name, a method of another track, or inputs that are not there.
    """
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    method = chosen_method(team, track, variant)
    track, inputs = inputs_of_track(track, given, method.track, limit, say)
    typed = track.name if track_name.endswith(".toml") else track_name
    name = "-".join(filter(None, (method.team, typed, variant or "")))
    return Job(method, track, inputs, out or Path("submissions") / name.replace("/", "_"))


def inputs_of_track(
    track: Track, given: Sequence[Path], kind: str, limit: int | None, say: Say
) -> tuple[Track, tuple[Input, ...]]:
    """What is to be restored, and for which track: the sample set is one of its own."""
    from ntire.picture.samples import add_noise
    from ntire.runner.runner import find_inputs

    folders = list(given)
    if not given:
        track, folder = _default_inputs(track)
        folders = [folder]
        say(f"no input given: restoring {folder} ({track.title})")
    inputs = find_inputs(folders, kind)[:limit]
    if track.noise:
        noisy = add_noise({item.name: item.path for item in inputs}, track.noise.sigma, track.noise.seed)
        say(f"noise of sigma {track.noise.sigma:g} added to {len(inputs)} clean picture(s): {noisy}")
        inputs = find_inputs([noisy], kind)
    for subset, noise in track.noises.items():
        clean = [item for item in inputs if item.name.startswith(f"{subset}/")]
        if clean:
            noisy = add_noise({item.name: item.path for item in clean}, noise.sigma, noise.seed)
            say(f"{subset}: noise of sigma {noise.sigma:g} added to {len(clean)} clean picture(s): {noisy}")
            inputs = [*(item for item in inputs if item not in clean), *find_inputs([noisy], kind)]
    return track, tuple(inputs)


def restore_walled(
    folder: Path,
    track_name: str,
    given: Sequence[Path],
    out: Path | None,
    limit: int | None,
    options: Options,
    backend: Backend,
    limits: Limits,
    watch: Callable[[str, int], Watch],
    say: Say,
) -> Summary:
    """Run the code of a stranger's folder behind a wall into a submission folder; it goes on where it was stopped.

    Raises UserError for code that cannot be loaded (exit code 1), and (exit code 3) for a wall that does not stand.
    """
    from ntire.method import catalogue
    from ntire.review.submitted_method import Behind, clean_tree, method_behind
    from ntire.runner.runner import run
    from ntire.scoring.track import load_track

    if not (folder / "method.py").is_file():
        raise UserError(f"{folder}: expected a folder with a method.py, found none. --sandbox is for code of others.")
    track = load_track(track_name)
    with tempfile.TemporaryDirectory(prefix="ntire-run-") as name:
        scratch = Path(name)
        (scratch / "code").mkdir(mode=0o755)
        clean_tree(folder, scratch / "code", "")
        bits, tile = options.bits, options.tile
        behind = Behind(
            backend, scratch / "code", "method.py", scratch, options.device, limits, {},
            tile=tile, precision=options.precision, bits=bits,
        )  # fmt: skip
        with behind:
            refused = behind.load()
            if refused is not None:
                raise UserError(
                    f"{folder}: {refused.code} {refused.problem}: {refused.found}. {refused.do}", exit_code=1
                )
            method = method_behind(behind, folder, scratch)
            if method.track not in catalogue.serving(track.inputs):
                raise UserError(
                    f"{folder}: its method is for {method.track} inputs, track {track.name} has {track.inputs}."
                )
            track, inputs = inputs_of_track(track, given, method.track, limit, say)
            target = out or Path("submissions") / printable(f"{method.team}-{track_name}").replace("/", "_")
            return run(method, inputs, target, track.name, options, watch(f"{method.team} {track.name}", len(inputs)))


def restore(job: Job, options: Options, report: Watch, *, whole: bool = False) -> Summary:
    """Run a job; see `ntire.runner.runner.run`. With `whole`, inputs are pictures with faces in them, which RetinaFace finds.

    Raises UserError where the detector is not here, or the method is not one for faces that leaves reading to ntire.
    """
    from ntire.method import Method
    from ntire.method.face_alignment import face_finder
    from ntire.runner.prepare import prepare
    from ntire.runner.runner import run

    if whole and (job.method.track != "face" or job.method.restore is not Method.restore):
        raise UserError(f"--whole finds faces in pictures; {job.method.team} on track {job.track.name} takes no faces.")
    find = face_finder(options.device) if whole else None
    method = prepare(job.method, options)
    return run(method, job.inputs, job.out, job.track.name, options, report, find)


def refuse_unknown(team: str, track_name: str, variant: str | None) -> None:
    """Raise UserError for a track, team or variant that there is not, before anything heavy is imported."""
    from ntire.method import catalogue
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    if not _is_path(team):
        catalogue.look_up(team, track.inputs, variant)


def _is_path(team: str) -> bool:
    return "/" in team or (Path(team) / "method.py").is_file()


def chosen_method(team: str, track: Track, variant: str | None) -> type[Method]:
    """A method of the catalogue, or the one in a folder, for a track."""
    from ntire.method import catalogue

    method = catalogue.load(Path(team)) if _is_path(team) else catalogue.find(team, track.inputs, variant)
    if method.track not in catalogue.serving(track.inputs):
        raise UserError(
            f"{team}: its method is for {method.track} inputs, track {track.name} has {track.inputs}. "
            f"Use --track {method.track}."
        )
    return method


def _default_inputs(track: Track) -> tuple[Track, Path]:
    """Inputs where the user gave none: `$NTIRE_DATA/<track>/lq` (clean pictures in `gt` where the track adds the noise
    itself), else the sample set, which is a track of its own.
    """
    from ntire.picture.samples import sample_set
    from ntire.scoring.track import sample_track

    part = "gt" if track.noise else "lq"
    root = os.environ.get("NTIRE_DATA")
    if root:
        folder = Path(root) / track.name / part
        if not folder.is_dir():
            raise UserError(
                f"NTIRE_DATA={root}: expected {folder}, found no such folder. "
                f"Put the data of {track.name} there or name the folder on the command line."
            )
        return track, folder
    samples = track if track.samples else sample_track(track.inputs)
    if samples is None:
        raise UserError(
            f"track {track.name}: where is the input? Name it, or set NTIRE_DATA to a folder with {track.name}/{part}."
        )
    return samples, sample_set() / samples.inputs / part


def sheet_of(entries: Sequence[Path], gt: Path | None, out: Path) -> Path:
    """Write a contact sheet of entries, and of the clean pictures where they are given."""
    from ntire.entry.manifest import IMAGES, open_submission
    from ntire.picture.contact_sheet import Column, contact_sheet

    columns = [Column(one.entry, one.root / IMAGES) for one in map(open_submission, entries)]
    if gt is not None:
        columns.append(Column("truth", gt))
    empty = [str(column.folder) for column in columns if not column.folder.is_dir()]
    if empty:
        raise UserError(f"{', '.join(empty)}: expected a folder of pictures, found none.")
    return contact_sheet(out, [columns])


@app.command(
    epilog="Examples: [bold]ntire run --team MiAlgo --track raw night.dng[/]; "
    "[bold]ntire run --team ./my-method --track srgb photos/ -o submissions/mine[/]"
)
def run(
    team: Team,
    track: TrackName,
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders. Default: $NTIRE_DATA, else the built-in samples.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="The submission folder. Default: submissions/<team>-<track>.")
    ] = None,
    variant: Variant = None,
    weights: Annotated[Path | None, typer.Option(help="A file with all weights of the method.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N; several, as cuda:0,cuda:1, share the pictures.")
    ] = "auto",
    precision: PrecisionName = "fp32",
    tile: Annotated[str, typer.Option(help="Side of the tiles in pixels, auto, or off for the whole image.")] = "auto",
    bits: Annotated[Literal["8", "16"], typer.Option(help="Bits a sample of the PNGs; the challenges want 8.")] = "8",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Another memory layout; says what it changes.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile the networks; says what it changes.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Replay recorded kernels; says what it changes.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run finished.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N inputs.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method's own.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Whole pictures: find their faces, restore each, put it back.")
    ] = False,
    max_memory: Annotated[
        float | None, typer.Option(min=0.001, help="GB of weights on the GPU at once; parts of a method take turns.")
    ] = None,
    walled: Annotated[bool, typer.Option("--sandbox", help="Run the folder's method.py behind a wall.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore files or folders with a team's method into a submission folder; goes on where it was stopped."""
    if not walled:
        refuse_unknown(team, track, variant)
    from ntire.environment import choose_devices
    from ntire.runner.prepare import Options

    depth: Literal[8, 16] = 16 if bits == "16" else 8
    options = Options(
        device=choose_devices(device),
        precision=precision,
        tile=parsed_tile(tile),
        bits=depth,
        weights=weights,
        fresh=fresh,
        max_memory_gb=max_memory,
        channels_last=channels_last,
        compiled=compiled,
        cuda_graphs=cuda_graphs,
        settings=parsed_settings(given or []),
    )
    if walled and (whole or max_memory or given or options.inexact):
        raise UserError(
            "--sandbox goes without --whole, --max-memory, --set and whatever may change pixels: leave them out."
        )
    if walled:
        summary = _run_walled(Path(team), track, inputs or [], folder, limit, options)
    else:
        job = plan(team, track, inputs or [], folder, variant, limit, say)
        with progress() as bars:
            title = f"{job.method.team} {job.track.name}"
            summary = restore(job, options, watch_pictures(bars, title, len(job.inputs)), whole=whole)
    if as_json:
        from dataclasses import asdict

        bottleneck = summary.bottleneck.name if summary.bottleneck else None
        print_json(
            {
                "images": [asdict(result) for result in summary.results],
                "computed": summary.computed,
                "seconds": round(summary.seconds, 3),
                "stages": [asdict(stage) for stage in summary.stages],
                "bottleneck": bottleneck,
                "effect": asdict(summary.effect) if summary.effect else None,
            }
        )
    else:
        kept = len(summary.results) - summary.computed
        done = len(summary.results) - len(summary.failed)
        out.print(
            f"{done} of {len(summary.results)} image(s) restored into {summary.out}"
            f" in {summary.seconds:.1f} s ({kept} were there)",
            markup=False,
        )
        if summary.bottleneck:
            shares = ", ".join(f"{stage.name} {stage.share:.0%} ({stage.workers})" for stage in summary.stages)
            out.print(f"busy (threads): {shares}; the bottleneck is {summary.bottleneck.name}", markup=False)
        if summary.effect:
            out.print(str(summary.effect), markup=False)
        if summary.failed:
            print_table(
                ["image", "status", "problem"], [[one.image, one.status, one.problem or ""] for one in summary.failed]
            )
    if summary.failed:
        raise typer.Exit(1)


def _run_walled(
    code: Path, track: str, inputs: list[Path], folder: Path | None, limit: int | None, options: Options
) -> Summary:
    from ntire.sandbox.child import choose
    from ntire.sandbox.limits import Limits

    if options.weights is not None:
        raise UserError("--sandbox and --weights do not go together: put the weights into weights/ beside method.py.")
    with progress() as bars:
        return restore_walled(
            code, track, inputs, folder, limit, options, choose("auto"), Limits(),
            lambda title, total: watch_pictures(bars, title, total), say,
        )  # fmt: skip


@app.command(epilog="Example: [bold]ntire sheet submissions/Copy-raw submissions/MiAlgo-raw --gt clean/[/]")
def sheet(
    entries: Annotated[list[Path], typer.Argument(help="Folders of entries, each with its images.")],
    gt: Annotated[Path | None, typer.Option(help="Folder of clean pictures, for the last column.")] = None,
    file: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("contact-sheet.png"),
) -> None:
    """Put the same pictures of several entries side by side, at their own pixels."""
    out.print(f"pictures side by side: {sheet_of(entries, gt, file)}", markup=False)
