"""The promises of `make reliability`, put to the test for a few seconds."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("reliability.py")


def test_promises_hold_for_a_few_seconds():
    words = [sys.executable, PROGRAM, "--minutes", "0.15", "--seed", "7", "--only", "archives", "--only", "kills"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("seed 7, 0.15 minute(s), as ")
    assert ran.stdout.endswith("all promises held\n")
    tried, escapes, tracebacks = map(
        int, re.search(r"tried (\d+), escapes (\d+), tracebacks (\d+)", ran.stdout).groups()
    )
    assert tried >= 40
    assert (escapes, tracebacks) == (0, 0)
    assert int(re.search(r"kills (\d+)", ran.stdout)[1]) > 0


def test_damage_is_noticed_and_two_writers_never_meet():
    words = [sys.executable, PROGRAM, "--minutes", "0.02", "--seed", "7", "--only", "damage", "--only", "writers"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line.split(" | ") for line in ran.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["|", "| damaged files", "| two writers at once"]
    attempts, stopped, *_, wrong, lost = rows[1][1:]
    assert int(attempts) == int(stopped) >= 60
    assert (wrong, lost) == ("0", "0 |")


def test_a_broken_promise_is_told_and_fails():
    """A reader of archives that writes beside them, and one that raises."""
    broken = """
import sys
sys.argv = ["reliability", "--minutes", "0.05", "--seed", "7", "--only", "archives"]
sys.path.insert(0, {folder!r})
import reliability
def check(archive, track, inputs_of):
    (archive.parent / "beside").write_text("x")
    raise RuntimeError("on purpose")
reliability.check = check
sys.exit(reliability.main())
"""
    program = broken.format(folder=str(PROGRAM.parent))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "BROKEN: written outside" in ran.stdout
    assert "RuntimeError: on purpose" in ran.stdout
