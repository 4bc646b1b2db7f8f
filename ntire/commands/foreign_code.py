"""`--team FOLDER`: code that may be somebody else's runs in a sandbox, unless the user says that it is to be trusted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.entry.findings import Finding
    from ntire.runner.prepare import Options, Prepared
    from ntire.sandbox.child import Backend

TRUST = "`--trust` (trust=True, or NTIRE_TRUST=1) runs the folder's code with all your rights: for your own method."
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        envvar="NTIRE_TRUST",
        help="Run a folder's code outside the sandbox, with all your rights: for your own code.",
    ),
]


def is_foreign(team: str | Path, trust: bool) -> bool:
    """Whether `--team` is a folder whose code may only run in a sandbox."""
    from ntire.method.catalogue import is_folder

    return is_folder(team) and not (trust or os.environ.get("NTIRE_TRUST") == "1")


def announce(team: str | Path, trust: bool, say: Say) -> None:
    """Tell the user whose code is about to run, and with which rights, where it is not one of the catalogue's."""
    from ntire.method.catalogue import is_folder

    if is_folder(team):
        how = "with all your rights (--trust)" if trust else "in a sandbox"
        say(f"--team {team} is a folder: its method.py runs {how}")
        if not trust:
            warn_of_weak_limits("bubblewrap", say)


def warn_of_weak_limits(backend: Backend, say: Say) -> None:
    """Tell the user where memory of a stranger's code is not limited as a whole."""
    from ntire.sandbox.child import weakness, why_not

    weak = "" if why_not(backend) else weakness(backend)
    if weak:
        say(f"warning: {weak}")


@contextlib.contextmanager
def foreign_tree(team: str | Path) -> Iterator[tuple[Backend, Path, Path]]:
    """A sandbox that works here, a copy of the folder's code that its user may read, and a scratch folder around it.

    Raises UserError for a folder without a method.py, and (exit code 3) where no sandbox is available.
    """
    from ntire.review.submitted_method import clean_tree
    from ntire.sandbox.child import choose
    from ntire.sandbox.scratch import scratch_folder

    folder = Path(team)
    if not (folder / "method.py").is_file():
        raise UserError(f"{folder}: expected a folder with a method.py, found none.")
    backend = choose("auto", TRUST)
    with scratch_folder() as scratch:
        (scratch / "code").mkdir(mode=0o755)
        clean_tree(folder, scratch / "code", "")
        yield backend, scratch / "code", scratch


@contextlib.contextmanager
def prepared_in_sandbox(team: str | Path, options: Options) -> Iterator[Prepared]:
    """The code of a folder, loaded in a sandbox and ready to be asked for pictures.

    Raises UserError for code that cannot be loaded (exit code 1), and (exit code 3) where no sandbox is available or it does
    not hold.
    """
    from ntire.review.submitted_method import SubmittedMethod, as_method
    from ntire.runner.prepare import described
    from ntire.sandbox.limits import Limits

    with foreign_tree(team) as (backend, code, scratch):
        submitted = SubmittedMethod(
            backend, code, "method.py", scratch, options.device, Limits(), {},
            tile=options.tile, precision=options.precision, bits=options.bits,
        )  # fmt: skip
        with submitted:
            refused = submitted.load()
            if refused is not None or submitted.facts is None:
                why = _in_words(refused, folder=Path(team)) if refused else "not loaded"
                raise UserError(f"{team}: {why}", exit_code=1)
            yield described(as_method(submitted, submitted.facts, Path(team), scratch), options, submitted.held_by)


def _in_words(refused: Finding, folder: Path) -> str:
    """Why code was refused, with the folder's own name in place of those in the sandbox and in an entry."""
    found = re.sub(r"/sub\b", lambda _: str(folder), refused.found).rstrip(".")
    return f"{refused.code} {refused.problem}: {found}. {refused.do.replace('method/', f'{folder}/')}"
