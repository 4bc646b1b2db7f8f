import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ntire.picture import png
from ntire.picture.png import encode_png
from tests.made import scene


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colour=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    strip=st.integers(1, 400),
    seed=st.integers(0, 5),
)
def test_others_read_back_the_very_pixels_whatever_the_strips(size, colour, dtype, strip, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (*size, 3) if colour else size, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "STRIP_BYTES", strip)
        data = encode_png(pixels)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.dtype == dtype
    assert np.array_equal(decoded[..., ::-1] if colour else decoded, pixels)
    if dtype == np.uint8 or not colour:  # Pillow has no 16-bit RGB
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == ("RGB" if colour else "L" if dtype == np.uint8 else "I;16")
            assert np.array_equal(np.asarray(image), pixels)


def test_the_file_is_one_zlib_stream_with_true_checksums():
    data = encode_png(np.ascontiguousarray(np.tile(scene(600, 700), (2, 1, 1))))
    at, chunks = 8, []
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        chunks.append((name, body))
        at += size + 12
    assert [name for name, _ in chunks] == [b"IHDR", *[b"IDAT"] * 3, b"IEND"]
    rows = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    assert len(rows) == 1200 * (1 + 3 * 700)


def test_the_bytes_do_not_depend_on_threads(monkeypatch):
    pixels = np.ascontiguousarray(np.tile(scene(600, 700), (2, 1, 1)))
    data = encode_png(pixels)
    monkeypatch.setattr(png, "_pool", lambda: type("Serial", (), {"map": staticmethod(map)}))
    assert encode_png(pixels) == data


def test_a_strided_view_is_written_as_it_looks():
    pixels = scene(20, 30)[::2, ::-1]
    assert np.array_equal(cv2.imdecode(np.frombuffer(encode_png(pixels), np.uint8), -1)[..., ::-1], pixels)


@pytest.mark.parametrize("shape", [(4, 4, 4), (0, 4), (4, 4, 1), (4,)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="no PNG can be made"):
        encode_png(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        encode_png(np.zeros((4, 4), np.float32))
