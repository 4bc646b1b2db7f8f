"""What is known of every method, in the form in which it is printed: claims beside counts, weights and their state."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntire.method.catalogue import folder_of, listed
from ntire.method.kept_counts import counts_of
from ntire.method.weights_files import State, Weights, locate

if TYPE_CHECKING:
    from ntire.method.catalogue import Listed
    from ntire.method.contract import Method

COLUMNS = ("team", "track", "variant", "params", "claim", "MACs", "claim", "at", "how the claim is read", "weights")
USUAL_SIZE = (1024, 1024)
"""Height and width at which a method is counted whose report states none."""
SIZES = {"face": (512, 512), "esr": (256, 256)}
"""The same where faces are restored, which are of that size, and in efficient super-resolution, which counts so."""


@dataclass(frozen=True)
class Declared:
    """A weights file, what needs it, and where it is or would be."""

    name: str
    """By which a user asks for it: of a team, a metric or a loss."""
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
            "by_hand": self.weights.by_hand,
            "path": str(self.path),
        }


def weights_of_methods(tracks: Iterable[str] | None = None) -> list[Declared]:
    """Every file that a method of these folders, or of all, declares."""
    return [
        Declared(method.team, _title(method), weights, *locate(weights, folder_of(method)))
        for folder in ([None] if tracks is None else tracks)
        for method in listed(folder)
        for weights in method.weights
    ]


def _title(method: "Listed") -> str:
    return f"{method.team} {method.track} {method.variant}".strip()


def markdown() -> str:
    """The README's table: every method whose report gives figures or whose weights ship, then the names of all others."""
    shown: list[Listed] = []
    others: dict[str, list[str]] = {}
    for method in listed():
        if method.claimed or _validation(method):
            shown.append(method)
        else:
            others.setdefault(method.team, []).append(f"{method.track} {method.variant}".strip())
    table = _markdown_table(COLUMNS, [in_short(facts_of(method)) for method in shown])
    names = ", ".join(f"{team} ({', '.join(where)})" for team, where in others.items())
    return f"{table}\n\nWithout published figures: {names}."


def in_short(row: dict[str, Any]) -> list[str]:
    """The cells of COLUMNS for one object of `facts`; empty where the report gives no figure."""
    claimed = row["claimed"]
    return [
        row["team"],
        row["track"],
        row["variant"],
        _in_units(row["params"], 1e6, "M"),
        _in_units(claimed["params"], 1e6, "M", row["difference"]["params"]),
        _in_units(row["macs"], 1e9, "G"),
        _in_units(claimed["macs"], 1e9, "G", row["difference"]["macs"]),
        " x ".join(map(str, row["at"])),
        claimed["reading"] or "",
        _weights_in_short(row),
    ]


def _weights_in_short(row: dict[str, Any]) -> str:
    quality = row["validation"]
    if quality is None:
        return str(row["weights"])
    return f"{row['weights']}: {quality['psnr_db']:.2f} dB, input {quality['plain_psnr_db']:.2f}"


def _in_units(value: int | None, unit: float, name: str, off: float | None = None) -> str:
    if value is None:
        return ""
    scaled = value / unit
    return (
        (f"{scaled:.4g}" if scaled < 1e4 else f"{scaled:.0f}") + f" {name}" + ("" if off is None else f" ({off:+.1%})")
    )


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def usual_size(method: "Listed") -> tuple[int, int]:
    """Height and width at which a method is counted: its report's, else its track's usual ones."""
    if method.claimed and method.claimed.at:
        return method.claimed.at
    return SIZES.get(method.track, USUAL_SIZE)


def facts_of(method: "Listed", at: tuple[int, int] | None = None, *, built: "Method | None" = None) -> dict[str, Any]:
    """One object of `facts`, counted at the report's size or at another one, for which neither multiply-adds nor memory are
    claimed.

    `built` is what `on_meta` gave, where it is there already.
    """
    claimed = method.claimed
    stated = usual_size(method)
    at = at or stated
    if claimed and at != stated:
        claimed = replace(claimed, macs_g=None, memory_mb=None)
    counts = counts_of(method, at, built)
    return {
        "team": method.team,
        "track": method.track,
        "variant": method.variant,
        "params": counts.params,
        "macs": counts.macs,
        "scale": method.scale,
        "at": list(at),
        "output_at": [method.scale * side for side in at],
        "claimed": {
            "params": _whole(claimed.params_m if claimed else None, 1e6),
            "macs": _whole(claimed.macs_g if claimed else None, 1e9),
            "memory_mb": claimed.memory_mb if claimed else None,
            "source": claimed.source if claimed else None,
            "reading": claimed.reading if claimed else None,
            "unmatched": list(claimed.unmatched) if claimed else [],
        },
        "difference": {
            "params": _off(counts.claimed_params / 1e6, claimed.params_m if claimed else None),
            "macs": _off(counts.claimed_macs / 1e9, claimed.macs_g if claimed else None),
        },
        "weights": _state(method, counts.params),
        "validation": _validation(method),
        "license": "; ".join(dict.fromkeys(weights.license for weights in method.weights)) or None,
        "settings": dict(method.settable),
        "caveats": list(method.caveats),
    }


def _state(method: "Listed", params: int) -> str:
    """shipped, here, missing, or none-published; a method without parameters has all that it needs."""
    if not method.weights:
        return "none-published" if params else "shipped"
    states = {locate(weights, folder_of(method))[1] for weights in method.weights}
    return next(state for state in ("missing", "here", "shipped") if state in states)


def _validation(method: "Listed") -> dict[str, Any] | None:
    """What the card of weights that ship says of their quality on pictures that were held out."""
    for weights in method.weights:
        path, state = locate(weights, folder_of(method))
        # Somebody's own folder may have weights without a card.
        if state == "shipped" and path.with_suffix(".toml").is_file():
            validation: dict[str, Any] = tomllib.loads(path.with_suffix(".toml").read_text())["validation"]
            return validation
    return None


def _off(counted: float, claimed: float | None) -> float | None:
    """How much more we count than is claimed, as a share of the claim."""
    return None if claimed is None else round(counted / claimed - 1, 5)


def _whole(value: float | None, unit: float) -> int | None:
    return None if value is None else round(value * unit)
