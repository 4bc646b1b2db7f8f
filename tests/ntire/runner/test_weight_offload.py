"""Parts of a method take turns on the device: here the meta device, which shows where a tensor is and costs nothing."""

import contextlib

import pytest
import torch
from torch import nn

from ntire import UserError
from ntire.method import Method
from ntire.runner.prepare import Options, prepare
from ntire.runner.weight_offload import take_turns

META = torch.device("meta")


class Pipeline(Method):
    """Three parts of 4, 4 and 8 kB, one of which is called twice, and 4 bytes of its own."""

    team = "Pipeline"
    track = "srgb"
    cite = "raim2025"
    tiling = "exact"
    halo = 0
    stride = 1

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 32, bias=False)
        self.second = nn.Sequential(nn.Linear(32, 31), nn.BatchNorm1d(1))
        self.third = nn.Linear(64, 32, bias=False)
        self.third.also = self.third.weight
        self.register_buffer("gain", torch.ones(1))
        self.seen = []

    def forward(self, lq):
        for name in ("first", "second", "first", "third", "second"):
            part = getattr(self, name)
            part(torch.zeros(1, 1 if name == "second" else 2, 64 if name == "third" else 32, device=lq.device))
            self.seen.append("".join(one[0] for one in ("first", "second", "third") if self.on_meta(one)))
        return lq * self.gain

    def on_meta(self, name):
        return {value.is_meta for value in getattr(self, name).state_dict().values()} == {True}


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    return Pipeline().eval().requires_grad_(False)


def test_what_is_called_is_on_the_device_and_what_was_called_longest_ago_makes_room(pipeline):
    take_turns(pipeline, META, "fp32", 12_400e-9)
    assert pipeline.device == META
    pipeline.in_tiles(torch.zeros(3, 4, 4))
    assert pipeline.seen == ["f", "fs", "fs", "ft", "st"]


def test_with_room_for_one_only_one_is_there(pipeline):
    before = {name: value.clone() for name, value in pipeline.state_dict().items()}
    turns = take_turns(pipeline, META, "fp32", 8_300e-9)
    pipeline.in_tiles(torch.zeros(3, 4, 4))
    assert pipeline.seen == ["f", "fs", "fs", "t", "s"]
    assert [part.name for part in turns.present] == ["second"]
    turns.present.pop().unload()
    after = {name: value for name, value in pipeline.state_dict().items() if name != "gain"}
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert pipeline.third.also is pipeline.third.weight


def test_a_part_that_calls_another_stays_until_it_is_done_and_both_must_fit(pipeline):
    turns = take_turns(pipeline, META, "fp32", 12_400e-9)
    calling = pipeline.first.forward
    seen = []

    def calls_others(x):
        for name in ("second", "third"):
            getattr(pipeline, name)(
                torch.zeros(1, 1 if name == "second" else 2, 64 if name == "third" else 32, device=META)
            )
            seen.append(sorted(part.name for part in turns.present))
        return calling(x)

    pipeline.first.forward = calls_others
    pipeline.first(torch.zeros(1, 32, device=META))
    assert seen == [["first", "second"], ["first", "third"]]
    assert turns.working == []
    turns.limit = 9_000
    for part in list(turns.present):
        turns.present.remove(part)
        part.unload()
    with pytest.raises(UserError, match="first and third work at once"):
        pipeline.first(torch.zeros(1, 32, device=META))
    assert turns.working == []


def test_what_fits_is_moved_once_and_half_precision_halves_what_is_needed(pipeline):
    assert take_turns(pipeline, META, "bf16", 9e-6) is None
    assert all(value.is_meta for value in pipeline.state_dict().values())
    assert pipeline.dtype == torch.bfloat16


@pytest.fixture
def streams(monkeypatch):
    """Stands for CUDA's streams: writes down what waits for what."""
    log = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

        def wait_event(self, event):
            log.append(f"{self.name} waits for {event.what}")

    class Event:
        def record(self, stream):
            self.what = f"weights on {stream.name}"
            log.append("copied")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("compute"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return Stream("up"), log


def test_the_part_that_follows_is_fetched_while_this_one_computes(pipeline, streams):
    turns = take_turns(pipeline, META, "fp32", 12_400e-9)
    turns.up, log = streams
    parts = {name: next(one for one in turns_of(pipeline) if one.name == name) for name in ("first", "second", "third")}

    def call(name):
        turns.begin(parts[name])
        turns.end(parts[name])
        return "".join(sorted(one.name[0] for one in turns.present))

    # The first time round nothing is known of what follows, and each comes when it is called.
    assert [call(name) for name in ("first", "second", "third")] == ["f", "fs", "st"]
    assert call("first") == "ft"
    log.clear()
    # Second after first is what came before: it is there when first computes, as far as both have room.
    call("second")
    call("third")
    assert call("first") == "fs"
    assert log[-3:] == ["compute waits for weights on up", "up waits for compute", "copied"]
    log.clear()
    assert call("second") == "st"
    assert log[0] == "compute waits for weights on up", "it is waited for when it is called"
    assert log[1:3] == ["up waits for compute", "copied"], "and third is fetched meanwhile"
    assert sum(one.bytes for one in turns.present) <= turns.limit


def test_a_part_without_room_beside_the_one_that_works_is_not_fetched(pipeline, streams):
    turns = take_turns(pipeline, META, "fp32", 8_300e-9)
    turns.up, _ = streams
    for part in 3 * turns_of(pipeline):
        turns.begin(part)
        assert sum(one.bytes for one in turns.present) <= turns.limit
        turns.end(part)


def test_weights_that_are_on_their_way_are_waited_for_before_their_memory_is_given_away(pipeline, streams):
    turns = take_turns(pipeline, META, "fp32", 12_400e-9)
    turns.up, log = streams
    part = turns_of(pipeline)[0]
    part.load(META, turns.up)
    turns.present.append(part)
    log.clear()
    with pipeline.execution.making_room():
        assert log == ["compute waits for weights on up"]


def turns_of(pipeline):
    """The parts, as the hooks of its modules hold them."""
    hooks = [hook for module in pipeline.children() for hook in module._forward_pre_hooks.values()]
    return [hook.args[1] for hook in hooks]


def test_all_parts_make_room_and_come_back_when_they_are_called(pipeline):
    turns = take_turns(pipeline, META, "fp32", 12_400e-9)
    pipeline.in_tiles(torch.zeros(3, 4, 4))
    with pipeline.execution.making_room():
        assert turns.present == []
        assert not any(pipeline.on_meta(name) for name in ("first", "second", "third"))
    pipeline.in_tiles(torch.zeros(3, 4, 4))
    assert pipeline.seen[-1] == "st"


def test_a_method_that_fits_under_the_limit_makes_room_as_a_whole():
    with torch.device("meta"):
        method = Pipeline().eval().requires_grad_(False)
    moves = []
    method.to = lambda *where, **how: moves.append(where or how)
    assert take_turns(method, META, "fp32", 1) is None
    with method.execution.making_room():
        moves.append("room")
    assert moves == [{"dtype": torch.float32}, (META,), ("cpu",), "room", (META,)]


def test_parts_that_are_too_large_alone_are_all_named(pipeline):
    with pytest.raises(UserError, match=r"(?s)--max-memory 5e-06.*third: .*--precision bf16") as caught:
        take_turns(pipeline, META, "fp32", 5e-6)
    assert "first" not in str(caught.value)


def test_a_limit_on_the_cpu_is_refused():
    from ntire.teams.face.copy import Copy

    with pytest.raises(UserError, match="--max-memory limits what is on one GPU"):
        prepare(Copy, Options(max_memory_gb=4))


@pytest.mark.gpu
def test_turns_change_no_bit_and_hold_the_limit():
    class Convolutions(Method):
        team, track, cite, tiling, halo, stride = "C", "srgb", "raim2025", "exact", 8, 1

        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
            self.a, self.b = nn.Conv2d(3, 512, 3, padding=1), nn.Conv2d(512, 3, 3, padding=1)

        def forward(self, lq):
            return self.b(self.a(lq))

    torch.manual_seed(0)
    method = Convolutions().eval().requires_grad_(False)
    lq = torch.rand(3, 64, 64)
    whole = method.to("cuda").in_tiles(lq).cpu()
    method.to("cpu")
    assert take_turns(method, torch.device("cuda"), "fp32", 60_000e-9) is not None
    assert torch.equal(method.in_tiles(lq).cpu(), whole)
    assert method.b.weight.is_cuda
    assert not method.a.weight.is_cuda
