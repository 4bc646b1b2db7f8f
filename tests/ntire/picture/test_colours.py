"""Colours keep their order and matrices their direction: held to files and values that this program did not make."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ntire.picture.image import encode_png, read_image, read_pixels, write_image
from ntire.picture.raw import apply_matrix, ccm_from_xyz, correct_colours, demosaic, pack

ORANGE = (250, 120, 20)
"""Red, green, blue: no two alike."""


def png(bits: int, colour: tuple[int, ...], size: int = 4) -> bytes:
    """A PNG of one colour written by the letter of its standard: each pixel red, green, blue, high byte first."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = struct.pack(">3H" if bits == 16 else ">3B", *colour)
    rows = (b"\0" + pixel * size) * size
    header = struct.pack(">2I5B", size, size, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(colour: tuple[int, int, int], size: int = 4) -> bytes:
    """A BMP of one colour by hand: blue comes first."""
    pixels = bytes(reversed(colour)) * size * size
    header = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


@pytest.mark.parametrize(("name", "data"), [("a.png", png(8, ORANGE)), ("a.bmp", bmp(ORANGE))])
def test_red_is_read_first_from_files_made_by_hand(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert (read_pixels(tmp_path / name) == ORANGE).all()
    assert read_image(tmp_path / name)[:, 0, 0].tolist() == pytest.approx([one / 255 for one in ORANGE], abs=1e-7)


def test_red_is_read_first_at_16_bits(tmp_path):
    colour = (64250, 30840, 5141)
    (tmp_path / "a.png").write_bytes(png(16, colour))
    assert (read_pixels(tmp_path / "a.png") == colour).all()


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "WEBP", "BMP", "PNG"])
def test_red_is_read_first_from_what_another_program_wrote(tmp_path, form):
    path = tmp_path / f"a.{form.lower()}"
    Image.new("RGB", (16, 16), ORANGE).save(path, form)
    assert np.abs(read_pixels(path)[8, 8].astype(int) - ORANGE).max() <= 4


@pytest.mark.parametrize("bits", [8, 16])
def test_red_is_written_first(tmp_path, bits):
    image = torch.tensor(ORANGE).div(255).reshape(3, 1, 1).expand(3, 4, 4)
    write_image(tmp_path / "a.png", image, bits)
    found = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))[0, 0]
    assert np.abs(found.astype(int) - ORANGE).max() <= 1
    eight = np.full((4, 4, 3), ORANGE, np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(eight)))) == ORANGE).all()


def test_red_of_a_mosaic_is_the_first_plane_and_the_first_channel():
    mosaic = torch.zeros(1, 8, 8)
    mosaic[0, ::2, ::2], mosaic[0, 1::2, 1::2] = 0.9, 0.2  # RGGB: red at even places, blue at odd ones
    assert [float(plane.mean()) for plane in pack(mosaic)] == pytest.approx([0.9, 0, 0, 0.2])
    assert demosaic(mosaic)[:, 4, 4].tolist() == pytest.approx([0.9, 0, 0.2])


def test_a_matrix_multiplies_from_the_left():
    pixel = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    found = apply_matrix(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]), pixel)
    assert found.flatten().tolist() == pytest.approx([1.4, 3.2, 5.0])


def test_colours_are_corrected_in_linear_light_row_by_row():
    """Linear (0.2, 0.4, 0.1) becomes (0.16, 0.5, -0.05): the rows of the matrix times the pixel, then clipped."""
    encoded = torch.tensor([ENCODED[0.2], ENCODED[0.4], ENCODED[0.1]]).reshape(3, 1, 1)
    found = correct_colours(encoded, ((1.5, -0.3, -0.2), (-0.2, 1.4, -0.2), (0.0, -0.5, 1.5)))
    assert found.flatten().tolist() == pytest.approx([ENCODED[0.16], ENCODED[0.5], 0.0], abs=1e-5)


ENCODED = {0.1: 0.349190, 0.16: 0.436627, 0.2: 0.484529, 0.4: 0.665185, 0.5: 0.735357}
"""Linear light and its code by IEC 61966-2-1."""


def test_a_camera_s_matrix_is_dcraw_s():
    """Canon EOS 5D Mark II: dcraw's own table of XYZ coefficients, and its matrix to sRGB computed with NumPy."""
    camera_from_xyz = torch.tensor([[4716, 603, -830], [-7798, 15474, 2480], [-1496, 1937, 6651]]) / 10_000
    found = ccm_from_xyz(camera_from_xyz)
    assert torch.allclose(found, torch.tensor(CANON), atol=2e-3)
    assert not torch.allclose(found.T, torch.tensor(CANON), atol=0.05)


CANON = [[2.06819, -1.32034, 0.25215], [-0.03815, 1.36546, -0.32731], [0.03569, -0.37878, 1.34309]]
