import subprocess
import sys

import pytest
import torch
from torch import nn

from ntire import UserError
from ntire.method import Method, catalogue
from ntire.runner import backends
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import find_inputs, run
from ntire.runner.speedups import speed_up
from tests.made import scene, write_png


class Plain(Method):
    team, track = "Plain", "srgb"
    tiling, halo, stride = "exact", 2, 2

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, lq):
        return lq + self.body(lq)


SIGNALS = """
import os, signal, threading
from ntire.method import catalogue
from ntire.runner.backends import Exported

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append("signal"))
kind = catalogue.find("MiAlgo", "srgb")
exported = [Exported(kind(**kind.tiny).eval(), "%s") for _ in range(2)]
del exported[0]
other = threading.Thread(target=exported.clear)
other.start()
other.join()
os.kill(os.getpid(), signal.SIGUSR1)
print(*heard)
"""


class NotExportable(Plain):
    def forward(self, lq):
        return lq + torch.fft.irfft2(torch.fft.rfft2(self.body(lq)), s=lq.shape[-2:]).bernoulli()


@pytest.fixture(params=["openvino", "onnx"])
def backend(request):
    for package in backends.PACKAGES[request.param]:
        pytest.importorskip(package, reason="an optional backend")
    return request.param


def test_another_program_gives_the_same_pixels_and_tiles_the_same_as_the_whole(backend):
    method = Plain().eval().requires_grad_(False)
    lq = torch.rand(3, 50, 70)
    expected = method.in_tiles(lq)
    speed_up(method, Options(backend=backend))
    whole = method.in_tiles(lq)
    assert torch.allclose(whole, expected, atol=1e-5)
    method.execution.tile, method.execution.same_size = 24, True
    assert torch.allclose(method.in_tiles(lq), whole, atol=1e-6)


def test_signals_are_handled_after_graphs_are_let_go_in_another_thread(backend):
    ran = subprocess.run([sys.executable, "-c", SIGNALS % backend], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "signal\n"), ran.stderr


def test_a_run_prints_the_effect_and_is_not_mixed_with_one_of_another_program(backend, tmp_path):
    write_png(tmp_path / "lq" / "a.png", scene(40, 60))
    kind = catalogue.find("MiAlgo", "srgb")
    inputs = find_inputs([tmp_path / "lq"], "srgb")
    done = run(prepare(kind, Options(backend=backend)), inputs, tmp_path / "out", "demo-srgb")
    assert done.effect.of == (backend,)
    assert done.effect.largest_levels < 0.01
    with pytest.raises(UserError, match="backend"):
        run(prepare(kind, Options()), inputs, tmp_path / "out", "demo-srgb")


def test_what_a_backend_cannot_do_is_said_before_anything_is_restored(backend, monkeypatch):
    with pytest.raises(UserError, match=f"--backend {backend}: Plain's network cannot be exported"):
        speed_up(NotExportable().eval(), Options(backend=backend))
    with pytest.raises(UserError, match=r"leave out --precision bf16, --channels-last\."):
        speed_up(Plain().eval(), Options(backend=backend, channels_last=True, precision="bf16"))
    with pytest.raises(UserError, match="in fp32"):
        speed_up(Plain().eval().bfloat16(), Options(backend=backend))
    monkeypatch.setattr(Plain, "restore", lambda self, path: None)
    with pytest.raises(UserError, match="restores its own way"):
        speed_up(Plain().eval(), Options(backend=backend))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_backend_that_is_not_installed_names_its_extra(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(UserError, match=rf"pip install 'ntire\[{backend}\]'"):
        speed_up(Plain().eval(), Options(backend=backend))
