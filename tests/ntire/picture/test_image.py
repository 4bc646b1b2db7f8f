import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ntire import UserError
from ntire.picture.image import (
    Rounding,
    UnreadableImage,
    as_image,
    as_pixels,
    check_finite,
    encode_png,
    read_header,
    read_image,
    read_integers,
    read_pixels,
    write_image,
)
from tests.made import scene, write_png


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp"])
def test_lossless_formats_of_8_bits_come_back_as_they_were(tmp_path, name):
    picture = scene()
    path = saved(tmp_path, Image.fromarray(picture), name, **({"lossless": True} if name == "a.webp" else {}))
    assert np.array_equal(read_pixels(path), picture)
    assert read_image(path).dtype == torch.float32
    scaled = torch.from_numpy(picture.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(read_image(path), scaled)


def test_a_jpeg_is_read_as_pillow_decodes_it(tmp_path):
    path = saved(tmp_path, Image.fromarray(scene()), "a.jpg", quality=90)
    assert np.array_equal(read_pixels(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour_keeps_every_level(tmp_path, suffix):
    picture = np.random.default_rng(0).integers(0, 2**16, (7, 9, 3), dtype=np.uint16)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture[..., ::-1])
    assert np.array_equal(read_pixels(path), picture)
    assert read_header(path).bits == 16


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_gray_becomes_three_equal_channels(tmp_path, suffix):
    gray = np.random.default_rng(0).integers(0, 2**16, (7, 9), dtype=np.uint16)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), gray)
    assert np.array_equal(read_pixels(path), np.repeat(gray[..., None], 3, 2))


def test_alpha_is_dropped_and_colours_stay_also_where_they_are_transparent(tmp_path):
    picture = scene()
    rgba = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    rgba[:3, :3, 3] = 0
    assert np.array_equal(read_pixels(saved(tmp_path, Image.fromarray(rgba), "a.png")), picture)
    deep = np.dstack([picture.astype(np.uint16) * 257, np.full(picture.shape[:2], 9, np.uint16)])
    cv2.imwrite(str(tmp_path / "deep.png"), cv2.cvtColor(deep, cv2.COLOR_RGBA2BGRA))
    assert np.array_equal(read_pixels(tmp_path / "deep.png"), picture.astype(np.uint16) * 257)


def test_gray_bilevel_and_palette_become_the_colours_they_stand_for(tmp_path):
    gray = scene()[..., 0]
    assert np.array_equal(
        read_pixels(saved(tmp_path, Image.fromarray(gray), "g.png")), np.repeat(gray[..., None], 3, 2)
    )
    bilevel = Image.fromarray(gray > 100)
    assert set(np.unique(read_pixels(saved(tmp_path, bilevel, "b.png")))) == {0, 255}
    palette = Image.fromarray(scene()).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read_pixels(saved(tmp_path, palette, "p.png")), expected)


def test_cmyk_becomes_one_minus_ink_times_one_minus_black(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 51, 102, 127)), "a.tif")
    assert np.abs(read_pixels(path)[0, 0].astype(int) - [128, 102, 77]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_are_read_upright_whatever_their_exif_orientation(tmp_path, orientation, bits):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(scene(6, 10))
    path = saved(tmp_path, picture, "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    if bits == 16:
        deep = np.asarray(picture).astype(np.uint16) * 257
        done, encoded = cv2.imencode(".png", deep[..., ::-1])
        assert done
        source = path.read_bytes()
        chunk = source[source.index(b"eXIf") - 4 : source.index(b"IDAT") - 4]
        data = encoded.tobytes()
        path.write_bytes(data[:33] + chunk + data[33:])
        upright = upright.astype(np.uint16) * 257
    assert np.array_equal(read_pixels(path), upright)
    header = read_header(path)
    assert (header.height, header.width) == upright.shape[:2]


def test_rounding_is_half_to_even_and_happens_once(tmp_path):
    levels = torch.tensor([0.5, 1.5, 2.5, 254.5, 300.0, -3.0]) / 255
    pixels = as_pixels(levels.expand(3, 1, 6))
    assert pixels[0, :, 0].tolist() == [0, 2, 2, 254, 255, 0]
    path = tmp_path / "a.png"
    write_image(path, levels.expand(3, 1, 6))
    assert np.array_equal(read_pixels(path), pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_level_survives_the_way_to_float_and_back(bits):
    levels = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16)
    pixels = np.repeat(levels.reshape(-1, 64, 1), 3, 2)
    assert np.array_equal(as_pixels(as_image(pixels), bits), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_handed_over_as_they_are_and_become_the_same_floats_on_any_device(tmp_path, dtype):
    top = np.iinfo(dtype).max
    levels = np.arange(top + 1, dtype=dtype).reshape(-1, 64, 1).repeat(3, 2)
    (tmp_path / "a.png").write_bytes(encode_png(levels))
    integers = read_integers(tmp_path / "a.png")
    assert integers.dtype == {np.uint8: torch.uint8, np.uint16: torch.uint16}[dtype]
    expected = levels.transpose(2, 0, 1).astype(np.float32) / np.float32(top)
    assert np.array_equal(as_image(integers).numpy(), expected)
    assert np.array_equal(as_image(integers[None, :, :3])[0].numpy(), expected[:, :3])
    assert as_image(as_image(integers)).equal(as_image(integers))


def test_pieces_rounded_one_by_one_are_the_whole_and_one_bad_value_among_them_is_found():
    image = torch.rand(3, 8, 8) * 1.2 - 0.1
    for bits in (8, 16):
        rounding = Rounding(bits)
        pieces = torch.cat([rounding(image[:, :, :3]), rounding(image[:, :, 3:])], 2)
        check_finite(rounding.finite)
        assert np.array_equal(pieces.permute(1, 2, 0).numpy(), as_pixels(image, bits))
    rounding(image / 0)
    rounding(image)
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_finite(rounding.finite)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused_not_rounded(value):
    image = torch.zeros(3, 2, 2)
    image[1, 0, 1] = value
    with pytest.raises(ValueError, match="values of the image are NaN or infinite"):
        as_pixels(image)


def test_text_named_png_is_named_as_what_it_is(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    with pytest.raises(UnreadableImage, match=r"a\.png: expected a PNG.*found text"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(UnreadableImage, match="an empty file"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "deep.png"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8])
def test_a_truncated_file_is_refused_not_half_decoded(tmp_path, name, kept):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / name
    if name == "deep.png":
        cv2.imwrite(str(path), picture.astype(np.uint16) * 257)
    else:
        Image.fromarray(picture).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(UnreadableImage, match=name):
        read_image(path)


def test_animations_and_missing_files_are_refused(tmp_path):
    frames = [Image.fromarray(scene(seed=number)) for number in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImage, match="found an animation of 3 frames"):
        read_image(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(tmp_path / "none.png")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    picture = io.BytesIO()
    Image.new("1", (40_000, 10_000)).save(picture, "PNG")
    (tmp_path / "bomb.png").write_bytes(picture.getvalue())
    with pytest.raises(UserError, match="at most 268 megapixels, found 40000 x 10000"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (1, 9)])
def test_the_smallest_pictures_are_pictures(tmp_path, height, width):
    picture = scene(8, 16)[:height, :width]
    assert np.array_equal(read_pixels(write_png(tmp_path / "a.png", picture)), picture)
