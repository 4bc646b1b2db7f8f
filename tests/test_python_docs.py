"""The examples of docs/python.md run, one after the other, as they stand there."""

import re
from pathlib import Path

import ntire

DOCUMENT = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_example_of_the_python_document_runs(capsys):
    examples = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert len(examples) >= 6
    names: dict[str, object] = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"docs/python.md, example {number + 1}", "exec"), names)
    assert "night" in capsys.readouterr().out


def test_the_document_names_every_public_function():
    functions = {name for name in ntire.__all__ if name[0].islower()}
    assert {name for name in functions if f"ntire.{name}(" in DOCUMENT} == functions
