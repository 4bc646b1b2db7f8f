"""`ntire score`, `ntire leaderboard`, `ntire tracks`: entries held against references, tables ranked, rules in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.entering import Entered, enter, uploads_at
from ntire.commands.known_references import references_of as references_of
from ntire.commands.options import Address, AsJson, Device, EngineOption, Key, Out, TrackName, Workers, app
from ntire.commands.restoring import paths_of
from ntire.commands.screen import (
    out,
    print_json,
    print_leaderboard,
    print_table,
    progress,
    say,
    watch_engine,
)
from ntire.text import nearest

if TYPE_CHECKING:
    import pandas as pd

    from ntire.commands.restoring import Say
    from ntire.entry.manifest import Submission
    from ntire.entry.verdict import Standing
    from ntire.review.acceptance import Entrance
    from ntire.runner.engines import Engine, EngineName
    from ntire.scoring.cache import Cache
    from ntire.scoring.detect import DetectorName
    from ntire.scoring.leaderboard import Line
    from ntire.scoring.references import Expected, References
    from ntire.scoring.score import Scored, Scorer
    from ntire.scoring.sources import Sources
    from ntire.scoring.track import Track


SCORES = "scores.csv"


@dataclass(frozen=True)
class Board:
    """A ranking, and where the entries were scored the images behind it."""

    lines: tuple[Line, ...]
    """Ranked."""
    scored: tuple[tuple[Scored, tuple[str, ...]], ...] = ()
    """Each entry's images and the metrics that were asked for; empty for a ranking of tables."""
    folder: Path = Path()
    """Where the tables belong: beside the entries, never in one."""
    observed: int = 0
    """Observations that had to be made; the others were in the cache."""
    sources: Sources | None = None
    """What was compared and where it lies; None for a ranking of tables."""

    @property
    def valid(self) -> bool:
        """Whether no entry breaks a rule."""
        return all(line.valid for line in self.lines)

    @property
    def frame(self) -> pd.DataFrame:
        """One row an entry, in the order of the ranks, with the columns of `leaderboard.csv`."""
        from ntire.scoring.tables import leaderboard_frame

        return leaderboard_frame(self.lines)

    @property
    def images(self) -> pd.DataFrame:
        """One row an image, with the columns of `scores.csv` behind `entry`; empty for a ranking of tables."""
        import pandas as pd

        from ntire.scoring.tables import scores_frame

        frames = [scores_frame(one.rows, {}, metrics) for one, metrics in self.scored]
        for frame, (one, _) in zip(frames, self.scored, strict=True):
            frame.insert(0, "entry", one.submission.entry)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def write(self, folder: str | Path | None = None, name: str = "leaderboard") -> Path:
        """Write `<name>.csv`, `.md` and `.json` and, below, `scores.csv` of each entry that was handed in; by default into the
        results folder beside the entries. Returns the folder.

        Raises UserError for a place that cannot be written to, or that lies in an entry.
        """
        from ntire.entry.manifest import as_toml
        from ntire.entry.results import place_of
        from ntire.files import writable_folder, write_together
        from ntire.scoring.leaderboard import broken_rules
        from ntire.scoring.read_back import ENTRY
        from ntire.scoring.sources import SOURCES
        from ntire.scoring.tables import leaderboard_files, scores_text
        from ntire.text import printable_json

        target = self.folder if folder is None else Path(folder)
        places = [place_of(target, one.submission.entry) for one, _ in self.scored]
        for place in (target, *places):
            outside_of([one.submission.root for one, _ in self.scored], place)
        writable_folder(target)
        files: dict[Path, bytes | str] = {}
        of_entries = {line.entry: line for line in self.lines}
        for place, (one, metrics) in zip(places, self.scored, strict=True):
            writable_folder(place)
            broken = broken_rules(of_entries.pop(one.submission.entry).problems)
            files[place / SCORES] = scores_text(one.rows, one.of_set, metrics, broken)
            files[place / ENTRY] = as_toml(one.submission.manifest)
        for line in of_entries.values() if self.scored else ():
            # What could not be scored now must not be ranked by what was handed in before.
            place = place_of(target, line.entry)
            writable_folder(place)
            files[place / SCORES] = scores_text((), {}, line.track.metrics, broken_rules(line.problems))
        if self.sources is not None:
            files[target / SOURCES] = printable_json(self.sources.seen_from(target).model_dump()) + "\n"
        write_together({**files, **leaderboard_files(target, self.lines, name)})
        return target


def outside_of(entries: Sequence[Path], place: Path) -> None:
    """Raises UserError for a place in an entry: what is ours never goes there."""
    resolved = place.resolve()
    inside = next((one for one in entries if resolved.is_relative_to(one.resolve())), None)
    if inside is not None:
        raise UserError(f"{place}: lies in the entry {inside}, which stays as it is. Choose another folder with -o.")


def score(
    entries: str | Path | Sequence[str | Path],
    track: str | Path | None = None,
    *,
    gt: str | Path | None = None,
    lq: str | Path | None = None,
    landmarks: str | Path | None = None,
    metrics: Sequence[str] = (),
    device: str = "auto",
    cache: bool = True,
    as_published: bool = False,
    detector: DetectorName = "retinaface",
    verdicts: str | Path | None = None,
    key: str | Path | None = None,
    measure: bool = False,
    engine: EngineName | None = None,
    address: str = "auto",
    workers: int | None = None,
    watch: Callable[[Engine], None] = lambda engine: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Say = lambda line: None,
) -> Board:
    """Score entries, or all entries of folders, by the rules of their tracks; only those of `track` where one is named.

    An entry is a folder or an archive, with a `submission.toml` or a challenge's `readme.txt`, or nothing but pictures;
    where nothing names a track, these are compared by `metrics` alone, by default psnr and ssim. References that are not
    named are looked for in `$NTIRE_DATA/<track>/`. With `metrics` only these are computed, and there is no total. What
    `check` refuses is listed with its codes, not ranked. Verdicts of `verify` are looked for in the folder `verdicts` and
    beside the entries; the newest counts that speaks of an entry as it is, and with the organiser's `key`, a file, only those
    that it signed. What a verdict found the code to cost counts instead of claims; with `measure`, the code of other entries
    that break no rule is counted and timed in a sandbox, too. With an `engine` (local, or ray at `address`), `workers` here or
    on each node look at the images. `report` gets the numbers of images done and of all. UserError says all that is missing.
    """
    from ntire.entry.verdict import read_key
    from ntire.environment import choose_device
    from ntire.review.acceptance import Entrance
    from ntire.sandbox.scratch import scratch_folder
    from ntire.scoring.cache import Cache, default_path
    from ntire.scoring.leaderboard import ranked
    from ntire.scoring.references import References
    from ntire.scoring.track import load_track

    references = References(*(Path(one) if one else None for one in (gt, lq, landmarks)))
    start = _engine(engine, address, workers, device, watch, say)
    wanted, secret = load_track(str(track)) if track else None, read_key(Path(key)) if key else None
    with Cache(default_path() if cache else None) as known, scratch_folder() as scratch, ExitStack() as stack:
        entrance = Entrance(known)
        entered = enter(
            uploads_at(paths_of(entries), scratch, wanted, references, say), wanted, references, metrics, entrance, say
        )
        where = _Where(choose_device(device), known, stack.enter_context(start()))
        fields = _fields(entered.by_track, references, metrics, where, detector, entrance, say)
        scored = _scored(fields, entrance, where.engine, report)
        places = Path(verdicts) if verdicts else None
        judge = _Judge(entrance, places, secret, references, where.device, measure, as_published, say)
        lines = _lines(judge, scored, entered)
        for remark in known.remarks:
            say(remark)
    pairs = tuple((one, names) for _, one, names in scored)
    return Board(tuple(ranked(lines)), pairs, entered.results, known.observed, _sources(fields, scored))


def _engine(
    name: EngineName | None,
    address: str,
    workers: int | None,
    device: str,
    watch: Callable[[Engine], None],
    say: Say,
) -> Callable[[], AbstractContextManager[Engine | None]]:
    """What starts the engine that a user means, if any. Raises UserError for a device that workers cannot be told."""
    from ntire.runner.engines import open_engine

    if name is None:
        return nullcontext
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: with --engine workers take the GPUs that are there. Use auto, or cpu.")

    @contextmanager
    def started() -> Iterator[Engine]:
        with open_engine(name, address=address, workers=workers, device=device, say=say) as working:
            watch(working)
            yield working
            for node, words in working.usage_in_words().items():
                say(f"{node}: {words}")

    return started


def _lines(judge: _Judge, scored: Sequence[tuple[Scorer, Scored, tuple[str, ...]]], entered: Entered) -> list[Line]:
    """The line of every entry, not ranked yet; those that could not be scored come last."""
    from ntire.scoring.leaderboard import refused_line

    lines, first = [judge.line(*one) for one in scored], entered.by_track[0][0]
    lines += [refused_line(one.name, first, judge.entrance.refused_at(one)) for one in entered.refused]
    return [replace(line, notes=(*line.notes, *_not_proven(line.versions))) for line in lines]


def _not_proven(identities: Mapping[str, str]) -> tuple[str, ...]:
    """What a reader must know of metrics whose weights nobody has held against published values here."""
    from ntire.scoring.published_values import unproven

    names = unproven(identities)
    return (f"not proven by `ntire doctor --calibrate`: {', '.join(names)}",) if names else ()


def _refuse(by_track: Sequence[tuple[Track, object]], given: References, metrics: Sequence[str]) -> None:
    """What is missing or broken for any track is told before anything is computed for one."""
    from ntire.scoring.calibration import refuse_drift
    from ntire.scoring.references import References

    if len(by_track) > 1 and given != References():
        raise UserError("the references given are of one track, the entries are for several. Choose one with --track.")
    for track, _ in by_track:
        refuse_drift(chosen_metrics(track, metrics))


@dataclass(frozen=True)
class _Where:
    """What computes."""

    device: str
    cache: Cache
    engine: Engine | None

    def scorer(self, track: Track, metrics: Sequence[str]) -> Scorer:
        """By the identities of this machine or, with a cluster, of its workers."""
        from ntire.review.score_on_engine import identities_of
        from ntire.runner.engines.local import Local
        from ntire.scoring.score import Scorer

        elsewhere = self.engine if not isinstance(self.engine, Local) else None
        identities = identities_of(elsewhere, metrics) if elsewhere is not None else None
        return Scorer(track, metrics, self.device, self.cache, identities)


@dataclass(frozen=True)
class _Field:
    """The entries of one track, and the images that each must have."""

    scorer: Scorer
    entries: Sequence[Submission]
    images: Sequence[Expected]


def _sources(fields: Sequence[_Field], scored: Sequence[tuple[Scorer, Scored, tuple[str, ...]]]) -> Sources:
    """Where all that was compared lies, and what it was."""
    from ntire.scoring.sources import ComparedImage, ScoredTrack, Sources

    def compared(one: Expected, of: Scorer) -> ComparedImage:
        gt, lq = (str(path) if path else None for path in (one.gt, one.lq))
        gt_sha256, lq_sha256 = of.compared[one.name]
        return ComparedImage(name=one.name, subset=one.subset, gt=gt, lq=lq, gt_sha256=gt_sha256, lq_sha256=lq_sha256)

    return Sources(
        tracks=tuple(
            ScoredTrack(
                rules=field.scorer.track,
                images=tuple(compared(one, field.scorer) for one in field.images),
                entries={one.entry: str(one.place) for one in field.entries},
                sha256={
                    one.submission.entry: {row.image: row.sha256 for row in one.rows if row.sha256}
                    for scorer, one, _ in scored
                    if scorer is field.scorer
                },
            )
            for field in fields
        )
    )


def _scored(
    fields: Sequence[_Field], entrance: Entrance, engine: Engine | None, report: Callable[[int, int], None]
) -> list[tuple[Scorer, Scored, tuple[str, ...]]]:
    """Every entry by its track's metrics, whose names stand with it."""
    from ntire.review.score_on_engine import score_on

    total = sum(len(one.images) * len(one.entries) for one in fields)
    done = itertools.count(1)

    def scored(field: _Field) -> list[Scored]:
        def seen() -> None:
            report(next(done), total)

        if engine is not None:
            return score_on(engine, field.scorer, field.entries, field.images, entrance, seen)
        return field.scorer.score(field.entries, field.images, seen, entrance)

    return [
        (field.scorer, one, tuple(metric.name for metric in field.scorer.metrics))
        for field in fields
        for one in scored(field)
    ]


def _fields(
    by_track: Sequence[tuple[Track, Sequence[Submission]]],
    references: References,
    metrics: Sequence[str],
    where: _Where,
    detector: DetectorName,
    entrance: Entrance,
    say: Say,
) -> list[_Field]:
    """What is to be scored. What is missing for any track is told before the first image."""
    _refuse(by_track, references, metrics)
    scorers = [where.scorer(track, chosen_metrics(track, metrics)) for track, _ in by_track]
    return [
        _field(scorer, entries, expected_of(scorer, references, say, detector), entrance, say)
        for scorer, (_, entries) in zip(scorers, by_track, strict=True)
    ]


def _field(
    scorer: Scorer, entries: Sequence[Submission], images: Sequence[Expected], entrance: Entrance, say: Say
) -> _Field:
    """Entries of a track with their folders of images, which uploads without a manifest do not name."""
    from ntire.entry.findings import Finding
    from ntire.entry.manifest import IMAGES
    from ntire.review.uploads import folders_of_images

    names, found = {one.name for one in images}, []
    for one in entries:
        folder, *others = folders_of_images(one.root, names, scorer.track)
        found.append(replace(one, pictures=folder))
        if folder not in (IMAGES, ""):
            say(f"{one.entry}: its images are those in {folder}/")
        also = [Finding("E303", f"{other}/", "one image for each input", f"as many in {folder}/") for other in others]
        entrance.add(one.root, also)
    return _Field(scorer, found, images)


@dataclass(frozen=True)
class _Judge:
    """Makes the line of an entry of its scores and of what is known beside its images."""

    entrance: Entrance
    verdicts: Path | None
    key: bytes | None
    references: References
    device: str
    measure: bool
    as_published: bool
    say: Say

    def line(self, scorer: Scorer, scored: Scored, metrics: Sequence[str]) -> Line:
        """Its line on the leaderboard, not ranked yet."""
        from ntire.commands.measured_figures import kept_figures
        from ntire.scoring.leaderboard import line_of

        refused = self.entrance.refusals(scored, scorer.track.baseline)
        standing = self._standing(scored.submission, scorer.track, refused)
        made = line_of(
            scored, scorer.track, metrics, scorer.identities(),
            as_published=self.as_published, verdict=standing, refused=refused,
            figures=kept_figures(scored.submission, self.verdicts),
        )  # fmt: skip
        return replace(made, notes=(*made.notes, *self.entrance.remarks_on(scored.submission)))

    def _standing(self, submission: Submission, track: Track, refused: Sequence[str]) -> Standing:
        """The verdict on it; where that says nothing of cost and it is asked for, its code is counted and timed now."""
        found = _standing(submission, self.verdicts, self.key)
        if not self.measure or found.measured is not None or refused:
            return found
        from ntire.commands.measured_figures import WITHOUT, figures_of_entry, given_to_code, paths_below, source_of
        from ntire.sandbox.child import choose
        from ntire.sandbox.limits import Limits

        if source_of(submission) is None:
            return found
        self.say(f"{submission.entry}: counting and timing its code in a sandbox")
        known = references_of(track, self.references)
        inputs = paths_below(given_to_code(known.lq or (known.gt if track.noise else None), track), track)
        backend = choose("auto", WITHOUT)
        measured = figures_of_entry(submission, track, inputs, backend, self.device, Limits())
        return replace(found, measured=measured)


def _standing(submission: Submission, given: Path | None, key: bytes | None) -> Standing:
    """The newest verdict that counts on an entry, in the folder given or in the results folders beside it or its folder."""
    from ntire.entry.results import place_of, places_of_entry
    from ntire.entry.verdict import VERIFICATION, newest_standing

    folders = dict.fromkeys([*([given] if given else []), *places_of_entry(submission.place)])
    places = (place_of(one, submission.entry) / VERIFICATION for one in folders)
    return newest_standing(places, submission.root, key)


def leaderboard(
    tables: str | Path | Sequence[str | Path] = (),
    *,
    track: str | Path,
    published: bool = False,
    table: str = "",
    phase3: str | Path | None = None,
    say: Say = lambda line: None,
) -> Board:
    """Rank `scores.csv` files, or tables with one row of means a team, by a track's rules; no image is touched.

    With `published`, the rows of papers that ship with the track stand among them, with `table`, such as "MIRAGE table 1",
    those of one table alone; with `phase3`, a table of marks, the total is the final of both phases. Raises UserError if there
    are no such rows, if the marks do not fit, and for scores over different images.
    """
    from ntire.scoring.leaderboard import ranked, why_no_reference
    from ntire.scoring.read_back import lines_of_all, published_lines
    from ntire.scoring.track import load_track

    given, published = paths_of(tables), published or bool(table)
    if not given and not published:
        raise UserError("name the tables to rank, or ask for the --published rows of the track.")
    rules = load_track(str(track))
    lines = lines_of_all(given, rules, say)
    lines += published_lines(rules, table, say) if published else []
    if why_not := why_no_reference(lines):
        raise UserError(f"{why_not}. Its costs are what all others are divided by: give its row, and one alone.")
    if phase3 is None:
        return Board(tuple(ranked(lines)))
    from ntire.scoring.phase3 import read_marks, with_phase3

    return Board(tuple(with_phase3(lines, read_marks(Path(phase3), rules))))


def expected_of(scorer: Scorer, given: References, say: Say, detector: DetectorName = "retinaface") -> list[Expected]:
    """The images that every entry must have. Raises UserError for references that are not there."""
    from ntire.picture.folder import in_lines, walk
    from ntire.scoring.references import cut_truths, expected_images

    track = scorer.track
    references = references_of(track, given)
    if references.gt is not None:
        for line in in_lines(walk(references.gt).not_read):
            say(f"{references.gt}: {line}")
    metrics = [metric.name for metric in scorer.metrics]
    # A metric that compares faces needs to know where they are.
    if "adaface" in metrics and references.landmarks is None and references.lq is not None:
        found = _found_landmarks(track, references.lq, scorer.device, detector, say)
        references = replace(references, landmarks=found)
    expected = expected_images(track, references, metrics)
    cut = cut_truths(track, expected)
    if cut:
        some = f"{', '.join(cut[:3])}{', ...' if len(cut) > 3 else ''}"
        say(f"{len(cut)} ground truth(s) cut at the right and at the bottom to x{track.scale} of the input: {some}")
    return expected


def _found_landmarks(track: Track, lq: Path, device: str, name: DetectorName, say: Say) -> Path:
    """A table of landmarks made by a detector, kept in the cache for the next time."""
    from ntire.files import sha256_of, writable_folder
    from ntire.scoring.cache import default_path
    from ntire.scoring.detect import detector, find_landmarks
    from ntire.scoring.identity import write_landmarks
    from ntire.scoring.references import inputs_by_subset

    inputs = inputs_by_subset(track, lq)
    known = sha256_of(repr(sorted((stem, sha256_of(path)) for stem, (_, path) in inputs.items())).encode())
    path = default_path().with_name(f"landmarks-{name}-{known[:16]}.csv")
    if not path.is_file():
        table = find_landmarks(inputs, detector(name, device))
        writable_folder(path.parent)
        write_landmarks(path, table)
    spelled = {"retinaface": "RetinaFace", "scrfd": "SCRFD"}[name]
    say(f"no table of landmarks was given: {spelled}'s are used, which are not the organisers' ({path})")
    return path


def chosen_metrics(track: Track, wanted: Sequence[str]) -> tuple[str, ...]:
    """The metrics of a track, or those that are wanted, in the order of the rules; "all" are also those beside its table."""
    if "all" in wanted:
        return track.known_metrics
    unknown = [name for name in wanted if name not in track.known_metrics]
    if unknown:
        raise UserError(
            f"track {track.name} has no metric {', '.join(unknown)}; it has: {', '.join(track.known_metrics)}."
            f"{nearest(unknown, track.known_metrics)}"
        )
    return tuple(name for name in track.known_metrics if name in (wanted or track.metrics))


@app.command(
    "score",
    epilog="Examples: [bold]ntire score submissions/[/]; "
    "[bold]ntire score uploads/ --track face-2025 --lq test/[/]; "
    "[bold]ntire score restored/ --gt clean/ --metrics psnr,ssim[/]; "
    "[bold]ntire score team.zip --track face-2025 --lq test/ --landmarks test_face.csv[/]; "
    "[bold]ntire score uploads/ --engine ray[/]",
)
def score_command(
    submissions: Annotated[
        list[Path],
        typer.Argument(help="Entries (folders, .zip, .tar, .tar.gz; pictures alone will do), or folders of them."),
    ],
    track: Annotated[
        str | None, typer.Option(help="The track of entries that do not name one; only entries of this track.")
    ] = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of ground truth. Default: $NTIRE_DATA/<track>/gt.")] = None,
    lq: Annotated[Path | None, typer.Option(help="Folder of inputs. Default: $NTIRE_DATA/<track>/lq.")] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help="Table of landmarks. Default: $NTIRE_DATA/<track>/landmarks.csv.")
    ] = None,
    detector: Annotated[
        Literal["retinaface", "scrfd"],
        typer.Option(
            help="Face detector used where no landmarks are given: facexlib's RetinaFace or insightface's SCRFD."
        ),
    ] = "retinaface",
    folder: Out = None,
    metrics: Annotated[
        str,
        typer.Option(help="Only these, separated by commas, or all; without one of the track's own there is no total."),
    ] = "",
    device: Device = "auto",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute every metric again.")] = False,
    as_published: Annotated[
        bool,
        typer.Option("--as-published", help="Average as the organisers' program does: missing images are left out."),
    ] = False,
    key: Key = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Count and time submitted code in the sandbox; budgets are held against that."),
    ] = False,
    protocol_diff: Annotated[
        bool,
        typer.Option(
            "--protocol-diff",
            help="Instead show how border, colour, rounding, window and noise move one entry's numbers.",
        ),
    ] = False,
    engine: EngineOption = None,
    address: Address = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Score entries by their track's rules; writes scores.csv of each and leaderboard.csv, .md, .json beside the entries."""
    from ntire.scoring.track import load_track

    if track is not None:
        load_track(track)  # an unknown one is told before anything heavy is imported
    if protocol_diff:
        from ntire.commands.protocol_diff import print_protocol_diff, protocol_moves
        from ntire.scoring.references import References

        if len(submissions) != 1 or engine is not None:
            raise UserError(f"--protocol-diff takes one entry and no --engine, found {len(submissions)}.")
        given = References(gt, lq)
        moved = protocol_moves(submissions[0], track, lambda rules: references_of(rules, given), say)
        print_protocol_diff(moved, as_json=as_json)
        return
    from ntire.scoring.tables import as_json as lines_as_json

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    with progress() as bars:
        task = bars.add_task("scoring", total=None)
        board = score(
            submissions, track, gt=gt, lq=lq, landmarks=landmarks, detector=detector, metrics=wanted, device=device,
            cache=not no_cache, as_published=as_published, verdicts=folder, key=key, measure=measure, say=say,
            engine=engine, address=address, workers=workers,
            watch=lambda working: watch_engine(bars, working),
            report=lambda done, total: bars.update(task, completed=done, total=total),
        )  # fmt: skip
    gone = _no_longer_listed(folder or board.folder, board.lines)
    written = board.write(folder)
    if gone:
        say(
            f"{written / 'leaderboard.csv'}: is no longer of {', '.join(gone[:3])}{', ...' * (len(gone) > 3)}. "
            "Score all together to rank them together; what is known is not computed again."
        )
    if as_json:
        print_json(lines_as_json(board.lines))
    else:
        print_leaderboard(board.lines)
        out.print(f"tables: {written / 'leaderboard.csv'}, .md, .json, and scores.csv of each entry", markup=False)
        if wanted and all(line.total is None for line in board.lines):
            out.print("only some metrics were asked for: there is no total and no rank")
    if not board.valid:
        raise typer.Exit(1)


def _no_longer_listed(folder: Path, lines: Sequence[Line]) -> list[str]:
    """Entries on the leaderboard in a folder that new lines, about to replace it, leave out."""
    import json

    try:
        before = [str(one["entry"]) for one in json.loads((folder / "leaderboard.json").read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    now = {line.entry for line in lines}
    return [name for name in before if name not in now]


@app.command(
    "leaderboard",
    epilog="Examples: [bold]ntire leaderboard table1.csv --track face-2025[/]; "
    "[bold]ntire leaderboard submissions/*/scores.csv --track srgb -o board.csv[/]; "
    "[bold]ntire leaderboard scores.csv --track denoise --published[/]",
)
def leaderboard_command(
    track: TrackName,
    tables: Annotated[
        list[Path] | None, typer.Argument(help="scores.csv files, or tables with one row of mean values per team.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write the leaderboard to this CSV file, with .md and .json beside it."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also list the results published for this track.")
    ] = False,
    table: Annotated[str, typer.Option(help='Only the published rows of one table, such as "MIRAGE table 1".')] = "",
    phase3: Annotated[
        Path | None, typer.Option(help="CSV with the phase 3 marks for the final score: team, user_study, efficiency.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank scores or published means by a track's rules; no image is touched."""
    from ntire.scoring.track import load_track

    if tables or published or table:
        load_track(track)  # an unknown one is told before anything heavy is imported
    from ntire.scoring.tables import as_json as lines_as_json

    board = leaderboard(tables or [], track=track, published=published, table=table, phase3=phase3, say=say)
    if file:
        board.write(file.parent, file.stem)
    if as_json:
        print_json(lines_as_json(board.lines))
    else:
        print_leaderboard(board.lines)


@app.command(epilog="Examples: [bold]ntire tracks[/]; [bold]ntire tracks raim-2025-raw[/]")
def tracks(
    name: Annotated[str | None, typer.Argument(help="A track's name, or the path of a TOML.")] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of scoring/tracks/README.md.")
    ] = False,
) -> None:
    """List the tracks, or print the rules of one in words."""
    from ntire.scoring.track import all_tracks, grouped, in_words, load_track, markdown

    if as_markdown:
        out.print(markdown(), markup=False, soft_wrap=True)
        return
    chosen = all_tracks() if name is None else (load_track(name),)
    if as_json:
        print_json([track.model_dump(mode="json") for track in chosen])
    elif name is not None:
        out.print(in_words(chosen[0]), markup=False)
    else:
        for group, of in grouped(chosen).items():
            out.print(f"\n{group}", markup=False, style="bold")
            print_table(
                ["track", "metrics", "title"],
                [[one.name, " ".join(one.metrics), one.title] for one in of],
                prose=["metrics", "title"],
            )
