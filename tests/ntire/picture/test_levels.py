"""Levels to values and back: kernels for GPUs, run here by Triton's interpreter, against the steps of the host."""

import importlib.util
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ntire.benchmark import traffic
from ntire.method import catalogue
from ntire.method.count import on_meta
from ntire.picture import levels
from ntire.picture.colours import IDENTITY
from ntire.picture.image import Rounding, as_image, entering
from ntire.picture.tiling import spans
from tests.conftest import ROOT

CCM = traffic.CCM
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def kernels(monkeypatch):
    """`ntire.picture.gpu_kernels` as TRITON_INTERPRET=1 has it."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spec = importlib.util.spec_from_file_location("interpreted", ROOT / "ntire" / "picture" / "gpu_kernels.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BLOCK", 256)
    monkeypatch.setattr(levels, "_kernels", lambda: (module, ""))


def pixels(height, width, dtype=torch.uint8, batch=1, seed=0):
    """As a file's: (B, 3, H, W), colour by colour in memory."""
    some = torch.randint(0, 256, (batch, height, width, 3), generator=torch.Generator().manual_seed(seed))
    return (some if dtype == torch.uint8 else some * 257 + 1).to(dtype).permute(0, 3, 1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("stored", [torch.uint8, torch.uint16])
def test_levels_enter_with_the_bits_of_the_host(kernels, stored, dtype, layout):
    given = pixels(21, 17, stored, batch=2)[..., 2:20, 3:16]
    image = levels.entered(given, dtype, layout)
    assert image.is_contiguous(memory_format=layout)
    assert torch.equal(image, as_image(given).to(dtype))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_leave_with_the_bits_of_the_host_halves_to_even(kernels, bits, dtype):
    image = 1.4 * torch.rand(3, 22, 19, generator=torch.Generator().manual_seed(1)) - 0.2
    image[:, 0] = (torch.arange(19) + 0.5) / (2**bits - 1)
    image = image.to(dtype)[:, :20, 1:]
    finite = torch.ones((), dtype=torch.bool)
    found = levels.left(image, bits, finite)
    assert torch.equal(found, levels.levels_of(image, bits))
    assert found.permute(1, 2, 0).is_contiguous()
    assert bool(finite)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_told_wherever_it_is(kernels, wrong):
    for place in ((0, 0, 0), (1, 9, 4), (2, 19, 29)):
        image = torch.rand(3, 20, 30)
        image[place] = wrong
        finite = torch.ones((), dtype=torch.bool)
        levels.left(image, 8, finite, CCM)
        assert not bool(finite), place


@pytest.mark.parametrize("bits", [8, 16])
def test_a_cameras_colours_leave_as_on_the_host_but_for_the_last_bits_of_powers(kernels, bits):
    image = 1.2 * torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(2)) - 0.1
    found = levels.left(image, bits, torch.ones((), dtype=torch.bool), CCM).int()
    expected = levels.levels_of(image, bits, CCM).int()
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < (1e-3 if bits == 8 else 0.05)
    assert not torch.equal(expected, levels.levels_of(image, bits, IDENTITY).int())


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_mosaic_enters_with_the_bits_of_the_host(kernels, corner):
    samples = torch.randint(0, 1024, (1, 23, 18), generator=torch.Generator().manual_seed(3)).to(torch.uint16)
    how = ((64.0, 63.5, 64.25, 65.0), 1015.3, (2.1, 1.0, 1.0, 1.7), corner)
    assert torch.equal(levels.entered_mosaic(samples, *how, torch.float32), levels.balanced(samples, *how))
    values = samples.float() / 1023
    assert torch.equal(levels.entered_mosaic(values, *how, torch.float16), levels.balanced(values, *how).half())


def test_without_kernels_the_steps_are_taken_and_that_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ntire.picture.gpu_kernels", None)
    monkeypatch.setattr("ntire.picture.gpu_kernels", None, raising=False)
    levels._kernels.cache_clear()
    try:
        (note,) = levels.told(torch.device("cuda"))
        assert "several passes" in note
        assert levels.told(torch.device("cpu")) == ()
        given = pixels(8, 6, torch.uint16)
        assert torch.equal(levels.entered(given, torch.float32, LAYOUTS[1]), as_image(given))
        image, finite = torch.rand(3, 8, 6), torch.ones((), dtype=torch.bool)
        assert torch.equal(levels.left(image, 16, finite, CCM), levels.levels_of(image, 16, CCM))
        image[0, 3, 3] = float("nan")
        levels.left(image, 8, finite)
        assert not bool(finite)
        samples = (torch.arange(48).reshape(1, 8, 6) * 20).to(torch.uint16)
        how = ((64.0,) * 4, 1023.0, (2.0, 1.0, 1.0, 1.5), (1, 1))
        assert torch.equal(levels.entered_mosaic(samples, *how, torch.float32), levels.balanced(samples, *how))
    finally:
        levels._kernels.cache_clear()


class Passes(TorchDispatchMode):
    """Operators that read or write as much as a picture."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        large = any(isinstance(one, torch.Tensor) and one.numel() > 1 for one in (*args, result))
        asks = func.is_view or func.namespace == "prim" or "empty" in func._schema.name
        if large and not asks:
            self.seen.append(func._schema.name)
        return result


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_a_gpu_pixels_go_in_by_one_pass_and_out_by_one(bits, layout):
    with FakeTensorMode(), Passes() as passes:
        given = torch.empty(1, 16, 16, 3, dtype=levels.LEVELS[bits], device="cuda").permute(0, 3, 1, 2)
        image = entering(given, torch.bfloat16, layout)
        rounding = Rounding(bits)
        rounding(image[0, :, :9])
    assert passes.seen == ["ntire::enter", "ntire::leave"]
    assert rounding.finite.device.type == "cuda"


@pytest.mark.parametrize(("team", "track"), [("MiAlgo", "srgb"), ("MiAlgo", "raw"), ("TongJi-IPOE", "raw")])
def test_of_12_megapixels_conversions_move_at_most_2_percent_of_what_the_network_does(team, track):
    kind = catalogue.find(team, track)
    method = on_meta(kind, deployed=False).bfloat16()  # as published: wavelets that are folded move less
    height, width = 3040, 4032
    frame = traffic.picture_on_meta(kind, height, width)
    around = 2 * kind.border
    lq = torch.empty(1, kind.lq_channels(), height + around, width + around, dtype=torch.bfloat16, device="meta")
    alone = traffic.of_network(method, lq).eager
    assert traffic.of_picture(method, frame).eager <= 1.02 * alone
    if kind.tiling != "exact":
        return
    method.tile = 1024
    read = [
        sum(one.last - one.first for one in spans(side + around, 1024, kind.halo, kind.stride))
        for side in (height, width)
    ]
    factor = read[0] * read[1] / (lq.shape[-2] * lq.shape[-1])
    assert traffic.of_picture(method, frame).eager <= 1.03 * factor * alone
