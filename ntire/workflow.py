"""What the commands do, put together from runner and scorer; the demo is the whole way once."""

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from ntire import UserError
from ntire.method import catalogue
from ntire.review.submitted_method import Behind, clean_tree, method_behind
from ntire.benchmark.protocol import Picture, bench, scored_pixels
from ntire.benchmark.protocol import Report as Timed
from ntire.method.cost_breakdown import Breakdown, break_down, planned_bytes
from ntire.review.check import InputsOf, check
from ntire.review.check import Report as Checked
from ntire.method.count import count, lq_on_meta
from ntire.method.face_alignment import face_finder
from ntire.method.method_table import Declared, facts_of, usual_size, weights_of_methods
from ntire.files import sha256_of, writable_folder
from ntire.method.pyiqa_networks import build
from ntire.entry.journal import read_journal
from ntire.sandbox.limits import Limits
from ntire.method import Method
from ntire.review.pack import Packed, pack
from ntire.runner.prepare import Options, prepare
from ntire.method.receptive_field import SEAM_TILE, reach_of, seam_error
from ntire.runner.runner import Input, Result, Summary, find_inputs, run
from ntire.picture.samples import add_noise, sample_set
from ntire.sandbox.child import Backend, choose
from ntire.picture.contact_sheet import Column, contact_sheet
from ntire.entry.manifest import IMAGES, JOURNAL, Submission, find_submissions, open_submission
from ntire.text import printable
from ntire.benchmark.child import Setup
from ntire.benchmark.statistics import FULL, Protocol
from ntire.training import Recipe
from ntire.training.discriminator import UNetDiscriminator
from ntire.training.loop import Settings, Step
from ntire.training.loop import train as run_training
from ntire.training.losses import Aids, Compare, Opponent
from ntire.training.perceptual import VGG19, perceptual_loss
from ntire.method.recipe import Loss
from ntire.review.verify import Options as VerifyOptions
from ntire.review.verify import Scored as BothScored
from ntire.review.verify import Verification, verify
from ntire.method.weights_files import Weights, fill, locate, require
from scoring.budgets import Budgets, Spent
from scoring.budgets import Name as BudgetName
from scoring.cache import Cache, default_path
from scoring.calibration import refuse_drift
from scoring.detect import find_landmarks, retinaface
from scoring.identity import write_landmarks
from scoring.leaderboard import Line, line_of, line_of_scores, lines_of_table, ranked
from scoring.metrics import METRICS
from scoring.references import Expected, References, expected_images, inputs_by_subset
from scoring.score import Scored, Scorer
from scoring.tables import write_leaderboard, write_scores
from scoring.track import Track, load_track, published_rows, sample_track

if TYPE_CHECKING:
    from scoring.bench import Report

Watch = Callable[[Result, bool], None]
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
    track, inputs = _inputs(track, given, method.track, limit, say)
    typed = track.name if track_name.endswith(".toml") else track_name
    name = "-".join(filter(None, (method.team, typed, variant or "")))
    return Job(method, track, inputs, out or Path("submissions") / name.replace("/", "_"))


def _inputs(
    track: Track, given: Sequence[Path], kind: str, limit: int | None, say: Say
) -> tuple[Track, tuple[Input, ...]]:
    """What is to be restored, and for which track: the sample set is one of its own."""
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
            track, inputs = _inputs(track, given, method.track, limit, say)
            target = out or Path("submissions") / printable(f"{method.team}-{track_name}").replace("/", "_")
            return run(method, inputs, target, track.name, options, watch(f"{method.team} {track.name}", len(inputs)))


def restore(job: Job, options: Options, report: Watch, *, whole: bool = False) -> Summary:
    """Run a job; see `ntire.runner.runner.run`. With `whole`, inputs are pictures with faces in them, which RetinaFace finds.

    Raises UserError where the detector is not here, or the method is not one for faces that leaves reading to ntire.
    """
    if whole and (job.method.track != "face" or job.method.restore is not Method.restore):
        raise UserError(f"--whole finds faces in pictures; {job.method.team} on track {job.track.name} takes no faces.")
    find = face_finder(options.device) if whole else None
    method = prepare(job.method, options)
    return run(method, job.inputs, job.out, job.track.name, options, report, find)


def train(
    team: str,
    track_name: str,
    variant: str | None,
    settings: Settings,
    report: Callable[[Step], None],
    weights: Path | None,
    teacher: Path | None = None,
    *,
    stages: tuple[str, ...],
    without: tuple[str, ...] = (),
    iterations: int | None,
    batch: int | None,
    patch: int | None,
    lr: float | None,
    pairs: Mapping[str, Path] | None = None,
) -> Path:
    """Train a method by its recipe, scaled by what is not None, some stages on pairs; see `ntire.training.loop.train`.

    Raises UserError for a method without a recipe, a stage or loss that it does not have, and for losses whose networks are
    not here.
    """
    track = load_track(track_name)
    method_class = _method(team, track, variant)
    if method_class.recipe is None:
        raise UserError(f"{team} on track {track_name} has no recipe: it cannot be trained here.")
    recipe = method_class.recipe.with_pairs(pairs or {}).scaled(
        stages=stages, without=without, iterations=iterations, batch=batch, patch=patch, lr=lr
    )
    torch.manual_seed(settings.seed)
    method = method_class()
    if weights is not None:
        method.begin_from(weights)
    return run_training(method, recipe, settings, report, _aids(method, recipe, teacher, settings.device))


def _aids(method: Method, recipe: Recipe, teacher: Path | None, device: str) -> Aids:
    """The networks that the losses of a recipe need, on the device.

    Raises one UserError that lists all that is missing.
    """
    if "distill" in recipe.losses and teacher is None:
        raise UserError(
            f"the loss distill compares with {method.team} {recipe.teacher}: give its weights with --teacher FILE, "
            "or leave it out: --without distill."
        )
    files: dict[str, tuple[Weights, ...]] = {"perceptual": (VGG19,)} if "perceptual" in recipe.losses else {}
    measured = [name for name in ("lpips", "dists") if name in recipe.losses]
    files |= {name: METRICS[name].weights for name in measured}
    try:
        require(files, dict.fromkeys(files))
    except UserError as error:
        left_out = " ".join(f"--without {name}" for name in files)
        raise UserError(f"{error}\nOr train without them:  {left_out}", exit_code=error.exit_code) from None
    judges: dict[Loss, Compare] = {}
    if "perceptual" in recipe.losses:
        judges["perceptual"] = perceptual_loss().to(device)
    for name in measured:
        judges[name] = build(name).to(device)
    taught = None
    if "distill" in recipe.losses and teacher is not None:
        taught = catalogue.find(method.team, method.track, recipe.teacher)().eval().requires_grad_(False)
        fill(taught, taught.read_weights(teacher), teacher)
        taught.deploy()
        taught.to(device)
    opponents: dict[Loss, Opponent] = {"gan": UNetDiscriminator()} if "gan" in recipe.losses else {}
    if "vsd" in recipe.losses:
        opponents["vsd"] = method.opponent()
    return Aids(judges, taught, opponents)


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

    references: References = field(default_factory=References)
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
    by_track = _by_track(given, track_name, say)
    if len(by_track) > 1 and options.references != References():
        raise UserError("the references given are of one track, the entries are for several. Choose one with --track.")
    single = len(given) == 1 and find_submissions(given[0]) != [given[0]]
    target = out or (given[0] if single else given[0].resolve().parent)
    # What is missing or broken for any track is told before anything is computed for one.
    for track, _ in by_track:
        refuse_drift(_chosen(track, options))
    lines: list[Line] = []
    scored: list[tuple[Scored, tuple[str, ...]]] = []
    with Cache(default_path() if options.cache else None) as cache:
        scorers = [Scorer(track, _chosen(track, options), options.device, cache) for track, _ in by_track]
        expected = [_expected(scorer, options, say) for scorer in scorers]
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
    root = os.environ.get("NTIRE_DATA")
    folder = Path(root) / track.name if root else None
    if folder is None and track.samples:
        folder = sample_set() / track.inputs

    def found(name: str) -> Path | None:
        return folder / name if folder and (folder / name).exists() else None

    return References(given.gt or found("gt"), given.lq or found("lq"), given.landmarks or found("landmarks.csv"))


def bench_scorer(names: Sequence[str], images: int, entries: int, rounds: int) -> "Report":
    """Compare the scorer with the plain loop in caches of its own; see `scoring.bench`."""
    from scoring import bench, random_weights

    unknown = [name for name in names if name not in random_weights.NAMES]
    if unknown:
        raise UserError(f"no metric {', '.join(unknown)} to measure; there are: {', '.join(random_weights.NAMES)}.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # pyiqa fixes its cache when it is imported, which has not happened yet in this process.
        places = {"TORCH_HOME": str(folder / "torch"), "NTIRE_WEIGHTS": str(folder / "weights")}
        with mock.patch.dict(os.environ, places):
            return bench.bench_scorer(folder / "bench", names, images, entries, rounds)


@dataclass(frozen=True)
class BenchOptions:
    """How to measure, apart from what."""

    run: Options
    threads: int = 1
    against: str | None = None
    """A team of the same track, "TEAM" or "TEAM:variant"; "none"; by default the baseline Copy where there is one."""
    entry: Path | None = None
    """A run over the same pictures; by default one is made first."""
    protocol: Protocol = FULL
    seed: int = 0
    timeout: float = 600.0


def bench_method(
    team: str,
    track_name: str,
    variant: str | None,
    given: Sequence[Path],
    limit: int | None,
    options: BenchOptions,
    say: Say,
) -> tuple[Timed, list[Spent]]:
    """Time a method by the protocol of `ntire.benchmark.protocol`, and hold it against its track's budgets of runtime and memory.

    Raises UserError as `plan` and `ntire.benchmark.protocol.bench` do, and if the run that is compared with fails.
    """
    job = plan(team, track_name, given, None, variant, limit, say)
    budgets = load_track(track_name).budgets
    pictures = [Picture(item.name, item.path) for item in job.inputs]
    setup = _setup(team, job.track, variant, options)
    against = _against(options, job.track)
    with tempfile.TemporaryDirectory() as name:
        entry = options.entry
        if entry is None:
            entry = Path(name) / "entry"
            say("making what is scored: the same pictures through `ntire run`")
            _run_apart(team, track_name, variant, given, limit, options, entry)
        lines = read_journal(entry / JOURNAL)
        scored = scored_pixels(entry, pictures, {line["image"]: line["output_sha256"] for line in lines})
        report = bench(
            setup, against, pictures, scored, options.protocol, seed=options.seed, timeout=options.timeout, say=say
        )
    at_runtime, at_memory = report.measured_at(budgets.runtime_at), report.measured_at(budgets.memory_at)
    spent = budgets.hold(
        {
            "runtime_ms": at_runtime.median_ms if at_runtime else None,
            "memory_mb": report.side.peaks["timed"]["device_mb"] if at_memory else None,
        }
    )
    return report, [one for one in spent if one.name in ("runtime_ms", "memory_mb")]


def _setup(team: str, track: Track, variant: str | None, options: BenchOptions, weights: bool = True) -> Setup:
    run = options.run
    own = {"device": run.device, "precision": run.precision, "tile": run.tile, "bits": run.bits}
    own["weights"] = str(run.weights) if weights and run.weights else None
    return Setup(team, track.inputs, variant, own, options.threads)


def _against(options: BenchOptions, track: Track) -> tuple[str, Setup] | None:
    if options.against == "none":
        return None
    team, _, variant = (options.against or "Copy").partition(":")
    try:
        _method(team, track, variant or None)
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
    words += ["--variant", variant] if variant else []
    words += ["--weights", str(run.weights)] if run.weights else []
    words += ["--limit", str(limit)] if limit else []
    # Sums over another number of threads round otherwise, and a pixel may follow.
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    ran = subprocess.run([sys.executable, "-m", "ntire", *words], capture_output=True, text=True, env=environment)
    if ran.returncode:
        said = "\n  ".join((ran.stdout + ran.stderr).strip().splitlines()[-8:])
        raise UserError(f"`ntire run` fails on these pictures, so there is nothing to time:\n  {said}", exit_code=3)


def check_entry(entry: Path, track_name: str | None, lq: Path | None, sandbox: str | None = None) -> Checked:
    """Hold an entry against the rules of its track, or of the one named; see `ntire.review.check.check`.

    Inputs that are not given are looked for where `score` finds them.
    """
    backend = choose(sandbox) if sandbox else None
    return check(entry, load_track(track_name) if track_name else None, _inputs_of(lq), backend)


def verify_entry(
    entry: Path, track_name: str | None, references: References, options: VerifyOptions, out: Path | None, say: Say
) -> Verification:
    """Run an entry's code and hold what it makes against what was submitted; see `ntire.review.verify.verify`.

    The verdict goes into the entry's folder or, for an archive, into a folder beside it.
    """
    if not entry.exists():
        raise UserError(f"{entry}: expected a folder, .zip, .tar or .tar.gz, found no such file.")
    lq = _inputs_of(references.lq)

    def run_on(track: Track) -> Path | None:
        folder = lq(track)
        if folder is None or not track.noise:
            return folder
        clean = {item.name: item.path for item in find_inputs([folder], track.inputs)}
        return add_noise(clean, track.noise.sigma, track.noise.seed)

    def scores(submitted: Submission, reproduced: Submission, names: Sequence[str]) -> BothScored:
        return _score_both(submitted, reproduced, names, references, options.device, say)

    folder = out or (entry if entry.is_dir() else entry.with_name(f"{entry.name.partition('.')[0]}-verification"))
    track = load_track(track_name) if track_name else None
    return verify(entry, track, lq, run_on, options, scores, folder)


def _score_both(
    submitted: Submission, reproduced: Submission, names: Sequence[str], given: References, device: str, say: Say
) -> BothScored:
    """Every metric that can be computed here, of both sides over the same images."""
    track = load_track(submitted.track)
    missing: dict[str, str] = {}
    values: dict[str, tuple[float, float]] = {}
    with Cache(default_path()) as cache:
        for metric in track.metrics:
            try:
                scorer = Scorer(track, (metric,), device, cache)
                expected = _expected(scorer, ScoreOptions(given), say)
                chosen = [one for one in expected if one.name in names]
                if len(chosen) != len(names):
                    raise UserError("not all of the images have a reference")
                sides = scorer.score([submitted, reproduced], chosen)
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
    if METRICS[metric].over == "set":
        return scored.of_set.get(metric)
    values = [row.values.get(metric) for row in scored.rows if row.status != "unexpected"]
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if present and len(present) == len(values) else None


def pack_entry(folder: Path, out: Path | None, lq: Path | None) -> Packed:
    """Make a zip of a run's folder; see `ntire.review.pack.pack`."""
    return pack(folder, out, _inputs_of(lq))


def _inputs_of(lq: Path | None) -> InputsOf:
    """The inputs that the user named, else those that the environment or the sample set has.

    Where the track adds the noise itself, the clean pictures are what an entry is compared with.
    """
    if lq is not None and not lq.is_dir():
        raise UserError(f"--lq {lq}: expected a folder of inputs, found none.")

    def found(track: Track) -> Path | None:
        references = references_of(track, References(lq=lq))
        return references.lq or (references.gt if track.noise else None)

    return found


def declared_weights(names: Sequence[str], track_name: str | None) -> list[Declared]:
    """Every weights file that methods and metrics declare, once for each of them: all, those of a track, or those whose team,
    metric or file is among `names`.

    Raises UserError for a name that is none of them.
    """
    track = load_track(track_name) if track_name else None
    found = weights_of_methods(catalogue.serving(track.inputs) if track else None)
    found += [
        Declared(name, f"metric {name}", weights, *locate(weights, None))
        for name in (track.metrics if track else METRICS)
        for weights in METRICS[name].weights
    ]
    if track is None:
        found.append(Declared("perceptual", "loss perceptual", VGG19, *locate(VGG19, None)))
    known = {word for one in found for word in (one.weights.file, one.name)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise UserError(
            f"no weights are declared under {', '.join(unknown)}. `ntire weights list` shows all teams, metrics and files."
        )
    wanted = [one for one in found if not names or one.weights.file in names or one.name in names]
    # One file may fill several parts of a method.
    return list({(one.needed_by, one.path): one for one in wanted}.values())


def cost_of(
    team: str,
    track_name: str,
    variant: str | None,
    at: tuple[int, int] | None,
    *,
    reach: bool = False,
    tile: int = SEAM_TILE,
) -> dict[str, Any]:
    """What a method costs at a size, beside its claims and its track's budgets; see `ntire.method.method_table.facts`.

    With `reach`, also its declared halo, the one that it turns out to need (None: it sees the whole image), and what tiles
    of that side change, with the weights that are here, else random ones. `problems` has a sentence for each reason not to
    believe the counts or to refuse the method.
    """
    track = load_track(track_name)
    method = _method(team, track, variant)
    breakdown, built = break_down(method, at or usual_size(method))
    spent = _counted_budgets(track.budgets, method, breakdown, built)
    found = facts_of(method, at, built=built)
    found |= {
        "counters": {"dispatch": breakdown.dispatch, "modules": breakdown.modules, "trace": breakdown.trace},
        "untraced": breakdown.untraced,
        "disagreements": [asdict(one) for one in breakdown.disagreements],
        "short": [asdict(one) for one in breakdown.short],
        "count_as_nothing": list(breakdown.count_as_nothing),
        "parameters": asdict(breakdown.parameters),
        "training_only_macs": breakdown.training_only,
        "activations": {"convolutions": breakdown.convolved, "all": breakdown.written},
        "peak_memory_mb": round(breakdown.peak_bytes / 2**20, 1),
        "budgets": [one.as_json() for one in spent],
        "problems": [*breakdown.problems, *(one.in_words() for one in spent if one.over)],
    }
    if reach:
        found |= _reach_of(method, tile)
    return found


def _counted_budgets(budgets: Budgets, method: type[Method], breakdown: Breakdown, built: Method) -> list[Spent]:
    """Limits on what can be counted, each at its own size; a runtime is for `ntire bench`."""
    values: dict[BudgetName, float | None] = {"params_m": breakdown.parameters.all / 1e6}
    if budgets.at:
        values["macs_g"] = count(method, budgets.at, built=built).macs_g
    if budgets.memory_at:
        values["memory_mb"] = planned_bytes(built, lq_on_meta(method, budgets.memory_at)) / 2**20
    return [one for one in budgets.hold(values) if one.value is not None]


def _reach_of(method: type[Method], tile: int) -> dict[str, Any]:
    try:
        filled, weights = prepare(method, Options()), "its own"
    except UserError:
        filled, weights = method().eval(), "random"
    far = reach_of(filled)
    seams = None if method.tiling == "method" else seam_error(filled, tile)
    too_short = method.tiling == "exact" and (far is None or far > method.halo)
    return {
        "tiling": method.tiling,
        "halo": method.halo,
        "reach": far,
        "seams": asdict(seams) | {"weights": weights} if seams else None,
        "reach_problems": [f"its halo of {method.halo} is less than its reach."] if too_short else [],
    }


def sheet_of(entries: Sequence[Path], gt: Path | None, out: Path) -> Path:
    """Write a contact sheet of entries, and of the clean pictures where they are given."""
    columns = [Column(one.entry, one.root / IMAGES) for one in map(open_submission, entries)]
    if gt is not None:
        columns.append(Column("truth", gt))
    empty = [str(column.folder) for column in columns if not column.folder.is_dir()]
    if empty:
        raise UserError(f"{', '.join(empty)}: expected a folder of pictures, found none.")
    return contact_sheet(out, [columns])


def demo(out: Path, options: Options, report: Callable[[str], Watch], say: Say) -> Board:
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
    return score_entries([out], None, ScoreOptions(), None, say)


def _method(team: str, track: Track, variant: str | None) -> type[Method]:
    """A method of the catalogue, or the one in a folder, for a track."""
    is_path = "/" in team or (Path(team) / "method.py").is_file()
    method = catalogue.load(Path(team)) if is_path else catalogue.find(team, track.inputs, variant)
    if method.track not in catalogue.serving(track.inputs):
        raise UserError(
            f"{team}: its method is for {method.track} inputs, track {track.name} has {track.inputs}. "
            f"Use --track {method.track}."
        )
    return method


def _expected(scorer: Scorer, options: ScoreOptions, say: Say) -> list[Expected]:
    track = scorer.track
    references = references_of(track, options.references)
    metrics = [metric.name for metric in scorer.metrics]
    # A metric that compares faces needs to know where they are.
    if "adaface" in metrics and references.landmarks is None and references.lq is not None:
        references = replace(references, landmarks=_found_landmarks(track, references.lq, options.device, say))
    return expected_images(track, references, metrics)


def _found_landmarks(track: Track, lq: Path, device: str, say: Say) -> Path:
    """A table of landmarks made by a detector, kept in the cache for the next time."""
    inputs = inputs_by_subset(track, lq)
    known = sha256_of(repr(sorted((stem, sha256_of(path)) for stem, (_, path) in inputs.items())).encode())
    path = default_path().with_name(f"landmarks-{known[:16]}.csv")
    if not path.is_file():
        table = find_landmarks(inputs, retinaface(device))
        writable_folder(path.parent)
        write_landmarks(path, table)
    say(f"no table of landmarks was given: RetinaFace's are used, which are not the organisers' ({path})")
    return path


def _chosen(track: Track, options: ScoreOptions) -> tuple[str, ...]:
    unknown = [name for name in options.metrics if name not in track.metrics]
    if unknown:
        raise UserError(f"track {track.name} has no metric {', '.join(unknown)}; it has: {', '.join(track.metrics)}.")
    return tuple(name for name in track.metrics if not options.metrics or name in options.metrics)


def _default_inputs(track: Track) -> tuple[Track, Path]:
    """Inputs where the user gave none: `$NTIRE_DATA/<track>/lq` (clean pictures in `gt` where the track adds the noise
    itself), else the sample set, which is a track of its own.
    """
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
