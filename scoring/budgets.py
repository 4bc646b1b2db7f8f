"""What a method may cost on a track, and how much of that it leaves; always on unrounded numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ntire.entry.manifest import Claims
from ntire.entry.measured import Measured, Source

Name = Literal["params_m", "macs_g", "runtime_ms", "memory_mb"]
Positive = Annotated[float, Field(gt=0)]
Size = tuple[int, int]


@dataclass(frozen=True)
class Spent:
    """How something stands against a limit of its track."""

    name: Name
    value: float | None
    """As it is claimed, counted or measured; None where that is not known, or known for another size only."""
    limit: float
    at: Size | None = None
    """Height and width that the limit is for."""
    source: Source = ""
    """Where the value comes from, for an entry of which something was measured."""

    @property
    def margin(self) -> float | None:
        """Share of the limit that is left; negative over budget."""
        return None if self.value is None else 1 - self.value / self.limit

    @property
    def over(self) -> bool:
        return self.value is not None and self.value > self.limit

    @property
    def rule(self) -> str:
        """The limit in words: "macs_g <= 30 at 1024 x 1024"."""
        return f"{self.name} <= {self.limit:.10g}" + (f" at {self.at[0]} x {self.at[1]}" if self.at else "")

    def in_words(self) -> str:
        """Value, limit and margin: "budget params_m: 0.25 measured, 1 allowed, 75 % left"."""
        if self.value is None or self.margin is None:
            return f"budget {self.name}: not known, {self.limit:.10g} allowed"
        left = f"{abs(self.margin):.3%} {'over' if self.over else 'left'}"
        source = f" {self.source}" if self.source else ""
        return f"budget {self.name}: {self.value:.10g}{source}, {self.limit:.10g} allowed, {left}"

    def as_json(self) -> dict[str, Any]:
        """Value, limit, margin, the size they are for, and for an entry that was measured the value's source."""
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "margin": self.margin,
            "at": list(self.at) if self.at else None,
            **({"source": self.source} if self.source else {}),
        }


class Budgets(BaseModel):
    """Limits of a track; None where it sets none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params_m: Positive | None = None
    macs_g: Positive | None = None
    at: Size | None = None
    """Height and width that macs_g is for."""
    runtime_ms: Positive | None = None
    """For one image, from its path to restored pixels."""
    runtime_at: Size | None = None
    memory_mb: Positive | None = None
    """At the peak, of the device; 2^20 bytes."""
    memory_at: Size | None = None

    @model_validator(mode="after")
    def _sizes(self) -> "Budgets":
        if (self.macs_g is None) != (self.at is None):
            raise ValueError("a budget of macs_g needs the size `at` that it is for, and the other way round")
        if (self.memory_mb is None) != (self.memory_at is None):
            raise ValueError("a budget of memory_mb needs the size `memory_at` that it is for, and the other way round")
        return self

    def hold(self, values: Mapping[Name, float | None]) -> tuple[Spent, ...]:
        """Every limit that is set beside its value at the limit's size; None where there is none."""
        sizes = {"macs_g": self.at, "runtime_ms": self.runtime_at, "memory_mb": self.memory_at}
        names: tuple[Name, ...] = get_args(Name)
        return tuple(
            Spent(name, values.get(name), limit, sizes.get(name))
            for name in names
            if (limit := getattr(self, name)) is not None
        )

    def hold_claims(self, claims: Claims) -> tuple[Spent, ...]:
        """Every limit beside what is claimed for its size."""
        return self.hold(
            {
                "params_m": claims.params_m,
                "macs_g": claims.macs_g if claims.at == self.at else None,
                "runtime_ms": claims.runtime_ms if claims.runtime_at == self.runtime_at else None,
                "memory_mb": claims.memory_mb if claims.memory_at == self.memory_at else None,
            }
        )

    def hold_entry(self, claims: Claims, measured: Measured | None) -> tuple[Spent, ...]:
        """Every limit beside what was measured at its size, else beside what is claimed."""
        claimed = self.hold_claims(claims)
        if measured is None:
            return claimed
        known = self.hold(
            {
                "params_m": measured.params_m,
                "macs_g": measured.macs_at(self.at),
                "runtime_ms": measured.runtime_at(self.runtime_at),
            }
        )
        return tuple(
            replace(claim, source="claimed") if own.value is None else replace(own, source="measured")
            for claim, own in zip(claimed, known, strict=True)
        )

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {spent.name: spent.limit for spent in self.hold({})}
