"""What `ntire score` asks of strangers' entries: all that `ntire check` asks, each picture decoded once, in the workers."""

import os
import stat
import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ntire import UserError, __version__
from ntire.entry.archive import ArchiveLimits
from ntire.entry.baseline import is_baseline
from ntire.entry.findings import Finding
from ntire.entry.manifest import Submission
from ntire.files import sha256_of
from ntire.picture.folder import passed_over
from ntire.picture.image import SUFFIXES, UnreadableImage
from ntire.review.check import copies_in, examine
from ntire.review.image_check_workers import decoders
from ntire.review.image_checks import BadImage, SeenImage, Wanted, bytes_of, constant
from ntire.review.uploads import Upload
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.opened import AskedFor, RefusedPicture, ScoredPicture, Status
from ntire.scoring.score import Scored
from ntire.scoring.track import NO_RULES, Track

STATUS: dict[str, Status] = {
    "E304": "wrong size",
    "E305": "wrong format",
    "E306": "wrong format",
    "E308": "wrong format",
}
"""Of an image with such a finding; "unreadable" for the others."""
TOLERATED = frozenset({"E310", "E311"})
"""The image has values all the same, which show what is wrong with it; the entry is not ranked."""
FORMALITIES = frozenset({"E201", "E208"})
"""What `check` refuses before an upload and no organiser drops an entry for: its pictures are there and can be compared."""
NAMED = 3
"""Files that are named for each code."""


class Entrance:
    """Reads strangers' pictures for the scorer, and collects what is wrong with them and with their entries."""

    def __init__(self, cache: Cache, *, look: bool = True) -> None:
        """`cache` remembers pictures that nothing is wrong with; without `look` the others are not examined."""
        self._cache = cache
        self._look = look
        self._lock = threading.Lock()
        self._found: dict[Path, list[Finding]] = defaultdict(list)

    def add(self, root: Path, findings: Sequence[Finding]) -> None:
        """What was found wrong with an entry's pictures elsewhere."""
        with self._lock:
            self._found[root] += findings

    def found(self, root: Path) -> tuple[Finding, ...]:
        """What is wrong with an entry's pictures, as far as it was looked at."""
        return tuple(self._found[root])

    def enter(self, upload: Upload, track: Track | None) -> Submission | None:
        """Look at everything in an upload but its pictures; the entry that it is, if it can be scored."""
        manifest, found = None, upload.findings
        if upload.root is not None:
            try:
                manifest, seen = examine(upload.root, track, upload.name)
                found += seen
            except UserError as error:
                found += (Finding("E101", "", "a folder that can be read", str(error)),)
        if manifest is None or any(one.code == "E205" for one in found):
            self._found[upload.path] = list(found)
            return None
        assert upload.root is not None
        self._found[upload.root] = list(found)
        return Submission(upload.root, manifest, None if upload.root == upload.path else upload.path)

    def refusals(self, scored: Scored, baseline: str = "") -> tuple[str, ...]:
        """Each rule that a scored entry breaks, with its code and the files; without those that its rows tell.

        `baseline` as in the rules of its track.
        """
        root = scored.submission.root
        self._found[root] += copies_in(root, scored.submission.pictures)
        names = [row.image for row in scored.rows if row.status == "unexpected"]
        self._found[root] += [Finding("E302", name, "images of the track's inputs", "no such input") for name in names]
        told = {row.code for row in scored.rows if row.status not in ("ok", "unexpected")}
        copied = any(one.code == "E311" for one in self._found[root])
        return self._refused_at(root, told | ({"E311"} if copied and is_baseline(root, baseline) else set()))

    def refused_at(self, upload: Upload) -> tuple[str, ...]:
        """Each rule that an upload breaks which cannot be scored, with its code and the files."""
        return self._refused_at(upload.path, set())

    def remarks_on(self, submission: Submission) -> tuple[str, ...]:
        """What `check` asks for beyond the pictures, and an entry that is scored lacks."""
        if submission.track == NO_RULES:
            return ()
        lacking: dict[str, list[str]] = defaultdict(list)
        for one in self._found[submission.root]:
            if one.code in FORMALITIES:
                lacking[f"{one.code} {one.problem}"].append(one.expected.removeprefix("a line on "))
        return tuple(f"{words} ({', '.join(dict.fromkeys(expected))})" for words, expected in lacking.items())

    def _refused_at(self, root: Path, without: set[str]) -> tuple[str, ...]:
        files: dict[str, list[str]] = defaultdict(list)
        for one in sorted(set(self._found[root]), key=lambda one: (one.code, one.file)):
            if one.breaks_a_rule and one.code not in without and one.code not in FORMALITIES:
                files[f"{one.code} {one.problem}"].append(one.file or one.found)
        return tuple(
            f"{words} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
            for words, names in files.items()
        )

    def pictures(self, submission: Submission) -> dict[str, Path]:
        """See `ntire.scoring.score.Source`: also what only looks like a picture by its name, which is refused when opened."""
        found: dict[str, Path] = {}
        code = submission.root / "method"
        for path in _listed(submission.images, code):
            name = path.relative_to(submission.images).with_suffix("").as_posix()
            if name not in found or path.suffix.lower() == ".png":
                found[name] = path
        return found

    def open(self, submission: Submission, path: Path, asked: AskedFor) -> ScoredPicture | RefusedPicture:
        """See `Source`."""
        lq = asked.size[0] // asked.scale, asked.size[1] // asked.scale
        name = path.relative_to(submission.root).as_posix()
        wanted = Wanted(path, name, size=lq, scale=asked.scale, root=submission.root)
        plain = tuple(asked.results) == ("png8",)
        try:
            data = bytes_of(wanted, asked.size, 4 if plain else 16)
        except BadImage as bad:
            return self._refused(submission, bad.finding)
        sha256 = sha256_of(data)
        decode = partial(decoders().decode, path, data)
        key = key_of(
            "accepted", __version__, sha256, repr((asked.size, asked.scale)), asked.lq.sha256 if asked.lq else ""
        )
        if plain and self._cache.get([key]):
            return ScoredPicture(path, sha256, decode)
        if not self._look:
            return ScoredPicture(path, sha256, decode, examined=False)
        if not plain:
            return self._of_several_formats(submission, path, data, asked)
        seen = decoders().examine(wanted, data, keep=True)
        serious = [one for one in seen.findings if one.code not in TOLERATED]
        if serious or seen.pixels is None:
            return self._refused(submission, *(serious or seen.findings))
        if self._honest(submission, seen, sha256, asked.lq):
            self._cache.note({key: np.ones(1)})
        return ScoredPicture(path, sha256, decode, pixels=seen.pixels)

    def _of_several_formats(
        self, submission: Submission, path: Path, data: bytes, asked: AskedFor
    ) -> ScoredPicture | RefusedPicture:
        """On tracks that take other files than PNGs of 8 bits."""
        name = path.relative_to(submission.root).as_posix()
        try:
            header, pixels = decoders().open(path, data, asked.size)
        except UnreadableImage as error:
            return self._refused(submission, Finding("E307", name, "a picture that can be decoded", str(error)))
        refused = asked.refuse(header)
        if refused is not None:
            expected, _, found = refused.problem.removeprefix("expected ").partition(", found ")
            return self._refused(submission, Finding(refused.code, name, expected, found))
        return ScoredPicture(path, sha256_of(data), lambda: pixels)

    def _honest(self, submission: Submission, seen: SeenImage, sha256: str, lq: ScoredPicture | None) -> bool:
        """Whether it can have come out of a restoration. An input of one colour excuses an output of one colour."""
        given = lq.open() if lq is not None else None
        if given is not None and constant(given):
            return True
        wrong = list(seen.findings)
        if lq is not None and given is not None:
            same = "bytes" if lq.sha256 == sha256 else "pixels" if np.array_equal(given, seen.pixels) else ""  # type: ignore[arg-type]
            if same:
                wrong.append(Finding("E311", seen.name, "a restored picture", f"the same {same} as {lq.path.name}"))
        with self._lock:
            self._found[submission.root] += wrong
        return not wrong

    def _refused(self, submission: Submission, *findings: Finding) -> RefusedPicture:
        with self._lock:
            self._found[submission.root] += findings
        first = findings[0]
        problem = f"{first.code} {first.problem}: expected {first.expected}, found {first.found}"
        return RefusedPicture(STATUS.get(first.code, "unreadable"), problem, first.code)


def _listed(folder: Path, without: Path) -> list[Path]:
    """Everything with a picture's suffix below a folder that is no link, by name: files, links, folders, whatever they are.

    Apart from what lies in the folder `without`.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return []
    except OSError:
        return []
    found: list[Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not passed_over(name) and Path(where, name) != without]
        found += [Path(where, name) for name in (*folders, *files) if _is_picture(name)]
        if len(found) > ArchiveLimits().files or len(Path(where).relative_to(folder).parts) > ArchiveLimits().depth:
            break
    return sorted(found)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
