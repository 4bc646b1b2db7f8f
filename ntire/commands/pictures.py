"""`ntire.load` and `ntire.restore`: a method made ready, and one picture through it, for programs in Python."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ntire import UserError
from ntire.commands.restoring import chosen_method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ntire.method import Frame, Method, Precision
    from ntire.picture.raw import RawFrame
    from ntire.runner.device_worker import Decoded, Device

    Array = NDArray[np.uint8 | np.uint16 | np.floating[Any]]

FLOATS = ("float16", "float32", "float64")
_turn = threading.RLock()
"""Threads take turns: a method's tiles and the host's random numbers are of one picture at a time."""


def load(
    team: str | Path,
    track: str | Path,
    *,
    variant: str | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    precision: Precision = "fp32",
    settings: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Method:
    """A team's method, filled with its weights and on its device: `method.restore(path)` gives an image (3, H, W).

    `team` is a name or a folder with a method.py, which runs in this process: only with `trust`. `weights` is one file with
    all weights instead of those that the method declares; `settings` are the method's own. Raises UserError for an unknown
    team, track, variant or setting, a device that is not here, and weights that are missing, damaged or another network's.
    """
    from ntire.environment import choose_device
    from ntire.runner.prepare import Options, prepare
    from ntire.scoring.track import load_track

    method = chosen_method(team, load_track(str(track)), variant, trust=trust)
    chosen = tuple(sorted((settings or {}).items()))
    weights_file = Path(weights) if weights else None
    return prepare(method, Options(choose_device(device), precision, weights=weights_file, settings=chosen)).method


def restore(
    picture: str | Path | Array | RawFrame,
    *,
    team: str | Path | None = None,
    track: str | Path | None = None,
    method: Method | None = None,
    variant: str | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    tile: int | Literal["auto"] | None = "auto",
    bits: Literal[8, 16] = 8,
) -> Array:
    """One picture restored, RGB (H, W, 3), by the method of a team on a track, or by one that `load` made ready.

    An array (H, W, 3) of uint8, uint16, or floats in [0, 1] gives an array of the same dtype; a path or a RawFrame gives
    uint8, or uint16 with `bits=16`: what `ntire.run` writes for that file. `tile` is the side of the tiles in pixels; auto
    takes what fits into memory, None the whole picture. A method that reads files for itself gets an array as a PNG, floats
    rounded to 16 bits.

    Raises UserError as `load` does, for a file that cannot be read, for an array that is no such picture, and for what only
    `load` takes beside a `method`; RuntimeError if the method fails. Threads take turns.
    """
    from ntire.runner.device_worker import Device, RandomTurns
    from ntire.runner.prepare import Options
    from ntire.sandbox.scratch import scratch_folder

    if method is None:
        if team is None or track is None:
            raise UserError("say what restores it: team=... and track=..., or method=... of ntire.load().")
        method = load(team, track, variant=variant, device=device, weights=weights)
    else:
        _refuse_beside(
            method,
            team=team,
            track=track,
            variant=variant,
            device=None if device == "auto" else device,
            weights=weights,
        )
    kind = _kind_of(picture)
    depth: Literal[8, 16] = {"uint8": 8, "uint16": 16}.get(kind, bits)  # type: ignore[assignment]
    options = Options(str(method.device), tile=tile, bits=depth)
    with scratch_folder() as scratch:
        decoded = _decoded(picture, kind, method, scratch)
        with _turn:
            worker = Device(method, options, RandomTurns())
            if kind in FLOATS:
                restored: Array = worker.unrounded(decoded).permute(1, 2, 0).cpu().numpy().astype(kind)
                return restored
            return _pixels(worker, decoded)


def _refuse_beside(method: object, **of_load: object) -> None:
    """Raise UserError for what was given to `restore` and would say nothing, as the method is made already."""
    from ntire.method import Method as Contract

    if not isinstance(method, Contract):
        raise UserError(f"method: expected what ntire.load() returns, found {type(method).__name__}.")
    given = [name for name, value in of_load.items() if value is not None]
    if given:
        raise UserError(f"{', '.join(given)}: say it to ntire.load(), which makes the method, or leave method out.")


def _kind_of(picture: str | Path | Array | RawFrame) -> str:
    """`file`, `frame`, or the dtype of an array that is a picture; raises UserError for anything else."""
    import numpy as np

    from ntire.picture.raw import RawFrame

    if isinstance(picture, str | Path):
        return "file"
    if isinstance(picture, RawFrame):
        return "frame"
    expected = "expected a path, a RawFrame, or an array (H, W, 3) of uint8, uint16, or floats in [0, 1]"
    if not isinstance(picture, np.ndarray):
        raise UserError(f"picture: {expected}; found {type(picture).__name__}.")
    kind = picture.dtype.name
    if kind not in ("uint8", "uint16", *FLOATS) or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UserError(f"picture: {expected}; found an array {picture.shape} of {kind}.")
    if kind in FLOATS and not (picture.min() >= 0 and picture.max() <= 1):  # NaN is neither
        raise UserError(f"picture: {expected}; found values from {picture.min():g} to {picture.max():g}.")
    return kind


def _decoded(picture: str | Path | Array | RawFrame, kind: str, method: Method, scratch: Path) -> Decoded:
    """What a device is given, as a run would read it; arrays are copied, as a method may work in place."""
    from ntire.files import sha256_of
    from ntire.method import Method as Contract
    from ntire.picture.image import as_tensor, encode_png
    from ntire.picture.raw import RawFrame
    from ntire.runner.device_worker import Decoded, Input, fingerprint_of

    reads = type(method).restore is not Contract.restore
    frame: Frame
    if isinstance(picture, str | Path):
        path = Path(picture)
        try:
            fingerprint = fingerprint_of(path, method.track)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
        return Decoded(Input(path, path.stem), fingerprint, None if reads else method.read(path))
    if isinstance(picture, RawFrame) != (method.track == "raw") or (reads and isinstance(picture, RawFrame)):
        wanted = "a RawFrame or the path of a raw file" if method.track == "raw" else "an array (H, W, 3) or a path"
        raise UserError(f"{method.team} on track {method.track} takes {wanted}, found {type(picture).__name__}.")
    if isinstance(picture, RawFrame):
        data, frame = picture.samples.cpu().numpy(), picture
    else:
        data = picture.copy()
        frame = as_tensor(data.astype("float32") if kind in FLOATS else data)
    fingerprint = sha256_of(f"{data.shape} {data.dtype} ".encode() + data.tobytes())
    path = scratch / "picture.png"
    if reads:
        path.write_bytes(encode_png((data * 65535.0).round().astype("uint16") if kind in FLOATS else data))
    return Decoded(Input(path, path.stem), fingerprint, None if reads else frame)


def _pixels(worker: Device, decoded: Decoded) -> Array:
    from ntire.runner.device_worker import finished

    result, pixels = finished(worker, decoded)
    if pixels is not None:
        return pixels
    if result.status == "unreadable":
        raise UserError(result.problem or f"{decoded.item.path}: cannot be read.")
    raise RuntimeError(f"{worker.method.team} failed: {result.problem}")
