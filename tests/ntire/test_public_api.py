"""`import ntire`: what a program in Python gets."""

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ntire
from ntire import UserError
from ntire.picture.image import read_pixels
from tests.made import scene, write_png

FUNCTIONS = ("check", "cost", "leaderboard", "load", "restore", "route", "run", "score", "verify")
HEAVY = ("torch", "numpy", "pandas", "cv2", "pyiqa", "typer", "rich", "pydantic")
EVERY_MODULE = f"""
import importlib, inspect, pkgutil, ntire
for module in pkgutil.walk_packages(ntire.__path__, "ntire."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            assert not error.name.startswith(("ntire", "teams", "scoring")), error
for old in ntire._MOVED:
    importlib.import_module("ntire." + old)
for name in {FUNCTIONS!r}:
    assert inspect.isfunction(getattr(ntire, name)), name
assert inspect.isclass(ntire.Method) and inspect.isclass(ntire.Weights) and inspect.isclass(ntire.Cost)
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_ntire_loads_nothing_and_lists_everything():
    code = f"import sys, ntire; dir(ntire); print([one for one in {HEAVY!r} if one in sys.modules])"
    assert python(code).stdout.strip() == "[]"
    assert {*FUNCTIONS, "Cost", "Method", "UserError", "Weights"} <= {*ntire.__all__} <= {*dir(ntire)}
    with pytest.raises(AttributeError, match="no attribute 'scor'"):
        ntire.scor  # noqa: B018


def test_no_module_takes_the_place_of_a_public_function():
    ran = python(EVERY_MODULE)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_goes_by_its_name_and_says_what_it_takes(name):
    function = getattr(ntire, name)
    assert function.__name__ == name
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_a_picture_restored_in_memory_is_what_a_run_writes(tmp_path):
    path = write_png(tmp_path / "lq" / "a.png", scene(48, 40))
    done = ntire.run("MiAlgo", "srgb", path, tmp_path / "entry", device="cpu")
    assert not done.failed
    method = ntire.load("MiAlgo", "srgb", device="cpu")
    written = read_pixels(tmp_path / "entry" / "images" / "a.png")
    from_file = ntire.restore(str(path), method=method)
    assert from_file.dtype == np.uint8
    assert np.array_equal(from_file, written)
    assert np.array_equal(ntire.restore(scene(48, 40), team="MiAlgo", track="srgb", device="cpu"), written)
    deep = ntire.restore(path, method=method, bits=16)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257.0 - written).max() <= 0.51


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_an_array_comes_back_in_its_own_dtype_and_stays_as_it_was(dtype):
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    given = (scene(32, 24).astype("float64") / 255 * top).astype(dtype)
    before = given.copy()
    restored = ntire.restore(given, team="MiAlgo", track="srgb", device="cpu")
    assert (restored.dtype, restored.shape) == (given.dtype, given.shape)
    assert np.array_equal(given, before)
    exact = ntire.load("MiAlgo", "srgb", device="cpu").restore(write_png(Path("a.png"), scene(32, 24)))
    assert np.abs(restored.astype("float64") / top - exact.permute(1, 2, 0).numpy()).max() < 3e-3


def test_a_raw_frame_is_rendered(tmp_path):
    from ntire.picture.raw import read_raw

    rng = np.random.default_rng(0)
    np.save(tmp_path / "night.npy", rng.integers(0, 1023, (32, 48), dtype=np.uint16))
    (tmp_path / "night.toml").write_text(
        'cfa = "RGGB"\nblack_level = 0\nwhite_level = 1023\nwhite_balance = [2, 1, 1.5]\n'
    )
    rendered = ntire.restore(read_raw(tmp_path / "night.npy"), team="Copy", track="raw", device="cpu")
    assert (rendered.dtype, rendered.shape) == (np.uint8, (32, 48, 3))
    assert np.array_equal(rendered, ntire.restore(tmp_path / "night.npy", team="Copy", track="raw", device="cpu"))
    with pytest.raises(UserError, match="Copy on track raw takes a RawFrame"):
        ntire.restore(scene(), team="Copy", track="raw", device="cpu")
    with pytest.raises(UserError, match=r"takes an array \(H, W, 3\)"):
        ntire.restore(read_raw(tmp_path / "night.npy"), team="Copy", track="srgb", device="cpu")


def test_a_method_that_reads_for_itself_gets_an_array_as_a_file(plugin):
    folder = plugin()
    code = (folder / "method.py").read_text()
    (folder / "method.py").write_text(
        code + "\n    def restore(self, path):\n"
        "        from ntire.picture.image import read_image\n        return (read_image(path) + 0.1).clamp(0, 1)\n"
    )
    method = ntire.load(folder, "srgb", device="cpu")
    grey = np.full((8, 9, 3), 100, np.uint8)
    assert (ntire.restore(grey, method=method) == 126).all()  # 100 + 25.5, half to even
    assert np.allclose(ntire.restore(grey.astype("float32") / 255, method=method), 100 / 255 + 0.1, atol=1e-4)


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (np.zeros((4, 4), np.uint8), r"an array \(4, 4\) of uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "of int64"),
        (np.full((4, 4, 3), 255.0), "values from 255 to 255"),
        (np.full((4, 4, 3), np.nan), "values from nan to nan"),
        (7, "found int"),
        ("nowhere.png", "No such file"),
    ],
)
def test_what_is_no_picture_is_told(picture, found):
    with pytest.raises(UserError, match=found):
        ntire.restore(picture, team="Copy", track="srgb", device="cpu")


def test_it_must_be_said_what_restores_a_picture():
    for given in ({}, {"team": "Copy"}, {"track": "srgb"}):
        with pytest.raises(UserError, match="say what restores it"):
            ntire.restore(scene(), **given)
    with pytest.raises(UserError, match=r"expected what ntire.load\(\) returns, found str"):
        ntire.restore(scene(), method="Copy")


@pytest.mark.parametrize(
    "given",
    [{"team": "Copy"}, {"track": "srgb"}, {"variant": "phase3"}, {"device": "cpu"}, {"weights": "a.safetensors"}],
)
def test_what_only_load_takes_is_never_passed_over(given):
    with pytest.raises(UserError, match=f"{next(iter(given))}: say it to ntire.load"):
        ntire.restore(scene(), method=ntire.load("Copy", "srgb", device="cpu"), **given)


@pytest.mark.parametrize(
    "given",
    [
        {"bits": 12},
        {"tile": 0},
        {"tile": -1},
        {"tile": "off"},
        {"tile": 2.5},
        {"precision": "fp64"},
        {"backend": "tf"},
        {"limit": -1},
    ],
)
def test_options_that_there_are_not_make_no_picture(given, tmp_path):
    with pytest.raises(UserError, match=f"{next(iter(given))}: expected .*, found {next(iter(given.values()))!r}"):
        ntire.run("Copy", "srgb", tmp_path, tmp_path / "out", **given)


def test_threads_get_the_pictures_that_one_after_the_other_gives(plugin):
    folder = plugin("time.sleep(0.01); lq = lq + 0.1 * torch.randn_like(lq)")
    method = ntire.load(folder, "srgb", trust=True, device="cpu")
    pictures = [scene(40, 48, seed=seed) for seed in range(8)]
    expected = [ntire.restore(picture, method=method) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda picture: ntire.restore(picture, method=method), pictures))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_scores_are_tables_that_can_be_computed_with_and_written(tmp_path):
    write_png(tmp_path / "gt" / "a.png", scene(seed=0))
    write_png(tmp_path / "gt" / "b.png", scene(seed=1))
    for number, team in enumerate(("one", "two")):
        ntire.run("Copy", "srgb", tmp_path / "gt", tmp_path / "entries" / team, device="cpu")
        write_png(tmp_path / "entries" / team / "images" / "a.png", scene(seed=5 + number))
    board = ntire.score(tmp_path / "entries", gt=tmp_path / "gt", metrics=["psnr-y", "ssim-y"], device="cpu")
    assert not (tmp_path / "entries-results").exists()
    frame = board.frame
    assert list(frame["entry"]) == ["one", "two"]
    assert frame["psnr-y"].dtype == np.float64
    means = board.images.groupby("entry")["psnr-y"].mean()
    assert means["one"] == pytest.approx(frame.set_index("entry").loc["one", "psnr-y"])
    written = board.write(tmp_path / "tables")
    assert sorted(path.name for path in written.iterdir()) == [
        "leaderboard.csv", "leaderboard.json", "leaderboard.md", "one", "sources.json", "two",
    ]  # fmt: skip
    assert (written / "one" / "scores.csv").is_file()


def test_published_rows_are_ranked_without_an_image():
    board = ntire.leaderboard(track="multi-5", published=True)
    assert str(board.frame["rank"].dtype) == "Int64"
    assert board.frame["total"].dropna().is_monotonic_decreasing
    assert board.images.empty
    with pytest.raises(UserError, match="name the tables"):
        ntire.leaderboard(track="multi-5")


def test_what_a_method_costs_and_what_an_entry_lacks_are_values(tmp_path):
    assert ntire.cost("MiAlgo", "srgb", at=(64, 64))["at"] == [64, 64]
    report = ntire.check(tmp_path, track="srgb")
    assert not report.valid
    with pytest.raises(UserError, match="found no such file"):
        ntire.verify(tmp_path / "nowhere.zip", sandbox="none", device="cpu")
