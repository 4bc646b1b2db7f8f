"""`ntire data`: the data sets of a track, as they are published and as they lie on this disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntire import UserError
from ntire.commands.options import AsJson, TrackName, app, parsed_folders
from ntire.commands.screen import out, print_json, print_table, say

if TYPE_CHECKING:
    from ntire.scoring.arrangement import Arranged, Places
    from ntire.scoring.track import Track

data_app = typer.Typer(no_args_is_help=True, help="List, check and link the data sets of a track.")
app.add_typer(data_app, name="data")

Folders = Annotated[
    list[str] | None,
    typer.Argument(metavar="DIR|SUBSET=DIR...", help="Folders with data sets as downloaded, or that of one subset."),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="SUBSET=FILE", help="A file that names the pictures of a subset; may be repeated."),
]


def places_of(folders: Sequence[str], splits: Sequence[str] = ()) -> Places:
    """`~/data` is searched for everything, `hazy=~/SOTS` for one subset."""
    from ntire.scoring.arrangement import Places

    anywhere = tuple(Path(one) for one in folders if "=" not in one or Path(one).is_dir())
    named = [one for one in folders if Path(one) not in anywhere]
    return Places(anywhere, parsed_folders(named, "DIR"), parsed_folders(splits, "--split"))


def check_data(track: Track, places: Places) -> list[Arranged]:
    """What is there of a track's data and what is wrong with it, every file of it looked into."""
    from ntire.scoring.arrangement import arranged, inspected

    return [inspected(one, track.multiple_of(one.subset), track.scale) for one in arranged(track, places)]


@data_app.command("list", epilog="Example: [bold]ntire data list --track multi-3[/]")
def data_list(track: TrackName, folders: Folders = None, splits: Splits = None, as_json: AsJson = False) -> None:
    """List the data sets of a track: pictures, where they are published, how they lie on disk; of folders, what is there."""
    from ntire.scoring.arrangement import Places, arranged
    from ntire.scoring.track import load_track

    rules = load_track(track)
    found = arranged(rules, places_of(folders or [], splits or []) if folders else Places())
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    state = ["state"] if folders else []
    rows = [
        [one.subset, *([one.state] if folders else []), one.known.title, str(one.known.images), one.known.where()]
        for one in found
    ]
    print_table(["subset", *state, "data set", "pictures", "published"], rows)
    for known in {one.known.title: one.known for one in found}.values():
        subsets = ", ".join(one.subset for one in found if one.known == known)
        out.print(f"{subsets}:", markup=False, highlight=False)
        for layout in known.layouts:
            split = f", the inputs that {layout.split} names" if layout.split else ""
            out.print(f"  {layout.name}: {layout.in_words()}{split}", markup=False, highlight=False, soft_wrap=True)
        if known.unconfirmed:
            out.print(f"  not confirmed: {known.unconfirmed}", markup=False, highlight=False, soft_wrap=True)


@data_app.command(
    "check",
    epilog="Examples: [bold]ntire data check --track multi-5 ~/data[/]; "
    "[bold]ntire data check --track derain-rain100l all=~/Rain100L[/]; exit code 1 if anything is missing or wrong",
)
def data_check(track: TrackName, folders: Folders = None, splits: Splits = None, as_json: AsJson = False) -> None:
    """Check data sets as downloaded: their layout, counts and pairs, and every file; lists all problems."""
    from ntire.scoring.track import load_track

    rules = load_track(track)
    found = check_data(rules, _asked(folders, splits))
    if as_json:
        print_json([_as_json(one) for one in found])
    else:
        for one in found:
            say(f"{one.subset}: {one.state}" + "".join(f"; {remark}" for remark in one.remarks))
            for problem in one.problems:
                say(f"  {problem}")
    if any(one.problems for one in found):
        raise typer.Exit(1)


@data_app.command(
    "link",
    epilog="Example: [bold]ntire data link --track multi-3 ~/data -o $NTIRE_DATA/multi-3[/], "
    "then [bold]ntire run[/] and [bold]ntire score[/] need no folders",
)
def data_link(
    track: TrackName,
    folders: Folders = None,
    splits: Splits = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the links. Default: $NTIRE_DATA/<track>.")
    ] = None,
) -> None:
    """Check data sets as downloaded and link them as the track expects them, below gt/ and lq/; nothing is copied."""
    import os

    from ntire.scoring.arrangement import link
    from ntire.scoring.track import load_track

    rules = load_track(track)
    root = os.environ.get("NTIRE_DATA")
    if folder is None and not root:
        raise UserError("where shall the links be? Name a folder with -o, or set NTIRE_DATA to one.")
    target = folder or Path(root or "") / rules.name
    found = check_data(rules, _asked(folders, splits))
    made = link(rules, found, target)
    pictures = sum(len(one.chosen.pairs) for one in found if one.chosen)
    say(f"{target}: {made} link(s) made for {pictures} picture(s) of track {rules.name}")


def _asked(folders: Sequence[str] | None, splits: Sequence[str] | None) -> Places:
    if not folders:
        raise UserError("name the folders in which the data sets lie, or SUBSET=DIR for one of them.")
    return places_of(folders, splits or [])


def _as_json(found: Arranged) -> dict[str, Any]:
    return {
        "subset": found.subset,
        "state": found.state,
        "data_set": found.known.model_dump(mode="json"),
        "layout": found.chosen.layout.name if found.chosen else None,
        "folder": str(found.chosen.base) if found.chosen else None,
        "pictures": len(found.chosen.pairs) if found.chosen else 0,
        "problems": list(found.problems),
        "remarks": list(found.remarks),
    }
