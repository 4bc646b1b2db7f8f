"""`ntire bench`, `ntire cost`, `ntire teams`: how fast a method is, what it costs, and which there are."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ntire import UserError
from ntire.commands.foreign_code import TRUST, Trust, announce, foreign_tree, is_foreign
from ntire.commands.options import (
    AsJson,
    BackendName,
    ChannelsLast,
    CompileNetworks,
    CudaGraphs,
    Device,
    MaxMemory,
    PrecisionName,
    Variant,
    app,
    parsed_settings,
    parsed_size,
    parsed_tile,
)
from ntire.commands.restoring import chosen_method, inputs_of_track, plan, refuse_other_inputs, refuse_unknown
from ntire.commands.screen import (
    out,
    print_bench,
    print_cost,
    print_json,
    print_table,
    progress,
    say,
)
from ntire.text import meant, nearest

if TYPE_CHECKING:
    from ntire.benchmark.child import Setup
    from ntire.benchmark.protocol import BenchChild, BenchReport, Side
    from ntire.benchmark.statistics import Protocol
    from ntire.commands.restoring import Say
    from ntire.runner.prepare import Options
    from ntire.runner.runner import Input
    from ntire.scoring.bench import ScorerReport
    from ntire.scoring.budgets import Spent
    from ntire.scoring.track import Track


def bench_scorer(
    names: Sequence[str],
    images: int,
    entries: int,
    rounds: int,
    device: str = "cpu",
    minutes: float = math.inf,
) -> ScorerReport:
    """Compare the scorer with the plain loop in caches of its own; see `ntire.scoring.bench`."""
    import torch

    from ntire.scoring import bench, random_weights

    unknown = [name for name in names if name not in random_weights.NAMES]
    if unknown:
        known = ", ".join(random_weights.NAMES)
        near = nearest(unknown, random_weights.NAMES)
        raise UserError(f"no metric {', '.join(unknown)} to measure; there are: {known}.{near}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # pyiqa fixes its cache when it is imported, which has not happened yet in this process.
        places = {"TORCH_HOME": str(folder / "torch"), "NTIRE_WEIGHTS": str(folder / "weights")}
        os.environ |= places
        return bench.bench_scorer(folder / "bench", names, images, entries, rounds, device, minutes)


@dataclass(frozen=True)
class BenchOptions:
    """How to measure, apart from what."""

    run: Options
    threads: int = 1
    against: str | None = None
    """A team of the same track, "TEAM" or "TEAM:variant"; "none"; by default the baseline Copy where there is one."""
    entry: Path | None = None
    """A run over the same pictures; by default one is made first."""
    protocol: Protocol | None = None
    """The full one where none is named."""
    as_challenge: bool = False
    """Whether it is also timed as efficiency challenges do it."""
    seed: int = 0
    timeout: float = 600.0
    trust: bool = False
    """Whether the code of a folder may run with all rights of the user."""


def bench_method(
    team: str,
    track_name: str,
    variant: str | None,
    given: Sequence[Path],
    limit: int | None,
    options: BenchOptions,
    say: Say,
) -> tuple[BenchReport, list[Spent]]:
    """Time a method by the protocol of `ntire.benchmark`, and hold it against its track's budgets of runtime and memory.

    Raises UserError as `plan` and `ntire.benchmark.protocol.bench` do, and if the run that is compared with fails.
    """
    from ntire.benchmark.protocol import Picture, bench, scored_pixels
    from ntire.benchmark.statistics import FULL
    from ntire.entry.journal import read_journal
    from ntire.entry.manifest import JOURNAL
    from ntire.sandbox.scratch import scratch_folder
    from ntire.scoring.track import load_track

    track, inputs = _what_to_time(team, track_name, variant, given, limit, options, say)
    budgets = load_track(track_name).budgets
    pictures = [Picture(item.name, item.path) for item in inputs]
    setup = _setup(team, track, variant, options)
    against = _against(options, track)
    with scratch_folder() as scratch, _start(team, options, against, track) as start:
        entry = options.entry
        if entry is None:
            entry = scratch / "entry"
            say("making what is scored: the same pictures through `ntire run`")
            _run_apart(team, track_name, variant, given, limit, options, entry)
        lines = read_journal(entry / JOURNAL)
        scored = scored_pixels(entry, pictures, {line["image"]: line["output_sha256"] for line in lines})
        report = bench(
            setup,
            against,
            pictures,
            scored,
            options.protocol or FULL,
            seed=options.seed,
            timeout=options.timeout,
            say=say,
            start=start,
            as_challenge=options.as_challenge,
        )
    at_runtime, at_memory = report.measured_at(budgets.runtime_at), report.measured_at(budgets.memory_at)
    spent = budgets.hold(
        {
            "runtime_ms": at_runtime.median_ms if at_runtime else None,
            "memory_mb": report.side.peaks["timed"]["device_mb"] if at_memory else None,
        }
    )
    return report, [one for one in spent if one.name in ("runtime_ms", "memory_mb")]


def _what_to_time(
    team: str,
    track_name: str,
    variant: str | None,
    given: Sequence[Path],
    limit: int | None,
    options: BenchOptions,
    say: Say,
) -> tuple[Track, Sequence[Input]]:
    from ntire.scoring.track import load_track

    if not is_foreign(team, options.trust):
        job = plan(team, track_name, given, None, variant, limit, say, trust=options.trust)
        return job.track, job.inputs
    if options.run.weights is not None:
        raise UserError(f"{team} is a folder, and in a sandbox its weights lie in weights/ beside method.py. {TRUST}")
    if options.run.max_memory_gb is not None:
        raise UserError(f"{team} is a folder, and in a sandbox its code goes without --max-memory. {TRUST}")
    track = load_track(track_name)
    track, inputs, _ = inputs_of_track(track, given, track.inputs, limit, say)
    return track, inputs


@contextlib.contextmanager
def _start(
    team: str, options: BenchOptions, against: tuple[str, Setup] | None, track: Track
) -> Iterator[Callable[[Side, float], BenchChild] | None]:
    """How the processes of both sides are made: in sandboxes, both of them, where one is not trusted."""
    if not is_foreign(team, options.trust):
        yield None
        return
    from ntire.benchmark.sandboxed import Sandbox, SandboxedChild
    from ntire.method.catalogue import folder_of
    from ntire.method.weights_files import locate

    fetched: dict[str, Path] = {}
    if against is not None and not is_foreign(against[1].team, trust=False):
        other = chosen_method(against[1].team, track, against[1].variant)
        found = {one.file: locate(one, folder_of(other)) for one in other.weights}
        fetched = {file: path for file, (path, state) in found.items() if state == "here"}
    with foreign_tree(team) as (backend, code, scratch):
        (scratch / "other").mkdir()
        own, theirs = Sandbox(backend, code, scratch), Sandbox(backend, code, scratch / "other", weights=fetched)

        def start(side: Side, timeout: float) -> BenchChild:
            return SandboxedChild(side, timeout, own if side.setup.team == team else theirs)

        yield start


def _setup(team: str, track: Track, variant: str | None, options: BenchOptions, weights: bool = True) -> Setup:
    from ntire.benchmark.child import Setup

    run = options.run
    own = {"device": run.device, "precision": run.precision, "tile": run.tile, "bits": run.bits}
    own["weights"] = str(run.weights) if weights and run.weights else None
    if weights:
        # The baseline stays what it is.
        own |= {
            name: getattr(run, name)
            for name in ("channels_last", "compiled", "cuda_graphs", "backend", "max_memory_gb")
        }
    return Setup(team, track.inputs, variant, own, options.threads)


def _against(options: BenchOptions, track: Track) -> tuple[str, Setup] | None:
    if options.against == "none":
        return None
    team, _, variant = (options.against or "Copy").partition(":")
    try:
        chosen_method(team, track, variant or None, trust=options.trust)
    except UserError:
        if options.against is None:
            return None
        raise
    return options.against or "Copy", _setup(team, track, variant or None, options, weights=False)


def _run_apart(
    team: str,
    track_name: str,
    variant: str | None,
    given: Sequence[Path],
    limit: int | None,
    options: BenchOptions,
    out: Path,
) -> None:
    """`ntire run` as a process of its own, so that nothing of it is in the memory that is measured."""
    from ntire.method.catalogue import is_folder

    run = options.run
    words = ["run", "--team", team, "--track", track_name, *map(str, given), "-o", str(out), "--device", run.device]
    words += [
        "--precision",
        run.precision,
        "--tile",
        "off" if run.tile is None else str(run.tile),
        "--bits",
        str(run.bits),
    ]
    if not is_foreign(team, options.trust):
        words += [f"--{word}" for word in run.inexact if word in ("channels-last", "compile", "cuda-graphs")]
        words += ["--max-memory", str(run.max_memory_gb)] if run.max_memory_gb is not None else []
    words += ["--variant", variant] if variant else []
    words += ["--weights", str(run.weights)] if run.weights else []
    words += ["--limit", str(limit)] if limit else []
    words += ["--trust" if options.trust else "--sandbox"] if is_folder(team) else []
    # Sums over another number of threads round otherwise, and a pixel may follow.
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    ran = subprocess.run([sys.executable, "-m", "ntire", *words], capture_output=True, text=True, env=environment)
    if ran.returncode:
        said = "\n  ".join((ran.stdout + ran.stderr).strip().splitlines()[-8:])
        raise UserError(f"`ntire run` fails on these pictures, so there is nothing to time:\n  {said}", exit_code=3)


def cost(
    team: str | Path,
    track: str | Path,
    *,
    variant: str | None = None,
    at: tuple[int, int] | None = None,
    reach: bool = False,
    tile: int = 128,
    settings: Mapping[str, str] | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """What a method costs at a size `at` (height, width), by default the report's, beside its claims and its track's budgets:
    the object that `ntire cost --json` prints. Needs neither weights nor a GPU. See `ntire.benchmark.cost.cost_in_full`.

    With `reach`, also its declared halo, the one that it turns out to need (None: it sees the whole image), and what tiles
    of that side change, with the weights that are here, else random ones. `problems` has a sentence for each reason not to
    believe the counts or to refuse the method. Where the report states memory, `measured_memory` has what a pass takes on
    a GPU, or why that is unknown. A folder is counted in a sandbox unless there is `trust`; `counted_by` says so.
    """
    from ntire.scoring.track import load_track

    rules = load_track(str(track))
    sizes = at, rules.budgets.at, rules.budgets.memory_at, tile if reach else None
    if is_foreign(team, trust):
        from ntire.benchmark.sandboxed import Sandbox, cost_in_sandbox

        if settings:
            raise UserError(f"{team} is a folder, and in a sandbox its code goes without --set. {TRUST}")
        with foreign_tree(team) as (backend, code, scratch):
            found = cost_in_sandbox(Sandbox(backend, code, scratch), *sizes)
        found["counted_by"] = "the code itself, in a sandbox: figures that it could have written by hand"
        refuse_other_inputs(team, found["track"], rules, found["scale"])
    else:
        from ntire.benchmark.cost import cost_in_full
        from ntire.method.settings import configured

        method = configured(chosen_method(team, rules, variant, trust=trust), settings or {})
        found = cost_in_full(method, *sizes)
        if found["claimed"]["memory_mb"] is not None:
            from ntire.benchmark.memory import measured_memory

            found["measured_memory"] = measured_memory(method, found["at"])
        found["counted_by"] = "ntire"
    spent = [one for one in rules.budgets.hold(found.pop("counted")) if one.value is not None]
    found["budgets"] = [one.as_json() for one in spent]
    found["problems"] = [*found["problems"], *(one.in_words() for one in spent if one.over)]
    return found


@app.command(
    epilog="Examples: [bold]ntire bench --team MiAlgo --track srgb photos/[/]; [bold]ntire bench --scorer[/]; exit code 1 if "
    "the measurement is invalid or a budget is exceeded"
)
def bench(
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders. Default: $NTIRE_DATA, else the built-in samples.")
    ] = None,
    team: Annotated[str | None, typer.Option(help="A team's name, or a folder with a method.py: ./NAME.")] = None,
    track: Annotated[str | None, typer.Option(help="raw, srgb, a track's full name, or the path of its TOML.")] = None,
    variant: Variant = None,
    trust: Trust = False,
    against: Annotated[
        str | None, typer.Option(help="Baseline to alternate with: TEAM, TEAM:variant or none. Default: Copy.")
    ] = None,
    entry: Annotated[
        Path | None,
        typer.Option(help="Submission folder of the same pictures to compare pixels with. Default: one is made first."),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    tile: Annotated[str, typer.Option(help="Side of the tiles in pixels, auto, or off for the whole image.")] = "auto",
    channels_last: ChannelsLast = False,
    compiled: CompileNetworks = False,
    cuda_graphs: CudaGraphs = False,
    backend: BackendName = "torch",
    max_memory: MaxMemory = None,
    weights: Annotated[Path | None, typer.Option(help="A file with all weights of the method.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for the method and for the baseline.")] = 1,
    protocol: Annotated[
        Literal["ntire", "esr"],
        typer.Option(
            help="esr: also as efficiency challenges time it, and what differs: no warm-up, mean of all pictures."
        ),
    ] = "ntire",
    quick: Annotated[bool, typer.Option("--quick", help="A short trial run; do not quote its figures.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed for the order of the pictures.")] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit for one picture, in seconds.")] = 600.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N inputs.")] = None,
    scorer: Annotated[
        bool, typer.Option("--scorer", help="Time the scorer against a plain loop, with random weights.")
    ] = False,
    metrics: Annotated[
        str, typer.Option(help="With --scorer: metrics, separated by commas.")
    ] = "niqe,clipiqa,musiq,fid,adaface",
    images: Annotated[int, typer.Option(min=2, help="With --scorer: number of 512 x 512 pictures in each entry.")] = 8,
    entries: Annotated[int, typer.Option(min=1, help="With --scorer: number of entries.")] = 4,
    rounds: Annotated[
        int, typer.Option(min=1, help="With --scorer: number of rounds; each times both sides, in alternating order.")
    ] = 3,
    minutes: Annotated[
        float, typer.Option(min=0, help="With --scorer: begin no further metric or round after so many minutes.")
    ] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Time a method in its own process, alternating with a baseline; or time the scorer against a plain loop.

    At least 5 passes and 30 s in shuffled order after a warm-up at every size. Images made while timing must equal those
    that `ntire run` writes. On a CPU, quote the ratio of CPU times.
    """
    if scorer:
        from ntire.environment import choose_device

        _bench_scorer(
            metrics, images, entries, rounds, "cpu" if device == "auto" else choose_device(device), minutes, as_json
        )
        return
    if team is None or track is None:
        raise UserError("say what to measure: --team T --track K times a method; --scorer times the scorer.")
    refuse_unknown(team, track, variant)
    from ntire.benchmark.statistics import FULL, QUICK
    from ntire.environment import choose_device
    from ntire.runner.prepare import Options

    options = BenchOptions(
        Options(
            choose_device(device), precision, parsed_tile(tile), weights=weights, max_memory_gb=max_memory,
            channels_last=channels_last, compiled=compiled, cuda_graphs=cuda_graphs,
            backend=backend,
        ),
        threads, against, entry, QUICK if quick else FULL, protocol == "esr", seed, timeout, trust,
    )  # fmt: skip
    announce(team, trust, say)
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


def _bench_scorer(
    metrics: str, images: int, entries: int, rounds: int, device: str, minutes: float, as_json: bool
) -> None:
    from dataclasses import asdict

    report = bench_scorer([name.strip() for name in metrics.split(",")], images, entries, rounds, device, minutes)
    if as_json:
        print_json(asdict(report))
        return
    seconds = "CPU s" if device == "cpu" else "s"
    print_table(
        ["part", f"plain loop, {seconds}", f"ntire, {seconds}", "ratio", "largest difference"],
        [
            [part.name, f"{part.plain_s:.2f}", f"{part.ours_s:.2f}", f"{part.ratio:.2f} x", f"{part.difference:.1e}"]
            for part in report.parts
        ],
        prose=[f"plain loop, {seconds}", f"ntire, {seconds}", "largest difference"],
    )
    out.print(
        f"{report.entries} entries of {report.images} images, median of at most {report.rounds} rounds; "
        f"scoring again takes {report.again_s:.2f} s; harness share {report.harness_share:.1%}"
    )
    if report.left_out:
        say(f"{minutes:g} minutes did not suffice for {', '.join(report.left_out)}: --minutes gives more")


@app.command(
    "cost",
    epilog="Examples: [bold]ntire cost --team MiAlgo --track raw --at 3072x4096[/]; [bold]ntire cost --published[/]",
)
def cost_command(
    team: Annotated[
        str | None, typer.Option("--team", help="A team's name, or a folder with a method.py: ./NAME.")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option("--track", help="Track: raw, srgb, a full name as in `ntire tracks`, or a TOML's path."),
    ] = None,
    variant: Variant = None,
    trust: Trust = False,
    at: Annotated[str | None, typer.Option(help="Height x width; by default the report's size.")] = None,
    reach: Annotated[
        bool, typer.Option("--reach", help="Also measure its receptive field, and what tiling changes.")
    ] = False,
    tile: Annotated[int, typer.Option(min=1, help="With --reach: side of the tiles, in pixels.")] = 128,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method; may be repeated.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Instead print the papers' tables of complexity, our counts beside.")
    ] = False,
    table: Annotated[str, typer.Option(help='With --published: one table, such as "MIRAGE table 6".')] = "",
    as_json: AsJson = False,
) -> None:
    """Count a method's parameters, multiply-adds by three counters, activations and memory, beside what its report claims
    and its track allows; works without weights or a GPU. Exit code 1 over budget, or when counters disagree.
    """
    if published or table:
        from ntire.commands.complexity import print_complexity

        print_complexity(table, as_json=as_json)
        return
    if team is None or track is None:
        raise UserError("say what to count: --team T --track K counts a method; --published prints the papers' tables.")
    refuse_unknown(team, track, variant)
    announce(team, trust, say)
    settings = parsed_settings(given or [])
    found = cost(
        team, track, variant=variant, at=parsed_size(at), reach=reach, tile=tile, settings=settings, trust=trust
    )
    if as_json:
        print_json(found)
    else:
        print_cost(found)
    problems = [*found["problems"], *found.get("reach_problems", ())]
    if problems:
        raise UserError("\n".join(f"{team}: {problem}" for problem in problems), exit_code=1)


def _print_fidelity(track: str | None, team: str | None, *, as_json: bool, as_markdown: bool) -> None:
    """The tables of what reports state. Raises UserError where there is none for the track and team."""
    from ntire.method.fidelity import counts, markdown, passages

    chosen = [one for one in passages() if track in (None, one.track) and team in (None, one.team)]
    if not chosen:
        known = [name for one in passages() for name in ((one.team,) if team else (one.track,))]
        raise UserError(f"there is no table of statements for {team or track}. {meant(team or track or '', known)}")
    if as_json:
        print_json([asdict(one) for one in chosen])
    elif as_markdown:
        out.print(markdown(chosen), markup=False, soft_wrap=True, end="")
    else:
        for one in chosen:
            rows = [[row.sentences, row.says, f"{row.status}{': ' if row.reason else ''}{row.reason}", row.code]
                    for row in one.statements]  # fmt: skip
            summary = ", ".join(f"{count} {status}" for status, count in counts(one.statements).items() if count)
            out.print(f"\n{one.team} {one.track}: {one.source}; {summary}", markup=False)
            header = ["sentences", "statement", "status", "code"]
            print_table(header, rows, prose=["sentences", "statement", "status"])


@app.command(
    epilog="Examples: [bold]ntire teams --track raw[/]; [bold]ntire teams --json[/]; "
    "[bold]ntire teams --fidelity --team IID-AI[/]"
)
def teams(
    track: Annotated[str | None, typer.Option(help="Only this folder of methods: raw, srgb, ...")] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/methods.md.")] = False,
    fidelity: Annotated[
        bool,
        typer.Option("--fidelity", help="Compare each method with its report, statement by statement."),
    ] = False,
    team: Annotated[str | None, typer.Option(help="With --fidelity: only this team.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="For developers: recount changed methods and write teams/methods.json.")
    ] = False,
) -> None:
    """List every method: what its report claims, what we count, its weights and caveats."""
    if fidelity:
        _print_fidelity(track, team, as_json=as_json, as_markdown=as_markdown)
        return
    from ntire.method.catalogue import folders, listed, unpublished
    from ntire.method.method_table import COLUMNS, facts_of, in_short, markdown

    if record:
        from ntire.method.recording import record as write_anew

        out.print(f"recorded: {write_anew(say)}", markup=False)
        return
    if as_markdown:
        out.print(markdown(), markup=False, soft_wrap=True)
        return
    if track is not None and track not in folders():
        from ntire.scoring.track import load_track

        track = load_track(track).inputs
    with progress() as bars:
        found = [facts_of(method) for method in bars.track(listed(track), description="counting what is new")]
    if as_json:
        print_json(found)
        return
    spare = ["how the claim is read", "at", "claim", "weights"]
    print_table(COLUMNS, [in_short(row) for row in found], prose=[*spare, "claim"], spare=spare)
    for line in dict.fromkeys(f"{row['team']} {row['track']}: {caveat}" for row in found for caveat in row["caveats"]):
        out.print(line, markup=False)
    for one in unpublished(track):
        out.print(f"{one.team} {one.track} cannot be run: {one.note}", markup=False)
