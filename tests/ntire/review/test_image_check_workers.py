"""Pictures are decoded elsewhere: what a decoder does wrong ends with it, and the next picture is looked at."""

import os
import signal
import struct
import sys
import zlib

import numpy as np
import pytest

from ntire import UserError
from ntire.review import image_check_workers as decoder
from ntire.review.image_check_workers import Decoders
from ntire.review.image_checks import Wanted, digest_of, look_at
from tests.made import scene, write_png


@pytest.fixture
def own():
    made = Decoders()
    yield made
    made.close()


def test_they_see_what_we_would_see(own, tmp_path):
    path = write_png(tmp_path / "a.png", scene())
    lq = write_png(tmp_path / "lq.png", scene(80, 96, seed=1))
    broken = tmp_path / "b.png"
    broken.write_bytes(path.read_bytes()[:-9])
    wanted = [Wanted(path, "a.png"), Wanted(path, "a.png", lq), Wanted(broken, "b.png"), Wanted(path, "a", size=(1, 2))]
    assert own.look(wanted) == [look_at(one) for one in wanted]
    assert own.digests([path, broken, lq], {(40, 48)}) == [digest_of(scene()), digest_of(scene()), None]
    lq.write_text("x")
    with pytest.raises(UserError, match="lq.png"):
        own.look([Wanted(path, "a.png", lq)])


def test_none_of_several_is_left_when_they_are_closed(tmp_path):
    several = Decoders()
    several._count = 2
    del several._idle.queue[2:]
    for place in several._idle.queue:
        place.child = several._starter.submit(several._started).result()
    processes = [place.child._process for place in several._idle.queue]
    several.close()
    assert all(process.poll() is not None for process in processes)


def test_one_that_has_ended_is_no_fault_of_the_next_picture(own, tmp_path):
    path = write_png(tmp_path / "a.png", scene())
    own._count = 1
    assert own.look([Wanted(path, "a.png")])[0].digest
    os.kill(own._idle.queue[-1].child._process.pid, signal.SIGKILL)
    assert own.look([Wanted(path, "a.png")])[0].findings == ()


def test_a_picture_that_ends_its_decoder_is_a_finding_and_the_next_one_is_looked_at(own, tmp_path, monkeypatch):
    path = write_png(tmp_path / "a.png", scene())
    ask = decoder.Child.ask

    def dies(child, request, *rest):
        if request.get("name") == "bad.png":
            child.kill()
        return ask(child, request, *rest)

    monkeypatch.setattr(decoder.Child, "ask", dies)
    assert [one.code for one in own.look([Wanted(path, "bad.png")])[0].findings] == ["E307"]
    assert own.look([Wanted(path, "a.png")])[0].findings == ()


def test_memory_is_capped(own, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "LIMITS", decoder.Limits(seconds=60, memory_bytes=120 << 20, file_bytes=0))
    pixels = np.zeros((6000, 6000, 3), np.uint8)
    pixels[0, 0] = 1
    path = write_png(tmp_path / "big.png", pixels)
    (finding,) = own.look([Wanted(path, "big.png")])[0].findings
    assert finding.code == "E307"
    assert "memory" in finding.found


def test_a_decoder_cannot_write_a_file(own, tmp_path, monkeypatch):
    """Not even when it is led to: its limit on the size of files is none at all."""
    program = "import sys; sys.path[:0] = sys.argv[2:]; from ntire.review import image_check_workers as decoder\n"
    program += "from pathlib import Path\n"
    program += f"decoder.look_at = lambda wanted: Path({str(tmp_path / 'pwned')!r}).write_text('x')\ndecoder.main()"
    monkeypatch.setattr(sys.modules["ntire.sandbox.child"], "RUN_INSIDE", lambda module: program)
    own.look([Wanted(write_png(tmp_path / "a.png", scene()), "a.png")])
    assert not (tmp_path / "pwned").exists() or (tmp_path / "pwned").read_bytes() == b""


def test_a_chunk_that_unpacks_to_much_is_not_unpacked_here(own, tmp_path):
    path = write_png(tmp_path / "a.png", scene())
    data = path.read_bytes()
    body = b"name\0\0" + zlib.compress(bytes(1 << 27), 9)
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body + struct.pack(">I", zlib.crc32(b"iCCP" + body))
    path.write_bytes(data[:33] + chunk + data[33:])
    seen = own.look([Wanted(path, "a.png")])[0]
    assert seen.digest == digest_of(scene()) or seen.findings
