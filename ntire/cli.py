"""The command line: one table of commands, each of which is imported when it is called and parses what is its own."""

import ast
import errno
import importlib
import io
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ntire import UserError, __version__
from ntire.commands.options import app
from ntire.sandbox.scratch import end_by_signals
from ntire.text import nearest

COMMANDS = {
    "demo": "demo",
    "teams": "measuring",
    "run": "running",
    "merge": "merging",
    "score": "scoring",
    "leaderboard": "scoring",
    "codabench": "codabench",
    "check": "reviewing",
    "verify": "reviewing",
    "pack": "reviewing",
    "new-method": "new_method",
    "bench": "measuring",
    "cost": "measuring",
    "plan": "planning",
    "cluster": "cluster",
    "sheet": "sheets",
    "report": "reporting",
    "route": "routing",
    "tracks": "scoring",
    "data": "data",
    "train": "training",
    "doctor": "doctor",
    "study": "study",
    "weights": "weights",
}
"""Every command in the order of `--help`, and its module below `ntire.commands`."""


class OnDemand(TyperGroup):
    """All commands, of which only the one that is called is imported: `--help` reads what the others' source says."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.imported = dict(self.commands)
        self.commands = {name: TyperCommand(name) for name in COMMANDS}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself; None for an unknown one."""
        if cmd_name in COMMANDS and cmd_name not in self.imported:
            importlib.import_module(f"ntire.commands.{COMMANDS[cmd_name]}")
            again = typer.main.get_command(app)
            assert isinstance(again, OnDemand)
            self.imported = again.imported
        command = self.imported.get(cmd_name)
        if command is not None:
            _may_be_quiet(command)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The app's help, with the first paragraph of each command's docstring."""
        self._describe(ctx)
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The commands that begin so."""
        self._describe(ctx)
        return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a value that is none of an option's choices is asked about."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            wrong = re.search(r"'(.*?)' is not one of (.*)", error.message)
            if wrong:
                error.message += nearest([wrong[1]], re.findall(r"'(.*?)'", wrong[2]))
            raise

    def _describe(self, ctx: Any) -> None:
        """Take what the source says of each command for the command."""
        listed = {name: TyperCommand(name, help=text) for name in COMMANDS if (text := docstring(name)) is not None}
        self.imported = listed | {name: self.get_command(ctx, name) for name in COMMANDS if name not in listed}


def _hush(quiet: bool) -> None:
    if quiet:
        from ntire.commands.screen import be_quiet

        be_quiet()


_quiet = typer.Typer(add_completion=False)
"""Of a command that does nothing, the option that all share is taken."""


@_quiet.command()
def _nothing(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_hush,
            expose_value=False,
            help="Print only results and errors: no progress, no remarks.",
        ),
    ] = False,
) -> None:
    """Never called."""


def _may_be_quiet(command: Any) -> None:
    """Let a command, or each of a group, take `--quiet`."""
    for one in getattr(command, "commands", {"": command}).values():
        if all(parameter.name != "quiet" for parameter in one.params):
            one.params += typer.main.get_command(_quiet).params


def docstring(command: str) -> str | None:
    """What a command's function says of itself, read without importing it; None for a group of commands."""
    found = None
    function = command.replace("-", "_")
    source = Path(__file__).with_name("commands") / f"{COMMANDS[command]}.py"
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name in (function, f"{function}_command"):
            found = ast.get_docstring(node)  # a public function of the same name stands above its command
    return found


MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors that are the machine's, whatever the program does."""
NOTHING_LOST = "What is finished stays; make room, or choose another folder with -o, and run the same command again."


def main() -> NoReturn:
    """The entry point: a user's mistake is one message and an exit code, anything else keeps its traceback."""
    # Pillow warns of damaged metadata, which is passed over.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    end_by_signals()
    # A terminal or a pipe of another encoding than UTF-8 gets codes for the letters that it lacks.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in MACHINE:
            traceback.print_exc()
            sys.exit(3)
        what = f"{error.filename}: " if error.filename else ""
        _print_error(f"{what}{error.strerror or error}. {NOTHING_LOST}")
        sys.exit(3)
    except Exception:  # noqa: BLE001 - the last resort: whatever it is, it is ours, and exit code 3 says so
        traceback.print_exc()
        sys.exit(3)
    sys.exit(0)


def _print_error(message: str) -> None:
    from rich.markup import escape

    from ntire.commands.screen import errors
    from ntire.text import printable

    errors.print(f"[bold red]error:[/] {escape(printable(message))}", soft_wrap=True)


@app.callback(cls=OnDemand, invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Options before a command."""
    if version:
        typer.echo(f"ntire {__version__}")
        raise typer.Exit
