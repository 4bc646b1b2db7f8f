"""What papers print of the cost of methods, theirs and others', as tables of `teams/complexity.csv`."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PublishedCost:
    """One row of a paper's table; None where it says nothing."""

    table: str
    row: int
    """In the table, from the first method down."""
    method: str
    at: tuple[int, int]
    """Height and width."""
    params_m: float | None
    macs_g: float | None
    """The paper's FLOPs, which are multiply-adds in all three papers."""
    memory_mb: float | None
    runtime_ms: float | None
    team: str
    """Ours of that name, empty for a method that ntire does not have."""
    variant: str


@cache
def published_costs() -> tuple[PublishedCost, ...]:
    """All rows, table by table."""
    text = (files("ntire.teams") / "complexity.csv").read_text(encoding="utf-8")
    return tuple(_row(one) for one in csv.DictReader(text.splitlines()))


def _row(one: dict[str, str]) -> PublishedCost:
    height, width = (int(side) for side in one["at"].split("x"))
    number = {
        name: float(one[name]) if one[name] else None for name in ("params_m", "macs_g", "memory_mb", "runtime_ms")
    }
    return PublishedCost(
        one["table"],
        int(one["row"]),
        one["method"],
        (height, width),
        **number,
        team=one["team"],
        variant=one["variant"],
    )
