import contextlib
import time

import pytest
import torch

from ntire.picture.raw import RawFrame
from ntire.runner import host_device_copy as lane
from ntire.runner.host_device_copy import CudaLane, HostLane, lane_to, on, pinned
from ntire.runner.pinned_ring import PinnedRing

FRAME = torch.randint(0, 255, (3, 6, 8), dtype=torch.uint8)


def test_the_way_is_chosen_by_the_kind_of_device(monkeypatch):
    monkeypatch.setattr(CudaLane, "__init__", lambda self, device: None)
    assert type(lane_to(torch.device("cuda:1"))) is CudaLane
    assert type(lane_to(torch.device("cpu"))) is HostLane


def test_on_the_host_nothing_is_copied_and_the_clock_is_the_host_s():
    way = lane_to(torch.device("cpu"))
    way.enter()
    assert way.upload(FRAME) is FRAME
    assert pinned(FRAME, "cpu") is FRAME
    began = way.mark()
    time.sleep(0.01)
    arriving = way.download((FRAME,), began)
    arriving.wait()
    assert arriving.tensors()[0] is FRAME
    assert 0.01 <= arriving.seconds() < 1


def test_a_raw_frame_moves_with_its_samples_alone():
    frame = RawFrame(torch.ones(1, 4, 4, dtype=torch.uint16), "RGGB", (2.0, 1.0, 1.5), white_level=1023.0)
    moved = on(frame, lambda tensor: tensor.clone())
    assert moved.samples is not frame.samples
    assert (moved.cfa, moved.white_balance, moved.white_level) == (frame.cfa, frame.white_balance, 1023.0)
    assert torch.equal(moved.mosaic, frame.mosaic)


class Recorder:
    """Stands for CUDA: writes down which stream does and waits for what."""

    def __init__(self):
        self.log = []
        self.now = self.computing = self.stream("compute")
        self.names = iter(("up", "down"))

    def stream(self, name):
        recorder = self

        class Stream:
            def wait_stream(self, other):
                recorder.log.append(f"{name} waits for {other.name}")

        stream = Stream()
        stream.name = name
        return stream

    @contextlib.contextmanager
    def on(self, stream):
        before, self.now = self.now, stream
        yield
        self.now = before

    def event(self, enable_timing=False, blocking=False):
        recorder = self
        # The host waits for arrivals alone, and sleeps meanwhile.
        assert blocking is not enable_timing

        class Event:
            def record(self, stream):
                recorder.log.append(f"{'clock' if enable_timing else 'event'} on {stream.name}")

            def query(self):
                return recorder.copied

            def synchronize(self):
                recorder.log.append("host waits")
                if recorder.broken:
                    raise RuntimeError("CUDA error: unspecified launch failure")

        return Event()

    broken = False
    copied = False
    """Whether copies that were ordered are over."""


@pytest.fixture
def cuda(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: recorder.stream(next(recorder.names)))
    monkeypatch.setattr(torch.cuda, "Event", recorder.event)
    monkeypatch.setattr(torch.cuda, "stream", recorder.on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: recorder.computing)

    def record_stream(tensor, stream):
        recorder.log.append(f"memory kept for {stream.name}")

    def moved(frame, move):
        recorder.log.append(f"upload on {recorder.now.name}")
        return move(frame)

    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    for name in ("UP", "DOWN"):
        monkeypatch.setattr(lane, name, PinnedRing(1 << 12, lambda size: torch.empty(size, dtype=torch.uint8)))
    own = lane._landing_for

    def landing_for(tensor):
        recorder.log.append(f"download on {recorder.now.name}")
        return own(tensor)

    monkeypatch.setattr(lane, "_landing_for", landing_for)
    monkeypatch.setattr(lane, "on", moved)
    return recorder


def test_pictures_come_and_go_on_streams_of_their_own_that_wait_for_each_other_and_never_for_the_host(cuda):
    way = CudaLane(torch.device("cpu"))
    frame = way.upload(FRAME)
    assert cuda.log == ["upload on up", "compute waits for up", "event on up", "memory kept for compute"]
    cuda.log.clear()
    began = way.mark()
    arriving = way.download((frame,), began)
    assert cuda.log == [
        "clock on compute", "clock on compute", "down waits for compute", "download on down", "memory kept for down",
        "event on down",
    ]  # fmt: skip
    cuda.log.clear()
    arriving.wait()
    assert cuda.log == ["host waits"]
    assert torch.equal(arriving.tensors()[0], FRAME)


def test_an_error_of_the_device_shows_where_its_result_is_used(cuda):
    way = CudaLane(torch.device("cpu"))
    arriving = way.download((FRAME,), way.mark())
    cuda.broken = True
    arriving.wait()
    with pytest.raises(RuntimeError, match="CUDA error"):
        arriving.tensors()


def test_pictures_lie_in_pinned_memory_until_their_copies_are_over(cuda):
    way = CudaLane(torch.device("cpu"))
    frames = [pinned(FRAME, "cuda") for _ in range(4)]
    places = {frame.data_ptr() for frame in frames}
    assert len(places) == 4
    assert all(torch.equal(frame, FRAME) for frame in frames)
    way.upload(frames[0])
    del frames[0]
    assert pinned(FRAME, "cuda").data_ptr() not in places
    cuda.copied = True
    way.upload(FRAME)
    assert pinned(FRAME, "cuda").data_ptr() in places
    cuda.copied = False
    arriving = way.download((FRAME,), way.mark())
    place = arriving.tensors()[0].data_ptr()
    del arriving  # a run was stopped, and nobody waits for it
    assert way.download((FRAME,), way.mark()).tensors()[0].data_ptr() != place


@pytest.mark.parametrize("budget", [0, 1 << 12])
def test_without_memory_to_pin_pictures_go_the_slow_way(cuda, monkeypatch, budget):
    def none_left(size):
        raise RuntimeError("CUDA error: out of memory")

    for name in ("UP", "DOWN"):
        monkeypatch.setattr(lane, name, PinnedRing(budget, none_left))
    assert pinned(FRAME, "cuda") is FRAME
    way = CudaLane(torch.device("cpu"))
    arriving = way.download((FRAME,), way.mark())
    arriving.wait()
    assert torch.equal(arriving.tensors()[0], FRAME)
