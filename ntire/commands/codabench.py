"""`ntire codabench`: a track as a competition of Codabench or CodaLab, and a worker to try it with."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, TrackName, app
from ntire.commands.screen import errors, out, print_json, print_table, say
from ntire.text import printable

if TYPE_CHECKING:
    from ntire.codabench.competition import Competition
    from ntire.codabench.worker import Tried
    from ntire.commands.restoring import Say
    from ntire.commands.scoring import Board
    from ntire.entry.findings import Finding
    from ntire.scoring.leaderboard import Line
    from ntire.scoring.references import References
    from ntire.scoring.track import Track

codabench_app = typer.Typer(no_args_is_help=True, help="Make and try competitions for Codabench and CodaLab.")
app.add_typer(codabench_app, name="codabench")

REFRESH = 5.0
"""Seconds between two looks of the platform at the page."""
OURS = "This is the organiser's to mend, not yours."


def make_bundle(
    track: Track,
    how: Competition,
    given: References,
    out: Path,
    *,
    logo: Path | None = None,
    with_weights: bool = False,
    say: Say = lambda line: None,
) -> list[str]:
    """Write a competition bundle; returns the names of its files.

    Raises UserError that lists all that is missing or does not fit: references, dates, a logo, weights that are to travel.
    """
    from ntire.codabench.bundle import Materials, write_bundle
    from ntire.sandbox.scratch import scratch_folder

    problems = [*how.problems, *_missing_references(track, given, how)]
    picture = None
    if logo is not None:
        picture, wrong = _logo(logo)
        problems += wrong
    weights, absent = _weights_of_metrics(track)
    if with_weights and absent:
        problems.append(
            f"--with-weights: cannot travel, as they are not here or no single files: {', '.join(absent)}. "
            f"Get them with: ntire weights fetch --track {track.name}"
        )
    if problems:
        raise UserError("\n".join(problems))
    if not with_weights and (weights or absent):
        names = ", ".join([*(path.name for path in weights.values()), *absent])
        say(f"the image must hold the weights of the metrics, as nothing is downloaded while scoring: {names}")
    with scratch_folder() as scratch:
        sample, content = _sample(track, given, scratch, say)
        track = track.model_copy(update={"baseline": content})
        materials = Materials(given.gt, given.lq, given.landmarks, sample, picture, weights if with_weights else {})
        try:
            return write_bundle(track, how, materials, out)
        except OSError as error:
            raise UserError(
                f"{out}: cannot be written: {error.strerror or error}. Choose another place with -o."
            ) from None


def _missing_references(track: Track, given: References, how: Competition) -> list[str]:
    from ntire.scoring.references import expected_images

    named = {"--gt": given.gt, "--lq": given.lq}
    problems = [
        f"{word} {path}: expected a folder, found none." for word, path in named.items() if path and not path.is_dir()
    ]
    if given.landmarks and not given.landmarks.is_file():
        problems.append(f"--landmarks {given.landmarks}: expected a table, found none.")
    if how.code and given.lq is None:
        problems.append("--code: submitted code needs the inputs: --lq DIR.")
    if "adaface" in track.metrics and given.landmarks is None:
        problems.append(
            "--landmarks: track's identity gate needs a table of landmarks; the scoring image finds no faces."
        )
    if not problems:
        try:
            expected_images(track, given, track.metrics)
        except UserError as error:
            problems.append(str(error))
    return problems


def _logo(path: Path) -> tuple[bytes | None, list[str]]:
    from ntire.codabench.bundle import logo_of

    try:
        return logo_of(path), []
    except OSError as error:
        return None, [f"--logo {path}: expected a picture: {error.strerror or error}."]


def _weights_of_metrics(track: Track) -> tuple[dict[str, Path], list[str]]:
    """Files that the metrics need and that can travel, by their places; and the names of those that are not here or cannot."""
    from ntire.codabench.programs import WEIGHTS
    from ntire.method.weights_files import locate
    from ntire.scoring.metrics import METRICS

    here, absent = {}, []
    for weights in dict.fromkeys(one for name in track.metrics for one in METRICS[name].weights):
        path, state = locate(weights, None)
        if state == "missing" or weights.home not in WEIGHTS:
            absent.append(weights.file)
        else:
            here[f"{WEIGHTS[weights.home]}/{weights.file}"] = path
    return here, absent


def _sample(track: Track, given: References, scratch: Path, say: Say) -> tuple[Path | None, str]:
    """An upload that is accepted, the inputs themselves, and its content, which the rules name; None without inputs."""
    from ntire.codabench.bundle import zip_of
    from ntire.commands.restoring import Job, inputs_of_track, run_job
    from ntire.entry.manifest import IMAGES, MANIFEST, content_of
    from ntire.method import catalogue
    from ntire.review.check import check
    from ntire.runner.prepare import Options

    copies = [one for one in catalogue.listed(track.inputs) if one.team == "Copy" and one.scale == track.scale]
    if given.lq is None or not copies:
        say("no sample upload is in the starting kit: it would be made of the inputs (--lq)")
        return None, ""
    _, inputs, _ = inputs_of_track(track, [given.lq], track.inputs, None, say)
    job = Job(catalogue.class_of(copies[0]), track, inputs, scratch / "sample")
    run_job(job, Options(), lambda result, computed: None)
    sample = zip_of({MANIFEST: job.out / MANIFEST, IMAGES: job.out / IMAGES}, scratch / "sample.zip")
    content = content_of(job.out)
    rules = track.model_copy(update={"baseline": content})
    wrong = next((one for one in check(sample, rules, lambda track: given.lq).findings if one.breaks_a_rule), None)
    if wrong is not None:
        say(f"no sample upload is in the starting kit: the inputs break a rule: {wrong.code} {wrong.problem}")
        return None, ""
    return sample, content


def score_upload(program: Path, inputs: Path, out: Path) -> int:
    """What the scoring program does: scores and a report of one upload below `inputs` into `out`; returns the exit code.

    0: scored. 1: the upload breaks a rule, and nothing is scored; the first lines say which. 3: something of the organiser's
    is missing. Nothing is downloaded.
    """
    from ntire.codabench.details import page
    from ntire.codabench.programs import DETAILS, RULES
    from ntire.commands.scoring import score
    from ntire.files import writable_folder, write_atomically
    from ntire.scoring.references import References
    from ntire.scoring.track import load_track

    os.environ["HF_HUB_OFFLINE"] = "1"
    ref, upload = inputs / "ref", inputs / "res"
    if (ref / "weights").is_dir():
        os.environ |= {"NTIRE_WEIGHTS": str(ref / "weights" / "ntire"), "TORCH_HOME": str(ref / "weights" / "torch")}
    writable_folder(out)
    shown = out / DETAILS
    track = load_track(str(program / RULES))
    given = References(*(ref / name if (ref / name).exists() else None for name in ("gt", "lq", "landmarks.csv")))
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REFRESH:
            last = time.monotonic()
            write_atomically(shown, page("Scoring", [f"{done} of {total} images are scored."]))

    write_atomically(shown, page("Scoring", ["The upload is being read."]))
    try:
        board = score(
            upload,
            program / RULES,
            gt=given.gt,
            lq=given.lq,
            landmarks=given.landmarks,
            cache=False,
            report=report,
            say=say,
        )
    except UserError as error:
        if error.exit_code == 3:
            write_atomically(shown, page("Not scored", [OURS, *str(error).splitlines()]))
            raise UserError(f"{OURS}\n{error}", exit_code=3) from None
        return _refused(shown, upload, track, given, str(error).splitlines())
    line = board.lines[0]
    if not line.valid:
        return _refused(shown, upload, track, given, line.problems)
    return _accepted(board, line, track, out, shown)


def _refused(shown: Path, upload: Path, track: Track, given: References, words: Sequence[str]) -> int:
    """Say everything that is wrong: in the log, the first lines first, and on the page."""
    from ntire.codabench.details import in_a_line, page
    from ntire.files import write_atomically

    findings = _findings(upload, track, given)
    lines = [in_a_line(one) for one in findings] or list(words)
    write_atomically(shown, page(f"Not scored: {len(lines)} problem(s)", [] if findings else lines, findings))
    for line in lines:
        errors.print(printable(line), markup=False, soft_wrap=True)
    errors.print("The upload is not scored.", markup=False)
    return 1


def _findings(place: Path, track: Track, given: References) -> list[Finding]:
    """What invalidates the one upload in a place, but for what costs no rank."""
    from ntire.review.acceptance import FORMALITIES
    from ntire.review.check import check
    from ntire.review.uploads import open_upload
    from ntire.sandbox.scratch import scratch_folder

    with scratch_folder() as scratch:
        try:
            upload = open_upload(place, scratch, track)
            root, refused = upload.root, upload.findings
        except UserError:  # there is no upload: all of it is missing
            root, refused = place, ()
        inside = check(root, track, lambda track: given.lq).findings if root else ()
        broken = [one for one in (*refused, *inside) if one.breaks_a_rule]
    return [one for one in broken if one.code not in FORMALITIES]


def _accepted(board: Board, line: Line, track: Track, out: Path, shown: Path) -> int:
    import json

    from ntire.codabench.competition import scores_of
    from ntire.codabench.details import page
    from ntire.codabench.programs import OLD_SCORES, SCORES
    from ntire.commands.reporting import report
    from ntire.files import write_together
    from ntire.sandbox.scratch import scratch_folder

    scores, infinite = scores_of(line, track)
    if infinite:
        words = f"{', '.join(infinite)}: the results are the truth itself, which no method makes."
        shown.write_text(page("Not scored", [words]), encoding="utf-8")
        errors.print(words, markup=False)
        return 1
    with scratch_folder() as scratch:
        report(board.write(scratch / "results"), shown, single_file=True, title=f"{line.team}: {track.title}", say=say)
    old = "".join(f"{name}: {value!r}\n" for name, value in scores.items())
    write_together({out / OLD_SCORES: old, out / SCORES: json.dumps(scores, indent=2) + "\n"})
    for name, value in scores.items():
        out_line = f"{name}: {value:.{track.decimals}f}"
        typer.echo(out_line)
    return 0


def ingest(program: Path, inputs: Path, code: Path, out: Path) -> None:
    """What the ingestion program does: runs the code that was handed in on the inputs, in a sandbox, into `out`.

    Raises UserError (exit code 3) where no sandbox is possible, and (exit code 1) for code that does not load or fails.
    """
    from ntire.codabench.programs import RULES
    from ntire.commands.restoring import run

    folder = next((one for one in (code, code / "method") if (one / "method.py").is_file()), None)
    if folder is None:
        names = ", ".join(sorted(one.name for one in code.iterdir())[:10]) if code.is_dir() else "nothing"
        raise UserError(f"expected a method.py at the top of the zip or in method/, found {names}.", exit_code=1)
    try:
        summary = run(folder.resolve(), program / RULES, [inputs], out, sandbox=True, say=say)
    except UserError as error:
        if error.exit_code == 3:
            raise UserError(
                f"{OURS} Code of participants runs only in a sandbox, and none works in this container:\n{error}",
                exit_code=3,
            ) from None
        raise
    if summary.failed:
        words = [f"{one.image}: {one.status}: {one.problem}" for one in summary.failed]
        raise UserError("\n".join(words), exit_code=1)


Day = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="When it begins, UTC.")
]


@codabench_app.command(
    "bundle",
    epilog="Example: [bold]ntire codabench bundle --track srgb --gt clean/ --lq inputs/ --start 2026-03-01 -o bundle.zip[/]",
)
def bundle_command(
    track: TrackName,
    start: Day,
    gt: Annotated[
        Path | None, typer.Option(help="Folder of ground truth, which only the scoring program sees.")
    ] = None,
    lq: Annotated[Path | None, typer.Option(help="Folder of inputs, which participants get.")] = None,
    landmarks: Annotated[Path | None, typer.Option(help="Table of landmarks, for an identity gate.")] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="When it ends, UTC. Default: never."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the competition. Default: the track's.")] = "",
    phase: Annotated[str, typer.Option(help="Name of the phase.")] = "Test",
    contact: Annotated[str, typer.Option(help="An address for questions.")] = "",
    logo: Annotated[Path | None, typer.Option(help="A picture. Default: the title on a plain ground.")] = None,
    docker_image: Annotated[
        str, typer.Option(help="Image of the worker, with ntire in it.")
    ] = "ntire-codabench:latest",
    queue: Annotated[str, typer.Option(help="Queue of your own workers.")] = "",
    uploads_a_day: Annotated[int, typer.Option(min=1, help="Uploads of a participant on one day.")] = 5,
    uploads: Annotated[int, typer.Option(min=1, help="Uploads of a participant in all.")] = 100,
    seconds: Annotated[int, typer.Option(min=1, help="Time limit for one upload.")] = 3600,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Put the metrics' weights into the reference data, not the image.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--code", help="Uploads are code, which runs in a sandbox on the inputs.")
    ] = False,
    file: Annotated[Path, typer.Option("-o", "--out", help="The zip to write.")] = Path("bundle.zip"),
    as_json: AsJson = False,
) -> None:
    """Write a track as a competition bundle: pages, terms, leaderboard, reference data, scoring program, starting kit."""
    from ntire.codabench.competition import Competition
    from ntire.scoring.references import References
    from ntire.scoring.track import load_track

    rules = load_track(track)
    how = Competition(start, end, title, phase, contact, docker_image, queue, uploads_a_day, uploads, seconds, code)
    files = make_bundle(rules, how, References(gt, lq, landmarks), file, logo=logo, with_weights=with_weights, say=say)
    if as_json:
        print_json({"file": str(file), "files": files})
        return
    out.print(f"bundle: {file} ({file.stat().st_size:,} bytes): {', '.join(files)}", markup=False)
    out.print(f"try it:  ntire codabench try {file} ENTRY.zip", markup=False)


@codabench_app.command(
    "try", epilog="Example: [bold]ntire codabench try bundle.zip mine.zip[/]; exit code 1 if it is refused"
)
def try_command(
    bundle: Annotated[Path, typer.Argument(help="A competition bundle.")],
    upload: Annotated[Path, typer.Argument(help="What a participant would upload: a zip.")],
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where the scoring program's files go. Default: <upload>-scored.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Do with an upload what a worker of the platform would do, and show what participants would see."""
    from ntire.codabench.worker import try_upload
    from ntire.sandbox.scratch import scratch_folder

    with scratch_folder() as scratch:
        found = try_upload(bundle, upload, scratch, folder or Path(f"{upload.stem}-scored"))
    if as_json:
        print_json(found.as_json())
    else:
        _print_tried(found)
    if not found.finished:
        raise typer.Exit(3 if 3 in found.exit_codes.values() else 1)


def _print_tried(found: Tried) -> None:
    out.print(found.output.rstrip(), markup=False, soft_wrap=True)
    names = {**found.scores, **found.old_scores}
    if names:
        values = {name: [of.get(name) for of in (found.scores, found.old_scores)] for name in names}
        rows = [[name, *("" if value is None else f"{value:.10g}" for value in of)] for name, of in values.items()]
        print_table(["column", "score", "in scores.txt"], rows)
    if found.missing_columns:
        out.print(f"columns without a score: {', '.join(found.missing_columns)}", markup=False)
    if found.details:
        out.print(f"detailed results: {found.details}", markup=False)
    out.print("Finished" if found.finished else f"Failed: {found.reason}", markup=False)


@codabench_app.command("score", hidden=True)
def score_command(program: Path, inputs: Path, folder: Path) -> None:
    """What the scoring program of a bundle calls."""
    code = score_upload(program, inputs, folder)
    if code:
        raise typer.Exit(code)


@codabench_app.command("ingest", hidden=True)
def ingest_command(program: Path, inputs: Path, code: Path, folder: Path) -> None:
    """What the ingestion program of a bundle calls."""
    ingest(program, inputs, code, folder)
