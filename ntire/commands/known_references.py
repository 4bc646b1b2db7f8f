"""Where inputs and truth of a track are, for who does not say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntire.scoring.references import References
    from ntire.scoring.track import Track


def references_of(track: Track, given: References) -> References:
    """The references that the user named, else those in `$NTIRE_DATA/<track>/`, else those of the sample set."""
    from ntire.picture.samples import sample_set
    from ntire.scoring.references import References

    root = os.environ.get("NTIRE_DATA")
    folder = Path(root) / track.name if root else None
    if folder is None and track.samples and given.gt is None and given.lq is None:
        # Where the user has named pictures, those of the sample set are others.
        folder = sample_set() / track.inputs

    def found(name: str) -> Path | None:
        return folder / name if folder and (folder / name).exists() else None

    return References(given.gt or found("gt"), given.lq or found("lq"), given.landmarks or found("landmarks.csv"))
