"""Lists of the names and shapes of published tensors, and checkpoints under those names: of shapes only, or small."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

LISTS = Path(__file__).with_name("state_dicts")


def listed_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The list `name` that is kept with the tests: names as they stand in the published file."""
    rows = [line.split("\t") for line in (LISTS / f"{name}.tsv").read_text().splitlines() if not line.startswith("#")]
    return {row[0]: tuple(map(int, row[1].split("x"))) if row[1] else () for row in rows}


def beginning_with(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The part of a list whose names begin with `prefix`, which is cut off."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def under_published_names(
    own: Mapping[str, Tensor],
    published: Mapping[str, tuple[int, ...]],
    to_ours: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """A small copy's tensors under the names that full-size ones are published with; matrices become convolutions again."""
    renamed = {}
    for name, shape in published.items():
        (ours,) = to_ours({name: torch.empty(shape, device="meta")})
        value = own[ours].detach().clone()
        renamed[name] = value[:, :, None, None] if value.ndim == 2 and len(shape) == 4 else value
    return renamed
