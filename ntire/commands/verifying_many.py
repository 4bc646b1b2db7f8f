"""`ntire verify --engine`: entries side by side on the workers of an engine, each in its sandbox there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ntire import UserError
from ntire.entry.results import entry_name, place_of_verdict
from ntire.runner.engines import Desk, Engine, State, Task, TaskFile
from ntire.scoring.cache import key_of

if TYPE_CHECKING:
    from ntire.commands.restoring import Say
    from ntire.review.verify import Verification

DATA = "NTIRE_DATA"
"""Where references are that nobody names: as the command sees it, not as its workers do."""


@dataclass(frozen=True)
class VerifiedThere:
    """What a worker found out about an entry."""

    found: Verification
    pictures: Mapping[str, bytes]
    """By their names beside `verification.json`."""
    said: tuple[str, ...]


def verify_on(
    engine: Engine,
    entries: Sequence[Path],
    how: Callable[..., Verification],
    sandbox: str,
    out: Path | None,
    key: bytes | None,
    say: Say,
) -> list[Verification]:
    """Verify entries on the workers of an engine; verdicts are written, and signed, here, as each comes.

    `how` verifies one, given its path, `device`, `out` and `say`. Raises UserError (exit code 3) for those that could not be.
    """
    found: dict[Path, Verification] = {}
    failed = []
    tasks = {key_of("verify", str(one)): one for one in entries}
    for result in engine.run([_task(key, one, how, sandbox) for key, one in tasks.items()]):
        entry = tasks[result.task.key]
        if result.problem:
            failed.append(f"{entry}: {result.problem}")
            continue
        for line in result.value.said:
            say(f"{entry_name(entry)}: {line}")
        found[entry] = written(result.value, place_of_verdict(entry, out), key)
        say(f"{entry_name(entry)}: {found[entry].verdict} ({result.worker}, {result.seconds:.0f} s)")
    if failed:
        raise UserError("\n".join(failed), exit_code=3)
    return [found[entry] for entry in entries]


def written(there: VerifiedThere, place: Path, key: bytes | None) -> Verification:
    """A verdict with its pictures, in the place where it is looked for."""
    from ntire.entry.verdict import VERIFICATION, sealed
    from ntire.files import writable_folder, write_atomically
    from ntire.text import printable_json

    for name, data in there.pictures.items():
        writable_folder((place / name).parent)
        write_atomically(place / name, data)
    path = writable_folder(place) / VERIFICATION
    body = sealed(there.found.as_json(), key)
    write_atomically(path, printable_json(body, indent=2, allow_nan=False) + "\n")
    return replace(there.found, file=path)


def _task(key: str, entry: Path, how: Callable[..., Verification], sandbox: str) -> Task:
    from ntire.files import sha256_of

    place = Path(os.path.abspath(entry))  # noqa: PTH100 - a link stays a link
    data = str(Path(os.environ[DATA]).absolute()) if os.environ.get(DATA) else None
    state = State(key_of("sandbox", sandbox, data or ""), can_verify, (sandbox, data))
    files = (TaskFile(place, sha256_of(place)),) if place.is_file() else ()
    return Task(key, verify_there, (place, how), title=str(entry), state=state, files=files)


def can_verify(desk: Desk, sandbox: str, data: str | None) -> None:
    """At a worker: see that there is a sandbox. Raises UserError (exit code 3) if there is none."""
    from ntire.sandbox.child import choose

    choose(sandbox)
    if data is not None:
        os.environ[DATA] = data


def verify_there(desk: Desk, entry: Path, how: Callable[..., Verification]) -> VerifiedThere:
    """At a worker: verify an entry. The verdict is not signed here: the key stays where the command runs."""
    here = desk.here(entry)
    if not here.exists():
        raise UserError(
            f"{entry}: not on {desk.worker}. A folder must lie on a shared file system; an archive is sent."
        )
    said: list[str] = []
    found = how(here, device=desk.device, out=desk.scratch, say=said.append)
    pictures = {}
    if found.file is not None:
        beside = found.file.parent
        pictures = {
            path.relative_to(beside).as_posix(): path.read_bytes()
            for path in beside.rglob("*")
            if path.is_file() and path != found.file
        }
    return VerifiedThere(replace(found, file=None), pictures, tuple(said))
