"""The command line: parse, call, print. Whatever is heavy is imported in the command that needs it."""

import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.markup import escape

from ntire import UserError, __version__
from ntire.commands.screen import (
    log,
    out,
    print_bench,
    print_cost,
    print_json,
    print_leaderboard,
    print_report,
    print_table,
    print_verification,
    progress,
    say,
    watch_pictures,
    watch_training,
)
from ntire.text import printable

if TYPE_CHECKING:
    from ntire.runner.prepare import Options
    from ntire.runner.runner import Summary

EPILOG = (
    "Exit codes: 0 done and valid; 1 the entry breaks a rule or an image could not be restored; 2 wrong usage; "
    "3 something of ours or of the machine is missing or failed; 130 stopped with Ctrl-C."
)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    help="Run, check, score and rank what teams submit to the NTIRE image-restoration challenges.",
)
weights_app = typer.Typer(
    no_args_is_help=True, help="Weights files: what is needed, what is here, how to get the rest."
)
app.add_typer(weights_app, name="weights")

Team = Annotated[str, typer.Option("--team", help="A team's name, or the path of a folder with a method.py.")]
TrackName = Annotated[str, typer.Option("--track", help="raw, srgb, a track's full name, or the path of its TOML.")]
Variant = Annotated[str | None, typer.Option(help="Which of the team's methods; the first by default.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionName = Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the networks; fp32 is exact.")]


def main() -> NoReturn:
    """The entry point: a user's mistake is one message and an exit code, anything else keeps its traceback."""
    try:
        app()
    except UserError as error:
        log.print(f"[bold red]error:[/] {escape(printable(str(error)))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the last resort: whatever it is, it is ours, and exit code 3 says so
        traceback.print_exc()
        sys.exit(3)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Options of no command."""
    if version:
        out.print(f"ntire {__version__}")
        raise typer.Exit


@app.command(epilog="Example: [bold]ntire demo[/], then look at ntire-demo/contact-sheet.png")
def demo(
    folder: Annotated[Path, typer.Option("-o", "--out", help="Where to write.")] = Path("ntire-demo"),
    device: Device = "auto",
) -> None:
    """Restore a small built-in sample set with two methods per track, score them and print the leaderboard."""
    from ntire.environment import choose_device
    from ntire.runner.prepare import Options
    from ntire.workflow import demo as run_demo

    with progress() as bars:
        scored = run_demo(
            folder, Options(device=choose_device(device)), lambda title: watch_pictures(bars, title, None), say
        )
    print_leaderboard(scored.lines)
    out.print(
        f"pictures side by side: {folder / 'contact-sheet.png'}\ntables: {folder / 'leaderboard.csv'}, .md, .json"
    )


@app.command(epilog="Examples: [bold]ntire teams --track raw[/]; [bold]ntire teams --json[/]")
def teams(
    track: Annotated[str | None, typer.Option(help="Only this folder of methods: raw, srgb, ...")] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
) -> None:
    """List every method: what its report claims, what we count, its weights and caveats."""
    from ntire.method.catalogue import methods, unpublished
    from ntire.method.method_table import COLUMNS, facts_of, in_short, markdown

    if as_markdown:
        out.print(markdown(), markup=False, soft_wrap=True)
        return
    with progress() as bars:
        found = [facts_of(method) for method in bars.track(methods(track), description="counting, once a version")]
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, [in_short(row) for row in found])
    for line in dict.fromkeys(f"{row['team']} {row['track']}: {caveat}" for row in found for caveat in row["caveats"]):
        out.print(line, markup=False)
    for one in unpublished(track):
        out.print(f"{one.team} {one.track} cannot be run: {one.note}", markup=False)


@app.command(epilog="Example: [bold]ntire cost --team MiAlgo --track raw --at 3072x4096[/]")
def cost(
    team: Team,
    track: TrackName,
    variant: Variant = None,
    at: Annotated[str | None, typer.Option(help="Height x width; by default the report's size.")] = None,
    reach: Annotated[
        bool, typer.Option("--reach", help="Run it to see how far a pixel reaches, and what tiles change.")
    ] = False,
    tile: Annotated[int, typer.Option(min=1, help="Side of the tiles that --reach tries.")] = 128,
    as_json: AsJson = False,
) -> None:
    """Count a method's parameters, multiply-adds by three counters, activations and memory, beside what its report claims
    and its track allows; works without weights or a GPU. Exit code 1 over budget, or when counters disagree.
    """
    from ntire.workflow import cost_of

    found = cost_of(team, track, variant, _size(at), reach=reach, tile=tile)
    if as_json:
        print_json(found)
    else:
        print_cost(found)
    problems = [*found["problems"], *found.get("reach_problems", ())]
    if problems:
        raise UserError("\n".join(f"{team}: {problem}" for problem in problems), exit_code=1)


@app.command(epilog="Example: [bold]ntire sheet submissions/Copy-raw submissions/MiAlgo-raw --gt clean/[/]")
def sheet(
    entries: Annotated[list[Path], typer.Argument(help="Folders of entries, each with its images.")],
    gt: Annotated[Path | None, typer.Option(help="Folder of clean pictures, for the last column.")] = None,
    file: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("contact-sheet.png"),
) -> None:
    """Put the same pictures of several entries side by side, at their own pixels."""
    from ntire.workflow import sheet_of

    out.print(f"pictures side by side: {sheet_of(entries, gt, file)}", markup=False)


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
    from ntire.environment import choose_devices
    from ntire.runner.prepare import Options
    from ntire.workflow import plan, restore

    depth: Literal[8, 16] = 16 if bits == "16" else 8
    options = Options(
        device=choose_devices(device),
        precision=precision,
        tile=_tile(tile),
        bits=depth,
        weights=weights,
        fresh=fresh,
        max_memory_gb=max_memory,
        channels_last=channels_last,
        compiled=compiled,
        cuda_graphs=cuda_graphs,
        settings=_settings(given or []),
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
    code: Path, track: str, inputs: list[Path], folder: Path | None, limit: int | None, options: "Options"
) -> "Summary":
    from ntire.sandbox.limits import Limits
    from ntire.sandbox.child import choose
    from ntire.workflow import restore_walled

    if options.weights is not None:
        raise UserError("--sandbox and --weights do not go together: put the weights into weights/ beside method.py.")
    with progress() as bars:
        return restore_walled(
            code, track, inputs, folder, limit, options, choose("auto"), Limits(),
            lambda title, total: watch_pictures(bars, title, total), say,
        )  # fmt: skip


@app.command(
    epilog="Examples: [bold]ntire score submissions/[/]; "
    "[bold]ntire score submissions/MiAlgo-srgb --gt clean/ --metrics psnr-y[/]; "
    "[bold]ntire score teams/ --track face-2025 --lq test/ --landmarks test_face.csv[/]"
)
def score(
    submissions: Annotated[list[Path], typer.Argument(help="Entries, or folders of entries.")],
    track: Annotated[str | None, typer.Option(help="Only entries of this track.")] = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of ground truth. Default: $NTIRE_DATA/<track>/gt.")] = None,
    lq: Annotated[Path | None, typer.Option(help="Folder of inputs. Default: $NTIRE_DATA/<track>/lq.")] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help="Table of landmarks. Default: $NTIRE_DATA/<track>/landmarks.csv.")
    ] = None,
    folder: Out = None,
    metrics: Annotated[str, typer.Option(help="Only these, separated by commas; then there is no total.")] = "",
    device: Device = "auto",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Observe everything again.")] = False,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Average as the organisers' program does, over what is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score entries by their track's rules; writes scores.csv of each and leaderboard.csv, .md, .json."""
    from ntire.environment import choose_device
    from ntire.workflow import ScoreOptions, score_entries
    from scoring.references import References
    from scoring.tables import as_json as lines_as_json

    wanted = tuple(name.strip() for name in metrics.split(",") if name.strip())
    options = ScoreOptions(References(gt, lq, landmarks), wanted, choose_device(device), not no_cache, as_published)
    with progress() as bars:
        task = bars.add_task("scoring")
        board = score_entries(
            submissions,
            track,
            options,
            folder,
            say,
            lambda done, total: bars.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(lines_as_json(board.lines))
    else:
        print_leaderboard(board.lines)
        out.print(f"tables: {board.out / 'leaderboard.csv'}, .md, .json, and scores.csv of each entry", markup=False)
        if wanted:
            out.print("only some metrics were asked for: there is no total and no rank")
    if not all(line.valid for line in board.lines):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: [bold]ntire leaderboard table1.csv --track face-2025[/]; "
    "[bold]ntire leaderboard submissions/*/scores.csv --track srgb -o board.csv[/]; "
    "[bold]ntire leaderboard scores.csv --track denoise --published[/]"
)
def leaderboard(
    track: TrackName,
    tables: Annotated[
        list[Path] | None, typer.Argument(help="scores.csv files, or tables with one row of means a team.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write it here, and .md and .json beside it.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Beside what papers report on this track.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rank scores or published means by a track's rules; no image is touched."""
    from ntire.workflow import rank_tables
    from scoring.tables import as_json as lines_as_json

    if not tables and not published:
        raise UserError("name the tables to rank, or ask for the --published rows of the track.")
    board = rank_tables(tables or [], track, file, published=published)
    if as_json:
        print_json(lines_as_json(board.lines))
    else:
        print_leaderboard(board.lines)


Inputs = Annotated[Path | None, typer.Option("--lq", help="Folder of inputs. Default: $NTIRE_DATA/<track>/lq.")]


@app.command(
    epilog="Examples: [bold]ntire check my-entry.zip --lq inputs/[/]; "
    "[bold]ntire check results.zip --track face-2025[/]; exit code 1 if a rule is broken"
)
def check(
    entry: Annotated[Path, typer.Argument(help="A folder, .zip, .tar or .tar.gz; images with a readme.txt will do.")],
    lq: Inputs = None,
    track: Annotated[str | None, typer.Option(help="Its track, where no manifest says it.")] = None,
    sandbox: Annotated[str | None, typer.Option(help="Import its code, too, in this sandbox: auto, ...")] = None,
    as_json: AsJson = False,
) -> None:
    """Find everything that is wrong with an entry before it is uploaded or scored; its code runs only with --sandbox."""
    from ntire.workflow import check_entry

    report = check_entry(entry, track, lq, sandbox)
    if as_json:
        print_json(report.as_json())
    else:
        print_report(report)
    if not report.valid:
        raise typer.Exit(1)


Memory = Annotated[float, typer.Option(min=0.25, help="GiB that submitted code may take.")]
TimeLimit = Annotated[float, typer.Option(min=1, help="Seconds that submitted code has for one image.")]


@app.command(
    epilog="Examples: [bold]ntire verify my-entry/ --sample 8[/]; [bold]ntire check e.zip && ntire verify e.zip --lq test/[/]; "
    "exit code 1 if the images are not reproduced"
)
def verify(
    entry: Annotated[Path, typer.Argument(help="A folder, .zip, .tar or .tar.gz with images and method/.")],
    sample: Annotated[int | None, typer.Option(min=1, help="So many images instead of all.")] = None,
    lq: Inputs = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of ground truth. Default: $NTIRE_DATA/<track>/gt.")] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help="Table of landmarks. Default: $NTIRE_DATA/<track>/landmarks.csv.")
    ] = None,
    track: Annotated[str | None, typer.Option(help="Its track, as `check` takes it.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Chooses the sample and the probes. Default: a new one, printed.")
    ] = None,
    sandbox: Annotated[
        str, typer.Option(help="auto, bubblewrap, docker, podman; none runs it with your rights.")
    ] = "auto",
    device: Device = "auto",
    time_limit: TimeLimit = 300.0,
    memory: Memory = 8.0,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where verification.json goes. Default: into the entry.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an entry's code in a sandbox and see whether it makes the images that were submitted."""
    import secrets

    from ntire.environment import choose_device
    from ntire.sandbox.limits import Limits
    from ntire.sandbox.child import choose
    from ntire.review.verify import Options
    from ntire.workflow import verify_entry
    from scoring.references import References

    chosen = secrets.randbelow(2**31) if seed is None else seed
    backend = choose(sandbox)
    say(f"seed {chosen}, sandbox {backend}{': the code runs with all your rights' if backend == 'none' else ''}")
    limits = Limits(seconds=time_limit, start_seconds=max(time_limit, 300.0), memory_bytes=int(memory * 2**30))
    options = Options(backend, sample, chosen, choose_device(device), limits)
    found = verify_entry(entry, track, References(gt, lq, landmarks), options, folder, say)
    if as_json:
        print_json(found.as_json())
    else:
        print_verification(found)
    if found.verdict == "undecided":
        raise typer.Exit(3)
    if not found.passed:
        raise typer.Exit(1)


@app.command(
    epilog="Example: [bold]ntire pack submissions/MiAlgo-srgb -o MiAlgo.zip[/]; exit code 1 if a rule is broken"
)
def pack(
    folder: Annotated[Path, typer.Argument(help="A submission folder, as `ntire run` makes it.")],
    file: Annotated[Path | None, typer.Option("-o", "--out", help="The zip. Default: beside the folder.")] = None,
    lq: Inputs = None,
    as_json: AsJson = False,
) -> None:
    """Make a zip of a run that `ntire check` accepts, with a factsheet; the same folder gives the same bytes."""
    from ntire.workflow import pack_entry

    packed = pack_entry(folder, file, lq)
    if as_json:
        made = {"file": str(packed.file), "sha256": packed.sha256, "bytes": packed.size} if packed.file else None
        print_json({"packed": made, **packed.report.as_json()})
    else:
        print_report(packed.report)
        if packed.factsheet is not None:
            out.print(f"factsheet: {packed.factsheet}; fill in what only you know, then pack again", markup=False)
        if packed.file is not None:
            out.print(f"packed: {packed.file} ({packed.size:,} bytes, sha256 {packed.sha256})", markup=False)
    if not packed.report.valid:
        raise typer.Exit(1)


@app.command(
    epilog="Examples: [bold]ntire bench --team MiAlgo --track srgb photos/[/]; [bold]ntire bench --scorer[/]; exit code 1 if "
    "the figures cannot stand or a budget is exceeded"
)
def bench(
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders. Default: $NTIRE_DATA, else the built-in samples.")
    ] = None,
    team: Annotated[str | None, typer.Option(help="A team's name, or the path of a folder with a method.py.")] = None,
    track: Annotated[str | None, typer.Option(help="raw, srgb, a track's full name, or the path of its TOML.")] = None,
    variant: Variant = None,
    against: Annotated[
        str | None, typer.Option(help="TEAM or TEAM:variant to take turns with, or none. Default: Copy.")
    ] = None,
    entry: Annotated[
        Path | None, typer.Option(help="A run over the same pictures to compare pixels with. Default: makes one first.")
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    tile: Annotated[str, typer.Option(help="Side of the tiles in pixels, auto, or off for the whole image.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="A file with all weights of the method.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each side on the CPU.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="See that it runs; the figures are not to be quoted.")] = False,
    seed: Annotated[int, typer.Option(help="Of the order of the pictures.")] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one picture may take.")] = 600.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N inputs.")] = None,
    scorer: Annotated[
        bool, typer.Option("--scorer", help="The scorer against the plain loop, on random weights.")
    ] = False,
    metrics: Annotated[str, typer.Option(help="Of --scorer, separated by commas.")] = "niqe,clipiqa,musiq,fid,adaface",
    images: Annotated[int, typer.Option(min=2, help="Of --scorer: pictures of 512 x 512 in each entry.")] = 8,
    entries: Annotated[int, typer.Option(min=1, help="Of --scorer.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Of --scorer: both sides, in alternating order.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time a method in a process of its own, in turn with a baseline; or the scorer against the plain loop.

    At least 5 passes and 30 s in shuffled order after a warm-up at every size; what is made while the clock runs must be what
    `ntire run` writes. On a CPU quote the ratio of CPU times.
    """
    if scorer:
        _bench_scorer(metrics, images, entries, rounds, as_json)
        return
    if team is None or track is None:
        raise UserError("say what to measure: --team T --track K times a method; --scorer times the scorer.")
    from ntire.environment import choose_device
    from ntire.runner.prepare import Options
    from ntire.benchmark.statistics import FULL, QUICK
    from ntire.workflow import BenchOptions, bench_method

    options = BenchOptions(
        Options(choose_device(device), precision, _tile(tile), weights=weights),
        threads, against, entry, QUICK if quick else FULL, seed, timeout,
    )  # fmt: skip
    report, spent = bench_method(team, track, variant, inputs or [], limit, options, say)
    if as_json:
        print_json(report.as_json() | {"track": track, "budgets": [one.as_json() for one in spent]})
    else:
        print_bench(report)
        for one in spent:
            out.print(one.in_words(), markup=False)
    problems = [*report.problems, *(one.in_words() for one in spent if one.over)]
    if problems:
        raise UserError("\n".join(problems), exit_code=1)


def _bench_scorer(metrics: str, images: int, entries: int, rounds: int, as_json: bool) -> None:
    from dataclasses import asdict

    from ntire.workflow import bench_scorer

    report = bench_scorer([name.strip() for name in metrics.split(",")], images, entries, rounds)
    if as_json:
        print_json(asdict(report))
        return
    print_table(
        ["part", "plain loop, CPU s", "ntire, CPU s", "ratio", "largest difference"],
        [
            [part.name, f"{part.plain_s:.2f}", f"{part.ours_s:.2f}", f"{part.ratio:.2f} x", f"{part.difference:.1e}"]
            for part in report.parts
        ],
    )
    out.print(
        f"{report.entries} entries of {report.images} images, median of {report.rounds} rounds; "
        f"scoring again takes {report.again_s:.2f} s; harness share {report.harness_share:.1%}"
    )


@app.command(
    epilog="Example: [bold]ntire train --team MiAlgo --track srgb --data photos/ --stage l1 --iterations 20000[/]"
)
def train(
    team: Team,
    track: TrackName,
    data: Annotated[Path, typer.Option(help="Folder of clean pictures.")],
    variant: Variant = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Default: training/<team>-<track>[-<variant>].")
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage of the recipe; may be repeated.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="In all; shared out over the stages.")] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    patch: Annotated[int | None, typer.Option(min=16, help="Side of the training patches in pixels.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Learning rate at the start of every stage.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from these instead of random numbers.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Weights of the variant that `distill` compares with.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this loss out; may be repeated.")] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE=DIR", help="Train a stage on the pictures of DIR/lq and DIR/gt; may be repeated."),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make training pairs.")] = 0,
    held_out: Annotated[int, typer.Option(min=1, help="Pictures kept for validation.")] = 16,
    validate_every: Annotated[int, typer.Option(min=1, help="Iterations.")] = 1000,
    save_every: Annotated[int, typer.Option(min=1, help="Iterations between checkpoints.")] = 500,
    export: Annotated[Literal["fp32", "fp16"], typer.Option(help="Precision of the saved weights.")] = "fp32",
    seed: int = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier run in the same folder.")] = False,
) -> None:
    """Train a method by its report's recipe on your pictures; goes on where it was stopped.

    Several GPUs: `torchrun --nproc-per-node 4 --no-python ntire train ...`
    """
    from ntire.environment import choose_device
    from ntire.training.loop import Settings
    from ntire.workflow import train as run_training

    settings = Settings(
        data=data,
        out=folder or Path("training") / "-".join(part for part in (team, track, variant) if part),
        device=choose_device(device),
        precision=precision,
        seed=seed,
        workers=workers,
        held_out=held_out,
        validate_every=validate_every,
        save_every=save_every,
        export=export,
        command=_command_line(data, folder),
        fresh=fresh,
    )
    with progress() as bars:
        written = run_training(
            team, track, variant, settings, watch_training(bars), weights, teacher,
            stages=tuple(stage or ()), without=tuple(without or ()), iterations=iterations, batch=batch, patch=patch, lr=lr,
            pairs=_folders(pairs or ()),
        )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # the others of a `torchrun` have nothing to add
        out.print(f"weights: {written}\ncard: {written.with_name('card.toml')}", markup=False)


@app.command(epilog="Examples: [bold]ntire tracks[/]; [bold]ntire tracks raim-2025-raw[/]")
def tracks(
    name: Annotated[str | None, typer.Argument(help="A track's name, or the path of a TOML.")] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
) -> None:
    """List the tracks, or print the rules of one in words."""
    from scoring.track import all_tracks, in_words, load_track, markdown

    if as_markdown:
        out.print(markdown(), markup=False, soft_wrap=True)
        return
    chosen = all_tracks() if name is None else (load_track(name),)
    if as_json:
        print_json([track.model_dump(mode="json") for track in chosen])
    elif name is not None:
        out.print(in_words(chosen[0]), markup=False)
    else:
        print_table(
            ["track", "inputs", "metrics", "title"],
            [[track.name, track.inputs, " ".join(track.metrics), track.title] for track in chosen],
        )


@app.command(epilog="Example: [bold]ntire doctor[/]; exit code 3 if something needed is broken")
def doctor(as_json: AsJson = False) -> None:
    """Check this installation: versions, devices, image and raw reading, metric calibration, weights."""
    from dataclasses import asdict

    from ntire.commands.doctor import examine

    checks = list(examine())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(["check", "state", "found"], [[check.name, check.state, check.found] for check in checks])
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(3)


Names = Annotated[list[str] | None, typer.Argument(help="Teams, metrics or files; all by default.")]
OfTrack = Annotated[str | None, typer.Option("--track", help="Only what this track's metrics and methods need.")]


@weights_app.command(
    "list", epilog="Examples: [bold]ntire weights list IPCV[/]; [bold]ntire weights list --track face-2025[/]"
)
def weights_list(names: Names = None, track: OfTrack = None, as_json: AsJson = False) -> None:
    """What every method and metric needs, whether it is here, and its licence; of what is named, how to get what is missing."""
    from ntire.method.weights_files import ways_to_get
    from ntire.workflow import declared_weights

    found = declared_weights(names or [], track)
    rows = [one.as_json() for one in found]
    if as_json:
        print_json(rows)
        return
    columns = ["for", "file", "state", "provenance", "license", "size_mb", "sha256", "path"]
    print_table(columns, [[str(row[column]) if row[column] is not None else "" for column in columns] for row in rows])
    if names or track:
        for path, one in {one.path: one for one in found if one.state == "missing"}.items():
            out.print("\n  ".join([str(path), *ways_to_get(one.weights)]), markup=False, soft_wrap=True)


@weights_app.command("fetch", epilog="Example: [bold]ntire weights fetch MiAlgo[/]; goes on where it was stopped")
def weights_fetch(names: Names = None, track: OfTrack = None) -> None:
    """Download what is missing into the cache and check its hash."""
    from ntire.method.weights_files import fetch
    from ntire.workflow import declared_weights

    missing = {one.path: one for one in declared_weights(names or [], track) if one.state == "missing"}
    if not missing:
        out.print("nothing to fetch: every declared file is here")
    problems = []
    with progress() as bars:
        for one in missing.values():
            task = bars.add_task(one.weights.file, total=one.weights.size)

            def report(have: int, total: int | None, task: Any = task) -> None:
                bars.update(task, completed=have, total=total)

            try:
                log.print(f"fetched {fetch(one.weights, report)}", markup=False)
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems), exit_code=3)


@weights_app.command("verify", epilog="Example: [bold]ntire weights verify[/]")
def weights_verify(names: Names = None, track: OfTrack = None) -> None:
    """Check the sha256 of every file that is here; exit code 3 if one is damaged."""
    from ntire.method.weights_files import verify
    from ntire.workflow import declared_weights

    problems = []
    for one in {one.path: one for one in declared_weights(names or [], track)}.values():
        if one.state == "missing":
            out.print(f"missing   {one.weights.file}", markup=False)
            continue
        try:
            verify(one.weights, one.path)
            out.print(f"{'ok' if one.weights.sha256 else 'no hash':9} {one.path}", markup=False)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems), exit_code=3)


def _command_line(data: Path, folder: Path | None) -> str:
    """The command as typed, but for places on this machine: a card is read elsewhere."""
    words = [
        {str(data): data.name, str(folder): folder.name if folder else ""}.get(word, word) for word in sys.argv[1:]
    ]
    return " ".join(["ntire", *words])


def _folders(given: Iterable[str]) -> dict[str, Path]:
    """`snowy=DIR` to {"snowy": DIR}."""
    found = {}
    for one in given:
        stage, equals, folder = one.partition("=")
        if not (stage and equals and folder):
            raise UserError(f"--pairs {one}: expected the name of a stage and a folder, such as snowy=DIR.")
        found[stage] = Path(folder)
    return found


def _settings(given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`damage=rainy` to ("damage", "rainy"), by name; the last of a name counts."""
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise UserError(f"--set {one}: expected NAME=VALUE, such as damage=rainy.")
        found[name] = value
    return tuple(sorted(found.items()))


def _tile(given: str) -> int | Literal["auto"] | None:
    if given == "auto":
        return "auto"
    if given == "off":
        return None
    if given.isdecimal() and int(given) > 0:
        return int(given)
    raise UserError(f"--tile {given}: expected a number of pixels, auto or off.")


def _size(at: str | None) -> tuple[int, int] | None:
    """`3072x4096` to (3072, 4096)."""
    if at is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,5})\s*x\s*([1-9]\d{0,5})", at)
    if sides is None:
        raise UserError(f"--at {at}: expected height x width, such as 3072x4096.")
    return int(sides[1]), int(sides[2])
