"""What the commands do, put together from runner and scorer; the demo is the whole way once."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ntire import UserError, catalogue
from ntire.environment import versions
from ntire.files import writable_folder
from ntire.method import Method
from ntire.prepare import Options, prepare
from ntire.runner import Input, Result, Summary, find_inputs, run
from ntire.samples import sample_set
from ntire.sheet import Column, contact_sheet
from ntire.submission import IMAGES, find_submissions, open_submission
from ntire.training.loop import Settings, Step
from ntire.training.loop import train as run_training
from ntire.weights import fill, read_state_dict
from scoring.leaderboard import Line, line_of, ranked, write_leaderboard, write_scores
from scoring.score import Row, score
from scoring.track import Track, load_track, sample_track

Report = Callable[[Result, bool], None]
Say = Callable[[str], None]
"""Takes one line about what is going on."""
SCORES = "scores.csv"


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
    track = load_track(track_name)
    method = _method(team, track, variant)
    if given:
        folders = list(given)
    else:
        track, folder = _default_data(track, "lq")
        folders = [folder]
        say(f"no input given: restoring {folder} ({track.title})")
    inputs = find_inputs(folders, method.track)[:limit]
    name = "-".join(filter(None, (method.team, track.inputs, variant or "")))
    return Job(method, track, tuple(inputs), out or Path("submissions") / name.replace("/", "_"))


def restore(job: Job, options: Options, report: Report) -> Summary:
    """Run a job; see `ntire.runner.run`."""
    method = prepare(job.method, options)
    return run(method, job.inputs, job.out, job.track.name, options, report)


def train(
    team: str,
    track_name: str,
    variant: str | None,
    settings: Settings,
    report: Callable[[Step], None],
    weights: Path | None,
    *,
    stages: tuple[str, ...],
    iterations: int | None,
    batch: int | None,
    patch: int | None,
    lr: float | None,
) -> Path:
    """Train a method by its recipe, scaled by what is not None; see `ntire.training.loop.train`.

    Raises UserError for a method without a recipe or a stage that it does not have.
    """
    method_class = _method(team, load_track(track_name), variant)
    if method_class.recipe is None:
        raise UserError(f"{team} on track {track_name} has no recipe: it cannot be trained here.")
    recipe = method_class.recipe.scaled(stages=stages, iterations=iterations, batch=batch, patch=patch, lr=lr)
    torch.manual_seed(settings.seed)
    method = method_class()
    if weights is not None:
        fill(method, read_state_dict(weights), weights)
    return run_training(method, recipe, settings, report)


@dataclass(frozen=True)
class Scored:
    """What `ntire score` found."""

    lines: tuple[Line, ...]
    rows: dict[str, list[Row]]
    """By entry."""
    out: Path


def score_entries(
    given: Sequence[Path], track_name: str | None, gt: Path | None, metrics: Sequence[str], out: Path | None, say: Say
) -> Scored:
    """Score entries, or all entries of folders, and write `scores.csv` of each and the leaderboard.

    They are written into `out`, by default into the folder of the entries. Raises UserError for a folder without
    entries, an entry with mistakes in its manifest, an unknown metric, or ground truth that is not there.
    """
    submissions = [open_submission(root) for folder in given for root in find_submissions(folder)]
    twice = {one.entry for one in submissions if sum(other.entry == one.entry for other in submissions) > 1}
    if twice:
        raise UserError(f"several entries are called {', '.join(sorted(twice))}. Rename their folders.")
    tracks = {name: load_track(name) for name in dict.fromkeys(one.track for one in submissions)}
    if track_name is not None:
        wanted = load_track(track_name)
        others = [one.entry for one in submissions if tracks[one.track].name != wanted.name]
        if others:
            say(f"left out, as they are not for track {wanted.name}: {', '.join(others)}")
        submissions = [one for one in submissions if one.entry not in others]
        if not submissions:
            raise UserError(f"no entry for track {wanted.name} in {', '.join(map(str, given))}.")
    if gt is not None and len({one.track for one in submissions}) > 1:
        raise UserError("--gt is the ground truth of one track, the entries are for several. Choose one with --track.")
    single = len(given) == 1 and find_submissions(given[0]) != [given[0]]
    target = writable_folder(out or (given[0] if single else given[0].resolve().parent))
    lines, rows = [], {}
    for submission in submissions:
        track = tracks[submission.track]
        chosen = _chosen(track, metrics)
        truth = gt or _default_data(track, "gt")[1]
        rows[submission.entry] = score(submission, track, truth, chosen)
        lines.append(line_of(submission.entry, submission.team, track, rows[submission.entry], chosen, versions()))
        write_scores(writable_folder(target / submission.entry) / SCORES, rows[submission.entry], chosen)
    board = ranked(lines)
    write_leaderboard(target, board)
    return Scored(tuple(board), rows, target)


def demo(out: Path, options: Options, report: Callable[[str], Report], say: Say) -> Scored:
    """Run two methods per pixel track on the sample set, score them, and draw `contact-sheet.png`; all in `out`."""
    writable_folder(out)
    blocks = []
    for kind in ("raw", "srgb"):
        for team in ("Copy", "MiAlgo"):
            job = plan(team, f"demo-{kind}", (), out / f"{team}-{kind}", None, None, say)
            restore(job, options, report(f"{team} {kind}"))
        columns = [Column(f"{kind}: {team}", out / f"{team}-{kind}" / IMAGES) for team in ("Copy", "MiAlgo")]
        blocks.append([*columns, Column("truth", sample_set() / kind / "gt")])
    contact_sheet(out / "contact-sheet.png", blocks)
    return score_entries([out], None, None, (), None, say)


def _method(team: str, track: Track, variant: str | None) -> type[Method]:
    """A method of the catalogue, or the one in a folder, for a track."""
    is_path = "/" in team or (Path(team) / "method.py").is_file()
    method = catalogue.load(Path(team)) if is_path else catalogue.find(team, track.inputs, variant)
    if method.track != track.inputs:
        raise UserError(
            f"{team}: its method is for {method.track} inputs, track {track.name} has {track.inputs}. "
            f"Use --track {method.track}."
        )
    return method


def _chosen(track: Track, metrics: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in metrics if name not in track.metrics]
    if unknown:
        raise UserError(f"track {track.name} has no metric {', '.join(unknown)}; it has: {', '.join(track.metrics)}.")
    return tuple(name for name in track.metrics if not metrics or name in metrics)


def _default_data(track: Track, part: str) -> tuple[Track, Path]:
    """`lq` or `gt` of a track where the user gave none: `$NTIRE_DATA/<track>/<part>`, or that of the sample set."""
    root = os.environ.get("NTIRE_DATA")
    if root:
        folder = Path(root) / track.name / part
        if folder.is_dir():
            return track, folder
        if not track.samples:
            raise UserError(
                f"NTIRE_DATA={root}: expected {folder}, found no such folder. "
                f"Put the data of {track.name} there or name the folder on the command line."
            )
    samples = track if track.samples else sample_track(track.inputs)
    if samples is None or (part == "gt" and not track.samples):
        raise UserError(
            f"track {track.name}: where is the {'ground truth' if part == 'gt' else 'input'}? "
            f"Name it{' with --gt' if part == 'gt' else ''}, or set NTIRE_DATA to a folder with {track.name}/{part}."
        )
    return samples, sample_set() / samples.inputs / part
