"""What a picture takes on hardware that need not be here: from measured times where there are some, else from what is counted.

    measured    seconds of earlier runs on that GPU (`journal.jsonl`, `ntire bench --json`), by pixels
    report      the report's time on its own GPU, by pixels, and by peak fp32 rate or memory rate, whichever promises less
    counted     2 x multiply-adds / (share x peak fp32 rate)
    core        no GPU at all: measured on one core

The share is the median of what those reports reach that state a time, a size and a GPU; its quartiles give the range. Half
precision halves the bytes that a network moves, and is taken to halve its time.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from ntire import UserError
from ntire.entry.journal import read_header, read_journal
from ntire.entry.manifest import JOURNAL
from ntire.method.catalogue import listed, look_up
from ntire.method.kept_counts import counts_of
from ntire.method.method_table import usual_size
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import load_track
from ntire.text import meant, nearest

if TYPE_CHECKING:
    from ntire.method.catalogue import Listed

Basis = Literal["measured", "report", "counted", "core"]
Range = tuple[float, float, float]
"""The likely value, and the lower and upper end of where it may lie."""
LOAD_RATE = 1e9
"""Bytes of weights a second, from a node's own disk."""
START_S = 10.0
"""Seconds for a process to import PyTorch and to begin with a GPU."""
PER_OBSERVATION = 100
"""Bytes of an observation in the cache beside its values: key and bookkeeping."""


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Known):
    """Peak rates by the maker's data sheet."""

    fp32_tflops: float
    memory_tb_s: float


class FileCosts(_Known):
    """CPU-nanoseconds of one core and bytes, for a pixel."""

    read_png_ns: float
    read_raw_ns: float
    write_png_ns: float
    png_bytes: float
    raw_bytes: float


class MetricCost(_Known):
    """What one observation takes: multiply-adds (10^9) at 512 x 512 and 1024 x 1024, or CPU-nanoseconds a pixel."""

    macs_g: tuple[float, float] | None = None
    cpu_ns: float = 0.0
    half: bool = False
    values: int = 1

    def macs_at(self, pixels: float) -> float:
        """Multiply-adds of a picture: a line through the two sizes."""
        if self.macs_g is None:
            return 0.0
        small, large = self.macs_g
        return 1e9 * max(small + (large - small) * (pixels - 512**2) / (1024**2 - 512**2), 0.0)


class KnownCosts(_Known):
    """The file `planning.toml`."""

    gpus: dict[str, Gpu]
    files: FileCosts
    metrics: dict[str, MetricCost]


@cache
def known_costs() -> KnownCosts:
    """What ships with ntire."""
    text = (files("ntire.benchmark") / "planning.toml").read_text(encoding="utf-8")
    return KnownCosts.model_validate(tomllib.loads(text))


@dataclass(frozen=True)
class Hardware:
    """Slots that are alike: a GPU and its cores."""

    gpu: str
    """A name of `KnownCosts.gpus`."""
    cores: int
    """For each GPU."""
    half: bool = False
    """Whether networks run in bf16 or fp16."""

    @property
    def rates(self) -> Gpu:
        """Of the GPU. Raises UserError for one that is not known."""
        known = known_costs().gpus
        if self.gpu not in known:
            raise UserError(f"--gpu {self.gpu}: expected a GPU whose rates are known. {meant(self.gpu, known)}")
        return known[self.gpu]


@dataclass(frozen=True)
class Forecast:
    """What one picture takes."""

    gpu_s: Range
    cpu_s: float
    """Of one core."""
    basis: Basis
    """Of the GPU's seconds."""
    arithmetic: str

    def slot_s(self, cores: int, bound: int = 0) -> float:
        """Seconds on a slot where reading and writing overlap with the GPU; `bound` 1 and 2 are the ends of the range."""
        return max(self.gpu_s[bound], self.cpu_s / cores)


@dataclass(frozen=True)
class MeasuredTime:
    """What an earlier run took."""

    method: tuple[str, str, str]
    """Team, kind of input, variant."""
    device: str
    precision: str
    ns_per_pixel: float
    source: str


def method_key(method: Listed) -> tuple[str, str, str]:
    """Team, folder and variant: by these measured times are found again."""
    return method.team, method.track, method.variant


@cache
def reached_shares() -> dict[str, float]:
    """The share of a GPU's peak fp32 rate that each report with a time, its size and a known GPU reaches by our count."""
    found: dict[str, float] = {}
    for one in listed():
        claimed = one.claimed
        if claimed is None or not claimed.runtime_ms or not claimed.runtime_at:
            continue
        gpu = known_costs().gpus.get(claimed.device or "")
        if gpu is not None:
            flops = 2 * _macs(one, _area(claimed.runtime_at))
            # Variants of a method share the claim; the first is what the report is about.
            found.setdefault(f"{one.team} {one.track}", flops / (claimed.runtime_ms / 1e3) / (gpu.fp32_tflops * 1e12))
    return found


def counts_for(time: MeasuredTime, method: Listed, hardware: Hardware) -> bool:
    """Whether a measured time is of that method, that kind of GPU and that precision."""
    alike = (time.precision != "fp32") == hardware.half and _same(time.device, hardware.gpu)
    return alike and time.method == method_key(method)


def restoring(
    method: Listed, pixels: float, raw: bool, hardware: Hardware, measured: Iterable[MeasuredTime] = ()
) -> Forecast:
    """A picture of so many pixels through a method."""
    costs = known_costs().files
    read_ns = costs.read_raw_ns if raw else costs.read_png_ns
    cpu_s = pixels * (read_ns + costs.write_png_ns * method.scale**2) / 1e9
    for one in measured:
        if counts_for(one, method, hardware):
            seconds = one.ns_per_pixel * pixels / 1e9
            words = f"{one.ns_per_pixel:.4g} ns a pixel on {one.device} ({one.source})"
            return Forecast((seconds, seconds, seconds), cpu_s, "measured", words)
    claimed = method.claimed
    theirs = known_costs().gpus.get(claimed.device or "") if claimed else None
    if claimed and theirs and claimed.runtime_ms and claimed.runtime_at:
        ours = hardware.rates
        faster = min(ours.fp32_tflops / theirs.fp32_tflops, ours.memory_tb_s / theirs.memory_tb_s)
        seconds = claimed.runtime_ms / 1e3 * pixels / _area(claimed.runtime_at) / faster / (2 if hardware.half else 1)
        words = (
            f"{claimed.runtime_ms:g} ms at {claimed.runtime_at[0]} x {claimed.runtime_at[1]} on {claimed.device}"
            f" / {faster:.2f}{' / 2' if hardware.half else ''}"
        )
        return Forecast((seconds, seconds, seconds), cpu_s, "report", words)
    return _counted(_macs(method, pixels), cpu_s, hardware, hardware.half)


def observing(metric: str, pixels: float, hardware: Hardware) -> Forecast:
    """One observation of a metric on a picture that has been read.

    Raises UserError for a metric whose cost is not known.
    """
    known = known_costs()
    if metric not in known.metrics:
        near = nearest([metric], known.metrics)
        raise UserError(
            f"metric {metric}: its cost is not known, expected some of {', '.join(known.metrics)}.{near} "
            "Leave it out with --metrics."
        )
    cost = known.metrics[metric]
    cpu_s = pixels * cost.cpu_ns / 1e9
    if cost.macs_g is None:
        return Forecast((0.0, 0.0, 0.0), cpu_s, "core", f"{cost.cpu_ns:g} ns a pixel on a core")
    # The scorer computes in fp32, whatever the methods do.
    return _counted(cost.macs_at(pixels), cpu_s, hardware, cost.half)


def reading(pixels: float) -> Forecast:
    """One PNG read."""
    each = known_costs().files.read_png_ns
    return Forecast((0.0, 0.0, 0.0), pixels * each / 1e9, "core", f"{each:g} ns a pixel on a core")


def _macs(method: Listed, pixels: float) -> float:
    """Multiply-adds of a picture: they grow as its pixels do, which holds in tiles, too."""
    at = usual_size(method)
    return counts_of(method, at).macs * pixels / _area(at)


def _counted(macs: float, cpu_s: float, hardware: Hardware, half: bool) -> Forecast:
    peak = hardware.rates.fp32_tflops * 1e12 * (2 if half else 1)
    low, _, high = quantiles(reached_shares().values(), n=4)
    share = median(reached_shares().values())
    seconds = [2 * macs / (reached * peak) for reached in (share, high, low)]
    words = f"2 x {macs / 1e12:.4g} T / ({share:.0%} of {peak / 1e12:g} TFLOP/s)"
    return Forecast(
        (seconds[0], seconds[1], seconds[2]), cpu_s, "counted" if macs else "core", words if macs else "no network"
    )


def weights_bytes(method: Listed) -> int:
    """Of a method's files: by their declared sizes, else 4 bytes a parameter for all of it."""
    sizes = [one.size for one in method.weights]
    if sizes and all(sizes):
        return sum(filter(None, sizes))
    return max(sum(filter(None, sizes)), 4 * counts_of(method, usual_size(method)).params)


def metric_bytes(metric: str) -> int:
    """Of a metric's files."""
    return sum(one.size or 0 for one in METRICS[metric].weights)


def load_s(size: int) -> float:
    """Seconds from nothing to a method or metric that is ready."""
    return START_S + size / LOAD_RATE


def read_measured(path: Path) -> MeasuredTime:
    """Times of an earlier run: its submission folder or journal, or the JSON of `ntire bench`.

    Raises UserError for anything else.
    """
    if path.is_dir() or path.name == JOURNAL:
        return _of_journal(path / JOURNAL if path.is_dir() else path)
    try:
        return _of_bench(json.loads(path.read_bytes()), path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--measured {path}: expected a submission folder of `ntire run`, or the JSON of `ntire bench --json`, found "
            f"neither ({type(error).__name__}: {error})."
        ) from None


def _of_journal(path: Path) -> MeasuredTime:
    header, lines = read_header(path), read_journal(path)
    done = [one for one in lines if one["status"] == "done" and one["seconds"] and one["height"]]
    if header is None or not done:
        raise UserError(f"--measured {path}: expected the journal of a run with restored pictures, found none.")
    method = find_key(header["team"], header["track"], header["variant"])
    # Journals have the results' sizes.
    pixels = sum(one["height"] * one["width"] for one in done) / _scale_of(method) ** 2
    spent = sum(one["seconds"] for one in done)
    return MeasuredTime(
        method, header["device"], header["precision"], 1e9 * spent / pixels, f"{path}, {len(done)} pictures"
    )


def _of_bench(found: Mapping[str, Any], path: Path) -> MeasuredTime:
    times, sizes = found["restore_on_device"] or found["end_to_end"], found["inputs"]
    pixels = median(height * width for height, width in sizes)
    facts = found["environment"]
    method = find_key(found["method"], found["track"], found["variant"])
    return MeasuredTime(method, facts["device"], facts["precision"], 1e6 * times["median_ms"] / pixels, str(path))


def find_key(team: str, track: str, variant: str | None) -> tuple[str, str, str]:
    """The key of a method by what a journal or a user says; raises UserError for one that there is not."""
    return method_key(look_up(team, load_track(track).inputs, variant or None))


def _scale_of(key: tuple[str, str, str]) -> int:
    return next(one.scale for one in listed(key[1]) if method_key(one) == key)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _same(device: str, gpu: str) -> bool:
    """Whether a driver's name, "NVIDIA H100 80GB HBM3", means the GPU "H100"."""
    return f" {gpu.lower()} " in f" {device.lower().replace('-', ' ')} "
