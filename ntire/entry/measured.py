"""What an entry's code was found to cost, beside what its manifest claims.

Parameters and multiply-adds are counted by our counters, but in the sandbox, beside the code, which could falsify them. Times
are taken outside, by the parent's clock, which the code cannot reach.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ntire.entry.findings import Finding
from ntire.entry.manifest import MANIFEST, Claims

Size = tuple[int, int]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Source = Literal["", "claimed", "measured"]
"""Where a figure of an entry comes from; empty where nothing of it was measured."""
COUNTED_BY = "our counters, in the sandbox beside the code, which could falsify them"
TIMED_BY = "the parent's clock, from outside the sandbox"
PARAMETERS_MAY_DIFFER, MACS_MAY_DIFFER, RUNTIME_MAY_DIFFER = 0.01, 0.05, 0.5
"""Share by which a claim may be below what was measured."""


@dataclass(frozen=True)
class AtSize:
    """One figure, and the size that it is for."""

    value: Amount
    at: tuple[int, int] | None
    """Height and width; None for the inputs as they are."""


@dataclass(frozen=True)
class Measured:
    """What code was found to cost; what could not be measured is absent, and `problems` says why."""

    params_m: Amount | None = None
    """All that it runs with."""
    macs_g: tuple[AtSize, ...] = ()
    """Of its networks."""
    runtime_ms: tuple[AtSize, ...] = ()
    """For one image, from its path to restored pixels outside the sandbox: a median over different pictures."""
    device: str = ""
    """That the runtime was taken on, by its name."""
    threads: int = 0
    problems: tuple[str, ...] = ()
    """Why something could not be measured, or its count cannot be believed."""
    counted_by: str = COUNTED_BY
    timed_by: str = TIMED_BY

    def macs_at(self, size: Size | None) -> float | None:
        """Multiply-adds in 10^9 at a height and width; None if they were not counted there."""
        return _at(self.macs_g, size)

    def runtime_at(self, size: Size | None) -> float | None:
        """Milliseconds at a height and width, or of the inputs as they are; None if none was timed."""
        return _at(self.runtime_ms, size)

    def in_words(self) -> Iterator[str]:
        """A line for each figure."""
        if self.params_m is not None:
            yield f"parameters: {self.params_m:.4g} M, counted by {self.counted_by}"
        for one in self.macs_g:
            yield f"multiply-adds: {one.value:.4g} G{_size(one.at)}, counted by {self.counted_by}"
        for one in self.runtime_ms:
            yield f"runtime: {one.value:.4g} ms{_size(one.at)} on {self.device}, by {self.timed_by}"


_FORM = TypeAdapter(Measured)


def measured_of(value: object) -> Measured | None:
    """The figures in a verdict; None if there are none, or if they are of another form."""
    try:
        return None if value is None else _FORM.validate_python(value)
    except ValidationError:
        return None


def held_against(claims: Claims, measured: Measured) -> tuple[Finding, ...]:
    """Each claim that is further below what was measured than counters and clocks may differ, and what was not measured."""
    found = []
    counted = [("params_m", claims.params_m, measured.params_m, PARAMETERS_MAY_DIFFER)]
    counted.append(("macs_g", claims.macs_g, measured.macs_at(claims.at), MACS_MAY_DIFFER))
    for name, claimed, value, share in counted:
        if _below(claimed, value, share):
            found.append(_finding("E614", name, f"{value:.6g}, as counted", f"{claimed:.6g}"))
    runtime = measured.runtime_at(claims.runtime_at)
    if same_device(claims.device or "", measured.device) and _below(claims.runtime_ms, runtime, RUNTIME_MAY_DIFFER):
        expected = f"{runtime:.6g}, as timed on {measured.device}"
        found.append(_finding("W615", "runtime_ms", expected, f"{claims.runtime_ms:.6g}"))
    found += [Finding("W616", "", "code whose cost can be measured", problem) for problem in measured.problems]
    return tuple(found)


def same_device(claimed: str, ours: str) -> bool:
    """Whether a claim names our device: in full, or by its model, such as "RTX 4090"; not only by its kind, such as "CPU"."""
    words, known = _words(claimed), _words(ours)
    if not words:
        return False
    return words == known or (words < known and any(letter.isdigit() for word in words for letter in word))


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.casefold()))


def _below(claimed: float | None, value: float | None, share: float) -> bool:
    return (
        claimed is not None and value is not None and not math.isclose(claimed, value) and claimed < value * (1 - share)
    )


def _finding(code: str, name: str, expected: str, found: str) -> Finding:
    return Finding(code, f"{MANIFEST}: claims.{name}", expected, found)


def _at(figures: tuple[AtSize, ...], size: Size | None) -> float | None:
    return next((one.value for one in figures if one.at == size), None)


def _size(at: Size | None) -> str:
    return f" at {at[0]} x {at[1]}" if at else ""
