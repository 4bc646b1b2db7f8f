"""Every submitted folder has its own modules, and ntire has its own, whatever they are called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ntire import UserError
from ntire.method import catalogue
from ntire.runner.prepare import code_sha256, sha256_of_folder

HEAD = """
from ntire.method import Method

class Mine(Method):
    team, track, cite, tiling, halo, stride = "Mine", "srgb", "x", "exact", 0, 1
    def forward(self, lq):
        {body}
"""


def method(folder: Path, body: str, top: str = "", beside: dict[str, str] | None = None):
    """A loaded method, and modules beside it by their path without `.py`."""
    folder.mkdir(exist_ok=True)
    (folder / "method.py").write_text(top + HEAD.format(body=body))
    for name, source in (beside or {}).items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return catalogue.load(folder)


def value(loaded) -> float:
    return float(loaded()(torch.zeros(1, 3, 1, 1)).mean())


WAYS = {
    "from": ("from models import by", "return lq + by"),
    "import": ("import models, math", "return lq + models.by + math.floor(0.5)"),
    "as": ("import models as m", "return lq + m.by"),
    "star": ("from models import *", "return lq + by"),
    "relative": ("from .models import by", "return lq + by"),
    "lazy": ("", "import models; return lq + models.by"),
    "import_module": ("import importlib", "return lq + importlib.import_module('models').by"),
    "import_module by name": ("from importlib import import_module", "return lq + import_module(name='models').by"),
    "__import__": ("", "return lq + __import__('models').by"),
    "package": ("from parts.net import by", "return lq + by"),
    "package whole": ("import parts.net", "return lq + parts.net.by"),
    "package as": ("import parts.net as net", "return lq + net.by"),
    "package by import_module": ("import importlib", "return lq + importlib.import_module('parts.net').by"),
    "package by __import__": ("", "return lq + __import__('parts.net').net.by"),
    "package from": ("from parts import net", "return lq + net.by"),
    "package inside": ("import parts.deep.again", "return lq + parts.deep.again.by"),
}


@pytest.mark.parametrize("way", WAYS)
def test_two_methods_in_one_process_have_modules_of_the_same_names(tmp_path, way):
    top, body = WAYS[way]
    loaded = []
    for by in (1.0, 2.0):
        beside = {
            "models": "import utils\nby = utils.by",
            "utils": f"by = {by}",
            "parts/__init__": "",
            "parts/net": "from models import by",
            "parts/deep/__init__": "from ..net import by",
            "parts/deep/again": "from parts.net import by\nimport parts.deep\nassert parts.deep.by == by",
        }
        loaded.append(method(tmp_path / f"by {by:g}", body, top, beside))
    one, other = loaded
    assert [value(one), value(other), value(one)] == [1.0, 2.0, 1.0]
    assert not {"models", "utils", "parts"} & sys.modules.keys()
    assert not any(Path(entry).is_relative_to(tmp_path) for entry in sys.path)


@pytest.mark.parametrize(
    "name", ["teams", "scoring", "models", "utils", "ntire_x", "torch_utils", "method_parts", "timm"]
)
def test_a_module_beside_a_method_hides_none_of_ntire_s_nor_of_its_packages(tmp_path, name):
    loaded = method(tmp_path / "mine", "return lq + by", f"from {name} import by", {name: "by = 3.0"})
    assert value(loaded) == 3.0
    assert catalogue.find("MiAlgo", "raw").team == "MiAlgo"
    import timm

    assert hasattr(timm, "create_model")


def test_ntire_and_what_is_built_into_python_cannot_be_replaced(tmp_path):
    beside = {"ntire": "raise OSError", "sys": "raise OSError"}
    loaded = method(tmp_path / "mine", "return lq + math.pi", "import math, sys", beside)
    assert value(loaded) == pytest.approx(3.14159, abs=1e-4)


def test_names_of_the_first_release_are_ntire_s_though_a_package_of_that_name_is_installed(tmp_path, monkeypatch):
    (tmp_path / "installed/teams").mkdir(parents=True)
    (tmp_path / "installed/teams/__init__.py").write_text("theirs = 4.0")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    top = "from teams.parts.residual import ResBlock\nimport teams.parts.unet as unet\nimport teams"
    try:
        assert value(method(tmp_path / "mine", "return lq + teams.theirs", top)) == 4.0
    finally:
        sys.modules.pop("teams", None)
    own = {"teams/__init__": "", "teams/parts/residual": "class ResBlock: by = 5.0", "teams/parts/unet": ""}
    assert value(method(tmp_path / "second", "return lq + ResBlock.by", top, own)) == 5.0


def test_a_folder_without_init_gives_way_to_an_installed_package(tmp_path):
    beside = {"yaml/extra": "", "own/by": "by = 6.0"}
    loaded = method(tmp_path / "mine", "return lq + own.by.by", "import yaml, own.by", beside)
    assert value(loaded) == 6.0
    assert sys.modules[loaded.__module__].yaml.__name__ == "yaml"


def test_a_changed_module_is_read_again_and_a_failed_import_leaves_nothing(tmp_path):
    folder = tmp_path / "mine"
    with pytest.raises(UserError, match="models.py|does not import"):
        method(folder, "return lq", "import models", {"models": "raise RuntimeError('no')"})
    assert value(method(folder, "return lq + models.by", "import models", {"models": "by = 7.0"})) == 7.0
    before = code_sha256(catalogue.load(folder))
    assert value(method(folder, "return lq + models.by", "import models", {"models": "by = 8.0"})) == 8.0
    assert code_sha256(catalogue.load(folder)) != before, "what a folder's modules say is part of its code"


def test_all_that_the_code_of_a_folder_may_read_tells_its_runs_apart(tmp_path):
    folder = tmp_path / "mine"
    method(folder, "return lq", "")
    seen = [sha256_of_folder(folder)]
    for name in ("settings.json", "nets/wide.yaml", "undeclared.pth", "table.npy", "undeclared"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
        seen.append(sha256_of_folder(folder))
    (folder / "settings.json").write_text("other")
    seen.append(sha256_of_folder(folder))
    assert len({*seen}) == len(seen)
    for name in ("README.md", "runs/a/submission.toml", "runs/a/journal.jsonl", "runs/a.zip", "runs/a-results/scores.csv",
                 "before.png", ".git/index", "__pycache__/method.pyc", "train.log"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert sha256_of_folder(folder) == seen[-1]
    for name in ("m/submission.toml", "method-more.json"):  # a run whose name the module and its settings begin with
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    seen.append(sha256_of_folder(folder))
    for name in ("method.py", "method-more.json", "m/inside.py"):
        (folder / name).write_text(name)
        seen.append(sha256_of_folder(folder))
    assert len({*seen}) == len(seen)


def test_a_method_with_modules_of_its_own_can_be_compiled(tmp_path):
    body = "from models import net; return net(lq)"
    loaded = method(tmp_path / "mine", body, beside={"models": "def net(x): return x * 2 + 1"})
    whole = torch.compile(loaded(), backend="eager", fullgraph=True)
    assert float(whole(torch.ones(1, 3, 1, 1)).mean()) == 3.0


def test_an_error_names_the_line_of_the_file(tmp_path):
    import traceback

    loaded = method(
        tmp_path / "mine", "return models.net(lq)", "import models", {"models": "\n\ndef net(x):\n    1 / 0\n"}
    )
    with pytest.raises(ZeroDivisionError) as raised:
        value(loaded)
    last = traceback.extract_tb(raised.tb)[-1]
    assert (Path(last.filename).name, last.lineno, last.line) == ("models.py", 4, "1 / 0")


def test_the_working_directory_hides_nothing(tmp_path):
    """Folders and files of ours' and of common names where the program is started, by the script and by the module."""
    for name in ("teams", "scoring", "models", "utils", "cv2", "typer", "rich"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise OSError('imported from the working directory')")
    script = Path(sys.executable).with_name("ntire")
    for program in ([sys.executable, "-m", "ntire"], [script]):
        if Path(program[0]).exists():
            ran = subprocess.run(
                [*program, "tracks"], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ)
            )
            assert ran.returncode == 0, ran.stderr
            assert "raim-2025-raw" in ran.stdout
