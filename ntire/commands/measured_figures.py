"""What `ntire verify` and `ntire score --measure` find out about the cost of an entry's code, in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ntire import UserError

if TYPE_CHECKING:
    from ntire.benchmark.figures import MeasurePlan
    from ntire.entry.manifest import Submission
    from ntire.entry.measured import Measured
    from ntire.entry.measured_files import MeasuredFigures
    from ntire.sandbox.child import Backend
    from ntire.sandbox.limits import Limits
    from ntire.scoring.track import Track

WITHOUT = "Without measuring, claims are shown."


def source_of(submission: Submission) -> str | None:
    """The file of an entry's code, relative to the entry; None for one without."""
    from ntire.review.code_checks import CODE

    source = submission.manifest.method.file or CODE
    return source if (submission.root / source).is_file() else None


def figures_of_entry(
    submission: Submission, track: Track, inputs: Sequence[Path], backend: Backend, device: str, limits: Limits
) -> Measured:
    """Count and time an entry's code at the sizes of its claims and of the track's budgets.

    Raises UserError for an entry without code, and (exit code 3) for a sandbox or a device that does not work.
    """
    from ntire.benchmark.figures import figures_of
    from ntire.benchmark.sandboxed import Sandbox
    from ntire.review.code_checks import METHOD
    from ntire.review.submitted_method import clean_tree, weights_at_hand
    from ntire.sandbox.scratch import scratch_folder

    source = source_of(submission)
    if source is None:
        raise UserError(f"{submission.root}: has no code that could be counted and timed.", exit_code=1)
    with scratch_folder() as scratch:
        (scratch / "code").mkdir(mode=0o755)
        clean_tree(submission.root, scratch / "code")
        weights = weights_at_hand(submission.manifest)
        where = Sandbox(backend, scratch / "code", scratch, limits, weights, source.removeprefix(METHOD))
        return figures_of(where, _asked(submission, track, inputs, device))


def _asked(submission: Submission, track: Track, inputs: Sequence[Path], device: str) -> MeasurePlan:
    from ntire.benchmark.figures import MeasurePlan

    claims, budgets = submission.manifest.claims, track.budgets
    macs = [budgets.at] if budgets.macs_g is not None else []
    macs += [claims.at] if claims.macs_g is not None else []
    runtimes = [budgets.runtime_at] if budgets.runtime_ms is not None else []
    runtimes += [claims.runtime_at] if claims.runtime_ms is not None else []
    return MeasurePlan(
        tuple(dict.fromkeys(size for size in macs if size)),
        tuple(dict.fromkeys(runtimes or [None])),
        inputs,
        track.inputs,
        device,
        submission.manifest.method.settings,
    )


def given_to_code(folder: Path | None, track: Track) -> Path | None:
    """The inputs that code is run on: what an entry is compared with, with the noise that the track adds itself, and cut where
    it cuts them. Names are those in the folder.
    """
    from ntire.commands.restoring import handed_to_code
    from ntire.environment import own_cache
    from ntire.files import sha256_of, write_atomically
    from ntire.runner.runner import find_inputs

    if folder is None or not (track.noise or track.noises or track.multiple > 1):
        return folder
    clean = {item.name: item.path for item in find_inputs([folder], track.inputs)}
    handed = handed_to_code(track, clean, lambda line: None)
    if track.noise:
        return next(iter(handed.values())).parents[next(iter(handed)).count("/")]
    if handed == clean:
        return folder
    root = (
        own_cache()
        / f"handed-{sha256_of(repr(sorted((name, str(path)) for name, path in handed.items())).encode())[:16]}"
    )
    for name, path in handed.items():
        place = root / f"{name}{path.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            write_atomically(place, path.read_bytes())
    return root


def paths_below(folder: Path | None, track: Track) -> list[Path]:
    """The track's inputs in a folder, by name."""
    from ntire.runner.runner import find_inputs

    return [one.path for one in find_inputs([folder], track.inputs)] if folder else []


def kept_figures(submission: Submission, given: Path | None) -> MeasuredFigures:
    """What `bench` and `cost` measured of an entry: in the folder given, else in the results folders beside it."""
    from ntire.entry.measured_files import MeasuredFigures, figures_beside
    from ntire.entry.results import place_of, places_of_entry

    folders = dict.fromkeys([*([given] if given else []), *places_of_entry(submission.place)])
    kept = [figures_beside(place_of(folder, submission.entry)) for folder in folders]
    return MeasuredFigures(tuple(one for figures in kept for one in figures.found))
