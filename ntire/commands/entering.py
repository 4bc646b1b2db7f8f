"""What a scoring begins with: the places that a user names, to entries by track, and words on all that is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ntire import UserError

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.entry.manifest import Submission
    from ntire.review.acceptance import Entrance
    from ntire.review.uploads import Upload
    from ntire.scoring.references import References
    from ntire.scoring.track import Track


NO_TRACK = """
Name the track with --track (`ntire tracks` lists them), or compare pictures alone: --gt DIR --metrics psnr,ssim."""


@dataclass(frozen=True)
class Entered:
    """Uploads that can be scored, by their tracks, and those that cannot."""

    by_track: Sequence[tuple[Track, Sequence[Submission]]]
    refused: Sequence[Upload]
    results: Path
    """Where the tables belong."""


def uploads_at(
    given: Sequence[Path], scratch: Path, track: Track | None, references: References, say: Say
) -> tuple[list[Upload], Path]:
    """What was handed in at the places given, each under a name of its own; and where results of them belong."""
    from ntire.entry.results import results_folder, results_of_entry
    from ntire.review.uploads import find_uploads

    known = references.gt or references.lq
    subsets = [one.name for one in known.iterdir() if one.is_dir()] if known and known.is_dir() else []
    found = [find_uploads(place, scratch, track, subsets) for place in given]
    for place, uploads in zip(given, found, strict=True):
        for other in uploads.others:
            say(f"not scored: {place / other.name}: {other.reason}")
    entries = [one for uploads in found for one in uploads.entries]
    paths: dict[str, list[str]] = {}
    for one in entries:
        paths.setdefault(one.name, []).append(str(one.path))
    twice = [f"several entries are called {name}: {', '.join(of)}" for name, of in paths.items() if len(of) > 1]
    if twice:
        raise UserError("; ".join(twice) + ". Rename or remove all but one of each.")
    single = entries[0].path == given[0]
    return entries, results_of_entry(given[0]) if single else results_folder(given[0])


def enter(
    found: tuple[Sequence[Upload], Path],
    wanted: Track | None,
    references: References,
    metrics: Sequence[str],
    entrance: Entrance,
    say: Say,
) -> Entered:
    """Uploads by track; with one wanted, only those of that track, and those that name none."""
    from ntire.entry.manifest import MANIFEST, open_submission
    from ntire.scoring.track import all_tracks

    uploads, results = found
    wanted = wanted or _without_track(uploads, references, metrics)
    entered = [(one, entrance.enter(one, wanted)) for one in uploads]
    refused = [one for one, entry in entered if entry is None]
    whole = [entry for _, entry in entered if entry is not None]
    if not whole:
        for one in refused:
            if one.root and os.path.lexists(one.root / MANIFEST):
                open_submission(one.root)  # lists its mistakes with their lines
        words = "\n".join(f"{one.path}: {'; '.join(entrance.refused_at(one))}" for one in refused)
        raise UserError(words + (NO_TRACK if "E205" in words else ""))
    if wanted is None:
        named = {track.name: track for track in all_tracks()}
        names = dict.fromkeys(one.track for one in whole)
        return Entered([(named[name], [one for one in whole if one.track == name]) for name in names], refused, results)
    entries = [one for one in whole if one.track == wanted.name]
    others = [one.entry for one in whole if one.track != wanted.name]
    if not entries:
        raise UserError(f"no entry for track {wanted.name} in {', '.join(str(one.path) for one in uploads)}.")
    if others:
        say(f"left out, as they are not for track {wanted.name}: {', '.join(others)}")
    return Entered([(wanted, entries)], refused, results)


def _without_track(uploads: Sequence[Upload], references: References, metrics: Sequence[str]) -> Track | None:
    """The track of pictures that no rules are for: where nothing that was handed in names one, and metrics can be computed."""
    from ntire.entry.manifest import MANIFEST
    from ntire.scoring.references import References
    from ntire.scoring.track import without_rules

    if references == References() or any(one.root and os.path.lexists(one.root / MANIFEST) for one in uploads):
        return None
    return without_rules(metrics or ("psnr", "ssim"))
