"""`ntire study new`: entries become a folder with a design and pictures that nobody can tell apart by their files."""

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntire import UserError
from ntire.files import writable_folder, write_atomically
from ntire.picture.folder import walk
from ntire.picture.image import Pixels, UnreadableImage
from ntire.picture.suffixes import PICTURES as READ_AS_PICTURES
from ntire.picture.suffixes import RAW
from ntire.study.design import (
    CRITERIA,
    OPINIONS,
    PICTURES,
    RANKINGS,
    STUDY,
    Access,
    Criterion,
    Design,
    Kind,
    Participant,
    Region,
    Session,
    picture_file,
    write_design,
)
from ntire.study.pictures import Shown, degraded, fitted, in_8_bits, read_shown, write_region
from ntire.study.regions import Rule, chosen_by_hand, mixed, places

SECRET = "secret.key"
"""32 random bytes in hex: names of pictures and invitations are made of it."""
SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Wish:
    """What an organiser asks for; the rest is in `study.toml`, to be edited before the first vote."""

    title: str
    track: str
    kind: Kind = "pairs"
    ties: bool = True
    criteria: str = "overall"
    """A key of CRITERIA."""
    regions: Rule | Path = "disagreement"
    side: int = 512
    """Of a region in pixels; 0 for whole pictures."""
    per_picture: int = 1
    pictures: int | None = None
    """How many pictures, chosen by the seed; all if None."""
    session: Session = Session(trials=60)  # noqa: RUF009 - frozen
    access: Access = Access()  # noqa: RUF009 - frozen
    seed: int = 0


@dataclass(frozen=True)
class Restorations:
    """An entry: its pictures by the last part of their names, and who decodes them. A stranger's are decoded in a sandbox."""

    name: str
    team: str
    pictures: Mapping[str, Path]
    decode: Callable[[Path], Pixels]
    """Raises UnreadableImage."""


def criteria_of(name: str, kind: Kind) -> tuple[Criterion, ...]:
    """The questions of that name, put as the kind of answer needs it."""
    if kind == "pairs":
        return CRITERIA[name]
    put = OPINIONS if kind == "opinion" else RANKINGS
    return tuple(one.model_copy(update={"question": put[one.name]}) for one in CRITERIA[name])


def make_study(
    out: Path, entries: Sequence[Restorations], lq: Path, gt: Path | None, wish: Wish, done: Callable[[int, int], None]
) -> Design:
    """Make a study in a new folder. Raises UserError that lists all pictures which entries lack or have in another size."""
    if (out / STUDY).exists():
        raise UserError(f"{out}: there is a study already, and it may have votes. Choose another folder with -o.")
    sources = _sources(entries, lq, gt, wish)
    names = sorted(sources)
    if wish.pictures is not None:
        names = sorted(names[place] for place in mixed(range(len(names)), wish.seed)[: wish.pictures])
    by_hand = chosen_by_hand(wish.regions) if isinstance(wish.regions, Path) else None
    if by_hand is not None:
        if strangers := sorted(set(by_hand) - set(sources)):
            raise UserError(f"{wish.regions}: no such picture among the inputs: {', '.join(strangers[:5])}.")
        names = sorted(by_hand)
    writable_folder(out)
    writable_folder(out / PICTURES)
    regions: list[Region] = []
    for number, name in enumerate(names):
        shown = _read_all(sources[name], name, [one.decode for one in entries], wish.track)
        for top, left, side in _corners(wish, shown[: len(entries)], name, by_hand):
            regions.append(_cut(out, shown, (name, top, left, side), len(regions), len(entries), gt is not None))
        done(number + 1, len(names))
    design = Design(
        title=wish.title, track=wish.track, kind=wish.kind, ties=wish.ties, seed=wish.seed, session=wish.session,
        access=wish.access, criteria=criteria_of(wish.criteria, wish.kind), truth=gt is not None,
        entries=tuple(Participant(name=one.name, team=one.team) for one in entries), regions=tuple(regions),
    )  # fmt: skip
    write_atomically(out / SECRET, secrets.token_hex(32))
    (out / SECRET).chmod(0o600)
    write_design(out, design)
    return design


def _sources(entries: Sequence[Restorations], lq: Path, gt: Path | None, wish: Wish) -> dict[str, list[Path]]:
    """For each input its files: those of the entries, the input, and the truth if there is one."""
    by_folder = [one.pictures for one in entries]
    inputs = _by_stem(lq, raw=_is_raw(wish.track))
    if not inputs:
        raise UserError(f"{lq}: expected inputs of track {wish.track}, found no picture.")
    others = [inputs, *([_by_stem(gt)] if gt else [])]
    titles = [*(one.name for one in entries), str(lq), str(gt)]
    problems = [
        f"{title}: no picture {name}"
        for title, found in zip(titles, [*by_folder, *others], strict=False)
        for name in sorted(inputs)
        if name not in found
    ]
    if problems:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise UserError("\n".join([*problems[:SHOWN_PROBLEMS], *more]))
    return {name: [found[name] for found in (*by_folder, *others)] for name in inputs}


def _is_raw(track: str) -> bool:
    from ntire.scoring.track import load_track

    return load_track(track).inputs == "raw"


def _by_stem(folder: Path, raw: bool = False) -> dict[str, Path]:
    """Pictures by the last part of their name, as entries may have them in other folders than the inputs."""
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of pictures, found none.")
    found: dict[str, Path] = {}
    for one in walk(folder, RAW | READ_AS_PICTURES if raw else READ_AS_PICTURES).pictures:
        stem = one.name.rpartition("/")[2]
        if stem in found:
            raise UserError(f"{found[stem]} and {one.path}: expected one picture of a name, found two. Rename one.")
        found[stem] = one.path
    return found


def _read_all(paths: Sequence[Path], name: str, decode: Sequence[Callable[[Path], Pixels]], track: str) -> list[Shown]:
    """The pictures of one name, all of one size. Raises UserError for what cannot be read or is of another size."""
    pictures, problems = [], []
    for path, own in itertools.zip_longest(paths, decode):
        try:
            pictures.append(in_8_bits(own(path)) if own else read_shown(path, _is_raw(track)))
        except UnreadableImage as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    height, width = pictures[0].shape[:2]
    for place, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        pictures[place] = fitted(picture, height, width, f"{name}: {path}")
    return pictures


def _corners(
    wish: Wish, shown: Sequence[Shown], name: str, by_hand: dict[str, list[tuple[int, int, int | None]]] | None
) -> Iterator[tuple[int, int, int]]:
    """Top, left and side of each region of one picture."""
    side = wish.side or max(shown[0].shape[:2])
    if by_hand is not None:
        for top, left, own in by_hand[name]:
            yield top, left, own or side
    else:
        assert not isinstance(wish.regions, Path)
        for top, left in places(wish.regions, shown, side, wish.per_picture, f"{wish.seed}/{name}"):
            yield top, left, side


def _cut(
    out: Path, shown: Sequence[Shown], where: tuple[str, int, int, int], number: int, entries: int, truth: bool
) -> Region:
    """Write the pictures of one region."""
    name, top, left, side = where
    parts = [picture[top : top + side, left : left + side] for picture in shown]
    height, width = parts[0].shape[:2]
    if not height or not width:
        raise UserError(
            f"{name}: the region at {top}, {left} lies outside of {shown[0].shape[0]} x {shown[0].shape[1]}."
        )
    anchor_of = number % entries
    files = {picture_file(number, place, entries): parts[place] for place in range(entries)}
    files[picture_file(number, entries, entries)] = degraded(np.ascontiguousarray(parts[anchor_of]))
    files[picture_file(number, "input", entries)] = parts[entries]
    if truth:
        files[picture_file(number, "truth", entries)] = parts[entries + 1]
    write_region(out, files)
    return Region(picture=name, top=top, left=left, height=height, width=width, anchor_of=anchor_of)
