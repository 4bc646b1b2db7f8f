"""Lists of the names and shapes of published tensors, and small checkpoints under those names."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from teams.parts.clip_text import TextTower


def published_shapes(data: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The list `name`, or a skip where there is none."""
    table = data.parent / "golden" / "state_dicts" / f"{name}.tsv"
    if not table.is_file():
        pytest.skip(f"the names of the published tensors are not in {table}")
    return _rows(table)


def listed_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The list `name` of those that the tests come with."""
    return _rows(Path(__file__).with_name("state_dicts") / f"{name}.tsv")


def _rows(table: Path) -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in table.read_text().splitlines() if not line.startswith("#")]
    return {row[0]: tuple(map(int, row[1].split("x"))) if row[1] else () for row in rows}


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


def open_clip_names(text: TextTower, last: int = 1) -> dict[str, Tensor]:
    """The text tower as OpenCLIP names it, with a last block that Stable Diffusion does not use."""
    own = text.transformer.state_dict()
    state = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
        "text_projection": torch.rand(3, 3),
        "logit_scale": torch.tensor(1.0),
    }
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    layers = text.transformer.config.num_hidden_layers
    for layer in range(layers + last):
        here, there = f"encoder.layers.{min(layer, layers - 1)}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for ours, theirs in inner.items():
                state[f"{there}.{theirs}.{kind}"] = own[f"{here}.{ours}.{kind}"]
            state[f"{there}.attn.out_proj.{kind}"] = own[f"{here}.self_attn.out_proj.{kind}"]
            parts = [own[f"{here}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            state[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: value.clone() for name, value in state.items()}
