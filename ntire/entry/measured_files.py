"""What organisers have measured of an entry and kept beside its results: the JSON of `ntire bench` and of `ntire cost`.

`<entries>-results/<entry>/bench.json`: `ntire bench ... --json > bench.json`.
`<entries>-results/<entry>/cost.json`: `ntire cost ... --json > cost.json`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ntire import UserError
from ntire.files import read_regular

BENCH, COST = "bench.json", "cost.json"
MOST_BYTES = 1 << 24
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = tuple[int, int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Times(_Part):
    median_ms: Amount
    mean_ms: Amount


class _Esr(_Part):
    mean_ms: Amount


class _Bench(_Part):
    end_to_end: _Times
    esr: _Esr | None = None
    inputs: tuple[Size, ...] = ()


class _Cost(_Part):
    params: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)]
    at: Size
    peak_memory_mb: Amount | None = None


Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class MeasuredFigures:
    """MeasuredFigures by name, size and file."""

    found: tuple[tuple[str, Size | None, float, str], ...] = field(default=())

    def of(self, name: str, at: Size | None, runtime_at: Size | None) -> tuple[float, str] | None:
        """A figure and its file; parameters have no size."""
        wanted = {"params_m": None, "runtime_ms": runtime_at}.get(name, at)
        return next((one[2:] for one in self.found if one[:2] == (name, wanted)), None)


def figures_beside(folder: Path) -> MeasuredFigures:
    """The figures in a folder of results; none where there are no such files. Raises UserError for a file of another form."""
    found: list[tuple[str, Size | None, float, str]] = []
    cost = _read(folder / COST, _Cost)
    if cost is not None:
        found += [("params_m", None, cost.params / 1e6, COST), ("macs_g", cost.at, cost.macs / 1e9, COST)]
        if cost.peak_memory_mb is not None:
            found.append(("memory_mb", cost.at, cost.peak_memory_mb, COST))
    bench = _read(folder / BENCH, _Bench)
    if bench is not None:
        value = bench.esr.mean_ms if bench.esr else bench.end_to_end.median_ms
        sizes = set(bench.inputs)
        found.append(("runtime_ms", None, value, BENCH))
        found += [("runtime_ms", size, value, BENCH) for size in sizes if len(sizes) == 1]
    return MeasuredFigures(tuple(found))


def _read(path: Path, form: type[Form]) -> Form | None:
    try:
        given: Any = json.loads(read_regular(path, MOST_BYTES))
        return form.model_validate(given)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise UserError(
            f"{path}: expected the JSON of `ntire {path.stem}`, found otherwise: {why}. Write it again or take it away."
        ) from None
