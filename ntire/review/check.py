"""`ntire check`: an entry held against the rules of its track, all problems at once, before anybody scores it.

An entry is a folder, or an archive that is unpacked into a scratch folder by the rules of `ntire.entry.archive`. Submitted code
is run only in a sandbox, only where one is named, and only to see that it imports; `ntire.review.verify` asks more of it.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from ntire import UserError
from ntire.entry.archive import survey, unpack
from ntire.entry.baseline import is_baseline
from ntire.entry.findings import Finding
from ntire.entry.manifest import IMAGES, MANIFEST, Claims, Manifest, MethodUsed
from ntire.entry.verdict import VERIFICATION
from ntire.environment import usable_cores
from ntire.files import line_of, open_regular, read_regular
from ntire.picture.folder import in_lines, passed_over
from ntire.picture.scale import factor
from ntire.picture.suffixes import Result
from ntire.review.code_checks import CODE, METHOD, look_at_method
from ntire.review.image_check_workers import MOST_WORKERS, decoders
from ntire.review.image_checks import SUFFIXES, SeenImage, Wanted, input_of, is_picture, size_in
from ntire.review.submitted_method import SubmittedMethod, clean_tree, size_of
from ntire.runner.runner import look_for_inputs
from ntire.sandbox.child import Backend
from ntire.sandbox.limits import Limits
from ntire.sandbox.scratch import scratch_folder
from ntire.scoring.track import Track, all_tracks
from ntire.text import printable

README = "readme.txt"
MOST_TEXT = 1 << 17
"""Bytes of a manifest or readme.txt."""
MOST_MISTAKES = 100
"""Mistakes in a manifest that are listed one by one."""
README_LINES = {
    "runtime": ("runtime", "run time", "running time"),
    "CPU or GPU": ("cpu", "gpu"),
    "extra data": ("extra data",),
    "other": ("other",),
}
"""The four lines that the challenges ask for, such as `runtime per image [s] : 10.43`, by words before the colon."""
TEAM_LINE = re.compile(
    r"(?:the\s+)?team(?:['’]?s)?[\s_-]*(?:name)?|(?:codabench|codalab)[\s_-]+(?:team|user)[\s_-]*(?:name)?|name\s+of\s+(?:the\s+)?team"
)
"""What stands before the colon of a line with the team's name, in small letters."""

InputsOf = Callable[[Track], Path | None]
"""Where the inputs of a track are, if that is known."""


@dataclass(frozen=True)
class Report:
    """What was found in an entry."""

    entry: str
    team: str | None
    track: str | None
    images: int
    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        """Whether no rule is broken; remarks may be there."""
        return not any(finding.breaks_a_rule for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The object of `ntire check --json`."""
        return {
            "entry": self.entry,
            "team": self.team,
            "track": self.track,
            "valid": self.valid,
            "images": self.images,
            "findings": [finding.as_json() for finding in self.findings],
        }


def check(entry: Path, track: Track | None, inputs_of: InputsOf, sandbox: Backend | None = None) -> Report:
    """Look at an entry, for the track of its manifest or for the one given; with a sandbox, import its code in it.

    Raises UserError for a path where nothing is, inputs that cannot be read, and (exit code 3) a disk that is full.
    """
    name = printable(entry.resolve().name)
    try:
        if entry.is_dir():
            return _Entry(entry, name, track, inputs_of).report(sandbox)
        with scratch_folder() as scratch:
            folder = Path(scratch) / "entry"
            refused = unpack(entry, folder)
            if not folder.is_dir():
                return Report(name, None, track.name if track else None, 0, tuple(refused))
            return _Entry(folder, name, track, inputs_of, refused).report(sandbox)
    except OSError as error:
        raise UserError(f"{entry}: cannot be read: {error.strerror or error}.") from None


def examine(root: Path, track: Track | None, team: str = "") -> tuple[Manifest | None, tuple[Finding, ...]]:
    """What `check` finds in a folder apart from the pictures and their names; and its manifest, if that is in order.

    Where there is none, what a challenge's readme.txt says stands in for it; with neither, the team is called `team`. Raises
    UserError for a folder that cannot be read.
    """
    entry = _Entry(root, printable(root.name), track, lambda track: None)
    entry.no_verdict_of_its_own()
    manifest = entry.manifest() if MANIFEST in entry.files else entry.stand_in(team or root.name)
    for names in entry.images({}).values():
        entry.several(names)
    if manifest is not None:
        entry.findings += look_at_method(root, entry.files, manifest.method)
        entry.claims(manifest.claims)
    return manifest, tuple(entry.findings)


def copies_in(root: Path, pictures: str = IMAGES) -> list[Finding]:
    """E312 for each image of a folder, below `pictures`, that is also shipped elsewhere in it."""
    entry = _Entry(root, printable(root.name), None, lambda track: None)
    prefix = f"{pictures}/" if pictures else ""
    images = [name for name in entry.files if name.startswith(prefix) and (prefix or not name.startswith(METHOD))]
    others = [name for name in entry.files if name not in images and _begins_as_a_picture(root / name)]
    if others:
        heads = {name: _head(root / name, root) for name in images}
        sizes = {found for head in heads.values() if (found := size_in(head)) is not None}
        digests = decoders().digests([root / name for name in images], sizes, root)
        entry.copies([SeenImage(name, (), digest=digest) for name, digest in zip(images, digests, strict=True)], sizes)
    return entry.findings


class _Entry:
    """An entry under examination; what is wrong is collected in `findings`."""

    def __init__(
        self, root: Path, name: str, track: Track | None, inputs_of: InputsOf, refused: Sequence[Finding] = ()
    ) -> None:
        self.root = root
        self.name = name
        self.track = track
        self.inputs_of = inputs_of
        self.files, found = survey(root)
        self.findings = [*refused, *found]

    def no_verdict_of_its_own(self) -> None:
        """An entry comes from who made it: a verdict in it is not ours."""
        for name in self.files:
            if name.rpartition("/")[2] == VERIFICATION and name.count("/") <= 1:
                self._add("E613", name, f"no {VERIFICATION}", "one")

    def report(self, sandbox: Backend | None) -> Report:
        """Every part in turn; none of them depends on another's being in order."""
        self.no_verdict_of_its_own()
        self._unwrap()
        manifest = self.manifest()
        claims = manifest.claims if manifest else self._readme()
        inputs = self._inputs()
        images = self.images(inputs)
        self._names(images, inputs)
        seen = self._look(images, inputs)
        self.copies(seen, {one.size for one in seen if one.size})
        self._excuse_the_baseline()
        method = manifest.method if manifest else MethodUsed()
        self.findings += look_at_method(self.root, self.files, method)
        if sandbox is not None and (method.file or CODE) in self.files:
            self._imports(method.file or CODE, sandbox)
        self.claims(claims)
        return Report(
            self.name,
            printable(manifest.team) if manifest else None,
            self.track.name if self.track else None,
            sum(map(len, images.values())),
            tuple(sorted(self.findings, key=lambda finding: (finding.code, finding.file))),
        )

    def _add(self, code: str, file: str, expected: str, found: str) -> None:
        self.findings.append(Finding(code, file, expected, found))

    def _unwrap(self) -> None:
        """Step into the one folder that everything lies in, if it has around it what an entry has in it."""
        top = _wrapper(self.files, self.track)
        if top:
            self.root /= top
            self.files = [name.removeprefix(f"{top}/") for name in self.files if not name.startswith(".")]
            self._add("W106", "", "the entry itself", f"one folder {top} around it")

    def manifest(self) -> Manifest | None:
        """The manifest, if it is in order; settles the track, too."""
        if MANIFEST not in self.files:
            return None
        try:
            text = read_regular(self.root / MANIFEST, MOST_TEXT, self.root).decode("utf-8-sig")
            given = tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            self._add("E202", MANIFEST, "TOML in UTF-8", str(error) or type(error).__name__)
            return None
        self._settle_track(given.get("track"))
        try:
            return Manifest.model_validate(given)
        except ValidationError as error:
            mistakes = error.errors()
            for item in mistakes[:MOST_MISTAKES]:
                unknown = item["type"] == "extra_forbidden"
                line = line_of(text, [key for key in item["loc"] if isinstance(key, str)])
                where = ".".join(map(str, item["loc"])) + (f", line {line}" if line else "")
                expected = "a known key" if unknown else item["msg"]
                found = "nothing" if item["type"] == "missing" else _shown(item.get("input"))
                self._add("E203" if unknown else "E204", f"{MANIFEST}: {where}", expected, found)
            if len(mistakes) > MOST_MISTAKES:
                self._add("E204", MANIFEST, "no mistakes", f"{len(mistakes) - MOST_MISTAKES} more")
            return None

    def stand_in(self, team: str) -> Manifest | None:
        """A manifest of what a readme.txt and the track say, where an entry has none; None if the track is not known."""
        claims = self._readme()
        name = next((name for name in self.files if name.lower() == README), None)
        stated = _team_of(self._text(name)) if name else ""
        if self.track is None:
            if name is None:
                self._add("E205", MANIFEST, "the track, with --track", "neither a manifest nor a track")
            return None
        made = date.fromtimestamp(self.root.stat().st_mtime)
        return Manifest(team=stated or printable(team) or "unnamed", track=self.track.name, date=made, claims=claims)

    def _settle_track(self, stated: object) -> None:
        # Never by `load_track`: a manifest's "track" must not make us open a file of its choice.
        named = next((track for track in all_tracks() if track.name == stated), None)
        if self.track is None:
            self.track = named
            if named is None:
                known = ", ".join(track.name for track in all_tracks())
                self._add("E205", MANIFEST, f"one of {known}", _shown(stated))
        elif stated != self.track.name:
            self._add("E206", MANIFEST, f'track = "{self.track.name}"', _shown(stated))

    def _readme(self) -> Claims:
        """What a challenge's `readme.txt` says, where it stands in for a manifest."""
        if MANIFEST in self.files:
            return Claims()
        name = next((name for name in self.files if name.lower() == README), None)
        if name is None:
            self._add("E201", MANIFEST, f"a {MANIFEST}, or the {README} of a challenge", "neither")
            return Claims()
        if self.track is None:
            self._add("E205", name, "the track, with --track", f"only a {README}, which does not say it")
        self._add("W207", name, MANIFEST, README)
        stated = _readme_lines(self._text(name))
        for key in README_LINES:
            if key not in stated:
                self._add("E208", name, f"a line on {key}", "none")
        try:
            seconds = float(stated["runtime"]) if "runtime" in stated else None
        except ValueError:
            seconds = None
            self._add("E208", name, "a runtime in seconds an image", stated["runtime"])
        return Claims(runtime_ms=1000 * seconds if seconds is not None and 0 <= seconds < math.inf else None)

    def _text(self, name: str) -> str:
        """A text of the entry's; empty if it cannot be read, which is told."""
        try:
            return _decoded(read_regular(self.root / name, MOST_TEXT, self.root))
        except OSError as error:
            self._add("E208", name, "a text", str(error))
            return ""

    def _inputs(self) -> dict[str, Path]:
        """The inputs by the names that their images must have; empty if it is not known where they are."""
        folder = self.inputs_of(self.track) if self.track else None
        if folder is None or self.track is None:
            where = "a folder of inputs for the track" if self.track else "a track"
            self._add("W314", "", where, "none: only what can be seen without inputs was checked")
            return {}
        looked = look_for_inputs([folder], self.track.inputs)
        found = looked.inputs
        if self.track.count not in (None, len(found)):
            self._add("W315", "", f"{self.track.count} inputs", f"{len(found)} in {folder}")
        for line in in_lines(looked.not_read):
            self._add("W315", "", f"inputs that can be read, in {folder}", line)
        return {self._key(item.name): item.path for item in found}

    def _key(self, name: str) -> str:
        """What an image is found by: its name without the suffix, or the last part of that."""
        by_stem = self.track is not None and self.track.pair_by == "stem"
        return name.rpartition("/")[2] if by_stem else name

    def images(self, inputs: Mapping[str, Path]) -> dict[str, list[str]]:
        """Files that are meant as images, by key: below `images/`, else all pictures of the entry outside `method/`."""
        below = [name for name in self.files if name.startswith(f"{IMAGES}/")]
        prefix = f"{IMAGES}/" if below else ""
        if MANIFEST in self.files and not below:
            self._add("E313", IMAGES, f"images in {IMAGES}/", "none")
            return {}
        candidates = below or [name for name in self.files if not name.startswith(METHOD)]
        found: dict[str, list[str]] = {}
        for name in candidates:
            path = PurePosixPath(name)
            if any(map(passed_over, path.parts)):
                continue
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(str(path.with_suffix("")).removeprefix(prefix), []).append(name)
            elif prefix:
                self._add("E302", name, "pictures only", f"a {path.suffix or 'file without suffix'}")
        if not prefix and inputs:
            found = self._one_folder_less(found, inputs)
        keyed: dict[str, list[str]] = {}
        for stem, names in found.items():
            keyed.setdefault(self._key(stem), []).extend(names)
        return keyed

    def _one_folder_less(self, found: dict[str, list[str]], inputs: Mapping[str, Path]) -> dict[str, list[str]]:
        """Without the folder that all images of a challenge's zip lie in, unless the inputs have it, too."""
        tops = {name.partition("/")[0] for name in found if "/" in name}
        if len(tops) != 1 or any("/" not in name for name in found) or any(key in inputs for key in found):
            return found
        return {name.partition("/")[2]: files for name, files in found.items()}

    def _names(self, images: Mapping[str, Sequence[str]], inputs: Mapping[str, Path]) -> None:
        """Images against inputs or, where those are not known, against the counts of the rules."""
        for names in images.values():
            self.several(names)
        for key in sorted(inputs.keys() - images.keys()):
            self._add("E301", f"{key}.png", f"an image for {inputs[key].name}", "no such file")
        if inputs:
            for key in sorted(images.keys() - inputs.keys()):
                self._add("E302", images[key][0], "images of the track's inputs", "no input of that name")
        elif self.track is not None and self.track.count is not None:
            self._count_subsets(images, self.track)
        elif not images:
            self._add("E313", "", "images", "none")

    def several(self, names: Sequence[str]) -> None:
        """More images than one for an input."""
        for name in names[1:]:
            self._add("E303", name, "one image for each input", f"also {names[0]}")

    def _count_subsets(self, images: Mapping[str, Sequence[str]], track: Track) -> None:
        of_subset = {
            subset: sum(subset in PurePosixPath(names[0]).parts[:-1] for names in images.values())
            for subset in track.subsets
        }
        if any(of_subset.values()):
            for subset, wanted in track.subsets.items():
                if of_subset[subset] != wanted:
                    self._add("E313", subset, f"{wanted} images", f"{of_subset[subset]}")
        elif len(images) != track.count:
            self._add("E313", "", f"{track.count} images", f"{len(images)}")

    def _results(self) -> tuple[Result, ...]:
        """The formats that the track takes."""
        return self.track.results if self.track is not None else ("png8",)

    def _multiple(self, key: str) -> int:
        """What the track cuts inputs and truth to a multiple of."""
        return self.track.multiple_of(key.partition("/")[0]) if self.track is not None else 1

    def _look(self, images: Mapping[str, Sequence[str]], inputs: Mapping[str, Path]) -> list[SeenImage]:
        raw, scale = self.track is not None and self.track.inputs == "raw", self.track.scale if self.track else 1
        pairs = [(name, inputs.get(key)) for key, names in images.items() for name in names]
        if raw:
            # The user's own frames: what they are read with has no place where strangers' pictures are.
            sizes = _in_threads(lambda pair: size_of(pair[1], "raw") if pair[1] else None, pairs)
            wanted = [
                Wanted(self.root / name, name, size=size, scale=scale, results=self._results(), root=self.root)
                for (name, _), size in zip(pairs, sizes, strict=True)
            ]
        else:
            keys = [key for key, names in images.items() for _ in names]
            wanted = [
                Wanted(self.root / name, name, size=_cut(lq, multiple), results=self._results(), root=self.root)
                if lq and (multiple := self._multiple(key)) > 1
                else Wanted(self.root / name, name, lq, scale=scale, results=self._results(), root=self.root)
                for key, (name, lq) in zip(keys, pairs, strict=True)
            ]
        seen = decoders().look(wanted)
        self.findings += [finding for one in seen for finding in one.findings]
        self._scales(wanted, seen)
        return seen

    def _excuse_the_baseline(self) -> None:
        copied = any(one.code == "E311" for one in self.findings)
        if copied and is_baseline(self.root, self.track.baseline if self.track else ""):
            self.findings = [one for one in self.findings if one.code != "E311"]

    def _scales(self, wanted: Sequence[Wanted], seen: Sequence[SeenImage]) -> None:
        """Several scales in one folder are a mistake of the whole entry, which a line for each image would hide."""
        if self.track is None or self.track.scale == 1:
            return
        scale = self.track.scale
        pairs = [(input_of(asked)[1], one.size) for asked, one in zip(wanted, seen, strict=True)]
        scales = Counter(
            times
            for size, found in pairs
            if size and found and (times := factor(found, (size[0] // scale, size[1] // scale)))
        )
        if len(scales) > 1:
            found = ", ".join(f"{count} of x{times}" for times, count in scales.most_common())
            self._add("E316", IMAGES, f"images of one scale, x{scale}", found)

    def copies(self, seen: Sequence[SeenImage], sizes: set[tuple[int, int]]) -> None:
        """Finished images that lie elsewhere in the entry: what code shows instead of what it computes."""
        by_digest = {one.digest: one.name for one in reversed(seen) if one.digest}
        names = {one.name for one in seen}
        others = [name for name in self.files if name not in names]
        # Most other files are no pictures, which their first bytes tell without a decoder.
        others = [name for name in others if _begins_as_a_picture(self.root / name)]
        digests = decoders().digests([self.root / name for name in others], sizes, self.root)
        for name, digest in zip(others, digests, strict=True):
            if digest in by_digest:
                self._add("E312", by_digest[digest], "a picture that the method makes", f"the same pixels as {name}")

    def _imports(self, source: str, sandbox: Backend) -> None:
        """What importing shows and reading does not; one word on it is enough."""
        if {finding.code for finding in self.findings} & {"E404", "E405", "E406"}:
            return
        with scratch_folder() as name:
            code = Path(name) / "code"
            code.mkdir(mode=0o755)
            clean_tree(self.root, code)
            with SubmittedMethod(
                sandbox, code, source, Path(name), "cpu", Limits(start_seconds=120.0), {}
            ) as submitted:
                found = submitted.load("import")
        if found is not None:
            self.findings.append(found)

    def claims(self, claims: Claims) -> None:
        if all(value is None for value in (claims.params_m, claims.macs_g, claims.runtime_ms)):
            self._add("W501", MANIFEST, "params_m, macs_g, runtime_ms", "none of them")
        if self.track is None:
            return
        for spent in self.track.budgets.hold_claims(claims):
            if spent.value is None:
                stated = getattr(claims, spent.name)
                other = f"{stated:.10g} at another size" if stated is not None else "nothing"
                self._add("E503", MANIFEST, spent.rule, other)
            elif spent.margin is not None and spent.over:
                self._add("E502", MANIFEST, spent.rule, f"{spent.value:.10g}, {-spent.margin:.3%} over")


def inner_folder(root: Path, track: Track | None) -> Path:
    """The folder with the manifest: `root`, or the one folder in it that `check` tolerates around an entry."""
    return root / _wrapper(survey(root)[0], track)


def _wrapper(files: Sequence[str], track: Track | None) -> str:
    visible = [name for name in files if not any(map(passed_over, name.split("/")))]
    tops = {name.partition("/")[0] for name in visible}
    if len(tops) != 1 or visible == [*tops]:
        return ""
    (top,) = tops
    firsts = {name.removeprefix(f"{top}/").partition("/")[0].lower() for name in visible}
    own = {MANIFEST, README, IMAGES, *(subset.lower() for subset in (track.subsets if track else ()))}
    return top if firsts & own else ""


def says_a_readme_line(path: Path, root: Path) -> bool:
    """Whether a readme.txt in a folder is one of a challenge's uploads, and not about several of them."""
    try:
        text = _decoded(read_regular(path, MOST_TEXT, root))
    except OSError:
        return False
    return bool(_readme_lines(text) or _team_of(text))


def _decoded(text: bytes) -> str:
    """A text as Windows and others write it."""
    code = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return text.decode(code, errors="replace")


def _team_of(text: str) -> str:
    """The team's name, if a line of a readme.txt says it."""
    for line in text.splitlines():
        head, colon, value = line.partition(":")
        if colon and value.strip() and TEAM_LINE.fullmatch(head.strip(" \t*#-_[]").lower()):
            return printable(" ".join(value.strip(" \t*").split()))
    return ""


def _readme_lines(text: str) -> dict[str, str]:
    """The value of each of README_LINES that is there."""
    stated: dict[str, str] = {}
    for line in text.splitlines():
        head, colon, value = line.partition(":")
        key = next((key for key, words in README_LINES.items() if any(word in head.lower() for word in words)), None)
        if colon and key is not None and (value.strip() or key == "other"):
            stated.setdefault(key, value.strip())
    return stated


def _shown(value: object) -> str:
    """A value of a manifest in few characters, however deep it is nested."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else repr(value)[:80]


def _begins_as_a_picture(path: Path) -> bool:
    return is_picture(_head(path))


def _head(path: Path, below: Path | None = None) -> bytes:
    """The first bytes of a file; none of what is no file."""
    try:
        with open_regular(path, below) as file:
            return file.read(24)
    except OSError:
        return b""


def _cut(lq: Path, multiple: int) -> tuple[int, int]:
    height, width = size_of(lq, "general")
    return height - height % multiple, width - width % multiple


def _in_threads(look: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results in the order of the items; reading runs without the interpreter's lock, so threads are enough."""
    with ThreadPoolExecutor(min(MOST_WORKERS, usable_cores())) as pool:
        return list(pool.map(look, items))
