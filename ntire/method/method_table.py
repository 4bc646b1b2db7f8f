"""What is known of every method, in the form in which it is printed: claims beside counts, weights and their state."""

import json
import os
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ntire
from ntire.files import sha256_of, write_atomically
from ntire.method import Cost, Method
from ntire.method.catalogue import folder_of, methods
from ntire.method.count import count, on_meta
from ntire.method.weights_files import State, Weights, locate

COLUMNS = ("team", "track", "variant", "params", "claim", "MACs", "claim", "at", "how the claim is read", "weights")
USUAL_SIZE = (1024, 1024)
"""Height and width at which a method is counted whose report states none."""
FACE_SIZE = (512, 512)
"""The same for methods that restore faces, which are of that size."""


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
        for method in methods(folder)
        for weights in method.weights
    ]


def _title(method: type[Method]) -> str:
    return f"{method.team} {method.track} {method.variant}".strip()


def markdown() -> str:
    """The README's table: every method whose report gives figures or whose weights ship, then the names of all others."""
    listed: list[type[Method]] = []
    others: dict[str, list[str]] = {}
    for method in methods():
        if method.claimed or _validation(method):
            listed.append(method)
        else:
            others.setdefault(method.team, []).append(f"{method.track} {method.variant}".strip())
    table = _markdown_table(COLUMNS, [in_short(facts_of(method)) for method in listed])
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


def usual_size(method: type[Method]) -> tuple[int, int]:
    """Height and width at which a method is counted: its report's, else its track's usual ones."""
    if method.claimed and method.claimed.at:
        return method.claimed.at
    return FACE_SIZE if method.track == "face" else USUAL_SIZE


def facts_of(method: type[Method], at: tuple[int, int] | None = None, *, built: Method | None = None) -> dict[str, Any]:
    """One object of `facts`, counted at the report's size or at another one, for which no multiply-adds are claimed.

    `built` is what `on_meta` gave, where it is there already.
    """
    claimed = method.claimed
    stated = usual_size(method)
    at = at or stated
    if claimed and at != stated:
        claimed = replace(claimed, macs_g=None)
    counted, as_claimed = _counts(method, at, built)
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
            "reading": claimed.reading if claimed else None,
            "unmatched": list(claimed.unmatched) if claimed else [],
        },
        "difference": {
            "params": _off(as_claimed.params_m, claimed.params_m if claimed else None),
            "macs": _off(as_claimed.macs_g, claimed.macs_g if claimed else None),
        },
        "weights": _state(method, counted.params_m or 0),
        "validation": _validation(method),
        "license": "; ".join(dict.fromkeys(weights.license for weights in method.weights)) or None,
        "settings": dict(method.settable),
        "caveats": list(method.caveats),
    }


def _counts(method: type[Method], at: tuple[int, int], built: Method | None) -> tuple[Cost, Cost]:
    """What runs, and what the claim counts. Methods of this package are counted once: the figures are kept in the cache under
    the hash of all source and libraries that they follow from.
    """
    path = None
    if method.__module__.startswith("ntire.teams."):
        key = sha256_of(repr((_source(), method.__module__, method.__qualname__, at)).encode())
        path = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ntire" / "counts" / f"{key[:32]}.json"
        )
        try:
            counted, as_claimed = (Cost("kept", params_m=one[0], macs_g=one[1]) for one in json.loads(path.read_text()))
            return counted, as_claimed
        except (OSError, ValueError, TypeError, IndexError):
            pass  # never counted, or another program's file: it is written anew
    built = built or on_meta(method)
    counted = count(method, at, built=built)
    as_claimed = count(method, at, as_claimed=True, built=built) if method.claimed else counted
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps([(one.params_m, one.macs_g) for one in (counted, as_claimed)]))
        except OSError:
            pass  # nowhere to keep them: they are counted again next time
    return counted, as_claimed


@cache
def _source() -> str:
    """The hash of all source that a method's figures can follow from, and the versions of the libraries."""
    root = Path(ntire.__file__).parent
    files = sorted([*root.rglob("*.py"), *(root / "teams").rglob("*.py")])
    found = []
    for name in ("torch", "torchvision", "spandrel", "diffusers", "peft", "transformers", "timm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return sha256_of("\n".join([*found, *map(sha256_of, files)]).encode())


def _state(method: type[Method], params_m: float) -> str:
    """shipped, here, missing, or none-published; a method without parameters has all that it needs."""
    if not method.weights:
        return "none-published" if params_m else "shipped"
    states = {locate(weights, folder_of(method))[1] for weights in method.weights}
    return next(state for state in ("missing", "here", "shipped") if state in states)


def _validation(method: type[Method]) -> dict[str, Any] | None:
    """What the card of weights that ship says of their quality on pictures that were held out."""
    for weights in method.weights:
        path, state = locate(weights, folder_of(method))
        # Somebody's own folder may have weights without a card.
        if state == "shipped" and path.with_suffix(".toml").is_file():
            validation: dict[str, Any] = tomllib.loads(path.with_suffix(".toml").read_text())["validation"]
            return validation
    return None


def _off(counted: float | None, claimed: float | None) -> float | None:
    """How much more we count than is claimed, as a share of the claim."""
    return None if counted is None or claimed is None else round(counted / claimed - 1, 5)


def _whole(value: float | None, unit: float) -> int | None:
    return None if value is None else round(value * unit)
