"""The sandbox works wherever the project and its environment lie, also below folders that it covers with its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ntire
from ntire.sandbox.child import why_not

pytestmark = pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")

PROGRAM = """
import json, os, sys
from pathlib import Path
from ntire.sandbox.child import Child, Place, why_not
from ntire.sandbox.escape_attempts import ATTEMPTS
from ntire.sandbox.limits import Limits

assert sys.prefix == sys.argv[1], sys.prefix
assert not (why := why_not("bubblewrap")), why
code = Path(sys.argv[2])
with Child("bubblewrap", Place(code, code), Limits(), "ntire.sandbox.escape_attempts") as child:
    answer = child.ask({"secret": sys.argv[3], "process": os.getpid()}, 60)
    assert answer.state == "answered", answer.problem + child.printed
    assert answer.fields.keys() == ATTEMPTS.keys()
    print(json.dumps({name: one["how"] for name, one in answer.fields.items() if not one["stopped"]}))
"""


@pytest.fixture
def installed(tmp_path):
    """Make an environment with the part of ntire that a sandbox needs, in a folder that is removed afterwards."""
    made = []

    def make(parent: Path, name: str, python: str = sys.executable) -> Path:
        root = Path(tempfile.mkdtemp(prefix="ntire-place-", dir=parent))
        made.append(root)
        root.chmod(0o755)
        place = root / name
        subprocess.run([python, "-m", "venv", "--without-pip", place / "venv"], check=True)
        (place / "clone/ntire").mkdir(parents=True)
        (place / "clone/teams").mkdir()
        (place / "clone/submissions").mkdir()
        source = Path(ntire.__file__).parent
        for file in ("__init__.py", "text.py"):
            shutil.copy(source / file, place / "clone/ntire")
        shutil.copytree(source / "sandbox", place / "clone/ntire/sandbox")
        (place / "submission").mkdir()
        (place / "clone/secret").write_text("planted")
        return place

    yield make
    for root in made:
        shutil.rmtree(root)


def escapes(place: Path, *launcher: str) -> dict[str, str]:
    words = [
        *launcher,
        place / "venv/bin/python",
        "-c",
        PROGRAM,
        place / "venv",
        place / "submission",
        place / "clone/secret",
    ]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(place / "clone"), "HOME": "/"}
    ran = subprocess.run(words, capture_output=True, text=True, cwd="/", env=variables)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("parent", ["/tmp", "/dev/shm", "/srv", "/opt", "/home", "/var/tmp"])
def test_an_environment_and_a_clone_in_any_folder_have_the_whole_sandbox(installed, parent):
    if not os.access(parent, os.W_OK):
        pytest.skip(f"{parent} cannot be written")
    place = installed(Path(parent), "with spaces, ünïcode, 復元")
    assert escapes(place) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("parent", ["/tmp", "/home"])
def test_an_ordinary_user_has_it_there_too(installed, parent):
    user = ("setpriv", "--reuid=1500", "--regid=1500", "--clear-groups")
    for python in (sys.executable, "/usr/bin/python3"):
        # setpriv starts what the user may not even look at.
        code = "import os, sys; os.stat(sys.executable); assert sys.version_info > (3, 11)"
        if subprocess.run([*user, python, "-c", code], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no Python here that another user may run")
    home = installed(Path(parent), "with spaces, ünïcode, 復元", python)
    for path in (home, *home.rglob("*")):
        os.chown(path, 1500, 1500, follow_symlinks=False)
    home.chmod(0o700)
    assert escapes(home, *user) == {}


def test_what_does_not_belong_to_the_project_is_a_leak():
    """Outside of a sandbox there is always something beside Python and ntire, whatever it is called."""
    from ntire.sandbox import escape_attempts

    with pytest.raises(escape_attempts.Escaped, match="sees /"):
        escape_attempts.ATTEMPTS["files: folders of the host"](escape_attempts.Bait())
