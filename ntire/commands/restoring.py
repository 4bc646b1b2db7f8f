"""A method found, given its inputs, and run in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ntire import UserError
from ntire.commands.foreign_code import TRUST, is_foreign, prepared_in_sandbox
from ntire.commands.options import command_without
from ntire.text import nearest, printable

if TYPE_CHECKING:
    from ntire.method import Method, Precision
    from ntire.method.face_alignment import Finder
    from ntire.picture.folder import NotRead
    from ntire.runner.device_worker import Result
    from ntire.runner.prepare import Options, Prepared
    from ntire.runner.runner import Input, Summary
    from ntire.runner.shards import ShardPart
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
    not_read: tuple[NotRead, ...] = ()
    """What lies beside the inputs, with the reasons."""


def run(
    team: str | Path,
    track: str | Path,
    inputs: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    variant: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    tile: int | Literal["auto"] | None = "auto",
    bits: Literal[8, 16] = 8,
    channels_last: bool = False,
    compiled: bool = False,
    cuda_graphs: bool = False,
    backend: Literal["torch", "openvino", "onnx"] = "torch",
    fresh: bool = False,
    limit: int | None = None,
    settings: Mapping[str, str] | None = None,
    whole: bool = False,
    max_memory_gb: float | None = None,
    trust: bool = False,
    sandbox: bool = False,
    shard: str | None = None,
    watch: Callable[[str, int], Watch] = lambda title, total: lambda result, computed: None,
    say: Say = lambda line: None,
) -> Summary:
    """Restore files or folders with a team's method into the submission folder `out`; resumes an interrupted run.

    `team` is a name or a folder with a method.py, whose code runs in a sandbox unless there is `trust` (or NTIRE_TRUST=1), and
    with `sandbox` always. `track` is a name or a TOML; without inputs those of `$NTIRE_DATA` or the
    built-in samples are taken. `shard` is such as "3/8": only the third of eight parts of the inputs is restored, and `merge`
    puts the parts together. `watch` gets a title and the number of inputs, and returns what is called with each result
    and whether it was computed now. An input that cannot be restored is a result (`Summary.failed`), not an exception.
    Raises UserError for names, inputs, weights or a device that are not there, and for options that exclude each other.
    """
    from ntire.environment import choose_devices
    from ntire.method.catalogue import is_folder
    from ntire.runner.prepare import Options
    from ntire.runner.shards import parsed_part

    options = Options(
        choose_devices(device), precision, tile, bits, Path(weights) if weights else None, fresh, max_memory_gb,
        channels_last, compiled, tuple(sorted((settings or {}).items())), cuda_graphs,
        backend,
    )  # fmt: skip
    given, target = paths_of(inputs), Path(out) if out else None
    if sandbox and not is_folder(team):
        raise UserError(f"--sandbox is for the code of a folder, {team} is a method of ntire. A folder: ./{team}")
    if sandbox or is_foreign(team, trust):
        refuse_in_sandbox(team, options, whole=whole)
        return _run_in_sandbox(team, str(track), given, target, limit, options, shard, watch, say)
    job = plan(team, str(track), given, target, variant, limit, say, trust=trust)
    if job.method.notice:
        say(job.method.notice)
    part = parsed_part(shard) if shard is not None else None
    number = len(part.taken(job.inputs) if part else job.inputs)
    return run_job(job, options, watch(f"{job.method.team} {job.track.name}", number), whole=whole, part=part)


def refuse_in_sandbox(team: str | Path, options: Options, *, whole: bool) -> None:
    """Raise UserError for what a folder's code cannot be given in a sandbox."""
    asked = {
        "--whole": whole,
        "--max-memory": options.max_memory_gb is not None,
        "--set": bool(options.settings),
        "--weights (put them into weights/ beside method.py)": options.weights is not None,
        **dict.fromkeys(options.inexact_options.values(), True),
    }
    if any(asked.values()):
        given = ", ".join(word for word, yes in asked.items() if yes)
        raise UserError(f"{team} is a folder, and in a sandbox its code goes without {given}. {TRUST}")


def paths_of(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """One path or several."""
    return [Path(one) for one in ([given] if isinstance(given, str | Path) else given)]


def plan(
    team: str | Path,
    track_name: str,
    given: Sequence[Path],
    out: Path | None,
    variant: str | None,
    limit: int | None,
    say: Say,
    *,
    trust: bool = False,
) -> Job:
    """Find method, track and inputs; `trust` lets the code of a folder run in this process.

    Without inputs: the track's folder below `$NTIRE_DATA`, else the built-in sample set, which is a track of its own.
    Raises UserError for an unknown name, a method of another track, or inputs that are not there.
    """
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    method = chosen_method(team, track, variant, trust=trust)
    track, inputs, not_read = inputs_of_track(track, given, method.track, limit, say)
    typed = track.name if track_name.endswith(".toml") else track_name
    name = "-".join(filter(None, (method.team, typed, variant or "")))
    return Job(method, track, inputs, out or Path("submissions") / name.replace("/", "_"), not_read)


def inputs_of_track(
    track: Track, given: Sequence[Path], kind: str, limit: int | None, say: Say
) -> tuple[Track, tuple[Input, ...], tuple[NotRead, ...]]:
    """What is to be restored, and for which track: the sample set is one of its own; and what lies there and is not read."""
    from ntire.picture.folder import in_lines
    from ntire.runner.runner import look_for_inputs

    if limit is not None and limit < 1:
        raise UserError(f"limit: expected a number of inputs from 1 on, found {limit}.")
    folders = list(given)
    if not given:
        track, folder = default_inputs(track)
        folders = [folder]
        say(f"no input given: restoring {folder} ({track.title})")
    found = look_for_inputs(folders, kind)
    for line in in_lines(found.not_read):
        say(line)
    inputs = list(found.inputs[:limit])
    handed = handed_to_code(track, {item.name: item.path for item in inputs}, say)
    return track, tuple(replace(item, path=handed[item.name]) for item in inputs), found.not_read


def handed_to_code(track: Track, pictures: Mapping[str, Path], say: Say) -> dict[str, Path]:
    """What a network gets of the pictures of a track, by name: with the noise that the track itself adds, and cut where its
    program cuts them.
    """
    from ntire.picture.samples import add_noise, cut_pictures

    handed = dict(pictures)
    for subset, noise in [("", track.noise), *track.noises.items()]:
        clean = {name: path for name, path in pictures.items() if not subset or name.startswith(f"{subset}/")}
        if noise and clean:
            handed |= add_noise(clean, noise.sigma, noise.seed, noise.protocol, noise.multiple)
            where = f"{subset}: " if subset else ""
            say(f"{where}noise of sigma {noise.sigma:g} added to {len(clean)} clean picture(s), {noise.handed()}")
    if track.multiple > 1:
        others = {name: path for name, path in pictures.items() if handed[name] == path}
        cut = cut_pictures(others, track.multiple)
        number = sum(cut[name] != path for name, path in others.items())
        handed |= cut
        if number:
            say(
                f"{number} picture(s) cut about their centre to a multiple of {track.multiple}, as the track's program does"
            )
    return handed


def _run_in_sandbox(
    team: str | Path,
    track_name: str,
    given: Sequence[Path],
    out: Path | None,
    limit: int | None,
    options: Options,
    shard: str | None,
    watch: Callable[[str, int], Watch],
    say: Say,
) -> Summary:
    """Run the code of a folder in a sandbox into a submission folder; it resumes an interrupted run.

    Raises what `prepared_in_sandbox` does.
    """
    from ntire.runner.shards import parsed_part

    part = parsed_part(shard) if shard is not None else None
    with prepared_in_sandbox(team, options) as prepared:
        job = job_in_sandbox(prepared, team, track_name, given, out, limit, say)
        number = len(part.taken(job.inputs) if part else job.inputs)
        report = watch(f"{job.method.team} {job.track.name}", number)
        summary = _restored(prepared, job.inputs, job.out, job.track.name, report, None, part)
        return replace(summary, not_read=job.not_read)


def job_in_sandbox(
    prepared: Prepared,
    team: str | Path,
    track_name: str,
    given: Sequence[Path],
    out: Path | None,
    limit: int | None,
    say: Say,
) -> Job:
    """What code that is loaded in a sandbox is to restore; raises UserError for inputs of another kind than it takes."""
    from ntire.scoring.track import load_track

    method, track = type(prepared.method), load_track(track_name)
    refuse_other_inputs(team, method.track, track, method.scale)
    track, inputs, not_read = inputs_of_track(track, given, method.track, limit, say)
    target = out or Path("submissions") / printable(f"{method.team}-{track_name}").replace("/", "_")
    return Job(method, track, inputs, target, not_read)


def run_job(
    job: Job, options: Options, report: Watch, *, whole: bool = False, part: ShardPart | None = None
) -> Summary:
    """Run a job, or a part of it; see `ntire.runner.runner.run`. With `whole`, inputs are pictures with faces in them, which
    RetinaFace finds.

    Raises UserError where the detector is not here, or the method is not one for faces that leaves reading to ntire.
    """
    from ntire.method.face_alignment import face_finder
    from ntire.runner.prepare import prepare

    if whole:
        refuse_whole(job.method, job.track)
    find = face_finder(options.device) if whole else None
    summary = _restored(prepare(job.method, options), job.inputs, job.out, job.track.name, report, find, part)
    if part is None:
        remember_if_baseline(job)
    return replace(summary, not_read=job.not_read)


def remember_if_baseline(job: Job) -> None:
    """Note what ntire's own Copy has made here: its results may equal their inputs."""
    from ntire.entry.baseline import TEAM, remember_baseline

    # By where the class comes from: any folder's may have that name.
    if job.method.team == TEAM and job.method.__module__.startswith("ntire.teams."):
        remember_baseline(job.out)


def refuse_whole(method: type[Method], track: Track) -> None:
    """Raise UserError where `--whole` makes no sense."""
    from ntire.method import Method

    if method.track != "face" or method.restore is not Method.restore:
        raise UserError(f"--whole finds faces in pictures; {method.team} on track {track.name} takes no faces.")


def _restored(
    prepared: Prepared,
    inputs: Sequence[Input],
    out: Path,
    track: str,
    report: Watch,
    find: Finder | None,
    part: ShardPart | None,
) -> Summary:
    from ntire.runner.runner import run as run_method
    from ntire.runner.shards import refuse_unmerged, restore_part

    if part is None:
        refuse_unmerged(out, fresh=prepared.options.fresh)
        return run_method(prepared, inputs, out, track, report, find)
    return restore_part(prepared, inputs, out, part, track, command_without("--shard"), report, find)


def refuse_unknown(team: str | Path, track_name: str, variant: str | None) -> None:
    """Raise UserError for a track, team or variant that there is not, before anything heavy is imported."""
    from ntire.method import catalogue
    from ntire.scoring.track import load_track

    track = load_track(track_name)
    if not catalogue.is_folder(team):
        catalogue.look_up(str(team), track.inputs, variant)


def chosen_method(
    team: str | Path, track: Track, variant: str | None, *, trust: bool = False, any_scale: bool = False
) -> type[Method]:
    """A method of the catalogue, or the one in a folder, whose code then runs in this process: only with `trust`. With
    `any_scale`, its pictures may be of another size than the track's.
    """
    from ntire.method import catalogue

    if is_foreign(team, trust):
        raise UserError(f"{team} is a folder, whose code would run with all your rights. {TRUST}")
    method = (
        catalogue.load(Path(team)) if catalogue.is_folder(team) else catalogue.find(str(team), track.inputs, variant)
    )
    refuse_other_inputs(team, method.track, track, track.scale if any_scale else method.scale)
    return method


def refuse_other_inputs(team: str | Path, kind: str, track: Track, scale: int) -> None:
    """Raise UserError for a method that is not for the inputs of a track, or that makes pictures of another scale."""
    from ntire.method import catalogue

    if kind not in catalogue.folders():
        kinds = catalogue.folders()
        raise UserError(
            f"{team}: its class says track = {kind!r}, expected a kind of input: {', '.join(kinds)}.{nearest([kind], kinds)}"
        )
    if kind not in catalogue.serving(track.inputs):
        raise UserError(
            f"{team}: its method is for {kind} inputs, track {track.name} has {track.inputs}. Use --track {kind}."
        )
    if scale != track.scale:
        raise UserError(
            f"{team}: expected a method of scale {track.scale}, as track {track.name} has it, found one of scale {scale}. "
            f"Take another method or --variant, or a track of scale {scale} (`ntire tracks` lists all)."
        )


def default_inputs(track: Track) -> tuple[Track, Path]:
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
