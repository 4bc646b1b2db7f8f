"""One reader for all flavours of a format, held against decoders that it does not use for them."""

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from ntire.picture import pillow_formats
from ntire.picture.image import (
    UnreadableImage,
    as_image,
    depth_of,
    encode_png,
    read_header,
    read_pixels,
    sides_at_a_glance,
)
from tests.made import scene

ORIENTATIONS = range(1, 9)


def turned(pixels, orientation):
    """By the table of the TIFF standard: which side of the stored picture its first row and first column are."""
    top, left = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    if orientation < 5:
        return np.flip(pixels, [axis for axis, mirrored in ((0, top), (1, left)) if mirrored])
    upright = np.swapaxes(pixels, 0, 1)
    return np.flip(upright, [axis for axis, mirrored in ((0, top), (1, left)) if mirrored])


def of_depth(bits, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    if bits == "float":
        return rng.random((9, 14, channels), dtype=np.float32)
    dtype = np.uint8 if bits <= 8 else np.uint16
    return rng.integers(0, 2**bits, (9, 14, channels), dtype=dtype)


def agree(path, expected):
    header, pixels = read_header(path), read_pixels(path)
    assert pixels.shape == (header.height, header.width, 3)
    assert header.depth == depth_of(pixels)
    assert pixels.dtype == expected.dtype
    assert np.array_equal(pixels, expected)
    return header


LAYOUTS = list(
    itertools.product(
        [8, 16, "float"],
        ["contig", "separate"],
        ["<", ">"],
        [None, "lzw", "zlib", "zstd"],
        [None, (16, 16)],
        [False, True],
    )
)


@pytest.mark.parametrize("number", range(8))
def test_a_tiff_of_any_layout_compression_and_orientation_is_read_as_it_was_written_and_turned_once(tmp_path, number):
    for bits, planar, order, compression, tile, big in LAYOUTS[number::8]:
        orientation = 1 + (LAYOUTS.index((bits, planar, order, compression, tile, big)) % 8)
        picture = of_depth(bits)
        stored = np.moveaxis(picture, 2, 0) if planar == "separate" else picture
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path,
            stored,
            photometric="rgb",
            planarconfig=planar,
            byteorder=order,
            compression=compression,
            predictor=compression is not None,
            tile=tile,
            bigtiff=big,
            extratags=[(274, 3, 1, orientation, True)],
        )
        assert agree(path, turned(picture, orientation)).orientation == orientation


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif", "jxl"])
def test_every_orientation_of_every_format_is_read_as_pillow_or_libjxl_turns_it(tmp_path, suffix, orientation):
    picture = Image.fromarray(scene(16, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    if suffix == "jxl":
        # libjxl writes the orientation of a recompressed JPEG into the codestream.
        pytest.importorskip("imagecodecs")
        import imagecodecs

        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", exif=exif, quality=95)
        path.write_bytes(imagecodecs.jpegxl_encode_jpeg(jpeg.getvalue()))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(jpeg)))
    else:
        options = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
        picture.save(path, exif=exif, **options)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    pixels, header = read_pixels(path), read_header(path)
    assert pixels.shape == upright.shape == (header.height, header.width, 3)
    tolerance = 4 if suffix == "jxl" else 0
    assert np.abs(pixels.astype(int) - upright).max() <= tolerance


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
def test_gray_tiffs_of_all_depths_fill_the_range_and_white_is_white(tmp_path, bits, kind):
    top = 2**bits - 1
    levels = np.resize(np.linspace(0, top, 24).round(), (6, 16)).astype(np.uint8 if bits <= 8 else np.uint16)
    stored = top - levels if kind == "miniswhite" else levels
    path = tmp_path / "a.tif"
    path.write_bytes(packed_tiff(stored.astype(int), bits, 0 if kind == "miniswhite" else 1))
    white = 255 if bits <= 8 else 65535
    expected = np.rint(levels.astype(np.float64) * white / top).astype(np.uint8 if bits <= 8 else np.uint16)
    header = agree(path, np.repeat(expected[..., None], 3, 2))
    assert header.notes == ((f"{bits} bits scaled to 16",) if 8 < bits < 16 else ())
    if bits in (1, 8) or (bits, kind) == (16, "minisblack"):
        assert np.array_equal(pillow_gray(path, bits), expected)


def packed_tiff(levels, bits, photometric):
    """The smallest TIFF of one strip, big-endian, its samples packed as the standard says."""
    rows = []
    for row in levels:
        text = "".join(format(level, f"0{bits}b") for level in row)
        rows.append(int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big"))
    strip = b"".join(rows)
    height, width = levels.shape
    values = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: len(strip),
    }
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"MM\0*" + struct.pack(">I", 8 + len(strip)) + strip + struct.pack(">H", len(values)) + entries + b"\0" * 4


def pillow_gray(path, bits):
    image = np.asarray(Image.open(path))
    return image.astype(np.uint8) * 255 if bits == 1 else image


def test_palette_cmyk_and_alpha_tiffs_are_read_as_pillow_does(tmp_path):
    picture = Image.fromarray(scene())
    palette = picture.quantize(16)
    palette.save(tmp_path / "p.tif")
    agree(tmp_path / "p.tif", np.asarray(palette.convert("RGB")))
    rgba = np.dstack([scene(), np.full((40, 48), 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.tif")
    assert agree(tmp_path / "a.tif", scene()).notes == ("transparency dropped",)
    cmyk = np.random.default_rng(0).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "c.tif")
    by_pillow = np.asarray(Image.open(tmp_path / "c.tif").convert("RGB")).astype(int)
    assert np.abs(read_pixels(tmp_path / "c.tif") - by_pillow).max() <= 1
    deep = cmyk.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "c16.tif", deep, photometric="separated")
    assert np.abs(read_pixels(tmp_path / "c16.tif") / 257 - by_pillow).max() <= 1


def test_colours_that_were_multiplied_by_alpha_are_divided_by_it_again(tmp_path):
    multiplied = np.array([[[100, 50, 0, 128], [10, 10, 10, 255], [0, 0, 0, 0]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", multiplied, photometric="rgb", extrasamples=["assocalpha"])
    assert read_pixels(tmp_path / "a.tif").tolist() == [[[199, 100, 0], [10, 10, 10], [0, 0, 0]]]


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw", "packbits", "group4", "tiff_adobe_deflate"])
def test_what_libtiff_writes_is_read_as_pillow_reads_it(tmp_path, compression):
    picture = Image.fromarray(scene())
    if compression == "group4":
        picture = picture.convert("1")
    picture.save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")).astype(int)
    assert np.abs(read_pixels(tmp_path / "a.tif") - expected).max() <= (2 if compression == "jpeg" else 0)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_luma_and_chroma_outside_of_jpeg_are_read_as_pillow_reads_them(tmp_path, compression):
    path = tmp_path / "a.tif"
    Image.fromarray(scene()).convert("YCbCr").save(path, compression=compression)
    with Image.open(path) as image:
        agree(path, np.asarray(image.convert("RGB")))


def test_opencvs_tiffs_are_read(tmp_path):
    deep = of_depth(16)
    cv2.imwrite(str(tmp_path / "cv.tif"), deep[..., ::-1])
    agree(tmp_path / "cv.tif", deep)
    cv2.imwrite(str(tmp_path / "f.tif"), of_depth("float")[..., ::-1])
    agree(tmp_path / "f.tif", of_depth("float"))


def test_the_first_picture_of_several_is_read_and_that_is_said(tmp_path):
    frames = [Image.fromarray(scene(seed=seed)) for seed in range(2)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert agree(tmp_path / "a.tif", scene()).notes == ("the first of 2 pictures in the file",)
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[frames[1].resize((9, 7))])
    with Image.open(tmp_path / "a.jpg") as image:
        header = agree(tmp_path / "a.jpg", np.asarray(image))
    assert (header.format, header.notes) == ("JPEG", ("the first of 2 pictures in the file",))


@pytest.mark.parametrize("values", [np.array([[-5, 300]], np.int16), np.array([[0, 70000]], np.uint32)])
def test_samples_whose_white_is_unknown_are_refused_with_their_numbers(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", values)
    low, high = values.min(), values.max()
    with pytest.raises(UnreadableImage, match=f"found .*integers of .* from {low} to {high}"):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_floats_are_in_0_to_1_or_refused_with_their_numbers(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"

    def save(values):
        if suffix == "npy":
            np.save(path, values)
        else:
            tifffile.imwrite(path, values, photometric="rgb")

    for dtype in (np.float16, np.float32, np.float64):
        picture = of_depth("float").astype(dtype)
        save(picture)
        agree(path, picture.astype(np.float32))
    assert np.array_equal(as_image(read_pixels(path)).numpy(), of_depth("float").transpose(2, 0, 1))
    for wrong, found in ((255.0, "found 0 to 255"), (-0.25, "found -0.25 to 0"), (np.nan, "NaN or infinity")):
        broken = np.zeros((4, 5, 3), np.float32)
        broken[1, 2] = wrong
        save(broken)
        with pytest.raises(UnreadableImage, match=found):
            read_pixels(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_arrays_are_pictures_of_their_types_range(tmp_path, bits):
    picture = of_depth(bits)
    np.save(tmp_path / "a.npy", np.asfortranarray(picture))
    agree(tmp_path / "a.npy", picture)
    np.save(tmp_path / "g.npy", picture[..., 0].astype(picture.dtype.newbyteorder(">")))
    agree(tmp_path / "g.npy", np.repeat(picture[..., :1], 3, 2))


@pytest.mark.parametrize("array", [np.zeros((3, 8, 9), np.uint8), np.zeros((8, 9), np.int64), np.zeros(4, np.uint8)])
def test_arrays_that_are_no_pictures_are_refused_with_what_they_are(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnreadableImage, match=rf"found (an array \({array.shape[0]}|int64)"):
        read_pixels(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_pngs_are_read_as_opencv_reads_them(tmp_path, kind, orientation):
    samples = of_depth(16, channels=len(kind))
    path = tmp_path / "a.png"
    path.write_bytes(made_png(samples, orientation))
    by_opencv = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    agree(path, turned(by_opencv[..., ::-1], orientation))


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def made_png(samples, orientation=1, late=False):
    """By the standard, without a library: 8 or 16 bits; the EXIF chunk before or behind the pixels."""
    height, width, channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + b"\0" * 4)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, colour, 0, 0, 0))
    body = [chunk(b"IDAT", pixels), exif] if late else [exif, chunk(b"IDAT", pixels)]
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "row", "levels"),
    [(1, b"\xa0", [255, 0, 255, 0]), (2, b"\x1b", [0, 85, 170, 255]), (4, b"\x01\x8f", [0, 17, 136, 255])],
)
def test_gray_pngs_of_few_bits_fill_the_range(tmp_path, bits, row, levels):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    assert read_pixels(tmp_path / "a.png")[0].tolist() == [[level] * 3 for level in levels]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_is_turned_wherever_its_exif_chunk_stands(tmp_path, bits, late):
    picture = of_depth(bits)
    (tmp_path / "a.png").write_bytes(made_png(picture, 6, late))
    agree(tmp_path / "a.png", turned(picture, 6))


METADATA = {
    "a large text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (3 << 20))),
    "many large texts": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (1 << 20))) * 80,
    "a large international text": chunk(b"iTXt", b"workflow\0\x01\0\0\0" + zlib.compress(b"{}" * (2 << 20))),
    "a large profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"\x12" * (3 << 20))),
    "a broken profile": chunk(b"iCCP", b"icc\0\0nozlib"),
    "a text with a bad checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"\xff",
    "a time with a bad checksum": chunk(b"tIME", b"\x07\xe0\x01\x01\x01\x01\x01")[:-1] + b"\xff",
    "a private chunk": chunk(b"prVt", b"x" * 100),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_of_a_png_never_keeps_its_pixels_from_being_read(tmp_path, metadata, bits):
    picture = of_depth(bits)
    data = made_png(picture)
    (tmp_path / "a.png").write_bytes(data[:33] + METADATA[metadata] + data[33:])
    agree(tmp_path / "a.png", picture)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_without_its_end_is_read_and_one_without_its_last_pixels_or_with_wrong_ones_is_not(tmp_path, bits):
    picture = of_depth(bits)
    data = made_png(picture)
    path = tmp_path / "a.png"
    for tail in (data[:-12], data + b"\0" * 100):
        path.write_bytes(tail)
        agree(path, picture)
    inside = data.index(b"IDAT") + 40
    for broken in (data[:-40], data[:inside] + bytes([data[inside] ^ 1]) + data[inside + 1 :]):
        path.write_bytes(broken)
        with pytest.raises(UnreadableImage, match="not a whole"):
            read_pixels(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_read_only_if_all_its_pixels_are_there(tmp_path, progressive):
    whole = io.BytesIO()
    Image.fromarray(scene(64, 64)).save(whole, "JPEG", progressive=progressive, quality=95)
    data, path = whole.getvalue(), tmp_path / "a.jpg"
    for kept in (data[:-2], data[:-1], data + b"\0" * 5000):
        path.write_bytes(kept)
        agree(path, np.asarray(Image.open(whole)))
    last_scan = data.rindex(b"\xff\xda")
    for cut in (len(data) - 4, len(data) - 40, len(data) // 2, last_scan if progressive else last_scan + 20):
        path.write_bytes(data[:cut])
        with pytest.raises(UnreadableImage, match="truncated"):
            read_pixels(path)


@pytest.mark.parametrize(
    ("suffix", "words"), [("avif", "an AVIF image that ends early"), ("heic", "not a whole HEIC image")]
)
def test_half_a_phones_picture_is_told_for_what_it_is_in_one_line(tmp_path, suffix, words):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(scene())
    picture = pytest.importorskip("pillow_heif").from_pillow(image) if suffix == "heic" else image
    picture.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImage, match=words) as caught:
        read_pixels(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16), "compression": "lzw"}])
def test_a_truncated_tiff_is_refused_not_filled_up_with_black(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, of_depth(16), photometric="rgb", **options)
    data = path.read_bytes()
    for kept in (len(data) - 30, len(data) // 2, 40):
        path.write_bytes(data[:kept])
        with pytest.raises(UnreadableImage, match="not a whole TIFF"):
            read_pixels(path)


def test_a_tiff_that_lacks_tiles_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((16, 64, 3), np.uint8), photometric="rgb", tile=(16, 16), compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages.first.tags[256].valueoffset
    data[at : at + 2] = struct.pack("<H", 4096)
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="4 of 256 strips or tiles"):
        read_pixels(path)


def test_a_profile_that_is_not_srgb_is_named_and_the_numbers_stay(tmp_path):
    from PIL import ImageCms

    picture = Image.fromarray(scene())
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in ("png", "tif"):
        picture.save(tmp_path / f"a.{suffix}", icc_profile=lab)
        notes = agree(tmp_path / f"a.{suffix}", scene()).notes
        assert len(notes) == 1
        assert notes[0].startswith("colour profile 'Lab")
        picture.save(tmp_path / f"b.{suffix}", icc_profile=srgb)
        assert agree(tmp_path / f"b.{suffix}", scene()).notes == ()


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_deep_avif_pictures_keep_their_depth(tmp_path, bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    dtype = np.uint8 if bits == 8 else np.uint16
    levels = np.linspace(0, 2**bits - 1, 64 * 64).astype(dtype).reshape(64, 64, 1).repeat(3, 2)
    path = tmp_path / "a.avif"
    path.write_bytes(imagecodecs.avif_encode(levels, level=100, bitspersample=bits, pixelformat="444"))
    pixels, header = read_pixels(path), read_header(path)
    assert header.bits == bits
    white = 255 if bits == 8 else 65535
    assert np.abs(pixels.astype(float) - levels * (white / (2**bits - 1))).max() <= white / 2**bits * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(16, 24), (9, 301), (1, 1)])
def test_jpeg_xl_is_read_as_it_was_written(tmp_path, dtype, size):
    imagecodecs = pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(0)
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    picture = (rng.random((*size, 3)) * top).astype(dtype)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(picture, lossless=True))
    agree(tmp_path / "a.jxl", picture)


def test_heic_is_read_with_the_extra_and_named_without(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    picture = cv2.GaussianBlur(scene(64, 64), (9, 9), 3)
    pillow_heif.from_pillow(Image.fromarray(picture)).save(path, quality=100, chroma=444)
    assert np.abs(read_pixels(path).astype(int) - picture).max() <= 4
    assert read_header(path).format == "HEIF"
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(Exception, match=r"a\.heic: HEIC needs .*ntire\[photos\]"):
        read_pixels(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a" + b"\0" * 20, "a GIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path, data, words):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImage, match=words):
        read_pixels(tmp_path / "a.png")


def every_format(picture):
    """The same small picture in every format that is read."""
    import imagecodecs

    made = {"png": made_png(picture), "png16": made_png(picture.astype(np.uint16) * 257)}
    for kind, options in (("JPEG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("AVIF", {}), ("MPO", {})):
        file = io.BytesIO()
        more = {"save_all": True, "append_images": [Image.fromarray(picture)]} if kind == "MPO" else {}
        Image.fromarray(picture).save(file, kind, **options, **more)
        made[kind] = file.getvalue()
    for name, options in (("tif", {}), ("lzw", {"compression": "lzw", "predictor": True, "tile": (16, 16)})):
        file = io.BytesIO()
        tifffile.imwrite(file, picture, photometric="rgb", **options)
        made[name] = file.getvalue()
    file = io.BytesIO()
    np.save(file, picture)
    made["npy"] = file.getvalue()
    made["jxl"] = imagecodecs.jpegxl_encode(picture)
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", every_format(scene(16, 24)))
def test_a_damaged_file_is_refused_in_words_or_read_and_header_and_pixels_agree(tmp_path, kind):
    data = every_format(scene(16, 24))[kind]
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            broken[at] = rng.integers(0, 256)
        broken = broken[: rng.integers(1, len(data))] if rng.random() < 0.3 else broken
        path = tmp_path / "a"
        path.write_bytes(broken)
        try:
            header, pixels = read_header(path), read_pixels(path)
        except UnreadableImage:
            continue
        assert pixels.shape == (header.height, header.width, 3)
        assert depth_of(pixels) == header.depth


def test_a_large_picture_is_read_band_by_band_and_its_size_is_seen_at_a_glance(tmp_path, monkeypatch):
    monkeypatch.setattr(pillow_formats, "BAND_PIXELS", 1000)
    pixels = np.random.default_rng(0).integers(0, 256, (83, 47, 3), dtype=np.uint8)
    path = tmp_path / "large.png"
    path.write_bytes(encode_png(pixels))
    assert np.array_equal(read_pixels(path), pixels)
    assert sides_at_a_glance(path) == (83, 47)
    (tmp_path / "none.png").write_bytes(b"no picture")
    assert sides_at_a_glance(tmp_path / "none.png") is None
    assert sides_at_a_glance(tmp_path / "absent.png") is None
