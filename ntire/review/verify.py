"""`ntire verify`: does the submitted code make the submitted images?

The code runs in the sandbox, in a clean tree in which no submitted image lies, on the track's inputs under names that say
nothing. Each result is held against the submitted image. Then the same code is asked again: under the real name, with one
picture repeated among new ones, with one bit flipped, with a part of the picture replaced. Outputs have to follow the pixels.
"""

import json
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ntire import UserError, __version__
from ntire.entry.archive import survey, unpack
from ntire.entry.findings import Finding
from ntire.entry.manifest import IMAGES, MANIFEST, Submission, content_of, open_submission
from ntire.files import writable_folder, write_atomically
from ntire.picture.image import Integers, decode_integers, encode_png, psnr_of, read_bytes
from ntire.picture.raw import facts_file, facts_text
from ntire.review.check import InputsOf, Report, check
from ntire.review.code_checks import CODE
from ntire.review.submitted_method import SubmittedMethod, clean_tree, look, size_of, weights_at_hand
from ntire.runner.device_worker import Input, fingerprint_of
from ntire.runner.runner import find_inputs
from ntire.sandbox.child import Answer, Backend
from ntire.sandbox.limits import Limits
from ntire.scoring.leaderboard import VERIFICATION
from ntire.scoring.track import Track, load_track
from ntire.text import printable

FORMAT = 1
Verdict = Literal["pass", "pass with a note", "fail", "undecided"]
PICTURES = "verification"
"""The folder of pictures beside `verification.json`."""
PATCH = 96
"""Side of the patches that are shown, in pixels."""
WORST = 4
"""Images of which a patch is shown."""
RESTARTS = 3
"""Of a child that ended; then the images that are left are not asked for."""
FASTER = 0.9
"""A repeated picture that takes less than this share of a new one's time was not computed again."""
LEAST_SECONDS = 0.005
"""Differences below are the clock's."""
ROUNDS = 3
"""Repeated pictures and new ones, one after the other; three times as many where they seem to differ."""
FLIPPED_PSNR_DB = 40.0
"""How near the result of a picture with one bit flipped stays to that of the picture."""

Scores = Callable[[Submission, Submission, Sequence[str]], "BothScored"]
"""Metrics of the submitted and of the reproduced images of those names."""


@dataclass(frozen=True)
class BothScored:
    """Both sides of each metric that could be computed, and why the others could not."""

    submitted: Mapping[str, float]
    reproduced: Mapping[str, float]
    totals: tuple[float, float] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify, apart from what."""

    backend: Backend
    sample: int | None = None
    """Images to run; None for all."""
    seed: int = 0
    """Chooses the sample, the probes and the neutral names."""
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Compared:
    """One submitted image and what its code made."""

    image: str
    status: str
    """`identical`, `close`, `different`, or what went wrong: `failed`, `timed out`, `died`, `over a limit`, `not run`."""
    largest: int | None = None
    """Difference in levels."""
    mean: float | None = None
    psnr_db: float | None = None
    """Between the two; infinite (null in JSON) for identical pixels."""
    share: float | None = None
    """Of pixels that differ."""
    seconds: float | None = None
    """By the clock of the parent, from the question to the answer."""
    problem: str = ""


@dataclass(frozen=True)
class Probe:
    """One question about the code beside its images."""

    name: str
    passed: bool | None
    """None: it could not be asked."""
    found: str


@dataclass(frozen=True)
class Verification:
    """What `ntire verify` found; `verification.json` as it stands."""

    entry: str
    team: str | None
    track: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    images: tuple[Compared, ...] = ()
    of: int = 0
    """Images that the entry has in all."""
    seed: int = 0
    probes: tuple[Probe, ...] = ()
    scored: BothScored | None = None
    claimed: Mapping[str, float] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    sandbox: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    printed: str = ""
    """What the code printed, from its beginning and its end."""
    content: str = ""
    """The sha256 of what was verified: a verdict on other files is none."""
    file: Path | None = None

    @property
    def passed(self) -> bool:
        return self.verdict in ("pass", "pass with a note")

    def as_json(self) -> dict[str, Any]:
        """The object that is written and that `--json` prints; without infinities, which JSON has not."""
        found = asdict(replace(self, file=None, findings=()))
        del found["file"]
        found["findings"] = [one.as_json() for one in self.findings]
        stamp = {"format": FORMAT, "date": datetime.now(UTC).isoformat(timespec="seconds"), "ntire": __version__}
        finite: dict[str, Any] = _finite({**stamp, **found})
        return finite


def verify(
    entry: Path,
    track: Track | None,
    inputs_of: InputsOf,
    run_on: InputsOf,
    options: VerifyOptions,
    scores: Scores,
    out: Path,
) -> Verification:
    """Run an entry's code and hold what it makes against what was submitted; write `verification.json` into `out`.

    An entry that `check` refuses is not run. `inputs_of` says what it is checked with, `run_on` what its code gets. Raises
    UserError for wrong usage, inputs that are not there, and (exit code 3) a sandbox or device that does not work.
    """
    report = check(entry, track, inputs_of)
    with tempfile.TemporaryDirectory(prefix="ntire-verify-") as name:
        found = _verified(entry, report, run_on, options, scores, out, Path(name))
    path = writable_folder(out) / VERIFICATION
    write_atomically(path, json.dumps(found.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return replace(found, file=path)


def _verified(
    entry: Path, report: Report, run_on: InputsOf, options: VerifyOptions, scores: Scores, out: Path, scratch: Path
) -> Verification:
    if not report.valid:
        return _refused(report, report.findings)
    root = entry
    if not entry.is_dir():
        root = scratch / "entry"
        unpack(entry, root)
    root = _inner(root)
    try:
        submission = open_submission(root)
    except UserError as error:
        return _refused(report, (Finding("E201", MANIFEST, "a manifest that names the code", str(error)),))
    source = submission.manifest.method.file or CODE
    if not (root / source).is_file():
        return _refused(report, (Finding("E612", source, "the code that made the images", "none"),))
    verifier = _Verifier(submission, source, report, run_on, options, scratch)
    found = verifier.verification(scores)
    verifier.pictures(found.images, out / PICTURES)
    return found


def _inner(root: Path) -> Path:
    """The entry itself, where `check` has tolerated one folder around it."""
    inner = [path for path in root.iterdir() if not path.name.startswith(".")]
    return inner[0] if len(inner) == 1 and inner[0].is_dir() and not (root / MANIFEST).is_file() else root


def _refused(report: Report, findings: Sequence[Finding]) -> Verification:
    return Verification(report.entry, report.team, report.track, "fail", tuple(findings))


def compare(submitted: Integers, reproduced: Integers) -> dict[str, Any]:
    """Largest and mean difference in levels, PSNR between the two, share of pixels that differ."""
    apart = np.abs(submitted.astype(np.int32) - reproduced.astype(np.int32))
    mean_square = float(np.mean(np.square(apart, dtype=np.int64)))
    top = float(np.iinfo(submitted.dtype).max)
    return {
        "largest": int(apart.max(initial=0)),
        "mean": float(apart.mean()),
        "psnr_db": psnr_of(mean_square / top**2),
        "share": float((apart > 0).any(axis=2).mean()),
    }


class _Verifier:
    """One verification; results are collected in the scratch folder."""

    def __init__(
        self,
        submission: Submission,
        source: str,
        report: Report,
        run_on: InputsOf,
        options: VerifyOptions,
        scratch: Path,
    ) -> None:
        self.submission, self.report, self.options = submission, report, options
        self.track = load_track(submission.track)
        folder = run_on(self.track)
        if folder is None:
            raise UserError(f"track {self.track.name}: where are the inputs? Name them with --lq DIR.")
        self.inputs = {self._key(one.name): one for one in find_inputs([folder], self.track.inputs)}
        self.submitted = self._images(submission.images)
        self.rng = random.Random(options.seed)
        self.findings = list(report.findings)
        self.notes: list[str] = []
        self.reproduced = scratch / "reproduced"
        (self.reproduced / IMAGES).mkdir(parents=True)
        (scratch / "code").mkdir(mode=0o755)
        clean_tree(submission.root, scratch / "code")
        weights = weights_at_hand(submission.manifest)
        self.code = SubmittedMethod(
            options.backend,
            scratch / "code",
            source,
            scratch,
            options.device,
            options.limits,
            weights,
            settings=submission.manifest.method.settings,
        )
        self.probed = scratch / "probe"
        self.probed.mkdir()

    def verification(self, scores: Scores) -> Verification:
        """Everything in turn; the child is gone when this returns."""
        try:
            refused = self.code.load()
            if refused is not None:
                self.findings.append(refused)
                return self._result("fail", (), (), None)
            compared = self._compare_all()
            probes = self._probes(compared)
        finally:
            self.code.close()
        scored = self._scored(scores, compared)
        verdict = self._verdict(compared, scored)
        return self._result(verdict, compared, probes, scored)

    def pictures(self, compared: Sequence[Compared], folder: Path) -> list[Path]:
        """Submitted, reproduced and eight times their difference, side by side, where an image differs most."""
        differing = sorted((one for one in compared if one.largest), key=lambda one: (-(one.mean or 0), one.image))
        written = []
        for number, one in enumerate(differing[:WORST], 1):
            theirs = _integers_of(self.submitted[one.image])
            ours = _integers_of(self.reproduced / IMAGES / f"{one.image}.png")
            row, column = _worst_place(theirs, ours)
            a, b = (pixels[row : row + PATCH, column : column + PATCH].astype(np.int32) for pixels in (theirs, ours))
            shown = np.concatenate([a, b, (8 * np.abs(a - b)).clip(0, 255)], axis=1).astype(np.uint8)
            written.append(writable_folder(folder) / f"worst-{number}.png")
            write_atomically(written[-1], encode_png(shown))
        return written

    def _result(
        self, verdict: Verdict, compared: Sequence[Compared], probes: Sequence[Probe], scored: BothScored | None
    ) -> Verification:
        broken = any(one.breaks_a_rule for one in self.findings)
        rules = self.track.reproduction
        return Verification(
            self.report.entry,
            self.report.team,
            self.track.name,
            "fail" if broken else verdict,
            tuple(sorted(self.findings, key=lambda one: (one.code, one.file))),
            tuple(compared),
            len(self.submitted),
            self.options.seed,
            tuple(probes),
            scored,
            {printable(name): value for name, value in self.submission.manifest.score.items()},
            {"levels": rules.levels, "share": rules.share, "total": self.track.tolerance},
            self.code.sandbox,
            tuple(self.notes),
            self.code.printed,
            content_of(self.submission.root),
        )

    def _compare_all(self) -> list[Compared]:
        names = sorted(self.submitted)
        if self.options.sample is not None:
            names = sorted(self.rng.sample(names, min(self.options.sample, len(names))))
        order = list(names)
        self.rng.shuffle(order)
        compared = {name: self._compare_one(name) for name in order}
        return [compared[name] for name in names]

    def _compare_one(self, name: str) -> Compared:
        item = self.inputs.get(name)
        if item is None:
            self._add("E301", f"{name}.png", "an input of that name", "none")
            return Compared(name, "not run", problem="the track has no such input")
        answer, data = self._restored(item, self._fingerprint(item))
        if data is None:
            problem = printable(str(answer.fields.get("problem") or answer.problem))
            status = str(answer.fields.get("status")) if answer.state == "answered" else answer.state
            code = {"timed out": "E608", "over a limit": "E609", "died": "E610"}.get(answer.state, "E607")
            self._add(code, f"{name}.png", "an image", problem)
            return Compared(name, "failed" if status not in STATES else status, seconds=answer.seconds, problem=problem)
        path = self.reproduced / IMAGES / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        theirs = self.submitted[name]
        if theirs.read_bytes() == data:
            return Compared(name, "identical", 0, 0.0, math.inf, 0.0, answer.seconds)
        found = compare(_integers_of(theirs), decode_integers(path, data))
        rules = self.track.reproduction
        close = found["largest"] <= rules.levels and found["share"] <= rules.share
        status = "identical" if not found["largest"] else "close" if close else "different"
        return Compared(name, status, seconds=answer.seconds, **found)

    def _restored(
        self, item: Input, fingerprint: str, path: Path | None = None, name: str | None = None
    ) -> tuple[Answer, bytes | None]:
        """The PNG of an input, if it is one of the right size and form; it has been decoded in a worker."""
        if self.code.started <= RESTARTS and not self.code.running:
            self.code.load()
        height, width = size_of(item.path, self.track.inputs)
        answer = self.code.restore(path or item.path, fingerprint, 4 * height * width + (1 << 20), name)
        if answer.state != "answered" or answer.fields.get("status") != "done":
            return answer, None
        wrong = look(answer.data, item.name, (height, width), self.probed)
        if wrong:
            return replace(answer, fields={"status": "failed", "problem": wrong}), None
        return answer, answer.data

    def _probes(self, compared: Sequence[Compared]) -> list[Probe]:
        """Asked about the picture that takes least time, as they take a dozen runs."""
        done = [one for one in compared if one.status in ("identical", "close", "different")]
        if not done:
            return []
        chosen = min(done, key=lambda one: (one.seconds or 0.0, one.image))
        item = self.inputs[chosen.image]
        first = decode_integers(item.path, (self.reproduced / IMAGES / f"{chosen.image}.png").read_bytes())
        probes = [self._again(item, first)]
        if not probes[0].passed:
            # Whatever else changes an output could be chance.
            return probes
        probes.append(self._renamed(item, first))
        pixels = _changeable(item.path)
        if pixels is None:
            self.notes.append(f"a {item.path.suffix} file cannot be changed by a bit: three probes were left out")
            return probes
        probes.append(self._repeated(item, pixels))
        probes.append(self._flipped(item, pixels, first))
        probes.append(self._replaced(item, pixels, first))
        return probes

    def _ask(self, item: Input, path: Path | None = None, name: str | None = None) -> tuple[float, Integers | None]:
        answer, data = self._restored(item, self._fingerprint(item), path, name)
        return answer.seconds, None if data is None else decode_integers(item.path, data)

    def _renamed(self, item: Input, first: Integers) -> Probe:
        _, named = self._ask(item, name=item.path.name)
        return self._judge(
            "renamed", "E603", item, named is not None and self._near(named, first), "the image of the neutral name"
        )

    def _again(self, item: Input, first: Integers) -> Probe:
        _, again = self._ask(item)
        same = again is not None and np.array_equal(again, first)
        if not same and not self.submission.manifest.deterministic and again is not None:
            return Probe("run again", None, "differs, as the manifest says")
        return self._judge("run again", "E606", item, same, "the same image twice")

    def _repeated(self, item: Input, pixels: Integers) -> Probe:
        """The same picture and new ones of its size in turn, so that nothing but a memory can make a difference."""
        repeated: list[float] = []
        new: list[float] = []
        for number in range(4 * ROUNDS):
            if number == ROUNDS and not _suspicious(repeated, new):
                break
            seconds, _ = self._ask(item)
            repeated.append(seconds)
            seconds, _ = self._ask(item, self._changed(item, _flip(pixels, self.rng)))
            new.append(seconds)
        found = (
            f"{1000 * statistics.median(repeated):.1f} ms again, {1000 * statistics.median(new):.1f} ms for new ones"
        )
        return self._judge("repeated", "E604", item, not _suspicious(repeated, new), "as long as a new picture", found)

    def _flipped(self, item: Input, pixels: Integers, first: Integers) -> Probe:
        _, after = self._ask(item, self._changed(item, _flip(pixels, self.rng)))
        psnr = compare(first, after)["psnr_db"] if after is not None else -math.inf
        expected = f"at least {FLIPPED_PSNR_DB:.0f} dB"
        return self._judge("one bit flipped", "E605", item, psnr >= FLIPPED_PSNR_DB, expected, f"{psnr:.1f} dB")

    def _replaced(self, item: Input, pixels: Integers, first: Integers) -> Probe:
        """A part turned upside down and inverted: whoever computes shows it there."""
        changed = pixels.copy()
        height, width = pixels.shape[:2]
        part = np.s_[height // 4 : height // 4 + max(1, height // 2), width // 4 : width // 4 + max(1, width // 2)]
        changed[part] = np.iinfo(pixels.dtype).max - changed[part][::-1, ::-1]
        if np.array_equal(changed, pixels):
            return Probe("a part replaced", None, "the picture is too plain")
        _, after = self._ask(item, self._changed(item, changed))
        follows = after is not None and bool((after != first).any(axis=2)[part].mean() > 0.01)
        return self._judge("a part replaced", "E605", item, follows, "another image there")

    def _judge(self, name: str, code: str, item: Input, passed: bool, expected: str, found: str = "") -> Probe:
        if not passed:
            self._add(
                code, f"{item.name}.png", expected, found or "another one" if code != "E605" else found or "the same"
            )
        return Probe(name, passed, found or ("as it should" if passed else "not so"))

    def _near(self, one: Integers, other: Integers) -> bool:
        found = compare(one, other)
        near: bool = found["largest"] <= self.track.reproduction.levels
        return near and found["share"] <= self.track.reproduction.share

    def _changed(self, item: Input, pixels: Integers) -> Path:
        """A changed input beside what speaks for the real one."""
        facts = facts_text(item.path)
        suffix = ".npy" if item.path.suffix.lower() == ".npy" else ".png"
        path = self.probed / f"input{suffix}"
        if suffix == ".npy":
            np.save(path, pixels, allow_pickle=False)
        else:
            path.write_bytes(encode_png(pixels))
        if facts is not None:
            path.with_suffix(".toml").write_bytes(facts)
        return path

    def _scored(self, scores: Scores, compared: Sequence[Compared]) -> BothScored | None:
        ran = [one.image for one in compared if one.status in ("identical", "close", "different")]
        if len(ran) != len(compared) or not ran:
            return None
        if all(one.status == "identical" for one in compared) and self.options.sample is not None:
            return None
        ours = Submission(self.reproduced, self.submission.manifest)
        return scores(self.submission, ours, ran)

    def _verdict(self, compared: Sequence[Compared], scored: BothScored | None) -> Verdict:
        whole = len(compared) == len(self.submitted)
        if scored is not None and whole:
            self._claimed(scored)
        different = [one for one in compared if one.status == "different"]
        if not different:
            return "pass"
        rules = self.track.reproduction
        if scored is not None and scored.totals is not None:
            apart = abs(scored.totals[0] - scored.totals[1])
            if apart <= self.track.tolerance:
                self._add(
                    "W602", "", f"the same pixels within {rules.levels} level", f"a total that is {apart:.4f} apart"
                )
                return "pass with a note"
        elif scored is not None and scored.missing and self.track.terms:
            # Whether the score moves is the question, and nobody here can answer it.
            self.notes.append(f"{len(different)} image(s) differ, and without all metrics there is no total to compare")
            return "undecided"
        for one in different[:20]:
            self._add(
                "E601",
                f"{one.image}.png",
                f"at most {rules.levels} level on {rules.share:.1%} of the pixels",
                f"up to {one.largest} levels on {one.share:.1%}, {one.psnr_db:.1f} dB",
            )
        return "fail"

    def _claimed(self, scored: BothScored) -> None:
        """The values that the team claims beside ours: a total within the track's tolerance, a metric within 1 %."""
        values = {**scored.reproduced, **({"total": scored.totals[1]} if scored.totals else {})}
        for name, claimed in self.submission.manifest.score.items():
            if name in values:
                digits = len(repr(claimed).partition(".")[2])
                within = self.track.tolerance if name == "total" else max(0.01 * abs(claimed), 0.5 * 10**-digits)
                if abs(values[name] - claimed) > within:
                    self._add("E611", f"submission.toml: score.{name}", f"{claimed:g}", f"{values[name]:.6g}")

    def _add(self, code: str, file: str, expected: str, found: str) -> None:
        self.findings.append(Finding(code, file, expected, found))

    def _fingerprint(self, item: Input) -> str:
        return fingerprint_of(item.path, self.track.inputs)

    def _key(self, name: str) -> str:
        return name.rpartition("/")[2] if self.track.pair_by == "stem" else name

    def _images(self, folder: Path) -> dict[str, Path]:
        files, _ = survey(folder)
        return {self._key(name.rpartition(".")[0]): folder / name for name in files if name.lower().endswith(".png")}


STATES = ("timed out", "died", "over a limit", "unreadable", "failed")


def _integers_of(path: Path) -> Integers:
    return decode_integers(path, read_bytes(path))


def _changeable(path: Path) -> Integers | None:
    """The samples of an input as they are stored, if it can be written again with a change."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        samples = np.load(path, allow_pickle=False)
        return samples if samples.dtype.kind == "u" else None
    if suffix == ".png" and facts_file(path) is not None:
        import cv2

        mosaic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return mosaic.astype(np.uint16, copy=False) if mosaic is not None and mosaic.ndim == 2 else None
    try:
        return _integers_of(path)
    except UserError:
        return None


def _flip(pixels: Integers, rng: random.Random) -> Integers:
    """One bit, the lowest of one sample."""
    flipped = pixels.copy()
    flipped.reshape(-1)[rng.randrange(pixels.size)] ^= 1
    return flipped


def _suspicious(repeated: Sequence[float], new: Sequence[float]) -> bool:
    again, fresh = statistics.median(repeated), statistics.median(new)
    return again < FASTER * fresh and fresh - again > LEAST_SECONDS


def _worst_place(theirs: Integers, ours: Integers) -> tuple[int, int]:
    """Top left corner of the patch, on a grid of half its side, that differs most."""
    apart = np.abs(theirs.astype(np.int32) - ours.astype(np.int32)).sum(axis=2)
    height, width = apart.shape
    places = [
        (row, column)
        for row in range(0, max(1, height - PATCH + 1), PATCH // 2)
        for column in range(0, max(1, width - PATCH + 1), PATCH // 2)
    ]
    return max(places, key=lambda place: int(apart[place[0] : place[0] + PATCH, place[1] : place[1] + PATCH].sum()))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
