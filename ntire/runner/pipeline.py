"""Stages that work at the same time, each with threads of its own: items go from one to the next through bounded queues.

What comes out keeps the order of what goes in, whatever the number of threads, and only so many items are under way at once.
Items leave the first stage in order, too, so that none waits long for one that was read late. A failure is a value: it goes
its way through the queues and is raised where its item would have come out.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Queue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Out = TypeVar("Out")


@dataclass(frozen=True)
class Station:
    """One station: a function for each of its threads, from what the stage before gives to what the next one takes."""

    name: str
    workers: Sequence[Callable[[Any], Any]]
    ready: Callable[[Any], None] = lambda item: None
    """Waits until an item can be worked on, which is not this stage's work."""


@dataclass(frozen=True)
class Settled(Generic[Out]):
    """What a worker returns for an item that needs no further stage."""

    value: Out


class Gone(Exception):
    """Raised by a worker that cannot go on, such as one whose device is lost; `value` settles its last item.

    The other workers of its stage do the rest. Where there are none, the rest fails with the cause of this exception.
    """

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


class LeftAtOnce(KeyboardInterrupt):
    """A second Ctrl-C: threads are still at work, and nobody waits for them."""


@dataclass(frozen=True)
class StageUse:
    """How busy a stage was."""

    name: str
    workers: int
    busy_seconds: float
    """Of all its workers together."""
    share: float
    """Of the time that they had; 1 for a stage that never waits."""


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class _Dropped:
    """What becomes of an item that had not come far when everything stopped."""


class Pipeline(Generic[Out]):
    """Runs items through stages: iterate over it, inside a `with` statement, to get what the last stage returns, in order.

    An exception of a worker is raised by the iteration, which can go on after it. After `stop()`, nothing new begins, what
    waits is dropped, and what has reached the last stage still comes out.
    """

    def __init__(
        self,
        items: Iterable[Any],
        stages: Sequence[Station],
        ahead: int,
        weigh: Callable[[Any], int] = lambda item: 0,
        room: int = 0,
    ) -> None:
        """`ahead` items may wait in front of each stage but the first. What is under way weighs at most `room` together, a
        heavier item goes alone.
        """
        self._items: Iterator[tuple[int, Any]] = enumerate(items)
        self._stages = stages
        self._weigh, self._room = weigh, room
        self._next_in: tuple[tuple[int, Any], int] | None = None
        """The item that is to begin next, and its weight."""
        self._weights: dict[int, int] = {}
        """Of what is under way."""
        self.limit = sum(len(stage.workers) for stage in stages) + ahead * (len(stages) - 1)
        """So many items are under way at most."""
        # The first queue holds items as they were given, and no more than are under way: it needs no bound of its own.
        self._queues: list[Queue[Any]] = [Queue(0 if number == 0 else ahead) for number in range(len(stages))]
        self._finished: Queue[tuple[int, Any] | None] = Queue()
        self._busy = [[0.0] * len(stage.workers) for stage in stages]
        self._left = [len(stage.workers) for stage in stages]
        self._able = [len(stage.workers) for stage in stages]
        self._lock = threading.Lock()
        self._turn = threading.Condition()
        self._handed_over = 0
        self._stopping = threading.Event()
        self._fed = self._next = 0
        self._all_fed = self._ended = False
        self._waiting: dict[int, Any] = {}
        self._began = time.perf_counter()
        self._seconds: float | None = None

    def __enter__(self) -> Self:
        for number, stage in enumerate(self._stages):
            for place in range(len(stage.workers)):
                # A daemon: after a second Ctrl-C nobody waits for a network that takes minutes.
                threading.Thread(target=self._run, args=(number, place), name=stage.name, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Out:
        while True:
            if self._next in self._waiting:
                value = self._waiting.pop(self._next)
                self._weights.pop(self._next)
                self._next += 1
                if isinstance(value, _Dropped) or (isinstance(value, _Failed) and self._stopping.is_set()):
                    continue
                if isinstance(value, _Failed):
                    raise value.error
                result: Out = value
                return result
            if self._ended:
                raise StopIteration
            self._feed()
            finished = self._finished.get()
            if finished is None:
                self._ended, self._seconds = True, time.perf_counter() - self._began
            else:
                self._waiting[finished[0]] = finished[1]

    def stop(self) -> None:
        """Begin nothing new; iterate on to wait for what has come far enough."""
        self._stopping.set()
        self._end_of_items()

    def done_early(self) -> Iterator[Out]:
        """What has come out of the last stage before its turn, without waiting for the rest."""
        while not self._finished.empty():
            finished = self._finished.get()
            if finished is not None:
                self._waiting[finished[0]] = finished[1]
        for _, value in sorted(self._waiting.items()):
            if not isinstance(value, (_Failed, _Dropped)):
                yield value

    def use(self, known: Mapping[str, float]) -> tuple[StageUse, ...]:
        """How busy each stage was so far; `known` has seconds by another clock, such as a device's, that count if they are
        more than those of the threads.
        """
        seconds = self._seconds or time.perf_counter() - self._began
        spent = [
            max(sum(each), known.get(stage.name, 0.0)) for stage, each in zip(self._stages, self._busy, strict=True)
        ]
        return tuple(
            StageUse(stage.name, len(stage.workers), round(busy, 4), round(busy / len(stage.workers) / seconds, 4))
            for stage, busy in zip(self._stages, spent, strict=True)
        )

    def _feed(self) -> None:
        while not self._all_fed and self._fed - self._next < self.limit:
            if self._next_in is None:
                item = next(self._items, None)
                if item is None:
                    self._end_of_items()
                    return
                self._next_in = item, self._weigh(item[1])
            item, weight = self._next_in
            if self._weights and sum(self._weights.values()) + weight > self._room:
                return
            self._next_in = None
            self._weights[self._fed] = weight
            self._fed += 1
            self._queues[0].put(item)

    def _end_of_items(self) -> None:
        if not self._all_fed:
            self._all_fed = True
            self._queues[0].put(None)

    def _run(self, number: int, place: int) -> None:
        """One worker: takes items until there are no more, then tells the next stage, if it is the last one to know."""
        source = self._queues[number]
        lost: BaseException | None = None
        while (job := source.get()) is not None:
            index, item = job
            if self._stopping.is_set() and number + 1 < len(self._stages):
                self._hand_over(number, index, _Dropped(), self._finished)
            elif lost is not None:
                self._hand_over(number, index, _Failed(lost), self._finished)
            else:
                lost = self._work(number, place, index, item)
                if lost is not None and self._others(number):
                    break
            # What was handed over must not live on here until the next item comes.
            del job, item
        with self._lock:
            self._left[number] -= 1
            last = self._left[number] == 0
        if not last:
            if job is None:
                source.put(None)
        elif number + 1 < len(self._stages):
            self._queues[number + 1].put(None)
        else:
            self._finished.put(None)

    def _work(self, number: int, place: int, index: int, item: Any) -> BaseException | None:
        """Do one item and hand it over; returns why this worker cannot go on, if that is so."""
        stage = self._stages[number]
        try:
            stage.ready(item)
            began = time.perf_counter()
            try:
                value = stage.workers[place](item)
            finally:
                self._busy[number][place] += time.perf_counter() - began
        except Gone as gone:
            self._hand_over(number, index, gone.value, self._finished)
            return gone.__cause__ or gone
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that iterates
            self._hand_over(number, index, _Failed(error), self._finished)
        else:
            if isinstance(value, Settled):
                self._hand_over(number, index, value.value, self._finished)
            else:
                onward = self._queues[number + 1] if number + 1 < len(self._stages) else self._finished
                self._hand_over(number, index, value, onward)
        return None

    def _hand_over(self, number: int, index: int, value: Any, to: Queue[Any]) -> None:
        if number > 0:
            to.put((index, value))
            return
        with self._turn:
            self._turn.wait_for(lambda: self._handed_over == index)
        to.put((index, value))
        with self._turn:
            self._handed_over += 1
            self._turn.notify_all()

    def _others(self, number: int) -> bool:
        """Whether a stage has workers left besides the one that asks, which is gone."""
        with self._lock:
            self._able[number] -= 1
            return self._able[number] > 0
