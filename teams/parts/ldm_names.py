"""Names of Stable Diffusion's tensors, XL's too, in the files of its authors (LDM), and in diffusers.

Both tell the same network: LDM numbers its blocks in a row, diffusers by level.
"""

import re
from collections.abc import Mapping

from torch import Tensor

PER_LEVEL = 2
"""Residual blocks of a level on the way down; one more on the way up."""
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
VAE_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called them at first: its files from then are still there."""


def unet_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An LDM UNet, or a network of its blocks, under diffusers' names; unknown names stay as they are."""
    return {_unet_name(name): value for name, value in state.items()}


def vae_names(state: Mapping[str, Tensor], levels: int = 4) -> dict[str, Tensor]:
    """A VAE in LDM's names, or in those that diffusers had at first, under its names of today.

    The attention's 1 x 1 convolutions become matrices.
    """
    named = {}
    for name, value in state.items():
        new = _vae_name(name, levels)
        named[new] = value[:, :, 0, 0] if ".to_" in new and value.ndim == 4 else value
    return named


def _unet_name(name: str) -> str:
    body, _, kind = name.rpartition(".")
    for old, new in UNET_ENDS.items():
        if body == old or body.startswith(f"{old}."):
            return f"{_residual(body.replace(old, new, 1))}.{kind}"
    if found := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", body):
        way, number, place, inner = found[1], int(found[2]), int(found[3]), found[4]
        if way == "input":
            level, block = divmod(number - 1, PER_LEVEL + 1)
            part = "downsamplers.0" if inner == "op" else f"{('resnets', 'attentions')[place]}.{block}"
            return f"{_residual(f'down_blocks.{level}.{part}.{inner}').replace('.op', '.conv')}.{kind}"
        level, block = divmod(number, PER_LEVEL + 1)
        part = "upsamplers.0" if inner == "conv" else f"{('resnets', 'attentions')[place]}.{block}"
        return f"{_residual(f'up_blocks.{level}.{part}.{inner}')}.{kind}"
    return f"{_residual(body)}.{kind}" if body else name


def _residual(body: str) -> str:
    for old, new in RESIDUAL.items():
        if body.endswith(f".{old}"):
            return body.removesuffix(old) + new
    return body


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"\bdown\.(\d)\.block\.", r"down_blocks.\1.resnets.", name)
    name = re.sub(r"\bdown\.(\d)\.downsample\.", r"down_blocks.\1.downsamplers.0.", name)
    # On the way up LDM counts from the full size, diffusers in the order of running.
    name = re.sub(r"\bup\.(\d)\.block\.", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.resnets.", name)
    name = re.sub(r"\bup\.(\d)\.upsample\.", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.upsamplers.0.", name)
    name = re.sub(r"\bmid\.block_(\d)\.", lambda m: f"mid_block.resnets.{int(m[1]) - 1}.", name)
    name = re.sub(r"\bmid\.attn_1\.(\w+)\.", lambda m: f"mid_block.attentions.0.{VAE_ATTENTION.get(m[1], m[1])}.", name)
    name = re.sub(r"\battentions\.0\.(\w+)\.", lambda m: f"attentions.0.{VAE_OLD.get(m[1], m[1])}.", name)
    return name.replace("nin_shortcut", "conv_shortcut").replace(".norm_out.", ".conv_norm_out.")
