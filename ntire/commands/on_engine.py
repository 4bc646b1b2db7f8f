"""`ntire run --engine`: one method or many, restored in shards by the workers of an engine, whatever happens to them."""

from __future__ import annotations

import contextlib
import errno
import math
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntire import UserError
from ntire.commands.foreign_code import is_foreign, prepared_in_sandbox
from ntire.commands.restoring import (
    Job,
    Say,
    job_in_sandbox,
    plan,
    refuse_in_sandbox,
    refuse_whole,
    remember_if_baseline,
)
from ntire.entry.journal import Journal, differences, read_header, refuse_second_writer, whole_lines
from ntire.entry.manifest import JOURNAL
from ntire.files import sha256_of, write_atomically
from ntire.method import catalogue
from ntire.method.face_alignment import Finder, face_finder
from ntire.method.settings import configured
from ntire.picture import raw
from ntire.runner.device_worker import Device, Input, Result
from ntire.runner.engines import Desk, Engine, State, Task, TaskFile, TaskResult
from ntire.runner.memory_plan import memory_need
from ntire.runner.prepare import Options, Prepared, code_sha256, prepare, weights_sha256
from ntire.runner.runner import Summary, devices_of, header_from, header_of, refuse_to_overwrite, remove_images
from ntire.runner.shards import (
    SHARDS,
    RunPlan,
    fingerprints,
    forget_outdated,
    forget_tries,
    found_in,
    key_of,
    merge,
    publish,
    published,
    read_plan,
    refuse_other_runs,
    restore_shard,
    write_plan,
)
from ntire.sandbox.scratch import Terminated

if TYPE_CHECKING:
    from ntire.commands.restoring import Watch

SHARD_SECONDS = 180.0
"""What a shard is to take: long beside what it costs to begin one, short beside what is lost with a machine."""
SHARD_BYTES = 512 << 20
"""Of inputs, at most: what may have to travel."""
SHARDS_EACH = 3
"""Shards that each worker gets at least, where there are inputs enough, so that all end at about the same time."""


FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class FullDisk:
    """What a worker says of the folder of a run, which no other worker finds with more room."""

    problem: OSError


@dataclass(frozen=True)
class Ticket:
    """What a worker needs to make a method ready: names and settings; code and weights it has itself, and they are checked."""

    team: str | Path
    kind: str
    """Of the track's inputs."""
    variant: str | None
    track: str
    options: Options
    header: Mapping[str, Any]
    """That the journal of the run has, and each of its shards."""
    sandbox: bool
    whole: bool


@dataclass
class ReadyMethod:
    """What a worker keeps between shards."""

    prepared: Prepared
    devices: Sequence[Device]
    find: Finder | None
    close: Callable[[], None]


def make_ready(desk: Desk, ticket: Ticket) -> ReadyMethod:
    """Make a method ready on a worker; code that may be a stranger's in a sandbox there, too.

    Raises UserError (exit code 3) where this machine lacks weights, code or a sandbox, or would make other bytes.
    """
    options = replace(ticket.options, device=desk.device)
    with ExitStack() as stack:
        if catalogue.is_folder(ticket.team) and not (Path(ticket.team) / "method.py").is_file():
            raise UserError(f"{ticket.team}: not on this machine, which must see that folder.", exit_code=3)
        if ticket.sandbox:
            prepared = stack.enter_context(prepared_in_sandbox(ticket.team, options))
        elif catalogue.is_folder(ticket.team):
            prepared = prepare(catalogue.load(Path(ticket.team)), options)
        else:
            prepared = prepare(catalogue.find(str(ticket.team), ticket.kind, ticket.variant), options)
        own = header_of(prepared, ticket.track, whole=ticket.whole)
        if own["device"] in ticket.header["device"].split(" and "):
            own["device"] = ticket.header["device"]
        changed = differences(ticket.header, own)
        if changed:
            raise UserError(
                "it would make other bytes than this run (there) on this machine (now):\n  " + "\n  ".join(changed),
                exit_code=3,
            )
        find = face_finder(options.device) if ticket.whole else None
        return ReadyMethod(prepared, devices_of(prepared, find), find, stack.pop_all().close)


def restore_on_worker(
    desk: Desk, ticket: Ticket, key: str, inputs: Sequence[Input], prints: Mapping[str, str], shards: Path, token: str
) -> dict[str, bytes] | FullDisk:
    """Restore a shard: into the folder of the run where this machine sees it; else the files of the shard are returned."""
    ready: ReadyMethod = desk.state
    here = [Input(desk.here(one.path), one.name) for one in inputs]
    found = fingerprints(here, ready.prepared.method.track)
    changed = [str(one.path) for one in inputs if found[one.name] != prints[one.name]]
    if changed:
        raise UserError(
            f"{', '.join(changed)}: changed since the run began, or a raw frame whose white level follows from the frames "
            "beside it, which this machine does not see: put a TOML beside it, or use a shared file system."
        )
    shared = _sees(shards, token)
    into = shards if shared else desk.scratch
    try:
        made = restore_shard(
            ready.prepared, here, into, key, ticket.track, ticket.header, find=ready.find, devices=ready.devices, alone=True
        )  # fmt: skip
    except (UserError, OSError) as error:
        full = _full_disk(error)
        if shared and full is not None:
            return FullDisk(full)
        raise
    if shared:
        return {}
    return {str(path.relative_to(made.out)): path.read_bytes() for path in made.out.rglob("*") if path.is_file()}


def _full_disk(error: BaseException | None) -> OSError | None:
    """The disk that is full, whatever was said of it since."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error


def _sees(shards: Path, token: str) -> bool:
    """Whether a machine sees the folder of a run itself, and not another one of the same name."""
    with contextlib.suppress(OSError):
        return (shards / f".seen-{token}").read_text() == token
    return False


@dataclass
class _Run:
    """One method's way through the engine."""

    ticket: Ticket
    job: Job
    prints: Mapping[str, str]
    journal: Journal
    report: Watch
    memory: int
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    results: dict[str, Result] = field(default_factory=dict)
    failed: dict[str, Result] = field(default_factory=dict)
    todo: deque[Input] = field(default_factory=deque)
    computed: int = 0
    open: int = 0
    each: float = math.inf
    """Seconds of one input, measured."""

    @property
    def shards(self) -> Path:
        return self.job.out / SHARDS

    def begin(self) -> None:
        """Keep what is finished, and say where the folder is that workers look for."""
        forget_outdated(self.job.out, self.prints)
        forget_tries(self.job.out)
        found = found_in(self.job.out, self.ticket.header)
        for left in (*self.shards.glob("*.log"), *self.shards.glob(".seen-*")):
            left.unlink()
        (self.shards / f".seen-{self.token}").write_text(self.token)
        for item in self.job.inputs:
            there = [one for one in found.get(item.name, []) if one.line["input_sha256"] == self.prints[item.name]]
            whole = next((one for one in there if one.is_whole()), None)
            if whole is None:
                self.todo.append(item)
            else:
                self._note(whole.line, computed=False)

    def tasks(self, slots: int) -> Iterator[Task]:
        """What is to be begun now: at first one picture, which shows how long they take; then shards to keep all busy."""
        while self.todo and (self.open == 0 if math.isinf(self.each) else self.open < 2 * slots):
            count = 1
            if math.isfinite(self.each):
                fair = math.ceil(len(self.todo) / (SHARDS_EACH * slots))
                count = max(min(int(SHARD_SECONDS / max(self.each, 1e-6)), fair), 1)
            inputs: list[Input] = []
            size = 0
            while self.todo and len(inputs) < count and (not inputs or size < SHARD_BYTES):
                inputs.append(self.todo.popleft())
                with contextlib.suppress(OSError):
                    size += inputs[-1].path.stat().st_size
            yield self.task(inputs)

    def task(self, inputs: Sequence[Input]) -> Task:
        """The task of a shard."""
        self.open += 1
        prints = {item.name: self.prints[item.name] for item in inputs}
        key = key_of(self.ticket.header, prints)
        files = [
            file
            for item in inputs
            if prints[item.name]
            for file in _files_of(item, self.job.method.track, prints[item.name])
        ]
        return Task(
            key,
            restore_on_worker,
            (self.ticket, key, tuple(inputs), prints, self.shards.resolve(), self.token),
            f"{self.job.method.team}: {inputs[0].name}{f' and {len(inputs) - 1} more' if len(inputs) > 1 else ''}",
            self.each * len(inputs),
            self.memory,
            State(key_of(self.ticket.header, {}), make_ready, (self.ticket,)),
            tuple(files),
        )

    def take(self, result: TaskResult) -> Iterator[Task]:
        """Take in what became of a shard; one that failed as a whole is tried again in halves, down to the picture at fault."""
        self.open -= 1
        key, inputs = result.task.key, result.task.arguments[2]
        if result.problem:
            self._log(result)
            if len(inputs) > 1 and "no machine can do it" not in result.problem:
                half = len(inputs) // 2
                yield from (self.task(inputs[:half]), self.task(inputs[half:]))
                return
            for item in inputs:
                problem = f"{result.problem} (log: {self.shards / f'{key}.log'})"
                self.failed[item.name] = failed = Result(
                    item.name, "failed", self.prints[item.name] or None, problem=problem
                )
                self.report(failed, True)
            return
        if isinstance(result.value, FullDisk):
            raise result.value.problem
        self._receive(key, result.value)
        self.each = max(result.seconds / len(inputs), 1e-6)
        for line in whole_lines(self.shards / key / JOURNAL):
            self._note(line, computed=True)

    def finish(self, seconds: float) -> Summary:
        """Merge the shards, and let go of the folder."""
        self.journal.__exit__(None, None, None)
        merged = merge(self.job.out, known=self.failed)
        remember_if_baseline(self.job)
        summary = replace(merged, computed=self.computed, seconds=seconds, not_read=self.job.not_read)
        return replace(summary, remarks=(*self.journal.remarks, *summary.remarks))

    def _note(self, line: Mapping[str, Any], *, computed: bool) -> None:
        result = Result(**{**line, "notes": tuple(line["notes"])})
        self.computed += computed and result.image not in self.results
        self.results[result.image] = result
        self.report(result, computed)

    def _receive(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write a shard that came from a machine that does not see the folder."""
        if not files:
            return
        work = self.shards / f".{key}-{secrets.token_hex(4)}"
        for name, data in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(work / name, data)
        publish(work, self.shards / key)

    def _log(self, result: TaskResult) -> None:
        told = f"{result.task.title}\non {result.worker}: {result.problem}\n\n{result.log}"
        write_atomically(self.shards / f"{result.task.key}.log", told)


def _files_of(item: Input, kind: str, fingerprint: str) -> Iterator[TaskFile]:
    """The files that an input is read from: a raw frame may have a TOML beside it."""
    yield TaskFile(item.path, sha256_of(item.path) if kind == "raw" else fingerprint)
    facts = raw.facts_file(item.path) if kind == "raw" else None
    if facts is not None:
        yield TaskFile(facts, sha256_of(facts))


def run_on_engine(
    engine: Engine,
    teams: Sequence[str | Path],
    track: str,
    given: Sequence[Path],
    outs: Sequence[Path | None],
    options: Options,
    *,
    variant: str | None = None,
    limit: int | None = None,
    whole: bool = False,
    trust: bool = False,
    sandbox: bool = False,
    watch: Callable[[str, int], Watch] = lambda title, total: lambda result, computed: None,
    say: Say = lambda line: None,
) -> list[Summary]:
    """Restore the inputs with every team's method, all at once, into the folder of each; resumes what was interrupted.

    The folders are those of single runs, byte for byte but for measured seconds and memory. `options.fresh` forgets what is
    finished. Raises what a run does, and UserError (exit code 3) where no worker is left or a disk is full.
    """
    began = time.monotonic()
    chosen = []
    for team, out in zip(teams, outs, strict=True):
        foreign = sandbox or is_foreign(team, trust)
        if foreign:
            refuse_in_sandbox(team, options, whole=whole)
            with prepared_in_sandbox(team, options) as prepared:
                job = job_in_sandbox(prepared, team, track, given, out, limit, say)
                hashes = prepared.code_sha256, [one.sha256 for one in prepared.weights_used]
        else:
            job = plan(team, track, given, out, variant, limit, say, trust=trust)
            method = configured(job.method, dict(options.settings))
            hashes = code_sha256(method), weights_sha256(method, options)
        if whole:
            refuse_whole(job.method, job.track)
        refuse_second_writer(job.out / JOURNAL)
        name = Path(team).resolve() if catalogue.is_folder(team) else team
        ticket = Ticket(
            name, job.track.inputs, variant, job.track.name, replace(options, fresh=False), {}, foreign, whole
        )
        chosen.append((job, ticket, hashes))
    devices = sorted({worker.device_name for worker in engine.ready()})
    with ExitStack() as stack:
        runs = []
        for job, ticket, (code, weights) in chosen:
            kinds = _devices(job.out, devices, options)
            header = header_from(job.method, code, weights, options, job.track.name, kinds, whole=whole)
            runs.append(_opened(stack, job, replace(ticket, header=header), engine, watch, fresh=options.fresh))
        _drive(engine, runs)
        return [run.finish(time.monotonic() - began) for run in runs]


def _opened(
    stack: ExitStack, job: Job, ticket: Ticket, engine: Engine, watch: Callable[[str, int], Watch], *, fresh: bool
) -> _Run:
    """A run whose folder nobody else may write to meanwhile."""
    refuse_to_overwrite(job.out, job.inputs)
    job.out.mkdir(parents=True, exist_ok=True)
    if not fresh:
        refuse_other_runs(published(job.out), ticket.header)  # before anything of theirs is changed
    journal = stack.enter_context(Journal(job.out / JOURNAL, ticket.header, fresh=fresh))
    if fresh:
        shutil.rmtree(job.out / SHARDS, ignore_errors=True)
        remove_images(job.out)
    write_plan(job.out, RunPlan(ticket.header, tuple(item.name for item in job.inputs)), fresh=True)
    on_gpu = any(worker.device == "cuda" for worker in engine.workers.values())
    memory = memory_need(job.method, ticket.options, [item.path for item in job.inputs]) if on_gpu else 0
    report = watch(f"{job.method.team} {job.track.name}", len(job.inputs))
    run = _Run(ticket, job, fingerprints(job.inputs, job.method.track), journal, report, memory)
    run.begin()
    return run


def _devices(out: Path, here: Sequence[str], options: Options) -> Sequence[str]:
    """The kinds of device of a run: those of an earlier one that goes on, if all that are here now are among them."""
    plan = read_plan(out)
    there = read_header(out / JOURNAL) or (plan.header if plan else None)
    before = str(there.get("device", "")).split(" and ") if there and not options.fresh else []
    return before if set(here) <= set(before) else here


def _drive(engine: Engine, runs: Sequence[_Run]) -> None:
    """Do all shards; what is finished is in the folders when this ends early."""
    of: dict[str, _Run] = {}

    def begun(run: _Run, tasks: Iterable[Task]) -> list[Task]:
        found = list(tasks)
        of.update({task.key: run for task in found})
        return found

    def more(result: TaskResult) -> list[Task]:
        run = of[result.task.key]
        return [*begun(run, run.take(result)), *begun(run, run.tasks(len(engine.workers)))]

    first = [task for run in runs for task in begun(run, run.tasks(len(engine.workers)))]
    try:
        for _ in engine.run(first, more):
            pass
    except (KeyboardInterrupt, Terminated) as stopped:
        done, of_all = sum(len(run.results) for run in runs), sum(len(run.job.inputs) for run in runs)
        there = f"What is finished stays: {done} of {of_all} image(s)"
        raise (
            Terminated(stopped.number, there) if isinstance(stopped, Terminated) else KeyboardInterrupt(there)
        ) from None
    except OSError as error:
        raise UserError(
            f"{error.filename or runs[0].job.out}: cannot be written to: {error.strerror or error}. What is finished stays; "
            "make room and run the same command again.",
            exit_code=3,
        ) from error
