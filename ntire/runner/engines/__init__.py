"""Where work is done, behind one interface: processes of this machine (`local`), or the nodes of a Ray cluster (`ray`).

    with open_engine("local") as engine:
        for result in engine.run(tasks):
            ...

A task is a function and its arguments, named by the hash of all that can change what it makes. Results come in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ntire import UserError
from ntire.runner.engines.engine import Desk as Desk
from ntire.runner.engines.engine import Engine as Engine
from ntire.runner.engines.engine import State as State
from ntire.runner.engines.engine import Task as Task
from ntire.runner.engines.engine import TaskFile as TaskFile
from ntire.runner.engines.engine import TaskResult as TaskResult
from ntire.runner.engines.engine import Worker as Worker

EngineName = Literal["local", "ray"]


def open_engine(
    name: EngineName,
    *,
    address: str = "auto",
    workers: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Engine:
    """An engine by its name; nothing is prepared yet.

    `workers`: how many processes here, or on each node; by default one a GPU, or one for every four processors. `device` may be
    `cpu`, so that no GPU is used. Raises UserError if Ray is not installed or there is no cluster at `address`.
    """
    if name == "local":
        from ntire.runner.engines.local import Local

        return Local(workers, device, say)
    if name == "ray":
        from ntire.runner.engines.on_ray import OnRay

        return OnRay(address, workers, device, say)
    raise UserError(f"--engine {name}: expected local or ray.")
