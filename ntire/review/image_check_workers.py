"""Strangers' pictures are decoded, and their code is parsed, in processes of their own, in a sandbox where there is one, with a
cap on their memory: a decoder that is led astray takes nothing with it. This process reads the files, safely, and hands over
copies; what comes back is lines of JSON and plain samples, read as one reads a stranger's.
"""

import atexit
import ctypes
import json
import queue
import resource
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ntire import UserError
from ntire.entry.findings import Finding
from ntire.environment import usable_cores
from ntire.files import read_regular
from ntire.picture.image import Header, Integers, Pixels, UnreadableImage, decode, header_of, read_bytes
from ntire.picture.preview import Preview, in_8_bits, shrunk
from ntire.picture.scale import enlarged
from ntire.review.image_checks import (
    MOST_BYTES,
    BadImage,
    SeenImage,
    Wanted,
    bytes_of,
    digest_at,
    input_of,
    look_at,
    size_in,
)
from ntire.review.source_code import methods_in
from ntire.sandbox.child import DECODER, Backend, Child, Place, choose
from ntire.sandbox.exchange import copy_readable
from ntire.sandbox.limits import Limits, apply_rlimits
from ntire.sandbox.scratch import scratch_folder
from ntire.text import printable

MOST_WORKERS = 16
"""Processes that look at pictures, each of which takes half a second to start."""
LIMITS = Limits(seconds=120.0, memory_bytes=3 << 30, processes=64, files=256, file_bytes=0)
"""A picture of 130 megapixels and its input take 2 GiB while they are compared."""
DIGITS = 64
MOST_FOUND = 1 << 20
"""Bytes that are said of an entry's code."""
MALLOPT = {-1: 1 << 26, -3: 1 << 25}
"""Of glibc: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, bytes up to which freed memory stays with the process."""


def main() -> None:
    """The other side: answer one request after the other."""
    warnings.simplefilter("ignore")
    _keep_memory()
    for line in sys.stdin:
        fields, pixels = _answer(json.loads(line))
        if pixels is not None:
            fields |= {"shape": pixels.shape, "dtype": pixels.dtype.name, "bytes": pixels.nbytes}
        sys.stdout.buffer.write(json.dumps(fields).encode() + b"\n")
        if pixels is not None:
            sys.stdout.buffer.write(np.ascontiguousarray(pixels).data)
        sys.stdout.buffer.flush()


def _keep_memory() -> None:
    """Take the memory of one picture for the next: to have it given anew, page by page, is half the time of decoding."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in MALLOPT.items():
            library.mallopt(parameter, value)


def _answer(request: Mapping[str, Any]) -> tuple[dict[str, Any], Pixels | None]:
    if request["op"] == "begin":
        apply_rlimits(Limits(**request["limits"]), gpu=False, alone=False)
        return {"status": "ready", "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}, None
    path = Path(request["path"])
    try:
        if request["op"] == "digest":
            return {"digest": digest_at(path, {(height, width) for height, width in request["sizes"]})}, None
        if request["op"] == "methods":
            found = json.dumps(methods_in(json.loads(path.read_bytes()), request["source"])).encode()
            return {}, np.frombuffer(found, np.uint8)
        if request["op"] == "small":
            pixels = decode(path, read_bytes(path))
            return {"size": pixels.shape[:2]}, shrunk(pixels, request["side"])
        if request["op"] == "open":
            data = read_bytes(path)
            return {"header": asdict(header_of(path, data))}, decode(path, data)
        lq, size = request["lq"], request["size"]
        results = tuple(request["results"])
        wanted = Wanted(
            path, request["name"], Path(lq) if lq else None, tuple(size) if size else None, request["scale"], results
        )
        seen = look_at(wanted, keep=request["keep"])
    except UserError as error:
        return {"mistake": str(error)}, None
    except MemoryError:
        return {"memory": True}, None
    findings = [[one.code, one.expected, one.found] for one in seen.findings]
    return {"findings": findings, "size": seen.size, "digest": seen.digest}, seen.pixels


@dataclass
class _Place:
    """Where copies for one process lie, and the process while there is one."""

    folder: Path
    child: Child | None = None


@cache
def decoders() -> "Decoders":
    """Those of this process; they stay for the next entry and end with the program."""
    made = Decoders()
    atexit.register(made.close)
    return made


class Decoders:
    """As many such processes as there are processors to use, up to MOST_WORKERS, each started when it is first needed."""

    def __init__(self, backend: Backend | None = None) -> None:
        """`backend` is by default what works here, and no sandbox where none does; it is chosen when it is needed."""
        self._backend = backend
        self._scratch = ExitStack()
        # Copies of one request each: what the processes may see.
        self._exchange = self._scratch.enter_context(scratch_folder()) / "in"
        self._exchange.mkdir(mode=0o755)
        self._exchange.parent.chmod(0o755)
        self._count = min(MOST_WORKERS, usable_cores())
        # A sandbox ends with the thread that started it, so that one has to stay.
        self._starter = ThreadPoolExecutor(1)
        # The last one that answered goes first: a few pictures need no second process.
        self._idle: queue.LifoQueue[_Place] = queue.LifoQueue()
        for _ in range(self._count):
            self._idle.put(_Place(_readable(self._exchange / secrets.token_hex(8))))

    def close(self) -> None:
        """End the processes."""
        # All are taken before any goes back: the last one that is put there is the next one to be got.
        places = [self._idle.get() for _ in range(self._count)]
        for place in places:
            if place.child is not None:
                place.child.close()
            self._idle.put(_Place(place.folder))
        self._starter.shutdown()
        self._scratch.close()

    @property
    def backend(self) -> Backend:
        """What stands between the pictures and this machine."""
        if self._backend is None:
            try:
                self._backend = choose("auto")
            except UserError:
                self._backend = "none"
        return self._backend

    def look(self, wanted: Sequence[Wanted]) -> list[SeenImage]:
        """What is wrong with each picture, in order. Raises UserError for an input that cannot be read."""
        return self._each(self._look, wanted)

    def digests(self, paths: Sequence[Path], sizes: set[tuple[int, int]], root: Path | None = None) -> list[str | None]:
        """The digest of each file that is a picture of one of the sizes; no link below `root` is followed."""
        return self._each(lambda path: self._digest(path, sizes, root), paths) if sizes else [None] * len(paths)

    def examine(self, wanted: Wanted, data: bytes, *, lq: bytes | None = None, keep: bool = False) -> SeenImage:
        """What is wrong with a picture whose bytes were read, and of its input; `keep` gives the pixels."""
        request = {
            "op": "look", "name": wanted.name, "size": wanted.size, "scale": wanted.scale, "results": wanted.results,
            "keep": keep,
        }  # fmt: skip
        height, width = enlarged(wanted.size or (0, 0), wanted.scale)
        beside = (wanted.lq.name, lq) if wanted.lq is not None and lq is not None else None
        answer, samples = self._ask(request, data, beside, 3 * height * width if keep else 0)
        if "mistake" in answer:
            # It was read under another name there.
            raise UserError(f"{wanted.lq or wanted.name}: {str(answer['mistake']).partition(': ')[2]}")
        try:
            findings = tuple(
                Finding(str(code), wanted.name, str(want), str(found)) for code, want, found in answer["findings"]
            )
            height, width = answer["size"] or (0, 0)
            size = (int(height), int(width)) if answer["size"] else None
            digest = answer["digest"]
            if digest is not None and not (isinstance(digest, str) and len(digest) == DIGITS):
                raise ValueError
            pixels = _pixels(answer, samples) if samples else None
        except (KeyError, ValueError, TypeError):
            problem = f"its decoder {answer.get('problem') or 'ran out of memory'}"
            return SeenImage(wanted.name, (Finding("E307", wanted.name, "a picture that can be decoded", problem),))
        return SeenImage(wanted.name, findings, size, digest, pixels)

    def decode(self, path: Path, data: bytes) -> Integers:
        """The pixels of a PNG whose bytes were read; `path` is for messages. Raises UnreadableImage."""
        return cast("Integers", self.open(path, data, size_in(data) or (0, 0))[1])

    def methods(
        self, sources: Mapping[str, str | None], source: str
    ) -> tuple[list[str], list[tuple[str, str | None]], str]:
        """What `ntire.review.source_code` finds in the code of an entry, whose text is not to be trusted either."""
        request = {"op": "methods", "source": source}
        answer, found = self._ask(request, json.dumps(sources).encode(), None, MOST_FOUND)
        try:
            classes, declared, problem = json.loads(found)
            pairs = [(str(file), None if sha256 is None else str(sha256)) for file, sha256 in declared]
            return [str(one) for one in classes], pairs, str(problem)
        except (ValueError, TypeError, RecursionError):
            return [], [], f"reading it {answer.get('problem') or 'takes more memory than there is'}"

    def open(self, path: Path, data: bytes, size: tuple[int, int]) -> tuple[Header, Pixels]:
        """Header and pixels of a picture of that height and width. Raises UnreadableImage."""
        answer, samples = self._ask({"op": "open"}, data, None, 12 * size[0] * size[1])
        try:
            header = Header(**answer["header"])
            pixels = _pixels(answer, samples)
        except (KeyError, ValueError, TypeError):
            mistake = str(answer.get("mistake", "")).partition(": ")[2]
            why = mistake or f"its decoder {answer.get('problem') or 'ran out of memory'}"
            raise UnreadableImage(f"{path}: cannot be decoded: {printable(why)}") from None
        return header, pixels

    def small(self, path: Path, side: int, root: Path | None = None) -> tuple[Preview, tuple[int, int]]:
        """A picture of at most `side` pixels a side in 8 bits, and the height and width of the whole.

        Of a file, which is no link; of one below `root`, no folder in between is one either. Raises UnreadableImage, and
        OSError for a file that cannot be read or is too long.
        """
        put = partial(copy_readable, path, below=root, most=MOST_BYTES)
        answer, samples = self._ask({"op": "small", "side": side}, put, None, 3 * side * side)
        try:
            height, width = answer["size"]
            return in_8_bits(_pixels(answer, samples)), (int(height), int(width))
        except (KeyError, ValueError, TypeError):
            mistake = str(answer.get("mistake", "")).partition(": ")[2]
            why = mistake or f"its decoder {answer.get('problem') or 'ran out of memory'}"
            raise UnreadableImage(f"{path}: cannot be decoded: {printable(why)}") from None

    def _look(self, wanted: Wanted) -> SeenImage:
        lq, size = input_of(wanted)
        try:
            data = bytes_of(wanted, size, wanted.bytes_per_pixel)
        except BadImage as bad:
            return SeenImage(wanted.name, (bad.finding,))
        return self.examine(wanted, data, lq=lq)

    def _digest(self, path: Path, sizes: set[tuple[int, int]], root: Path | None) -> str | None:
        try:
            data = read_regular(path, MOST_BYTES, root)
        except OSError:
            return None
        digest = self._ask({"op": "digest", "sizes": sorted(sizes)}, data, None, 0)[0].get("digest")
        return digest if isinstance(digest, str) else None

    def _ask(
        self,
        request: dict[str, Any],
        data: bytes | Callable[[Path], None],
        lq: tuple[str, bytes] | None,
        most: int,
    ) -> tuple[Mapping[str, Any], bytes]:
        """The answer of an idle process on copies of a picture, by its bytes or who copies it, and its input; a process that
        ends over it is replaced.
        """
        place = self._idle.get()
        copies: dict[str, tuple[Path, bytes | Callable[[Path], None]]]
        copies = {"path": (place.folder / "picture.png", data)}
        if lq is not None:
            copies["lq"] = (_readable(place.folder / "lq") / lq[0], lq[1])
        try:
            for path, content in copies.values():
                _put(path, content)
            # One that waited may have ended for a reason of its own, which is no fault of the picture's.
            for _ in range(2):
                waited = place.child is not None
                child = place.child = place.child or self._starter.submit(self._started).result()
                inside = {
                    name: child.path_of(path.relative_to(self._exchange).as_posix())
                    for name, (path, _) in copies.items()
                }
                answer = child.ask({**request, "lq": "", **inside}, LIMITS.seconds, most)
                if answer.state == "answered":
                    return answer.fields, answer.data
                child.close()
                place.child = None
                if not waited or answer.state != "died":
                    break
            return {"problem": answer.problem}, b""
        finally:
            for path, _ in copies.values():
                path.unlink(missing_ok=True)
            self._idle.put(place)

    def _started(self) -> Child:
        child = Child(self.backend, Place(self._exchange, self._exchange), LIMITS, DECODER)
        if child.begin("cpu").state == "answered":
            return child
        child.close()
        if self.backend == "none":
            raise UserError(f"a process that decodes pictures does not start: {child.printed[-500:]}", exit_code=3)
        # It works for others and not for this Python, such as one in a folder that the sandbox hides.
        self._backend = "none"
        return self._started()

    def _each(self, look: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(look, items))


def _readable(folder: Path) -> Path:
    """A folder of copies."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    return folder


def _put(path: Path, data: bytes | Callable[[Path], None]) -> None:
    if callable(data):
        data(path)
        return
    path.write_bytes(data)
    path.chmod(0o644)


def _pixels(answer: Mapping[str, Any], samples: bytes) -> Pixels:
    """Samples as RGB (H, W, 3); raises KeyError, ValueError or TypeError if they are not what the answer says."""
    height, width, channels = answer["shape"]
    if channels != 3 or answer["dtype"] not in ("uint8", "uint16", "float32"):
        raise ValueError
    return np.frombuffer(samples, answer["dtype"]).reshape(int(height), int(width), 3)
