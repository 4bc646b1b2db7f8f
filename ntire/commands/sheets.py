"""`ntire sheet`: pictures before and after, and those of several entries side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, app
from ntire.commands.screen import out, print_json, say

if TYPE_CHECKING:
    from ntire.picture.contact_sheet import Column
    from ntire.picture.preview import Preview
    from ntire.review.uploads import Upload
    from ntire.scoring.track import Track

SHOWN = 24
"""Pictures on a sheet by default: more are too long to look at."""


def sheet_of(
    entries: Sequence[Path],
    file: Path,
    *,
    lq: Path | None = None,
    gt: Path | None = None,
    limit: int = SHOWN,
    say: Callable[[str], None],
) -> dict[str, dict[str, str]]:
    """Write a contact sheet: the inputs where they are given, entries, the truth where it is given; scored against that.

    Returns the words of its cells, by picture and column. Raises UserError for places without entries or pictures.
    """
    from ntire.picture.contact_sheet import SheetPart, contact_sheet
    from ntire.sandbox.scratch import scratch_folder

    with scratch_folder() as scratch:
        before = [_inputs(entries, lq)] if lq else []
        after = [_column(one) for place in entries for one in _uploads(place, scratch, lq or gt)]
        truth = picture_column("truth", gt) if gt else None
        held = {name for column in after for name in column.pictures}
        wanted = (truth or before[0]).pictures if truth or before else held
        names = sorted(held & set(wanted))
        if not names:
            raise UserError(f"no picture of {', '.join(map(str, entries))} has the name of one in {lq or gt}.")
        for count, words in (
            (len(set(wanted) - held), "that no entry has"),
            (len(held - set(wanted)), "with other names"),
        ):
            if count:
                say(f"left out: {count} picture(s) {words}")
        if len(names) > limit:
            say(f"the first {limit} of {len(names)} pictures; --limit {len(names)} shows all")
        part = SheetPart([*before, *after, *([truth] if truth else [])], names[:limit], truth)
        cells: dict[str, dict[str, str]] = {name: {} for name in part.names}
        for remark in contact_sheet(
            file, [part], psnr_in_words, lambda name, title, words: cells[name].update({title: words})
        ):
            say(remark)
    return cells


def psnr_in_words(restored: Preview, gt: Preview) -> str:
    """How near a picture is to its truth."""
    from ntire.scoring.pixels import psnr

    value = psnr("rgb")(restored, gt)
    return "equal to the truth" if math.isinf(value) else f"{value:.2f} dB PSNR"


def _uploads(place: Path, scratch: Path, beside: Path | None) -> Sequence[Upload]:
    from ntire.review.uploads import find_uploads

    subsets = [one.name for one in beside.iterdir() if one.is_dir()] if beside and beside.is_dir() else []
    return [one for one in find_uploads(place, scratch, None, subsets).entries if one.root is not None]


def _column(upload: Upload) -> Column:
    """An entry's pictures, decoded where strangers' are."""
    from ntire.picture.contact_sheet import Column
    from ntire.picture.folder import walk
    from ntire.review.uploads import folders_of_images

    root = upload.root
    assert root is not None
    found = walk(root / folders_of_images(root, ())[0], links=False).pictures

    def read(path: Path) -> Preview:
        from ntire.files import read_regular
        from ntire.picture.image import header_of
        from ntire.picture.preview import in_8_bits
        from ntire.review.image_check_workers import decoders
        from ntire.review.image_checks import MOST_BYTES

        try:
            data = read_regular(path, MOST_BYTES, root)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        header = header_of(path, data)
        return in_8_bits(decoders().open(path, data, (header.height, header.width))[1])

    return Column(upload.name, {one.name: one.path for one in found}, read)


def _inputs(entries: Sequence[Path], lq: Path) -> Column:
    """The inputs as they are looked at: with the noise that the entries' track adds to them, and raw frames plainly rendered,
    where the entries are of a raw track.
    """
    from ntire.commands.measured_figures import given_to_code
    from ntire.runner.runner import find_inputs

    tracks = _tracks_of(entries)
    raw = any(track.inputs == "raw" for track in tracks)
    given = given_to_code(lq, tracks[0]) if len(tracks) == 1 and lq.is_dir() else lq
    assert given is not None
    return input_column({one.name: one.path for one in find_inputs([given], "raw" if raw else "general")}, raw=raw)


def input_column(pictures: Mapping[str, Path], *, raw: bool) -> Column:
    """The first column: what the others were made from."""
    from functools import partial

    from ntire.picture.contact_sheet import Column
    from ntire.picture.preview import preview

    return Column("input", pictures, partial(preview, raw=raw))


def picture_column(title: str, folder: Path) -> Column:
    """The pictures of a folder of one's own. Raises UserError for one without any."""
    from ntire.picture.contact_sheet import Column
    from ntire.picture.folder import walk

    found = walk(folder).pictures if folder.is_dir() else []
    if not found:
        raise UserError(f"{folder}: expected a folder of pictures, found none.")
    return Column(title, {one.name: one.path for one in found})


def _known_references(entries: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Inputs and truth of the one track that all entries' manifests name, where `score` would find them."""
    from ntire.commands.known_references import references_of
    from ntire.scoring.references import References

    tracks = _tracks_of(entries)
    if len(tracks) != 1 or tracks[0].inputs == "raw":
        return None, None
    found = references_of(tracks[0], References())
    return found.lq or (found.gt if tracks[0].noise else None), found.gt


def _tracks_of(entries: Sequence[Path]) -> list[Track]:
    """Those of ours that the manifests of folders among the entries name."""
    from ntire.entry.manifest import MANIFEST, Manifest
    from ntire.files import read_toml
    from ntire.scoring.track import all_tracks

    manifests = [place / MANIFEST for place in entries if (place / MANIFEST).is_file()]
    names = {read_toml(path, Manifest, path.parent).track for path in manifests}
    return [track for track in all_tracks() if track.name in names]


@app.command(
    epilog="Examples: [bold]ntire sheet restored/ --lq photos/[/]; "
    "[bold]ntire sheet submissions/Copy-raw submissions/MiAlgo-raw --lq frames/ --gt clean/[/]"
)
def sheet(
    entries: Annotated[list[Path], typer.Argument(help="Entries: folders or archives, or folders of them.")],
    lq: Annotated[Path | None, typer.Option("--lq", help="Folder of inputs, for the first column.")] = None,
    gt: Annotated[Path | None, typer.Option(help="Folder of ground truth, for the last column and the scores.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N pictures.")] = SHOWN,
    file: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("contact-sheet.png"),
    as_json: AsJson = False,
) -> None:
    """Put the same pictures side by side, before and after: whole, and a crop at their own pixels.

    Without --lq and --gt, inputs and truth are those that `score` would find. Where the track adds noise, inputs have it.
    """
    if lq is None and gt is None:
        lq, gt = _known_references(entries)
    cells = sheet_of(entries, file, lq=lq, gt=gt, limit=limit, say=say)
    if as_json:
        print_json({"file": str(file), "pictures": cells})
    else:
        out.print(f"pictures side by side: {file}", markup=False)
