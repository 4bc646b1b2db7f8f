"""A worker of the platform, here: the same folders, variables, time limit and exit codes, without a container.

A bundle that works here works there if the image has what this installation has.
"""

import errno
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ntire import UserError
from ntire.codabench.programs import DETAILS, OLD_SCORES, SCORES
from ntire.text import printable

KEPT = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME", "NTIRE_WEIGHTS", "TORCH_HOME", "HF_HOME", "TMPDIR")
"""Variables of ours that a program sees: an image has its own weights, here they are in these places."""
NEEDED = ("title", "image", "terms", "pages", "phases", "tasks", "leaderboards")
PARTS = (
    "scoring_program", "reference_data", "ingestion_program", "input_data", "starting_kit", "public_data", "path",
)  # fmt: skip
"""Keys that name files of a bundle."""
NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)
"""Errors of names that a zip may hold and a disk does not take."""


@dataclass(frozen=True)
class Tried:
    """What became of one upload."""

    finished: bool
    reason: str
    """Why it failed, in the platform's way; empty if it did not."""
    scores: Mapping[str, float]
    old_scores: Mapping[str, float]
    """The same as CodaLab reads them."""
    exit_codes: Mapping[str, int | None]
    """Of each program that was started; None where the time was over."""
    output: str
    """What they printed, errors last."""
    missing_columns: tuple[str, ...]
    details: Path | None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "status": "Finished" if self.finished else "Failed",
            "reason": self.reason,
            "scores": dict(self.scores),
            "scores_txt": dict(self.old_scores),
            "exit_codes": dict(self.exit_codes),
            "missing_columns": list(self.missing_columns),
            "detailed_results": str(self.details) if self.details else None,
            "output": self.output,
        }


def read_bundle(bundle: Path, into: Path) -> dict[str, Any]:
    """Unpack a bundle and read its `competition.yaml`. Raises UserError that lists all that the platform would refuse."""
    _unzip(bundle, into)
    file = into / "competition.yaml"
    if not file.is_file():
        raise UserError(f"{bundle}: expected a competition.yaml at the top of the bundle, found none.")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{bundle}: competition.yaml is no YAML: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{bundle}: competition.yaml: expected a table of keys, found {type(found).__name__}.")
    problems = [f"competition.yaml has no {key}" for key in NEEDED if not found.get(key)]
    problems += [
        f"{where} names {name}, which is empty or not in the bundle" for where, name in _files_named(found, into)
    ]
    if problems:
        raise UserError("\n".join(f"{bundle}: {one}." for one in problems))
    return found


def try_upload(bundle: Path, upload: Path, scratch: Path, out: Path) -> Tried:
    """Do with an upload what a worker does, in `scratch`; what the scoring program writes is copied to `out`.

    Raises UserError for a bundle or an upload that the platform would not take.
    """
    unpacked = scratch / "bundle"
    competition = read_bundle(bundle, unpacked)
    phase = competition["phases"][0]
    task = competition["tasks"][phase["tasks"][0]]
    until = time.monotonic() + float(phase.get("execution_time_limit", 600))
    places = _Places(scratch / "run")
    _put(unpacked, task, "reference_data", places.input / "ref")
    _put(unpacked, task, "input_data", places.input_data)
    exits: dict[str, int | None] = {}
    printed = ""
    handed_in = places.root / "submission"
    _unzip(upload, handed_in)
    if task.get("ingestion_program"):
        _put(unpacked, task, "ingestion_program", places.program)
        code, text = _run(places, places.of_ingestion(handed_in), until)
        exits["ingestion"], printed = code, printed + text
        if code != 0:
            return _ended(places, competition, exits, printed, out)
        places.output.rename(places.input / "res")
        places.output.mkdir()
        shutil.rmtree(places.program)
    else:
        handed_in.rename(places.input / "res")
    _put(unpacked, task, "scoring_program", places.program)
    code, text = _run(places, places.of_scoring(), until)
    exits["scoring"], printed = code, printed + text
    return _ended(places, competition, exits, printed, out)


@dataclass(frozen=True)
class _Places:
    """The folders that a container sees below /app, below a root of ours."""

    root: Path

    def __post_init__(self) -> None:
        for one in (self.program, self.input, self.output, self.root / "shared", self.input_data):
            one.mkdir(parents=True)

    @property
    def program(self) -> Path:
        return self.root / "program"

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def input_data(self) -> Path:
        return self.root / "input_data"

    def of_scoring(self) -> dict[str, Path]:
        """What variables of a scoring program's command stand for."""
        return self._shared() | {"input": self.input, "hidden": self.input / "ref", "predictions": self.input / "res"}

    def of_ingestion(self, code: Path) -> dict[str, Path]:
        """The same for an ingestion program, which is given the code that was handed in."""
        return self._shared() | {
            "input": self.input_data, "ingestion_program": self.program, "submission_program": code,
            "predictions": self.output,
        }  # fmt: skip

    def _shared(self) -> dict[str, Path]:
        return {"program": self.program, "output": self.output, "shared": self.root / "shared", "tmp": self.output}


def _run(places: _Places, variables: Mapping[str, Path], until: float) -> tuple[int | None, str]:
    """Exit code and printed text of the program in its place; None when the time was over."""
    metadata = next(
        (one for one in (places.program / "metadata.yaml", places.program / "metadata") if one.is_file()), None
    )
    if metadata is None:
        raise UserError(f"{places.program.name}: expected a metadata.yaml with a command in the program, found none.")
    read = yaml.safe_load(metadata.read_text())
    command = read.get("command") if isinstance(read, dict) else None
    if not command:
        raise UserError(f"{metadata.name}: expected a `command`, found none.")
    words = [_filled(word, variables) for word in shlex.split(command)]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    # In the image `python3` is the one that has ntire; here it is this one.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["PYTHONUNBUFFERED"] = "1"
    process = subprocess.Popen(
        words, cwd=places.program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=max(until - time.monotonic(), 0.1))
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        code = None
    return code, printable(printed.decode(errors="replace"))


def _filled(word: str, variables: Mapping[str, Path]) -> str:
    """A word of a command with its places filled in: longer names first, as `$input` begins `$input_data`."""
    for name in sorted(variables, key=len, reverse=True):
        word = word.replace(f"${name}", str(variables[name]))
    return word


def _ended(
    places: _Places, competition: Mapping[str, Any], exits: Mapping[str, int | None], printed: str, out: Path
) -> Tried:
    """What the platform makes of exit codes and files."""
    for name in (SCORES, OLD_SCORES, DETAILS):
        (out / name).unlink(missing_ok=True)  # of an upload that was tried before
    shutil.copytree(places.output, out, dirs_exist_ok=True)
    scores, old, reason = _scores(places.output)
    for program, code in exits.items():
        if code is None:
            reason = f"the {program} program was ended after its time limit"
        elif code:
            reason = f"the {program} program exited with {code}"
    columns = [column["key"] for board in competition["leaderboards"] for column in board["columns"]]
    absent = () if reason else tuple(key for key in columns if key not in scores)
    details = out / DETAILS
    return Tried(not reason, reason, scores, old, exits, printed, absent, details if details.is_file() else None)


def _scores(output: Path) -> tuple[dict[str, float], dict[str, float], str]:
    """Scores as Codabench and as CodaLab read them, and why there are none."""
    new, old = output / SCORES, output / OLD_SCORES
    if not new.is_file() and not old.is_file():
        return {}, {}, "Could not find scores file"
    old_read = yaml.safe_load(old.read_text()) if old.is_file() else {}
    read = json.loads(new.read_text()) if new.is_file() else old_read
    for found in (read, old_read):
        if not isinstance(found, dict) or not all(_is_score(value) for value in found.values()):
            return {}, {}, "the scores file holds something else than finite numbers by column"
    return read, old_read, ""


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _put(unpacked: Path, task: Mapping[str, Any], key: str, place: Path) -> None:
    """A part of a task, a zip or a folder, in its place."""
    if not task.get(key):
        return
    part = unpacked / task[key]
    if part.is_dir():
        shutil.copytree(part, place, dirs_exist_ok=True)
    else:
        _unzip(part, place)


def _unzip(file: Path, into: Path) -> None:
    if not file.is_file():
        raise UserError(f"{file}: expected a zip, found {'a folder' if file.is_dir() else 'no such file'}.")
    into.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(file) as packed:
            packed.extractall(into)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NAMES:
            raise
        words = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file}: cannot be unpacked: {words}. The platform takes zips.", exit_code=1) from None


def _files_named(found: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Files that a competition names and that are not there, or are empty where they must not be."""
    named = [("image", found.get("image")), *(("pages", one.get("file")) for one in found.get("pages") or [])]
    if str(found.get("terms", "")).endswith(".md"):
        named.append(("terms", found["terms"]))
    for kind in ("tasks", "phases", "solutions"):
        for one in found.get(kind) or []:
            named += [(f"{kind} {key}", one[key]) for key in PARTS if one.get(key)]
    absent = [(where, str(name)) for where, name in named if not name or not (folder / name).exists()]
    files = [(where, name, folder / name) for where, name in named if name]
    return absent + [(where, str(name)) for where, name, file in files if file.is_file() and not file.stat().st_size]
