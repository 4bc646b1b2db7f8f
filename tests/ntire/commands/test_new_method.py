"""`ntire new-method`: the folder that it writes runs as it is, and what is wrong with one's own is told where it lies."""

import json
from pathlib import Path

import numpy as np
import pytest

from ntire.picture.image import read_pixels
from tests.conftest import ROOT
from tests.made import write_png


@pytest.mark.parametrize("track", ["raw", "general"])
def test_what_it_writes_runs_counts_and_says_how(ntire, track, pictures):
    made = ntire("new-method", "our method", "--track", track, "--team", "1st Team")
    assert made.code == 0, made.err
    assert "try it:  ntire run --team './our method' --track" in made.out
    folder = Path("our method")
    assert "ntire pack submissions/mine --code './our method'" in (folder / "README.md").read_text()
    assert {path.name for path in folder.rglob("*")} == {"method.py", "weights", "net.safetensors", "README.md"}
    if track == "raw":
        pictures = pictures.parent / "frames"
        pictures.mkdir()
        np.save(pictures / "frame.npy", np.full((32, 48), 2000, np.uint16))
    ran = ntire("run", "--team", "./our method", "--track", track, pictures, "-o", "mine", "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert all(image["status"] == "done" for image in ran.json()["images"])
    cost = ntire("cost", "--team", "./our method", "--track", track, "--at", "64x64", "--reach", "--json")
    assert cost.code == 0, cost.err
    assert cost.json()["params"] == (444 if track == "raw" else 84)


def test_the_method_that_it_writes_takes_noise_away(ntire, tmp_path):
    ntire("new-method", "own")
    clean = np.full((48, 48, 3), 128.0)
    noisy = clean + np.random.default_rng(0).normal(0, 12, clean.shape)
    write_png(tmp_path / "in" / "a.png", noisy.clip(0, 255).astype(np.uint8))
    assert (
        ntire("run", "--team", "./own", "--track", "srgb", tmp_path / "in", "-o", "mine", "--device", "cpu").code == 0
    )
    restored = read_pixels(Path("mine/images/a.png")).astype(float)
    assert ((restored - clean) ** 2).mean() < 0.6 * ((noisy - clean) ** 2).mean()


def test_a_folder_with_something_in_it_is_left_alone(ntire):
    Path("own").mkdir()
    (Path("own") / "method.py").write_text("mine")
    ran = ntire("new-method", "own")
    assert ran.code == 2
    assert "expected a new or empty folder" in ran.err
    assert (Path("own") / "method.py").read_text() == "mine"


def ask(ntire, change, pictures, *words):
    """Run the method that is written, after a change to its source."""
    ntire("new-method", "own")
    source = Path("own/method.py")
    source.write_text(change(source.read_text()))
    return ntire("run", "--team", "./own", "--track", "srgb", pictures, "--device", "cpu", *words)


def test_weights_that_are_missing_or_others_are_told_with_the_method_s_own_folder(ntire, pictures):
    ntire("new-method", "own")
    path = Path("own/weights/net.safetensors").resolve()
    kept = path.read_bytes()
    path.unlink()
    missing = ntire("run", "--team", "./own", "--track", "srgb", pictures)
    assert missing.code == 3
    assert str(path) in missing.err
    assert "ntire weights fetch" not in missing.err
    path.write_bytes(kept + b"x")
    broken = ntire("run", "--team", "./own", "--track", "srgb", pictures)
    assert broken.code == 3
    assert f"{path}: expected sha256" in broken.err
    assert "declare this one's sha256 where its method declares it" in broken.err


def test_parameters_without_a_file_are_told_with_what_to_declare(ntire, pictures):
    lines = lambda text: "\n".join(one for one in text.splitlines() if "weights = " not in one)  # noqa: E731
    ran = ask(ntire, lines, pictures)
    assert ran.code == 3
    assert 'weights = (Weights("NAME.safetensors"),)' in ran.err
    assert "ntire train" not in ran.err


def test_all_that_is_wrong_with_a_class_is_told_at_once(ntire, pictures):
    def spoil(text):
        text = text.replace('tiling = "exact"', 'tiling = "exactly"').replace("halo = 1", "halo = -1")
        text = text.replace('    track = "srgb"\n', "")
        return text.replace('sha256="', 'provenance="mine", sha256="XYZ')

    ran = ask(ntire, spoil, pictures)
    assert ran.code == 2
    for words in (
        "class Own: it does not declare track",
        "tiling is exact, method or global, not 'exactly'",
        "halo is a whole number of at least 0, not -1",
        "weights net.safetensors: provenance is one of official, retrained, own, not 'mine'",
        "sha256 is 8 to 64 hexadecimal digits",
    ):
        assert words in ran.err, ran.err


def test_a_kind_of_input_that_there_is_not_is_asked_about(ntire, pictures):
    ran = ask(ntire, lambda text: text.replace('"srgb"', '"srbg"'), pictures)
    assert ran.code == 2
    assert "expected a kind of input" in ran.err
    assert "Did you mean srgb" in ran.err


def test_the_first_five_minutes_of_the_readme_end_in_a_number_and_a_picture_with_nothing_at_hand(ntire, monkeypatch):
    """No data, no weights, no network: the commands as they stand there."""
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("it goes to the network"))
    section = (ROOT / "README.md").read_text().partition("## First five minutes")[2].partition("```\n")[2]
    commands = [line.partition("#")[0].split()[1:] for line in section.partition("```")[0].splitlines()]
    assert [words[0] for words in commands] == ["run", "score", "sheet", "report"]
    for words in commands:
        ran = ntire(*words)
        assert ran.code == 0, ran.err
    board = json.loads(Path("scores/leaderboard.json").read_text())
    assert board[0]["rank"] == 1
    assert board[0]["metrics"]["psnr"] > 30
    height, width = read_pixels(Path("contact-sheet.png")).shape[:2]
    assert min(height, width) > 500, "input, result and truth of each picture"
    assert Path("report/index.html").is_file()


@pytest.mark.parametrize(
    ("init", "problem"),
    [
        ("(self, width) -> None:\n        super().__init__()", "missing 1 required positional argument: 'width'"),
        ("(self) -> None:\n        self.width = 3", "must call super().__init__()"),
        ("(self) -> None:\n        self.body = nn.Conv2d(3, 3, 3)", "(method.py, line"),
    ],
)
@pytest.mark.parametrize("words", [["--trust"], ["--sandbox"]])
def test_a_constructor_that_fails_is_told_without_a_traceback(ntire, pictures, init, problem, words):
    old = "(self) -> None:\n        super().__init__()\n        self.body = nn.Conv2d(3, 3, 3, padding=1)"
    ran = ask(ntire, lambda source: source.replace(old, init), pictures, *words)
    assert ran.code == (2 if words == ["--trust"] else 1), ran.err
    assert problem in ran.err
    assert "Traceback" not in ran.err
    assert "/sub" not in ran.err
