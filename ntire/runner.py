"""Inputs to restored PNGs: read ahead, restore, write behind; what is done is in the journal and is not done twice."""

import dataclasses
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ntire import UserError, __version__, raw
from ntire import image as images
from ntire.environment import environment
from ntire.faces import Finder, restore_faces
from ntire.files import sha256_of, writable_folder, write_atomically
from ntire.journal import Journal
from ntire.method import Frame, Method
from ntire.prepare import Options, code_sha256, plan_tile, weights_used
from ntire.submission import IMAGES, JOURNAL, MANIFEST, Claims, Manifest, MethodUsed, WeightsUsed, write_manifest

AHEAD = 2
"""Frames decoded before they are needed, and results that may wait to be written: bounds the memory of a run."""


@dataclass(frozen=True)
class Input:
    """One picture to restore and the name its result gets, relative to `images/`, without a suffix."""

    path: Path
    name: str


@dataclass(frozen=True)
class Result:
    """What became of one input: one line of the journal."""

    image: str
    status: Literal["done", "unreadable", "failed"]
    input_sha256: str | None
    output_sha256: str | None = None
    height: int | None = None
    width: int | None = None
    tile: int | None = None
    seconds: float | None = None
    """Restoring alone, without reading and writing."""
    peak_memory_mb: float | None = None
    """On a GPU of the device, for this image; else of the process so far."""
    problem: str | None = None
    """Why it is not done."""
    notes: tuple[str, ...] = ()
    """What was assumed of the input."""


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    out: Path
    results: tuple[Result, ...]
    """Of this run and of earlier ones that it went on from, in the order of the inputs."""
    computed: int
    """How many of them were restored now."""
    seconds: float

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.status != "done"]


def find_inputs(given: Sequence[Path], track: str) -> list[Input]:
    """Files, and files below folders with a suffix that the track knows, in stable order.

    Raises UserError for a path that is not there, a folder without inputs, or two inputs of one name.
    """
    suffixes = raw.SUFFIXES if track == "raw" else images.SUFFIXES
    inputs: list[Input] = []
    for path in given:
        if path.is_dir():
            found = [
                Input(file, file.relative_to(path).with_suffix("").as_posix())
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith(".")
            ]
            if not found:
                raise UserError(
                    f"{path}: expected inputs of track {track} ({', '.join(sorted(suffixes))}), found none."
                )
            inputs += found
        elif path.is_file():
            inputs.append(Input(path, path.stem))
        else:
            raise UserError(f"{path}: expected a file or folder to restore, found nothing there.")
    named: dict[str, Path] = {}
    for item in inputs:
        # Names that differ in case only would be one file on some systems.
        other = named.setdefault(item.name.casefold(), item.path)
        if other != item.path:
            raise UserError(f"{other} and {item.path} would both become {item.name}.png. Rename one of them.")
    return inputs


def run(
    method: Method,
    inputs: Sequence[Input],
    out: Path,
    track: str,
    options: Options,
    report: Callable[[Result, bool], None] = lambda result, computed: None,
    find: Finder | None = None,
) -> Summary:
    """Restore `inputs` into the submission folder `out` for the track of that full name.

    What an earlier run finished (same method, weights, settings and input, output still there) is kept. `report` gets
    every result and whether it was computed now. An input that cannot be restored is a result, not an exception; a disk
    that cannot be written to raises UserError (exit code 3), and what is finished stays. With `find`, inputs are whole
    pictures: each face that it finds is restored and put back, the rest stays as it is.
    """
    began = time.monotonic()
    writable_folder(out / IMAGES)
    used = weights_used(method, options)
    results: dict[str, Result] = {}
    kept = 0
    with Journal(
        out / JOURNAL, _header(method, track, options, used) | ({"whole": True} if find else {}), fresh=options.fresh
    ) as journal:
        if options.fresh or not (out / MANIFEST).exists():
            write_manifest(out, _manifest(method, track, options, used, out.name))
        for result, computed in _results(method, inputs, out, options, journal, find):
            results[result.image] = result
            kept += not computed
            report(result, computed)
    ordered = tuple(results[item.name] for item in inputs)
    return Summary(out, ordered, len(inputs) - kept, time.monotonic() - began)


def restore_one(method: Method, path: Path, fingerprint: str, options: Options) -> tuple[Result, images.Pixels | None]:
    """One picture, outside of a run: what `run` would write for an input of that sha256, which need not be the file's."""
    item = Input(path, path.stem)
    try:
        frame = method.read(path) if type(method).restore is Method.restore else None
    except UserError as error:
        return Result(item.name, "unreadable", fingerprint, problem=str(error)), None
    outcome = _restore(method, _Decoded(item, fingerprint, frame), options, None)
    return (outcome.result, outcome.pixels) if isinstance(outcome, _Restored) else (outcome, None)


def fingerprint_of(path: Path, track: str) -> str:
    """The sha256 of an input and, for a raw frame, of the TOML that speaks for it; raises OSError."""
    found = sha256_of(path)
    facts = raw.facts_file(path) if track == "raw" else None
    return sha256_of(f"{found} {sha256_of(facts)}".encode()) if facts else found


def _results(
    method: Method, inputs: Sequence[Input], out: Path, options: Options, journal: Journal, find: Finder | None
) -> Iterator[tuple[Result, bool]]:
    """Every result and whether it was computed now; one thread reads ahead, one writes behind."""
    finished = {line["image"]: line for line in journal.lines if line["status"] == "done"}
    waiting = deque(inputs)
    reads: deque[Future[_Kept | _Decoded | Result]] = deque()
    writes: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            while waiting or reads:
                while waiting and len(reads) < AHEAD:
                    reads.append(reader.submit(_read, method, waiting.popleft(), finished, out))
                read = reads.popleft().result()
                if isinstance(read, _Kept):
                    yield read.result, False
                    continue
                outcome = _restore(method, read, options, find) if isinstance(read, _Decoded) else read
                writes.append(writer.submit(_write, outcome, out, journal))
                while len(writes) > AHEAD or (writes and writes[0].done()):
                    yield writes.popleft().result(), True
            while writes:
                yield writes.popleft().result(), True
        except OSError as error:
            raise UserError(
                f"{out}: cannot be written to: {error.strerror or error}. What is finished stays; "
                "make room and run the same command again.",
                exit_code=3,
            ) from error
        finally:
            # On Ctrl-C or a full disk, nothing new begins, and what is being written is finished.
            reader.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Kept:
    """An input that an earlier run finished."""

    result: Result


@dataclass(frozen=True)
class _Decoded:
    """An input ready to be restored; no frame for a method that does its own reading in `restore`."""

    item: Input
    fingerprint: str
    frame: Frame | None


@dataclass(frozen=True)
class _Restored:
    """An image on the host, ready to be written."""

    result: Result
    pixels: images.Pixels


def _read(method: Method, item: Input, finished: dict[str, dict[str, Any]], out: Path) -> _Kept | _Decoded | Result:
    try:
        fingerprint = fingerprint_of(item.path, method.track)
    except OSError as error:
        return Result(item.name, "unreadable", None, problem=f"{item.path}: cannot be read: {error.strerror or error}.")
    line = finished.get(item.name)
    if line and line["input_sha256"] == fingerprint and _intact(out, line):
        return _Kept(Result(**{**line, "notes": tuple(line["notes"])}))
    if type(method).restore is not Method.restore:
        return _Decoded(item, fingerprint, None)
    try:
        return _Decoded(item, fingerprint, method.read(item.path))
    except UserError as error:
        return Result(item.name, "unreadable", fingerprint, problem=str(error))


def _restore(method: Method, decoded: _Decoded, options: Options, find: Finder | None) -> Result | _Restored:
    item, fingerprint, frame = decoded.item, decoded.fingerprint, decoded.frame
    # The seed follows the pixels: neither the name nor the place in the queue can matter.
    torch.manual_seed(int(fingerprint[:15], 16))
    on_gpu = method.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(method.device)
    method.tile, notes = plan_tile(method, frame, options)
    began = time.perf_counter()
    try:
        if isinstance(frame, Tensor) and find is not None:
            restored, faces = restore_faces(frame.to(method.device), find, method.enhance)
            notes = (*notes, f"{faces} face(s) restored, the rest left as it is")
        else:
            restored = method.restore(item.path) if frame is None else method.enhance(frame)
        height, width = _checked(restored, frame)
        pixels = images.as_pixels(restored, options.bits)
    except images.UnreadableImage as error:
        return Result(item.name, "unreadable", fingerprint, problem=str(error))
    except Exception as error:  # noqa: BLE001 - a method may raise anything; the other images must not suffer
        return Result(item.name, "failed", fingerprint, tile=method.tile, problem=_why(error))
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(method.device) if on_gpu else _resident_peak()
    assumed = frame.notes if isinstance(frame, raw.RawFrame) else ()
    result = Result(
        item.name,
        "done",
        fingerprint,
        height=height,
        width=width,
        tile=method.tile,
        seconds=round(seconds, 4),
        peak_memory_mb=round(peak / 2**20, 1),
        notes=(*assumed, *notes),
    )
    return _Restored(result, pixels)


def _write(outcome: Result | _Restored, out: Path, journal: Journal) -> Result:
    """The picture first, then its line in the journal: a line always speaks of a file that is there."""
    if isinstance(outcome, _Restored):
        path = out / IMAGES / f"{outcome.result.image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = images.encode_png(outcome.pixels)
        write_atomically(path, data)
        result = dataclasses.replace(outcome.result, output_sha256=sha256_of(data))
    else:
        result = outcome
    journal.append(dataclasses.asdict(result))
    return result


def _checked(restored: Tensor, frame: Frame | None) -> tuple[int, int]:
    """Height and width of what a method returned, or ValueError if that is not a picture of the input's size."""
    if not isinstance(restored, Tensor) or restored.ndim != 3 or restored.shape[0] != 3:
        found = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
        raise ValueError(f"restore must return an image (3, H, W), it returned {found}")
    size = int(restored.shape[1]), int(restored.shape[2])
    if frame is not None:
        expected = tuple((frame.mosaic if isinstance(frame, raw.RawFrame) else frame).shape[-2:])
        if size != expected:
            raise ValueError(f"restore returned {size[0]} x {size[1]} for an input of {expected[0]} x {expected[1]}")
    return size


def _why(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory on the device: try a smaller --tile"
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}"


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _intact(out: Path, line: dict[str, Any]) -> bool:
    path = out / IMAGES / f"{line['image']}.png"
    return path.is_file() and sha256_of(path) == line["output_sha256"]


def _header(method: Method, track: str, options: Options, used: Sequence[WeightsUsed]) -> dict[str, Any]:
    """What must be the same for a run to go on: all that can change a byte of the output."""
    return {
        "ntire": __version__,
        "torch": torch.__version__,
        "team": method.team,
        "track": track,
        "variant": method.variant,
        "code": code_sha256(type(method)),
        "weights": [weights.sha256 for weights in used],
        "device": environment(options.device)["device"],
        "precision": options.precision,
        "tile": options.tile,
        "bits": options.bits,
    }


def _manifest(method: Method, track: str, options: Options, used: tuple[WeightsUsed, ...], entry: str) -> Manifest:
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
        method=MethodUsed(name=type(method).__name__, variant=method.variant, weights=used),
        environment=environment(options.device),
    )
