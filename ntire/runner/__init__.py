"""From inputs to PNGs: a method made ready, fed, bounded in memory, and its results written."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """What `ntire.runner` offered when it was one module."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("ntire.runner.runner"), name)
