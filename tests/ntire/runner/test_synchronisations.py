"""What waits for a GPU, counted without one: fake tensors say where they are, and every copy between host and device shows."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ntire.benchmark.traffic import CCM
from ntire.method import catalogue
from ntire.method.contract import enhanced
from ntire.method.face_alignment import cut_out, put_back
from ntire.picture import colours, tiling
from ntire.picture.image import Rounding
from ntire.picture.raw import RawFrame

COPIES = ("aten::_to_copy", "aten::copy_")


class Waits(TorchDispatchMode):
    """Counts copies between host and device that are not asked for in the background, and values that Python asks for."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in COPIES:
            source = [one for one in args if isinstance(one, torch.Tensor)][-1]
            background = (kwargs or {}).get("non_blocking") or (len(args) > 2 and args[2] is True)
            if {source.device.type, result.device.type} == {"cpu", "cuda"} and not background:
                self.seen[f"{source.device.type} to {result.device.type}, {tuple(result.shape)}"] += 1
        elif name == "aten::_local_scalar_dense" and args[0].device.type == "cuda":
            self.seen["a value"] += 1
        return result


def waits(method, frame):
    with torch.no_grad(), Waits() as waits:
        enhanced(method, frame, Rounding(8))
    return dict(waits.seen)


@pytest.fixture
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    # What a device keeps for its next picture must not be taken for real.
    colours._made_on.cache_clear()
    tiling._window.cache_clear()


def method_of(team, track, tile):
    kind = catalogue.find(team, track)
    with torch.device("cuda"):
        method = kind(**kind.tiny).eval().requires_grad_(False)
    method.tile = tile
    return method


@pytest.mark.parametrize(("tile", "size"), [(None, (64, 96)), (None, (61, 91)), (32, (126, 90))])
def test_a_picture_is_restored_without_waiting_for_the_device(fake, tile, size):
    frame = torch.empty(*size, 3, dtype=torch.uint8, device="cuda").permute(2, 0, 1)
    assert waits(method_of("MiAlgo", "srgb", tile), frame) == {}


@pytest.mark.parametrize(("team", "first"), [("MiAlgo", 0), ("TongJi-IPOE", 0), ("PolyU-AISP", 1)])
def test_a_raw_frame_with_colours_to_correct_is_restored_in_tiles_without_waiting_for_the_device(fake, team, first):
    samples = torch.empty(1, 250, 190, dtype=torch.uint16, device="cuda")
    frame = RawFrame(samples, "GRBG", (2.0, 1.0, 1.6), CCM, None, None, (), (64.0,) * 4, 1023.0)
    method = method_of(team, "raw", 64)
    # PolyU-AISP's weights of a tile go to the device once.
    assert sum(waits(method, frame).values()) == first
    assert waits(method, frame) == {}


def test_faces_are_cut_out_and_put_back_without_waiting_for_the_device(fake):
    turned = np.array([[0.9, -0.1, 20.0], [0.1, 0.9, 4.0]])
    picture = torch.empty(3, 200, 260, device="cuda")
    with torch.no_grad(), Waits() as waits:
        put_back(picture, cut_out(picture, turned, 64), turned)
    assert dict(waits.seen) == {}
