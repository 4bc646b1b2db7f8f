"""Submitted code as something that can be asked: started in a sandbox, loaded, given one picture after another."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from torch import Tensor

from ntire.entry.archive import survey
from ntire.entry.findings import Finding
from ntire.entry.manifest import Manifest
from ntire.method import Method
from ntire.method.catalogue import module_name
from ntire.method.method_table import weights_of_methods
from ntire.method.weights_files import Provenance, Weights, cache_folder, digest_of
from ntire.picture.image import as_image, read_header
from ntire.picture.raw import facts_text, read_raw
from ntire.picture.scale import MOST_SCALE, enlarged
from ntire.review.code_checks import METHOD
from ntire.review.image_check_workers import decoders
from ntire.review.image_checks import Wanted
from ntire.runner.device_worker import fingerprint_of
from ntire.sandbox.child import Answer, Backend, Child, Place, describe
from ntire.sandbox.confinement import refuse_unconfined
from ntire.sandbox.exchange import Exchange, copy_readable
from ntire.sandbox.limits import Limits
from ntire.text import printable

LONGEST = 200
"""Characters of a name that code may give itself."""

Word = Annotated[str, StringConstraints(max_length=LONGEST)]


class LoadedWeights(BaseModel):
    """A weights file that the code says it has loaded."""

    model_config = ConfigDict(frozen=True)

    file: Word
    license: Word
    provenance: Provenance


class Loaded(BaseModel):
    """What submitted code says of itself once it is loaded: nothing of it is known to be true, only that it has this form."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^\w+$", max_length=LONGEST)]
    team: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
    track: Word
    variant: Word = ""
    scale: Annotated[int, Field(ge=1, le=MOST_SCALE)] = 1
    tiling: Word = ""
    weights: Annotated[tuple[LoadedWeights, ...], Field(max_length=1000)] = ()


class SubmittedMethod:
    """Submitted code in a sandbox: started, loaded, asked for one picture after another, started again if it ends."""

    def __init__(
        self,
        backend: Backend,
        code: Path,
        source: str,
        scratch: Path,
        device: str,
        limits: Limits,
        weights: Mapping[str, Path],
        *,
        tile: int | str | None = "auto",
        precision: str = "fp32",
        bits: int = 8,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`code` is a folder that the sandbox's user may read, `source` the file in it; nothing is started yet."""
        self.exchange = Exchange(scratch)
        self._place = Place(code, self.exchange.folder, weights, device)
        self._backend, self._limits, self._source, self._device = backend, limits, source, device
        self._how = {"tile": tile, "precision": precision, "bits": bits, "settings": dict(settings or {})}
        self._child: Child | None = None
        self.started = 0
        self.printed = ""
        self.facts: Loaded | None = None
        self.sandbox: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        return self._child is not None

    @property
    def held_by(self) -> str:
        """The sandbox in which it was last loaded and who limits it there, in words."""
        words = (f"{self.sandbox.get('backend')}, limited by {self.sandbox.get('limits')}", self.sandbox.get("warning"))
        return "; ".join(word for word in words if word)

    def cpu_seconds(self) -> float | None:
        """Processor time of the child so far; None if it does not run, cannot be measured, or computes on a GPU."""
        return None if self._child is None or self._device != "cpu" else self._child.cpu_seconds()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self.printed = (self.printed + self._child.printed)[-20_000:]
            self._child = None

    def load(self, only: Literal["", "import"] = "") -> Finding | None:
        """Start the child, see that the sandbox holds, and load the code; what is wrong with the code, if anything.

        Raises UserError (exit code 3) if the sandbox or the device is not what was asked for.
        """
        self.close()
        self.started += 1
        self._child = child = Child(self._backend, self._place, self._limits)
        inside = "cuda" if self._device != "cpu" and self._backend != "none" else self._device
        ready = child.begin(inside)
        refuse_unconfined(ready.fields, self._backend, self._device, f"{ready.problem} {child.printed.strip()[-500:]}")
        self.sandbox = {**describe(self._backend, child.held_by), "at_most": asdict(self._limits)}
        request = {"op": "load", "file": self._source.removeprefix(METHOD), "only": only, **self._how}
        loaded = child.ask(request, self._limits.start_seconds)
        problem = printable(str(loaded.fields.get("problem", loaded.problem)))
        if loaded.state == "answered" and loaded.fields.get("status") == "loaded":
            try:
                self.facts = Loaded.model_validate(loaded.fields)
                return None
            except ValidationError as error:
                wrong = error.errors()[0]
                problem = printable(f"says {'.'.join(map(str, wrong['loc']))} of itself: {wrong['msg']}")
        code = loaded.fields.get("code")
        known = code if code in ("E404", "E405", "E410", "E411") else _code_of(loaded.state)
        expected = {
            "E404": "one subclass of ntire.method.Method",
            "E405": "one subclass of ntire.method.Method",
            "E411": "a method that takes its weights",
        }
        self.close()
        return Finding(str(known), self._source, expected.get(str(known), "code that imports"), problem or "none")

    def restore(
        self,
        path: Path,
        fingerprint: str,
        most: int,
        name: str | None = None,
        heard: Callable[[int, int], None] | None = None,
    ) -> Answer:
        """The answer for one input, which is all that lies in the exchange folder meanwhile, under `name`; `heard` hears the
        tiles that the code says are done, and of how many.
        """
        if self._child is None:
            return Answer("died", 0.0, problem="it is not running")
        with self.exchange.showing(path, facts_text(path), name) as shown:
            request = {"op": "restore", "path": self._child.path_of(shown), "fingerprint": fingerprint}
            answer = self._child.ask({**request, "tell": heard is not None}, self._limits.seconds, most, heard)
        if answer.state != "answered":
            self.close()
        return answer


def _code_of(state: str) -> str:
    return {"timed out": "E608", "over a limit": "E609"}.get(state, "E410")


def clean_tree(root: Path, into: Path, below: str = METHOD) -> None:
    """Copy the code of an entry, regular files only, to where everybody may read it; no submitted image is among them."""
    files, _ = survey(root)
    for name in files:
        if name.startswith(below):
            target = into / name.removeprefix(below)
            for folder in reversed([target.parent, *target.parent.relative_to(into).parents]):
                path = into / folder
                if not path.exists():
                    path.mkdir(mode=0o755)
            copy_readable(root / name, target)
    into.chmod(0o755)


def weights_at_hand(manifest: Manifest) -> dict[str, Path]:
    """Fetched files that the manifest names with their sha256, if they are that team's or anybody may fetch them: nothing else
    of the cache is shown to the code, which could carry it out in a picture.
    """
    found: dict[str, Path] = {}
    for one in manifest.method.weights:
        path = cache_folder() / one.file
        if not one.file or path.parent != cache_folder() or one.file.startswith(".") or not path.is_file():
            continue
        if digest_of(path) == one.sha256.lower() and _may_see(manifest.team, one.file):
            found[one.file] = path
    return found


def _may_see(team: str, file: str) -> bool:
    return any(
        one.weights.file == file and (bool(one.weights.urls) or module_name(one.name) == module_name(team))
        for one in weights_of_methods()
    )


def size_of(path: Path, inputs: str) -> tuple[int, int]:
    """Height and width of an input; raises UserError if it cannot be read."""
    if inputs == "raw":
        height, width = read_raw(path).samples.shape[-2:]
        return int(height), int(width)
    header = read_header(path)
    return header.height, header.width


def look(data: bytes, name: str, lq: tuple[int, int], scale: int, scratch: Path) -> str:
    """What is wrong with a picture that came out of the sandbox for an input of the size `lq`, looked at by a decoder; empty if
    nothing is.
    """
    made = scratch / "made.png"
    made.write_bytes(data)
    wrong = decoders().look([Wanted(made, name, size=lq, scale=scale)])[0].findings
    # What an image looks like is not asked here, and 16 bits may have been asked for.
    serious = [one for one in wrong if one.code not in ("E305", "E310", "E311")]
    return f"{serious[0].problem}: expected {serious[0].expected}, found {serious[0].found}" if serious else ""


def as_method(submitted: SubmittedMethod, facts: Loaded, folder: Path, scratch: Path) -> Method:
    """Loaded code as a method that `ntire.runner.runner.run` can run: `restore` asks the sandbox.

    Its facts are what the code says of itself; its weights are those that lie beside it.
    """
    weights = tuple(Weights(printable(one.file), None, printable(one.license), one.provenance) for one in facts.weights)

    class Sandboxed(Method, abstract=True):
        """A method that computes elsewhere."""

        def restore(self, path: Path) -> Tensor:
            size = size_of(path, self.track)
            height, width = enlarged(size, self.scale)
            fingerprint = fingerprint_of(path, self.track)
            if not submitted.running:
                submitted.load()
            most = 8 * height * width + (1 << 20)
            answer = submitted.restore(path, fingerprint, most, heard=self.execution.advanced)
            if answer.state != "answered" or answer.fields.get("status") != "done":
                raise RuntimeError(printable(str(answer.fields.get("problem") or answer.problem)))
            wrong = look(answer.data, path.name, size, self.scale, scratch)
            if wrong:
                raise RuntimeError(wrong)
            return as_image(decoders().decode(path, answer.data))

    # The code that runs is the folder's, and so is its hash.
    name = f"ntire_submitted_{module_name(str(folder.resolve()))}"
    sys.modules[name] = module = ModuleType(name)
    module.__file__ = str(folder.resolve() / "method.py")
    known = {key: printable(getattr(facts, key)) for key in ("team", "track", "variant")}
    body = {"__module__": name, "cite": "", "tiling": "method", "halo": 0, "stride": 1, "weights": weights, **known}
    body["scale"] = facts.scale
    made: Method = type(facts.name, (Sandboxed,), body)()
    return made.eval()
