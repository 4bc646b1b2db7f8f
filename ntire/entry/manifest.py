"""An entry on disk: who made it, for which track, and its restored images. See submissions/README.md for the format."""

import hashlib
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from ntire import UserError
from ntire.entry.archive import survey
from ntire.entry.results import entry_name
from ntire.files import open_regular, read_toml, write_atomically

MANIFEST = "submission.toml"
IMAGES = "images"
JOURNAL = "journal.jsonl"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claims(_Section):
    """What the team says its method costs."""

    params_m: Annotated[float, Field(ge=0)] | None = None
    macs_g: Annotated[float, Field(ge=0)] | None = None
    at: tuple[int, int] | None = None
    """Height and width that macs_g is for."""
    runtime_ms: Annotated[float, Field(ge=0)] | None = None
    runtime_at: tuple[int, int] | None = None
    memory_mb: Annotated[float, Field(ge=0)] | None = None
    """At the peak, of the device; 2^20 bytes."""
    memory_at: tuple[int, int] | None = None
    device: str | None = None


class WeightsUsed(_Section):
    """One weights file that made the images."""

    file: str
    sha256: str
    license: str | None = None
    provenance: Literal["official", "retrained", "own"] | None = None
    note: str | None = None
    """What was chosen in it, such as averaged weights of several."""


class MethodUsed(_Section):
    """The code that made the images."""

    file: str | None = None
    """Relative to the entry, for submitted code; None for a method of the catalogue."""
    name: str | None = None
    """The class."""
    variant: str = ""
    settings: dict[str, str] = {}
    """Of the method's own, where they are not its defaults."""
    weights: tuple[WeightsUsed, ...] = ()


class Manifest(_Section):
    """`submission.toml`, checked. Written by `ntire run`, or by hand for a foreign entry."""

    format: Literal[1] = 1
    """Raised when the meaning of a key changes."""
    team: Annotated[str, Field(min_length=1)]
    track: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """A track's full name, such as "raim-2025-raw"."""
    entry: str | None = None
    date: date
    claims: Claims = Claims()
    score: dict[str, float] = {}
    """Metric values that the team claims."""
    method: MethodUsed = MethodUsed()
    extra_data: str = ""
    """Data beyond the challenge's that the method was trained on."""
    uses_test_metrics: bool = False
    """Whether images were chosen or tuned by the challenge's own metrics."""
    deterministic: bool = True
    environment: dict[str, Any] = {}
    """Filled by ntire: versions, device, driver."""


@dataclass(frozen=True)
class Submission:
    """An entry that can be scored."""

    root: Path
    manifest: Manifest
    handed_in: Path | None = None
    """The folder or archive that it came as, where its files are read from another place."""
    pictures: str = IMAGES
    """Where its images are, relative to `root`; empty for `root` itself."""

    @property
    def place(self) -> Path:
        """The folder or archive that a user knows it by."""
        return self.handed_in or self.root

    @property
    def entry(self) -> str:
        """Its name on the leaderboard: the folder's, so that no two entries of one folder share it."""
        return entry_name(self.place)

    @property
    def team(self) -> str:
        return self.manifest.team

    @property
    def track(self) -> str:
        return self.manifest.track

    @property
    def images(self) -> Path:
        """The folder of restored images."""
        return self.root / self.pictures


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write `submission.toml`."""
    write_atomically(root / MANIFEST, as_toml(manifest))


def as_toml(manifest: Manifest) -> str:
    """The text of a manifest; values that are None are left out, as TOML has no null."""
    return tomli_w.dumps(manifest.model_dump(mode="python", exclude_none=True))


def open_submission(root: Path) -> Submission:
    """Read an entry's manifest and see that it has images.

    Raises UserError for a folder that is no entry or a manifest with mistakes.
    """
    manifest = root / MANIFEST
    if not os.path.lexists(manifest):
        raise UserError(f"{root}: expected an entry with a {MANIFEST}, found none. See submissions/README.md.")
    if not (root / IMAGES).is_dir():
        raise UserError(f"{root}: expected restored images in {IMAGES}/, found no such folder.")
    return Submission(root, read_toml(manifest, Manifest, root))


def content_of(root: Path) -> str:
    """The sha256 of an entry's manifest, images and code, names and bytes: what a verdict on it speaks of.

    Raises OSError for a file that cannot be read.
    """
    files, _ = survey(root)
    hashed = hashlib.sha256()
    for name in files:
        if name == MANIFEST or name.startswith((f"{IMAGES}/", "method/")):
            with open_regular(root / name, root) as file:
                hashed.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return hashed.hexdigest()
