"""One device at work: a picture that has been read becomes integers on their way to the host, or a reason why not."""

import contextlib
import dataclasses
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ntire import UserError
from ntire.files import sha256_of
from ntire.method import Frame, Method, as_floats
from ntire.method.contract import enhanced
from ntire.method.face_alignment import Finder, restore_faces
from ntire.picture import image as images
from ntire.picture import levels, raw
from ntire.picture.tiling import floats_of, out_of_memory
from ntire.runner.host_device_copy import Arriving, lane_to, pinned
from ntire.runner.memory_plan import Planner
from ntire.runner.pipeline import Gone, Settled
from ntire.runner.prepare import Options
from ntire.runner.speedups import Effect, Graphed, measure, speed_up, told
from ntire.sandbox.scratch import Terminated

MEASURED = 1024
"""Side of the part of a picture on which effects on pixels are measured."""


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
    """Restoring alone, without reading and writing; on a GPU by its own clock."""
    peak_memory_mb: float | None = None
    """On a GPU of the device, for this image; else of the process so far."""
    problem: str | None = None
    """Why it is not done."""
    notes: tuple[str, ...] = ()
    """What was assumed of the input."""


class DeviceLost(RuntimeError):
    """A device that no longer answers; whatever it is given fails."""


@dataclass(frozen=True)
class Decoded:
    """An input ready to be restored; no frame for a method that does its own reading in `restore`."""

    item: Input
    fingerprint: str
    frame: Frame | None
    notes: tuple[str, ...] = ()
    """What was left out or decided when it was read."""


@dataclass(frozen=True)
class Restored:
    """An image on its way to the host, to be written there: integers (3, H, W), and whether all values were numbers."""

    result: Result
    pixels: Arriving


class Device:
    """One device with its copy of the method: restores what has been read, one image after the other."""

    effect: Effect | None = None

    def __init__(self, method: Method, options: Options, turns: "RandomTurns", find: Finder | None = None) -> None:
        """With `find`, pictures are whole ones: each face that it finds is restored and put back, the rest stays as it is."""
        self.method, self.options, self.turns, self.find = method, options, turns, find
        self.advanced: Callable[[str, int, int], None] = lambda image, done, of: None
        """Hears of each image how many of its tiles are done, and of how many."""
        speed_up(method, options)
        self.lane = lane_to(method.device)
        self.planner = Planner(method, options)
        self._entered = self._compared = False
        self._news = levels.told(method.device)
        """What the journal is to say once, with the next picture."""

    def begin(self, advanced: Callable[[str, int, int], None]) -> None:
        """Begin a run, in a thread of its own; `advanced` hears how far each image is."""
        self.advanced, self._entered = advanced, False

    def restore(self, decoded: Decoded) -> Restored | Settled[Result]:
        """Give the orders for one image; on a GPU they are carried out while the next one gets its own."""
        if not self._entered:
            self.lane.enter()
            self._entered = True
        method, item, fingerprint = self.method, decoded.item, decoded.fingerprint
        if method.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(method.device)
        failed = Result(item.name, "failed", fingerprint)
        try:
            with torch.no_grad(), self.turns.taken(_seed_of(decoded)):
                return self._restored(decoded)
        except images.UnreadableImage as error:
            failed = dataclasses.replace(failed, status="unreadable", problem=str(error))
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a method may do anything; other images must not suffer
            failed = dataclasses.replace(failed, tile=method.tile, problem=why(error))
            if _lost(error):
                raise Gone(failed) from DeviceLost(f"{method.device} was lost: {why(error)}")
        return Settled(failed)

    def _restored(self, decoded: Decoded) -> Restored:
        method, item, frame = self.method, decoded.item, decoded.frame
        if frame is not None:
            frame = self.lane.upload(frame)
        planned = self.planner.set_up(frame)
        method.execution.advanced = partial(self.advanced, item.name)
        seed = _seed_of(decoded)
        part = None if frame is None else _middle(method, frame)

        def as_floats_by(some: Method) -> Tensor:
            _sow(method.device, seed)
            return some.restore(item.path) if part is None else some.enhance(as_floats(part))

        notes, self._news = (*planned.notes, *self._news), ()
        if self.options.inexact and not self._compared:
            notes = (*notes, *self._compare(as_floats_by, item.name if part is frame else f"the middle of {item.name}"))
            method.tile = planned.tile
        rounding = images.Rounding(self.options.bits)
        _sow(method.device, seed)
        began = self.lane.mark()
        if frame is None:
            restored = floats_of("restore", method.restore(item.path))
        elif isinstance(frame, Tensor) and self.find is not None:
            restored, faces = restore_faces(images.as_image(frame), self.find, method.enhance, scale=method.scale)
            notes = (*notes, f"{faces} face(s) restored, the rest left as it is")
        else:
            restored = enhanced(method, frame, rounding)
        height, width = _checked(restored, frame, method.scale)
        integers = rounding(restored) if restored.dtype.is_floating_point else restored
        pixels = self.lane.download((integers, rounding.finite), began)
        assumed = frame.notes if isinstance(frame, raw.RawFrame) else decoded.notes
        result = Result(
            item.name,
            "done",
            decoded.fingerprint,
            height=height,
            width=width,
            tile=method.tile,
            peak_memory_mb=round(self._peak() / 2**20, 1),
            notes=(*assumed, *notes, *told(method.execution.network), *self.planner.learn(planned, method.tile)),
        )
        return Restored(result, pixels)

    def _compare(self, restored_by: Callable[[Method], Tensor], image: str) -> tuple[str, ...]:
        """Measure what speed costs, once; says so where the exact method does not go on the device."""
        reason = ""
        try:
            self.effect = measure(self.method, self.options, restored_by, image)
        except images.UnreadableImage:
            raise
        except UserError as error:
            reason = str(error)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = why(error)
        self._compared = True
        if self.effect is not None:
            return ()
        if self.method.device.type == "cuda":
            torch.cuda.empty_cache()
        return (f"what {', '.join(self.options.inexact)} changes was not measured: {reason}",)

    def unrounded(self, decoded: Decoded) -> Tensor:
        """The image that a run would round: float32, [0, 1], (3, H, W), on the device. Raises what the method raises, and
        RuntimeError for what is no picture of the input's size times the scale.
        """
        frame = None if decoded.frame is None else self.lane.upload(decoded.frame)
        self.planner.set_up(frame)
        with torch.no_grad(), self.turns.taken(_seed_of(decoded)):
            _sow(self.method.device, _seed_of(decoded))
            method = self.method
            restored = method.restore(decoded.item.path) if frame is None else method.enhance(as_floats(frame))
            floats_of("restore" if frame is None else "enhance", restored)
        _checked(restored, frame, self.method.scale)
        if not bool(torch.isfinite(restored).all()):
            raise ValueError("values of the image are NaN or infinite")
        return restored.float().clamp(0, 1)

    def _peak(self) -> int:
        """Bytes: on a GPU of this image, else of the process so far."""
        if self.method.device.type == "cuda":
            return peak_on(self.method)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _middle(method: Method, frame: Frame) -> Frame:
    """What effects are measured on: of a picture through a local network, no more than its middle tells as much."""
    if not isinstance(frame, Tensor) or method.tiling != "exact":
        return frame
    top, left = (max(side - MEASURED, 0) // 2 // method.stride * method.stride for side in frame.shape[-2:])
    return frame if not top and not left else frame[..., top : top + MEASURED, left : left + MEASURED]


def peak_on(method: Method) -> int:
    """Bytes that were allocated at most on a method's GPU since the peak was last reset, a replayed graph's own included."""
    peak, network = torch.cuda.max_memory_allocated(method.device), method.execution.network
    if isinstance(network, Graphed):
        peak = max(peak, torch.cuda.memory_allocated(method.device) + network.bytes)
    return peak


def restore_one(device: Device, path: Path, fingerprint: str) -> tuple[Result, images.Integers | None]:
    """One picture, outside of a run: what `run` would write for an input of that sha256, which need not be the file's."""
    item = Input(path, path.stem)
    try:
        frame = None
        if type(device.method).restore is Method.restore:
            frame = pinned(device.method.read(path), device.method.device.type)
    except UserError as error:
        return Result(item.name, "unreadable", fingerprint, problem=str(error)), None
    return finished(device, Decoded(item, fingerprint, frame))


def finished(device: Device, decoded: Decoded) -> tuple[Result, images.Integers | None]:
    """One picture that has been read, restored and back on the host; no pixels where the result says why not."""
    try:
        outcome = device.restore(decoded)
    except Gone as gone:
        lost: Result = gone.value  # type: ignore[assignment]  # a device's only kind of last item
        return lost, None
    if isinstance(outcome, Settled):
        return outcome.value, None
    outcome.pixels.wait()
    try:
        return finish(outcome)
    except (RuntimeError, ValueError) as error:
        result = outcome.result
        return Result(result.image, "failed", result.input_sha256, tile=result.tile, problem=why(error)), None


def finish(restored: Restored) -> tuple[Result, images.Integers]:
    """An image that has arrived; raises RuntimeError if its device failed, ValueError for values that are no numbers."""
    integers, finite = restored.pixels.tensors()
    images.check_finite(finite)
    result = dataclasses.replace(restored.result, seconds=round(restored.pixels.seconds(), 4))
    return result, integers.permute(1, 2, 0).numpy()


def fingerprint_of(path: Path, track: str) -> str:
    """The sha256 of an input and, for a raw frame, of what else speaks for it: its TOML, or the white level that follows
    from its neighbours. Raises OSError.
    """
    found = sha256_of(path)
    if track != "raw":
        return found
    facts, level = raw.facts_file(path), raw.level_by_neighbours(path)
    beside = [*([sha256_of(facts)] if facts else []), *([f"white {level:g}"] if level is not None else [])]
    return sha256_of(" ".join([found, *beside]).encode()) if beside else found


def _checked(restored: Tensor, frame: Frame | None, scale: int) -> tuple[int, int]:
    """Height and width of what a method returned, or ValueError if that is not a picture of `scale` times the input's size."""
    if restored.ndim != 3 or restored.shape[0] != 3:
        raise ValueError(f"restore must return an image (3, H, W), it returned {tuple(restored.shape)}")
    size = int(restored.shape[1]), int(restored.shape[2])
    if frame is not None:
        height, width = (frame.samples if isinstance(frame, raw.RawFrame) else frame).shape[-2:]
        if size != (scale * height, scale * width):
            times = f" and a scale of {scale}" if scale > 1 else ""
            raise ValueError(f"restore returned {size[0]} x {size[1]} for an input of {height} x {width}{times}")
    return size


def why(error: BaseException) -> str:
    if out_of_memory(error):
        return f"out of memory on the device: {str(error).splitlines()[0] if str(error) else 'try a smaller --tile'}"
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}"


def _lost(error: BaseException) -> bool:
    """Whether a device will not answer again. Such errors of CUDA stick to the process."""
    accelerator: type[Exception] | None = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    if out_of_memory(error):
        return False
    if accelerator is not None and isinstance(error, accelerator):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith("CUDA error:")


def _seed_of(decoded: Decoded) -> int:
    """The seed follows the pixels: neither the name nor the place in the queue can matter."""
    return int(decoded.fingerprint[:15], 16)


def _sow(device: torch.device, seed: int) -> None:
    """Seed what a method on one device draws from, and no other device's numbers."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


class RandomTurns:
    """Devices share the random numbers of the host: methods that draw from them take turns, so that each image gets its own.

    The first image, on its own, shows whether a method does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._draws: bool | None = None

    @contextlib.contextmanager
    def taken(self, seed: int) -> Iterator[None]:
        """Work on the image with that seed, alone if need be."""
        if self._draws is False:
            yield
            return
        with self._lock:
            yield
            if self._draws is None:
                untouched = torch.Generator().manual_seed(seed).get_state()
                self._draws = not torch.equal(torch.get_rng_state(), untouched)
