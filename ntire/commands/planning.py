"""`ntire plan`: what a challenge takes on a cluster, before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntire import UserError
from ntire.commands.options import AsJson, PrecisionName, TrackName, app, parsed_size
from ntire.commands.screen import out, print_json, print_table, say
from ntire.text import nearest

if TYPE_CHECKING:
    from ntire.benchmark.planning import Challenge, ClusterPlan, OnCluster, Workload
    from ntire.method.catalogue import Listed
    from ntire.scoring.track import Track

ALL = "all"


def chosen_methods(given: str, track: Track) -> tuple[Listed, ...]:
    """`MiAlgo,HH:variant` or `all`, as the release knows them. Raises UserError that lists all unknown names."""
    from ntire.method.catalogue import listed, look_up, serving

    if given.strip() == ALL:
        return tuple(
            one
            for kind in serving(track.inputs)
            for one in listed(kind)
            if one.scale == track.scale and one.team != "Copy"
        )
    found, problems = [], []
    for name in filter(None, (one.strip() for one in given.split(","))):
        team, _, variant = name.partition(":")
        try:
            found.append(look_up(team, track.inputs, variant or None))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return tuple(found)


def chosen_metrics(given: str | None, track: Track, *, scored: bool) -> tuple[str, ...]:
    """Those that are named, else the track's if there are entries. Raises UserError that lists all unknown names."""
    from ntire.scoring.metrics import METRICS

    if given is None:
        return track.metrics if scored else ()
    names = [one.strip() for one in given.split(",") if one.strip()]
    unknown = [one for one in names if one not in METRICS]
    if unknown:
        raise UserError(f"no metric {', '.join(unknown)}; there are: {', '.join(METRICS)}.{nearest(unknown, METRICS)}")
    return tuple(names)


def described(
    track: Track,
    teams: str,
    pictures: int | None,
    size: tuple[int, int] | None,
    inputs: Path | None,
    entries: int | None,
    metrics: str | None,
) -> Challenge:
    """What is to be done. Raises UserError for what is missing or unknown."""
    from ntire.benchmark.planning import Challenge
    from ntire.method.method_table import SIZES

    methods = chosen_methods(teams, track)
    number = len(methods) if entries is None and metrics is not None else entries or 0
    names = chosen_metrics(metrics, track, scored=bool(number))
    if not methods and not (number and names):
        raise UserError("nothing to plan: --teams A,B says what restores, --entries N how many entries are scored.")
    if inputs is not None:
        if pictures is not None or size is not None:
            raise UserError("--inputs says how many pictures there are and how large: leave out --pictures and --size.")
        return _measured_inputs(Challenge(track, methods, 0, 0.0, number, names), inputs)
    size = size or SIZES.get(track.inputs if track.inputs == "face" else "")
    count = pictures or sum(track.subsets.values())
    if not size or not count:
        raise UserError(
            f"track {track.name} does not say how many pictures there are or how large: add --pictures 450 --size 512x512, "
            "or --inputs DIR."
        )
    return Challenge(track, methods, count, float(size[0] * size[1]), number, names)


def _measured_inputs(challenge: Challenge, folder: Path) -> Challenge:
    """With the number, sizes and bytes of the inputs in a folder, read from their headers."""
    from ntire.benchmark.protocol import size_of_input
    from ntire.runner.runner import find_inputs

    found = find_inputs([folder], challenge.track.inputs)
    pixels = [height * width for height, width in (size_of_input(one.path, challenge.track.inputs) for one in found)]
    return replace(
        challenge,
        pictures=len(found),
        pixels=sum(pixels) / len(found),
        input_bytes=sum(one.path.stat().st_size for one in found) / len(found),
    )


@app.command(
    "plan",
    epilog="Examples: [bold]ntire plan --track face-2025 --entries 30 --gpus 8,64[/]; "
    "[bold]ntire plan --track raw --teams MiAlgo,PolyU-AISP --pictures 3000 --size 3072x4096 --gpus 8[/]",
)
def plan_command(
    track: TrackName,
    teams: Annotated[
        str, typer.Option(help="Teams whose methods run, separated by commas: A,B:VARIANT; all for all of the track.")
    ] = "",
    gpus: Annotated[
        str, typer.Option(help="Number of GPUs; several numbers, separated by commas, are compared.")
    ] = "8",
    gpu: Annotated[str, typer.Option(help="Kind of GPU, such as H100 or A100.")] = "H100",
    pictures: Annotated[int | None, typer.Option(min=1, help="Number of pictures. Default: the track's.")] = None,
    size: Annotated[str | None, typer.Option(help="Height x width of an input. Default for faces: 512x512.")] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="A folder of inputs, which says how many there are and how large.")
    ] = None,
    entries: Annotated[
        int | None, typer.Option(min=0, help="Number of entries to score. Default: with --metrics that of the methods.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas. Default: the track's, if there are entries.")
    ] = None,
    precision: PrecisionName = "fp32",
    cores: Annotated[int, typer.Option(min=1, help="CPU cores for each GPU.")] = 16,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs in a node.")] = 8,
    network: Annotated[
        float, typer.Option(min=0.001, help="GB/s of the machine or file system that holds the pictures.")
    ] = 1.25,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="A run's folder, or the JSON of `ntire bench`: its times are used. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict time, transfer and storage of restoring and scoring on a cluster, with the arithmetic; computes no picture.

    Measured times count where they are of the same kind of GPU; everything else is estimated from a report's time or from
    counted multiply-adds, and is marked so.
    """
    from ntire.benchmark.forecast import Hardware, counts_for, read_measured
    from ntire.benchmark.planning import Cluster, ClusterPlan
    from ntire.scoring.track import load_track

    challenge = described(load_track(track), teams, pictures, parsed_size(size, "--size"), inputs, entries, metrics)
    hardware = Hardware(gpu, cores, precision != "fp32")
    times = [read_measured(path) for path in measured or []]
    for one in times:
        if not any(counts_for(one, method, hardware) for method in challenge.methods):
            told = f"{' '.join(filter(None, one.method))} on {one.device} in {one.precision}"
            say(f"--measured {one.source}: not used, as it is of {told}; this plan is for {gpu} in {precision}")
    made = ClusterPlan(challenge, hardware, times)
    outcomes = [made.on(Cluster(hardware, number, gpus_per_node, network)) for number in _numbers(gpus)]
    if as_json:
        print_json(made.as_json(outcomes))
    else:
        print_plan(made, outcomes)


def _numbers(given: str) -> list[int]:
    words = [word.strip() for word in given.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--gpus {given}: expected numbers of GPUs, such as 8 or 8,64.")
    return [int(word) for word in words]


def print_plan(made: ClusterPlan, outcomes: Sequence[OnCluster]) -> None:
    """What is to be done, how long each part takes and why, then the clusters side by side."""
    one, hardware = made.challenge, made.hardware
    parts = [f"{len(made.restored)} method(s)"] if made.restored else []
    parts += [f"{one.entries} entries x {len(one.metrics)} metric(s)"] if made.scored else []
    out.print(
        f"{one.track.name}: {one.pictures:,} pictures of {one.pixels / 1e6:.4g} Mpixel; {', '.join(parts)}; {hardware.gpu}, "
        f"{hardware.cores} cores each, {'half precision' if hardware.half else 'fp32'}",
        markup=False,
    )
    header = ["work", "basis", "GPU seconds of one", "times", "GPU s", "core s", "a picture, s", "GPU hours"]
    items = (*made.restored, *made.scored)
    print_table(header, [_row(item, made) for item in items], prose=["GPU seconds of one"])
    _print_basis(items)
    shown = ["GPUs", "nodes", "restoring", "scoring", "transfer", "in all", "range", "on pictures", "shards"]
    print_table(shown, [_cluster_row(found) for found in outcomes])
    _print_bytes(made, outcomes)


def _row(item: Workload, made: ClusterPlan) -> list[str]:
    cores, found = made.hardware.cores, item.forecast
    slot = found.slot_s(cores)
    hours = made.challenge.pictures * slot / 3600
    times = f"x {item.times}"
    return [
        item.name,
        found.basis,
        found.arithmetic,
        times,
        *(f"{each:.3g}" for each in (found.gpu_s[0], found.cpu_s, slot, hours)),
    ]


def _cluster_row(found: OnCluster) -> list[str]:
    phases = (found.restoring, found.scoring)
    busy = sum(one.busy_s - one.load_s for one in phases) / (found.cluster.gpus * sum(one.wall_s for one in phases))
    ends = (max(found.fastest_s, found.transfer_s), max(found.slowest_s, found.transfer_s))
    return [
        str(found.cluster.gpus),
        str(found.cluster.nodes),
        *(_time(one.wall_s) if one.shards else "-" for one in phases),
        _time(found.transfer_s),
        _time(found.wall_s),
        " to ".join(map(_time, ends)),
        f"{busy:.0%}",
        f"{sum(sum(one.shards) for one in phases):,}",
    ]


def _print_basis(items: Sequence[Workload]) -> None:
    """Which figures are estimates, and how they are made."""
    from statistics import median, quantiles

    from ntire.benchmark.forecast import START_S, known_costs, reached_shares

    bases = {item.forecast.basis for item in items}
    out.print(
        "a picture: the longer of GPU s and core s / cores, as reading, restoring and writing overlap; in scoring of their "
        "sums, as a worker holds all metrics",
        markup=False,
    )
    if "counted" in bases:
        shares = reached_shares().values()
        low, _, high = quantiles(shares, n=4)
        out.print(
            f"counted: an estimate, 2 x multiply-adds / (share x peak fp32 rate); the share is the median of {len(shares)} "
            f"reports' own times, {median(shares):.0%}, its quartiles {low:.0%} and {high:.0%} are the range",
            markup=False,
        )
    if "report" in bases:
        out.print(
            "report: an estimate, the report's time on its GPU / how much faster this one is by fp32 or memory rate, the "
            "lower of the two",
            markup=False,
        )
    if "core" in bases:
        out.print("core: no work for a GPU, measured on one core of an AMD EPYC", markup=False)
    files = known_costs().files
    out.print(
        f"core s: measured as well, with {files.read_png_ns:g} ns a pixel to read a PNG, {files.read_raw_ns:g} a raw frame, "
        f"{files.write_png_ns:g} to write a PNG",
        markup=False,
    )
    out.print(f"a GPU that takes up a method or metric loads for {START_S:g} s, and 1 s a GB of weights", markup=False)


def _print_bytes(made: ClusterPlan, outcomes: Sequence[OnCluster]) -> None:
    one = made.challenge
    if made.restored:
        count = f"{len(made.restored)} x {one.pictures:,} x"
        out.print(
            f"transfer: inputs {count} {_size(made.input_bytes)} = {_size(outcomes[0].transfer.inputs)}, "
            f"results {count} {_size(made.result_bytes)} = {_size(outcomes[0].transfer.results)}",
            markup=False,
        )
    if made.scored:
        out.print(
            f"transfer: pictures of entries and references {made.files} x {one.pictures:,} x {_size(made.result_bytes)} = "
            f"{_size(outcomes[0].transfer.scored)}",
            markup=False,
        )
    stored = made.storage()
    nodes = ", ".join(f"x {found.cluster.nodes} = {_size(found.transfer.weights)}" for found in outcomes)
    out.print(f"transfer: weights, once a node {_size(stored['weights_a_node'])} {nodes}", markup=False)
    rate = f"{outcomes[0].cluster.network_gb_s:g} GB/s"
    out.print(f"transfer at {rate} goes on while GPUs compute: the longer of the two is the time in all", markup=False)
    out.print(
        f"storage: results {_size(stored['results'])}, observations {_size(stored['observations'])}, "
        f"weights {_size(stored['weights_a_node'])} a node",
        markup=False,
    )


def _size(amount: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= unit:
            return f"{amount / unit:.3g} {name}"
    return f"{amount:.0f} B"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
