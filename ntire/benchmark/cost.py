"""All that can be counted of a method, and the form in which figures come out of a sandbox."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from ntire import UserError
from ntire.method import Method
from ntire.method.cost_breakdown import break_down, planned_bytes
from ntire.method.count import count, lq_on_meta
from ntire.method.method_table import facts_of, usual_size
from ntire.method.receptive_field import reach_of, seam_error
from ntire.runner.prepare import Options, prepare

Size = tuple[int, int]


def cost_in_full(
    method: type[Method],
    at: Size | None,
    macs_at: Size | None = None,
    memory_at: Size | None = None,
    tile: int | None = None,
) -> dict[str, Any]:
    """Everything that `ntire cost` prints but the budgets, as `Figures` has it.

    `counted` has what budgets are about, at their own sizes. With `tile`, also the declared halo, the one that the method turns
    out to need (None: it sees the whole image), and what tiles of that side change. Raises UserError as `break_down` does.
    """
    breakdown, built = break_down(method, at or usual_size(method))
    memory = planned_bytes(built, lq_on_meta(method, memory_at)) / 2**20 if memory_at else None
    found = facts_of(method, at, built=built)
    found |= {
        "counters": {"dispatch": breakdown.dispatch, "modules": breakdown.modules, "trace": breakdown.trace},
        "untraced": breakdown.untraced,
        "disagreements": [asdict(one) for one in breakdown.disagreements],
        "short": [asdict(one) for one in breakdown.short],
        "count_as_nothing": list(breakdown.count_as_nothing),
        "parameters": asdict(breakdown.parameters),
        "training_only_macs": breakdown.training_only,
        "activations": {"convolutions": breakdown.convolved, "all": breakdown.written},
        "peak_memory_mb": round(breakdown.peak_bytes / 2**20, 1),
        "counted": {
            "params_m": breakdown.parameters.all / 1e6,
            "macs_g": count(method, macs_at, built=built).macs_g if macs_at else None,
            "memory_mb": memory,
        },
        "problems": breakdown.problems,
    }
    return found | (_reach_of(method, tile) if tile else {})


def _reach_of(method: type[Method], tile: int) -> dict[str, Any]:
    try:
        filled, weights = prepare(method, Options()).method, "its own"
    except UserError:
        filled, weights = method().eval(), "random"
    far = reach_of(filled)
    seams = None if method.tiling == "method" else seam_error(filled, tile)
    too_short = method.tiling == "exact" and (far is None or far > method.halo)
    return {
        "tiling": method.tiling,
        "halo": method.halo,
        "reach": far,
        "seams": asdict(seams) | {"weights": weights} if seams else None,
        "reach_problems": [f"its halo of {method.halo} is less than its reach."] if too_short else [],
    }


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Claimed(_Strict):
    params: int | None
    macs: int | None
    memory_mb: float | None = None
    source: str | None
    reading: str | None
    unmatched: list[str]


class _Difference(_Strict):
    params: float | None
    macs: float | None


class _Counters(_Strict):
    dispatch: int
    modules: int
    trace: int | None


class _Disagreement(_Counters):
    module: str


class _Short(_Strict):
    module: str
    counted: int
    least: int
    operators: list[str]


class _Parameters(_Strict):
    all: int
    trainable: int
    unused: int
    buffers: int
    training_only: int


class _Activations(_Strict):
    convolutions: int
    all: int


class _Counted(_Strict):
    params_m: float
    macs_g: float | None
    memory_mb: float | None


class _Seams(_Strict):
    tile: int
    height: int
    width: int
    max_levels: float
    mean_levels: float
    psnr_db: float | None
    weights: str


class Figures(_Strict):
    """What `cost_in_full` gives, held against this form where it came from code that could have written it by hand."""

    team: str
    track: str
    variant: str
    params: int
    macs: int
    scale: int
    at: Size
    output_at: Size
    claimed: _Claimed
    difference: _Difference
    weights: str
    validation: None = None
    """Only methods that ship with ntire have one."""
    license: str | None
    settings: dict[str, str]
    caveats: list[str]
    counters: _Counters
    untraced: str
    disagreements: list[_Disagreement]
    short: list[_Short]
    count_as_nothing: list[str]
    parameters: _Parameters
    training_only_macs: int
    activations: _Activations
    peak_memory_mb: float
    counted: _Counted
    problems: list[str]
    tiling: str = ""
    halo: int = 0
    reach: int | None = None
    seams: _Seams | None = None
    reach_problems: list[str] = []
