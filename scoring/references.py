"""What a track expects: the images, their subsets, and what each is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ntire import UserError
from ntire.picture.folder import walk
from ntire.picture.image import read_header
from ntire.picture.scale import enlarges, expected_in_words, found_in_words, result_size
from ntire.scoring.identity import Face, outside, read_landmarks
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import Track


@dataclass(frozen=True)
class Expected:
    """One image that every entry must have."""

    name: str
    """Relative to `images/`, without the suffix; for tracks that pair by stem, the stem."""
    subset: str = ""
    gt: Path | None = None
    lq: Path | None = None
    landmarks: Face | None = None
    multiple: int = 1
    """Its reference is cut to sides of a multiple of it, as the noisy picture was."""


@dataclass(frozen=True)
class References:
    """Where a track's references are, as the user or the environment gave them."""

    gt: Path | None = None
    lq: Path | None = None
    landmarks: Path | None = None


def expected_images(track: Track, references: References, metrics: Iterable[str]) -> list[Expected]:
    """The images of a track in the order of their names.

    Their list comes from the landmarks' table where the track's gates need one, else from the ground truth, else from
    the inputs. Raises UserError that lists all that is missing: folders, images without a reference, subsets whose count
    is not the rules'.
    """
    against = {METRICS[name].against for name in metrics}
    needed = [part for part in ("gt", "lq") if part in against] or ["gt" if references.gt else "lq"]
    missing = [part for part in needed if getattr(references, part) is None]
    if missing:
        words = {"gt": "the ground truth (--gt DIR)", "lq": "the inputs (--lq DIR)"}
        raise UserError(
            f"track {track.name} compares with {' and '.join(words[part] for part in missing)}. Name it, "
            f"or set NTIRE_DATA to a folder with {' and '.join(f'{track.name}/{part}' for part in missing)}."
        )
    pictures = {part: _pictures(track, folder) for part in needed if (folder := getattr(references, part)) is not None}
    # No metric asks for the inputs, but an image that is equal to its own is told.
    inputs = _pictures(track, references.lq) if references.lq and "lq" not in pictures and track.inputs != "raw" else {}
    table = read_landmarks(references.landmarks) if references.landmarks else {}
    names = sorted(table or pictures[needed[0]])
    problems = [
        f"{name}: listed, but not in {getattr(references, part)}"
        for part, found in pictures.items()
        for name in names
        if name not in found
    ]
    for name in names:
        picture = pictures.get("lq", pictures[needed[0]]).get(name)
        if name in table and picture is not None:
            header = read_header(picture)
            problem = outside(table[name][1], header.height, header.width)
            problems += [f"{name}: {references.landmarks}: {problem}"] if problem else []
    expected = []
    for name in names:
        subset = _subset(track, pictures[needed[0]].get(name), references, needed[0])
        subset, face = table.get(name, (subset, None))
        gt, lq = pictures.get("gt", {}).get(name), pictures.get("lq", inputs).get(name)
        expected.append(Expected(name, subset, gt, lq, face, track.multiple_of(subset)))
    if track.scale > 1:
        problems += [problem for one in expected if (problem := _wrong_scale(track, one))]
    for subset, count in track.subsets.items():
        found = sum(1 for one in expected if one.subset == subset)
        if found != count:
            problems.append(f"subset {subset}: {count} images by the rules, {found} found")
    if track.average == "subsets":
        problems += [
            f"{one.name}: lies in none of the folders {', '.join(track.subsets)}" for one in expected if not one.subset
        ]
    if not names:
        problems.append(f"no picture in {getattr(references, needed[0])}")
    if problems:
        shown = [*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        raise UserError("\n  ".join([f"the references of track {track.name} are not complete:", *shown]))
    return expected


def _wrong_scale(track: Track, one: Expected) -> str:
    """Why an input and its ground truth do not fit together, beyond the rest that is cut (see `SCALE_RULE`)."""
    lq, gt = (_size(path) if path else None for path in (one.lq, one.gt))
    if lq is None or gt is None:
        return ""
    if enlarges(lq, gt, track.scale):
        return ""
    expected, found = expected_in_words(lq, track.scale), found_in_words(gt, lq, track.scale)
    return f"{one.name}: expected a ground truth of {expected}, found {found}"


def _size(path: Path) -> tuple[int, int]:
    header = read_header(path)
    return header.height, header.width


def cut_truths(track: Track, expected: Iterable[Expected]) -> list[str]:
    """Names of ground truths that are larger than their input times the scale, by less than one pixel of it, and so are cut at
    the right and at the bottom.
    """
    found = []
    for one in expected if track.scale > 1 else ():
        gt = _size(one.gt) if one.gt else None
        if gt is not None and result_size(track.scale, _size(one.lq) if one.lq else None, gt) != gt:
            found.append(one.name)
    return found


def inputs_by_subset(track: Track, lq: Path) -> dict[str, tuple[str, Path]]:
    """Subset and path of every input by stem, for tracks whose table of landmarks has to be made."""
    references = References(lq=lq)
    return {name: (_subset(track, path, references, "lq"), path) for name, path in sorted(_pictures(track, lq).items())}


def pictures_below(folder: Path, *, links: bool = True) -> dict[str, Path]:
    """Pictures by relative name, in NFC and without suffix; a PNG goes before another format of the same name.

    Without `links`, no link is followed. Raises UserError for two files of one name and format, which differ in their
    accents' form alone.
    """
    found: dict[str, Path] = {}
    for one in walk(folder, links=links).pictures:
        other, is_png = found.get(one.name), one.path.suffix.lower() == ".png"
        if other is not None and (other.suffix.lower() == ".png") == is_png and other.suffix == one.path.suffix:
            raise UserError(f"{other} and {one.path}: expected one picture of a name, found two. Remove or rename one.")
        if other is None or is_png:
            found[one.name] = one.path
    return found


def by_stem(pictures: dict[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The same by stem alone, and the stems that stand in several folders: which one is meant is not ours to guess."""
    found: dict[str, Path] = {}
    twice = []
    for name, path in pictures.items():
        stem = name.rpartition("/")[2]
        if stem in found:
            twice.append(stem)
        found[stem] = path
    return found, twice


def _pictures(track: Track, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of references for track {track.name}, found none.")
    pictures = pictures_below(folder)
    if track.pair_by == "path":
        return pictures
    found, twice = by_stem(pictures)
    if twice:
        raise UserError(
            f"{folder}: track {track.name} pairs by file name, but these stand there twice: {', '.join(twice)}."
        )
    return found


def _subset(track: Track, path: Path | None, references: References, part: str) -> str:
    """Without a table, the folder that an image lies in."""
    folder = getattr(references, part)
    if path is None or folder is None:
        return ""
    first = path.relative_to(folder).parts[0]
    return first if first in track.subsets else ""
