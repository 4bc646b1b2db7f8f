"""What runs inside the sandbox: our program, which loads submitted code and answers one request at a time.

Requests are JSON lines on standard input, answers JSON lines on standard output, the second followed by the bytes of the one
file that it speaks of; before an answer, short lines may say how many tiles are done. Whatever the code prints goes to standard
error. No line here is trusted outside: the code that is loaded could write every one of them itself.
"""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ntire import UserError, __version__
from ntire.sandbox.confinement import confinement
from ntire.sandbox.limits import Limits, apply_rlimits

if TYPE_CHECKING:
    from ntire.runner.device_worker import Device

LONGEST = 500
"""Characters of a message."""
TELL_SECONDS = 0.5
"""Between two words on how far a picture is."""


def main() -> None:
    """Serve until the other side hangs up."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # The code may read and print as it likes: neither end of the conversation is where it looks first.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    server = _Server(answers)
    for line in requests:
        server.answer(json.loads(line))


class _Server:
    """Keeps the method that was loaded."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._device = "cpu"
        self._code = self._out = Path()
        self._ready: Device | None = None
        self._telling, self._told = False, -TELL_SECONDS

    def answer(self, request: dict[str, Any]) -> None:
        """Do what one request asks for."""
        reply: dict[str, Any]
        file = None
        if request["op"] == "begin":
            reply = self._begin(request)
        elif request["op"] == "load":
            reply = self._load(request)
        else:
            reply, file = self._restore(request)
        data = b""
        if file is not None:
            data = file.read_bytes()
            file.unlink()
            reply["bytes"] = len(data)
        self._answers.write(json.dumps(reply).encode() + b"\n" + data)
        self._answers.flush()

    def _begin(self, request: dict[str, Any]) -> dict[str, Any]:
        limits = Limits(**request["limits"])
        self._device = request["device"]
        self._code, self._out = Path(request["code"]), Path(request["out"])
        apply_rlimits(limits, gpu=self._device != "cpu", alone=request["sandboxed"])
        found = {"status": "ready", "ntire": __version__, **confinement()}
        if self._device != "cpu":
            # A GPU that cannot be seen would otherwise be a CPU that nobody asked for.
            from ntire.environment import choose_device, environment

            try:
                found["device"] = environment(choose_device(self._device))["device"]
            except UserError as error:
                return {"status": "no device", "problem": str(error)}
        return found

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import the code and, unless it is only asked for that, build the method and fill it."""
        from ntire.method.catalogue import declared_in
        from ntire.runner.device_worker import Device, RandomTurns
        from ntire.runner.prepare import Options, prepare

        try:
            declared = declared_in(self._code / request["file"])
        except BaseException as error:  # noqa: BLE001 - the code may raise SystemExit or anything else
            return {"status": "refused", "code": "E410", "problem": _why(error)}
        if len(declared) != 1:
            names = ", ".join(method.__name__ for method in declared) or "none"
            return {"status": "refused", "code": "E405" if declared else "E404", "problem": names}
        found = declared[0]
        facts = {
            "status": "loaded",
            "name": found.__name__,
            "team": str(found.team),
            "track": str(found.track),
            "variant": str(found.variant),
            "scale": getattr(found, "scale", 1),
            "tiling": str(getattr(found, "tiling", "")),
            "weights": [
                {"file": str(one.file), "license": str(one.license), "provenance": str(one.provenance)}
                for one in found.weights
            ],
        }
        if request["only"] == "import":
            return facts
        options = Options(
            self._device,
            request["precision"],
            request["tile"],
            request["bits"],
            settings=tuple(sorted(request["settings"].items())),
        )
        try:
            self._ready = Device(prepare(found, options).method, options, RandomTurns())
            self._ready.advanced = self._tell
        except BaseException as error:  # noqa: BLE001
            return {"status": "refused", "code": "E411", "problem": _why(error)}
        return facts

    def _restore(self, request: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
        """One picture to one PNG in the output folder."""
        from ntire.picture.image import encode_png
        from ntire.runner.device_worker import restore_one

        if self._ready is None:
            return {"status": "failed", "problem": "no method is loaded"}, None
        file = self._out / "restored.png"
        self._telling = bool(request.get("tell"))
        try:
            result, pixels = restore_one(self._ready, Path(request["path"]), request["fingerprint"])
            if pixels is None:
                return {"status": result.status, "problem": (result.problem or "")[:LONGEST]}, None
            file.write_bytes(encode_png(pixels))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the code's mistake, or a folder that it has filled
            return {"status": "failed", "problem": _why(error)}, None
        notes = [str(note)[:LONGEST] for note in result.notes[:20]]
        return {"status": "done", "tile": result.tile, "notes": notes, "seconds": result.seconds}, file

    def _tell(self, image: str, done: int, of: int) -> None:
        """Say how many tiles are done, now and then."""
        if self._telling and time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            self._answers.write(json.dumps({"advanced": [done, of]}).encode() + b"\n")
            self._answers.flush()


def _why(error: BaseException) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
    return text[:LONGEST]
