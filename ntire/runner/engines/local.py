"""Processes of this machine: one a GPU, or one for a group of processors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import platform
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ntire.environment import usable_cores
from ntire.runner.engines.engine import Engine, Task, Worker, WorkerAnswer
from ntire.sandbox.scratch import sweep

CORES_EACH = 4
"""Processors for a worker without a GPU."""


@dataclass
class _Process:
    worker: Worker
    process: multiprocessing.process.BaseProcess
    pipe: Connection


class Local(Engine):
    """Processes of this machine, started when there is work for them; one that dies is started again."""

    def __init__(
        self, workers: int | None = None, device: str = "auto", say: Callable[[str], None] = lambda line: None
    ) -> None:
        """`workers` processes: by default one a GPU, or one for every CORES_EACH processors."""
        super().__init__(say)
        gpus = [] if device == "cpu" else visible_gpus()
        count = workers or len(gpus) or max(usable_cores() // CORES_EACH, 1)
        self._cores = max(usable_cores() // count, 1)
        self._processes: dict[str, _Process] = {}
        self._gpu_of: dict[str, str] = {}
        node = platform.node()
        for number in range(count):
            worker = Worker(f"{node}/{number}", node, "cpu", host_memory())
            if gpus:
                worker.device = "cuda"
                self._gpu_of[worker.name], worker.device_name, worker.memory = gpus[number % len(gpus)]
            self.workers[worker.name] = worker

    def start(self, worker: Worker, task: Task) -> bool:
        """Send the task down the worker's pipe; its process is started if it does not run."""
        running = self._processes.get(worker.name) or self._begin(worker)
        try:
            running.pipe.send(task)
        except (BrokenPipeError, ConnectionResetError):
            self._forget(running)
            return False
        return True

    def wait(self, seconds: float) -> list[tuple[Worker, WorkerAnswer]]:
        """What came through the pipes."""
        busy = {one.pipe: one for one in self._processes.values() if one.worker.task is not None}
        if not busy:
            time.sleep(0.01)
            return []
        answers = []
        for pipe in wait(list(busy), seconds):
            running = busy[pipe]  # type: ignore[index]
            try:
                answer = running.pipe.recv()
                if answer.kind == "lost":
                    self._end(running)
                answers.append((running.worker, answer))
            except (EOFError, ConnectionResetError):
                running.process.join()
                code = running.process.exitcode or 0
                ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                out_of_memory = ", perhaps out of memory" if code == -signal.SIGKILL else ""
                self._forget(running)
                answers.append(
                    (running.worker, WorkerAnswer("lost", problem=f"its process was {ended}{out_of_memory}"))
                )
        return answers

    def close(self) -> None:
        """End the processes, whatever they do, and remove what they had for a while."""
        killed = list(self._processes.values())
        for running in killed:
            self._end(running)
        if killed:
            sweep(Path(tempfile.gettempdir()), young=0)

    def _begin(self, worker: Worker) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self._cores))}
        if worker.name in self._gpu_of:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_of[worker.name]
        process = context.Process(
            target=_serve, args=(theirs, worker.name, worker.device, environment), name=worker.name, daemon=True
        )
        # A terminal sends Ctrl-C to all; the worker ignores it, but not before it has begun.
        resource_tracker.ensure_running()  # which would let the signal through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._processes[worker.name] = _Process(worker, process, ours)
        return self._processes[worker.name]

    def _end(self, running: _Process) -> None:
        running.process.kill()
        running.process.join()
        self._forget(running)

    def _forget(self, running: _Process) -> None:
        running.pipe.close()
        running.worker.state = None
        self._processes.pop(running.worker.name, None)


def _serve(pipe: Connection, name: str, device: str, environment: dict[str, str]) -> None:
    """The process: ends with the one that started it, and leaves Ctrl-C to that."""
    from ntire.runner.engines.worker_process import Doer

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    doer = Doer(name, device)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            answer = doer.do(pipe.recv())
            try:
                pipe.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                pipe.send(WorkerAnswer("failed", problem=f"what it returned cannot be pickled: {error}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def visible_gpus() -> list[tuple[str, str, int]]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use, its name, and the bytes of its memory."""
    import torch

    ids = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    found = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append((ids[number] if number < len(ids) else str(number), properties.name, properties.total_memory))
    return found


def host_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
