"""Strangers' pictures are decoded in processes of their own, with a cap on their memory: a decoder that is led astray takes
nothing with it. What comes back is lines of JSON, read as one reads a stranger's.
"""

import atexit
import json
import os
import queue
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from ntire import UserError
from ntire.entry.findings import Finding
from ntire.review.image_checks import SeenImage, Wanted, digest_at, look_at
from ntire.sandbox.child import DECODER, Child, Place
from ntire.sandbox.limits import Limits, apply_rlimits

LIMITS = Limits(seconds=120.0, memory_bytes=3 << 30, processes=64, files=256, file_bytes=0)
"""A picture of 130 megapixels and its input take 2 GiB while they are compared."""
DIGITS = 64


def main() -> None:
    """The other side: answer one request after the other."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201 - the answer to the parent


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    if request["op"] == "begin":
        apply_rlimits(Limits(**request["limits"]), gpu=False, alone=False)
        return {"status": "ready", "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
    try:
        if request["op"] == "digest":
            return {"digest": digest_at(Path(request["path"]), {(height, width) for height, width in request["sizes"]})}
        lq, size = request["lq"], request["size"]
        depths = tuple(request["depths"])
        wanted = Wanted(
            Path(request["path"]), request["name"], Path(lq) if lq else None, tuple(size) if size else None, depths
        )
        seen = look_at(wanted)
    except UserError as error:
        return {"mistake": str(error)}
    except MemoryError:
        return {"memory": True}
    findings = [[one.code, one.expected, one.found] for one in seen.findings]
    return {"findings": findings, "size": seen.size, "digest": seen.digest}


@cache
def decoders() -> "Decoders":
    """Those of this process; they stay for the next entry and end with the program."""
    made = Decoders()
    atexit.register(made.close)
    return made


class Decoders:
    """As many such processes as there are processors, up to four, each started when it is first needed."""

    def __init__(self) -> None:
        self._nowhere = tempfile.TemporaryDirectory(prefix="ntire-decoders-")
        self._count = min(4, os.cpu_count() or 1)
        # The last one that answered goes first: a few pictures need no second process.
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(self._count):
            self._idle.put(None)

    def close(self) -> None:
        """End the processes."""
        for _ in range(self._count):
            child = self._idle.get()
            if child is not None:
                child.close()
            self._idle.put(None)
        self._nowhere.cleanup()

    def look(self, wanted: Sequence[Wanted]) -> list[SeenImage]:
        """What is wrong with each picture, in order. Raises UserError for an input that cannot be read."""
        return self._each(self._look, wanted)

    def digests(self, paths: Sequence[Path], sizes: set[tuple[int, int]]) -> list[str | None]:
        """The digest of each file that is a picture of one of the sizes."""
        return self._each(lambda path: self._digest(path, sizes), paths) if sizes else [None] * len(paths)

    def _look(self, wanted: Wanted) -> SeenImage:
        answer = self._ask(
            {
                "op": "look",
                # A process that stays has a working directory of its own.
                "path": str(wanted.path.absolute()),
                "name": wanted.name,
                "lq": str(wanted.lq.absolute()) if wanted.lq else None,
                "size": wanted.size,
                "depths": wanted.depths,
            }
        )
        if "mistake" in answer:
            raise UserError(str(answer["mistake"]))
        try:
            findings = tuple(
                Finding(str(code), wanted.name, str(want), str(found)) for code, want, found in answer["findings"]
            )
            height, width = answer["size"] or (0, 0)
            size = (int(height), int(width)) if answer["size"] else None
            digest = answer["digest"]
            if digest is not None and not (isinstance(digest, str) and len(digest) == DIGITS):
                raise ValueError
        except (KeyError, ValueError, TypeError):
            problem = f"its decoder {answer.get('problem') or 'ran out of memory'}"
            return SeenImage(wanted.name, (Finding("E307", wanted.name, "a picture that can be decoded", problem),))
        return SeenImage(wanted.name, findings, size, digest)

    def _digest(self, path: Path, sizes: set[tuple[int, int]]) -> str | None:
        digest = self._ask({"op": "digest", "path": str(path.absolute()), "sizes": sorted(sizes)}).get("digest")
        return digest if isinstance(digest, str) else None

    def _ask(self, request: dict[str, Any]) -> Mapping[str, Any]:
        """The answer of an idle process; one that ends over a picture is replaced for the next."""
        child = self._idle.get()
        answered = False
        try:
            if child is None:
                nowhere = Path(self._nowhere.name)
                child = Child("none", Place(nowhere, nowhere), LIMITS, DECODER)
                child.begin("cpu")
            answer = child.ask(request, LIMITS.seconds)
            answered = answer.state == "answered"
            return answer.fields if answered else {"problem": answer.problem}
        finally:
            if child is not None and not answered:
                child.close()
                child = None
            self._idle.put(child)

    def _each(self, look: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(look, items))
