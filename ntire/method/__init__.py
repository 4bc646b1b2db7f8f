"""What a method is: the contract, its recipe, its weights, where methods are found and what they cost."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntire.method.contract import DTYPES, Cost, Frame, Method, Precision, Unpublished, as_floats
    from ntire.method.weights_files import Weights

__all__ = ["DTYPES", "Cost", "Frame", "Method", "Precision", "Unpublished", "Weights", "as_floats"]


def __getattr__(name: str) -> Any:
    """What a method's file imports, when it does: reading what a release knows of its methods needs no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ntire.method import contract, weights_files

    return getattr(weights_files if name == "Weights" else contract, name)
