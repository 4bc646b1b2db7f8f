"""What the tests share: pictures made on the spot, a home of their own, and the way through the command line."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.made import scene, write_png

# An example takes as long as the machine is busy: how long says nothing about the code.
hypothesis.settings.register_profile("ntire", deadline=None)
hypothesis.settings.load_profile("ntire")

# PyTorch's and pyiqa's caches are fixed when they are imported, so all tests of a process share one, which is not the user's.
os.environ["TORCH_HOME"] = tempfile.mkdtemp(prefix="ntire-tests-")
atexit.register(shutil.rmtree, os.environ["TORCH_HOME"], ignore_errors=True)

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("NTIRE_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Real pictures and raw frames, which are not part of the project."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the user's caches, data or working directory."""
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.delenv("NTIRE_WEIGHTS", raising=False)
    monkeypatch.delenv("NTIRE_DATA", raising=False)
    # The plugins of the tests are our own; tests of a stranger's folder take this back.
    monkeypatch.setenv("NTIRE_TRUST", "1")
    monkeypatch.chdir(work)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _skip_what_is_not_here(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("data") and not DATA.is_dir():
        pytest.skip(f"real test data is not in {DATA}; set NTIRE_TEST_DATA")
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def data() -> Path:
    return DATA


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three small PNGs, one of them in a folder below."""
    folder = tmp_path / "pictures"
    for number, name in enumerate(("a", "b", "below/c")):
        write_png(folder / f"{name}.png", scene(seed=number))
    return folder


PLUGIN = '''
"""A plugin for tests: adds `self.plus` to every value; what it does per picture can be made to go wrong."""
import time
from pathlib import Path
import torch
from ntire.method import Method

class Plus(Method):
    team = "Plus"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 0
    stride = 1

    def __init__(self):
        super().__init__()
        self.calls = Path(__file__).with_name("calls.log")

    def forward(self, lq):
        if lq.is_meta:  # the runner plans its memory
            return lq + 1
        BODY
        with self.calls.open("a") as file:
            file.write("call\\n")
        return lq + 0.05
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], Path]:
    """Make a folder with a method.py; the argument is a line of Python at the start of its forward."""

    def make(body: str = "pass", name: str = "plus") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "method.py").write_text(PLUGIN.replace("BODY", body))
        return folder

    return make


@dataclass
class Ran:
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


@pytest.fixture
def ntire(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a command in this process, as the installed program would."""
    from ntire.cli import main

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ntire", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        printed = capsys.readouterr()
        code = exit_info.value.code
        assert isinstance(code, int)
        assert "Traceback" not in printed.err, printed.err
        return Ran(code, printed.out, printed.err)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for a few pictures."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
