"""Networks filled from weights files, strictly."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.checkpoints import contents, fitted
from ntire.method.checkpoints import read_state_dict as read_state_dict
from ntire.method.weights_files import Weights

LOG = logging.getLogger("ntire.weights")


@runtime_checkable
class TakesFile(Protocol):
    """A part of a method that reads its published file itself: other names than ours, or no tensors at all."""

    def take(self, path: Path, prefix: str) -> None:
        """Fill from the file; `prefix` is `Weights.prefix`. Raises UserError for a file that does not fit."""


def fill_from(part: nn.Module, weights: Weights, path: Path) -> tuple[str, ...]:
    """Fill the part of a method that `weights.into` names from its file; returns what was chosen in it.

    Raises UserError for one that does not fit.
    """
    if isinstance(part, TakesFile):
        part.take(path, weights.prefix)
        return ()
    return fill(part, read_state_dict(path, weights.prefix), path)


def fill(module: nn.Module, given_tensors: Mapping[str, Tensor], source: Path) -> tuple[str, ...]:
    """Copy tensors into `module`: the same names (see `fitted`), the same shapes, nothing missing, nothing left over.

    Values are converted to the module's own dtypes; a value that is the module's own already stays, whatever it is.
    Returns what was chosen in the file, if there was a choice, and logs it. Raises UserError that lists all differences at
    once, and what is there.
    """
    own = module.state_dict()
    state_dict = fitted(given_tensors, own)
    # The meta device holds names and shapes only.
    given = {
        name: value
        for name, value in state_dict.items()
        if not value.is_meta and (name not in own or value.data_ptr() != own[name].data_ptr())
    }
    kinds = (
        [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in state_dict],
        [f"unexpected {name} {tuple(state_dict[name].shape)}" for name in state_dict if name not in own],
        [
            f"{name}: expected {tuple(own[name].shape)}, found {tuple(state_dict[name].shape)}"
            for name in own
            if name in state_dict and own[name].shape != state_dict[name].shape
        ],
        [
            f"{name}: contains NaN or infinity"
            for name, value in given.items()
            if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ],
    )
    found = sum(map(len, kinds))
    if found:
        shown = [
            line for kind in kinds for line in [*kind[:8], *([f"and {len(kind) - 8} more"] if len(kind) > 8 else [])]
        ]
        raise UserError(
            f"{source}: these are not the weights of this {type(module).__name__}, {found} difference(s):\n  "
            + "\n  ".join(shown)
            + f"\nThe file holds {contents(dict(given_tensors))}."
            + "".join(f"\nOf it: {note}." for note in state_dict.notes)
            + "\nUse the file that belongs to this team, track and variant."
        )
    module.load_state_dict(dict(state_dict), strict=True)
    for note in state_dict.notes:
        LOG.warning("%s: %s", source, note)
    return state_dict.notes
