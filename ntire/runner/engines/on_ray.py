"""The nodes of a Ray cluster: one actor a GPU, or one for a group of processors where there are none."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ntire import UserError
from ntire.files import sha256_of
from ntire.runner.engines.engine import Engine, Task, TaskFile, Worker, WorkerAnswer
from ntire.runner.engines.local import CORES_EACH, host_memory
from ntire.runner.engines.worker_process import Doer
from ntire.sandbox.scratch import received

if TYPE_CHECKING:
    from ray import ObjectRef

MOST_BYTES_ON_THE_WAY = 512 << 20
"""Of files that are sent to nodes that do not see them, in the object store at once; a larger task goes alone."""
LOOK_EVERY = 5.0
"""Seconds after which nodes that have come are put to work."""
NO_WORKER_SECONDS = 120.0
"""So long may a cluster be without a worker before a run gives up."""


@dataclass(frozen=True)
class _NotHere:
    """The answer of a worker that does not see the files of a task."""


@dataclass
class _Actor:
    worker: Worker
    handle: Any
    answer: ObjectRef[Any]
    """Of what it was asked last, at first of what it is."""
    bytes: int = 0
    """On their way to it."""


class _RemoteWorker:
    """In a process of a node."""

    def __init__(self, name: str, device: str) -> None:
        self._doer = Doer(name, device)

    def about(self) -> tuple[str, int]:
        """The name of its device, and the bytes of its memory."""
        if self._doer.device == "cpu":
            return "cpu", host_memory()
        import torch

        properties = torch.cuda.get_device_properties(0)
        return properties.name, properties.total_memory

    def do(self, task: Task, paths: Sequence[Path], *data: bytes) -> WorkerAnswer | _NotHere:
        """Do a task with the files at `paths` in `data`, or with those of this machine, if they are the same."""
        if not paths and not all(map(_is_here, task.files)):
            return _NotHere()
        return self._doer.do(task, dict(zip(paths, data, strict=True)))


class OnRay(Engine):
    """Actors on the nodes of a cluster; they end with the program that started them, whatever ends it."""

    def __init__(
        self,
        address: str = "auto",
        workers: int | None = None,
        device: str = "auto",
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Connect to the cluster at `address`: `auto` is the one that this machine is part of, `local` a new one of it alone.
        `workers` on each node: by default one a GPU, and one for every CORES_EACH processors where no node has a GPU.

        Raises UserError (exit code 3) if Ray is missing or nothing answers there.
        """
        super().__init__(say)
        self._ours = connect(address)
        self._each, self._cpu_only = workers, device == "cpu"
        self._actors: dict[str, _Actor] = {}
        self._blind: set[str] = set()
        self._asked: dict[str, int] = {}
        self._looked = float("-inf")
        self._last_worker = time.monotonic()
        self._look()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        ended = received()
        if isinstance(error, SystemExit) and ended is not None:
            raise ended from error  # a call of Ray's in which a signal comes ends with exit code 1, whatever the signal

    def start(self, worker: Worker, task: Task) -> bool:
        """Call the actor; files go along where its node has turned out not to see them, if there is room on the way."""
        actor = self._actors[worker.name]
        paths: list[Path] = []
        refs: list[Any] = []
        if task.files and worker.node in self._blind:
            import ray
            from ray.exceptions import ObjectStoreFullError, OutOfDiskError

            size = sum(file.path.stat().st_size for file in task.files)
            on_the_way = sum(one.bytes for one in self._actors.values())
            if on_the_way and on_the_way + size > MOST_BYTES_ON_THE_WAY:
                return False
            paths = [file.path for file in task.files]
            try:
                refs = [ray.put(path.read_bytes()) for path in paths]
            except (ObjectStoreFullError, OutOfDiskError) as error:
                if on_the_way:
                    return False  # until what is on the way has arrived
                raise UserError(
                    f"the object store has no room for {size / 1e6:.0f} MB of {task.title}: {_first_line(error)}. Give the "
                    "node of this program more (`ray start --object-store-memory`), or use a shared file system.",
                    exit_code=3,
                ) from error
            actor.bytes = size
        actor.answer = actor.handle.do.remote(task, paths, *refs)
        return True

    def wait(self, seconds: float) -> list[tuple[Worker, WorkerAnswer]]:
        """What actors answered; those of new nodes are started."""
        import ray

        if time.monotonic() - self._looked > LOOK_EVERY:
            self._look()
        waited = {one.answer: one for one in self._actors.values() if one.worker.task or not one.worker.ready}
        if not waited:
            self._give_up_without_workers()
            time.sleep(min(seconds, 0.05))
            return []
        self._last_worker = time.monotonic()
        ready, _ = ray.wait(list(waited), num_returns=1, timeout=seconds)
        heard = [self._heard(waited[one]) for one in ready]
        return [one for one in heard if one is not None]

    def close(self) -> None:
        """End the actors, whatever they do, and a cluster that was started for this."""
        import ray

        for actor in self._actors.values():
            with contextlib.suppress(Exception):
                ray.kill(actor.handle)
        self._actors.clear()
        if self._ours:
            ray.shutdown()

    def _heard(self, actor: _Actor) -> tuple[Worker, WorkerAnswer] | None:
        import ray
        from ray.exceptions import RayError

        worker, actor.bytes = actor.worker, 0
        try:
            answer = ray.get(actor.answer)
        except RayError as error:
            self._drop(actor)
            lost = WorkerAnswer("lost", problem=_first_line(error))
            return (worker, lost) if worker.task is not None else None
        if isinstance(answer, WorkerAnswer) and answer.kind == "lost":
            with contextlib.suppress(RayError):
                ray.kill(actor.handle)
            self._drop(actor)
        if isinstance(answer, _NotHere) and worker.task is not None:
            self._blind.add(worker.node)
            self.say(f"{worker.node} does not see the files of {worker.task.title or worker.task.key}: they are sent")
            task, worker.task = worker.task, None
            self._waiting[task.key] = task
            return None
        if not worker.ready:
            worker.device_name, worker.memory = answer
            worker.ready = True
            return None
        return worker, answer

    def _drop(self, actor: _Actor) -> None:
        """Forget an actor that is lost; if its node lives, another one is started there at the next look."""
        self._actors.pop(actor.worker.name, None)
        self.workers.pop(actor.worker.name, None)
        self._looked = float("-inf")

    def _look(self) -> None:
        """Start actors on nodes that have come since, or whose actors were lost."""
        import ray

        self._looked = time.monotonic()
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        gpus = not self._cpu_only and any(node["Resources"].get("GPU") for node in nodes.values())
        for identity, node in nodes.items():
            having = int(node["Resources"].get("GPU" if gpus else "CPU", 0))
            wanted = min(self._each or having, having) if gpus else self._each or -(-having // CORES_EACH)
            name = f"{node['NodeManagerHostname']}-{identity[:6]}"
            running = sum(one.worker.node == name for one in self._actors.values())
            for _ in range(wanted - running if having else 0):
                self._begin(identity, name, {"num_gpus": 1} if gpus else {"num_cpus": _share(having, wanted)})

    def _begin(self, identity: str, node: str, resources: dict[str, float]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        number = self._asked[node] = self._asked.get(node, -1) + 1
        worker = Worker(f"{node}/{number}", node, "cuda" if "num_gpus" in resources else "cpu", 0, ready=False)
        options = {"max_restarts": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(identity, soft=False)}
        remote: Any = ray.remote(_RemoteWorker)
        handle = remote.options(**options, **resources).remote(worker.name, worker.device)
        self.workers[worker.name] = worker
        self._actors[worker.name] = _Actor(worker, handle, handle.about.remote())

    def _give_up_without_workers(self) -> None:
        if not self._actors and time.monotonic() - self._last_worker > NO_WORKER_SECONDS:
            raise UserError(
                "no node of the cluster is left to work on. What is finished stays; run the same command again.",
                exit_code=3,
            )


def connect(address: str) -> bool:
    """Connect this process to a cluster, if it is not yet; returns whether that is to be ended with `ray.shutdown`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("--engine ray needs Ray: pip install 'ntire[ray]'", exit_code=3) from None
    if ray.is_initialized():
        return False
    _refuse_silence(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
    # Without an address Ray would take whatever cluster there is.
    how: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        with _own_signals():
            ray.init(address, **how, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _no_cluster(address, error) from None
    return True


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What SIGTERM does stays as it was: Ray lets it abort the process, past all that cleans up and says how to go on."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if handler is not None:
                    signal.signal(number, handler)


def _share(having: int, wanted: int) -> float:
    """Processors for each of so many workers: whole ones, or what Ray takes for a share of one."""
    return float(having // wanted) if having >= wanted else int(10_000 * having / wanted) / 10_000


def _refuse_silence(address: str) -> None:
    """Raise UserError for HOST:PORT where nothing listens: Ray itself goes on asking for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    return UserError(
        f"--address {address}: expected a Ray cluster, found none ({_first_line(error)}). Start one with `ray start --head`, "
        "or use `--address local` for this machine alone. See docs/cluster.md.",
        exit_code=3,
    )


def _is_here(file: TaskFile) -> bool:
    try:
        return sha256_of(file.path) == file.sha256
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
