"""What `ntire verify` found, as a file outside the entry: bound to what was verified, sealed against damage and, with an
organiser's key, against forgery.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ntire import UserError
from ntire.entry.manifest import content_of
from ntire.entry.measured import Measured, measured_of
from ntire.files import read_regular
from ntire.text import printable

VERIFICATION = "verification.json"
VERDICTS = ("pass", "pass with a note", "fail", "undecided")
OUT_OF_DATE = "out of date"
CHECKSUM, SIGNATURE = "checksum", "signature"
MOST_BYTES = 64 << 20
SHORTEST_KEY = 16
LONGEST_KEY = 1 << 16
"""Bytes."""


@dataclass(frozen=True)
class Standing:
    """What a verdict is worth for an entry as it is now."""

    words: str = ""
    """For the leaderboard; empty if there is no verdict that counts."""
    note: str = ""
    """Why one that is there does not count."""
    measured: Measured | None = None
    """What the code was found to cost, if that was measured."""
    date: str = field(default="", compare=False)
    """Of the verdict, in UTC."""


def read_key(path: Path) -> bytes:
    """An organiser's key for HMAC-SHA256. Raises UserError for a file that is none."""
    try:
        key = read_regular(path.resolve(), LONGEST_KEY).strip()
    except OSError as error:
        raise UserError(f"--key {path}: cannot be read: {error.strerror or error}.") from None
    if len(key) < SHORTEST_KEY:
        raise UserError(
            f"--key {path}: expected at least {SHORTEST_KEY} bytes, found {len(key)}. Make one: openssl rand -hex 32 > {path}"
        )
    return key


def sealed(verdict: Mapping[str, Any], key: bytes | None) -> dict[str, Any]:
    """A verdict with its checksum and, with a key, its signature."""
    text = _canonical(verdict)
    signed = {SIGNATURE: hmac.new(key, text, "sha256").hexdigest()} if key else {}
    return {**verdict, CHECKSUM: hashlib.sha256(text).hexdigest(), **signed}


def standing_of(file: Path, root: Path, key: bytes | None) -> Standing:
    """What the verdict in `file`, if there is one, is worth for the entry in `root` as it is now."""
    try:
        text = read_regular(file, MOST_BYTES)
    except FileNotFoundError:
        return Standing()
    except OSError as error:
        return _none(file, f"cannot be read: {error.strerror or error}")
    verdict = read_verdict(text)
    if verdict is None:
        return _none(file, "is damaged, or not what `ntire verify` writes")
    if key is not None:
        signature = verdict.get(SIGNATURE)
        if not isinstance(signature, str):
            return _none(file, "is not signed")
        if not hmac.compare_digest(
            hmac.new(key, _canonical(verdict), "sha256").hexdigest().encode(), signature.encode()
        ):
            return _none(file, "is not signed with this key")
    if not verdict.get("content"):
        return _none(file, "does not say what was verified")
    try:
        current = content_of(root)
    except (OSError, UserError) as error:
        return _none(file, f"speaks of an entry that cannot be read: {error}")
    if verdict["content"] != current:
        return Standing(OUT_OF_DATE, f"the entry has changed since it was verified ({printable(str(file))})")
    return Standing(in_short(verdict), measured=measured_of(verdict.get("measured")), date=str(verdict.get("date", "")))


def in_short(verdict: Mapping[str, Any]) -> str:
    """A verdict's word, and on how many images where these were not all."""
    ran, of = len(verdict["images"]), verdict["of"]
    return f"{verdict['verdict']} ({ran} of {of})" if 0 < ran < of else str(verdict["verdict"])


def newest_standing(files: Iterable[Path], root: Path, key: bytes | None) -> Standing:
    """Of verdicts in several places the newest that counts for the entry as it is now; else why the first does not."""
    found = [one for file in files if (one := standing_of(file, root, key)) != Standing()]
    counting = [one for one in found if one.words not in ("", OUT_OF_DATE)]
    return max(counting, key=lambda one: one.date) if counting else next(iter(found), Standing())


def _none(file: Path, why: str) -> Standing:
    return Standing(note=f"the verdict {printable(str(file))} {why}: it counts as none")


def read_verdict(text: bytes) -> dict[str, Any] | None:
    """A verdict whose checksum is right."""
    try:
        verdict = json.loads(text)
        right = isinstance(verdict, dict) and verdict.get(CHECKSUM) == hashlib.sha256(_canonical(verdict)).hexdigest()
    except (ValueError, RecursionError):
        return None
    known = right and verdict.get("verdict") in VERDICTS and isinstance(verdict.get("images"), list)
    return verdict if known and isinstance(verdict.get("of"), int) else None


def _canonical(verdict: Mapping[str, Any]) -> bytes:
    """The bytes that are summed and signed: all of it but the seal, whatever the order and the blanks of the file."""
    body = {key: value for key, value in verdict.items() if key not in (CHECKSUM, SIGNATURE)}
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
