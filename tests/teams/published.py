"""Lists of the names and shapes of published tensors, and checkpoints under those names: of shapes only, or small."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LISTS = Path(__file__).with_name("state_dicts")


def listed_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The list `name` that is kept with the tests: names as they stand in the published file."""
    return _shapes_in(LISTS / f"{name}.tsv")


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


def open_clip_names(tower: nn.Module, last: int = 1) -> dict[str, Tensor]:
    """One of transformers' text towers as OpenCLIP names it, with so many more blocks at its end than it has."""
    own = {name.removeprefix("text_model."): value for name, value in tower.state_dict().items()}
    state = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
        "text_projection": own["text_projection.weight"].T if "text_projection.weight" in own else torch.rand(3, 3),
        "logit_scale": torch.tensor(1.0),
    }
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    layers = 1 + max(int(name.split(".")[2]) for name in own if name.startswith("encoder.layers."))
    for layer in range(layers + last):
        here, there = f"encoder.layers.{min(layer, layers - 1)}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for ours, theirs in inner.items():
                state[f"{there}.{theirs}.{kind}"] = own[f"{here}.{ours}.{kind}"]
            state[f"{there}.attn.out_proj.{kind}"] = own[f"{here}.self_attn.out_proj.{kind}"]
            parts = [own[f"{here}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            state[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: value.clone() for name, value in state.items()}


class OpenClipBlock(nn.Module):
    """A block as OpenCLIP builds it on PyTorch's own attention, and as OpenAI did with another activation."""

    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor] = F.gelu) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, width * 4), "c_proj": nn.Linear(width * 4, width)})
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        inner = self.ln_1(x)
        x = x + self.attn(inner, inner, inner, attn_mask=mask, need_weights=False)[0]
        added: Tensor = self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))
        return x + added


def _shapes_in(table: Path) -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in table.read_text().splitlines() if not line.startswith("#")]
    return {row[0]: tuple(map(int, row[1].split("x"))) if row[1] else () for row in rows}
