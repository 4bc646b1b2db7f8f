"""`sources.json` beside the tables: what was compared and where it lay, so that its pictures are found again and known to be
the same.

Paths are relative to the folder of the tables: results and entries that move together stay together.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ntire import UserError
from ntire.scoring.track import Track

SOURCES = "sources.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComparedImage(_Record):
    """One image that every entry must have."""

    name: str
    subset: str = ""
    gt: str | None = None
    lq: str | None = None
    gt_sha256: str = ""
    lq_sha256: str = ""
    """Of the files that were compared with; empty where there is none, and in records of 0.1.0."""


class ScoredTrack(_Record):
    """What was scored by the rules of one track."""

    rules: Track
    images: tuple[ComparedImage, ...]
    entries: Mapping[str, str]
    """The folder or archive that each was handed in as, by its name."""
    sha256: Mapping[str, Mapping[str, str]] = {}
    """Of every picture that has a score, by entry and image; none in records of 0.1.0."""


class Sources(_Record):
    """All that a scoring has looked at."""

    format: Literal[1] = 1
    tracks: tuple[ScoredTrack, ...]

    def of(self, track: str) -> ScoredTrack | None:
        """What was compared for a track, by its name."""
        return next((one for one in self.tracks if one.rules.name == track), None)

    def seen_from(self, folder: Path) -> "Sources":
        """The same with paths relative to a folder."""
        here = folder.resolve()

        def path(given: str | None) -> str | None:
            return None if given is None else Path(os.path.relpath(Path(given).resolve(), here)).as_posix()

        def compared(one: ScoredTrack) -> ScoredTrack:
            images = tuple(
                image.model_copy(update={"gt": path(image.gt), "lq": path(image.lq)}) for image in one.images
            )
            entries = {name: path(place) for name, place in one.entries.items()}
            return one.model_copy(update={"images": images, "entries": entries})

        return self.model_copy(update={"tracks": tuple(map(compared, self.tracks))})


def read_sources(folder: Path) -> Sources | None:
    """The sources beside the tables in a folder; None where there are none. Raises UserError for a damaged file."""
    path = folder / SOURCES
    if not path.is_file():
        return None
    try:
        # Not by pydantic's own parser, which takes no name of a file that is not UTF-8.
        return Sources.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read: {why}. Score again to have it written anew.") from None
