"""What an engine is: tasks given to workers, the longest first, each worker whenever it is free."""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ntire import UserError

TRIES = 3
"""Workers that a task may lose, each of them to another cause than an exception, before it is given up."""
GRACE = 10.0
"""Seconds that workers are waited for beside one that has come."""
OVERDUE, LEAST_OVERDUE = 3.0, 10.0
"""A task that takes so many times as long as others of its length, and so many seconds, is begun again where nothing else is
left to do."""


@dataclass(frozen=True)
class State:
    """What a worker prepares once and keeps for all tasks that want it, such as a method filled with its weights."""

    key: str
    """By the hash of all that can change it."""
    prepare: Callable[..., Any]
    """A function of a module: `prepare(desk, *arguments)`. A UserError with exit code 3 says that this machine lacks something:
    its tasks go to other machines, and fail only if no machine can do them."""
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class TaskFile:
    """A file that a task reads: known by its bytes, as another machine may have another file at that path, or none."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Task:
    """One piece of work."""

    key: str
    """By the hash of all that can change what it makes: equal keys are done once."""
    work: Callable[..., Any]
    """A function of a module: `work(desk, *arguments)`; arguments and what it returns are pickled."""
    arguments: tuple[Any, ...] = ()
    title: str = ""
    """For people."""
    seconds: float = 1.0
    """Measured or estimated: the longest begin first. `math.inf` for what is to show how long others take."""
    memory: int = 0
    """Bytes that a worker's device must have."""
    state: State | None = None
    files: tuple[TaskFile, ...] = ()
    """Where a worker does not have them, they are sent; `desk.here(path)` is where they lie."""


@dataclass(frozen=True)
class TaskResult:
    """What became of a task."""

    task: Task
    value: Any = None
    """What `work` returned."""
    problem: str = ""
    """Why there is no value, in one line; empty if the task is done."""
    log: str = ""
    """What it printed and, if it failed, its traceback."""
    worker: str = ""
    seconds: float = 0.0
    """Of the work, without preparing."""


@dataclass
class Desk:
    """What a task sees of the worker that does it."""

    worker: str
    """Its name: that of the machine and a number."""
    device: str
    """`cuda` or `cpu`; where there are several GPUs, the worker sees only its own."""
    scratch: Path
    """A folder of the task's own, empty at first and removed with all that is in it afterwards."""
    state: Any = None
    """What `State.prepare` returned."""
    sent: Mapping[Path, Path] = field(default_factory=dict)

    def here(self, path: Path) -> Path:
        """Where a file of the task lies on this machine."""
        return self.sent.get(path, path)


@dataclass
class Worker:
    """A worker as its engine knows it."""

    name: str
    node: str
    device: str
    memory: int
    """Bytes of its device."""
    device_name: str = "cpu"
    """What a run's journal calls its device."""
    ready: bool = True
    state: str | None = None
    """The key of what it holds prepared."""
    task: Task | None = None
    began: float = 0.0
    busy_seconds: float = 0.0
    done: int = 0

    @property
    def place(self) -> tuple[str, str]:
        """What it can do is the same for all of one machine's devices of one kind."""
        return self.node, self.device_name


@dataclass(frozen=True)
class WorkerAnswer:
    """What a worker says in the end: `lost` is said of it, not by it; `unable` are its machine's shortcomings."""

    kind: Literal["done", "failed", "unable", "lost"]
    value: Any = None
    problem: str = ""
    log: str = ""
    seconds: float = 0.0


class Engine(ABC):
    """Does tasks on workers: the longest first, each worker whenever it is free, nothing dealt out beforehand.

    A task whose worker is lost begins again on another one, up to TRIES times; a task that raises an exception is not tried
    again. Use it in a `with` statement, at whose end its workers end.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        """`say` hears of workers that come and go."""
        self.say = say
        self.workers: dict[str, Worker] = {}
        self.tick: Callable[[], None] = lambda: None
        """Called about every second while there is work."""
        self.began = time.monotonic()
        self._waiting: dict[str, Task] = {}
        self._open: set[str] = set()
        self._tries: dict[str, list[str]] = {}
        self._unable: dict[tuple[str, tuple[str, str]], str] = {}
        self._pace: list[float] = []

    @abstractmethod
    def start(self, worker: Worker, task: Task) -> bool:
        """Give a free worker a task; False if it cannot take one now."""

    @abstractmethod
    def wait(self, seconds: float) -> list[tuple[Worker, WorkerAnswer]]:
        """What workers answered, waiting so long at most; may add workers, and drops those that are lost."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, whatever they do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self, tasks: Iterable[Task], more: Callable[[TaskResult], Iterable[Task]] = lambda result: ()
    ) -> Iterator[TaskResult]:
        """Do all tasks, and those that `more` adds after each result; every task gives one result.

        Raises UserError (exit code 3) if no worker is left.
        """
        self._add(tasks)
        while self._open:
            self._hand_out()
            self.tick()
            for worker, answer in self.wait(1.0):
                result = self._settled(worker, answer)
                if result is not None:
                    self._add(more(result))
                    self._hand_out()
                    yield result
            yield from self._hopeless()

    def ready(self, patience: float = 60.0) -> list[Worker]:
        """The workers, once all have come, or those that have after GRACE; the first is waited for so many seconds.

        Raises UserError where none comes.
        """
        began = time.monotonic()
        while True:
            found = [one for one in self.workers.values() if one.ready]
            waited = time.monotonic() - began
            if (found and (len(found) == len(self.workers) or waited > GRACE)) or waited > patience:
                break
            self.wait(0.2)
        if not found:
            raise UserError(
                f"no worker came within {patience:.0f} s: expected a machine with free processors or GPUs, found "
                f"{len(self.workers)} that did not answer. `ray status` shows who has them.",
                exit_code=3,
            )
        return found

    def usage(self) -> dict[str, list[Worker]]:
        """The workers by machine, with what they do now and how long they were busy."""
        found: dict[str, list[Worker]] = {}
        for worker in self.workers.values():
            found.setdefault(worker.node, []).append(worker)
        return found

    def usage_in_words(self) -> dict[str, str]:
        """For each machine: its workers, which share of the time they were busy, and how many tasks they have done."""
        now = time.monotonic()
        told = {}
        for node, workers in self.usage().items():
            busy = sum(one.busy_seconds + (now - one.began if one.task is not None else 0) for one in workers)
            share = busy / max((now - self.began) * len(workers), 1e-9)
            told[node] = f"{len(workers)} worker(s), {min(share, 1):.0%} busy, {sum(one.done for one in workers)} done"
        return told

    def _add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            if task.key not in self._open:
                self._waiting[task.key] = task
                self._open.add(task.key)

    def _hand_out(self) -> None:
        for worker in [one for one in self.workers.values() if one.ready and one.task is None]:
            task = self._next(worker)
            if task is not None and self.start(worker, task):
                self._waiting.pop(task.key, None)
                worker.task, worker.state, worker.began = task, _state(task), time.monotonic()

    def _next(self, worker: Worker) -> Task | None:
        able = [task for task in self._waiting.values() if self._able(worker, task)]
        if not able:
            return self._overdue(worker)
        held = {one.state for one in self.workers.values() if one is not worker}

        def merit(task: Task) -> tuple[bool, bool, float, bool]:
            state = _state(task)
            return math.isinf(task.seconds), state == worker.state, task.seconds, state not in held

        return max(able, key=merit)

    def _able(self, worker: Worker, task: Task) -> bool:
        if (_state(task), worker.place) in self._unable:
            return False
        others = [one for one in self.workers.values() if (_state(task), one.place) not in self._unable]
        enough = min(task.memory, max(one.memory for one in others))
        died_on = self._tries.get(task.key, [])
        elsewhere = any(one.node not in died_on and one.memory >= enough for one in others)
        return worker.memory >= enough and not (worker.node in died_on and elsewhere)

    def _overdue(self, worker: Worker) -> Task | None:
        """What a slow worker has been at for too long, to be begun here as well: the first to end it counts."""
        if self._waiting:
            return None
        pace = statistics.median(self._pace) if self._pace else 1.0
        at = [one.task for one in self.workers.values() if one.task is not None]
        late = [
            one.task
            for one in self.workers.values()
            if one.task is not None
            and one.task.key in self._open
            and at.count(one.task) == 1
            and self._able(worker, one.task)
            and time.monotonic() - one.began > max(OVERDUE * pace * _finite(one.task.seconds), LEAST_OVERDUE)
        ]
        return max(late, key=lambda task: task.seconds, default=None)

    def _settled(self, worker: Worker, answer: WorkerAnswer) -> TaskResult | None:
        """Take note of an answer; None if its task is not ended by it."""
        task, worker.task = worker.task, None
        if task is None:
            return None
        worker.busy_seconds += time.monotonic() - worker.began
        worker.state = _state(task) if answer.kind in ("done", "failed") else None
        if task.key not in self._open:
            return None
        if answer.kind == "lost":
            tries = self._tries.setdefault(task.key, [])
            tries.append(worker.node)
            self.say(f"{worker.name} is lost ({answer.problem}), at work on {task.title or task.key}")
            if len(tries) < TRIES:
                self._again(task)
                return None
            problem = f"{len(tries)} workers were lost at it, on {', '.join(dict.fromkeys(tries))}: {answer.problem}"
            return self._ended(TaskResult(task, problem=problem, log=answer.log, worker=worker.name))
        if answer.kind == "unable":
            self._unable[_state(task), worker.place] = answer.problem
            self.say(f"{worker.node} cannot do {task.title or task.key}: {answer.problem}")
            self._again(task)
            return None
        if answer.kind == "done":
            worker.done += 1
            if math.isfinite(task.seconds):
                self._pace.append(answer.seconds / max(task.seconds, 1e-3))
        return self._ended(
            TaskResult(task, answer.value, answer.problem, answer.log, worker.name, round(answer.seconds, 4))
        )

    def _again(self, task: Task) -> None:
        if not any(one.task is not None and one.task.key == task.key for one in self.workers.values()):
            self._waiting[task.key] = task

    def _ended(self, result: TaskResult) -> TaskResult:
        self._open.discard(result.task.key)
        self._waiting.pop(result.task.key, None)
        return result

    def _hopeless(self) -> Iterator[TaskResult]:
        """Tasks that no machine here can do."""
        places = {worker.place for worker in self.workers.values() if worker.ready}
        if not places or not all(worker.ready for worker in self.workers.values()):
            return
        for task in list(self._waiting.values()):
            reasons = {place: self._unable.get((_state(task), place)) for place in places}
            if all(reasons.values()):
                told = "\n".join(sorted({f"{node}: {why}" for (node, _), why in reasons.items()}))
                yield self._ended(TaskResult(task, problem=f"no machine can do it:\n{told}"))


def _state(task: Task) -> str:
    return task.state.key if task.state is not None else ""


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 60.0
