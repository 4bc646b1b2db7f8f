"""That the scripts in benchmarks/ run; how fast anything is, is not for a test to say."""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from torch import nn

from ntire import cli
from ntire.method import catalogue
from tests.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peers():
    return loaded("peers")


def test_peers_run_side_by_side_and_the_whole_image_is_the_measure(tmp_path):
    words = ["--height", "90", "--width", "70", "--rounds", "1", "--tile", "32", "--json", str(tmp_path / "found.json")]
    others = ["MONAI, constant", "MONAI, gaussian", "padded tiles", "padded tiles, prepared", "ntire, OpenVINO"]
    without = ["--without", *others, "ntire, ONNX Runtime"]
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "peers.py"), *words, *without],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["whole image", "whole image, prepared", "ntire"]
    for (one,) in found.values():
        assert one["wall_s"] > 0 < one["cpu_s"]
    assert found["ntire"][0]["max_levels"] == found["whole image"][0]["max_levels"] == 0
    assert "MiAlgo srgb, its own weights, 1 picture(s) of 90 x 70" in ran.stdout


def test_the_scorers_metrics_give_the_values_of_their_peers():
    words = ["--height", "200", "--width", "208", "--rounds", "1", "--metrics", "psnr", "psnr-y", "ssim-rgb"]
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "scorer_metrics.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split() for line in ran.stdout.splitlines()[1:4]]
    assert [row[0] for row in rows] == ["psnr", "psnr-y", "ssim-rgb"]
    assert all(float(row[-1]) < 1e-5 for row in rows)


def test_padded_tiles_are_exact_where_ten_pixels_are_enough_and_off_where_not(peers):
    lq = torch.rand(1, 3, 70, 50)
    for size, exact in ((3, True), (41, False)):
        net = nn.Conv2d(3, 3, size, padding=size // 2)
        with torch.no_grad():
            assert torch.allclose(peers._padded_tiles(net, lq, 32), net(lq), atol=1e-5) == exact


def test_windows_of_monai_cover_the_picture(peers):
    pytest.importorskip("monai", reason="MONAI is a peer, not a dependency")
    lq = torch.rand(1, 3, 70, 50)
    for mode in ("constant", "gaussian"):
        assert torch.allclose(peers._monai(mode)(lambda x: x.clone(), lq, 32), lq, atol=1e-5)


def test_on_a_machine_without_a_gpu_the_gpus_script_says_so(monkeypatch):
    script = loaded("gpu_forward")
    monkeypatch.setattr(sys, "argv", ["gpu_forward.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA GPU, and there is none"):
        script.main()


def test_every_network_that_is_timed_has_a_time_in_its_report():
    for case in loaded("gpu_forward").CASES:
        claimed = catalogue.find(case.team, case.track, case.variant).claimed
        assert claimed.runtime_ms
        assert claimed.runtime_at
        assert claimed.device


@pytest.fixture(scope="module")
def gpu():
    return loaded("gpu")


def test_steps_of_a_gpu_are_bounded_and_written_as_they_come(gpu, monkeypatch, tmp_path, capsys):
    def step(name, code, seconds=5):
        return gpu.Step(name, seconds, lambda options, out: ["-c", code, str(out)])

    steps = (
        step("done", "import sys; open(sys.argv[1], 'w').write('{\"skipped\": \"for a reason\"}')"),
        step("fails", "raise SystemExit('no such kernel')"),
        step("hangs", "import time; time.sleep(60)", seconds=1),
        step("long", "print('{}')", seconds=3600),
    )
    monkeypatch.setattr(gpu, "STEPS", steps)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--minutes", "1", "--out", str(tmp_path)])
    gpu.main()
    found = json.loads((tmp_path / "a-trial-on-the-cpu.json").read_text())["steps"]
    assert [said["status"] for said in found.values()] == [
        "done", "failed with exit code 1", "ended after 2 s", "left out",
    ]  # fmt: skip
    table = (tmp_path / "a-trial-on-the-cpu.md").read_text()
    assert "| done | done |" in table
    assert "for a reason" in table
    assert "no such kernel" in table
    assert capsys.readouterr().out == table


def test_of_a_step_that_hangs_nothing_goes_on_and_what_it_had_found_counts(gpu, tmp_path):
    started = "import subprocess, sys; child = subprocess.Popen(['sleep', '300']); "
    wrote = "open(sys.argv[1], 'w').write('{\"rows\": [], \"child\": %d}' % child.pid); child.wait()"
    step = gpu.Step("hangs", 1, lambda options, out: ["-c", started + wrote, str(out)])
    said = gpu._run(step, argparse.Namespace(), 5.0)
    assert said["status"] == "ended after 5 s"
    assert said["found"]["rows"] == []
    until = time.monotonic() + 30
    while alive(said["found"]["child"]):
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(pid):
    try:
        return "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_commands_of_all_steps_are_understood(gpu, monkeypatch, tmp_path, device):
    options = argparse.Namespace(device=device, train=tmp_path, out=tmp_path / "out", fast=False)
    commands = [(step.name, step.words(options, tmp_path / "found.json")) for step in gpu.STEPS]
    commands += [(team, gpu._training(team, track, options)) for team, track in gpu.TRAINED]
    for name, words in commands:
        if words[:2] == ["-m", "ntire"]:
            group = typer.main.get_command(cli.app)
            command = group.get_command(group.context_class(group), words[2])
            with command.make_context(words[2], words[3:]) as context:
                assert context.params["device"] == device, name
        elif words[0] == "-m":
            assert words[1] == "pytest"
            assert str(ROOT / "tests" / "test_gpu.py") in words
        else:
            assert Path(words[0]).is_file()
            assert words[words.index("--device") + 1] == device
            assert "--step" not in words or words[words.index("--step") + 1] in gpu.OWN_STEPS


def test_networks_that_are_trained_need_no_weights_of_others(gpu):
    for team, track in gpu.TRAINED:
        losses = {loss for stage in catalogue.find(team, track).recipe.stages for loss in stage.losses}
        assert losses <= {"l1", "l2", "ssim", "fft", "colour"}, team


@pytest.mark.parametrize("fast", [False, True])
def test_pictures_a_second_are_told_with_what_was_lost_for_them(gpu, fast):
    found = gpu.OWN_STEPS["throughput"](argparse.Namespace(device="cpu", fast=fast))
    assert found["failed"] == []
    assert found["pictures_per_s"] > 0 < found["device_ms"]
    assert (found["effect"] is None) is not fast
    assert found["levels_off_plain"] == 0 or fast
    assert "pictures/s" in gpu._in_words({"found": found})


def test_without_a_gpu_the_gpus_steps_say_so(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="needs a CUDA GPU, and there is none"):
        gpu.main()


@pytest.mark.gpu
def test_networks_are_timed_beside_their_roofline(monkeypatch, tmp_path, capsys):
    script = loaded("gpu_forward")
    script.CASES = script.CASES[1:2]
    monkeypatch.setattr(sys, "argv", ["gpu_forward.py", "--seconds", "0.1", "--json", str(tmp_path / "found.json")])
    script.main()
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["calls"] >= 20
    assert row["median_ms"] > 0.9 * row["floor_ms"] > 0
    assert "MiAlgo srgb phase3" in capsys.readouterr().out
