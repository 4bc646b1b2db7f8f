"""`ntire merge`: the shards of a run become the folder that one run would have made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, app
from ntire.commands.screen import print_json, print_summary, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ntire.runner.runner import Summary


def merge(folders: Sequence[Path]) -> list[Summary]:
    """Merge the shards in each folder; see `ntire.runner.shards.merge`.

    Raises one UserError with all that is missing or does not belong together, for all folders; those in order are merged.
    """
    from ntire.runner.shards import merge as merge_shards
    from ntire.runner.shards import refuse_unfinished

    merged, problems = [], []
    for folder in folders:
        try:
            refuse_unfinished(folder)
            merged.append(merge_shards(folder))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return merged


@app.command(
    "merge",
    epilog="Examples: [bold]ntire run --team MiAlgo --track raw frames/ -o out --shard 1/8[/] on one machine, 2/8 on another, "
    "and so on, then [bold]ntire merge out[/]",
)
def merge_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="What `ntire run --shard I/N -o FOLDER` made.")
    ],
    as_json: AsJson = False,
) -> None:
    """Join the parts that `ntire run --shard I/N` made: the submission folder is the one that a single run makes."""
    merged = merge(folders)
    for summary in merged:
        for remark in summary.remarks:
            say(remark)
    if as_json:
        print_json([summary.as_json() for summary in merged])
    else:
        for summary in merged:
            print_summary(summary)
    if any(summary.failed for summary in merged):
        raise typer.Exit(1)
