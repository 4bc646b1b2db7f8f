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
    arriving: torch.cuda.Event | None = None
    """When its weights will be there, if nobody has waited for that yet."""

    def pin(self) -> None:
        """Keep its weights where a GPU can fetch them by itself, if there is such memory; else copies wait for each other."""
        try:
            moved = {id(value): _like(value, value.pin_memory()) for _, _, value in self.kept}
        except RuntimeError:
            return
        self.kept = [(place, name, moved[id(value)]) for place, name, value in self.kept]
        self.unload()

    def load(self, device: torch.device, up: torch.cuda.Stream | None) -> None:
        """Copy its weights to the device, on a stream of their own if there is one, where nobody waits for them yet."""
        if up is None:
            moved = {id(value): _like(value, value.to(device)) for _, _, value in self.kept}
        else:
            # The memory is the computing stream's, so that what other parts leave can be taken at once.
            moved = {id(value): _like(value, torch.empty_like(value, device=device)) for _, _, value in self.kept}
            up.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(up):
                for value in {id(one): one for _, _, one in self.kept}.values():
                    moved[id(value)].data.copy_(value.data, non_blocking=True)
                self.arriving = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self.arriving.record(up)
        for place, name, value in self.kept:
            place[name] = moved[id(value)]

    def wait(self, device: torch.device) -> None:
        """Let what the device computes from now on wait for its weights."""
        if self.arriving is not None:
            torch.cuda.current_stream(device).wait_event(self.arriving)
            self.arriving = None

    def unload(self) -> None:
        for place, name, value in self.kept:
            place[name] = value


@dataclass
class PartsInTurn:
    """Which parts are on the device, in the order in which they were last called.

    On a GPU the part that followed the last time is fetched while this one computes, if both have room.
    """

    device: torch.device
    limit: int
    """Bytes of weights."""
    up: torch.cuda.Stream | None = None
    """What weights are copied on; without, a part is loaded when it is called."""
    present: list[_Part] = field(default_factory=list)
    working: list[_Part] = field(default_factory=list)
    """Those in the middle of a call, which stay: a part may call another."""
    _lately: tuple[_Part | None, _Part | None] = (None, None)
    _follows: dict[tuple[_Part | None, _Part | None], _Part] = field(default_factory=dict)
    """What was called after two others."""

    def begin(self, part: _Part) -> None:
        """Bring a part to the device, after as many others have left as must.

        Raises UserError if those that work have no room for it.
        """
        if part in self.present:
            self.present.remove(part)
        else:
            if not self._make_room(part):
                names = " and ".join(one.name for one in (*self.working, part))
                raise UserError(f"--max-memory: {names} work at once and are more than that together. Allow more.")
            part.load(self.device, self.up)
        part.wait(self.device)
        self.present.append(part)
        self.working.append(part)
        self._follows[self._lately] = part
        self._lately = self._lately[1], part
        if self.up is not None:
            self._fetch_next()

    def _fetch_next(self) -> None:
        following = self._follows.get(self._lately)
        if following is None or following in self.present or not self._make_room(following):
            return
        following.load(self.device, self.up)
        self.present.append(following)

    def _make_room(self, part: _Part) -> bool:
        """Send parts away that do not work, those first that were called longest ago; none if that is not enough."""
        if sum(one.bytes for one in self.working) + part.bytes > self.limit:
            return False
        idle = [one for one in self.present if one not in self.working]
        while sum(one.bytes for one in self.present) + part.bytes > self.limit:
            self._send_away(idle.pop(0))
        return True

    def _send_away(self, part: _Part) -> None:
        # Its memory is free for what is computed next, which must not come before its copy is over.
        part.wait(self.device)
        self.present.remove(part)
        part.unload()

    @contextlib.contextmanager
    def making_room(self) -> Iterator[None]:
        """Take all parts off the device; each comes back when it is called."""
        for part in list(self.present):
            self._send_away(part)
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
    up = None
    if device.type == "cuda":
        up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        for part in parts:
            part.pin()
    turns = PartsInTurn(device, limit, up)
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
