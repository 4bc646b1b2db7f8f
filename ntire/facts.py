"""What is known of every method, in the form in which it is printed: claims beside counts, weights and their state."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntire.catalogue import folder_of, methods
from ntire.cost import count
from ntire.method import Method
from ntire.weights import State, Weights, locate

USUAL_SIZE = (1024, 1024)
"""Height and width at which a method is counted whose report states none."""


@dataclass(frozen=True)
class Declared:
    """A weights file, what needs it, and where it is or would be."""

    needed_by: str
    """A method, "MiAlgo raw phase3", or a metric, "metric lpips"."""
    weights: Weights
    path: Path
    state: State

    def as_json(self) -> dict[str, Any]:
        """One row of `ntire weights list`."""
        return {
            "for": self.needed_by,
            "file": self.weights.file,
            "state": self.state,
            "provenance": self.weights.provenance,
            "license": self.weights.license,
            "sha256": self.weights.sha256,
            "size_mb": round(self.weights.size / 1e6, 1) if self.weights.size else None,
            "urls": list(self.weights.urls),
            "path": str(self.path),
        }


def weights_of_methods(tracks: Iterable[str] | None = None) -> list[Declared]:
    """Every file that a method of these folders, or of all, declares."""
    return [
        Declared(f"{method.team} {method.track} {method.variant}".strip(), weights, *locate(weights, folder_of(method)))
        for folder in ([None] if tracks is None else tracks)
        for method in methods(folder)
        for weights in method.weights
    ]


def facts(track: str | None = None) -> list[dict[str, Any]]:
    """One object a method: parameters and multiply-adds as whole numbers, counted at the report's size `at`."""
    return [_facts(method) for method in methods(track)]


def markdown() -> dict[str, str]:
    """The README's generated tables: `methods`, claims beside counts, and `weights`, what ships and how good it is."""
    rows = [
        [
            row["team"],
            row["track"],
            row["variant"],
            in_units(row["params"], 1e6, "M"),
            in_units(row["claimed"]["params"], 1e6, "M"),
            in_units(row["macs"], 1e9, "G"),
            in_units(row["claimed"]["macs"], 1e9, "G"),
            " x ".join(map(str, row["at"])),
            row["weights"],
        ]
        for row in facts()
    ]
    columns = ["team", "track", "variant", "params", "claimed", "MACs", "claimed", "at", "weights"]
    return {
        "methods": _markdown_table(columns, rows),
        "weights": _markdown_table(
            ["weights", "trained on", "PSNR, held-out pictures", "of the input itself"],
            [_card_row(one.path.with_suffix(".toml")) for one in weights_of_methods() if one.state == "shipped"],
        ),
    }


def _card_row(card_path: Path) -> list[str]:
    card = tomllib.loads(card_path.read_text())
    data, validation = card["data"], card["validation"]
    return [
        f"{card['team']} {card['track']} {card['variant']}",
        f"{data['pictures']} pictures ({data['folder']}), {card['training']['iterations']} iterations",
        f"{validation['psnr_db']:.2f} dB",
        f"{validation['plain_psnr_db']:.2f} dB",
    ]


def in_units(value: int | None, unit: float, name: str) -> str:
    """A count in millions or billions with four digits; empty for a figure that the report does not give."""
    return "" if value is None else f"{value / unit:.4g} {name}"


def _markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(method: type[Method]) -> dict[str, Any]:
    claimed = method.claimed
    at = claimed.at if claimed and claimed.at else USUAL_SIZE
    counted = count(method, at)
    return {
        "team": method.team,
        "track": method.track,
        "variant": method.variant,
        "params": _whole(counted.params_m, 1e6),
        "macs": _whole(counted.macs_g, 1e9),
        "at": list(at),
        "claimed": {
            "params": _whole(claimed.params_m if claimed else None, 1e6),
            "macs": _whole(claimed.macs_g if claimed else None, 1e9),
            "source": claimed.source if claimed else None,
        },
        "weights": _state(method, counted.params_m or 0),
        "license": "; ".join(dict.fromkeys(weights.license for weights in method.weights)) or None,
        "caveats": list(method.caveats),
    }


def _state(method: type[Method], params_m: float) -> str:
    """shipped, here, missing, or none-published; a method without parameters has all that it needs."""
    if not method.weights:
        return "none-published" if params_m else "shipped"
    states = {locate(weights, folder_of(method))[1] for weights in method.weights}
    return next(state for state in ("missing", "here", "shipped") if state in states)


def _whole(value: float | None, unit: float) -> int | None:
    return None if value is None else round(value * unit)
