"""`ntire score --protocol-diff`: what decides the difference between one's own numbers and a paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ntire import UserError
from ntire.commands.screen import out, print_json, print_table

if TYPE_CHECKING:
    from ntire.entry.manifest import Submission
    from ntire.review.acceptance import Entrance
    from ntire.scoring.protocol_diff import Moved
    from ntire.scoring.references import Expected, References
    from ntire.scoring.track import Track

AGAIN = 4
"""Pictures that a method restores again for each noise protocol."""


def protocol_moves(
    entry: Path,
    track_name: str | None,
    references_of: Callable[[Track], References],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Moved, ...]:
    """How each choice of a protocol moves the PSNR and SSIM of an entry, all others being its track's.

    On a track that adds noise, a method of the catalogue restores a few pictures again for each of the noise protocols. Raises
    UserError for references or images that are not there: nothing is told of a part.
    """
    from ntire.entry.manifest import open_submission
    from ntire.review.acceptance import Entrance
    from ntire.scoring.cache import Cache, default_path
    from ntire.scoring.protocol_diff import protocol_diff
    from ntire.scoring.references import expected_images
    from ntire.scoring.track import load_track

    submission = open_submission(entry)
    track = load_track(track_name or submission.track)
    references = references_of(track)
    expected = expected_images(track, references, ("psnr",))
    with Cache(default_path()) as cache:
        source = Entrance(cache)
        moved = protocol_diff(track, submission, expected, source)
        if track.noise is not None and references.gt is not None:
            moved += _noise_moves(track, submission, references.gt, expected[:AGAIN], source, say)
    return moved


def _noise_moves(
    track: Track,
    submission: Submission,
    gt: Path,
    expected: Sequence[Expected],
    source: Entrance,
    say: Callable[[str], None],
) -> tuple[Moved, ...]:
    """The same method on the same pictures, whose noise is handed to it in another way."""
    from ntire.sandbox.scratch import scratch_folder
    from ntire.scoring.protocol_diff import Moved, protocol_diff
    from ntire.scoring.track import PROTOCOLS

    used = submission.manifest.method
    if used.file is not None or used.name is None:
        why = "only a method of the catalogue is run again: `ntire run` with a track of each protocol shows it"
        return (Moved("noise", "other protocols", None, None, remark=why),)
    assert track.noise is not None
    asked = [track.noise.model_copy(update={"protocol": protocol}) for protocol in PROTOCOLS]
    asked += [track.noise.model_copy(update={"multiple": 1})] if track.noise.multiple > 1 else []
    found = []
    for noise in asked:
        words, own = noise.handed(), noise == track.noise
        say(f"noise {words}: {submission.team} restores {len(expected)} picture(s) again")
        with scratch_folder() as scratch:
            try:
                other = track.model_copy(update={"noise": noise})
                again = _run_again(other, submission, gt, len(expected), scratch)
                first = protocol_diff(
                    other, again, [replace(one, multiple=noise.multiple) for one in expected], source
                )[0]
            except UserError as error:
                found.append(Moved("noise", words, None, None, own, f"not run: {str(error).splitlines()[0]}"))
                continue
        found.append(Moved("noise", words, first.psnr, first.ssim, own, f"of the first {len(expected)} pictures"))
    return tuple(found)


def _run_again(track: Track, submission: Submission, gt: Path, count: int, scratch: Path) -> Submission:
    import tomli_w

    from ntire.commands.restoring import run
    from ntire.entry.manifest import open_submission

    rules = scratch / "track.toml"
    rules.write_text(tomli_w.dumps(track.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    used = submission.manifest.method
    run(
        submission.team, str(rules), [gt], scratch / "entry", variant=used.variant or None, settings=used.settings,
        limit=count, device="auto",
    )  # fmt: skip
    return open_submission(scratch / "entry")


def print_protocol_diff(moved: Sequence[Moved], *, as_json: bool) -> None:
    """A line a choice: the numbers, and how far they lie from the track's own."""
    if as_json:
        print_json([asdict(one) for one in moved])
        return
    bases = {"noise": next((one for one in moved if one.choice == "noise" and one.own), None)}
    rows = []
    for one in moved:
        base = bases.get(one.choice) or moved[0]
        numbers = [
            cell
            for mine, its, digits in ((one.psnr, base.psnr, 3), (one.ssim, base.ssim, 4))
            for cell in (
                _number(mine, digits),
                _number(_moved(mine, its), digits, signed=True),
            )
        ]
        rows.append([one.choice, f"{one.setting}{' (the track)' if one.own else ''}", *numbers, one.remark])
    print_table(
        ["choice", "setting", "PSNR", "moves by", "SSIM", "moves by", "remark"], rows, prose=["setting", "remark"]
    )
    out.print("each choice is changed alone; all others stay the track's", markup=False)


def _moved(mine: float | None, its: float | None) -> float | None:
    """How far a number lies from the track's; nothing between two that are infinite."""
    if mine is None or its is None:
        return None
    return 0.0 if mine == its else mine - its


def _number(value: float | None, digits: int, *, signed: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"
