"""Pinned memory of the host, from which and to which a GPU copies by itself, within a bound in bytes.

PyTorch keeps each pinned block that it ever made, rounded up to a power of two: 64 MB for a picture of 38. Here pictures lie
side by side in a few slabs, and what one leaves the next one takes.
"""

import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNED = 512
"""Bytes."""


def _pin(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


class PinnedRing:
    """Memory for tensors, in all at most `budget` bytes, which `make` gets from the system as it is needed."""

    def __init__(self, budget: int, make: Callable[[int], Tensor] = _pin) -> None:
        self.budget, self._make = budget, make
        self._slabs: list[_Slab] = []
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """What it holds, used or not."""
        return sum(slab.size for slab in self._slabs)

    def take(self, like: Tensor) -> Tensor | None:
        """An empty tensor of the size, dtype and layout of another one, or None if there is no room for it now.

        Its memory is given back when it and all its views are gone; who copies in the background keeps it until then.
        """
        size = max(like.nbytes + -like.nbytes % ALIGNED, ALIGNED)
        with self._lock:
            lease = next((found for slab in self._slabs if (found := slab.lease(size)) is not None), None)
            if lease is None and (slab := self._another(size)) is not None:
                lease = slab.lease(size)
        if lease is None:
            return None
        flat = torch.from_numpy(lease)[: like.nbytes].view(like.dtype)
        return flat.as_strided(like.shape, torch.empty_like(like, device="meta").stride())

    def _another(self, size: int) -> "_Slab | None":
        """A further slab, with room for four such tensors if the budget has it: a power of two, as no other size is made."""
        left = self.budget - self.bytes
        most = 1 << (left.bit_length() - 1) if left > 0 else 0
        wanted = min(1 << (4 * size - 1).bit_length(), most)
        if wanted < size:
            return None
        try:
            slab = _Slab(self._make(wanted).numpy())
        except RuntimeError:
            return None  # the system has no more to pin: pictures go the slow way
        self._slabs.append(slab)
        return slab


class _Slab:
    """Memory in which leases lie side by side."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self.size = len(memory)
        self._free = [(0, self.size)]
        self._returned: deque[tuple[int, int]] = deque()
        """Leases that are over; whoever drops the last view of one may hold any lock, and so needs none here."""

    def lease(self, size: int) -> NDArray[np.uint8] | None:
        """The first free `size` bytes; they are free again when nobody refers to them any more."""
        self._take_back()
        for place, (start, stop) in enumerate(self._free):
            if stop - start >= size:
                self._free[place : place + 1] = [(start + size, stop)] if stop - start > size else []
                lease = self._memory[start : start + size]
                weakref.finalize(lease, self._returned.append, (start, start + size)).atexit = False
                return lease
        return None

    def _take_back(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free.sort()
        joined: list[tuple[int, int]] = []
        for start, stop in self._free:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
        self._free = joined
