"""What a method is: the contract, its recipe, its weights, where methods are found and what they cost."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntire.method.contract import DTYPES, MIRRORED, Frame, Method, Precision, as_floats
    from ntire.method.facts import Cost, Unpublished
    from ntire.method.weights_files import Weights

__all__ = ["DTYPES", "MIRRORED", "Cost", "Frame", "Method", "Precision", "Unpublished", "Weights", "as_floats"]

_LIGHT = {"Cost": "facts", "Unpublished": "facts", "Weights": "weights_files"}
"""What is declared without PyTorch."""


def __getattr__(name: str) -> Any:
    """What a method's file imports, when it does: reading what a release knows of its methods needs no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ntire.method.{_LIGHT.get(name, 'contract')}"), name)
