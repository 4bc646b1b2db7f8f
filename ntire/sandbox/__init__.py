"""Somebody else's code, run where it can reach nothing but what it needs."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """What `ntire.sandbox` offered when it was one module."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("ntire.sandbox.child"), name)
