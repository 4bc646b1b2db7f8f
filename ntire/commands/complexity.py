"""`ntire cost --published`: the papers' tables of complexity, with what we count of the methods that we have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ntire import UserError
from ntire.commands.screen import out, print_json, print_table

if TYPE_CHECKING:
    from ntire.method.published_costs import PublishedCost

FIGURES = {"params_m": "M parameters", "macs_g": "G multiply-adds", "memory_mb": "MB of memory", "runtime_ms": "ms"}
MEMORY = "weights and the largest that is alive at once, in fp32, of one picture on the meta device"


def published_complexity(table: str = "") -> list[dict[str, Any]]:
    """Every row of the papers' tables of complexity, or of one of them: what the paper prints, and what we count at its size of
    the methods that we have. Raises UserError for a table that there is not.
    """
    from ntire.method.published_costs import published_costs
    from ntire.text import meant

    rows = [one for one in published_costs() if table in ("", one.table)]
    if not rows:
        raise UserError(f"no table {table!r} of complexity. {meant(table, (one.table for one in published_costs()))}")
    return [
        {
            "table": one.table, "row": one.row, "method": one.method, "at": list(one.at), "team": one.team or None,
            "variant": one.variant or None, "published": {name: getattr(one, name) for name in FIGURES},
            "counted": _counted(one) if one.team else None,
        }
        for one in rows
    ]  # fmt: skip


def _counted(one: PublishedCost) -> dict[str, float | None]:
    """What the paper counts of a method, counted by us; runtime belongs to a machine, and is not."""
    import torch

    from ntire.method.catalogue import class_of, look_up
    from ntire.method.footprint import measured
    from ntire.method.kept_counts import counts_of

    method = look_up(one.team, "general", one.variant or None)
    counts = counts_of(method, one.at)
    memory = None
    if one.memory_mb is not None:
        alive = measured(class_of(method), torch.float32, *one.at).bytes
        memory = (4 * counts.params + alive) / 2**20
    return {
        "params_m": counts.claimed_params / 1e6,
        "macs_g": counts.claimed_macs / 1e9 if one.macs_g is not None else None,
        "memory_mb": memory,
        "runtime_ms": None,
    }


def print_complexity(table: str, *, as_json: bool) -> None:
    """The tables, one after the other."""
    rows = published_complexity(table)
    if as_json:
        print_json(rows)
        return
    for name in dict.fromkeys(row["table"] for row in rows):
        of = [row for row in rows if row["table"] == name]
        figures = [one for one in FIGURES if any(row["published"][one] is not None for row in of)]
        header = [
            "method",
            *(word for one in figures for word in (FIGURES[one], *(["ours"] if _ours(of, one) else []))),
        ]
        out.print(f"\n{name}, at {of[0]['at'][0]} x {of[0]['at'][1]}", markup=False, style="bold")
        print_table(header, [[row["method"], *_cells(row, of, figures)] for row in of])
    if any(row["counted"] and row["counted"]["memory_mb"] for row in rows):
        out.print(f"\nours of memory: {MEMORY}; the paper does not say what its figure holds.", markup=False)


def _ours(rows: list[dict[str, Any]], figure: str) -> bool:
    return any(row["counted"] and row["counted"][figure] is not None for row in rows)


def _cells(row: dict[str, Any], rows: list[dict[str, Any]], figures: list[str]) -> Iterator[str]:
    for figure in figures:
        printed = row["published"][figure]
        yield "" if printed is None else f"{printed:g}"
        if _ours(rows, figure):
            counted = row["counted"][figure] if row["counted"] else None
            compared = counted is not None and printed and figure != "memory_mb"
            off = f" ({counted / printed - 1:+.1%})" if compared else ""
            yield "" if counted is None else f"{counted:.4g}{off}"
