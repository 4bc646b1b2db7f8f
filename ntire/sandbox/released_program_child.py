"""Inside the sandbox: starts a released program for one picture, and hands the one PNG that it writes to the other side.

Requests are JSON lines on standard input, answers JSON lines on standard output, the second followed by the bytes of that PNG.
Only the standard library is used: the program has an environment of its own.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ntire.sandbox.limits import Limits, apply_rlimits


def main() -> None:
    """Serve until the other side hangs up."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the program prints is for the user to read, not for the other side to believe.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in requests:
        reply, made = _answer(json.loads(line))
        answers.write(json.dumps(reply).encode() + b"\n" + made)
        answers.flush()


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    if request["op"] == "begin":
        apply_rlimits(Limits(**request["limits"]), gpu=request["device"] != "cpu", alone=request["sandboxed"])
        return {"status": "ready"}, b""
    home = {"HOME": request["home"]} if request["home"] else {}
    try:
        ran = subprocess.run(request["argv"], cwd=request["folder"], env=os.environ | home, check=False)
    except OSError as error:
        return {"code": 127, "written": 0, "problem": str(error)}, b""
    written = sorted(path for path in Path(request["out"]).rglob("*.png") if path.is_file())
    made = written[0].read_bytes() if len(written) == 1 else b""
    return {"code": ran.returncode, "written": len(written), "bytes": len(made)}, made
