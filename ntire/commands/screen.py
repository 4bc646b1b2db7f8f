"""What the command line shows: tables, progress, findings. Nothing is decided here."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ntire.commands.table import between_words
from ntire.text import printable, printable_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ntire.benchmark.protocol import BenchReport
    from ntire.entry.findings import Finding
    from ntire.review.check import Report
    from ntire.review.verify import Verification
    from ntire.runner.engines import Engine
    from ntire.runner.runner import Result, Summary, Watcher
    from ntire.scoring.leaderboard import Line
    from ntire.training.loop import Step


class Screen(Console):
    """A console that breaks lines between words only: what is one word (a number, a path, a hash) can be read and copied."""

    def print(self, *objects: Any, **how: Any) -> None:
        """As rich's, but for where the lines of a text break."""
        if len(objects) == 1 and isinstance(objects[0], str | Text) and not how.get("soft_wrap"):
            text = objects[0] if isinstance(objects[0], Text) else Text(objects[0])
            if isinstance(objects[0], str) and how.get("markup", True):
                text = Text.from_markup(objects[0])
            objects, how = (between_words(text, self.width),), how | {"soft_wrap": True}
        super().print(*objects, **how)


NO_WIDTH = 1_000_000
"""Of a pipe: lines are wrapped only where a person would see them wrapped."""
out = Screen(highlight=False, width=None if sys.stdout.isatty() else NO_WIDTH)
log = Screen(stderr=True, highlight=False)
errors = Screen(stderr=True, highlight=False)
"""For what `--quiet` does not hush."""


def be_quiet() -> None:
    """No progress and no remarks from now on: only results and errors."""
    log.quiet = True


def say(line: str) -> None:
    log.print(printable(line), markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(printable_json(value, indent=2, allow_nan=False))


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, prose: Sequence[str] = (), spare: Sequence[str] = ()
) -> None:
    """A table that fits the terminal; see `ntire.commands.table.laid_out`."""
    from ntire.commands import table

    piped = out.width >= NO_WIDTH
    shown = table.laid_out(header, rows, None if piped else out.width, prose=prose, spare=spare)
    with out.capture() as captured:
        for part in shown.parts:
            out.print(part, soft_wrap=isinstance(part, Text))
    # Cells are filled up with blanks, which nobody sees and a long cell makes many of.
    lines = captured.get().splitlines()
    out.file.write("".join(f"{line.rstrip() if piped else line}\n" for line in lines))
    if shown.left_out:
        out.print(f"no room for: {', '.join(shown.left_out)}. A wider terminal or --json shows all.", markup=False)


@contextmanager
def progress() -> "Iterator[Progress]":
    """Progress bars on a terminal; Ctrl-C inside says that nothing is lost and exits with 130, SIGTERM the same with 143."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ntire.runner.pipeline import LeftAtOnce
    from ntire.sandbox.scratch import Terminated

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=log,
        disable=log.quiet or not log.is_terminal,
    )
    try:
        with bars:
            yield bars
    except Terminated as stopped:
        _say_stopped(f"stopped by {stopped.name}", stopped.there)
        raise
    except KeyboardInterrupt as stopped:
        _say_stopped("stopped", str(stopped) or "what is finished stays")
        if isinstance(stopped, LeftAtOnce):
            sys.stdout.flush()
            # Threads that still compute would bring a dying interpreter down.
            os._exit(130)
        raise typer.Exit(130) from None


def _say_stopped(how: str, there: str) -> None:
    words = f"{how}. {there[0].upper()}{there[1:]}. Run the same command again to go on."
    errors.print(printable(words), markup=False, soft_wrap=True)


def watch_pictures(bars: "Progress", title: str, total: int | None) -> "Watcher":
    """A bar on a terminal and one for each picture in work, one plain line an image elsewhere."""
    from ntire.runner.runner import Watcher

    class OnScreen(Watcher):
        def __init__(self) -> None:
            self.whole = bars.add_task(escape(title), total=total)
            self.in_work: dict[str, TaskID] = {}

        def __call__(self, result: "Result", computed: bool) -> None:
            bars.advance(self.whole)
            if result.image in self.in_work:
                bars.remove_task(self.in_work.pop(result.image))
            seconds = f"{result.seconds:.2f} s" if result.seconds is not None else ""
            how = result.status if computed else "kept"
            if not log.is_terminal or result.status != "done":
                say(f"{title}: {result.image} {how} {seconds} {result.problem or ''}".rstrip())
            if computed and result.notes:
                say(f"  {result.image}: assumed or approximate: {'; '.join(result.notes)}")

        def advanced(self, image: str, done: int, of: int) -> None:
            if image not in self.in_work:
                self.in_work[image] = bars.add_task(f"  {escape(printable(image))}, tiles")
            bars.update(self.in_work[image], completed=done, total=of)

        def stopping(self, signal: str) -> None:
            if signal == "SIGINT":
                say("finishing what is in work; press Ctrl-C again to stop now")
            else:
                say(
                    f"{signal}: finishing what is in work, as far as there is time; the same command goes on from there"
                )

    return OnScreen()


def watch_engine(bars: "Progress", engine: "Engine") -> None:
    """A line for each machine of an engine: its workers, and how busy they are."""
    lines: dict[str, TaskID] = {}

    def tick() -> None:
        for node, words in engine.usage_in_words().items():
            if node not in lines:
                lines[node] = bars.add_task("", total=None)
            bars.update(lines[node], description=escape(f"{node}: {words}"))

    engine.tick = tick


def print_summary(summary: "Summary") -> None:
    done = len(summary.results) - len(summary.failed)
    out.print(
        f"{done} of {len(summary.results)} image(s) restored into {summary.out}"
        f" in {summary.seconds:.1f} s ({len(summary.results) - summary.computed} were there)",
        markup=False,
    )
    if summary.bottleneck:
        shares = ", ".join(f"{stage.name} {stage.share:.0%} ({stage.workers})" for stage in summary.stages)
        out.print(f"busy (threads): {shares}; the bottleneck is {summary.bottleneck.name}", markup=False)
    if summary.effect:
        out.print(str(summary.effect), markup=False)
    if summary.failed:
        rows = [[one.image, one.status, one.problem or ""] for one in summary.failed]
        print_table(["image", "status", "problem"], rows, prose=["problem"])


def watch_training(bars: "Progress") -> "Callable[[Step], None]":
    """A bar with loss and rate on a terminal; elsewhere a line at every validation and every 100 iterations."""
    task = bars.add_task("training")

    def report(step: "Step") -> None:
        line = f"{step.stage} {step.iteration}/{step.iterations} loss {step.loss:.5f} lr {step.lr:.2e}"
        bars.update(task, description=escape(line), completed=step.iteration, total=step.iterations)
        if step.psnr_db is not None:
            log.print(f"{line}: {step.psnr_db:.2f} dB on held-out pictures, the input has {step.plain_psnr_db:.2f} dB")
        elif not log.is_terminal and step.iteration % 100 == 0:
            log.print(line)

    return report


def print_cost(found: dict[str, Any]) -> None:
    claimed, off = found["claimed"], found["difference"]
    for key, name in (("params", "parameters"), ("macs", "multiply-adds")):
        words = f"{name:14} {found[key]:>18,}"
        if claimed[key] is not None:
            words += f"   claimed {claimed[key]:>18,}   difference {off[key]:+.2%}"
        out.print(words, markup=False)
    larger = f", which becomes {found['output_at'][0]} x {found['output_at'][1]}" if found["scale"] > 1 else ""
    out.print(f"for an image of {found['at'][0]} x {found['at'][1]}{larger}; 1 multiply-add is 2 FLOPs", markup=False)
    seen, own, written = found["counters"], found["parameters"], found["activations"]
    made = {name: macs for name, macs in seen.items() if macs is not None}
    apart = " = " if len({*made.values()}) == 1 else ", "
    rows = [
        ("multiply-adds", apart.join(f"{macs:,} by {name}" for name, macs in made.items())),
        *([("not traced", found["untraced"])] if found["untraced"] else []),
        ("parameters", f"{own['trainable']:,} trainable, {own['unused']:,} unused by forward, {own['buffers']:,} in buffers"),
        ("training only", f"{own['training_only']:,} parameters, {found['training_only_macs']:,} multiply-adds"),
        ("activations", f"{written['convolutions']:,} values written by convolutions, {written['all']:,} by all operators"),
        ("memory", f"{found['peak_memory_mb']:,} MB at the peak in float32, whole image, parameters included"),
        *_memory_claimed(found),
        *(("as nothing", name) for name in found["count_as_nothing"]),
    ]  # fmt: skip
    for one in found["budgets"]:
        rows.append(("budget", f"{one['name']} {one['value']:.10g} of {one['limit']:.10g}: {one['margin']:.3%} left"))
    for name, words in rows:
        out.print(f"{name:14} {words}", markup=False)
    if "reach" in found:
        far = "the whole image" if found["reach"] is None else f"{found['reach']} pixels"
        out.print(f"an input pixel reaches {far}; declared: {found['tiling']}, halo {found['halo']}", markup=False)
        seams = found["seams"]
        if seams:
            alike = "the same bits" if seams["psnr_db"] is None else f"{seams['psnr_db']:.2f} dB"
            out.print(
                f"tiles of {seams['tile']} against the whole {seams['height']} x {seams['width']}: at most "
                f"{seams['max_levels']:.4g} levels of 255 off, {seams['mean_levels']:.4g} on average, {alike} "
                f"({seams['weights']} weights)",
                markup=False,
            )
    by = found["counted_by"]
    told = [f"counted by {by}"] if by != "ntire" else []
    for line in filter(None, (claimed["reading"], claimed["source"], *found["caveats"], *told)):
        out.print(f"- {line}", markup=False)


def _memory_claimed(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The report's memory beside what a GPU here takes, where it states any."""
    measured = found.get("measured_memory")
    if measured is None:
        return []
    if measured["memory_mb"] is None:
        here = f"unknown, {measured['why_not']}"
    else:
        here = f"{measured['memory_mb']:,} MB by PyTorch's allocator on {measured['device']}"
    return [("memory claim", f"{found['claimed']['memory_mb']:,.10g} MB; measured: {here}")]


def print_bench(report: "BenchReport") -> None:
    from ntire.benchmark.statistics import Times

    rows = []
    for side in filter(None, (report.side, report.against)):
        for what, times in (
            ("end to end", side.walls),
            ("on the device", side.on_device),
            ("networks", side.forwards),
        ):
            if times:
                found = Times.of(times)
                low, high = found.quartiles_ms
                rows.append([
                    side.name, what, f"{found.median_ms:.2f}", f"{found.low_ms:.2f} .. {found.high_ms:.2f}",
                    f"{found.p90_ms:.2f}", f"{found.mean_ms:.2f}", f"{low:.2f} .. {high:.2f}", str(found.calls),
                ])  # fmt: skip
    header = ["method", "", "median ms", "95 %", "p90", "mean", "quartiles", "calls"]
    print_table(header, rows, spare=["quartiles", "mean"])
    rows = []
    for side in filter(None, (report.side, report.against)):
        for phase, peaks in side.peaks.items():
            on_device = peaks["device_mb"]
            took = {"load": f"{side.load_s * 1e3:.0f} ms", "warm-up": f"first call {side.first_ms:.1f} ms"}.get(
                phase, ""
            )
            host = f"{peaks['host_mb'] or 0:.0f} MB"
            rows.append([side.name, phase, took, host, "" if on_device is None else f"{on_device:.0f} MB"])
    header = ["method", "phase", "took", "host memory, peak", "device memory, peak"]
    print_table(header, rows, prose=header[3:])
    if report.challenge:
        steps = report.challenge.beside(report.side.forwards)
        print_table(
            ["networks alone", "ms", "of the challenge's"],
            [[words, f"{ms:.2f}", f"{share:.3f}"] for words, ms, share in steps],
        )
    if report.against and report.cpu_ratio and report.wall_ratio:
        for what, ratio in (("CPU time", report.cpu_ratio), ("wall time", report.wall_ratio)):
            out.print(
                f"{report.side.name} / {report.against.name}, {what}: {ratio.median:.3f}, 5 to 95 %: {ratio.p5:.3f} .. "
                f"{ratio.p95:.3f}, {ratio.pairs} pairs",
                markup=False,
            )
    if report.throughput:
        out.print(report.throughput.in_words(), markup=False)
    facts = report.side.facts
    out.print(
        f"{facts['device']}, {facts['processor']}, torch {facts['torch']}, {facts['threads']} thread(s), {facts['precision']}; "
        f"seed {report.seed}, {report.passes} passes in {report.seconds:.1f} s; pixels of {report.compared} picture(s) "
        "compared with a run's",
        markup=False,
    )
    for warning in report.warnings:
        out.print(f"note: {warning}", markup=False)
    if report.protocol.quick:
        out.print("note: --quick shows that it runs; its figures are not to be quoted", markup=False)


def print_findings(findings: "Sequence[Finding]") -> None:
    if findings:
        rows = [[one.code, one.problem, one.file, one.expected, one.found] for one in findings]
        header = ["code", "problem", "file", "expected", "found"]
        print_table(header, rows, prose=["problem", "expected", "found"])
        for code, do in dict.fromkeys((one.code, one.do) for one in findings):
            out.print(f"{code}: {do}", markup=False)


def print_report(report: "Report") -> None:
    print_findings(report.findings)
    broken = sum(one.breaks_a_rule for one in report.findings)
    out.print(
        f"{report.entry}: {report.images} image(s), track {report.track or 'unknown'}: "
        f"{broken or 'no'} problem(s), {len(report.findings) - broken or 'no'} remark(s)",
        markup=False,
    )


def print_verification(found: "Verification") -> None:
    rows = [
        [
            one.image, one.status, *("" if value is None else f"{value:.4g}" for value in (one.largest, one.mean, one.psnr_db)),
            "" if one.share is None else f"{one.share:.2%}", "" if one.seconds is None else f"{one.seconds:.2f}", one.problem,
        ]
        for one in found.images
    ]  # fmt: skip
    if rows:
        header = ["image", "status", "largest", "mean", "PSNR, dB", "pixels", "seconds", "problem"]
        print_table(header, rows, prose=["problem"], spare=["seconds", "mean"])
    for probe in found.probes:
        state = {True: "passed", False: "FAILED", None: "open"}[probe.passed]
        out.print(f"{probe.name:28} {state:8} {printable(probe.found)}", markup=False)
    for blob in found.data[:20]:
        out.print(f"data that no declared weights explain: {blob.file} ({blob.bytes:,} bytes)", markup=False)
    if found.scored is not None:
        both = [(name, found.scored.submitted[name], found.scored.reproduced[name]) for name in found.scored.submitted]
        both += [("total", *found.scored.totals)] if found.scored.totals else []
        print_table(
            ["metric", "submitted", "reproduced", "difference", "claimed"],
            [
                [
                    name,
                    f"{a:.6g}",
                    f"{b:.6g}",
                    f"{b - a:+.2e}",
                    f"{found.claimed[name]:g}" if name in found.claimed else "",
                ]
                for name, a, b in both
            ],
        )
        for name, why in found.scored.missing.items():
            out.print(f"{name}: not computed: {printable(why)}", markup=False)
    for line in found.measured.in_words() if found.measured else ():
        out.print(f"measured: {printable(line)}", markup=False)
    print_findings(found.findings)
    if found.printed:
        out.print(f"the code printed:\n{found.printed[-2000:]}", markup=False)
    for note in found.notes:
        out.print(f"note: {note}", markup=False)
    ran = f"{len(found.images)} of {found.of} image(s), seed {found.seed}"
    says = {True: "the code reproduces the images", False: "the images are not shown to be reproduced"}[found.passed]
    broken = {one.code for one in found.findings if one.breaks_a_rule}
    if broken and broken <= {"E502", "E614"}:
        says = "the code costs more than it may, or than it claims"
    out.print(f"{found.entry}: {found.verdict}: {says} ({ran}); {found.file}", markup=False)


def print_leaderboard(lines: "Sequence[Line]") -> None:
    from ntire.scoring.tables import cells, legend

    header, rows = cells(lines)
    subsets = list(dict.fromkeys(one for line in lines for one in line.track.subsets))
    # The track and the names of teams are told by the entries where all are alike.
    print_table(header, rows, prose=["remarks", "failed"], spare=["track", "95 %", "ranks", *subsets, "team"])
    for one in legend(lines):
        out.print(one, markup=False)
