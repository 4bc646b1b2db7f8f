"""What challenges receive: a folder of uploads, or one of them, to entries that can be scored and words on all that cannot.

An upload is a folder or an archive, with a `submission.toml`, a challenge's `readme.txt`, or nothing but pictures; in one
folder more, in folders of subsets, or as the only archive in its folder. What systems leave behind is passed over.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ntire import UserError
from ntire.entry.archive import survey, unpack
from ntire.entry.findings import Finding
from ntire.entry.manifest import IMAGES, MANIFEST, Submission
from ntire.entry.results import ARCHIVES, entry_name, is_results
from ntire.picture.folder import NotRead, passed_over
from ntire.picture.image import SUFFIXES
from ntire.review.check import README, inner_folder, says_a_readme_line
from ntire.scoring.track import Track
from ntire.text import printable

OTHER_ARCHIVES = (".rar", ".7z", ".tbz", ".tbz2", ".txz", ".bz2", ".xz", ".zst", ".gz")
"""That somebody meant as an upload, and that are refused by their content."""


@dataclass(frozen=True)
class Upload:
    """One thing that was handed in."""

    name: str
    """On the leaderboard: its folder's, or its archive's without the suffix."""
    path: Path
    """The folder or archive itself."""
    root: Path | None
    """The folder that its files are read from; None for an archive that cannot be unpacked."""
    findings: tuple[Finding, ...] = ()
    """What was refused while it was unpacked."""


@dataclass(frozen=True)
class Uploads:
    """What was found in a place."""

    entries: tuple[Upload, ...]
    """By name."""
    others: tuple[NotRead, ...] = ()
    """What lies there beside them, with the reason why it is none."""


def open_upload(place: Path, scratch: Path, track: Track | None = None) -> Upload:
    """The one upload that a place is, or holds as its only archive. Raises UserError for a place that is none."""
    found = _in_folder(place, track) if place.is_dir() else place
    if isinstance(found, NotRead):
        raise UserError(f"{place}: {found.reason}.")
    return _opened(place, found, scratch, track)


def find_uploads(place: Path, scratch: Path, track: Track | None = None, subsets: Collection[str] = ()) -> Uploads:
    """The upload that a place is, or every upload in it; archives are unpacked below the folder `scratch`.

    `subsets` are folders that one entry's images may lie in, beside those of the track. Raises UserError for a place that is
    not there or that holds no upload, naming all that lies there instead.
    """
    if not place.exists():
        raise UserError(f"{place}: expected an entry, an archive or a folder of them, found no such file or folder.")
    known = {name.casefold() for name in (*subsets, *(track.subsets if track else ()))}
    if not place.is_dir() or _is_one(place, known):
        return Uploads((_opened(place, place, scratch, track),))
    entries, others = [], []
    for child in sorted(place.iterdir()):
        if passed_over(child.name):
            continue
        found = _in_folder(child, track) if child.is_dir() else _file(child)
        if isinstance(found, NotRead):
            others.append(found)
        else:
            entries.append(_opened(child, found, scratch, track))
    if not entries:
        seen = [f"{one.name} ({one.reason})" for one in others]
        raise UserError(
            f"{place}: expected entries: folders with a {MANIFEST} or with pictures, or .zip, .tar or .tar.gz of them; "
            f"found {', '.join(seen) or 'nothing'}. `ntire run` makes one."
        )
    return Uploads(tuple(entries), tuple(others))


def with_images_found(submission: Submission, expected: Collection[str], track: Track) -> Submission:
    """The same entry with the folder of its images; `expected` are names as `folders_of_images` takes them."""
    return replace(submission, pictures=folders_of_images(submission.root, expected, track)[0])


def folders_of_images(root: Path, expected: Collection[str], track: Track | None = None) -> list[str]:
    """The folder of an entry, relative to it, in which most of the expected images lie; `images` with a manifest.

    After it others that hold as many, in which case it is unknown which are meant. `expected` are names without suffixes:
    relative to that folder or, on a track that pairs by file name, without folders.
    """
    if (root / MANIFEST).is_file():
        return [IMAGES]
    by_name = track is not None and track.pair_by == "stem"
    there: defaultdict[str, set[str]] = defaultdict(set)
    for name in _pictures(survey(root)[0]):
        parts = PurePosixPath(name).with_suffix("").parts
        for depth in range(len(parts)):
            image = parts[-1] if by_name else "/".join(parts[depth:])
            if image in expected:
                there["/".join(parts[:depth])].add(image)
    most = max(map(len, there.values()), default=0)
    best = [folder for folder, images in there.items() if len(images) == most]
    # Of a folder and one in it with the same images the inner one, beside which other pictures may lie.
    inner = [
        one for one in best if not any(other != one and (one == "" or other.startswith(f"{one}/")) for other in best)
    ]
    if IMAGES in inner:
        return [IMAGES]
    return sorted(inner, key=lambda one: (one.count("/"), one)) or [IMAGES if (root / IMAGES).is_dir() else ""]


def _is_one(folder: Path, subsets: Collection[str]) -> bool:
    """Whether a folder is an entry itself, and not a folder of them."""
    children = [child for child in folder.iterdir() if not passed_over(child.name)]
    folders = [child for child in children if child.is_dir()]
    names = {child.name.casefold() for child in children}
    if MANIFEST in names:
        return True
    if any(_is_archive(child) for child in children) or any((child / MANIFEST).is_file() for child in folders):
        return False
    readme = next((child for child in children if child.name.casefold() == README), None)
    if readme is not None and says_a_readme_line(readme, folder):
        return True
    if any(_is_picture(child.name) for child in children) or IMAGES in names:
        return True
    return bool(folders) and all(child.name.casefold() in subsets for child in folders)


def _in_folder(folder: Path, track: Track | None) -> Path | NotRead:
    """Where the upload is that a folder holds: itself or the one archive in it; or why there is none."""
    if is_results(folder):
        return NotRead(_shown(folder), "results of ours, no entry")
    try:
        files, refused = survey(folder)
        inner = inner_folder(folder, track)
    except UserError as error:
        return NotRead(_shown(folder), str(error))
    if (inner / MANIFEST).exists():
        return folder
    if any((one / MANIFEST).is_file() for one in folder.iterdir() if one.is_dir()):
        return NotRead(_shown(folder), "a folder of entries: name it itself to score them")
    # Pictures that are links, or have names that no entry may have, are a row with that reason.
    if any(True for _ in _pictures([*files, *(one.file for one in refused)])):
        return folder
    archives = [name for name in files if name.lower().endswith(ARCHIVES) and not _hidden(name)]
    if len(archives) == 1:
        return folder / archives[0]
    several = f"{len(archives)} archives and no picture: leave the one that counts"
    return NotRead(_shown(folder), several if archives else "no picture in it")


def _file(path: Path) -> Path | NotRead:
    if _is_archive(path):
        return path
    return NotRead(_shown(path), "neither a folder nor a .zip, .tar or .tar.gz")


def _opened(handed_in: Path, found: Path, scratch: Path, track: Track | None) -> Upload:
    """An upload, unpacked where it is an archive, in the folder more that may be around it."""
    name = entry_name(handed_in)
    if found.is_dir():
        return Upload(name, handed_in, inner_folder(found, track))
    folder = scratch / f"{sum(1 for _ in scratch.iterdir())}" / "entry"
    folder.parent.mkdir()
    refused = tuple(unpack(found, folder))
    return Upload(name, handed_in, inner_folder(folder, track) if folder.is_dir() else None, refused)


def _pictures(files: Collection[str]) -> Iterator[str]:
    """Those that are meant as an entry's images by their names."""
    return (name for name in files if _is_picture(name) and not _hidden(name) and not name.startswith("method/"))


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not passed_over(name)


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith((*ARCHIVES, *OTHER_ARCHIVES)) and not path.is_dir()


def _hidden(name: str) -> bool:
    return any(map(passed_over, name.split("/")))


def _shown(path: Path) -> str:
    return printable(path.name)
