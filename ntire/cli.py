"""The command line: built from the commands, each of which parses what is its own."""

import errno
import sys
import traceback
import warnings
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from ntire import UserError, __version__
from ntire.commands import demo, doctor, measuring, restoring, reviewing, scoring, training, weights
from ntire.commands.options import app
from ntire.commands.screen import log, out
from ntire.text import printable

ORDER = (
    demo.demo, measuring.teams, restoring.run_command, scoring.score_command, scoring.leaderboard_command,
    reviewing.check_command, reviewing.verify_command, reviewing.pack, measuring.bench, measuring.cost_command,
    restoring.sheet, scoring.tracks, training.train, doctor.doctor,
)  # fmt: skip
"""In which `--help` lists the commands."""

MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors that are the machine's, whatever the program does."""
NOTHING_LOST = "What is finished stays; make room, or choose another folder with -o, and run the same command again."

app.registered_commands.sort(key=lambda command: ORDER.index(command.callback))
app.add_typer(weights.weights_app, name="weights")


def main() -> NoReturn:
    """The entry point: a user's mistake is one message and an exit code, anything else keeps its traceback."""
    # Pillow warns of damaged metadata, which is passed over.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        app()
    except UserError as error:
        log.print(f"[bold red]error:[/] {escape(printable(str(error)))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in MACHINE:
            traceback.print_exc()
            sys.exit(3)
        what = f"{error.filename}: " if error.filename else ""
        log.print(
            f"[bold red]error:[/] {escape(printable(f'{what}{error.strerror or error}'))}. {NOTHING_LOST}",
            soft_wrap=True,
        )
        sys.exit(3)
    except Exception:  # noqa: BLE001 - the last resort: whatever it is, it is ours, and exit code 3 says so
        traceback.print_exc()
        sys.exit(3)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Options of no command."""
    if version:
        out.print(f"ntire {__version__}")
        raise typer.Exit
