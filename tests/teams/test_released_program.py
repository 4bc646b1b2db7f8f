"""What a stage that runs a released program promises: one picture through its command, and messages that say what to do."""

import socket
import sys
from dataclasses import replace

import pytest
import torch

from ntire import UserError
from ntire.sandbox.child import why_not
from ntire.teams.parts import released_program
from ntire.teams.parts.released_program import (
    SANDBOX,
    Program,
    ReleasedProgram,
    locate,
    require_programs,
)

sandboxed = pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")

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
    if why_not("bubblewrap"):
        monkeypatch.setenv(SANDBOX, "none")
    return folder


@pytest.mark.parametrize("wall", [pytest.param("bubblewrap", marks=sandboxed), "none"])
def test_a_picture_goes_through_the_program_in_its_folder(installed, monkeypatch, wall):
    monkeypatch.setenv(SANDBOX, wall)
    picture = torch.randint(0, 256, (2, 3, 5, 7)).float() / 255
    once = ReleasedProgram(PROGRAM)(picture, times=1)
    assert torch.allclose(once, 1 - picture.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)


def test_what_the_program_says_when_it_fails_reaches_the_user(installed):
    with pytest.raises(UserError, match="(?s)expected one PNG, found 0; it ended with 1:.*thirteen is too many"):
        ReleasedProgram(PROGRAM)(torch.rand(1, 3, 4, 4), times=13)


TELL = """
import socket, sys
from pathlib import Path
from PIL import Image
folder, secret = Path.cwd(), Path(sys.argv[3])
def tried(act):
    try:
        act()
    except OSError:
        return 0
    return 255
found = [
    tried(lambda: (folder / "invert.py").write_text("")),
    tried(secret.read_bytes),
    tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[4])), 2)),
    tried((folder / "weights.ckpt").read_bytes),
    tried((Path.home() / "model.bin").read_bytes),
    tried(lambda: (Path("/tmp") / "cache").write_text("")),
]
picture = Image.new("RGB", (len(found), 1))
picture.putdata([(one, one, one) for one in found])
picture.save(Path(sys.argv[2]) / "told.png")
"""


@sandboxed
def test_a_program_reads_its_own_files_and_home_and_reaches_nothing_else(installed, tmp_path):
    weights, secret = tmp_path / "elsewhere" / "weights.ckpt", tmp_path / "programs" / "secret"
    for path in (weights, secret, installed / ".home" / "model.bin"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (installed / "weights.ckpt").unlink()
    (installed / "weights.ckpt").symlink_to(weights)
    (installed / "invert.py").write_text(TELL)
    program = replace(PROGRAM, command=("invert.py", "{input}", "{output}", "{secret}", "{port}"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"secret": str(secret), "port": server.getsockname()[1]}
        told = ReleasedProgram(program)(torch.rand(1, 3, 4, 4), **options)
    own_code, others, network, weights_read, home, scratch = told[0, 0, 0].bool().tolist()
    assert (own_code, others, network) == (False, False, False)
    assert (weights_read, home, scratch) == (True, True, True)


@sandboxed
def test_a_program_that_takes_too_long_is_ended(installed):
    (installed / "invert.py").write_text("import time; time.sleep(60)")
    with pytest.raises(UserError, match="no answer within 0.6 s"):
        ReleasedProgram(replace(PROGRAM, minutes=0.01))(torch.rand(1, 3, 4, 4), times=1)


def test_without_a_sandbox_nothing_runs_unless_the_user_says_so(installed, monkeypatch):
    monkeypatch.setattr(released_program, "why_not", lambda backend: "bwrap is not installed")
    monkeypatch.delenv(SANDBOX, raising=False)
    with pytest.raises(
        UserError, match="(?s)bwrap is not installed.*apt-get install bubblewrap.*NTIRE_SANDBOX=none"
    ) as error:
        require_programs([PROGRAM])
    assert error.value.exit_code == 3
    monkeypatch.setenv(SANDBOX, "docker")
    with pytest.raises(UserError, match="NTIRE_SANDBOX=docker: expected bubblewrap or none"):
        ReleasedProgram(PROGRAM)(torch.rand(1, 3, 4, 4), times=1)
    monkeypatch.setenv(SANDBOX, "none")
    require_programs([PROGRAM])


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
