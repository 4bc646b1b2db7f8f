"""ntire: run, check, score and rank what teams submit to the NTIRE image-restoration challenges.

What stands in `__all__` is the public API; see docs/python.md. Importing ntire loads none of it.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntire.commands.measuring import cost
    from ntire.commands.pictures import load, restore
    from ntire.commands.restoring import run
    from ntire.commands.reviewing import check, verify
    from ntire.commands.routing import route
    from ntire.commands.scoring import leaderboard, score
    from ntire.method import Cost, Method, Weights

__version__ = "0.1.0"
__all__ = [
    "Cost", "Method", "UserError", "Weights", "__version__", "check", "cost", "leaderboard", "load", "restore", "route", "run",
    "score", "verify",
]  # fmt: skip

_PUBLIC = {
    "Cost": "method",
    "Method": "method",
    "Weights": "method",
    "check": "commands.reviewing",
    "cost": "commands.measuring",
    "leaderboard": "commands.scoring",
    "load": "commands.pictures",
    "restore": "commands.pictures",
    "route": "commands.routing",
    "run": "commands.restoring",
    "score": "commands.scoring",
    "verify": "commands.reviewing",
}
"""Where the public names are, which are imported when they are used. No module of ntire may have the name of one."""

_MOVED = {
    "archive": "entry.archive",
    "bench": "benchmark.protocol",
    "breakdown": "method.cost_breakdown",
    "catalogue": "method.catalogue",
    "counters": "method.counters",
    "degradations": "picture.degradations",
    "device": "runner.device_worker",
    "faces": "method.face_alignment",
    "facts": "method.method_table",
    "findings": "entry.findings",
    "image": "picture.image",
    "iqa": "method.pyiqa_networks",
    "journal": "entry.journal",
    "limits": "sandbox.limits",
    "pipeline": "runner.pipeline",
    "png": "picture.png",
    "prepare": "runner.prepare",
    "raw": "picture.raw",
    "samples": "picture.samples",
    "second_order": "picture.real_esrgan_degradation",
    "submission": "entry.manifest",
    "tiling": "picture.tiling",
    "weather": "picture.weather",
    "weights": "method.weights_files",
}
"""Modules of 0.1 that submitted code may import, and where they are now."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"ntire.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class UserError(Exception):
    """A mistake that the user can mend; printed without a traceback.

    The message names the thing, what was expected, what was found and what to do. `exit_code` is what the command
    returns: 2 for wrong usage, 3 where something of ours or of the machine is missing or broken.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _OldNames(MetaPathFinder, Loader):
    """Imports by the names of 0.1: `ntire.image`, `teams.parts.unet`, `scoring.metrics`. It is asked last, so that a package
    `teams` or `scoring` of the user's own, or of submitted code, is what those names mean where there is one.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top == "ntire" and rest in _MOVED:
            return ModuleSpec(fullname, self, origin=f"ntire.{_MOVED[rest]}")
        if top not in ("teams", "scoring"):
            return None
        if not rest:
            return ModuleSpec(fullname, self, is_package=True)  # an empty one: what is below it is asked for here
        ours = not getattr(sys.modules[top], "__path__", None)
        return ModuleSpec(fullname, self, origin=f"ntire.{fullname}") if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.origin is None:
            return None
        module = importlib.import_module(spec.origin)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None and module.__spec__.loader_state:
            module.__spec__ = module.__spec__.loader_state  # its own again: importing has just set the old name's


sys.meta_path.append(_OldNames())
