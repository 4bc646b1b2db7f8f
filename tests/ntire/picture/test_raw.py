import io

import numpy as np
import pytest
import rawpy
import tifffile
import tomli_w
import torch

from ntire import UserError
from ntire.picture.degradations import CAMERAS_FROM_XYZ, RawDegradation, mosaic_of
from ntire.picture.header import upright
from ntire.picture.image import UnreadableImage, as_image, encode_png
from ntire.picture.raw import (
    RawFrame,
    balanced_rggb,
    ccm_from_xyz,
    correct_colours,
    demosaic,
    facts_text,
    gray_world,
    pack,
    read_raw,
    srgb_decode,
    srgb_encode,
)
from ntire.runner.device_worker import fingerprint_of
from tests.made import scene

PHASES = {"RGGB": (0, 0), "GRBG": (0, 1), "GBRG": (1, 0), "BGGR": (1, 1)}
"""Where red is in each phase."""


def mosaic_in_phase(image, cfa):
    """The mosaic that a sensor of that phase records of (3, H, W)."""
    mosaic = torch.zeros(1, *image.shape[1:])
    for index, letter in enumerate(cfa):
        mosaic[0, index // 2 :: 2, index % 2 :: 2] = image["RGB".index(letter), index // 2 :: 2, index % 2 :: 2]
    return mosaic


@pytest.mark.parametrize("cfa", PHASES)
def test_a_flat_scene_comes_back_from_every_phase(cfa):
    colour = torch.tensor([0.2, 0.5, 0.35])[:, None, None]
    gains = (2.0, 1.0, 1.5)
    sensor = (colour / torch.tensor(gains)[:, None, None]).expand(3, 9, 11)
    mosaic, (top, left) = balanced_rggb(RawFrame(mosaic_in_phase(sensor, cfa), cfa, gains))
    assert (top, left) == PHASES[cfa]
    restored = demosaic(mosaic)[:, top:, left:]
    assert restored.shape == (3, 9, 11)
    assert torch.allclose(restored, colour.expand(3, 9, 11), atol=1e-6)


@pytest.mark.parametrize("cfa", PHASES)
def test_every_phase_of_one_scene_is_seen_in_rggb_order(cfa):
    image = as_image(scene(12, 16))
    frame = RawFrame(mosaic_in_phase(image, cfa), cfa, (1.0, 1.0, 1.0))
    mosaic, (top, left) = balanced_rggb(frame)
    rows, columns = torch.arange(top, mosaic.shape[1]), torch.arange(left, mosaic.shape[2])
    colour = torch.tensor([[0, 1], [1, 2]])[rows[:, None] % 2, columns % 2]
    seen = image.gather(0, colour[None])[0]
    assert torch.equal(mosaic[0, top:, left:], seen)


def test_packing_orders_planes_red_green_green_blue():
    image = torch.stack([torch.full((4, 6), value) for value in (0.1, 0.5, 0.9)])
    packed = pack(mosaic_of(image))
    assert packed.shape == (4, 2, 3)
    assert [float(plane.mean()) for plane in packed] == pytest.approx([0.1, 0.5, 0.5, 0.9])


def test_demosaicing_keeps_what_the_sensor_saw_and_matches_a_slow_reference():
    image = as_image(scene(10, 12))
    mosaic = mosaic_of(image)
    restored = demosaic(mosaic)
    assert torch.equal(mosaic_of(restored), mosaic)
    # In the interior, bilinear means: green is the mean of 4, red at blue the mean of 4 corners.
    assert float(restored[1, 4, 4]) == pytest.approx(float(mosaic[0, [3, 5, 4, 4], [4, 4, 3, 5]].mean()), abs=1e-6)
    assert float(restored[0, 5, 5]) == pytest.approx(float(mosaic[0, [4, 4, 6, 6], [4, 6, 4, 6]].mean()), abs=1e-6)
    assert float(restored[2, 5, 4]) == pytest.approx(float(mosaic[0, 5, [3, 5]].mean()), abs=1e-6)


def test_the_srgb_curve_and_its_inverse_meet_the_standard():
    levels = torch.linspace(0, 1, 1001)
    assert torch.allclose(srgb_decode(srgb_encode(levels)), levels, atol=1e-6)
    assert float(srgb_encode(torch.tensor(0.5))) == pytest.approx(0.735357, abs=1e-5)
    assert float(srgb_decode(torch.tensor(0.04045))) == pytest.approx(0.0031308, abs=1e-6)


def test_a_known_scene_goes_through_the_sensor_and_back():
    gt = as_image(scene(64, 64))
    quiet = RawDegradation(iso=(1e-6, 1e-6), darkening=(1, 1), blur_probability=0, bad_pixel_share=(0, 0), bits=(14,))
    frame, camera = quiet.frame(gt, torch.Generator().manual_seed(3))
    assert torch.allclose(correct_colours(camera, frame.ccm), gt, atol=0.02)
    mosaic, _ = balanced_rggb(frame)
    # Without noise, the frame is the mosaic of the truth, but for quantisation.
    assert torch.allclose(mosaic, mosaic_of(srgb_decode(camera)), atol=3e-4)


def test_white_stays_white_through_a_colour_matrix():
    ccm = ccm_from_xyz(CAMERAS_FROM_XYZ[0])
    assert torch.allclose(ccm.sum(1), torch.ones(3), atol=1e-5)


def test_gray_world_makes_the_mean_colour_gray():
    sensor = torch.stack([torch.full((8, 8), value) for value in (0.2, 0.4, 0.1)])
    assert gray_world(mosaic_in_phase(sensor, "GRBG"), "GRBG") == pytest.approx((2.0, 1.0, 4.0))


def test_packed_npy_is_unpacked_and_says_what_it_assumes(tmp_path):
    planes = np.arange(3 * 5 * 4, dtype=np.uint16).reshape(3, 5, 4)
    np.save(tmp_path / "night_12bit.npy", planes)
    frame = read_raw(tmp_path / "night_12bit.npy")
    assert frame.mosaic.shape == (1, 6, 10)
    expected = torch.from_numpy(planes.astype(np.float32) / 4095).permute(2, 0, 1)
    assert torch.allclose(pack(frame.mosaic), expected)
    assert frame.samples.dtype == torch.uint16, "sensor values are handed over as they are"
    assert any("12 bit" in note for note in frame.notes)
    assert any("gray world" in note for note in frame.notes)


def test_a_toml_beside_the_frame_is_believed(tmp_path):
    mosaic = np.random.default_rng(0).integers(64, 1024, (6, 8), dtype=np.uint16)
    np.save(tmp_path / "a.npy", mosaic)
    facts = {
        "cfa": "BGGR",
        "black_level": [64, 65, 66, 67],
        "white_level": 1023,
        "white_balance": [2.0, 1.0, 1.5],
        "ccm": [[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0.0, -0.5, 1.5]],
        "iso": 800,
    }
    (tmp_path / "a.toml").write_text(tomli_w.dumps(facts))
    frame = read_raw(tmp_path / "a.npy")
    assert (frame.cfa, frame.white_balance, frame.iso, frame.notes) == ("BGGR", (2.0, 1.0, 1.5), 800, ())
    assert float(frame.mosaic[0, 1, 1]) == pytest.approx(max((float(mosaic[1, 1]) - 67) / (1023 - 67), 0), abs=1e-6)


def test_one_toml_speaks_for_a_folder_of_png_mosaics(tmp_path):
    mosaic = np.random.default_rng(0).integers(0, 2**14, (6, 8), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png(mosaic))
    with pytest.raises(
        UnreadableImage, match=r"needs a\.toml or frames\.toml beside it with cfa, black_level, white_level"
    ):
        read_raw(tmp_path / "a.png")
    (tmp_path / "frames.toml").write_text('cfa = "GBRG"\nblack_level = 0\nwhite_level = 16383\n')
    frame = read_raw(tmp_path / "a.png")
    assert torch.allclose(frame.mosaic[0], torch.from_numpy(mosaic.astype(np.float32) / 16383))


def test_every_mistake_of_a_toml_is_listed_with_its_line(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint16))
    (tmp_path / "a.toml").write_text('iso = -1\ncfa = "RGBG"\nblak_level = 3\n')
    with pytest.raises(UserError) as caught:
        read_raw(tmp_path / "a.npy")
    for problem in ("line 1: iso", "line 2: cfa", "line 3: blak_level"):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), "expected a mosaic"),
        (np.zeros((4, 4), np.int32), "unsigned integers or floats"),
        (np.full((4, 4), np.nan, np.float32), "finite"),
        (np.full((4, 4), 300.0, np.float32), "white_level"),
        (np.zeros((1, 1), np.uint16), "at least 2 x 2"),
        (np.zeros((0, 4), np.uint16), "at least 2 x 2"),
    ],
)
def test_arrays_that_are_no_mosaics_are_refused_with_the_reason(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnreadableImage, match=message):
        read_raw(tmp_path / "a.npy")


def test_damaged_files_and_finished_pictures_are_refused(tmp_path):
    np.save(tmp_path / "whole.npy", np.zeros((64, 64), np.uint16))
    (tmp_path / "half.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:1000])
    (tmp_path / "text.dng").write_text("not a raw file")
    (tmp_path / "picture.png").write_bytes(encode_png(scene()))
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04}.")
    for name in ("half.npy", "text.dng", "picture.png", "pickle.npy"):
        with pytest.raises(UnreadableImage, match=name):
            read_raw(tmp_path / name)


def test_black_above_white_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint16))
    (tmp_path / "a.toml").write_text("black_level = 1023\nwhite_level = 255\n")
    with pytest.raises(UnreadableImage, match="black level below the white level"):
        read_raw(tmp_path / "a.npy")


@pytest.mark.data
def test_a_vendor_raw_file_has_the_phase_and_levels_that_libraw_reports(data):
    frame = read_raw(data / "raw" / "kodak_dc50.kdc")
    with rawpy.imread(str(data / "raw" / "kodak_dc50.kdc")) as raw:
        visible = raw.raw_image_visible.astype(np.float32) / raw.white_level
    assert frame.cfa == "GRBG"
    assert np.allclose(frame.mosaic[0].numpy(), visible, atol=1e-6)
    assert frame.iso == 84


@pytest.mark.data
def test_a_vendor_frame_rendered_plainly_looks_like_librawes_rendering(data):
    frame = read_raw(data / "raw" / "kodak_dc50.kdc")
    mosaic, (top, left) = balanced_rggb(frame)
    ours = srgb_encode(demosaic(mosaic))[:, top:, left:]
    with rawpy.imread(str(data / "raw" / "kodak_dc50.kdc")) as raw:
        theirs = raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
            use_camera_wb=True,
            no_auto_bright=True,
            output_color=rawpy.ColorSpace.raw,
            gamma=(2.4, 12.92),
        )
    difference = np.abs(ours.numpy().transpose(1, 2, 0) * 255 - theirs)[4:-4, 4:-4]
    assert difference.mean() < 2


@pytest.mark.data
def test_the_real_night_frame_is_a_mosaic_of_1024_by_1024(data):
    frame = read_raw(data / "raw" / "night_lantern_rggb_512x512x4_12bit.npy")
    planes = np.load(data / "raw" / "night_lantern_rggb_512x512x4_12bit.npy")
    assert frame.mosaic.shape == (1, 1024, 1024)
    assert torch.allclose(pack(frame.mosaic), torch.from_numpy(planes.astype(np.float32) / 4095).permute(2, 0, 1))


def dng(mosaic, matrix=None, white=1023, pattern=(0, 1, 1, 2), rows=None, orientation=1):
    """A DNG as a small camera would write it: black level 64, uncompressed strips of `rows`."""

    def rationals(values):
        return [part for value in values for part in (round(value * 10000), 10000)]

    tags = [
        (274, 3, 1, orientation, True),
        (50706, 1, 4, (1, 4, 0, 0), True),
        (50708, 2, 0, "Test Camera", True),
        (271, 2, 0, "Test", True),
        (272, 2, 0, "Camera", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, pattern, True),
        (50714, 3, 1, 64, True),
        (50717, 3, 1, white, True),
        (50728, 5, 3, rationals([0.5, 1, 0.6]), True),
        *([(50721, 10, 9, rationals(np.ravel(matrix)), True)] if matrix is not None else []),
    ]
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic, photometric=32803, extratags=tags, metadata=None, rowsperstrip=rows)
    return file.getvalue()


MOSAIC = np.random.default_rng(0).integers(64, 1000, (64, 96), dtype=np.uint16)


def test_a_dng_that_brings_its_own_matrix_is_rendered_with_it(tmp_path):
    matrix = np.array([[0.9, -0.3, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]], np.float32)
    (tmp_path / "a.dng").write_bytes(dng(MOSAIC, matrix))
    frame = read_raw(tmp_path / "a.dng")
    assert np.array_equal(frame.samples[0].numpy(), MOSAIC)
    assert (frame.cfa, frame.black_level, frame.white_level) == ("RGGB", (64.0,) * 4, 1023.0)
    assert np.allclose(frame.ccm, ccm_from_xyz(torch.from_numpy(matrix)).numpy(), atol=1e-4)
    assert frame.white_balance == pytest.approx((2.0, 1.0, 1 / 0.6), rel=1e-3)
    (tmp_path / "b.dng").write_bytes(dng(MOSAIC))
    assert "no colour matrix" in read_raw(tmp_path / "b.dng").notes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_frame_is_turned_and_mirrored_as_a_picture_is(tmp_path, orientation):
    mosaic = MOSAIC[:-1]  # mirrored, an odd side keeps its colours and an even one does not
    (tmp_path / "a.dng").write_bytes(dng(mosaic, orientation=orientation))
    frame = read_raw(tmp_path / "a.dng")
    assert np.array_equal(frame.samples[0].numpy(), upright(mosaic[..., None], orientation)[..., 0])
    letters = np.tile(np.array([["R", "G"], ["G", "B"]]), (32, 48))[:-1, :, None]
    assert frame.cfa == "".join(upright(letters, orientation)[:2, :2].ravel())


@pytest.mark.parametrize("rows", [None, 8])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_raw_file_is_told_and_stderr_stays_clean(tmp_path, capfd, rows, kept):
    data = dng(MOSAIC, rows=rows)
    (tmp_path / "a.dng").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UnreadableImage, match=r"a\.dng: (not a whole raw file|LibRaw cannot read it: \w)") as caught:
        read_raw(tmp_path / "a.dng")
    assert "b'" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_frame_without_light_at_its_end_is_told(tmp_path):
    mosaic = MOSAIC.copy()
    mosaic[40:] = 0
    (tmp_path / "a.dng").write_bytes(dng(mosaic))
    with pytest.raises(UnreadableImage, match="the last 24 of 64 rows are empty"):
        read_raw(tmp_path / "a.dng")


def test_sensors_that_are_not_bayer_are_refused_by_their_name(tmp_path):
    from types import SimpleNamespace

    from ntire.picture.vendor_raw import _bayer

    for kind, shape, words in (
        (rawpy.RawType.Flat, (6, 6), "X-Trans"),
        (rawpy.RawType.Flat, (4, 4), "Quad-Bayer"),
        (rawpy.RawType.Flat, None, "monochrome"),
        (rawpy.RawType.Stack, (2, 2), "Foveon"),
    ):
        pattern = None if shape is None else np.zeros(shape, np.uint8)
        with pytest.raises(UnreadableImage, match=f"{words}.*Develop it"):
            _bayer(tmp_path / "a.raf", SimpleNamespace(raw_type=kind, raw_pattern=pattern))
    (tmp_path / "mono.dng").write_bytes(b"".join([dng(MOSAIC, pattern=(1, 1, 1, 1))]))
    with pytest.raises(UnreadableImage, match="monochrome"):
        read_raw(tmp_path / "mono.dng")


def test_the_white_level_of_a_folder_is_one_for_all_its_frames(tmp_path):
    dark = np.full((4, 4), 200, np.uint16)
    bright = np.full((4, 4), 4000, np.uint16)
    np.save(tmp_path / "dark.npy", dark)
    alone = read_raw(tmp_path / "dark.npy")
    assert alone.white_level == 1023, "no sensor has 8 bits in 16"
    np.savez(tmp_path / "bright.npz", bright)
    np.save(tmp_path / "other_14bit.npy", bright)
    frames = {name: read_raw(tmp_path / name) for name in ("dark.npy", "bright.npz", "other_14bit.npy")}
    assert {name: frame.white_level for name, frame in frames.items()} == {
        "dark.npy": 4095,
        "bright.npz": 4095,
        "other_14bit.npy": 16383,
    }
    assert any("the brightest of 2 frames" in note for note in frames["dark.npy"].notes)


def test_a_copy_of_a_frame_elsewhere_keeps_the_white_level(tmp_path):
    np.save(tmp_path / "a_12bit.npy", np.full((4, 4), 200, np.uint16))
    copies = tmp_path / "copies"
    copies.mkdir()
    np.save(copies / "x.npy", np.full((4, 4), 200, np.uint16))
    (copies / "x.toml").write_bytes(facts_text(tmp_path / "a_12bit.npy"))
    assert read_raw(copies / "x.npy").white_level == read_raw(tmp_path / "a_12bit.npy").white_level == 4095


def test_a_brighter_neighbour_makes_a_frame_another_input(tmp_path):
    np.save(tmp_path / "dark.npy", np.full((4, 4), 200, np.uint16))
    before = fingerprint_of(tmp_path / "dark.npy", "raw")
    np.save(tmp_path / "bright.npy", np.full((4, 4), 4000, np.uint16))
    assert fingerprint_of(tmp_path / "dark.npy", "raw") != before


def test_an_npz_of_several_arrays_is_refused_by_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", raw=np.zeros((4, 4), np.uint16), gt=np.zeros((4, 4)))
    with pytest.raises(UnreadableImage, match="expected one array, found raw, gt"):
        read_raw(tmp_path / "a.npz")
