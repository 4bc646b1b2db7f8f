"""`ntire pack`: a run's folder as one zip that `ntire check` accepts; the same folder gives the same bytes.

In it are the manifest, the images, the journal, `method/` if there is one, and a factsheet: the user's own, or a template
filled with what was measured and counted.
"""

import shutil
import statistics
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ntire import UserError
from ntire.entry.archive import survey
from ntire.entry.findings import Finding
from ntire.entry.journal import read_header, read_journal
from ntire.entry.manifest import IMAGES, JOURNAL, MANIFEST, Claims, Manifest, Submission, open_submission
from ntire.files import new_file, open_regular, sha256_of, write_atomically
from ntire.method import catalogue
from ntire.method.method_table import facts_of
from ntire.review.check import InputsOf, Report, check
from ntire.review.code_checks import METHOD
from ntire.review.own_code import bring_code, claim_what_was_counted
from ntire.runner.prepare import code_sha256
from ntire.runner.runner import Result
from ntire.scoring.track import all_tracks
from ntire.text import markdown_cell, markdown_table

FACTSHEET = "factsheet.md"
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip can hold, for every member: the same files make the same zip on any day."""
TO_FILL = "_to be filled in_"


@dataclass(frozen=True)
class Packed:
    """What was made; without a file if the entry breaks a rule."""

    report: Report
    file: Path | None = None
    sha256: str | None = None
    size: int | None = None
    """Bytes."""
    factsheet: Path | None = None
    """The template, if it was written now."""


@dataclass(frozen=True)
class CodeCounted:
    """What the code in an entry was counted to cost, or why it could not be."""

    params: int = 0
    macs: int = 0
    at: tuple[int, int] = (0, 0)
    by: str = ""
    problem: str = ""


CountCode = Callable[[Submission], CodeCounted | None]
"""Counts the code of an entry; None for one without."""


def pack(
    folder: Path,
    out: Path | None,
    inputs_of: InputsOf,
    code: Path | None = None,
    count_code: CountCode = lambda submission: None,
) -> Packed:
    """Check a run's folder and, if it breaks no rule, write it to `out` (default: beside it) as a zip.

    The method in the folder `code` is first copied to `method/`, and what it was counted to cost is claimed where nothing else
    is. Images that the run could not make are problems, too. Writes `factsheet.md` into the folder if there is none. Raises
    UserError for a folder that is no entry, code that is not what ran, or a place that cannot be written to.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder of a run, found none.")
    counted = None
    if code is not None:
        submission = bring_code(folder, code)
        counted = count_code(submission)
        if counted is not None and not counted.problem:
            claim_what_was_counted(submission, counted.params, counted.macs, counted.at)
    report = check(folder, None, inputs_of)
    told = {finding.file for finding in report.findings if finding.code == "E301"}
    results = _results(folder)
    failed = [
        Finding("E301", f"{result.image}.png", "an image", f"{result.status}: {result.problem}")
        for result in results
        if result.status != "done" and f"{result.image}.png" not in told
    ]
    report = replace(report, findings=tuple(sorted((*report.findings, *failed), key=lambda one: (one.code, one.file))))
    if not report.valid:
        return Packed(report)
    submission = open_submission(folder)
    counted = counted or count_code(submission)
    file = out or folder.resolve().with_suffix(folder.resolve().suffix + ".zip")
    factsheet = folder / FACTSHEET
    written = not factsheet.exists()
    try:
        if written:
            write_atomically(factsheet, factsheet_of(submission, results, counted))
        _write_zip(file, folder, _members(folder))
    except OSError as error:
        raise UserError(
            f"{file}: cannot be written: {error.strerror or error}. Choose another place with -o."
        ) from None
    return Packed(report, file, sha256_of(file), file.stat().st_size, factsheet if written else None)


def factsheet_of(submission: Submission, results: Sequence[Result], counted: CodeCounted | None = None) -> str:
    """A factsheet in Markdown: what ntire knows filled in, what only the team knows left to it."""
    manifest = submission.manifest
    parts = [
        f"# Factsheet: {_text(manifest.team)}, {_text(manifest.track)}",
        _facts(
            [
                ("team", manifest.team),
                ("members, affiliations, contact", TO_FILL),
                ("track", manifest.track),
                ("method", " ".join(filter(None, (manifest.method.name, manifest.method.variant))) or TO_FILL),
                ("date", manifest.date.isoformat()),
                ("extra data", manifest.extra_data or "none stated"),
                ("tuned by the challenge's metrics", "yes" if manifest.uses_test_metrics else "no"),
                ("deterministic", "yes" if manifest.deterministic else "no"),
            ]
        ),
        f"## Method\n\n{TO_FILL}: idea, network, training data, losses, schedule, ensembles.",
        "## Cost\n\n" + _cost(manifest, counted or _counted(submission)),
        "## Runtime\n\n" + _facts(_runtime(manifest, results)),
        "## Weights\n\n" + _weights(manifest),
        "## Environment\n\n" + _facts([(key, value) for key, value in sorted(manifest.environment.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def _members(folder: Path) -> list[str]:
    """What goes into the zip: scores, caches and hidden files do not."""
    files, _ = survey(folder)
    kept = (MANIFEST, JOURNAL, FACTSHEET)
    return [
        name
        for name in files
        if name in kept
        or (name.startswith((f"{IMAGES}/", METHOD)) and not any(part.startswith(".") for part in name.split("/")))
    ]


def _write_zip(file: Path, folder: Path, names: Sequence[str]) -> None:
    """Members sorted, stored, without times or owners: compressing would tie the bytes to a version of zlib."""
    with new_file(file) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, LONG_AGO)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            info.file_size = (folder / name).lstat().st_size
            with open_regular(folder / name, folder) as source, packed.open(info, "w") as member:
                shutil.copyfileobj(source, member, 1 << 20)


def _results(folder: Path) -> list[Result]:
    """The last result of each image in the journal; raises UserError for a journal that no run wrote."""
    path = folder / JOURNAL
    adapter = TypeAdapter(Result)
    found: dict[str, Result] = {}
    for number, line in enumerate(read_journal(path), 2):
        try:
            result = adapter.validate_python(line)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{path}, line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
                "Restore the journal as the run wrote it, or pack without it."
            ) from None
        found[result.image] = result
    return list(found.values())


def _counted(submission: Submission) -> CodeCounted | None:
    """What `ntire cost` says of the method, if the code that ran is one of the catalogue's; its word alone is not enough."""
    header = read_header(submission.root / JOURNAL)
    track = next((track for track in all_tracks() if track.name == submission.track), None)
    if header is None or track is None:
        return None
    try:
        method = catalogue.find(submission.team, track.inputs, submission.manifest.method.variant or None)
    except UserError:
        return None
    if header.get("code") != code_sha256(method):
        return None
    facts = facts_of(method)
    return CodeCounted(facts["params"], facts["macs"], (facts["at"][0], facts["at"][1]), "ntire")


def _cost(manifest: Manifest, counted: CodeCounted | None) -> str:
    claims: Claims = manifest.claims
    whole = counted if counted and not counted.problem else None
    at = whole.at if whole else None
    rows = [
        ["parameters", _in_units(claims.params_m, "M"), f"{whole.params / 1e6:.4g} M" if whole else ""],
        [
            "multiply-adds" + (f" at {at[0]} x {at[1]}" if at else ""),
            _in_units(claims.macs_g, "G") + (f" at {claims.at[0]} x {claims.at[1]}" if claims.at else ""),
            f"{whole.macs / 1e9:.4g} G" if whole else "",
        ],
    ]
    why_not = (
        counted.problem
        if counted
        else "the code that ran is not one of ntire's methods as they are here, nor is it in the entry"
    )
    note = f"\n\nCounted by {whole.by}." if whole else f"\n\nNot counted: {_text(why_not)}."
    return _table(["", "claimed", "counted by ntire"], rows) + note


def _runtime(manifest: Manifest, results: Sequence[Result]) -> list[tuple[str, object]]:
    claims = manifest.claims
    claimed = f"{claims.runtime_ms:g} ms" if claims.runtime_ms is not None else "not stated"
    claimed += f" at {claims.runtime_at[0]} x {claims.runtime_at[1]}" if claims.runtime_at else ""
    claimed += f" on {claims.device}" if claims.device else ""
    seconds = [result.seconds for result in results if result.status == "done" and result.seconds is not None]
    if not seconds:
        return [("claimed", claimed), ("measured", "not measured: there is no journal of a run")]
    sizes = sorted({(result.height, result.width) for result in results if result.height and result.width})
    shown = ", ".join(f"{height} x {width}" for height, width in sizes[:5]) + (", ..." if len(sizes) > 5 else "")
    memory = max((result.peak_memory_mb or 0.0 for result in results), default=0.0)
    return [
        ("claimed", claimed),
        (
            "measured",
            f"median {statistics.median(seconds):.4g} s an image, {sum(seconds):.4g} s for all {len(seconds)}",
        ),
        ("sizes", shown),
        ("device", manifest.environment.get("device", "not recorded")),
        ("peak memory", f"{memory:.0f} MB" if memory else "not recorded"),
        ("what counts", "restoring alone, without reading and writing; one image after another"),
    ]


def _weights(manifest: Manifest) -> str:
    rows = [
        [one.file, one.sha256, one.license or TO_FILL, one.provenance or "not stated"]
        for one in manifest.method.weights
    ]
    return _table(["file", "sha256", "licence", "provenance"], rows) if rows else "None."


def _facts(rows: Sequence[tuple[str, object]]) -> str:
    return _table(["", ""], [[key, str(value)] for key, value in rows])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(header, ([_text(cell) for cell in row] for row in rows))


def _text(value: str) -> str:
    """A value from a manifest that cannot break out of its cell."""
    return markdown_cell(value)


def _in_units(value: float | None, unit: str) -> str:
    return "not stated" if value is None else f"{value:.4g} {unit}"
