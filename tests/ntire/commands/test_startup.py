"""What commands import before there is something to compute: counted in modules, as seconds depend on the machine."""

import json
import subprocess
import sys

import pytest

from ntire import cli
from ntire.commands import screen

HEAVY = (
    "cv2",
    "numpy",
    "pandas",
    "pyiqa",
    "rawpy",
    "scipy",
    "skimage",
    "spandrel",
    "torch",
    "torchvision",
    "transformers",
)
CALLS = {
    "--help": 0,
    "--version": 0,
    "run --help": 0,
    "cost --help": 0,
    "weights --help": 0,
    "tracks": 0,
    "tracks face-2025": 0,
    "tracks nosuch": 2,
    "weights list": 0,
    "weights list MiAlgo --json": 0,
    "weights list Nobody": 2,
    "teams": 0,
    "teams --track raw --json": 0,
    "teams --markdown": 0,
    "teams --track raim-2025-raw --json": 0,
    "teams --track srg": 2,
    "plan --track face-2025 --entries 30": 0,
    "plan --track srgb --teams Nobody": 2,
    "check nosuch.zip": 2,
    "verify nosuch.zip": 2,
    "score . --track nosuch": 2,
    "leaderboard table.csv --track nosuch": 2,
    **{f"{command} --team Nobody --track srgb": 2 for command in ("run", "cost", "bench", "route")},
    **{f"{command} --team MiAlgo --track srgb --variant nosuch": 2 for command in ("run", "cost", "bench")},
    **{f"{command} --team Copy --track nosuch": 2 for command in ("run", "cost", "bench")},
    "train --team Nobody --track srgb --data .": 2,
    "train --team Copy --track nosuch --data .": 2,
    "run --team Fustar-fsr --track face": 2,
}
"""Exit code of each."""
PROGRAM = """
import contextlib, io, json, sys
from ntire.cli import main
from ntire.method import release
release._is_of = lambda data: True  # a method that is being edited is imported, which is not what is tried here
calls, heavy = json.load(sys.stdin)
found = {}
for call in calls:
    sys.argv = ["ntire", *call.split()]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    found[call] = [code, [name for name in heavy if name in sys.modules]]
print(json.dumps(found))
"""


def test_what_computes_nothing_imports_nothing_heavy(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([list(CALLS), HEAVY]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {call: [code, []] for call, code in CALLS.items()}, ran.stderr


def test_help_lists_every_command_with_its_own_first_sentence(ntire):
    for module in set(cli.COMMANDS.values()):
        __import__(f"ntire.commands.{module}")
    registered = {one.name or one.callback.__name__: one.callback for one in cli.app.registered_commands}
    groups = {one.name for one in cli.app.registered_groups}
    assert {*registered, *groups} == set(cli.COMMANDS)
    for name, function in registered.items():
        assert cli.docstring(name).split() == function.__doc__.split()
    shown = ntire("--help").out
    assert all(f"│ {command} " in shown for command in cli.COMMANDS)
    assert "verify weights files" in shown


@pytest.mark.parametrize("words", [["nosuch"], ["ru"], []])
def test_an_unknown_or_missing_command_is_wrong_usage(ntire, words):
    ran = ntire(*words)
    assert ran.code == 2
    if words == ["ru"]:
        assert "Did you mean 'run'?" in ran.err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ntire sc", {"score"}),
        ("ntire run --track srgb --team N", {"NJUST-KMG", "NulltoZero"}),
        ("ntire run --track raim-2025-s", {"raim-2025-srgb"}),
        ("ntire run --team MiAlgo --variant phase2", {"phase2"}),
        ("ntire run --precision bf", {"bf16"}),
        ("ntire codabench ", {"bundle", "try"}),
    ],
)
def test_a_shell_completes_commands_and_names(ntire, monkeypatch, words, offered):
    monkeypatch.setenv("_NTIRE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert {*ntire().out.split()} == offered


def test_quiet_leaves_results_and_errors(ntire, pictures, monkeypatch):
    monkeypatch.setattr(screen.log, "quiet", False)
    loud = ntire("run", "--team", "Copy", "--track", "srgb", pictures, "-o", "loud", "--device", "cpu")
    assert "Copy raim-2025-srgb: a done" in loud.err
    hushed = ntire("run", "--team", "Copy", "--track", "srgb", pictures, "-o", "quiet", "--device", "cpu", "-q")
    assert hushed.err == ""
    assert "3 of 3 image(s) restored" in hushed.out
    assert "unknown track" in ntire("run", "--team", "Copy", "--track", "nosuch", "-q").err


def test_a_choice_that_is_nearly_right_is_asked_about(ntire):
    ran = ntire("run", "--team", "Copy", "--track", "srgb", "--precision", "bf17")
    assert ran.code == 2
    assert "Did you mean bf16" in " ".join(ran.err.replace("│", " ").split())
