"""Tensors that authors publish as files of their own, such as the embedding of a prompt that never changes."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError


class Stored(nn.Module):
    """One tensor of a known shape, zero until it is read; None stands for a length that its file decides."""

    value: Tensor

    def __init__(self, *shape: int | None) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("value", torch.zeros([1 if length is None else length for length in shape]))

    def take(self, path: Path, prefix: str) -> None:
        """A file with one tensor, saved by torch. Raises UserError for anything else."""
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{path}: expected a tensor saved by torch: {str(error).splitlines()[0]}") from None
        if not isinstance(found, Tensor) or not self._fits(found.shape) or not bool(torch.isfinite(found).all()):
            what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{path}: expected a finite tensor {self.shape}, found {what}.")
        self.value = found.to(self.value)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            wanted in (None, found) for wanted, found in zip(self.shape, shape, strict=True)
        )

    def _load_from_state_dict(self, state: Any, prefix: str, *others: Any) -> None:
        saved = state.get(f"{prefix}value")
        if saved is not None and self._fits(saved.shape):
            self.value = self.value.new_zeros(saved.shape)
        super()._load_from_state_dict(state, prefix, *others)
