"""What is built from a checkout works without it, says its licences, and is checked with the versions that are pinned."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import hypothesis
import pytest

from ntire.method.catalogue import methods
from tests.conftest import ROOT
from tests.made import scene, write_png

BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
CARDS = sorted((ROOT / "teams").glob("*/weights/*.toml"))


def copied_by_dockerfile() -> list[str]:
    """The names that the image is built from, which are all that packaging may need."""
    lines = re.findall(r"^COPY (.+) /src/\S*$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()]


def build(kind: str, source: Path, into: Path) -> Path:
    into.mkdir(exist_ok=True)
    words = [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{kind}", into]
    ran = subprocess.run(words, cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Of the source distribution of a checkout, or of the folder that a source distribution was unpacked to."""
    work = tmp_path_factory.mktemp("built")
    checkout = work / "checkout"
    checkout.mkdir()
    for name in copied_by_dockerfile():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, checkout)
    with tarfile.open(build("sdist", checkout, work / "sdist")) as packed:
        packed.extractall(work / "unpacked", filter="data")
    (source,) = (work / "unpacked").iterdir()
    return build("wheel", source, work / "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("target")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    ran = subprocess.run([*words, "--target", target, wheel], capture_output=True, text=True)
    if "No module named pip" in ran.stderr:
        pytest.skip("this environment has no pip")
    assert ran.returncode == 0, ran.stderr
    return target


def test_the_wheel_holds_one_package_and_all_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ntire"}
    for folder, patterns in {"teams": ("*.py", "*.bib", "*/weights/*"), "scoring": ("*.py", "*.toml", "*.csv")}.items():
        ours = {path for pattern in patterns for path in (ROOT / folder).rglob(pattern) if path.is_file()}
        assert {f"ntire/{path.relative_to(ROOT)}" for path in ours} <= set(names)
    assert "ntire/py.typed" in names
    assert not [name for name in names if name.startswith("test") or "/test" in name]


def test_the_licence_says_that_weights_have_other_terms_than_the_code(wheel):
    with zipfile.ZipFile(wheel) as packed:
        (metadata,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        facts = Parser().parsestr(packed.read(metadata).decode())
    assert facts["License-Expression"] == "Apache-2.0 AND LicenseRef-BSDS500-research-and-education-only"
    folders = sorted({card.parent.relative_to(ROOT) for card in CARDS})
    assert set(facts.get_all("License-File")) == {"LICENSE", *(f"ntire/{folder}/LICENSE" for folder in folders)}
    for folder in folders:
        named = re.findall(r"^  - (\S+)$", (ROOT / folder / "LICENSE").read_text(), re.MULTILINE)
        assert named == sorted(path.name for path in (ROOT / folder).glob("*.safetensors"))


def test_every_shipped_file_has_the_terms_of_the_licence_beside_it():
    shipped = {(tomllib.loads(card.read_text())["team"], card.stem) for card in CARDS}
    declared = {
        (method.team, Path(one.file).stem): one.license
        for method in methods()
        for one in method.weights
        if not one.urls
    }
    assert {declared[one] for one in shipped} == {
        "research and education only, as the BSDS500 pictures it is trained on"
    }


def test_the_installed_wheel_works_from_another_folder(installed, tmp_path):
    """Also where packages called `teams` and `scoring`, as they are on PyPI, are installed beside it."""
    for name in ("teams", "scoring"):
        (installed / name).mkdir(exist_ok=True)
        (installed / name / "__init__.py").write_text("theirs = True\n")
    work = tmp_path / "elsewhere"
    write_png(work / "in" / "a.png", scene(24, 24))
    variables = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*words: object) -> str:
        ran = subprocess.run(
            [sys.executable, *map(str, words)], cwd=work, env=variables, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    ntire = installed / "bin" / "ntire"
    assert run("-c", "import ntire, teams; print(ntire.__file__, teams.theirs)").split() == [
        str(installed / "ntire" / "__init__.py"),
        "True",
    ]
    assert run(ntire, "--version").startswith("ntire ")
    assert "raim-2025-raw" in run("-m", "ntire", "tracks")
    run(ntire, "run", "--team", "NulltoZero", "--track", "srgb", "in", "-o", "out", "--device", "cpu")
    assert [path.name for path in (work / "out/images").iterdir()] == ["a.png"]


def test_commits_are_checked_with_the_versions_that_are_pinned():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert (
        re.search(r"ruff-pre-commit\n +rev: v(\S+)", hooks)[1] == pinned["ruff"] == importlib.metadata.version("ruff")
    )
    # mypy is that of the environment, which `make setup` installs by the same file.
    assert "entry: .venv/bin/mypy" in hooks
    assert pinned["mypy"] == importlib.metadata.version("mypy")


def test_continuous_integration_runs_make_test_on_every_supported_python():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert supported == ">=3.11,<3.14"
    assert 'python: ["3.11", "3.12", "3.13"]' in workflow
    assert 'make -C "$FOLDER" test' in workflow


def test_no_test_fails_because_the_machine_is_busy():
    assert hypothesis.settings().deadline is None
