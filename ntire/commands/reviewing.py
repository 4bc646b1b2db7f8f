"""`ntire check`, `ntire verify`, `ntire pack`: what strangers hand in, and what is handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.measured_figures import figures_of_entry, given_to_code
from ntire.commands.options import Address, AsJson, Device, EngineOption, Inputs, Key, Memory, TimeLimit, Workers, app
from ntire.commands.scoring import expected_of, outside_of, references_of
from ntire.commands.screen import (
    out,
    print_json,
    print_report,
    print_verification,
    say,
)

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.entry.manifest import Submission
    from ntire.review.check import InputsOf
    from ntire.review.check import Report as Checked
    from ntire.review.pack import CodeCounted, Packed
    from ntire.review.verify import BothScored, Verification
    from ntire.runner.engines import EngineName
    from ntire.scoring.references import References
    from ntire.scoring.score import Scored
    from ntire.scoring.track import Track


def check(
    entry: str | Path, *, track: str | Path | None = None, lq: str | Path | None = None, sandbox: str | None = None
) -> Checked:
    """Find everything that is wrong with an entry, by the rules of its track or of the one named.

    Inputs that are not given are looked for where `score` finds them. Its code runs only with `sandbox`: auto, bubblewrap,
    docker, podman, or none, which runs it with your rights. Raises UserError for a path where nothing is.
    """
    from ntire.scoring.track import load_track

    _refuse_missing(Path(entry))
    rules = load_track(str(track)) if track else None
    inputs = _inputs_of(lq)
    # What reads entries and pictures is heavy: it is imported when there is something to read.
    from ntire.review.check import check as check_entry
    from ntire.sandbox.child import choose

    return check_entry(Path(entry), rules, inputs, choose(sandbox) if sandbox else None)


def _refuse_missing(entry: Path) -> None:
    if not entry.exists():
        raise UserError(f"{entry}: expected a folder, .zip, .tar or .tar.gz, found no such file.")


def verify(
    entry: str | Path,
    *,
    track: str | Path | None = None,
    sample: int | None = None,
    lq: str | Path | None = None,
    gt: str | Path | None = None,
    landmarks: str | Path | None = None,
    seed: int | None = None,
    sandbox: str = "auto",
    device: str = "auto",
    time_limit: float = 300.0,
    memory_gib: float = 8.0,
    strict: bool = False,
    measure: bool = True,
    out: str | Path | None = None,
    key: str | Path | None = None,
    say: Say = lambda line: None,
) -> Verification:
    """Run an entry's code in a sandbox and hold what it makes against the images that were submitted.

    `sample` images are run instead of all; `seed` chooses them and the probes, a new one by default. Code has `time_limit`
    seconds an image and `memory_gib`; with `strict` each image has a process of its own. Unless `measure` is False the code is
    counted and timed, and held against its claims and the track's budgets. The verdict is written to
    `<entry>/verification.json` below `out`, by default below the results folder beside the entries, and signed if the
    organiser's `key`, a file, is given. Raises UserError for wrong usage, and (exit code 3) a sandbox that does not work.
    """
    _refuse_missing(Path(entry))
    import secrets

    from ntire.commands.foreign_code import warn_of_weak_limits
    from ntire.entry.results import place_of_verdict
    from ntire.entry.verdict import read_key
    from ntire.environment import choose_device
    from ntire.review.verify import VerifyOptions
    from ntire.review.verify import verify as verify_entry
    from ntire.sandbox.child import choose
    from ntire.sandbox.limits import Limits
    from ntire.scoring.references import References
    from ntire.scoring.track import load_track

    secret = read_key(Path(key)) if key else None
    entry, references = Path(entry), References(*(Path(one) if one else None for one in (gt, lq, landmarks)))
    chosen, backend = secrets.randbelow(2**31) if seed is None else seed, choose(sandbox)
    say(f"seed {chosen}, sandbox {backend}{': the code runs with all your rights' if backend == 'none' else ''}")
    warn_of_weak_limits(backend, say)
    limits = Limits(seconds=time_limit, start_seconds=max(time_limit, 300.0), memory_bytes=int(memory_gib * 2**30))
    options = VerifyOptions(backend, sample, chosen, choose_device(device), limits, strict=strict)
    if measure:
        how = partial(figures_of_entry, backend=backend, device=options.device, limits=limits)
        options = replace(options, measure=how)
    inputs_of = _inputs_of(lq)
    rules = load_track(str(track)) if track else None
    scores = partial(_score_both, rules=rules, given=references, device=options.device, say=say)
    place = place_of_verdict(entry, Path(out) if out else None)
    outside_of([entry] if entry.is_dir() else [], place)
    run_on, truth_of = partial(_given_to_code, inputs_of), lambda rules: references_of(rules, references).gt
    return verify_entry(entry, rules, inputs_of, run_on, options, scores, place, truth_of, secret)


def _given_to_code(inputs_of: InputsOf, track: Track) -> Path | None:
    return given_to_code(inputs_of(track), track)


def _score_both(
    submitted: Submission,
    reproduced: Submission,
    names: Sequence[str],
    rules: Track | None,
    given: References,
    device: str,
    say: Say,
) -> BothScored:
    """Every metric that can be computed here, of both sides over the same images, by `rules`, else those of their track."""
    from ntire.review.acceptance import Entrance
    from ntire.review.verify import BothScored
    from ntire.scoring.cache import Cache, default_path
    from ntire.scoring.score import Scorer
    from ntire.scoring.track import load_track

    track = rules or load_track(submitted.track)
    missing: dict[str, str] = {}
    values: dict[str, tuple[float, float]] = {}
    with Cache(default_path()) as cache:
        for metric in track.metrics:
            try:
                scorer = Scorer(track, (metric,), device, cache)
                expected = expected_of(scorer, given, say)
                chosen = [one for one in expected if one.name in names]
                if len(chosen) != len(names):
                    raise UserError("not all of the images have a reference")
                sides = scorer.score([submitted, reproduced], chosen, source=Entrance(cache))
            except (UserError, ImportError) as error:
                missing[metric] = str(error).splitlines()[0]
                continue
            found = [_mean_of(side, metric) for side in sides]
            if found[0] is None or found[1] is None:
                missing[metric] = "it has no value for these images"
            else:
                values[metric] = found[0], found[1]
    before, after = ({name: pair[side] for name, pair in values.items()} for side in (0, 1))
    totals = track.total(before), track.total(after)
    both = (totals[0], totals[1]) if totals[0] is not None and totals[1] is not None else None
    return BothScored(before, after, both, missing)


def _mean_of(scored: Scored, metric: str) -> float | None:
    from ntire.scoring.metrics import METRICS

    if METRICS[metric].over == "set":
        return scored.of_set.get(metric)
    values = [row.values.get(metric) for row in scored.rows if row.status != "unexpected"]
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if present and len(present) == len(values) else None


def pack_entry(folder: Path, out: Path | None, lq: Path | None, code: Path | None = None) -> Packed:
    """Make a zip of a run's folder, with its code; see `ntire.review.pack.pack`."""
    from ntire.review.pack import pack

    return pack(folder, out, _inputs_of(lq), code, _code_counted)


def _code_counted(submission: Submission) -> CodeCounted | None:
    """What `ntire cost` says of an entry's code, which runs in a sandbox."""
    from ntire.commands.measured_figures import source_of
    from ntire.commands.measuring import cost
    from ntire.review.code_checks import CODE
    from ntire.review.pack import CodeCounted

    if source_of(submission) != CODE:
        return None
    try:
        found = cost(submission.root / CODE.rpartition("/")[0], submission.track, at=submission.manifest.claims.at)
    except UserError as error:
        return CodeCounted(problem=str(error).splitlines()[0].rstrip("."))
    by = "ntire" if found["counted_by"] == "ntire" else "ntire, in a sandbox"
    return CodeCounted(found["params"], found["macs"], (found["at"][0], found["at"][1]), by)


def _inputs_of(given: str | Path | None) -> InputsOf:
    """The inputs that the user named, else those that the environment or the sample set has.

    Where the track adds the noise itself, the clean pictures are what an entry is compared with.
    """
    lq = Path(given) if given else None
    if lq is not None and not lq.is_dir():
        raise UserError(f"--lq {lq}: expected a folder of inputs, found none.")

    def found(track: Track) -> Path | None:
        from ntire.scoring.references import References

        references = references_of(track, References(lq=lq))
        return references.lq or (references.gt if track.noise else None)

    return found


@app.command(
    "check",
    epilog="Examples: [bold]ntire check my-entry.zip --lq inputs/[/]; "
    "[bold]ntire check results.zip --track face-2025[/]; exit code 1 if a rule is broken",
)
def check_command(
    entry: Annotated[
        Path, typer.Argument(help="A folder, .zip, .tar or .tar.gz; images with a readme.txt are accepted.")
    ],
    lq: Inputs = None,
    track: Annotated[str | None, typer.Option(help="The entry's track, if it has no manifest.")] = None,
    sandbox: Annotated[
        str | None, typer.Option(help="Also import its code, in this sandbox: auto, bubblewrap, docker or podman.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find everything that is wrong with an entry before it is uploaded or scored. Its code is run only with --sandbox."""
    report = check(entry, track=track, lq=lq, sandbox=sandbox)
    if as_json:
        print_json(report.as_json())
    else:
        print_report(report)
    if not report.valid:
        raise typer.Exit(1)


@app.command(
    "verify",
    epilog="Examples: [bold]ntire verify my-entry/ --sample 8[/]; [bold]ntire check e.zip && ntire verify e.zip --lq test/[/]; "
    "[bold]ntire verify uploads/*.zip --lq test/ --engine ray[/]; exit code 1 if the images are not reproduced",
)
def verify_command(
    entries: Annotated[
        list[Path], typer.Argument(metavar="ENTRY...", help="A folder, .zip, .tar or .tar.gz with images and method/.")
    ],
    sample: Annotated[
        int | None, typer.Option(min=1, help="Number of images to run, chosen at random. Default: all.")
    ] = None,
    lq: Inputs = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of ground truth. Default: $NTIRE_DATA/<track>/gt.")] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help="Table of landmarks. Default: $NTIRE_DATA/<track>/landmarks.csv.")
    ] = None,
    track: Annotated[str | None, typer.Option(help="The entry's track, if it has no manifest.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed for sample and probes. Default: a new one, which is printed.")
    ] = None,
    sandbox: Annotated[
        str, typer.Option(help="Sandbox: auto, bubblewrap, docker or podman; none runs the code with your rights.")
    ] = "auto",
    device: Device = "auto",
    time_limit: TimeLimit = 300.0,
    memory: Memory = 8.0,
    strict: Annotated[bool, typer.Option("--strict", help="Use a fresh process for every picture.")] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Count the code's parameters and multiply-adds and time it, beside claims and budgets.",
        ),
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Below it goes <entry>/verification.json. Default: beside the entries."),
    ] = None,
    key: Key = None,
    as_json: AsJson = False,
    engine: EngineOption = None,
    address: Address = "auto",
    workers: Workers = None,
) -> None:
    """Run entries' code in a sandbox and compare the results with the submitted images."""
    how = partial(
        verify, track=_absolute(track), sample=sample, lq=_absolute(lq), gt=_absolute(gt), landmarks=_absolute(landmarks),
        seed=seed, sandbox=sandbox, time_limit=time_limit, memory_gib=memory, strict=strict, measure=measure,
    )  # fmt: skip
    _refuse_places(entries, folder)
    if engine is None:
        found = [how(entry, device=device, out=folder, key=key, say=say) for entry in entries]
    else:
        found = _verified_on((engine, address, workers, device), entries, how, sandbox, folder, key)
    if as_json:
        print_json(found[0].as_json() if len(found) == 1 else [one.as_json() for one in found])
    else:
        for one in found:
            if len(found) > 1:
                out.print(f"\n{one.entry}", markup=False, style="bold")
            print_verification(one)
    if any(one.verdict == "undecided" for one in found):
        raise typer.Exit(3)
    if not all(one.passed for one in found):
        raise typer.Exit(1)


def _verified_on(
    where: tuple[EngineName, str, int | None, str],
    entries: Sequence[Path],
    how: Callable[..., Verification],
    sandbox: str,
    folder: Path | None,
    key: Path | None,
) -> list[Verification]:
    """Verify on the engine, at the address, with the workers and on the device of `where`."""
    from ntire.commands.verifying_many import verify_on
    from ntire.entry.verdict import read_key
    from ntire.runner.engines import open_engine

    name, address, workers, device = where
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: with --engine workers take the GPUs that are there. Use auto, or cpu.")
    secret = read_key(key) if key is not None else None
    with open_engine(name, address=address, workers=workers, device=device, say=say) as engine:
        return verify_on(engine, entries, how, sandbox, folder, secret, say)


def _refuse_places(entries: Sequence[Path], folder: Path | None) -> None:
    """Raise UserError for an entry that is not there, and where verdicts would go into an entry or over one another."""
    from ntire.entry.results import place_of_verdict

    places: dict[Path, Path] = {}
    for entry in entries:
        _refuse_missing(entry)
        place = place_of_verdict(entry, folder).absolute()
        outside_of([entry] if entry.is_dir() else [], place)
        other = places.setdefault(place, entry)
        if other is not entry:
            raise UserError(
                f"{other} and {entry}: the verdicts of both would be {place}. Rename one of them, or verify one after the "
                "other with folders of their own (-o)."
            )


def _absolute(path: str | Path | None) -> Path | str | None:
    """A path as a process with another working directory names it; a track's name stays one."""
    return Path(path).absolute() if path is not None and Path(path).exists() else path


@app.command(
    epilog="Examples: [bold]ntire pack submissions/MiAlgo-srgb -o MiAlgo.zip[/]; "
    "[bold]ntire pack submissions/mine --code my-method/[/]; exit code 1 if a rule is broken"
)
def pack(
    folder: Annotated[Path, typer.Argument(help="A submission folder, as `ntire run` makes it.")],
    file: Annotated[Path | None, typer.Option("-o", "--out", help="The zip. Default: beside the folder.")] = None,
    lq: Inputs = None,
    code: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the method.py that made the images: it goes into method/ of the folder and zip."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a zip of a run that `ntire check` accepts, with a factsheet; the same folder gives the same bytes."""
    packed = pack_entry(folder, file, lq, code)
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
