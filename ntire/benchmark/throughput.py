"""How near a run comes to what its device, or its processor, could do at most."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ntire import UserError
from ntire.environment import usable_cores
from ntire.runner.device_worker import Device
from ntire.runner.prepare import Prepared
from ntire.runner.runner import Input, run


@dataclass(frozen=True)
class Throughput:
    """A run over pictures, from files to files, and what bounds it."""

    pictures: int
    seconds: float
    device_s: float
    """Of the device for one picture, the median."""
    cpu_s: float
    """Of the processor for one picture, all threads together."""
    cores: int
    """That the process may use."""

    @property
    def pictures_per_s(self) -> float:
        return self.pictures / self.seconds

    @property
    def device_ceiling(self) -> float:
        """Pictures a second of a device that never waits."""
        return 1 / self.device_s

    @property
    def cpu_ceiling(self) -> float:
        """Pictures a second of cores that never wait."""
        return self.cores / self.cpu_s

    @property
    def of_ceiling(self) -> float:
        """The share that is reached of the lower one."""
        return self.pictures_per_s / min(self.device_ceiling, self.cpu_ceiling)

    def as_json(self) -> dict[str, Any]:
        ceilings = {"device_ceiling": self.device_ceiling, "cpu_ceiling": self.cpu_ceiling}
        return asdict(self) | {"pictures_per_s": self.pictures_per_s, **ceilings, "of_ceiling": self.of_ceiling}

    def in_words(self) -> str:
        return (
            f"from files to files: {self.pictures_per_s:.2f} pictures/s over {self.pictures} pictures, {self.of_ceiling:.2f} "
            f"of the lower ceiling (the device {self.device_ceiling:.2f}/s, {self.cores} core(s) {self.cpu_ceiling:.2f}/s)"
        )


def measured(prepared: Prepared, device: Device, paths: Sequence[Path], count: int, folder: Path) -> Throughput:
    """Run a method that is warm over so many pictures, the paths in turn, into an empty folder.

    Raises UserError (exit code 3) if one of them fails.
    """
    inputs = [Input(path, f"{number}") for number, path in enumerate(itertools.islice(itertools.cycle(paths), count))]
    cpu, began = time.process_time(), time.perf_counter()
    done = run(prepared, inputs, folder, prepared.method.track, devices=[device])
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    if done.failed:
        raise UserError(f"{done.failed[0].image}: {done.failed[0].problem}", exit_code=3)
    seconds = [result.seconds for result in done.results if result.seconds]
    return Throughput(count, took, median(seconds), cpu / count, usable_cores())
