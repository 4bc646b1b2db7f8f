"""`ntire demo`: the whole way once, on built-in samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire.commands.options import AsJson, Device, app
from ntire.commands.restoring import plan, run_job
from ntire.commands.scoring import score
from ntire.commands.screen import (
    out,
    print_json,
    print_leaderboard,
    progress,
    say,
    watch_pictures,
)
from ntire.commands.sheets import input_column, picture_column, psnr_in_words

if TYPE_CHECKING:
    from ntire.commands.restoring import Say, Watch
    from ntire.commands.scoring import Board
    from ntire.runner.prepare import Options


def run_demo(out: Path, options: Options, report: Callable[[str], Watch], say: Say) -> Board:
    """Run two methods per pixel track on the sample set, score them, and draw `contact-sheet.png`; all in `out`."""
    from ntire.entry.manifest import IMAGES
    from ntire.files import writable_folder
    from ntire.picture.contact_sheet import SheetPart, contact_sheet
    from ntire.picture.samples import sample_set

    entries = writable_folder(out / "submissions")
    parts = []
    for kind in ("raw", "srgb"):
        for team in ("Copy", "MiAlgo"):
            job = plan(team, f"demo-{kind}", (), entries / f"{team}-{kind}", None, None, say)
            run_job(job, options, report(f"{team} {kind}"))
        columns = [picture_column(team, entries / f"{team}-{kind}" / IMAGES) for team in ("Copy", "MiAlgo")]
        truth = picture_column("truth", sample_set() / kind / "gt")
        inputs = {one.name: one.path for one in job.inputs}
        whole = [input_column(inputs, raw=kind == "raw"), *columns, truth]
        parts.append(SheetPart(whole, sorted(inputs), truth, {"raw": "Raw frames", "srgb": "sRGB pictures"}[kind]))
    for remark in contact_sheet(out / "contact-sheet.png", parts, psnr_in_words):
        say(remark)
    board = score(entries, device=options.device, say=say)
    board.write(out)
    return board


@app.command(epilog="Example: [bold]ntire demo[/], then look at ntire-demo/contact-sheet.png")
def demo(
    folder: Annotated[Path, typer.Option("-o", "--out", help="Where to write.")] = Path("ntire-demo"),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Restore a small built-in sample set with two methods per track, score them and print the leaderboard."""
    from ntire.environment import choose_device
    from ntire.runner.prepare import Options

    with progress() as bars:
        scored = run_demo(
            folder, Options(device=choose_device(device)), lambda title: watch_pictures(bars, title, None), say
        )
    if as_json:
        from ntire.scoring.tables import as_json as lines_as_json

        print_json(lines_as_json(scored.lines))
        return
    print_leaderboard(scored.lines)
    out.print(
        f"pictures side by side: {folder / 'contact-sheet.png'}\ntables: {folder / 'leaderboard.csv'}, .md, .json"
    )
