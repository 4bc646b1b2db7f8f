"""What a stage that runs a released program promises: one picture through its command, and messages that say what to do."""

import sys

import pytest
import torch

from ntire import UserError
from teams.parts.released_program import STABLE_SR_TURBO, Program, ReleasedProgram, locate

INVERT = """
import sys
from pathlib import Path
from PIL import Image, ImageOps
given, result, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
picture = Image.open(given / "picture.png")
if times == 13:
    raise SystemExit("thirteen is too many")
for _ in range(times):
    picture = ImageOps.invert(picture)
picture.resize((picture.width * 2, picture.height * 2), Image.NEAREST).save(result / "picture_0.png")
"""
PROGRAM = Program(
    name="Inverter",
    code="https://example.org/inverter",
    license="MIT",
    needs=("invert.py", "weights.ckpt"),
    advice="Put weights.ckpt into it.",
    command=("invert.py", "{input}", "{output}", "{times}"),
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "programs" / "Inverter"
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "invert.py").write_text(INVERT)
    (folder / "weights.ckpt").touch()
    monkeypatch.setenv("NTIRE_PROGRAMS", str(folder.parent))
    return folder


def test_a_picture_goes_through_the_program_in_its_folder(installed):
    picture = torch.randint(0, 256, (2, 3, 5, 7)).float() / 255
    once = ReleasedProgram(PROGRAM)(picture, times=1)
    assert torch.allclose(once, 1 - picture.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)


def test_what_the_program_says_when_it_fails_reaches_the_user(installed):
    with pytest.raises(UserError, match="(?s)expected one PNG, found 0; it ended with 1:.*thirteen is too many"):
        ReleasedProgram(PROGRAM)(torch.rand(1, 3, 4, 4), times=13)


def test_all_that_is_missing_is_named_at_once_with_where_it_comes_from(installed, monkeypatch):
    (installed / "weights.ckpt").unlink()
    (installed / ".venv" / "bin" / "python").unlink()
    with pytest.raises(UserError) as error:
        locate(PROGRAM)
    for part in ("weights.ckpt: no such file", "no environment of its own", PROGRAM.code, "MIT", PROGRAM.advice):
        assert part in str(error.value)
    assert error.value.exit_code == 3
    monkeypatch.setenv("NTIRE_PROGRAMS", str(installed.parent / "elsewhere"))
    with pytest.raises(UserError, match="no such folder"):
        locate(PROGRAM)
    monkeypatch.delenv("NTIRE_PROGRAMS")
    with pytest.raises(UserError, match="NTIRE_PROGRAMS is not set"):
        ReleasedProgram(PROGRAM)(torch.rand(1, 3, 4, 4), times=1)


def test_on_the_meta_device_nothing_runs():
    picture = torch.empty(1, 3, 8, 8, device="meta")
    assert ReleasedProgram(PROGRAM)(picture, times=1).shape == picture.shape


def test_the_commands_of_the_known_programs_take_the_options_that_they_name():
    for program, options in ((STABLE_SR_TURBO, {"steps": 4, "decoder": 0.5, "seed": 42}),):
        words = [word.format(input="in", output="out", **options) for word in program.command]
        assert all(str(value) in words for value in options.values())
        assert {"in", "out"} <= set(words)
