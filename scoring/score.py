"""A submission and its references to one row per expected image; what cannot be scored is a status, not a number."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ntire import UserError
from ntire.image import SUFFIXES, Pixels, UnreadableImage, read_header, read_pixels
from ntire.submission import Submission
from scoring.metrics import METRICS, MetricError
from scoring.track import Track

Status = Literal["ok", "missing", "unexpected", "unreadable", "wrong format", "wrong size", "metric failed"]


@dataclass(frozen=True)
class Row:
    """One image of a submission."""

    image: str
    """Relative to `images/`, without the suffix."""
    subset: str
    status: Status
    values: Mapping[str, float] = field(default_factory=dict)
    """Metrics by name, unrounded; a metric that has no value is absent."""
    problem: str = ""
    """What is wrong, for every status but "ok"."""


def score(submission: Submission, track: Track, gt: Path, metrics: Sequence[str]) -> list[Row]:
    """Score every image that the ground truth expects, then list images that nobody asked for.

    Rows are in the order of their names, whatever the order of the work.
    """
    references = _by_name(gt)
    if not references:
        raise UserError(f"{gt}: expected ground-truth pictures of track {track.name}, found none.")
    restored = _by_name(submission.images)
    with ThreadPoolExecutor() as pool:
        rows = list(
            pool.map(lambda name: _row(name, restored.get(name), references[name], track, metrics), sorted(references))
        )
    unexpected = [
        Row(name, _subset(name, track), "unexpected", problem="no such picture in the ground truth")
        for name in sorted(set(restored) - set(references))
    ]
    return rows + unexpected


def _by_name(folder: Path) -> dict[str, Path]:
    """Pictures below a folder by relative name without suffix; a PNG goes before another format of the same name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name not in found or path.suffix.lower() == ".png":
                found[name] = path
    return found


def _subset(name: str, track: Track) -> str:
    first = name.partition("/")[0]
    return first if first in track.subsets else ""


def _row(name: str, restored: Path | None, gt: Path, track: Track, metrics: Sequence[str]) -> Row:
    subset = _subset(name, track)
    if restored is None:
        return Row(name, subset, "missing", problem=f"expected {name}.png, found no such file")
    reference = read_pixels(gt)
    try:
        header = read_header(restored)
        if (header.format, header.mode, header.bits) != ("PNG", "RGB", 8):
            found = f"{header.format} {header.mode} of {header.bits} bits"
            return Row(name, subset, "wrong format", problem=f"expected an 8-bit RGB PNG, found {found}")
        if (header.height, header.width) != reference.shape[:2]:
            expected = f"{reference.shape[0]} x {reference.shape[1]} as in the ground truth"
            found = f"{header.height} x {header.width}"
            return Row(name, subset, "wrong size", problem=f"expected {expected}, found {found}")
        pixels = read_pixels(restored)
    except UnreadableImage as error:
        return Row(name, subset, "unreadable", problem=str(error))
    values, problems = {}, []
    for metric in metrics:
        try:
            values[metric] = METRICS[metric].measure(_inside(pixels, track.border), _inside(reference, track.border))
        except MetricError as error:
            problems.append(f"{metric}: {error}")
    return Row(name, subset, "metric failed" if problems else "ok", values, "; ".join(problems))


def _inside(pixels: Pixels, border: int) -> Pixels:
    if min(pixels.shape[:2]) <= 2 * border:
        raise MetricError(f"nothing is left of {pixels.shape[0]} x {pixels.shape[1]} inside a border of {border}")
    return pixels[border:-border, border:-border] if border else pixels
