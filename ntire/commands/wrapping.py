"""A model of an efficiency challenge's repository, `models/teamXX_NAME.py` with its .pth, as a method's folder."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from ntire import UserError

METHOD = '''"""{name}: a model of an efficiency challenge's repository, as its test program calls it."""

from torch import Tensor
from {module} import {name} as Model

from ntire.method import Method
from ntire.method.weights_files import Weights

DATA_RANGE = {data_range}  # what the model takes white for


class {name}(Method):
    """`forward` is the model and nothing else: (B, 3, H, W) in [0, 1], the result {scale} times as large."""

    team = {team}
    track = "esr"
    scale = {scale}
    weights = (Weights({weights}, sha256="{sha256}", into="net"),)  # read as tensors alone, never as a program
    tiling = "method"  # whole pictures; "exact" with halo and stride, if no output pixel depends on far ones
    halo = 0
    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.net = Model()

    def forward(self, lq: Tensor) -> Tensor:
        restored: Tensor = self.net(lq * DATA_RANGE) / DATA_RANGE
        return restored
'''


def wrapped_model(
    model: Path, weights: Path, *, name: str | None, team: str | None, scale: int, data_range: float
) -> dict[str, str | bytes]:
    """The files of a folder that runs a challenge's model: `method.py`, the model's file as it is, its weights.

    `name` is its class, by default what follows `teamXX_` in the file's name. The model's code is read, not run. Raises
    UserError with all that is wrong: files that are missing, a module that Python cannot import by that name, no such class.
    """
    from ntire.files import sha256_of
    from ntire.text import nearest

    problems = [f"{path}: expected a file, found none" for path in (model, weights) if not path.is_file()]
    if model.suffix != ".py" or not model.stem.isidentifier():
        problems.append(f"{model}: expected a module such as models/team00_NAME.py. Rename it.")
    if data_range <= 0:
        problems.append(f"--data-range {data_range:g}: expected what the model takes white for, 1 or 255")
    if problems:
        raise UserError("\n".join(problems))
    code = model.read_bytes()
    try:
        classes = [one.name for one in ast.parse(code).body if isinstance(one, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{model}: expected a Python module, found one that cannot be parsed: {error}") from None
    wanted = name or model.stem.partition("_")[2] or model.stem
    if wanted not in classes:
        raise UserError(
            f"{model}: expected a class {wanted}, found {', '.join(classes) or 'none'}. "
            f"Name the model's with --model-class.{nearest([wanted], classes)}"
        )
    method = METHOD.format(
        name=wanted, module=model.stem, team=json.dumps(team or wanted, ensure_ascii=False), scale=scale,
        data_range=float(data_range), weights=json.dumps(weights.name, ensure_ascii=False), sha256=sha256_of(weights),
    )  # fmt: skip
    return {"method.py": method, model.name: code, f"weights/{weights.name}": weights.read_bytes()}
