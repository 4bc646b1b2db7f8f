"""Names of FLUX.1's tensors: those of its authors' program, as released, to those of diffusers."""

import re
from collections.abc import Mapping
from itertools import accumulate

from torch import Tensor

ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    **{
        f"{theirs}_in.{layer}_layer": f"time_text_embed.{ours}_embedder.linear_{number}"
        for theirs, ours in (("time", "timestep"), ("guidance", "guidance"), ("vector", "text"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
JOINED = {
    "img_attn.qkv": {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1},
    "txt_attn.qkv": {"attn.add_q_proj": 1, "attn.add_k_proj": 1, "attn.add_v_proj": 1},
    "linear1": {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1, "proj_mlp": 4},
}
"""Layers that the authors keep as one, and the widths of their parts in widths of the transformer."""


def flux_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A FLUX.1 transformer under diffusers' names; unknown names stay as they are."""
    named = {}
    for name, value in state.items():
        body, _, kind = name.rpartition(".")
        kind = "weight" if kind == "scale" else kind
        found = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", body)
        if body == "final_layer.adaLN_modulation.1":
            # The authors have the shift first, diffusers the scale.
            named[f"norm_out.linear.{kind}"] = value.roll(len(value) // 2, 0)
        elif body in ENDS:
            named[f"{ENDS[body]}.{kind}"] = value
        elif found is None:
            named[name] = value
        else:
            block = f"{'single_' if found[1] == 'single' else ''}transformer_blocks.{found[2]}"
            inner, layers = found[3], DOUBLE if found[1] == "double" else SINGLE
            if inner in JOINED:
                shares = JOINED[inner]
                width = len(value) // sum(shares.values())
                parts = value.tensor_split([width * end for end in accumulate(shares.values())][:-1])
                named |= {f"{block}.{ours}.{kind}": part for ours, part in zip(shares, parts, strict=True)}
            else:
                named[f"{block}.{layers[inner]}.{kind}" if inner in layers else name] = value
    return named
