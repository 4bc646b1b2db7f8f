"""Shards: some inputs of one run, restored on their own. Their results appear whole, and together they are what one run makes.

`OUT/shards/KEY/` is a submission folder of a shard's inputs alone, KEY the hash of the journal's header, of their names and of
their fingerprints. It is made under another name and renamed when it is finished, so that a second try, a double or a machine
that is lost in between does no harm. `merge` puts all of them together in OUT.
"""

import contextlib
import hashlib
import json
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ntire import UserError
from ntire.entry.journal import Journal, differences, is_being_written, read_header, refuse_second_writer, whole_lines
from ntire.entry.manifest import IMAGES, JOURNAL, MANIFEST, Manifest, write_manifest
from ntire.environment import usable_cores
from ntire.files import read_toml, sha256_of, sweep, writable_folder, write_atomically
from ntire.method.face_alignment import Finder
from ntire.runner.device_worker import Device, Input, Result, fingerprint_of
from ntire.runner.prepare import Prepared
from ntire.runner.runner import Summary, header_of, refuse_to_overwrite, remove_outdated, run

SHARDS = "shards"
PLAN = "plan.json"
ALONE = "-"
"""In the names of tries that nobody goes on with."""
FORMAT = 1
"""Of the plan, and of the names of shards."""


@dataclass(frozen=True)
class ShardPart:
    """The i-th of n parts of a run's inputs, i from 1: every n-th of them, so that all parts take about as long."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def taken(self, inputs: Sequence[Any]) -> list[Any]:
        """What of `inputs` belongs to it."""
        return list(inputs[self.number - 1 :: self.of])


def parsed_part(text: str) -> ShardPart:
    """`3/8` to the third of eight parts; raises UserError."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"--shard {text}: expected I/N with I from 1 to N, such as 3/8.")
    return ShardPart(int(number), int(of))


@dataclass(frozen=True)
class RunPlan:
    """What all shards of a folder belong to."""

    header: Mapping[str, Any]
    inputs: tuple[str, ...]
    """The names of all inputs of the run, in their order."""
    command: tuple[str, ...] = ()
    """That makes a part of them once `--shard I/N` is added."""
    parts: int = 0
    """How many parts it is made in, where a user said so."""


def write_plan(out: Path, plan: RunPlan, *, fresh: bool = False) -> None:
    """Say in `out` what its shards belong to; raises UserError where there are those of another run."""
    file = out / SHARDS / PLAN
    file.parent.mkdir(parents=True, exist_ok=True)
    there = read_plan(out)
    if there is not None and not fresh:
        changed = differences(there.header, plan.header)
        if there.inputs != plan.inputs:
            changed.append(f"inputs: {_listed(there.inputs)} there, {_listed(plan.inputs)} now")
        if changed:
            raise UserError(
                f"{out / SHARDS}: holds shards of another run:\n  " + "\n  ".join(changed) + "\n"
                "Choose another folder with -o, or remove that one."
            )
    body = {
        "format": FORMAT,
        "header": plan.header,
        "inputs": plan.inputs,
        "command": plan.command,
        "parts": plan.parts,
    }
    write_atomically(file, json.dumps(body))


def read_plan(out: Path) -> RunPlan | None:
    """The plan in `out`, if there is one; raises UserError for one that cannot be read."""
    file = out / SHARDS / PLAN
    try:
        found = json.loads(file.read_text())
        return RunPlan(found["header"], tuple(found["inputs"]), tuple(found["command"]), found["parts"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: expected the plan of a run, found something else ({error}). Remove {file.parent}."
        ) from None


def fingerprints(inputs: Sequence[Input], track: str) -> dict[str, str]:
    """The fingerprint of each input, by name; empty for one that cannot be read, which is not an error here."""

    def of(item: Input) -> str:
        with contextlib.suppress(OSError):
            return fingerprint_of(item.path, track)
        return ""

    with ThreadPoolExecutor(usable_cores()) as threads:
        return dict(zip([item.name for item in inputs], threads.map(of, inputs), strict=True))


def key_of(header: Mapping[str, Any], prints: Mapping[str, str]) -> str:
    """The name of the shard of these inputs, fingerprints by name: a hash of all that can change a byte of its results."""
    return hashlib.sha256(json.dumps([FORMAT, header, prints], sort_keys=True).encode()).hexdigest()[:32]


def restore_shard(
    prepared: Prepared,
    inputs: Sequence[Input],
    into: Path,
    key: str,
    track: str,
    header: Mapping[str, Any],
    report: Callable[[Result, bool], None] = lambda result, computed: None,
    find: Finder | None = None,
    *,
    devices: Sequence[Device] | None = None,
    alone: bool = False,
) -> Summary:
    """Restore a shard into the folder `into/KEY`, which appears when it is finished. One that is there is kept, but for images
    that had failed.

    What a killed process had finished is gone on from, unless `alone` gives this try a folder of its own, as others may be at
    the same shard. Raises what `run` does.
    """
    final = into / key
    into.mkdir(parents=True, exist_ok=True)
    work = into / (f".{key}{ALONE}{secrets.token_hex(4)}" if alone else f".{key}")
    there = final.is_dir()
    summary = run(prepared, inputs, final if there else work, track, report, find, header=header, devices=devices)
    if not there:
        publish(work, final)
    return replace(summary, out=final)


def forget_tries(out: Path) -> None:
    """Remove what workers that are gone have left of shards that they were at alone: nobody goes on with it."""
    for folder in (out / SHARDS).glob(f".*{ALONE}*"):
        if folder.is_dir() and not is_being_written(folder / JOURNAL):
            shutil.rmtree(folder, ignore_errors=True)


def restore_part(
    prepared: Prepared,
    inputs: Sequence[Input],
    out: Path,
    part: ShardPart,
    track: str,
    command: Sequence[str],
    report: Callable[[Result, bool], None] = lambda result, computed: None,
    find: Finder | None = None,
) -> Summary:
    """Restore one part of `inputs`, all those of a run, as a shard of `out`; every other part may be made anywhere else.

    `command` is what a user called, without the part. A killed one goes on where it stopped, and what `out` has of an earlier
    merge is kept. Raises what `run` does, and UserError where `out` has shards of another run, or is the folder of one.
    """
    refuse_to_overwrite(out, inputs)
    header = header_of(prepared, track, whole=find is not None)
    names = tuple(item.name for item in inputs)
    refuse_other_runs([out], header)  # now, as `merge` would refuse what N machines have made
    write_plan(out, RunPlan(header, names, tuple(command), part.of), fresh=prepared.options.fresh)
    own = part.taken(inputs)
    if not own:
        return Summary(out / SHARDS, (), 0, 0.0)
    prints = fingerprints(own, prepared.method.track)
    forget_outdated(out, prints)
    merged = {} if prepared.options.fresh else _merged(out, prints)
    for result in merged.values():
        report(result, False)
    prints = {name: found for name, found in prints.items() if name not in merged}
    if not prints:
        return Summary(out, tuple(merged.values()), 0, 0.0)
    todo = [item for item in own if item.name in prints]
    made = restore_shard(prepared, todo, out / SHARDS, key_of(header, prints), track, header, report, find)
    of = {result.image: result for result in (*merged.values(), *made.results)}
    return replace(made, results=tuple(of[item.name] for item in own))


def _merged(out: Path, prints: Mapping[str, str]) -> dict[str, Result]:
    """What an earlier merge has put into `out` of these inputs, fingerprints by name, and is still there."""
    return {
        one.line["image"]: Result(**{**one.line, "notes": tuple(one.line["notes"])})
        for one in (FoundLine(line, out) for line in whole_lines(out / JOURNAL))
        if prints.get(one.line["image"]) == one.line["input_sha256"] and one.is_whole()
    }


def publish(work: Path, final: Path) -> None:
    """Let a finished shard appear under its name; where another try was first, that one stays."""
    try:
        work.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class FoundLine:
    """A line of a journal, and the folder of the image that it speaks of."""

    line: Mapping[str, Any]
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / IMAGES / f"{self.line['image']}.png"

    def is_whole(self) -> bool:
        """Whether the image is there, with the bytes that the line says."""
        try:
            return self.line["status"] == "done" and sha256_of(self.image) == self.line["output_sha256"]
        except OSError:
            return False


def published(out: Path) -> list[Path]:
    """The finished shards in a folder, in the order of their names."""
    folders = sorted((out / SHARDS).glob("*/"), key=lambda path: path.name)
    return [one for one in folders if not one.name.startswith(".") and (one / JOURNAL).is_file()]


def found_in(out: Path, header: Mapping[str, Any]) -> dict[str, list[FoundLine]]:
    """What shards and the journal of `out` say of each image, the shards first; damaged lines count as not there.

    Raises UserError that names all shards of other runs than that of `header`, and what differs.
    """
    found = dict[str, list[FoundLine]]()
    for folder in refuse_other_runs([*published(out), out], header):
        for line in whole_lines(folder / JOURNAL):
            found.setdefault(line["image"], []).append(FoundLine(line, folder))
    return found


def refuse_other_runs(folders: Sequence[Path], header: Mapping[str, Any]) -> list[Path]:
    """Those of `folders` that have a journal; raises UserError that names all of other runs, and what differs."""
    problems, own = [], []
    for folder in folders:
        there = read_header(folder / JOURNAL)
        if there is None:
            continue
        there.pop("format")
        changed = differences(there, header)
        if changed:
            problems.append(f"{folder}: of another run:\n  " + "\n  ".join(changed))
        own.append(folder)
    if problems:
        raise UserError("\n".join(problems) + "\nRemove what does not belong here, or choose another folder with -o.")
    return own


def forget_outdated(out: Path, prints: Mapping[str, str]) -> None:
    """Remove shards of inputs that are others now: those in `prints`, fingerprints by name."""
    for folder in published(out):
        lines = whole_lines(folder / JOURNAL)
        if any(prints.get(line["image"], line["input_sha256"] or "") != (line["input_sha256"] or "") for line in lines):
            shutil.rmtree(folder)


def merge(out: Path, *, known: Mapping[str, Result] = {}) -> Summary:
    """Put the shards in `out` together: the submission folder that one run would have made, byte for byte but for the seconds
    and the memory that were measured. The shards are gone afterwards.

    `known` has results for images without any. Raises UserError that names shards that are missing, with the command that makes
    them, and those of other runs or inputs; then nothing has changed.
    """
    plan = read_plan(out)
    if plan is None and (there := published(out)):
        raise UserError(
            f"{out / SHARDS}: holds {len(there)} shard(s) and no {PLAN}, which says what they are parts of. Copy it, too, from "
            "any of the machines that made them."
        )
    if plan is None:
        raise UserError(
            f"{out}: expected shards of a run in {SHARDS}/, found none. `ntire run --shard I/N -o {out}` makes them."
        )
    found = found_in(out, plan.header)
    _refuse_mixtures(out, plan, found)
    chosen = {name: one for name in plan.inputs if (one := _best(out, found.get(name, []), known.get(name)))}
    missing = [name for name in plan.inputs if name not in chosen and name not in known]
    if missing:
        raise UserError(_missing(out, plan, missing))
    # What earlier runs made of other inputs stays as well.
    others = {name: several for name, several in found.items() if name not in plan.inputs}
    unmerged = [one for several in others.values() if (one := _best(out, several, None)) and one.folder != out]
    lines = [_as_line(chosen[name].line if name in chosen else known[name].__dict__) for name in plan.inputs]
    results = tuple(Result(**{**line, "notes": tuple(line["notes"])}) for line in lines)
    manifest = _manifest(out, published(out))
    with Journal(out / JOURNAL, plan.header) as journal:
        sweep(writable_folder(out / IMAGES), below=True)
        for one in (*chosen.values(), *unmerged):
            if one.line["status"] == "done" and one.folder != out:
                target = out / IMAGES / one.image.relative_to(one.folder / IMAGES)
                target.parent.mkdir(parents=True, exist_ok=True)
                one.image.replace(target)
        for result in results:
            remove_outdated(out, result)
        old = [one for several in others.values() for one in several if one.folder == out]
        journal.rewrite([*(_as_line(one.line) for one in (*old, *unmerged)), *lines])
        if manifest is not None:
            write_manifest(out, manifest)
        sweep(out)
        _remove_shards(out, results)
        return Summary(out, results, 0, 0.0, remarks=(*journal.remarks, *_remarks(found)))


def refuse_unfinished(out: Path) -> None:
    """Raise UserError where a process makes a shard in `out` now: `merge` would take its folder away."""
    for journal in sorted((out / SHARDS).glob(f"*/{JOURNAL}")):
        if is_being_written(journal):
            raise UserError(f"{journal.parent}: a part is being made there now. Wait for it to end, then merge.")


def refuse_unmerged(out: Path, *, fresh: bool) -> None:
    """Raise UserError where a run of the whole would pass over shards in `out`, and leave them in the entry.

    With `fresh` they are removed, unless a process makes one now.
    """
    if read_plan(out) is None:
        return
    refuse_second_writer(out / JOURNAL)
    if not fresh:
        raise UserError(
            f"{out}: holds parts of a run that are not joined yet. `ntire merge {shlex.quote(str(out))}` joins them, the same "
            "command with --engine goes on with them, and --fresh starts over."
        )
    refuse_unfinished(out)
    _remove_shards(out)


def _refuse_mixtures(out: Path, plan: RunPlan, found: Mapping[str, Sequence[FoundLine]]) -> None:
    """Raise UserError where shards of several machines were made from inputs that are not the same."""
    differ, strange = dict[str, set[str]](), dict[str, set[str]]()
    for name, several in found.items():
        made = [one for one in several if one.folder != out]
        folders = {one.folder.name for one in made}
        if len({one.line["input_sha256"] for one in made} - {None}) > 1:
            differ[name] = folders
        if plan.parts and made and name not in plan.inputs:
            strange[name] = folders
    problems = [
        f"{out}: {what}: {_listed(list(these))}; in {SHARDS}/: {_listed(sorted(set().union(*these.values())))}."
        for what, these in (
            ("image(s) made from different inputs", differ),
            (f"image(s) that are none of the {len(plan.inputs)} of this run", strange),
        )
        if these
    ]
    if problems:
        raise UserError(
            "\n".join(problems)
            + "\nThe inputs were not the same on all machines, or changed. Remove the shards of the wrong "
            "ones there, and make their parts again."
        )


def _remove_shards(out: Path, results: Sequence[Result] = ()) -> None:
    """All but the logs that `results` name; the plan last, as without it nobody goes on with this."""
    told = "\n".join(one.problem or "" for one in results)
    for path in sorted((out / SHARDS).iterdir(), key=lambda path: path.name == PLAN):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".log" or path.name not in told:
            path.unlink()
    with contextlib.suppress(OSError):
        (out / SHARDS).rmdir()


def _best(out: Path, found: Sequence[FoundLine], failed: Result | None) -> FoundLine | None:
    """What is taken for an image: a whole one, else why there is none, the latest first. What the folder has of another input
    of that name than the one that shards, or a shard that `failed`, have seen is outdated.
    """
    now = {one.line["input_sha256"] for one in found if one.folder != out} | {failed.input_sha256 if failed else None}
    if now != {None}:
        found = [one for one in found if one.line["input_sha256"] in now]
    moved = [FoundLine(one.line, out) for one in found if one.folder != out]
    whole = next((one for one in (*found, *moved) if one.is_whole()), None)
    return whole or next((one for one in reversed(found) if one.line["status"] != "done"), None)


def _as_line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, "notes": list(line["notes"])}


def _manifest(out: Path, folders: Sequence[Path]) -> Manifest | None:
    """The manifest of the whole: what shards say of their machines, all of it where they differ."""
    files = [folder / MANIFEST for folder in [*folders, out] if (folder / MANIFEST).is_file()]
    if not files:
        return None
    manifests = [read_toml(file, Manifest) for file in files]
    machines = [one.environment for one in manifests]
    environment: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in machines for key in one):
        said = [one[key] for one in machines if key in one]
        environment[key] = (
            said[0] if said.count(said[0]) == len(said) else " and ".join(sorted({str(one) for one in said}))
        )
    day = min(one.date for one in manifests)
    return manifests[0].model_copy(update={"entry": out.name, "date": day, "environment": environment})


def _missing(out: Path, plan: RunPlan, missing: Sequence[str]) -> str:
    """Which parts are to be made, and how; without parts, which images."""
    lacking = [
        ShardPart(number, plan.parts)
        for number in range(1, plan.parts + 1)
        if set(missing) & set(ShardPart(number, plan.parts).taken(plan.inputs))
    ]
    told = f"{out}: {len(missing)} of {len(plan.inputs)} image(s) are missing: {_listed(missing)}."
    if not lacking:
        return f"{told} Run the same `ntire run` again: it keeps what is finished."
    command = shlex.join(plan.command)
    return "\n".join([told, f"{len(lacking)} of {plan.parts} shard(s) have not been finished. Make them with", *(
        f"  {command} --shard {part}" for part in lacking
    )])  # fmt: skip


def _remarks(found: Mapping[str, Sequence[FoundLine]]) -> Iterator[str]:
    """Images that were made twice with different bytes: their method is not deterministic."""
    for name, several in found.items():
        made = {
            (one.line["input_sha256"], one.line["output_sha256"]) for one in several if one.line["status"] == "done"
        }
        if len(made) > len({of for of, _ in made}):
            yield f"{name}: made {len(made)} times with different bytes: its method is not deterministic; one was taken"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
