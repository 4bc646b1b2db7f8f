"""What the documents say is true: tables are the generated ones, examples run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ntire.entry.findings import markdown as codes
from ntire.entry.manifest import Manifest
from ntire.method import catalogue
from ntire.method.count import count
from ntire.method.method_table import markdown
from ntire.scoring.track import markdown as tracks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("name", "file"), [("methods", "docs/methods.md"), ("tracks", "scoring/tracks/README.md")])
def test_documents_show_the_generated_tables(name, file):
    """After a change: `ntire teams --markdown` and `ntire tracks --markdown` print them."""
    block = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", (ROOT / file).read_text(), re.DOTALL)
    assert block
    assert block[1] == (tracks() if name == "tracks" else markdown())


def test_the_format_shows_every_code_of_check():
    """After a change: `ntire.entry.findings.markdown` makes the table."""
    text = (ROOT / "submissions" / "README.md").read_text()
    block = re.search(r"<!-- codes -->\n(.*?)\n<!-- /codes -->", text, re.DOTALL)
    assert block
    assert block[1] == codes()


def test_the_readme_is_short_and_names_only_commands_that_exist():
    from ntire.cli import COMMANDS
    from ntire.commands.weights import weights_app

    assert len(README.splitlines()) < 150
    known = set(COMMANDS)
    named = set(re.findall(r"`?ntire ([a-z]+)", "\n".join(re.findall(r"`[^`]+`|^ntire .*$", README, re.MULTILINE))))
    assert named <= known
    assert {"list", "fetch", "verify"} == {command.name for command in weights_app.registered_commands}


def test_the_team_of_the_contributing_guide_works_as_it_stands(tmp_path):
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    source = re.search(r"```python\n(\"\"\"Example.*?)```", guide, re.DOTALL)
    assert source
    (tmp_path / "method.py").write_text(source[1])
    method = catalogue.load(tmp_path)
    counted = count(method, method.claimed.at)
    assert counted.params_m == pytest.approx(method.claimed.params_m, rel=0.01)
    assert counted.macs_g == pytest.approx(method.claimed.macs_g, rel=0.05)
    built = method()
    lq = torch.rand(3, 30, 40)
    with torch.no_grad():
        whole = built.in_tiles(lq)
        built.tile = 8
        assert torch.allclose(built.in_tiles(lq), whole, atol=1e-6)


def test_the_format_of_a_manifest_is_documented_key_by_key():
    text = (ROOT / "submissions" / "README.md").read_text()
    for key in Manifest.model_fields:
        assert f"`{key}`" in text or f"`[{key}]`" in text


def _workflows():
    text = (ROOT / "submissions" / "README.md").read_text()
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_the_workflows_are_yaml_with_the_steps_they_need():
    yaml = pytest.importorskip("yaml")
    github, gitlab = map(yaml.safe_load, _workflows())
    steps = github["jobs"]["verify"]["steps"]
    assert all({"uses", "run"} & set(step) for step in steps)
    commands = [step["run"] for step in steps if "run" in step]
    job = gitlab["verify"]
    for line in (commands, [*job["before_script"], *job["script"]]):
        assert any("install -y bubblewrap" in command for command in line)
        assert [command.split()[1] for command in line if command.startswith("ntire")] == ["check", "verify"]


def test_the_commands_in_the_format_and_its_workflows_are_understood():
    """Every `ntire ...` is parsed by the command itself, which would refuse an option that it does not know."""
    from typer.main import get_command

    from ntire.cli import app

    text = (ROOT / "submissions" / "README.md").read_text()
    blocks = re.findall(r"```(?:yaml)?\n(.*?)```", text, re.DOTALL)
    lines = re.findall(r"^(?:.*\brun: |\s*- |)ntire (.*?)(?:\s{2,}#.*)?$", "\n".join(blocks), re.MULTILINE)
    assert len(lines) >= 9
    group = get_command(app)
    for line in lines:
        name, *words = line.split()
        command = group.get_command(None, name)
        command.make_context(name, words)


def test_the_plans_in_the_cluster_page_are_what_the_command_prints():
    """After a change: run each command behind a `$` again, in a pipe, and paste what it prints."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    shown = re.findall(r"```\n\$ ntire (plan .*)\n((?:.*\n)*?)```", text)
    assert len(shown) == 2
    for words, printed in shown:
        ran = subprocess.run(
            [sys.executable, "-m", "ntire", *words.split()], capture_output=True, text=True, timeout=120
        )
        assert ran.stdout == printed, ran.stderr
