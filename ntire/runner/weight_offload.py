"""Parts of a method take turns on the device: what is called is moved there, what was called longest ago makes room.

For pipelines of several large networks, of which one works at a time. Weights stay in main memory; on the device there is
at most what the limit allows.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method import DTYPES, Method, Precision

GIGABYTE = 1e9


@dataclass(eq=False)
class _Part:
    """One part and its tensors in main memory, each with the module and the name that it belongs to."""

    name: str
    module: nn.Module
    kept: list[tuple[dict[str, Any], str, Tensor]]
    bytes: int

    def load(self, device: torch.device) -> None:
        moved = {id(value): _like(value, value.to(device)) for _, _, value in self.kept}
        for place, name, value in self.kept:
            place[name] = moved[id(value)]

    def unload(self) -> None:
        for place, name, value in self.kept:
            place[name] = value


@dataclass
class PartsInTurn:
    """Which parts are on the device, in the order in which they were last called."""

    device: torch.device
    limit: int
    """Bytes of weights."""
    present: list[_Part] = field(default_factory=list)
    working: list[_Part] = field(default_factory=list)
    """Those in the middle of a call, which stay: a part may call another."""

    def begin(self, part: _Part) -> None:
        """Bring a part to the device, after as many others have left as must.

        Raises UserError if those that work have no room for it.
        """
        if part in self.present:
            self.present.remove(part)
        else:
            idle = [one for one in self.present if one not in self.working]
            while sum(one.bytes for one in self.present) + part.bytes > self.limit:
                if not idle:
                    names = " and ".join(one.name for one in (*self.working, part))
                    raise UserError(f"--max-memory: {names} work at once and are more than that together. Allow more.")
                self.present.remove(idle[0])
                idle.pop(0).unload()
            part.load(self.device)
        self.present.append(part)
        self.working.append(part)

    @contextlib.contextmanager
    def making_room(self) -> Iterator[None]:
        """Take all parts off the device; each comes back when it is called."""
        for part in self.present:
            part.unload()
        self.present.clear()
        yield

    def end(self, part: _Part) -> None:
        """A call of the part is over."""
        self.working.remove(part)


def take_turns(method: Method, device: torch.device, precision: Precision, limit_gb: float) -> PartsInTurn | None:
    """Let the direct parts of a method take turns on `device`, if together their weights exceed `limit_gb` 10^9 bytes.

    The method itself is converted to the precision and stays in main memory; parts are moved when they are called. Returns
    None where all fit at once, after moving them. Raises UserError that names every part that is too large alone, and for
    a method that is one part.
    """
    method.to(dtype=DTYPES[precision])
    parts = [_part_of(name, module) for name, module in method.named_children()]
    own = sum(_bytes(value) for value in (*method.parameters(recurse=False), *method.buffers(recurse=False)))
    limit = int(limit_gb * GIGABYTE) - own
    parts = [part for part in parts if part.bytes]
    if sum(part.bytes for part in parts) <= limit:
        method.to(device)
        method.execution.making_room = partial(_away, method, device)
        return None
    too_large = [f"  {part.name}: {part.bytes / GIGABYTE:.2f} GB" for part in parts if part.bytes > limit]
    if too_large:
        raise UserError(
            f"{method.team}: --max-memory {limit_gb:g} is less than these parts' weights need alone:\n"
            + "\n".join(too_large)
            + "\nAllow more, or halve them with --precision bf16."
        )
    turns = PartsInTurn(device, limit)
    for place, name, value in list(_slots(method, recurse=False)):
        place[name] = _like(value, value.to(device))
    for part in parts:
        part.module.register_forward_pre_hook(partial(_called, turns, part))
        part.module.register_forward_hook(partial(_returned, turns, part), always_call=True)
    method.execution.device = device
    method.execution.making_room = turns.making_room
    return turns


@contextlib.contextmanager
def _away(method: Method, device: torch.device) -> Iterator[None]:
    method.to("cpu")
    try:
        yield
    finally:
        method.to(device)


def _called(turns: PartsInTurn, part: _Part, module: nn.Module, inputs: Any) -> None:
    turns.begin(part)


def _returned(turns: PartsInTurn, part: _Part, module: nn.Module, inputs: Any, result: Any) -> None:
    if part in turns.working:
        turns.end(part)


def _part_of(name: str, module: nn.Module) -> _Part:
    kept = list(_slots(module, recurse=True))
    return _Part(name, module, kept, sum({id(value): _bytes(value) for _, _, value in kept}.values()))


def _slots(module: nn.Module, *, recurse: bool) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Where each tensor of a module is kept: the dictionary, its name there, the tensor."""
    for owner in module.modules() if recurse else [module]:
        for place in (owner._parameters, owner._buffers):
            for name, value in place.items():
                if value is not None:
                    yield place, name, value


def _like(old: Tensor, new: Tensor) -> Tensor:
    """`new` as a parameter where `old` is one."""
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
