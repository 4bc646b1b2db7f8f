"""`ntire bench` with tiny plugins and few calls: what it refuses, what it compares, what it says of a child that dies."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.benchmark import nvidia_smi as nvidia
from ntire.benchmark.child import Setup
from ntire.benchmark.protocol import Picture, bench, scored_pixels
from ntire.benchmark.protocol import _turned_frame as turned_frame
from ntire.benchmark.protocol import _warm_ups as warm_ups
from ntire.benchmark.statistics import QUICK
from ntire.files import sha256_of
from ntire.picture.image import read_pixels
from ntire.picture.raw import balanced_rggb, read_raw
from ntire.runner.device_worker import fingerprint_of
from ntire.sandbox.child import why_not
from tests.made import scene, write_png

SHORT = replace(QUICK, warm_calls=2, warm_calls_in_all=5, passes=2, pairs=0)


def setup(folder, **options):
    return Setup(str(folder), "srgb", None, {"device": "cpu", "precision": "fp32", "tile": None, **options}, 1)


@pytest.fixture
def timed_pictures(pictures):
    write_png(pictures / "wide.png", scene(20, 60))
    return [Picture(path.stem, path) for path in sorted(pictures.rglob("*.png"))]


RECORDED = 'self.calls.with_name("seen.txt").open("a").write(f"{tuple(lq.shape)} {float(lq.double().sum()):.6f}\\n")'


def test_warm_up_comes_first_at_every_size_on_other_pictures_and_every_pass_in_another_order(plugin, timed_pictures):
    folder = plugin(RECORDED)
    report = bench(setup(folder), None, timed_pictures, {}, replace(SHORT, passes=3), seed=1)
    seen = (folder / "seen.txt").read_text().splitlines()
    assert len(seen) == 5 + 3 * 4 + 4  # the last four in a run from files to files
    warm, timed = seen[:5], [seen[start : start + 4] for start in (5, 9, 13)]
    assert Counter(line.split(") ")[0] for line in warm) == {"(1, 3, 40, 48": 3, "(1, 3, 20, 60": 2}
    # Turned by half a turn: the same values, another picture, whose sum says nothing; so compare the files below.
    assert len({tuple(one) for one in timed}) > 1
    assert all(sorted(one) == sorted(timed[0]) for one in timed)
    assert report.passes == 3
    assert report.side.walls.keys() == {"a", "b", "c", "wide"}
    assert report.side.sizes["wide"] == (20, 60)
    assert report.measured_at((20, 60)).calls == 3
    assert report.measured_at((1, 1)) is None
    times = report.as_json()
    assert times["end_to_end"]["median_ms"] > times["forward"]["median_ms"] > 0
    assert 0 < times["first_call_ms"] < times["load_s"] * 1e3
    pipeline = times["throughput"]
    assert pipeline["pictures"] >= 4
    assert pipeline["pictures_per_s"] == pytest.approx(pipeline["pictures"] / pipeline["seconds"])
    lower = min(1 / pipeline["device_s"], pipeline["cores"] / pipeline["cpu_s"])
    assert pipeline["of_ceiling"] == pytest.approx(pipeline["pictures_per_s"] / lower)
    assert {"load", "warm-up", "timed"} == times["memory_mb"].keys()
    assert all(phase["host_mb"] > 50 for phase in times["memory_mb"].values())
    assert times["environment"]["threads"] == 1
    assert report.problems == ()
    json.dumps(times)


def test_warm_up_pictures_are_none_of_the_timed(timed_pictures, tmp_path):
    made = warm_ups(timed_pictures, "srgb", tmp_path)
    assert sorted(read_pixels(one.path).shape for one in made) == [(20, 60, 3), (40, 48, 3)]
    timed = {sha256_of(one.path) for one in timed_pictures}
    assert not timed & {sha256_of(one.path) for one in made}


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (8, 11), (7, 11)])
def test_a_frame_turned_by_half_a_turn_keeps_each_colour_at_its_pixels(size, tmp_path):
    # Every colour has its own level, so that a colour in the wrong place would show.
    levels = {"R": 100, "G": 400, "B": 900}
    cfa = "GRBG"
    mosaic = np.array(
        [[levels[cfa[2 * (row % 2) + column % 2]] for column in range(size[1])] for row in range(size[0])]
    )
    np.save(tmp_path / "a.npy", mosaic.astype(np.uint16))
    (tmp_path / "a.toml").write_text(f'cfa = "{cfa}"\nblack_level = 0\nwhite_level = 1000\nwhite_balance = [1, 1, 1]\n')
    turned_frame(tmp_path / "a.npy", tmp_path / "b.npy")
    for name in ("a", "b"):
        frame = read_raw(tmp_path / f"{name}.npy")
        assert frame.mosaic.shape == (1, *size)
        rggb, _ = balanced_rggb(frame)
        planes = [rggb[0, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        for plane, level in zip(planes, (0.1, 0.4, 0.4, 0.9), strict=True):
            assert torch.allclose(plane, torch.full_like(plane, level), atol=1e-4)


def test_two_methods_take_turns_and_the_slower_one_is_seen_to_be(plugin, timed_pictures):
    log = "Path(__file__).parents[1].joinpath('turns.txt').open('a').write(NAME)"
    slow = plugin(log.replace("NAME", "'A'") + "; [lq.exp() for _ in range(3000)]", "slow")
    quick = plugin(log.replace("NAME", "'B'"), "quick")
    report = bench(
        setup(slow),
        ("quick", setup(quick)),
        timed_pictures[:1],
        {},
        replace(SHORT, warm_calls_in_all=1, warm_calls=1, pairs=5),
    )
    turns = slow.parent.joinpath("turns.txt").read_text()
    assert turns[2:] == "ABBAABBAAB" + "AAAA", "after one warm-up each, and before a run from files to files"
    assert report.cpu_ratio.pairs == report.wall_ratio.pairs == 5
    assert report.cpu_ratio.p5 > 1
    assert report.as_json()["against"]["method"] == "quick"


def test_what_is_timed_must_be_what_was_scored(plugin, timed_pictures):
    report = bench(setup(plugin()), None, timed_pictures[:1], {"a": "0" * 64}, SHORT)
    (problem,) = report.problems
    assert problem.startswith(f"{plugin()}: a: what was timed is not what was scored")


def test_results_that_change_from_call_to_call_are_told(plugin, timed_pictures):
    body = "self.called = getattr(self, 'called', 0) + 1; lq = lq * 0 + self.called / 255"
    report = bench(setup(plugin(body)), None, timed_pictures[:1], {}, SHORT)
    assert "2 different results from the same input" in report.problems[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import os; print('I am', 'leaving'); os.abort()", ["killed by signal 6", "I am leaving"]),
        ("raise ValueError('no such layer')", [".png: ValueError: no such layer"]),
        ("time.sleep(60)", ["no answer about warm-up 40 x 48 for 1 s", "it was stopped"]),
    ],
)
def test_a_child_that_dies_or_hangs_is_told_with_what_it_said(plugin, timed_pictures, body, said):
    body = body.replace("print('I am', 'leaving')", "print('I am', 'leaving', flush=True)")
    with pytest.raises(UserError) as error:
        bench(setup(plugin(body)), None, timed_pictures[:1], {}, SHORT, timeout=1 if "sleep" in body else 60)
    assert error.value.exit_code == 3
    for words in said:
        assert words in str(error.value)


def test_a_child_that_cannot_load_says_why_as_run_does(timed_pictures):
    with pytest.raises(UserError, match="nowhere: expected a folder with a method.py, found none"):
        bench(setup("./nowhere"), None, timed_pictures[:1], {}, SHORT)


def test_an_entry_is_compared_only_if_its_images_are_the_journals(pictures, tmp_path):
    write_png(tmp_path / "entry/images/a.png", scene(seed=3))
    taken = [Picture("a", pictures / "a.png"), Picture("b", pictures / "b.png")]
    with pytest.raises(UserError) as error:
        scored_pixels(tmp_path / "entry", taken, {"a": "0" * 64})
    assert "a.png: is not the image that the journal speaks of" in str(error.value)
    assert "b.png: expected the image that a run made, found none" in str(error.value)
    digest = sha256_of(tmp_path / "entry/images/a.png")
    assert scored_pixels(tmp_path / "entry", taken[:1], {"a": digest}).keys() == {"a"}


def test_the_seed_follows_the_frame_and_its_toml(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 4), np.uint16))
    seeds = {fingerprint_of(tmp_path / "a.npy", "raw")}
    for white in (10, 20):
        (tmp_path / "a.toml").write_text(f"white_level = {white}")
        seeds.add(fingerprint_of(tmp_path / "a.npy", "raw"))
    assert len(seeds) == 3


FAKE = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *compute-apps*) printf '{apps}' ;;
  *) printf 'H, GPU-1, 570.1, {clock}, 2619, 1980, 700.00, 40, 0x0000000000000000, 1024\\n' ;;
esac
"""


def fake_driver(monkeypatch, tmp_path, apps="", clock="1980"):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(FAKE.format(log=tmp_path / "asked.txt", apps=apps, clock=clock))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_gpu_on_which_somebody_else_computes_is_refused(monkeypatch, tmp_path, plugin, timed_pictures):
    fake_driver(monkeypatch, tmp_path, "1234, python, 5120\\n77, Xorg, 3\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    with pytest.raises(
        UserError, match=r"found other processes: 1234 \(python, 5120 MiB\), 77 \(Xorg, 3 MiB\)"
    ) as error:
        bench(setup(plugin(), device="cuda:1"), None, timed_pictures[:1], {}, SHORT)
    assert error.value.exit_code == 3
    assert Path(tmp_path / "asked.txt").read_text().startswith("-i GPU-5 "), "the device that PyTorch calls cuda:1"


def test_the_drivers_state_is_recorded_and_absent_drivers_are_no_error(monkeypatch, tmp_path):
    fake_driver(monkeypatch, tmp_path)
    assert nvidia.compute_processes("cuda") == []
    assert nvidia.state("cuda")["clocks.sm"] == "1980"
    assert nvidia.state("cuda")[nvidia.THROTTLED[0]] == "0x0000000000000000"
    # An older driver refuses a question with a field that it does not know.
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(program.read_text().replace("case", 'case "$*" in *event_reasons*) exit 2 ;; esac\ncase', 1))
    assert nvidia.state("cuda")["clocks.sm"] == "1980"
    assert nvidia.state("cuda")[nvidia.THROTTLED[1]] == "0x0000000000000000"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.compute_processes("cuda") is None
    assert nvidia.state("cuda") == nvidia.state("cpu") == {}


TRACK = """
name = "mine"
title = "My track"
inputs = "srgb"
metrics = ["psnr"]
source = "made for tests"
[budgets]
params_m = 1e-9
runtime_ms = {runtime_ms}
runtime_at = [40, 48]
memory_mb = 1.0
memory_at = [40, 48]
"""


@pytest.mark.parametrize(("runtime_ms", "code"), [(60000.0, 0), (0.001, 1)])
def test_the_command_compares_with_a_run_and_holds_the_runtime_against_the_budget(
    ntire, plugin, pictures, tmp_path, runtime_ms, code
):
    (tmp_path / "mine.toml").write_text(TRACK.format(runtime_ms=runtime_ms))
    words = ["--team", plugin(), "--track", tmp_path / "mine.toml", pictures, "--device", "cpu", "--limit", "2"]
    if code:
        assert ntire("run", *words, "-o", "entry").code == 0
        words += ["--entry", "entry"]
    ran = ntire("bench", *words, "--against", "none", "--quick", "--json")
    assert ran.code == code, ran.err
    found = ran.json()
    assert found["outputs_compared"] == 2
    assert found["protocol"]["quick"]
    assert found["against"] is None
    runtime, memory = found["budgets"]
    assert runtime["value"] == found["end_to_end"]["median_ms"]
    assert memory["value"] is None, "there is no GPU whose memory could be measured"


def test_the_table_says_that_quick_figures_are_not_to_be_quoted(ntire, plugin, pictures):
    words = ["--team", plugin(), "--track", "srgb", pictures, "--device", "cpu", "--limit", "1"]
    assert ntire("run", *words, "-o", "entry").code == 0
    ran = ntire("bench", *words, "--entry", "entry", "--quick")
    assert ran.code == 0, ran.err
    assert "its figures are not to be quoted" in ran.out
    assert "Copy, CPU time:" in ran.out


def test_the_run_that_is_compared_with_has_as_many_threads(ntire, plugin, pictures):
    by_threads = plugin("import torch; lq = lq * 0 + torch.get_num_threads() / 255")
    words = ["--team", by_threads, "--track", "srgb", pictures, "--device", "cpu", "--limit", "1", "--against", "none"]
    for threads in ("1", "2"):
        assert ntire("bench", *words, "--quick", "--threads", threads).code == 0


def test_bench_says_what_to_measure(ntire):
    ran = ntire("bench")
    assert ran.code == 2
    assert "--team T --track K times a method" in ran.err


STRANGER = """
import os
from pathlib import Path
import torch
from ntire.method import Method

class Mine(Method):
    team, track, cite, tiling, halo, stride = "Mine", "srgb", "x", "exact", 1, 1
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, lq):
        return lq * 0.5
"""


@pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")
def test_a_stranger_s_method_is_timed_in_a_sandbox_and_its_pixels_are_seen(ntire, pictures, tmp_path, monkeypatch):
    monkeypatch.delenv("NTIRE_TRUST")
    folder = tmp_path / "theirs"
    folder.mkdir()
    marker = tmp_path / "ran"
    plain = STRANGER.replace("self.body = torch.nn.Conv2d(3, 3, 3, padding=1)", "pass")
    (folder / "method.py").write_text(f"{plain}\nassert not Path({str(pictures)!r}).exists()\n")
    words = ["--team", folder, "--track", "srgb", pictures, "--device", "cpu", "--limit", "1", "--quick", "--json"]
    ran = ntire("bench", *words, "--against", "none")
    assert ran.code == 0, ran.err
    found = ran.json()
    assert found["environment"]["sandbox"]["backend"] == "bubblewrap"
    assert found["outputs_compared"] == 1
    assert found["end_to_end"]["median_ms"] > 0
    assert found["memory_mb"]["timed"]["host_mb"] > 50
    assert not marker.exists()


@pytest.mark.skipif(bool(why_not("bubblewrap")), reason=f"no sandbox here: {why_not('bubblewrap')}")
def test_a_stranger_s_method_is_counted_in_a_sandbox(ntire, tmp_path, monkeypatch):
    monkeypatch.delenv("NTIRE_TRUST")
    (tmp_path / "theirs").mkdir()
    code = STRANGER.replace("lq * 0.5", "self.body(lq)")
    (tmp_path / "theirs" / "method.py").write_text(f"{code}\nassert os.getuid() != {os.getuid()} or os.getuid()\n")
    ran = ntire("cost", "--team", tmp_path / "theirs", "--track", "srgb", "--at", "32x32", "--json")
    assert ran.code == 0, ran.err
    found = ran.json()
    assert (found["params"], found["macs"]) == (84, 81 * 32 * 32)
    assert "could have written by hand" in found["counted_by"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"params": "many"},
        {"params": float("inf")},
        {"team": "x", "more": 1},
        {"at": [1, 2, 3]},
        {"problems": [[1]]},
    ],
)
def test_figures_of_another_form_are_the_code_s_mistake(answer, tmp_path, monkeypatch):
    import ntire.sandbox.child as sandbox
    from ntire.benchmark.sandboxed import Sandbox, cost_in_sandbox

    forging = (
        "import sys; sys.path[:0] = sys.argv[2:]\nfrom ntire.benchmark import child\n"
        f"inf = float('inf')\nchild._cost = lambda request: {answer!r}\nchild.main()"
    )
    monkeypatch.setattr(sandbox, "RUN_INSIDE", lambda module: forging)
    (tmp_path / "code").mkdir()
    with pytest.raises(UserError, match="answers no figures") as raised:
        cost_in_sandbox(Sandbox("none", tmp_path / "code", tmp_path), None, None, None, None)
    assert raised.value.exit_code == 1


def test_a_challenge_times_networks_without_warm_up_and_the_first_picture_counts(plugin, timed_pictures):
    folder = plugin("import time; time.sleep(0.0 if self.calls.exists() else 0.3)")
    report = bench(setup(folder), None, timed_pictures, {}, SHORT, as_challenge=True)
    found = report.challenge
    assert len(found.networks_ms) == len(timed_pictures)
    assert found.networks_ms[0] > 300 > 3 * max(found.networks_ms[1:])
    assert found.mean_ms == pytest.approx(sum(found.networks_ms) / 4)
    assert found.without_first_ms < found.mean_ms / 2
    steps = {words: (value, share) for words, value, share in found.beside(report.side.forwards)}
    assert steps["mean of all pictures, no warm-up (the challenge)"] == (found.mean_ms, 1.0)
    ours, share = steps["median after warm-up (ours)"]
    assert ours == report.as_json()["forward"]["median_ms"]
    assert share == ours / found.mean_ms < 0.5
    assert report.as_json()["esr"]["mean_ms"] == found.mean_ms
    assert bench(setup(folder), None, timed_pictures, {}, SHORT).challenge is None


def test_bench_prints_what_differs_from_a_challenges_own_way(ntire, plugin, pictures):
    words = ["--team", plugin(), "--track", "srgb", pictures, "--device", "cpu", "--against", "none", "--quick"]
    ran = ntire("bench", *words, "--protocol", "esr")
    assert ran.code == 0, ran.err
    assert "median after warm-up (ours)" in ran.out
    assert "the first picture alone" in ran.out
