"""`ntire score`, `ntire leaderboard`, `ntire tracks`: entries held against references, tables ranked, rules in words."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, Device, Out, TrackName, app
from ntire.commands.screen import (
    out,
    print_json,
    print_leaderboard,
    print_table,
    progress,
    say,
)

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.entry.manifest import Submission
    from ntire.scoring.leaderboard import Line
    from ntire.scoring.references import Expected, References
    from ntire.scoring.score import Scored, Scorer
    from ntire.scoring.track import Track


SCORES = "scores.csv"


@dataclass(frozen=True)
class Board:
    """What `ntire score` and `ntire leaderboard` found."""

    lines: tuple[Line, ...]
    out: Path
    observed: int = 0
    """Observations that had to be made; the others were made before."""


@dataclass(frozen=True)
class ScoreOptions:
    """How to score, apart from what."""

    references: References = field(default_factory=lambda: _no_references())
    metrics: tuple[str, ...] = ()
    """Only these; then there is no total."""
    device: str = "cpu"
    cache: bool = True
    as_published: bool = False


def score_entries(
    given: Sequence[Path],
    track_name: str | None,
    options: ScoreOptions,
    out: Path | None,
    say: Say,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Board:
    """Score entries, or all entries of folders, and write `scores.csv` of each and the leaderboard.

    They are written into `out`, by default into the folder of the entries. `report` gets the images that are done and
    their number in all. Raises UserError for a folder without entries, an entry with mistakes in its manifest, an unknown
    metric, references or weights that are not there; nothing is written then.
    """
    from ntire.entry.manifest import find_submissions
    from ntire.files import writable_folder
    from ntire.scoring.cache import Cache, default_path
    from ntire.scoring.calibration import refuse_drift
    from ntire.scoring.leaderboard import line_of, ranked
    from ntire.scoring.references import References
    from ntire.scoring.score import Scorer
    from ntire.scoring.tables import write_leaderboard, write_scores

    by_track = _by_track(given, track_name, say)
    if len(by_track) > 1 and options.references != References():
        raise UserError("the references given are of one track, the entries are for several. Choose one with --track.")
    single = len(given) == 1 and find_submissions(given[0]) != [given[0]]
    target = out or (given[0] if single else given[0].resolve().parent)
    # What is missing or broken for any track is told before anything is computed for one.
    for track, _ in by_track:
        refuse_drift(chosen_metrics(track, options))
    lines: list[Line] = []
    scored: list[tuple[Scored, tuple[str, ...]]] = []
    with Cache(default_path() if options.cache else None) as cache:
        scorers = [Scorer(track, chosen_metrics(track, options), options.device, cache) for track, _ in by_track]
        expected = [expected_of(scorer, options, say) for scorer in scorers]
        total = sum(len(images) * len(entries) for images, (_, entries) in zip(expected, by_track, strict=True))
        done = itertools.count(1)
        for scorer, images, (track, entries) in zip(scorers, expected, by_track, strict=True):
            metrics = tuple(metric.name for metric in scorer.metrics)
            for one in scorer.score(entries, images, lambda: report(next(done), total)):
                scored.append((one, metrics))
                lines.append(line_of(one, track, metrics, scorer.identities(), as_published=options.as_published))
        observed = cache.observed
    writable_folder(target)
    for one, metrics in scored:
        write_scores(writable_folder(target / one.submission.entry) / SCORES, one.rows, one.of_set, metrics)
    board = ranked(lines)
    write_leaderboard(target, board)
    return Board(tuple(board), target, observed)


def _by_track(given: Sequence[Path], track_name: str | None, say: Say) -> list[tuple[Track, list[Submission]]]:
    """Entries by track; with a name, only those of that track, which may be a TOML's."""
    from ntire.entry.manifest import find_submissions, open_submission
    from ntire.scoring.track import load_track

    submissions = [open_submission(root) for folder in given for root in find_submissions(folder)]
    twice = {one.entry for one in submissions if sum(other.entry == one.entry for other in submissions) > 1}
    if twice:
        raise UserError(f"several entries are called {', '.join(sorted(twice))}. Rename their folders.")
    if track_name is None:
        tracks = {name: load_track(name) for name in dict.fromkeys(one.track for one in submissions)}
        return [(track, [one for one in submissions if one.track == name]) for name, track in tracks.items()]
    wanted = load_track(track_name)
    entries = [one for one in submissions if one.track == wanted.name]
    others = [one.entry for one in submissions if one.track != wanted.name]
    if not entries:
        raise UserError(f"no entry for track {wanted.name} in {', '.join(map(str, given))}.")
    if others:
        say(f"left out, as they are not for track {wanted.name}: {', '.join(others)}")
    return [(wanted, entries)]


def rank_tables(tables: Sequence[Path], track_name: str, out: Path | None, *, published: bool = False) -> Board:
    """Rank `scores.csv` files, or tables with one row of means a team, by a track's rules; no image is touched.

    With `published`, the rows of papers that ship with the track stand among them. Raises UserError if there are none.
    """
    from ntire.files import writable_folder
    from ntire.scoring.leaderboard import line_of_scores, lines_of_table, ranked
    from ntire.scoring.tables import write_leaderboard
    from ntire.scoring.track import load_track, published_rows

    track = load_track(track_name)
    lines: list[Line] = []
    for path in [*tables, *([published_rows(track)] if published else [])]:
        with_images = path.is_file() and path.read_bytes().startswith(b"image,")
        lines += [line_of_scores(path, track)] if with_images else lines_of_table(path, track)
    board = ranked(lines)
    folder = out.parent if out else Path()
    if out:
        write_leaderboard(writable_folder(folder), board, out.stem)
    return Board(tuple(board), folder)


def references_of(track: Track, given: References) -> References:
    """The references that the user named, else those in `$NTIRE_DATA/<track>/`, else those of the sample set."""
    from ntire.picture.samples import sample_set
    from ntire.scoring.references import References

    root = os.environ.get("NTIRE_DATA")
    folder = Path(root) / track.name if root else None
    if folder is None and track.samples:
        folder = sample_set() / track.inputs

    def found(name: str) -> Path | None:
        return folder / name if folder and (folder / name).exists() else None

    return References(given.gt or found("gt"), given.lq or found("lq"), given.landmarks or found("landmarks.csv"))


def expected_of(scorer: Scorer, options: ScoreOptions, say: Say) -> list[Expected]:
    from ntire.scoring.references import expected_images

    track = scorer.track
    references = references_of(track, options.references)
    metrics = [metric.name for metric in scorer.metrics]
    # A metric that compares faces needs to know where they are.
    if "adaface" in metrics and references.landmarks is None and references.lq is not None:
        references = replace(references, landmarks=_found_landmarks(track, references.lq, options.device, say))
    return expected_images(track, references, metrics)


def _found_landmarks(track: Track, lq: Path, device: str, say: Say) -> Path:
    """A table of landmarks made by a detector, kept in the cache for the next time."""
    from ntire.files import sha256_of, writable_folder
    from ntire.scoring.cache import default_path
    from ntire.scoring.detect import find_landmarks, retinaface
    from ntire.scoring.identity import write_landmarks
    from ntire.scoring.references import inputs_by_subset

    inputs = inputs_by_subset(track, lq)
    known = sha256_of(repr(sorted((stem, sha256_of(path)) for stem, (_, path) in inputs.items())).encode())
    path = default_path().with_name(f"landmarks-{known[:16]}.csv")
    if not path.is_file():
        table = find_landmarks(inputs, retinaface(device))
        writable_folder(path.parent)
        write_landmarks(path, table)
    say(f"no table of landmarks was given: RetinaFace's are used, which are not the organisers' ({path})")
    return path


def chosen_metrics(track: Track, options: ScoreOptions) -> tuple[str, ...]:
    unknown = [name for name in options.metrics if name not in track.metrics]
    if unknown:
        raise UserError(f"track {track.name} has no metric {', '.join(unknown)}; it has: {', '.join(track.metrics)}.")
    return tuple(name for name in track.metrics if not options.metrics or name in options.metrics)


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
    from ntire.scoring.track import load_track

    if track is not None:
        load_track(track)  # an unknown one is told before anything heavy is imported
    from ntire.environment import choose_device
    from ntire.scoring.references import References
    from ntire.scoring.tables import as_json as lines_as_json

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
    from ntire.scoring.track import load_track

    if not tables and not published:
        raise UserError("name the tables to rank, or ask for the --published rows of the track.")
    load_track(track)  # an unknown one is told before anything heavy is imported
    from ntire.scoring.tables import as_json as lines_as_json

    board = rank_tables(tables or [], track, file, published=published)
    if as_json:
        print_json(lines_as_json(board.lines))
    else:
        print_leaderboard(board.lines)


@app.command(epilog="Examples: [bold]ntire tracks[/]; [bold]ntire tracks raim-2025-raw[/]")
def tracks(
    name: Annotated[str | None, typer.Argument(help="A track's name, or the path of a TOML.")] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table.")] = False,
) -> None:
    """List the tracks, or print the rules of one in words."""
    from ntire.scoring.track import all_tracks, in_words, load_track, markdown

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


def _no_references() -> References:
    from ntire.scoring.references import References

    return References()
