"""`ntire route`: what a method's router takes pictures for whose damage is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, Device, Team, TrackName, Variant, app, parsed_settings
from ntire.commands.restoring import Say, chosen_method, inputs_of_track, paths_of, refuse_unknown
from ntire.commands.screen import out, print_json, print_table, progress, say

if TYPE_CHECKING:
    from ntire.method.routing import Accuracy
    from ntire.runner.runner import Input

INPUTS = "lq"
"""Folder of the inputs below that of a kind, in sets that hold clean pictures as well."""


def route(
    team: str,
    track: str | Path,
    pictures: str | Path | Sequence[str | Path] = (),
    *,
    variant: str | None = None,
    weights: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    kind: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    say: Say = lambda line: None,
) -> Accuracy:
    """How often the router of a method tells what pictures suffer from: of a folder with a folder of pictures for each kind of
    damage, such as a track's subsets, or with `kind` all of that kind. Without pictures: those of the track.

    `weights` is a file of the method's own weights or a folder with what its router is built on; `limit` is for each kind.
    Raises UserError for a method without a router, folders that are called after no kind, and weights that are not there.
    """
    from ntire.environment import choose_device
    from ntire.method.routing import HasRouter, judged
    from ntire.picture.image import read_image
    from ntire.scoring.track import load_track

    rules = load_track(str(track))
    method = chosen_method(team, rules, variant)
    if not issubclass(method, HasRouter):
        raise UserError(f"{team} on track {track} has no router that tells kinds of damage apart.")
    _, inputs, _ = inputs_of_track(rules, paths_of(pictures), method.track, None, say)
    router = method.router_from(Path(weights) if weights else None, settings or {})
    known = _with_kinds(inputs, router.words, kind, limit, say)
    device = choose_device(device)
    router.eval()
    router.to(device)
    with progress() as bars:
        asked = bars.track(known, description=f"{method.team} router")
        return judged(router, ((item.name, of, read_image(item.path).to(device)) for item, of in asked))


def _with_kinds(
    inputs: Sequence[Input], words: Sequence[str], kind: str | None, limit: int | None, say: Say
) -> list[tuple[Input, str]]:
    """The inputs with the kinds that their folders are called after.

    Raises one UserError that lists all folders that are called after no kind.
    """
    if kind is not None and kind not in words:
        raise UserError(f"--kind {kind}: expected one of {', '.join(words)}.")
    by_kind: dict[str, list[Input]] = {}
    for item in inputs:
        folder = item.name.partition("/")[0] if "/" in item.name else ""
        by_kind.setdefault(kind or folder, []).append(item)
    if strange := [folder or "the folder itself" for folder in by_kind if folder not in words]:
        raise UserError(
            f"expected pictures in folders called after what they suffer from ({', '.join(words)}), found some in "
            f"{', '.join(strange)}. Rename the folders, or say with --kind what all pictures suffer from."
        )
    found = []
    for word, items in by_kind.items():
        lq = [item for item in items if INPUTS in item.name.lower().split("/")[:-1]]
        if lq and len(lq) < len(items):
            say(f"{word}: {len(items) - len(lq)} picture(s) outside its folder of inputs, {INPUTS}, are left out")
        found += [(item, word) for item in (lq or items)[:limit]]
    return found


@app.command(
    "route",
    epilog="Examples: [bold]ntire route --team UIR-LoRA --track multi-10 --weights base/ pictures/[/]; "
    "[bold]ntire route --team UIR-LoRA --track general --kind motion-blurry GoPro/blur --set correction=none[/]",
)
def route_command(
    team: Team,
    track: TrackName,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with a folder of pictures for each kind of damage. Default: the track's."),
    ] = None,
    variant: Variant = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the method, or a folder with CLIP in `clip`. Default: CLIP at hand."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="What all pictures suffer from, whatever their folders.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures of each kind.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the router; may be repeated.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Ask a method's router what pictures suffer from whose damage is known: its accuracy, and what it confuses."""
    refuse_unknown(team, track, variant)
    settings = parsed_settings(given or [])
    found = route(
        team, track, pictures or [],
        variant=variant, weights=weights, settings=settings, kind=kind, limit=limit, device=device, say=say,
    )  # fmt: skip
    if as_json:
        print_json({"team": team, "track": track, "settings": settings} | found.as_json())
        return
    columns = [word for word in found.words if any(one.taken_for == word for one in found.judged)]
    rows = [
        [word, str(sum(found.confusion(word).values())), f"{found.share(word):.1%}"]
        + [str(found.confusion(word).get(column, "")) for column in columns]
        for word in found.kinds
    ]
    print_table(["suffers from", "pictures", "accuracy", *(f"as {column}" for column in columns)], rows)
    out.print(
        f"accuracy {found.share():.1%} of {len(found.judged)} picture(s); mean of {len(found.kinds)} kind(s) {found.mean:.1%}",
        markup=False,
    )
