"""`ntire run --engine local`: the folders are those of single runs, whatever happens to the processes."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ntire import UserError
from ntire.commands import on_engine
from ntire.commands.restoring import run
from ntire.commands.running import run_all
from ntire.entry.baseline import is_baseline
from ntire.entry.journal import Journal, read_header
from ntire.entry.manifest import open_submission
from ntire.method import catalogue
from ntire.runner.engines import engine as engine_module
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import find_inputs, header_of
from ntire.runner.shards import SHARDS, RunPlan, fingerprints, key_of, published, restore_shard, write_plan
from ntire.sandbox.child import why_not
from tests.made import scene, write_png

TRACK = "raim-2025-srgb"
MEASURED = ("seconds", "peak_memory_mb", "check")


@pytest.fixture
def many(tmp_path):
    for number in range(9):
        write_png(tmp_path / "many" / f"{number}.png", scene(seed=number))
    return tmp_path / "many"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(on_engine, "SHARDS_EACH", 2)


def content(out):
    """Every file of an entry; of the journal all but measurements."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    lines = [json.loads(line) for line in files.pop("journal.jsonl").splitlines()]
    return files, [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def on_processes(teams, inputs, out, workers=1, **how):
    return run_all(teams, "srgb", inputs, out, "local", workers=workers, device="cpu", **how)


def calls(folder):
    file = folder / "calls.log"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_several_teams_at_once_make_the_folders_of_single_runs(plugin, many, tmp_path):
    folder = plugin()
    (many / "2.png").write_bytes(b"no picture")
    heard = []
    summaries = on_processes([folder, "MiAlgo"], many, tmp_path / "at once", workers=2, say=heard.append)
    for team, summary in zip([folder, "MiAlgo"], summaries, strict=True):
        alone = run(team, "srgb", many, tmp_path / "alone" / summary.out.name, device="cpu")
        assert content(summary.out) == content(alone.out)
        assert (summary.computed, len(summary.results)) == (9, 9)
        assert [(one.image, one.status) for one in summary.failed] == [("2", "unreadable")]
        assert str(many / "2.png") in summary.failed[0].problem
    assert [one.out.name for one in summaries] == ["plus-srgb", "MiAlgo-srgb"]
    assert "2 worker(s)" in heard[-1]
    assert run(folder, "srgb", many, summaries[0].out, device="cpu").computed == 1  # what had failed


def test_a_copy_made_on_an_engine_is_known_as_the_baseline(many, tmp_path):
    on_processes(["Copy", "MiAlgo"], many, tmp_path / "out")
    assert {folder.name: is_baseline(folder) for folder in (tmp_path / "out").iterdir()} == {
        "Copy-srgb": True,
        "MiAlgo-srgb": False,
    }


def test_what_is_finished_is_not_made_again(plugin, many, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    run(folder, "srgb", many / "3.png", out, device="cpu")
    assert on_processes([folder], many, out)[0].computed == 8
    assert on_processes([folder], many, out)[0].computed == 0
    write_png(many / "5.png", scene(seed=77))
    (out / "images" / "6.png").unlink()
    assert on_processes([folder], many, out)[0].computed == 2
    assert calls(folder) == 11


@pytest.mark.parametrize("kills", [False, True])
def test_an_image_of_an_earlier_input_does_not_stand_for_one_that_fails_now(plugin, many, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(engine_module, "TRIES", 1)
    folder = plugin("if lq.min() > 0.9: __import__('os').kill(__import__('os').getpid(), 9)")
    out = tmp_path / "out"
    run(folder, "srgb", many, out, device="cpu")
    if kills:
        write_png(many / "4.png", scene(seed=4) * 0 + 255)
    else:
        (many / "4.png").write_bytes(b"no picture")
    [summary] = on_processes([folder], many, out)
    assert [one.image for one in summary.failed] == ["4"]
    assert not (out / "images" / "4.png").exists()


def test_parts_of_another_run_are_left_as_they_are(ntire, plugin, many, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    words = ("run", "--team", folder, "--track", "srgb", many, "-o", out)
    assert ntire(*words, "--shard", "1/2").code == 0
    write_png(many / "0.png", scene(seed=77))
    with pytest.raises(UserError, match="of another run:\n  bits: 8 there, 16 now"):
        on_processes([folder], many, out, bits=16)
    write_png(many / "0.png", scene(seed=0))
    assert ntire(*words, "--shard", "2/2").code == 0
    assert ntire("merge", out).code == 0


def test_an_engine_keeps_what_it_had_finished_of_other_inputs(plugin, many, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    prepared = prepare(catalogue.load(folder), Options())
    found = find_inputs([many], "srgb")
    header = header_of(prepared, TRACK)
    prints = fingerprints(found, "srgb")
    restore_shard(prepared, found, out / SHARDS, key_of(header, prints), TRACK, header)
    write_plan(out, RunPlan(header, tuple(prints)))
    assert on_processes([folder], many, out, limit=2)[0].computed == 0
    assert on_processes([folder], many, out)[0].computed == 0


def test_what_workers_that_are_gone_have_left_makes_room_for_others(plugin, many, tmp_path):
    out = tmp_path / "out"
    folder = plugin(f"assert len(list(__import__('pathlib').Path({str(out / SHARDS)!r}).glob('.*'))) == 3")
    for name in ("tried-0badcafe", "part"):
        write_png(out / SHARDS / f".{name}" / "images" / "0.png", scene())
    (out / SHARDS / ".seen-before").touch()
    # There are the part of somebody else, where this run is, and the try that is made.
    assert on_processes([folder], many / "1.png", out)[0].failed == []


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on_when_there_is_room(
    plugin, small_disk, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_engine, "SHARDS_EACH", 9)
    rng = np.random.default_rng(0)
    for number in range(9):
        # Larger than what is left: the program itself can still write its few bytes.
        write_png(tmp_path / "in" / f"{number}.png", rng.integers(0, 200, (80, 100, 3), dtype=np.uint8))
    folder, out = plugin(), small_disk / "out"
    with pytest.raises(UserError, match="No space left on device.*What is finished stays") as raised:
        on_processes([folder], tmp_path / "in", out)
    assert raised.value.exit_code == 3
    finished = len(published(out))
    assert finished < 9
    assert calls(folder) <= finished + 1  # no other worker tries it
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    [summary] = on_processes([folder], tmp_path / "in", out)
    assert (summary.failed, 9 - summary.computed >= finished) == ([], True)
    assert not (out / SHARDS).exists()


def test_a_picture_that_kills_its_worker_fails_alone(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "TRIES", 1)
    monkeypatch.setattr(on_engine, "SHARDS_EACH", 1)
    folder, out = (
        plugin("if 0.4 < lq.mean() < 0.5: __import__('os').kill(__import__('os').getpid(), 9)"),
        tmp_path / "out",
    )
    many = tmp_path / "many"
    for number in range(3):
        write_png(many / f"{number}.png", scene(seed=number) // 4)
    write_png(many / "4.png", scene(seed=4) * 0 + 115)
    [summary] = on_processes([folder], many, out)
    assert [one.image for one in summary.failed] == ["4"]
    assert "1 workers were lost at it" in summary.failed[0].problem
    [log] = [one for one in (out / SHARDS).glob("*.log") if str(one) in summary.failed[0].problem]
    assert "killed by SIGKILL" in log.read_text()
    (folder / "method.py").write_text((folder / "method.py").read_text().replace("if 0.4", "if 2.4"))
    with pytest.raises(UserError, match="code: "):
        on_processes([folder], many, out)


def test_a_driver_that_is_killed_goes_on_with_what_is_finished(plugin, many, tmp_path):
    folder, out = plugin("__import__('time').sleep(0.2)"), tmp_path / "out"
    words = [
        "run",
        "--team",
        folder,
        "--track",
        "srgb",
        many,
        "-o",
        out,
        "--engine",
        "local",
        "--workers",
        1,
        "--device",
        "cpu",
    ]
    code = "from ntire.cli import main; from ntire.commands import on_engine; on_engine.SHARD_SECONDS = 0.3; main()"
    driver = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(published(out)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = {line.name for line in published(out)}
    assert finished
    time.sleep(0.3)  # the worker ends with its driver
    before = calls(folder)
    [summary] = on_processes([folder], many, out)
    assert len(summary.results) == 9
    assert summary.failed == []
    assert summary.computed < 9
    assert calls(folder) - before == summary.computed
    assert not (out / SHARDS).exists()


def test_a_folder_that_another_run_writes_to_is_left_alone(plugin, many, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    run(folder, "srgb", many / "3.png", out, device="cpu")
    header = read_header(out / "journal.jsonl")
    header.pop("format")
    with Journal(out / "journal.jsonl", header), pytest.raises(UserError, match="another run is writing here"):
        on_processes([folder], many, out)


def test_a_stranger_s_code_stays_in_the_sandbox_on_a_worker(plugin, many, tmp_path, monkeypatch):
    if why_not("bubblewrap"):
        pytest.skip(f"no sandbox here: {why_not('bubblewrap')}")
    monkeypatch.delenv("NTIRE_TRUST")
    # It may not write where its counter of calls lies.
    folder = plugin("return lq + 0.05")
    for name in "12345678":
        (many / f"{name}.png").unlink()
    [summary] = on_processes([folder], many, tmp_path / "out")
    assert summary.failed == []
    assert "bubblewrap" in open_submission(summary.out).manifest.environment["sandbox"]
    assert calls(folder) == 0


def test_options_that_make_no_sense_together_are_refused(ntire, plugin, many, tmp_path):
    words = ("run", "--team", "MiAlgo", "--track", "srgb", many, "-o", tmp_path / "out")
    for more, told in (
        (("--engine", "local", "--shard", "1/2"), "--shard and --engine exclude each other"),
        (("--team", "Copy", "--weights", "x"), "--weights: for one method"),
        (("--engine", "local", "--device", "cuda:1"), "workers take every GPU"),
    ):
        refused = ntire(*words, *more)
        assert refused.code == 2
        assert told in " ".join(refused.err.split())


@pytest.mark.parametrize("more", [(), ("--engine", "local")])
def test_results_of_two_teams_never_go_into_one_folder(ntire, plugin, many, tmp_path, more):
    folder = plugin()
    shutil.copytree(folder, tmp_path / "other" / folder.name)
    for first, second in (("MiAlgo", "mialgo"), (folder, tmp_path / "other" / folder.name)):
        refused = ntire(
            "run", "--team", first, "--team", second, "--track", "srgb", many, "-o", tmp_path / "out", *more
        )
        assert refused.code == 2
        assert f"--team {first} and --team {second}: the results of both would go into" in " ".join(refused.err.split())
    assert not (tmp_path / "out").exists()


def test_several_teams_without_an_engine_run_one_after_the_other(ntire, many, tmp_path):
    for name in "2345678":
        (many / f"{name}.png").unlink()
    ran = ntire("run", "--team", "Copy", "--team", "MiAlgo", "--track", "srgb", many, "-o", tmp_path / "both", "--json")
    assert ran.code == 0
    assert [len(one["images"]) for one in ran.json()] == [2, 2]
    assert sorted(one.name for one in (tmp_path / "both").iterdir()) == ["Copy-srgb", "MiAlgo-srgb"]
