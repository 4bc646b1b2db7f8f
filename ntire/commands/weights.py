"""`ntire weights`: the files that methods and metrics need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ntire import UserError
from ntire.commands.options import AsJson, Names, OfTrack, app
from ntire.commands.screen import (
    log,
    out,
    print_json,
    print_table,
    progress,
)
from ntire.text import nearest

if TYPE_CHECKING:
    from ntire.method.method_table import Declared

weights_app = typer.Typer(no_args_is_help=True, help="List, fetch and verify weights files.")
app.add_typer(weights_app, name="weights")


def declared_weights(names: Sequence[str], track_name: str | None) -> list[Declared]:
    """Every weights file that methods and metrics declare, once for each of them: all, those of a track, or those whose team,
    metric or file is among `names`.

    Raises UserError for a name that is none of them.
    """
    from ntire.method import catalogue
    from ntire.method.method_table import Declared, weights_of_methods
    from ntire.method.weights_files import ARCFACE, VGG19, locate
    from ntire.scoring.metrics import METRICS
    from ntire.scoring.track import load_track

    track = load_track(track_name) if track_name else None
    found = weights_of_methods(catalogue.serving(track.inputs) if track else None)
    found += [
        Declared(name, f"metric {name}", weights, *locate(weights, None))
        for name in (track.known_metrics if track else METRICS)
        for weights in METRICS[name].weights
    ]
    if track is None:
        found.append(Declared("perceptual", "loss perceptual", VGG19, *locate(VGG19, None)))
        found.append(Declared("identity", "loss identity", ARCFACE, *locate(ARCFACE, None)))
    known = {word for one in found for word in (one.weights.file, one.name)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise UserError(
            f"no weights are declared under {', '.join(unknown)}.{nearest(unknown, sorted(known))} "
            "`ntire weights list` shows all teams, metrics and files."
        )
    wanted = [one for one in found if not names or one.weights.file in names or one.name in names]
    # One file may fill several parts of a method.
    return list({(one.needed_by, one.path): one for one in wanted}.values())


@weights_app.command(
    "list", epilog="Examples: [bold]ntire weights list IPCV[/]; [bold]ntire weights list --track face-2025[/]"
)
def weights_list(names: Names = None, track: OfTrack = None, as_json: AsJson = False) -> None:
    """List the files that methods and metrics need, with state and licence; for given names also how to get missing ones."""
    from ntire.method.weights_files import ways_to_get

    found = declared_weights(names or [], track)
    rows = [one.as_json() for one in found]
    if as_json:
        print_json(rows)
        return
    columns = ["for", "file", "state", "provenance", "license", "size_mb", "sha256", "path"]
    cells = [[str(row[column]) if row[column] is not None else "" for column in columns] for row in rows]
    # Who asks for some of them wants to see all that there is to copy.
    spare = [] if names or track else ["path", "sha256", "license", "provenance"]
    print_table(columns, cells, prose=["for", "license"], spare=spare)
    if names or track:
        for path, one in {one.path: one for one in found if one.state == "missing"}.items():
            out.print("\n  ".join([str(path), *ways_to_get(one.weights)]), markup=False, soft_wrap=True)


@weights_app.command("fetch", epilog="Example: [bold]ntire weights fetch MiAlgo[/]; resumes an interrupted download")
def weights_fetch(names: Names = None, track: OfTrack = None, as_json: AsJson = False) -> None:
    """Download missing files into the cache and check their hashes."""
    from ntire.method.weights_files import fetch

    missing = {one.path: one for one in declared_weights(names or [], track) if one.state == "missing"}
    if not missing and not as_json:
        out.print("nothing to fetch: every declared file is here")
    problems, fetched = [], []
    with progress() as bars:
        for one in missing.values():
            task = bars.add_task(one.weights.file, total=one.weights.size)

            def report(have: int, total: int | None, task: Any = task) -> None:
                bars.update(task, completed=have, total=total)

            try:
                fetched.append(str(fetch(one.weights, report)))
                log.print(f"fetched {fetched[-1]}", markup=False, soft_wrap=True)
            except UserError as error:
                problems.append(str(error))
    if as_json:
        print_json({"fetched": fetched, "problems": problems})
    if problems:
        raise UserError("\n".join(problems), exit_code=3)


@weights_app.command("verify", epilog="Example: [bold]ntire weights verify[/]")
def weights_verify(names: Names = None, track: OfTrack = None, as_json: AsJson = False) -> None:
    """Check the sha256 of every installed file; exit code 3 if one is damaged."""
    from ntire.method.weights_files import verify

    rows, problems = [], []
    for one in {one.path: one for one in declared_weights(names or [], track)}.values():
        state = "missing" if one.state == "missing" else "ok" if one.weights.sha256 else "no hash"
        try:
            if one.state != "missing":
                verify(one.weights, one.path)
        except UserError as error:
            problems.append(str(error))
            state = "damaged"
        rows.append([state, one.weights.file, str(one.path)])
    header = ["state", "file", "path"]
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        print_table(header, rows, spare=header[2:])
    if problems:
        raise UserError("\n".join(problems), exit_code=3)
