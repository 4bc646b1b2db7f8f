"""`ntire verify`: does the submitted code make the submitted images?

The code runs in the sandbox, in a clean tree in which no submitted image lies, on the track's inputs under names that say
nothing. Each result is held against the submitted image. Then the same code is asked again, about pictures that the seed
chooses and the one that took longest: see `ntire.review.questions`. A pass says that the code reproduces the images: no more.
"""

import math
import random
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
from ntire.entry.measured import Measured, held_against
from ntire.entry.verdict import VERIFICATION, sealed
from ntire.files import read_regular, writable_folder, write_atomically
from ntire.picture.image import Integers, encode_png, psnr_of
from ntire.picture.scale import enlarged
from ntire.review.check import InputsOf, Report, check, inner_folder
from ntire.review.code_checks import CODE, Blob, unexplained
from ntire.review.image_check_workers import decoders
from ntire.review.image_checks import MOST_BYTES
from ntire.review.probes import Gap
from ntire.review.questions import Probe, Questions
from ntire.review.submitted_method import SubmittedMethod, clean_tree, look, size_of, weights_at_hand
from ntire.runner.device_worker import Input, fingerprint_of
from ntire.runner.runner import find_inputs
from ntire.sandbox.child import Answer, Backend
from ntire.sandbox.limits import Limits
from ntire.sandbox.scratch import scratch_folder
from ntire.scoring.track import Track, load_track
from ntire.text import printable, printable_json

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
Scores = Callable[[Submission, Submission, Sequence[str]], "BothScored"]
"""Metrics of the submitted and of the reproduced images of those names."""
Measure = Callable[[Submission, Track, Sequence[Path]], Measured]
"""Counts and times an entry's code, on those inputs."""


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
    probes: int = 4
    """Pictures that are asked about again, the one that took longest among them."""
    fresh: int = 4
    """Inputs made from other pictures."""
    strict: bool = False
    """Whether every picture gets a process of its own."""
    measure: Measure | None = None
    """How its code is counted and timed; None for not at all."""


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
    gaps: Mapping[str, Gap] = field(default_factory=dict)
    """How much better submitted inputs are restored than the same ones changed, and than other pictures."""
    data: tuple[Blob, ...] = ()
    """Files of `method/` that no declared weights explain: where answers could lie."""
    scored: BothScored | None = None
    claimed: Mapping[str, float] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    sandbox: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    printed: str = ""
    """What the code printed, from its beginning and its end."""
    content: str = ""
    """The sha256 of what was verified: a verdict on other files is none."""
    measured: Measured | None = None
    """What its code was found to cost."""
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
    truth_of: InputsOf = lambda track: None,
    key: bytes | None = None,
) -> Verification:
    """Run an entry's code and hold what it makes against what was submitted; write `verification.json` into `out`, signed
    if there is a `key`.

    An entry that `check` refuses is not run. `inputs_of` says what it is checked with, `run_on` what its code gets, `truth_of`
    where the ground truth is, if it is known. Raises
    UserError for wrong usage, inputs that are not there, and (exit code 3) a sandbox or device that does not work.
    """
    report = check(entry, track, inputs_of)
    with scratch_folder() as name:
        found = _verified(entry, report, track, run_on, options, scores, out, Path(name), truth_of)
    path = writable_folder(out) / VERIFICATION
    write_atomically(path, printable_json(sealed(found.as_json(), key), indent=2, allow_nan=False) + "\n")
    return replace(found, file=path)


def _verified(
    entry: Path,
    report: Report,
    track: Track | None,
    run_on: InputsOf,
    options: VerifyOptions,
    scores: Scores,
    out: Path,
    scratch: Path,
    truth_of: InputsOf,
) -> Verification:
    if not report.valid:
        return _refused(report, report.findings, options.seed)
    root = entry
    if not entry.is_dir():
        root = scratch / "entry"
        unpack(entry, root)
    track = track or (load_track(report.track) if report.track else None)
    root = inner_folder(root, track)
    try:
        submission = open_submission(root)
    except UserError as error:
        return _refused(
            report, (Finding("E201", MANIFEST, "a manifest that names the code", str(error)),), options.seed
        )
    source = submission.manifest.method.file or CODE
    if not (root / source).is_file():
        return _refused(report, (Finding("E612", source, "the code that made the images", "none"),), options.seed)
    verifier = _Verifier(
        submission, source, report, track or load_track(submission.track), run_on, options, scratch, truth_of
    )
    found = verifier.verification(scores)
    verifier.pictures(found.images, out / PICTURES)
    return found


def _refused(report: Report, findings: Sequence[Finding], seed: int) -> Verification:
    return Verification(report.entry, report.team, report.track, "fail", tuple(findings), seed=seed)


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
        track: Track,
        run_on: InputsOf,
        options: VerifyOptions,
        scratch: Path,
        truth_of: InputsOf,
    ) -> None:
        self.submission, self.report, self.options, self.source = submission, report, options, source
        self.content = content_of(submission.root)
        self.track = track
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
        truth = truth_of(self.track)
        self.truths = self._images(truth) if truth is not None else {}
        self.gaps: Mapping[str, Gap] = {}
        self.measured: Measured | None = None
        self.restarts = 0

    def verification(self, scores: Scores) -> Verification:
        """Everything in turn; the child is gone when this returns."""
        try:
            refused = self.code.load() or self._other_scale()
            if refused is not None:
                self.findings.append(refused)
                return self._result("fail", (), (), None)
            compared = self._compare_all()
            probes = self._probes(compared)
        finally:
            self.code.close()
        scored = self._scored(scores, compared)
        self._measure()
        if content_of(self.submission.root) != self.content:
            raise UserError(f"{self.submission.root}: changed while it was verified. Verify it again.", exit_code=3)
        verdict = self._verdict(compared, scored)
        return self._result(verdict, compared, probes, scored)

    def _other_scale(self) -> Finding | None:
        """Code that says it makes pictures of another scale need not be asked for one."""
        facts, scale = self.code.facts, self.track.scale
        if facts is None or facts.scale == scale:
            return None
        return Finding("E617", self.source, f"scale {scale}, as track {self.track.name} has it", f"scale {facts.scale}")

    def pictures(self, compared: Sequence[Compared], folder: Path) -> list[Path]:
        """Submitted, reproduced and eight times their difference, side by side, where an image differs most."""
        differing = sorted((one for one in compared if one.largest), key=lambda one: (-(one.mean or 0), one.image))
        written = []
        for number, one in enumerate(differing[:WORST], 1):
            theirs = self._given(one.image)[1]
            ours = self._made(one.image)
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
            self.gaps,
            tuple(unexplained(self.submission.root, self.submission.manifest.method)),
            scored,
            {printable(name): value for name, value in self.submission.manifest.score.items()},
            {"levels": rules.levels, "share": rules.share, "total": self.track.tolerance},
            self.code.sandbox,
            tuple(self.notes),
            self.code.printed,
            self.content,
            self.measured,
        )

    def _measure(self) -> None:
        """What the code costs, held against what is claimed and what the track allows."""
        if self.options.measure is None:
            return
        paths = [one.path for one in self.inputs.values()]
        self.measured = measured = self.options.measure(self.submission, self.track, paths)
        claims = self.submission.manifest.claims
        self.findings += held_against(claims, measured)
        for spent in self.track.budgets.hold_entry(claims, measured):
            if spent.over and spent.source == "measured":
                self._add("E502", MANIFEST, spent.rule, f"{spent.value:.10g} measured")

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
        given, theirs = self._given(name)
        if given == data:
            return Compared(name, "identical", 0, 0.0, math.inf, 0.0, answer.seconds)
        found = compare(theirs, decoders().decode(path, data))
        rules = self.track.reproduction
        close = found["largest"] <= rules.levels and found["share"] <= rules.share
        status = "identical" if not found["largest"] else "close" if close else "different"
        return Compared(name, status, seconds=answer.seconds, **found)

    def _given(self, name: str) -> tuple[bytes, Integers]:
        """A submitted image, bytes and pixels: a stranger's, so it is decoded in a process of its own."""
        path = self.submitted[name]
        data = read_regular(path, MOST_BYTES, self.submission.root)
        return data, decoders().decode(path, data)

    def _made(self, name: str) -> Integers:
        """The reproduced one."""
        path = self.reproduced / IMAGES / f"{name}.png"
        return decoders().decode(path, path.read_bytes())

    def _restored(
        self, item: Input, fingerprint: str, path: Path | None = None, name: str | None = None
    ) -> tuple[Answer, bytes | None]:
        """The PNG of an input, if it is one of the right size and form; it has been decoded in a worker."""
        if self.options.strict:
            self.code.load()
        elif self.restarts < RESTARTS and not self.code.running:
            self.restarts += 1
            self.code.load()
        lq, scale = size_of(path or item.path, self.track.inputs), self.track.scale
        height, width = enlarged(lq, scale)
        answer = self.code.restore(path or item.path, fingerprint, 4 * height * width + (1 << 20), name)
        if answer.state != "answered" or answer.fields.get("status") != "done":
            return answer, None
        wrong = look(answer.data, item.name, lq, scale, self.probed)
        if wrong:
            return replace(answer, fields={"status": "failed", "problem": wrong}), None
        return answer, answer.data

    def _probes(self, compared: Sequence[Compared]) -> list[Probe]:
        """Asked about pictures that the seed chooses, and the one that took longest: code cannot tell which will be."""
        done = [one for one in compared if one.status in ("identical", "close", "different")]
        if not done:
            return []
        slowest = max(done, key=lambda one: (one.seconds or 0.0, one.image))
        chosen = self.rng.sample(done, min(self.options.probes, len(done)))
        if slowest not in chosen:
            chosen[-1] = slowest
        pictures = [(self.inputs[one.image], self._made(one.image)) for one in chosen]
        truths = {self.inputs[key].name: path for key, path in self.truths.items() if key in self.inputs}
        questions = Questions(self.track, self._ask, self._near, truths, self.rng, self.probed)
        facts = self.code.facts
        questions.ask(
            pictures,
            deterministic=self.submission.manifest.deterministic,
            own_process=self.options.strict,
            local=facts is None or facts.tiling != "global",
            fresh=self.options.fresh,
        )
        self.findings += questions.findings
        self.notes += questions.notes
        self.gaps = questions.gaps
        return questions.probes

    def _ask(self, item: Input, path: Path | None = None, name: str | None = None) -> tuple[float, Integers | None]:
        """Seconds of computing and pixels: processor time, which other programs do not lengthen, where it can be had."""
        before, started = self.code.cpu_seconds(), self.code.started
        answer, data = self._restored(item, self._fingerprint(item), path, name)
        after = self.code.cpu_seconds()
        known = before is not None and after is not None and self.code.started == started
        seconds = (after or 0) - (before or 0) if known else answer.seconds
        return seconds, None if data is None else decoders().decode(item.path, data)

    def _near(self, one: Integers, other: Integers) -> bool:
        found = compare(one, other)
        near: bool = found["largest"] <= self.track.reproduction.levels
        return near and found["share"] <= self.track.reproduction.share

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
