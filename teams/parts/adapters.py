"""Several adapters on one network, mixed by weights: each layer gives base(x) + sum over k of s_k x adapter_k(x).

Low-rank adapters (Hu et al. 2022) are peft's; a layer that an adapter replaces as a whole has its own convolution a word.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ntire.method.state_dict import fill


class OwnConv(nn.Module):
    """A convolution with one more of its shape for each adapter, which starts at zero and is added to its result."""

    def __init__(self, width_in: int, width_out: int, kernel: int, bias: bool) -> None:
        super().__init__()
        # The name that peft gives to what it wraps: published weights of the plain network find it.
        self.base_layer = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=bias)
        self.own = nn.ModuleDict()
        self.shares: dict[str, float] = {}
        self._shape = (width_in, width_out, kernel, bias)

    def add(self, word: str) -> None:
        """Give the adapter `word` a convolution here."""
        width_in, width_out, kernel, bias = self._shape
        conv = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=bias)
        for parameter in conv.parameters():
            nn.init.zeros_(parameter)
        self.own[word] = conv

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        for word, share in self.shares.items():
            result = result + share * self.own[word](x)
        return result


def mix(network: nn.Module, weights: Mapping[str, float]) -> None:
    """From now on, `network` adds its adapters with these weights, and no others; what learns stays as it is.

    Raises ValueError without any weight.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not weights:
        raise ValueError("expected the weight of at least one adapter; a weight of 0 gives the base alone")
    learning = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            scaled: Any = layer  # set_scale is of the low-rank layers, and these are all
            scaled.set_adapter(list(weights))
            for word, weight in weights.items():
                scaled.set_scale(word, weight)
        elif isinstance(layer, OwnConv):
            layer.shares = dict(weights)
    # peft lets active adapters learn, and only those.
    for parameter, learns in learning:
        parameter.requires_grad_(learns)


def adapted(network: Any, rank: int, layers: tuple[str, ...], name: str = "default", alpha: int | None = None) -> Any:
    """The network, with a low-rank adapter on its layers of these names; the scale is alpha / rank, 1 if not given."""
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=list(layers))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are the point
        network.add_adapter(config, adapter_name=name)
    return network


def fill_plain(
    network: nn.Module, state: Mapping[str, Tensor], source: Path, added: tuple[str, ...] = (".lora_",)
) -> None:
    """Fill a network that peft has wrapped from the plain network's tensors; those whose names contain one of `added` stay.

    Raises UserError for another network's.
    """
    own = network.state_dict()
    kept = {name: value for name, value in own.items() if any(mark in name for mark in added)}
    inner = {name.replace(".base_layer", ""): name for name in own if name not in kept}
    fill(network, {inner.get(name, name): value for name, value in state.items()} | kept, source)
