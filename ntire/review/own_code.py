"""A team's own code put into the folder of its run, so that it is handed in with the images that it made."""

import shutil
from pathlib import Path

from ntire import UserError
from ntire.entry.archive import survey
from ntire.entry.journal import read_header
from ntire.entry.manifest import JOURNAL, Claims, Submission, open_submission, write_manifest
from ntire.files import new_file, open_regular, writable_folder
from ntire.review.code_checks import CODE, METHOD
from ntire.runner.prepare import sha256_of_folder


def bring_code(folder: Path, code: Path) -> Submission:
    """Copy the method in `code`, with its weights, to `method/` of a run's folder and name it in the manifest.

    Hidden files and caches stay behind. Raises UserError for a folder without a method.py, code that has changed since it made
    the images, and a `method/` that has files which `code` has not.
    """
    submission = open_submission(folder)
    if not (code / "method.py").is_file():
        raise UserError(f"--code {code}: expected a folder with a method.py, found none.")
    problems = [*_not_what_ran(folder, code), *_would_be_lost(folder / METHOD, code)]
    if problems:
        raise UserError("\n".join(problems))
    target = folder / METHOD
    if target.resolve() != code.resolve():
        for name in _files_of(code):
            place = target / name
            writable_folder(place.parent)
            with open_regular(code / name, code) as source, new_file(place) as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    method = submission.manifest.method.model_copy(update={"file": CODE})
    write_manifest(folder, submission.manifest.model_copy(update={"method": method}))
    return open_submission(folder)


def claim_what_was_counted(submission: Submission, params: int, macs: int, at: tuple[int, int]) -> None:
    """Write what was counted for what the team does not claim itself."""
    claims: Claims = submission.manifest.claims
    found: dict[str, object] = {} if claims.params_m is not None else {"params_m": params / 1e6}
    if claims.macs_g is None:
        found |= {"macs_g": macs / 1e9, "at": at}
    if found:
        manifest = submission.manifest.model_copy(update={"claims": claims.model_copy(update=found)})
        write_manifest(submission.root, manifest)


def _files_of(code: Path) -> list[str]:
    """What travels, relative to the folder."""
    left = (".", "__pycache__")
    return [name for name in survey(code)[0] if not any(part.startswith(left) for part in name.split("/"))]


def _not_what_ran(folder: Path, code: Path) -> list[str]:
    header = read_header(folder / JOURNAL)
    ran = header.get("code") if header else None
    if ran is None or ran == sha256_of_folder(code):
        return []
    return [
        f"--code {code}: is not the code that made the images of {folder}, or was changed since. "
        f"Run it again: ntire run --team {_as_team(code)} ... -o {folder} --fresh"
    ]


def _would_be_lost(there: Path, code: Path) -> list[str]:
    strange = sorted({*survey(there)[0]} - {*_files_of(code)}) if there.is_dir() else []
    if not strange:
        return []
    return [f"{there}: has {', '.join(strange)}, which {code} has not. Move {there} away, or pack without --code."]


def _as_team(code: Path) -> str:
    return str(code) if "/" in str(code) else f"./{code}"
