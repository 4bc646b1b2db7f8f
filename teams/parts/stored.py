"""Tensors that authors publish as files of their own, such as the embedding of a prompt that never changes."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from ntire import UserError


class Stored(nn.Module):
    """One tensor of a known shape, zero until it is read."""

    value: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(shape))

    def take(self, path: Path, prefix: str) -> None:
        """A file with one tensor, saved by torch. Raises UserError for anything else."""
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{path}: expected a tensor saved by torch: {str(error).splitlines()[0]}") from None
        if not isinstance(found, Tensor) or found.shape != self.value.shape or not bool(torch.isfinite(found).all()):
            what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{path}: expected a finite tensor {tuple(self.value.shape)}, found {what}.")
        self.value.copy_(found)
