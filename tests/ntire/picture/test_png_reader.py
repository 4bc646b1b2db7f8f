"""The fast reader of PNGs gives the pixels that others give, or leaves a file to them: whole, damaged or of another kind."""

import io
import struct
import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ntire.picture import pillow_formats, png_reader
from ntire.picture.header import UnreadableImage
from ntire.picture.png import chunk, encode_png
from ntire.picture.png_reader import decode_rgb
from tests.made import scene

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_of(pixels, filters, parts=1, before=b"", after=b"", level=6):
    """RGB pixels as a PNG whose rows have these filters, its zlib stream in so many chunks."""
    height, width = pixels.shape[:2]
    bits = 8 * pixels.itemsize
    step = 3 * pixels.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, width * step).astype(int)
    above = np.zeros(width * step, int)
    raw = b""
    for row, kind in zip(rows, filters, strict=True):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        slope = left + above - corner
        far = np.abs(np.stack([slope - left, slope - above, slope - corner]))
        paeth = np.choose(far.argmin(0), [left, above, corner])
        predicted = (0 * row, left, above, (left + above) // 2, paeth)[kind]
        raw += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    stream = zlib.compress(raw, level)
    cuts = np.linspace(0, len(stream), parts + 1).astype(int)
    data = [chunk(b"IDAT", stream[begin:end]) for begin, end in pairwise(cuts)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return SIGNATURE + header + before + b"".join(data) + after + chunk(b"IEND", b"")


def others(data):
    """What is read without it: pixels, or the words of the refusal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pillow_formats, "decode_rgb", lambda data: None)
        return read(data)


def read(data):
    try:
        return pillow_formats.decode("a.png", data)
    except UnreadableImage as error:
        return str(error)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return one.dtype == other.dtype and np.array_equal(one, other)


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    filters=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    parts=st.integers(1, 5),
    strip=st.integers(1, 300),
    level=st.sampled_from([0, 1, 9]),
    seed=st.integers(0, 5),
)
def test_every_filter_and_depth_is_read_as_others_read_it(size, dtype, filters, parts, strip, level, seed):
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype=dtype)
    data = png_of(pixels, filters[: size[0]], parts, level=level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_reader, "STRIP_BYTES", strip)
        found = decode_rgb(data)
    assert found is not None
    assert found.dtype == dtype
    assert np.array_equal(found, pixels)
    assert same(others(data), pixels)


def test_strips_and_long_rows_are_joined():
    pixels = np.ascontiguousarray(np.tile(scene(90, 700), (9, 34, 1)))  # rows longer than a block, three strips
    assert np.array_equal(decode_rgb(encode_png(pixels)), pixels)


def saved(mode, **how):
    made = io.BytesIO()
    picture = (
        Image.fromarray(scene()).convert(mode) if mode != "I;16" else Image.fromarray(scene()[..., 0].astype("u2"))
    )
    picture.save(made, "PNG", **how)
    return made.getvalue()


def with_rows(stream, bits):
    """A PNG of 10 x 10 with this for a zlib stream."""
    header = struct.pack(">IIBBBBB", 10, 10, bits, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


TURNED = Image.Exif()
TURNED[0x112] = 6
TRANSPARENT = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 27), 9))
KINDS = {
    "palette": (saved("P"), False),
    "palette, transparent": (saved("P", transparency=3), False),
    "gray": (saved("L"), False),
    "gray, alpha": (saved("LA"), False),
    "alpha": (saved("RGBA"), False),
    "bilevel": (saved("1"), False),
    "16 bits, gray": (saved("I;16"), False),
    "a transparent colour": (png_of(scene(), [4] * 40, before=TRANSPARENT), True),
    "16 bits, a transparent colour": (png_of(scene().astype("u2") * 257, [4] * 40, before=TRANSPARENT), True),
    "metadata": (saved("RGB", dpi=(72, 72)), True),
    "turned": (saved("RGB", exif=TURNED), True),
    "metadata behind": (png_of(scene(), [1] * 40, after=chunk(b"tEXt", b"a\0b")), False),
    "much metadata behind": (png_of(scene(), [1] * 40, after=TEXT_BOMB), False),
    "a chunk between": (png_of(scene(), [1] * 40, after=chunk(b"tIME", bytes(7)) + chunk(b"IDAT", b"")), False),
    "animation": (png_of(scene(), [2] * 40, before=chunk(b"acTL", struct.pack(">II", 1, 0))), False),
    "bytes behind": (encode_png(scene()) + b"more", True),
    "no end": (encode_png(scene())[:-12], False),
    "too few rows": (png_of(scene(39), [2] * 39).replace(struct.pack(">I", 39), struct.pack(">I", 40), 1), False),
    "an unknown filter": (with_rows(zlib.compress(10 * (b"\x05" + bytes(30))), 8), False),
    "a stream without its checksum": (with_rows(zlib.compress(bytes(310))[:-4], 8), False),
    "another window": (with_rows(b"\x18\x19" + zlib.compress(bytes(310))[2:], 8), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_does_not_take_is_read_as_before(kind):
    data, taken = KINDS[kind]
    assert (decode_rgb(data) is not None) == taken
    assert same(read(data), others(data))


@given(st.data(), st.sampled_from([np.uint8, np.uint16]))
def test_a_damaged_file_is_what_it_was(draw, dtype):
    """One byte is another, some are missing, or some are more: the same pixels or the same words."""
    data = png_of(scene(9, 7).astype(dtype), [4, 3, 2, 1, 0, 4, 3, 2, 1], parts=2, before=chunk(b"tEXt", b"a\0b"))
    at = draw.draw(st.integers(8, len(data) - 1))
    how = draw.draw(st.sampled_from(["flip", "cut", "put", "end"]))
    changed = {
        "flip": data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :],
        "cut": data[:at] + data[at + draw.draw(st.integers(1, 30)) :],
        "put": data[:at] + draw.draw(st.binary(min_size=1, max_size=20)) + data[at:],
        "end": data[:at],
    }[how]
    assert same(read(changed), others(changed))


@given(st.data())
def test_so_is_one_whose_checksums_were_mended(draw):
    """Those of the chunks: what is wrong lies in the stream of pixels, its checksum or its size."""
    data = bytearray(png_of(scene(9, 7), [4, 3, 2, 1, 0, 4, 3, 2, 1]))
    begin = data.index(b"IDAT") + 4
    end = data.index(b"IEND") - 8
    at = draw.draw(st.integers(begin, end - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    data[end : end + 4] = struct.pack(">I", zlib.crc32(data[begin - 4 : end]))
    assert same(read(bytes(data)), others(bytes(data)))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_stream_that_holds_more_than_the_picture_is_not_unpacked(bits):
    data = with_rows(zlib.compress(bytes(1 << 26), 9), bits)
    tracemalloc.start()
    try:
        assert decode_rgb(data) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()
