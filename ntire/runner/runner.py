"""Inputs to restored PNGs: decode ahead, restore, encode behind; what is done is in the journal and is not done twice.

read: file -> integers | restore, one thread a device: integers -> integers | write: integers -> PNG | journal, in order
"""

import contextlib
import copy
import dataclasses
import errno
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ntire import UserError, __version__
from ntire.entry.journal import Journal
from ntire.entry.manifest import IMAGES, JOURNAL, MANIFEST, Claims, Manifest, MethodUsed, write_manifest
from ntire.environment import environment, memory_to_use, usable_cores
from ntire.files import sha256_of, sweep, writable_folder, write_atomically
from ntire.method import Method
from ntire.method.face_alignment import Finder
from ntire.picture import image as images
from ntire.picture import unclipped
from ntire.picture.folder import NotRead, in_lines, walk
from ntire.picture.suffixes import PICTURES, RAW, RAW_FACTS
from ntire.runner.backends import version_of
from ntire.runner.device_worker import Decoded, Device, DeviceLost, RandomTurns, Restored, fingerprint_of, finish, why
from ntire.runner.device_worker import Input as Input
from ntire.runner.device_worker import Result as Result
from ntire.runner.host_device_copy import pinned
from ntire.runner.pipeline import LeftAtOnce, Pipeline, Settled, StageUse, Station
from ntire.runner.prepare import Options, Prepared
from ntire.runner.speedups import Effect
from ntire.sandbox.scratch import Terminated

AHEAD = 1
"""Pictures that may wait in front of the device, and in front of the writers."""
ROOM, ROOM_A_CORE = 400_000_000, 75_000_000
"""Bytes of pictures, as they come and as they go: five of 12 megapixels, and one more of them for every core above that."""
UNPACKED = 5
"""Times the size of a file, where its head does not tell how large its picture is: a raw frame and what becomes of it."""
OF_ITS_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
"""What one picture's name brings about, while the disk is in order: too long, not UTF-8, or the name of a folder."""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    out: Path
    results: tuple[Result, ...]
    """Of this run and of earlier ones that it went on from, in the order of the inputs."""
    computed: int
    """How many of them were restored now."""
    seconds: float
    stages: tuple[StageUse, ...] = ()
    """How busy reading, restoring and writing were."""
    not_read: tuple[NotRead, ...] = ()
    """What lies beside the inputs and was passed over, with the reasons."""
    effect: Effect | None = None
    """What precision and speed-ups cost, on the first picture restored; None where everything is exact."""
    remarks: tuple[str, ...] = ()
    """What was wrong with the journal, and that it went on all the same."""

    @property
    def bottleneck(self) -> StageUse | None:
        """The busiest stage; None if nothing was restored."""
        return max(self.stages, key=lambda stage: stage.share) if self.computed and self.stages else None

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.status != "done"]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "images": [dataclasses.asdict(result) for result in self.results],
            "computed": self.computed,
            "seconds": round(self.seconds, 3),
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "bottleneck": self.bottleneck.name if self.bottleneck else None,
            "effect": dataclasses.asdict(self.effect) if self.effect else None,
            "not_read": [dataclasses.asdict(one) for one in self.not_read],
        }


class Watcher:
    """Hears what a run does while it does it; a plain function hears the results alone."""

    def __call__(self, result: Result, computed: bool) -> None:
        """An image is done, restored now or by an earlier run."""

    def advanced(self, image: str, done: int, of: int) -> None:
        """So many tiles of an image are done; called by the threads that restore."""

    def stopping(self, signal: str) -> None:
        """Ctrl-C ("SIGINT"), or SIGTERM or SIGHUP: nothing new begins, what is in work is finished."""


@dataclass(frozen=True)
class Inputs:
    """What there is to restore, and what lies beside it and is not read, with the reasons."""

    inputs: tuple[Input, ...]
    not_read: tuple[NotRead, ...] = ()


def find_inputs(given: Sequence[Path], track: str) -> list[Input]:
    """The inputs of `look_for_inputs`."""
    return list(look_for_inputs(given, track).inputs)


def look_for_inputs(given: Sequence[Path], track: str) -> Inputs:
    """Files, and files below folders with a suffix that the track knows, in stable order, by their names in NFC.

    Raises UserError for a path that is not there, a folder without inputs, or inputs of one name.
    """
    suffixes, quiet = (RAW, RAW_FACTS) if track == "raw" else (PICTURES | {unclipped.SUFFIX}, frozenset[str]())
    inputs: list[Input] = []
    not_read: list[NotRead] = []
    for path in given:
        if path.is_dir():
            found = walk(path, suffixes, quiet=quiet)
            if not found.pictures:
                why_none = "".join(f"\n  {line}" for line in in_lines(found.not_read))
                raise UserError(
                    f"{path}: expected inputs of track {track} ({', '.join(sorted(suffixes))}), found none.{why_none}"
                )
            inputs += [Input(one.path, one.name) for one in found.pictures]
            not_read += found.not_read
        elif path.is_file():
            inputs.append(Input(path, unicodedata.normalize("NFC", path.stem)))
        else:
            raise UserError(f"{path}: expected a file or folder to restore, found nothing there.")
    _refuse_equal_names(inputs)
    return Inputs(tuple(inputs), tuple(not_read))


def _refuse_equal_names(inputs: Iterable[Input]) -> None:
    """Raises UserError that lists the inputs whose results would be one file, here or on systems that ignore case."""
    named: dict[str, Path] = {}
    problems = []
    for item in inputs:
        other = named.setdefault(item.name.casefold(), item.path)
        if other != item.path:
            nfc = [unicodedata.normalize("NFC", str(path)) for path in (other, item.path)]
            alike = " (their accents are written in two ways)" if nfc[0] == nfc[1] else ""
            problems.append(f"{other} and {item.path} would both become {item.name}.png{alike}. Rename one of them.")
    if problems:
        raise UserError("\n".join(problems))


def refuse_to_overwrite(out: Path, inputs: Iterable[Input]) -> None:
    """Raise UserError where results would take the place of pictures that no run has made, or of their own inputs."""
    place = out / IMAGES
    there = [] if (out / JOURNAL).is_file() or not place.is_dir() else walk(place, links=False).pictures
    if there:
        raise UserError(
            f"{place}: expected nothing, or what an earlier run made, found {len(there)} picture(s), such as "
            f"{there[0].path.name}, and no {JOURNAL} beside it. Choose another folder with -o."
        )
    own = place.resolve()
    among = next((item.path for item in inputs if own in item.path.resolve().parents), None)
    if among is not None:
        raise UserError(
            f"{among}: expected inputs elsewhere, found one in {place}, where the results go. Choose another folder with -o."
        )


def remove_images(out: Path) -> None:
    """Remove the images of an earlier run, of which the journal says no more; raises OSError."""
    for one in walk(out / IMAGES, {".png"}, links=False).pictures:
        one.path.unlink()


def remove_outdated(out: Path, result: Result) -> None:
    """Remove what an earlier run made of another picture of that name, where there is no image of this one."""
    if result.status != "done" and result.input_sha256 is not None:
        with contextlib.suppress(OSError):
            (out / IMAGES / f"{result.image}.png").unlink()


def run(
    prepared: Prepared,
    inputs: Sequence[Input],
    out: Path,
    track: str,
    report: Callable[[Result, bool], None] = lambda result, computed: None,
    find: Finder | None = None,
    *,
    header: Mapping[str, Any] | None = None,
    devices: Sequence[Device] | None = None,
) -> Summary:
    """Restore `inputs` into the submission folder `out` for the track of that full name.

    What an earlier run finished (same method, weights, settings and input, output still there) is kept. `report` gets
    every result and whether it was computed now; a `Watcher` hears more. An input that cannot be restored is a result, not
    an exception; a disk that cannot be written to raises UserError (exit code 3), and what is finished stays. With `find`,
    inputs are whole pictures: each face that it finds is restored and put back, the rest stays as it is. `header` is that of
    the journal where it is known, `devices` those of an earlier run of the same method, to go on with.
    """
    began = time.monotonic()
    refuse_to_overwrite(out, inputs)
    sweep(writable_folder(writable_folder(out) / IMAGES), below=True)
    options = prepared.options
    results: dict[str, Result] = {}
    kept, seconds = 0, 0.0

    def note(outcome: Result | _Kept) -> None:
        nonlocal kept, seconds
        computed = isinstance(outcome, Result)
        result = outcome if isinstance(outcome, Result) else outcome.result
        if computed:
            remove_outdated(out, result)
            journal.append(dataclasses.asdict(result))
            seconds += result.seconds or 0.0
        kept += not computed
        results[result.image] = result
        report(result, computed)

    watcher = report if isinstance(report, Watcher) else Watcher()
    devices = begin(devices or devices_of(prepared, find), watcher)
    header = header or header_of(prepared, track, whole=find is not None)
    with Journal(out / JOURNAL, header, fresh=options.fresh) as journal:
        _begin_folder(prepared, out, track, journal)
        finished = {line["image"]: line for line in journal.lines if line["status"] == "done"}
        flow = _flow(prepared.method, inputs, finished, out, devices, options.bits)
        with flow:
            try:
                for outcome in flow:
                    note(outcome)
            except (KeyboardInterrupt, Terminated, OSError, DeviceLost) as stopped:
                if isinstance(stopped, KeyboardInterrupt | Terminated):
                    watcher.stopping(stopped.name if isinstance(stopped, Terminated) else "SIGINT")
                _end(flow, note)
                raise _why_stopped(stopped, out, results.values(), len(inputs)) from stopped
    ordered = tuple(results[item.name] for item in inputs)
    effect = next((device.effect for device in devices if device.effect), None)
    took = time.monotonic() - began
    return Summary(
        out, ordered, len(inputs) - kept, took, flow.use({"restore": seconds}), (), effect, tuple(journal.remarks)
    )


def _begin_folder(prepared: Prepared, out: Path, track: str, journal: Journal) -> None:
    """Leave no image that the journal does not know, and write the manifest of a new run."""
    if not journal.lines:
        remove_images(out)
    if prepared.options.fresh or not (out / MANIFEST).exists():
        write_manifest(out, _manifest(prepared, track, out.name))


def _flow(
    method: Method,
    inputs: Sequence[Input],
    finished: dict[str, dict[str, Any]],
    out: Path,
    devices: Sequence[Device],
    bits: int,
) -> "Pipeline[Result | _Kept]":
    """The three stages."""
    stages = (
        Station("read", [partial(_read, method, finished, out)] * _threads(1)),
        Station("restore", [device.restore for device in devices]),
        Station("write", [partial(_write, out)] * _threads(4), ready=_arrived),
    )
    return Pipeline(inputs, stages, AHEAD, partial(_bytes_of, method, bits), _room())


def _bytes_of(method: Method, bits: int, item: Input) -> int:
    """About what a picture takes on the host, as it comes and as it goes."""
    sides = images.sides_at_a_glance(item.path)
    if sides is not None:
        return 3 * sides[0] * sides[1] * (1 + method.scale**2 * bits // 8)
    try:
        return UNPACKED * item.path.stat().st_size
    except OSError:
        return 0  # it is told when it is read


def _room() -> int:
    """Bytes of pictures that are under way at once: more cores need more to work on, small machines have less."""
    return min(max(ROOM, usable_cores() * ROOM_A_CORE), memory_to_use("cpu"))


def _end(flow: "Pipeline[Result | _Kept]", note: "Callable[[Result | _Kept], None]") -> None:
    """Begin nothing new, and write what is restored; a second Ctrl-C does not wait for that."""
    flow.stop()
    # On a full disk the first error is told; what is not in the journal is done again.
    try:
        for outcome in flow:
            with contextlib.suppress(OSError):
                note(outcome)
    except KeyboardInterrupt:
        for outcome in flow.done_early():
            with contextlib.suppress(OSError):
                note(outcome)
        raise LeftAtOnce from None


def _threads(cores_each: int) -> int:
    """Threads of a stage that is to have one for so many cores: two at least, as files make them wait, and twelve at most."""
    return min(max(usable_cores() // cores_each, 2), 12)


def devices_of(prepared: Prepared, find: Finder | None) -> list[Device]:
    """The devices of a run, each with its copy of the method."""
    turns = RandomTurns()
    return [Device(copied, prepared.options, turns, find) for copied in _copies(prepared.method, prepared.options)]


def begin(devices: Sequence[Device], watcher: Watcher) -> Sequence[Device]:
    """Let devices begin a run, whose threads are new."""
    for device in devices:
        device.begin(watcher.advanced)
    return devices


def _copies(method: Method, options: Options) -> list[Method]:
    """The method on each of its devices."""
    copies = [method]
    for device in map(torch.device, options.devices[1:]):
        copied = copy.deepcopy(method).to(device)
        if copied.execution.device is not None:
            copied.execution.device = device
        copies.append(copied)
    return copies


def _why_stopped(
    stopped: KeyboardInterrupt | Terminated | OSError | DeviceLost, out: Path, results: Iterable[Result], of: int
) -> UserError | KeyboardInterrupt | Terminated:
    """What is raised when a run ends early: it says why, what is there, and what to do."""
    done = sum(result.status == "done" for result in results)
    there = f"What is finished stays: {done} of {of} image(s)"
    if isinstance(stopped, KeyboardInterrupt):
        return KeyboardInterrupt(there)
    if isinstance(stopped, Terminated):
        return Terminated(stopped.number, there)
    if isinstance(stopped, OSError):
        reason = f"{out}: cannot be written to: {stopped.strerror or stopped}. {there}; make room and run"
    else:
        reason = f"{stopped}. {there}; run"
    return UserError(f"{reason} the same command again.", exit_code=3)


@dataclass(frozen=True)
class _Kept:
    """An input that an earlier run finished."""

    result: Result


def _read(
    method: Method, finished: dict[str, dict[str, Any]], out: Path, item: Input
) -> Decoded | Settled[Result | _Kept]:
    if item.name.encode(errors="replace").decode() != item.name:
        problem = f"{item.path.name}: its name is not UTF-8, which an entry's must be. Rename it."
        return Settled(Result(item.name, "unreadable", None, problem=problem))
    try:
        fingerprint = fingerprint_of(item.path, method.track)
    except OSError as error:
        problem = f"{item.path}: cannot be read: {error.strerror or error}."
        return Settled(Result(item.name, "unreadable", None, problem=problem))
    line = finished.get(item.name)
    if line and line["input_sha256"] == fingerprint and _intact(out, line):
        return Settled(_Kept(Result(**{**line, "notes": tuple(line["notes"])})))
    if type(method).restore is not Method.restore:
        return Decoded(item, fingerprint, None, _notes(method, item))
    try:
        frame = pinned(method.read(item.path), method.device.type)
        return Decoded(item, fingerprint, frame, _notes(method, item))
    except UserError as error:
        return Settled(Result(item.name, "unreadable", fingerprint, problem=str(error)))
    except Exception as error:  # noqa: BLE001 - a method may raise anything; the other images must not suffer
        return Settled(Result(item.name, "unreadable", fingerprint, problem=f"{item.path}: {why(error)}"))


def _notes(method: Method, item: Input) -> tuple[str, ...]:
    """What reading a picture leaves out or decides; a raw frame brings its own notes."""
    try:
        return () if method.track == "raw" else images.read_header(item.path).notes
    except UserError:
        # A method that reads for itself may read what ntire does not.
        return ()


def _arrived(restored: Restored) -> None:
    restored.pixels.wait()


def _write(out: Path, restored: Restored) -> Result:
    """The picture, before its line in the journal: a line always speaks of a file that is there."""
    try:
        result, pixels = finish(restored)
    except (RuntimeError, ValueError) as error:
        failed = restored.result
        return Result(failed.image, "failed", failed.input_sha256, tile=failed.tile, problem=why(error))
    path = out / IMAGES / f"{result.image}.png"
    data = images.encode_png(pixels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        if error.errno not in OF_ITS_NAME:
            raise
        problem = f"{path.name}: cannot be written: {error.strerror}. Rename the input, or what is in its place."
        return dataclasses.replace(result, status="failed", problem=problem)
    return dataclasses.replace(result, output_sha256=sha256_of(data))


def _intact(out: Path, line: dict[str, Any]) -> bool:
    path = out / IMAGES / f"{line['image']}.png"
    return path.is_file() and sha256_of(path) == line["output_sha256"]


def header_of(prepared: Prepared, track: str, *, whole: bool = False) -> dict[str, Any]:
    """What must be the same for a run to be resumed: all that can change a byte of the output."""
    weights = [weights.sha256 for weights in prepared.weights_used]
    devices = [environment(device)["device"] for device in prepared.options.devices]
    return header_from(
        type(prepared.method), prepared.code_sha256, weights, prepared.options, track, devices, whole=whole
    )


def header_from(
    method: type[Method],
    code: str | None,
    weights: Sequence[str],
    options: Options,
    track: str,
    devices: Iterable[str],
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """The same from a method's class, the hashes of its code and of its weights files, and the names of devices."""
    return {
        "ntire": __version__,
        "torch": torch.__version__,
        "team": method.team,
        "track": track,
        "variant": method.variant,
        "code": code,
        "weights": list(weights),
        # Whether one device or several like it: the bytes are the same.
        "device": " and ".join(sorted(set(devices))),
        "precision": options.precision,
        "tile": options.tile,
        "bits": options.bits,
        **({"settings": dict(options.settings)} if options.settings else {}),
        **({"inexact": list(options.inexact)} if options.fixed_shapes or options.channels_last else {}),
        **({"backend": version_of(options.backend)} if options.backend != "torch" else {}),
        **({"whole": True} if whole else {}),
    }


def _manifest(prepared: Prepared, track: str, entry: str) -> Manifest:
    method, options = prepared.method, prepared.options
    claimed = method.claimed
    claims = (
        Claims()
        if claimed is None
        else Claims(
            params_m=claimed.params_m,
            macs_g=claimed.macs_g,
            at=claimed.at,
            runtime_ms=claimed.runtime_ms,
            runtime_at=claimed.runtime_at,
            device=claimed.device,
        )
    )
    return Manifest(
        team=method.team,
        track=track,
        entry=entry,
        date=date.today(),
        claims=claims,
        method=MethodUsed(
            name=type(method).__name__,
            variant=method.variant,
            settings=dict(options.settings),
            weights=prepared.weights_used,
        ),
        environment=environment(options.devices[0]) | ({"sandbox": prepared.sandbox} if prepared.sandbox else {}),
    )
