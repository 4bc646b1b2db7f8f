"""What is declared of a method: what it costs, or why it cannot be run. Reading this needs no PyTorch."""

from dataclasses import dataclass


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
