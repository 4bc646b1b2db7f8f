"""The other side of an engine: a process that prepares what tasks want, keeps it, and does one task after the other."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ntire import UserError
from ntire.runner.engines.engine import Desk, State, Task, WorkerAnswer
from ntire.sandbox.scratch import scratch_folder

LOG_TAIL = 20_000
"""Characters of what a task printed that are kept."""


class Doer:
    """Does tasks in this process; one prepared state is kept."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        self._key: str | None = None
        self._state: Any = None

    def do(self, task: Task, sent: Mapping[Path, bytes] | None = None) -> WorkerAnswer:
        """Do a task; `sent` are the bytes of files that are not on this machine."""
        printed = io.StringIO()
        began = time.perf_counter()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                with scratch_folder() as folder:
                    desk = Desk(self.name, self.device, folder / "scratch", sent=_laid_out(folder, sent or {}))
                    desk.scratch.mkdir()
                    try:
                        desk.state = self._prepared(task.state, desk)
                    except UserError as error:
                        if error.exit_code != 3:
                            raise
                        return WorkerAnswer("unable", problem=str(error), log=printed.getvalue()[-LOG_TAIL:])
                    began = time.perf_counter()
                    value = task.work(desk, *task.arguments)
                return WorkerAnswer("done", value, "", printed.getvalue()[-LOG_TAIL:], time.perf_counter() - began)
            except Exception as error:  # noqa: BLE001 - it is a result, and the worker goes on
                traceback.print_exc()
                seconds = time.perf_counter() - began
                # The machine's fault, a lost GPU or a full disk, and not the task's.
                kind: Literal["lost", "failed"] = (
                    "lost" if isinstance(error, UserError) and error.exit_code == 3 else "failed"
                )
                return WorkerAnswer(kind, None, _in_a_line(error), printed.getvalue()[-LOG_TAIL:], seconds)

    def _prepared(self, state: State | None, desk: Desk) -> Any:
        if state is None:
            return None
        if state.key != self._key:
            if hasattr(self._state, "close"):
                self._state.close()
            self._key = self._state = None
            gc.collect()
            if torch := sys.modules.get("torch"):
                torch.cuda.empty_cache()
            self._state = state.prepare(desk, *state.arguments)
            self._key = state.key
        return self._state


def _in_a_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}"


def _laid_out(folder: Path, sent: Mapping[Path, bytes]) -> dict[Path, Path]:
    """Files that were sent, in a tree like the one they come from: what lies side by side there does so here."""
    found = {}
    for path, data in sent.items():
        here = folder / "files" / path.relative_to(path.anchor)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(data)
        found[path] = here
    return found
