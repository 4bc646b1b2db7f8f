"""A track's data as people download it: what is there, what is wrong with it, and links to it as a track expects it.

    <out>/lq/<subset>/<picture>    and    <out>/gt/<subset>/<picture>

Nothing is copied and nothing is guessed: a data set that is found twice, in part or without its truth is told, and no link
is made before all of it is in order.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from ntire import UserError
from ntire.files import writable_folder
from ntire.picture.folder import walk
from ntire.picture.header import Header
from ntire.picture.image import UnreadableImage, read_header
from ntire.picture.scale import enlarges, found_in_words
from ntire.scoring.dataset import DataSet, data_set
from ntire.scoring.layout import Candidate, Folders, Pair, candidates
from ntire.scoring.track import Track

ALL = "all"
"""What the data of a track without subsets is called."""
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
SHOWN = 3
"""Names in one problem."""


@dataclass(frozen=True)
class Arranged:
    """What was found for one subset of a track."""

    subset: str
    known: DataSet
    chosen: Candidate | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """In a word."""
        return "missing" if self.chosen is None else "not whole" if self.problems else "here"


@dataclass(frozen=True)
class Places:
    """Where the user says that data is: below which folders all of it, or that of single subsets, and split files."""

    anywhere: tuple[Path, ...] = ()
    of_subset: Mapping[str, Path] = field(default_factory=dict)
    splits: Mapping[str, Path] = field(default_factory=dict)


def data_of(track: Track) -> dict[str, DataSet]:
    """The data sets of a track by subset. Raises UserError for a track that names none."""
    if not track.data:
        raise UserError(
            f"track {track.name} is played on no published data set: name its folders with --gt and --lq, "
            f"or put them into $NTIRE_DATA/{track.name}/gt and lq."
        )
    return {subset: data_set(one) if isinstance(one, str) else one for subset, one in track.data.items()}


def arranged(track: Track, places: Places) -> list[Arranged]:
    """What is there of a track's data, subset by subset, from the names of files alone.

    Raises UserError for subsets that the track does not have and folders that are not there.
    """
    known = data_of(track)
    problems = [
        f"{subset}: track {track.name} has no such data; it has: {', '.join(known)}"
        for subset in sorted({*places.of_subset, *places.splits} - known.keys())
    ]
    folders = [*places.anywhere, *places.of_subset.values()]
    problems += [f"{folder}: expected a folder, found none" for folder in folders if not folder.is_dir()]
    problems += [f"{path}: expected a split file, found none" for path in places.splits.values() if not path.is_file()]
    if problems:
        raise UserError("\n".join(problems))
    walked: dict[Path, Folders] = {}
    found = []
    for subset, one in known.items():
        roots = [places.of_subset[subset]] if subset in places.of_subset else places.anywhere
        below: dict[Path, list[str]] = {}
        for root in roots:
            if root not in walked:
                walked[root] = _folders(root)
            below |= walked[root]
        found.append(_found(subset, one, below, places.splits.get(subset)))
    return found


def inspected(found: Arranged, multiple: int = 1, scale: int = 1) -> Arranged:
    """The same after a look into every file: pictures that cannot be read, truth of another size, lossy truth under a
    lossless name; `multiple` is that to which the track's program cuts pictures, `scale` how many times as large as its input
    the truth is.
    """
    if found.chosen is None:
        return found
    whole = [pair for pair in found.chosen.pairs if pair.truth is not None]
    with ThreadPoolExecutor() as pool:
        looked = list(pool.map(_looked, whole))
    problems = {"cannot be read": list[str](), "size": list[str](), "JPEG": list[str]()}
    cut = 0
    for pair, (source, truth, error) in zip(whole, looked, strict=True):
        if source is None or truth is None:
            problems["cannot be read"].append(error)
            continue
        sizes = (source.height, source.width), (truth.height, truth.width)
        if pair.source != pair.truth and not enlarges(*sizes, scale):
            shown = found_in_words(sizes[1], sizes[0], scale)
            problems["size"].append(f"{pair.name} is {source.height} x {source.width}, its truth {shown}")
        if truth.format == "JPEG" and pair.truth is not None and pair.truth.suffix.lower() not in JPEG:
            problems["JPEG"].append(pair.truth.name)
        cut += bool(truth.height % multiple or truth.width % multiple)
    words = {
        "cannot be read": "expected pictures",
        "size": f"expected truth x{scale} of its input" if scale > 1 else "expected inputs of the size of their truth",
        "JPEG": "expected lossless truth, found JPEG data under another suffix",
    }
    told = [f"{words[what]}: {_some(names)}" for what, names in problems.items() if names]
    remarks = [f"{cut} of {len(whole)} are cut about their centre to a multiple of {multiple}"] if cut else []
    return replace(found, problems=(*found.problems, *told), remarks=(*found.remarks, *remarks))


def link(track: Track, found: Sequence[Arranged], out: Path) -> int:
    """Make a link for every picture below `out/gt`, and below `out/lq` where there are inputs; returns how many.

    Links that are there already and right are left. Raises UserError that lists all problems, and then makes none.
    """
    problems = [f"{one.subset}: {problem}" for one in found for problem in one.problems]
    wanted: dict[Path, Path] = {}
    for one in found:
        for pair in one.chosen.pairs if one.chosen else ():
            for part, path in _parts(track, one, pair):
                place = out / part / (one.subset if track.subsets else "") / f"{pair.name}{path.suffix.lower()}"
                if wanted.setdefault(place, path) != path:
                    problems.append(f"{place}: two pictures would have this name: {wanted[place]} and {path}")
    for place, path in wanted.items():
        if os.path.lexists(place) and not (place.is_symlink() and place.resolve() == path.resolve()):
            problems.append(f"{place}: expected nothing, or a link to {path}, found another file")
    names = {place.with_suffix("") for place in wanted}
    for part in ("gt", "lq"):
        old = walk(out / part).pictures if (out / part).is_dir() else []
        strange = [one.name for one in old if out / part / one.name not in names]
        problems += [f"{out / part}: holds pictures that the track does not have: {_some(strange)}"] if strange else []
    if problems:
        raise UserError("\n  ".join([f"the data of track {track.name} is not linked:", *problems]))
    made = 0
    for folder in sorted({place.parent for place in wanted}):
        writable_folder(folder)
    for place, path in wanted.items():
        if not os.path.lexists(place):
            place.symlink_to(path.resolve())
            made += 1
    return made


def _parts(track: Track, found: Arranged, pair: Pair) -> Iterable[tuple[str, Path]]:
    """Where a pair's pictures belong: a clean picture that the track adds noise to is also what is handed in."""
    if pair.truth is not None:
        yield "gt", pair.truth
    if (found.chosen is not None and found.chosen.layout.inputs) or (track.subsets and track.noise is None):
        yield "lq", pair.source


def _folders(root: Path) -> Folders:
    """Names of pictures by their folder, whose path is whole: a set may be named by its innermost folder."""
    found: dict[Path, list[str]] = {}
    for one in walk(Path(os.path.abspath(root))).pictures:  # noqa: PTH100 - resolve() would follow links
        found.setdefault(one.path.parent, []).append(one.path.name)
    return found


def _found(subset: str, known: DataSet, folders: Folders, split: Path | None) -> Arranged:
    """The one place where a data set is, or why there is none."""
    every = [_by_split(one, split) for layout in known.layouts for one in candidates(layout, folders, subset)]
    looked = list({tuple(pair.source for pair in one.pairs): one for one, _ in reversed(every)}.values())
    if not looked:
        expected = " or ".join(layout.in_words() for layout in known.layouts)
        return Arranged(subset, known, None, (f"{known.title} is not there: expected {expected}; {known.where()}",))
    full = [one for one in looked if one.whole == len(one.pairs) == known.images]
    best = max(full or looked, key=lambda one: (one.whole, -abs(len(one.pairs) - known.images)))
    problems = []
    if len(full) > 1:
        places = " and ".join(str(one.base) for one in full)
        problems.append(f"{known.title} is there {len(full)} times, in {places}: name one, {subset}=DIR")
    problems += next(told for one, told in every if one.pairs == best.pairs and one.layout == best.layout)
    problems += _lacking(best, known)
    remarks = (f"in the layout of {best.layout.name}, below {best.base}",)
    return Arranged(subset, known, best, tuple(problems), remarks)


def _lacking(best: Candidate, known: DataSet) -> list[str]:
    """What a candidate lacks to be the whole set."""
    problems = []
    if len(best.pairs) != known.images:
        more = f"; which belong to it is said by {best.layout.split}" if best.layout.split else ""
        problems.append(f"expected {known.images} pictures, found {len(best.pairs)} below {best.base}{more}")
    bare = [pair for pair in best.pairs if pair.truth is None]
    lossy = [pair for pair in bare if _as_jpeg(best.base / pair.expected)]
    if lossy:
        problems.append(
            f"expected lossless truth such as {lossy[0].expected}, found JPEG for {len(lossy)}: it is a copy with losses"
        )
    others = [pair for pair in bare if pair not in lossy]
    if others:
        names = _some([f"{pair.source.name} ({pair.expected})" for pair in others])
        problems.append(f"expected a truth for every input, found none for {names}")
    twice = [name for name, count in Counter(pair.name for pair in best.pairs).items() if count > 1]
    problems += [f"expected one picture of a name, found several of {_some(twice)}"] if twice else []
    return problems


def _as_jpeg(path: Path) -> bool:
    return path.suffix.lower() not in JPEG and any(path.with_suffix(suffix).is_file() for suffix in JPEG)


def _by_split(found: Candidate, given: Path | None) -> tuple[Candidate, list[str]]:
    """The pictures that a split file names, where there is one, and those that it names and are not there."""
    path = given or found.base / found.layout.split
    if not (found.layout.split or given) or not path.is_file():
        return found, []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    named = [line.split()[0].replace("\\", "/").removeprefix("./").strip("/") for line in lines if line.strip()]
    by_end: dict[str, Pair] = {}
    for pair in found.pairs:
        relative = pair.source.relative_to(found.base).as_posix()
        by_end |= {relative: pair, pair.source.name: pair, pair.source.stem: pair, pair.name: pair}
    chosen = {name: by_end.get(name) or by_end.get(name.rpartition("/")[2]) for name in named}
    absent = [name for name, pair in chosen.items() if pair is None]
    problems = [f"{path.name} names what is not there: {_some(absent)}"] if absent else []
    kept = {pair.source: pair for pair in chosen.values() if pair is not None}
    return replace(found, pairs=tuple(sorted(kept.values(), key=lambda pair: pair.name))), problems


def _looked(pair: Pair) -> tuple[Header | None, Header | None, str]:
    """The headers of both pictures, or what is wrong."""
    assert pair.truth is not None
    try:
        truth = read_header(pair.truth)
        return (truth if pair.source == pair.truth else read_header(pair.source)), truth, ""
    except UnreadableImage as error:
        return None, None, str(error)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
