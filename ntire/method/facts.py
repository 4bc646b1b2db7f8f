"""What is declared of a method: what it costs, or why it cannot be run. Reading this needs no PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ntire.method.weights_files import Weights


@dataclass(frozen=True)
class Cost:
    """What a method costs, claimed by a report or counted by us; None where the report is silent.

    1 MAC is one multiply-add; FLOPs are 2 MACs.
    """

    source: str
    """Where the figures stand."""
    params_m: float | None = None
    """Millions of parameters."""
    macs_g: float | None = None
    """10^9 multiply-adds for one image of size `at`."""
    at: tuple[int, int] | None = None
    """Height and width of the full-size picture (for raw: of the mosaic)."""
    runtime_ms: float | None = None
    runtime_at: tuple[int, int] | None = None
    device: str | None = None
    memory_mb: float | None = None
    """Memory of the GPU for one image of size `at`, in MB as the report states it."""
    reading: str = ""
    """What a report's figures must mean for ours to meet them, such as "GFLOPs are MACs"."""
    trained_only: bool = False
    """Whether `params_m` counts only the parameters that training changes."""
    unmatched: tuple[str, ...] = ()
    """Figures of a claim that no natural reading of the report meets; the method's caveats say how far off ours are."""


@dataclass(frozen=True)
class Unpublished:
    """A team of which nothing can be run, as its `entry` in a module of its own: what is known, and why it does not run."""

    team: str
    """As the report spells it."""
    track: str
    cite: str
    note: str


@dataclass(frozen=True)
class Counts:
    """What a method was counted to cost, for one image of one size."""

    params: int
    macs: int
    """Multiply-adds."""
    claimed_params: int
    """Of what the report's figure counts, where that is not all of it."""
    claimed_macs: int


@dataclass(frozen=True)
class Facts:
    """A method of the release as its data file has it: what its class declares, and what was counted of it."""

    name: str
    """Of its class."""
    module: str
    """Below `teams/`, such as "raw.mialgo"."""
    team: str
    track: str
    variant: str
    cite: str
    claimed: Cost | None
    at: tuple[int, int]
    """Height and width at which it was counted."""
    counts: Counts
    weights: tuple[Weights, ...]
    settable: Mapping[str, str]
    caveats: tuple[str, ...]
    folder: Path
    """Where its module lies, and its `weights/` beside it."""
    scale: int = 1
    """How many times as large as its input the result is."""
    footprints: tuple[tuple[int, int, int, int], ...] = ()
    """Height, width, peak bytes and elements of the largest tensor in float32, where memory is planned by them."""
