"""What a method costs as part of a score: terms over costs, held against a reference entry, and gates on means.

    score of a term = weight x f(value, value of the reference entry)

Costs were measured for an entry, or its team claims them, or a table states them: which, stands beside each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from ntire.entry.manifest import Claims
from ntire.entry.measured import Measured
from ntire.entry.measured_files import MeasuredFigures
from ntire.scoring.budgets import Name, Positive, Size

Function = Literal["linear", "ratio", "exp"]
FUNCTIONS: dict[Function, str] = {"linear": "{0}", "ratio": "{0} / {1}", "exp": "exp(2 x {0} / {1})"}
"""In words: the value, and that of the reference."""
NAMES: tuple[Name, ...] = get_args(Name)


class CostTerm(BaseModel):
    """One summand of a score; less is better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: Name
    weight: Positive = 1.0
    function: Function = "linear"

    def of(self, value: float, reference: float | None) -> float:
        """The term for a value; the reference's is not needed for a linear one."""
        if self.function == "linear":
            return self.weight * value
        if reference is None or not reference > 0:
            raise ValueError(
                f"{self.cost}: a {self.function} needs a positive value of the reference, found {reference}"
            )
        ratio = value / reference
        try:
            return self.weight * (ratio if self.function == "ratio" else math.exp(2 * ratio))
        except OverflowError:
            return math.inf

    def in_words(self) -> str:
        """The term as a formula."""
        words = FUNCTIONS[self.function].format(self.cost, f"{self.cost} of the reference")
        return words if self.weight == 1 else f"{self.weight:g} {words}"


class MeanGate(BaseModel):
    """A test that an entry must pass to be ranked: the mean of a metric over each data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    metric: str
    least: Annotated[dict[str, float], Field(min_length=1)]
    """By subset; below it an entry is not valid."""
    decimals: Annotated[int, Field(ge=0, le=10)] | None = None
    """To which means are rounded, half to even, before they are compared; None for means as they are."""

    def in_words(self) -> str:
        """What it asks for."""
        wanted = ", ".join(f"{subset} {threshold:g}" for subset, threshold in self.least.items())
        rounded = "as they are" if self.decimals is None else f"rounded to {self.decimals} decimals"
        return f"{self.name}: the means of {self.metric}, {rounded}, are at least {wanted}"


@dataclass(frozen=True)
class MeanAtGate:
    """How the mean of one data set stands at a gate."""

    gate: MeanGate
    subset: str
    mean: float | None
    """Unrounded; None where an image has no value."""

    @property
    def threshold(self) -> float:
        return self.gate.least[self.subset]

    @property
    def margin(self) -> float | None:
        """What the unrounded mean lies above the threshold."""
        return None if self.mean is None else self.mean - self.threshold

    @property
    def passed(self) -> bool:
        return self.mean is not None and self._compared(self.mean) >= self.threshold

    @property
    def by_rounding(self) -> bool:
        """Whether it is passed only because means are rounded, as far as the mean that is known tells."""
        return self.passed and self.gate.decimals is not None and self.mean is not None and self.mean <= self.threshold

    def problem(self) -> str:
        """Why the entry is not valid; empty if it is passed."""
        if self.mean is None:
            return f"gate {self.gate.name}: {self.gate.metric}/{self.subset} not given, {self.threshold:g} at least"
        if self.passed:
            return ""
        return f"gate {self.gate.name}: {self.gate.metric}/{self.subset} {self.mean:.10g}, {self.threshold:g} at least"

    def note(self) -> str:
        """What a reader must know of a mean that is at the threshold; empty for others."""
        if not self.by_rounding or self.mean is None:
            return ""
        what = f"gate {self.gate.name}: {self.gate.metric}/{self.subset}"
        if self.mean == self.threshold:
            return f"{what} is the threshold itself, {self.threshold:g}: met only by rounding if the table is rounded"
        return f"{what} is met only by rounding: {self.mean:.6f}, {self.threshold:g} at least"

    def _compared(self, mean: float) -> float:
        if self.gate.decimals is None or not math.isfinite(mean):
            return mean
        step = Decimal(1).scaleb(-self.gate.decimals)
        return float(Decimal(repr(mean)).quantize(step, rounding=ROUND_HALF_EVEN))


@dataclass(frozen=True)
class EntryCost:
    """One cost of an entry."""

    name: Name
    value: float | None
    source: str
    """`bench.json`, `cost.json`, measured (by `verify`), claimed, or table; empty where there is no value."""


def costs_of(
    wanted: Sequence[Name],
    at: Size | None,
    runtime_at: Size | None,
    claims: Claims,
    measured: Measured | None,
    files: MeasuredFigures,
) -> tuple[EntryCost, ...]:
    """The costs that a track asks for: what the organisers' files say, else what `verify` measured, else what is claimed.

    `at` is the size that multiply-adds and memory are for, `runtime_at` that of runtimes (None: the inputs as they are).
    """
    claimed = {
        "params_m": claims.params_m,
        "macs_g": claims.macs_g if claims.at == at else None,
        "runtime_ms": claims.runtime_ms if claims.runtime_at == runtime_at else None,
        "memory_mb": claims.memory_mb if claims.memory_at == at else None,
    }
    found = {} if measured is None else {
        "params_m": measured.params_m, "macs_g": measured.macs_at(at), "runtime_ms": measured.runtime_at(runtime_at),
    }  # fmt: skip
    return tuple(_first(name, files.of(name, at, runtime_at), found.get(name), claimed[name]) for name in wanted)


def _first(name: Name, of_file: tuple[float, str] | None, measured: float | None, claimed: float | None) -> EntryCost:
    if of_file is not None:
        return EntryCost(name, *of_file)
    if measured is not None:
        return EntryCost(name, measured, "measured")
    return EntryCost(name, claimed, "" if claimed is None else "claimed")


def cost_total(terms: Sequence[CostTerm], own: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """The sum of cost terms; None where a value that one needs is not known."""
    if any(not _known(term, own, reference) for term in terms):
        return None
    return math.fsum(term.of(own[term.cost], reference.get(term.cost)) for term in terms)


def lacking(terms: Sequence[CostTerm], own: Mapping[str, float]) -> list[Name]:
    """Costs that terms need and that have no value."""
    return [name for name in dict.fromkeys(term.cost for term in terms) if name not in own]


def lacking_of_reference(terms: Sequence[CostTerm], reference: Mapping[str, float]) -> list[Name]:
    """Costs that the reference entry must have, above 0, and has not."""
    needed = dict.fromkeys(term.cost for term in terms if term.function != "linear")
    return [name for name in needed if not reference.get(name, 0.0) > 0]


def as_json(costs: Sequence[EntryCost], means: Sequence[MeanAtGate]) -> dict[str, Any]:
    """Costs with their sources, and means at gates with their margins."""
    return {
        "costs": {one.name: {"value": one.value, "source": one.source} for one in costs},
        "mean_gates": [
            {
                "name": one.gate.name, "metric": one.gate.metric, "subset": one.subset, "mean": one.mean,
                "least": one.threshold, "margin": one.margin, "passed": one.passed, "by_rounding": one.by_rounding,
            }
            for one in means
        ],
    }  # fmt: skip


def _known(term: CostTerm, own: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    return term.cost in own and (term.function == "linear" or reference.get(term.cost, 0.0) > 0)
