"""A challenge on paper: how long restoring and scoring take on so many GPUs, what goes over the network, what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ntire.benchmark.forecast import (
    PER_OBSERVATION,
    Forecast,
    Hardware,
    MeasuredTime,
    known_costs,
    load_s,
    metric_bytes,
    observing,
    reading,
    restoring,
    weights_bytes,
)
from ntire.benchmark.schedule import SCORING_S, SHARD_S, Load, Schedule, schedule
from ntire.scoring.metrics import METRICS

if TYPE_CHECKING:
    from ntire.method.catalogue import Listed
    from ntire.scoring.track import Track


@dataclass(frozen=True)
class Challenge:
    """What is to be done."""

    track: Track
    methods: tuple[Listed, ...]
    """Each restores all pictures."""
    pictures: int
    pixels: float
    """Of an input, on average."""
    entries: int
    """Of which all pictures are scored."""
    metrics: tuple[str, ...]
    input_bytes: float | None = None
    """Of an input's file, where there are files."""


@dataclass(frozen=True)
class Cluster:
    """Nodes that are alike."""

    hardware: Hardware
    gpus: int
    per_node: int
    network_gb_s: float
    """10^9 bytes a second that leave and reach the machine or file system with the pictures."""

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.per_node)


@dataclass(frozen=True)
class Workload:
    """One method, or one metric over all entries, or the reading for all metrics."""

    name: str
    forecast: Forecast
    """Of one picture, for a metric in all entries."""
    times: int
    """How many restorations or observations that is."""
    bytes: int
    """Of its weights."""

    def load(self, pictures: int, cores: int, bound: int) -> Load:
        """For the schedule."""
        return Load(self.name, pictures, self.forecast.slot_s(cores, bound), load_s(self.bytes))


@dataclass(frozen=True)
class Bytes:
    """Amounts of data, in bytes."""

    inputs: float
    """To the workers, for each method."""
    results: float
    """Back from them."""
    scored: float
    """Pictures of entries and their references."""
    weights: float
    """Once a node."""

    @property
    def all(self) -> float:
        return self.inputs + self.results + self.scored + self.weights


@dataclass(frozen=True)
class OnCluster:
    """What a cluster makes of it."""

    cluster: Cluster
    restoring: Schedule
    scoring: Schedule
    """Begins when everything is restored."""
    transfer: Bytes
    fastest_s: float
    slowest_s: float
    """The ends of the range, where multiply-adds are all that is known."""

    @property
    def transfer_s(self) -> float:
        """On the one link that all pictures go over."""
        return self.transfer.all / (self.cluster.network_gb_s * 1e9)

    @property
    def wall_s(self) -> float:
        """Transfer goes on while slots compute; whichever takes longer counts."""
        return max(self.restoring.wall_s + self.scoring.wall_s, self.transfer_s)


class ClusterPlan:
    """The arithmetic."""

    def __init__(self, challenge: Challenge, hardware: Hardware, measured: Sequence[MeasuredTime] = ()) -> None:
        self.challenge, self.hardware, self.measured = challenge, hardware, tuple(measured)

    @cached_property
    def restored(self) -> tuple[Workload, ...]:
        """What is done to each input."""
        one = self.challenge
        raw = one.track.inputs == "raw"
        return tuple(
            Workload(
                " ".join(filter(None, (method.team, method.track, method.variant))),
                restoring(method, one.pixels, raw, self.hardware, self.measured),
                1,
                weights_bytes(method),
            )
            for method in one.methods
        )

    @cached_property
    def scored(self) -> tuple[Workload, ...]:
        """What is done to each picture of all entries together: a worker holds all metrics and reads each file once."""
        if not (self.challenge.entries and self.challenge.metrics):
            return ()
        read = Workload("reading", _times(reading(self._result_pixels), self.files), self.files, 0)
        return (*(self._scored(name) for name in self.challenge.metrics), read)

    @property
    def files(self) -> int:
        """How many are read for a picture: those of entries, and what they are compared with."""
        held = {METRICS[name].against for name in self.challenge.metrics} - {"nothing"}
        return self.challenge.entries + len(held)

    def _scored(self, name: str) -> Workload:
        # A reference that is observed by itself is so once for all entries.
        times = self.challenge.entries + METRICS[name].apart
        one = observing(name, self._result_pixels, self.hardware)
        return Workload(name, _times(one, times), times, metric_bytes(name))

    @property
    def _result_pixels(self) -> float:
        return self.challenge.pixels * self.challenge.track.scale**2

    @property
    def input_bytes(self) -> float:
        """Of one input's file."""
        files = known_costs().files
        each = files.raw_bytes if self.challenge.track.inputs == "raw" else files.png_bytes
        return self.challenge.input_bytes or self.challenge.pixels * each

    @property
    def result_bytes(self) -> float:
        """Of one result's PNG."""
        return self._result_pixels * known_costs().files.png_bytes

    def transfer(self, nodes: int) -> Bytes:
        """What goes over the network."""
        one = self.challenge
        return Bytes(
            len(one.methods) * one.pictures * self.input_bytes,
            len(one.methods) * one.pictures * self.result_bytes,
            self.files * one.pictures * self.result_bytes if self.scored else 0.0,
            nodes * sum(item.bytes for item in (*self.restored, *self.scored)),
        )

    def storage(self) -> dict[str, float]:
        """Bytes that stay: results, observations, and weights on each node."""
        one, known = self.challenge, known_costs().metrics
        kept = sum(
            item.times * (8 * known[item.name].values + PER_OBSERVATION) for item in self.scored if item.name in known
        )
        return {
            "results": len(one.methods) * one.pictures * self.result_bytes,
            "observations": one.pictures * kept,
            "weights_a_node": sum(item.bytes for item in (*self.restored, *self.scored)),
        }

    def on(self, cluster: Cluster) -> OnCluster:
        """Deal everything out to a cluster's GPUs."""
        likely, fastest, slowest = (self._schedules(cluster, bound) for bound in range(3))
        walls = [sum(one.wall_s for one in phases) for phases in (fastest, slowest)]
        return OnCluster(cluster, *likely, self.transfer(cluster.nodes), *walls)

    def _schedules(self, cluster: Cluster, bound: int) -> tuple[Schedule, Schedule]:
        """Of restoring and of scoring, at the likely times or at an end of the range."""
        cores, pictures = cluster.hardware.cores, self.challenge.pictures
        restoring = [item.load(pictures, cores, bound) for item in self.restored]
        gpu_s = sum(item.forecast.gpu_s[bound] for item in self.scored)
        cpu_s = sum(item.forecast.cpu_s for item in self.scored)
        ready_s = load_s(sum(item.bytes for item in self.scored))
        scoring = [Load("scoring", pictures, max(gpu_s, cpu_s / cores), ready_s)] if self.scored else []
        return schedule(restoring, cluster.gpus, SHARD_S), schedule(scoring, cluster.gpus, SCORING_S)

    def as_json(self, outcomes: Sequence[OnCluster]) -> dict[str, Any]:
        """All figures, in seconds and bytes."""
        one = self.challenge
        cores = self.hardware.cores
        return {
            "track": one.track.name,
            "pictures": one.pictures,
            "pixels": one.pixels,
            "entries": one.entries,
            "hardware": asdict(self.hardware),
            "work": [
                {
                    "name": item.name,
                    "for": kind,
                    "times": item.times,
                    "basis": item.forecast.basis,
                    "arithmetic": item.forecast.arithmetic,
                    "gpu_s": item.forecast.gpu_s[0],
                    "gpu_s_range": item.forecast.gpu_s[1:],
                    "cpu_s": item.forecast.cpu_s,
                    "slot_s": item.forecast.slot_s(cores),
                    "load_s": load_s(item.bytes),
                    "weights_bytes": item.bytes,
                }
                for kind, items in (("restoring", self.restored), ("scoring", self.scored))
                for item in items
            ],
            "storage_bytes": self.storage(),
            "clusters": [
                {
                    "gpus": found.cluster.gpus,
                    "nodes": found.cluster.nodes,
                    "wall_s": found.wall_s,
                    "wall_s_range": [max(found.fastest_s, found.transfer_s), max(found.slowest_s, found.transfer_s)],
                    "restoring": asdict(found.restoring),
                    "scoring": asdict(found.scoring),
                    "transfer_s": found.transfer_s,
                    "transfer_bytes": asdict(found.transfer),
                }
                for found in outcomes
            ],
        }


def _times(one: Forecast, number: int) -> Forecast:
    """As often."""
    low, middle, high = one.gpu_s[1], one.gpu_s[0], one.gpu_s[2]
    return Forecast((number * middle, number * low, number * high), number * one.cpu_s, one.basis, one.arithmetic)
