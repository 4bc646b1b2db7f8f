"""`ntire report`: the results of a scoring as pages to look at."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.options import app
from ntire.commands.screen import out, progress, say
from ntire.picture import unclipped

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.report.pictures import Full, Key, Original, Reference, ShownPicture, Small
    from ntire.report.results import ShownEntry, ShownTrack
    from ntire.scoring.sources import ScoredTrack

DECODED = ("ok", "no crop", "metric failed")
"""Rows whose pictures `score` has accepted; no other is opened here."""
IN_ONE_FILE = 12
"""Pictures of a track that one file has by default: a mail takes no more."""


def report(
    results: str | Path,
    out: str | Path = "report",
    *,
    single_file: bool = False,
    full: Full = "link",
    limit: int | None = None,
    title: str | None = None,
    study: str | Path | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
    say: Say = lambda line: None,
) -> Path:
    """Write the results of `score`, a folder of tables, as static pages into the folder `out`; returns the page to open.

    With `single_file` all is one file, `out` or `report.html`, with the pictures at which entries differ most, 12 of each
    track; `limit` says how many here and there. `full` pictures are linked where they lie ("link"; out of archives they are
    copied), copied ("copy") or left out ("none"). `study` is a folder of `ntire study results`, whose page is shown, too.
    `watch` gets the pictures that are done and their number. Raises UserError for a folder without results, and for a place
    that holds something else.
    """
    if find_spec("jinja2") is None:
        raise UserError("a report needs the package jinja2: pip install 'ntire[report]'.", exit_code=3)
    from ntire.report.pages import Contents, write_pages
    from ntire.report.pictures import Making, make_pictures
    from ntire.report.results import read_results
    from ntire.sandbox.scratch import scratch_folder

    folder = Path(results)
    judged = _study_page(Path(study)) if study else ""
    tracks = read_results(folder)
    page = _place(Path(out), single_file)
    making = Making(None, 480, 70, "none") if single_file else Making(page.parent, full=full)
    chosen = {one.number: _chosen(one, limit or (IN_ONE_FILE if single_file else None)) for one in tracks}
    remarks: list[str] = []
    pictures: dict[Key, ShownPicture] = {}
    with scratch_folder() as scratch:
        originals = [
            one for track in tracks for one in _originals(folder, track, chosen[track.number], scratch, remarks)
        ]
        done = iter(range(1, len(originals) + 1))
        pictures, problems = make_pictures(originals, making, lambda: watch(next(done), len(originals)))
    remarks += problems
    for one in remarks[:5]:
        say(one)
    if len(remarks) > 5:
        say(f"and {len(remarks) - 5} more remarks, which the report lists")
    named = title or f"Results of {folder.resolve().name.removesuffix('-results')}"
    write_pages(
        Contents(named, tracks, pictures, chosen, single_file, tuple(remarks), judged),
        page if single_file else page.parent,
    )
    return page


def _study_page(folder: Path) -> str:
    """The page of a study's results. It stands in a frame without scripts."""
    page = folder / "index.html"
    if not (page.is_file() and (folder / "marks.csv").is_file()):
        raise UserError(
            f"--study {folder}: expected index.html and marks.csv, found neither or one. "
            f"`ntire study results STUDY -o {folder}` writes them."
        )
    return page.read_text(encoding="utf-8")


def _place(given: Path, single_file: bool) -> Path:
    """The page to open, in a folder that is new or held a report before, whose pages are taken away."""
    from ntire.files import writable_folder

    if single_file:
        page = given if given.suffix.lower() in (".html", ".htm") else given / "report.html"
        writable_folder(page.parent)
        return page
    page = given / "index.html"
    if given.is_dir() and any(given.iterdir()):
        if not (page.is_file() and (given / "static" / "viewer.js").is_file()):
            raise UserError(
                f"{given}: expected a new folder or an earlier report, found something else. Choose with -o."
            )
        page.unlink()
        for one in (*given.glob("*-*.html"), *given.glob("study.html")):
            one.unlink()
        for name in ("small", "full"):
            shutil.rmtree(given / name, ignore_errors=True)
    writable_folder(given)
    return page


def _chosen(track: ShownTrack, limit: int | None) -> tuple[str, ...]:
    """The images that have a place in the report, by name: all, or those at which the entries lie furthest apart."""
    if limit is None or limit >= len(track.images):
        return track.images
    fields = track.beside_field()
    apart = {name: max(of.values()) - min(of.values()) if of else -math.inf for name, of in fields.items()}
    telling = sorted(track.images, key=lambda name: (-apart[name], name))[:limit]
    return tuple(name for name in track.images if name in telling)


def _originals(
    results: Path, track: ShownTrack, chosen: Sequence[str], scratch: Path, remarks: list[str]
) -> Iterator[Original]:
    """Every picture of a track that can be shown, with how it is read."""
    if track.sources is None:
        remarks.append(f"{track.rules.name}: no sources.json says where its pictures are. Score again to see them.")
        return
    numbers = {name: at for at, name in enumerate(chosen, 1)}
    yield from _references(results, track, track.sources, numbers, remarks)
    for entry in track.entries:
        place = track.sources.entries.get(entry.key)
        if place is None:
            continue
        yield from _of_entry((results / place).resolve(), track, entry, numbers, scratch, remarks)


def _references(
    results: Path, track: ShownTrack, sources: ScoredTrack, numbers: dict[str, int], remarks: list[str]
) -> Iterator[Original]:
    """Inputs and truth, which are the user's own; inputs with the noise that the track adds itself."""
    from ntire.commands.restoring import handed_to_code
    from ntire.report.pictures import SHOWN_BY_BROWSERS, Original

    def place(given: str | None) -> Path | None:
        return (results / given).resolve() if given else None

    shown = [image for image in sources.images if image.name in numbers]
    clean = {one.name: at for one in shown if (at := place(one.lq or (one.gt if track.rules.noise else None)))}
    try:
        inputs = handed_to_code(track.rules, clean, lambda line: None)
    except (UserError, OSError) as error:
        remarks.append(f"{track.rules.name}: without inputs: {error}")
        inputs = {}
    for image in shown:
        both: tuple[tuple[Reference, Path | None, str], ...] = (
            ("gt", place(image.gt), image.gt_sha256), ("lq", inputs.get(image.name), image.lq_sha256)
        )  # fmt: skip
        for kind, path, sha256 in both:
            if path is None:
                continue
            own_file = kind == "gt" or path == clean[image.name]
            own = _Own(kind == "lq" and track.rules.inputs == "raw", path.suffix == unclipped.SUFFIX)
            plain = path.suffix.lower() in SHOWN_BY_BROWSERS and not own.raw
            name = f"{kind}{track.number}/{numbers[image.name]}"
            yield Original(
                (track.number, kind, image.name), path, name, str(path), own.small, Path.read_bytes,
                None if plain else own.whole, sha256=sha256 if own_file else "", lasting=own_file,
            )  # fmt: skip


@dataclass(frozen=True)
class _Own:
    """How the user's own pictures are read: raw frames and inputs with values beyond 8 bits here, pictures where those of
    entries are, which is faster.
    """

    raw: bool
    unclipped: bool

    def small(self, path: Path, side: int) -> Small:
        from ntire.picture.preview import preview, shrunk
        from ntire.review.image_check_workers import decoders

        if not (self.raw or self.unclipped):
            return decoders().small(path, side)
        pixels = preview(path, raw=self.raw)
        return shrunk(pixels, side), (pixels.shape[0], pixels.shape[1])

    def whole(self, path: Path) -> bytes:
        from ntire.picture.image import encode_png
        from ntire.picture.preview import preview

        return encode_png(preview(path, raw=self.raw))


def _of_entry(
    place: Path, track: ShownTrack, entry: ShownEntry, numbers: dict[str, int], scratch: Path, remarks: list[str]
) -> Iterator[Original]:
    """The pictures of an entry that `score` accepted."""
    from ntire.report.pictures import SHOWN_BY_BROWSERS, Original
    from ntire.review.uploads import folders_of_images, open_upload
    from ntire.scoring.references import by_stem, pictures_below

    accepted = [name for name in numbers if name in entry.images and entry.images[name].status in DECODED]
    if not accepted:
        return
    try:
        upload = open_upload(place, scratch, track.rules)
        if upload.root is None:
            raise UserError(f"{place}: cannot be unpacked any more.")
        images = upload.root / folders_of_images(upload.root, set(track.images), track.rules)[0]
        below = pictures_below(images, links=False)
    except UserError as error:
        remarks.append(f"{entry.name}: without pictures: {error}")
        return
    found = by_stem(below)[0] if track.rules.pair_by == "stem" else below
    stranger = _Stranger(upload.root)
    scored = track.sources.sha256.get(entry.key, {}) if track.sources else {}
    for name in accepted:
        path = found.get(name)
        if path is None:
            remarks.append(f"{entry.name}: {name} was scored and is not in {images} any more")
            continue
        plain = path.suffix.lower() in SHOWN_BY_BROWSERS
        yield Original(
            (track.number, entry.number, name), path, f"{entry.number}/{numbers[name]}", f"{entry.name}: {name}",
            stranger.small, stranger.bytes_of, None if plain else stranger.whole,
            sha256=scored.get(name, ""), lasting=upload.root.is_relative_to(place),
        )  # fmt: skip


@dataclass(frozen=True)
class _Stranger:
    """How pictures of an entry are read: without following a link, and decoded in the sandbox."""

    root: Path

    def bytes_of(self, path: Path) -> bytes:
        from ntire.files import read_regular
        from ntire.review.image_checks import MOST_BYTES

        return read_regular(path, MOST_BYTES, self.root)

    def small(self, path: Path, side: int) -> Small:
        from ntire.review.image_check_workers import decoders

        return decoders().small(path, side, self.root)

    def whole(self, path: Path) -> bytes:
        from ntire.picture.image import encode_png, header_of
        from ntire.picture.preview import in_8_bits
        from ntire.review.image_check_workers import decoders

        data = self.bytes_of(path)
        header = header_of(path, data)
        return encode_png(in_8_bits(decoders().open(path, data, (header.height, header.width))[1]))


@app.command(
    "report",
    epilog="Examples: [bold]ntire report uploads-results/ -o report/[/], then open report/index.html; "
    "[bold]ntire report uploads-results/ --single-file -o report.html[/]",
)
def report_command(
    results: Annotated[Path, typer.Argument(help="The folder of tables that `ntire score` has written.")],
    folder: Annotated[Path, typer.Option("-o", "--out", help="The folder to write, or the file.")] = Path("report"),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write one HTML file, for mails and platforms.")
    ] = False,
    full: Annotated[
        Literal["link", "copy", "none"],
        typer.Option(help="Full pictures: link them where they lie (archives: copy), copy all, or leave them out."),
    ] = "link",
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Only the N pictures at which entries differ most. Default: all; in one file 12."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the report is called.")] = None,
    study: Annotated[
        Path | None, typer.Option(help="Show a user study, too: the folder that `ntire study results` has written.")
    ] = None,
) -> None:
    """Write results as static pages: leaderboard, entries, pictures side by side; offline, for phone and desktop."""
    with progress() as bars:
        task = bars.add_task("pictures")
        page = report(
            results, folder, single_file=single_file, full=full, limit=limit, title=title, study=study, say=say,
            watch=lambda done, total: bars.update(task, completed=done, total=total),
        )  # fmt: skip
    out.print(f"report: {page}", markup=False)
