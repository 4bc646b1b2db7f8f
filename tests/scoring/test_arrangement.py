"""Data sets as people download them: real names and folders, tiny pictures."""

import json
from pathlib import Path

import cv2
import pytest

from ntire import UserError
from ntire.picture.image import encode_png
from ntire.scoring.arrangement import Places, arranged, data_of, inspected, link
from ntire.scoring.dataset import DATA_SETS, DataSet, data_set
from ntire.scoring.layout import Layout
from ntire.scoring.track import all_tracks, load_track
from tests.made import scene, write_png

PNG = encode_png(scene(18, 20))
JPEG = cv2.imencode(".jpg", scene(18, 20))[1].tobytes()

# One picture of each data set as its authors and those who tested on it lay it down: input, its truth, its name in an entry.
ON_DISK = [
    ("multi-3", "hazy", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg", "SOTS/outdoor/gt/0001.png", "0001_0.8_0.2"),
    ("multi-3", "hazy", "test/dehaze/input/0001_0.8_0.2.jpg", "test/dehaze/target/0001.png", "0001_0.8_0.2"),
    ("multi-3", "rainy", "Rain100L/rainy/rain-001.png", "Rain100L/norain-001.png", "rain-001"),
    ("multi-3", "rainy", "Rain100L/input/rain-001.png", "Rain100L/target/norain-001.png", "rain-001"),
    ("multi-3", "rainy", "derain/Rain100L/input/1.png", "derain/Rain100L/target/1.png", "1"),
    ("multi-3", "rainy", "rain_data_test_Light/rain/X2/norain-1x2.png",
     "rain_data_test_Light/norain/norain-1.png", "norain-1x2"),
    ("multi-5", "motion-blurry", "GOPRO_Large/test/GOPR0384_11_00/blur/000001.png",
     "GOPRO_Large/test/GOPR0384_11_00/sharp/000001.png", "GOPR0384_11_00/000001"),
    ("multi-5", "motion-blurry", "deblur/gopro/input/GOPR0384_11_00-000001.png",
     "deblur/gopro/target/GOPR0384_11_00-000001.png", "GOPR0384_11_00-000001"),
    ("multi-5", "low-light", "LOLdataset/eval15/low/1.png", "LOLdataset/eval15/high/1.png", "1"),
    ("mixed", "low_haze", "CDD-11_test/low_haze/000001.png", "CDD-11_test/clear/000001.png", "000001"),
    ("mixed", "low_haze", "data/test/low_haze/000001.png", "data/test/clear/000001.png", "000001"),
    ("multi-10", "raindrop", "val/raindrop/LQ/0_rain.png", "val/raindrop/GT/0_rain.png", "0_rain"),
    ("multi-10", "raindrop", "test_a/data/0_rain.png", "test_a/gt/0_clean.png", "0_rain"),
    ("multi-10", "shadowed", "SRD/test/shadow/IMG_5456.jpg", "SRD/test/shadow_free/IMG_5456_no_shadow.jpg", "IMG_5456"),
]  # fmt: skip


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or (JPEG if path.suffix == ".jpg" else PNG))
    return path


def played(name: str, *subsets: str, images: int = 1):
    """A track with some of its subsets alone, each of so few pictures."""
    track = load_track(name)
    sets = {subset: data_of(track)[subset].model_copy(update={"images": images}) for subset in subsets}
    counts = {} if subsets == ("all",) else dict.fromkeys(subsets, images)
    return track.model_copy(update={"data": sets, "subsets": counts})


def looked(track, *folders, **places):
    return [inspected(one) for one in arranged(track, Places(folders, **places))]


@pytest.mark.parametrize(("name", "subset", "lq", "gt", "picture"), ON_DISK)
def test_a_data_set_is_linked_from_where_it_lies_without_a_copy_or_a_new_name(tmp_path, name, subset, lq, gt, picture):
    lq, gt = put(tmp_path / "down" / lq), put(tmp_path / "down" / gt)
    track = played(name, subset)
    found = looked(track, tmp_path / "down")
    assert [one.problems for one in found] == [()]
    assert link(track, found, tmp_path / "out") == 2
    (linked_lq,), (linked_gt,) = (
        [one for one in (tmp_path / "out" / part).rglob("*") if not one.is_dir()] for part in ("lq", "gt")
    )
    assert (linked_lq.resolve(), linked_gt.resolve()) == (lq, gt)
    assert linked_lq.is_symlink()
    assert linked_lq.relative_to(tmp_path / "out" / "lq" / subset).with_suffix("").as_posix() == picture
    assert linked_gt.relative_to(tmp_path / "out" / "gt" / subset).with_suffix("").as_posix() == picture
    assert link(track, looked(track, tmp_path / "down"), tmp_path / "out") == 0, "what is linked stays"


def test_eleven_kinds_of_damage_share_one_clear_folder(tmp_path):
    track = load_track("mixed")
    for folder in ("clear", *track.subsets):
        for number in (1, 2):
            put(tmp_path / "CDD-11_test" / folder / f"{number:06}.png")
    track = played("mixed", *track.subsets, images=2)
    found = looked(track, tmp_path)
    assert not any(one.problems for one in found)
    assert link(track, found, tmp_path / "out") == 2 * 11 * 2
    assert {one.resolve().parent.name for one in (tmp_path / "out" / "gt").rglob("*.png")} == {"clear"}


def test_clean_pictures_that_a_track_adds_noise_to_are_inputs_and_truth(tmp_path):
    put(tmp_path / "CBSD68" / "0000.png")
    track = played("multi-3", "noisy-15")
    link(track, looked(track, tmp_path), tmp_path / "out")
    assert (tmp_path / "out/lq/noisy-15/0000.png").is_symlink()
    assert (tmp_path / "out/gt/noisy-15/0000.png").is_symlink()
    track = played("denoise-25-truncated", "all")
    link(track, looked(track, tmp_path / "CBSD68"), tmp_path / "alone")
    assert (tmp_path / "alone/gt/0000.png").is_symlink()
    assert not (tmp_path / "alone/lq").exists(), "the track makes them"


def test_everything_that_is_wrong_with_a_download_is_told_at_once_and_nothing_is_linked(tmp_path):
    for number in (1, 2):
        put(tmp_path / f"outdoor/hazy/000{number}_0.8_0.2.jpg")
    put(tmp_path / "outdoor/gt/0001.jpg")  # lossy truth
    put(tmp_path / "Rain100L/rainy/rain-001.png", encode_png(scene(20, 20)))
    put(tmp_path / "Rain100L/norain-001.png")  # of another size
    put(tmp_path / "Rain100L/rainy/rain-002.png", b"no picture")
    put(tmp_path / "Rain100L/norain-002.png", JPEG)  # lossy data under a lossless name
    for folder in ("CBSD68", "copy/bsd68"):
        put(tmp_path / folder / "a.png")
        put(tmp_path / folder / "b.png")
    track = played("multi-3", "hazy", "rainy", "noisy-15", images=2)
    hazy, rainy, noisy = looked(track, tmp_path)
    assert hazy.problems == (
        "expected lossless truth such as outdoor/gt/0001.png, found JPEG for 1: it is a copy with losses",
        "expected a truth for every input, found none for 0002_0.8_0.2.jpg (outdoor/gt/0002.png)",
    )
    assert any("rain-001 is 20 x 20, its truth 18 x 20" in one for one in rainy.problems)
    assert any("expected pictures" in one and "rain-002.png" in one for one in rainy.problems)
    assert any("there 2 times" in one and "noisy-15=DIR" in one for one in noisy.problems)
    with pytest.raises(UserError, match=r"(?s)hazy: .*hazy: .*rainy: .*rainy: .*noisy-15: "):
        link(track, [hazy, rainy, noisy], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (alone,) = looked(played("multi-3", "noisy-15", images=2), of_subset={"noisy-15": tmp_path / "copy"})
    assert alone.problems == ()


def test_lossy_data_under_a_lossless_name_and_pictures_that_a_program_cuts_are_told(tmp_path):
    put(tmp_path / "CBSD68" / "a.png", JPEG)
    (found,) = [inspected(one, 16) for one in arranged(played("denoise", "all"), Places((tmp_path,)))]
    assert found.problems == ("expected lossless truth, found JPEG data under another suffix: a.png",)
    assert "1 of 1 are cut about their centre to a multiple of 16" in found.remarks


def test_half_a_data_set_and_one_that_is_not_there_are_told_with_the_place_to_get_it(tmp_path):
    put(tmp_path / "eval15/low/1.png")
    put(tmp_path / "eval15/high/1.png")
    track = load_track("multi-5")
    found = {one.subset: one for one in arranged(track, Places((tmp_path,)))}
    assert found["low-light"].problems == (f"expected 15 pictures, found 1 below {tmp_path}",)
    assert [one.state for one in found.values()] == ["missing", "missing", "missing", "missing", "not whole"]
    (problem,) = found["motion-blurry"].problems
    assert "GoPro, test part is not there" in problem
    assert "https://seungjunnah.github.io" in problem


def test_a_split_file_chooses_the_pictures_and_may_not_name_others(tmp_path):
    kinds = DataSet(
        title="x", images=1, homepage="http://x", licence="x",
        layouts=(Layout(name="x", inputs="in/{id}.png", truth="gt/{id}.png", split="list.txt"),),
    )  # fmt: skip
    track = load_track("general").model_copy(update={"data": {"all": kinds}})
    for name in ("a", "b"):
        put(tmp_path / f"in/{name}.png")
        put(tmp_path / f"gt/{name}.png")
    (found,) = looked(track, tmp_path)
    assert found.problems == (f"expected 1 pictures, found 2 below {tmp_path}; which belong to it is said by list.txt",)
    (tmp_path / "list.txt").write_text("./in/b.png 0\n\n")
    (found,) = looked(track, tmp_path)
    assert found.problems == ()
    assert [pair.name for pair in found.chosen.pairs] == ["b"]
    other = tmp_path / "mine.txt"
    other.write_text("in/b.png\nin/c.png\n")
    (found,) = looked(track, tmp_path, splits={"all": other})
    assert found.problems == ("mine.txt names what is not there: in/c.png",)


def test_a_truth_is_as_many_times_as_large_as_the_track_enlarges(tmp_path):
    for name, truth in (("a", scene(40, 48)), ("b", scene(41, 51)), ("c", scene(38, 48))):
        write_png(tmp_path / "LR" / f"{name}x4.png", scene(10, 12))
        write_png(tmp_path / "HR" / f"{name}.png", truth)
    kinds = DataSet(
        title="x", images=3, homepage="http://x", licence="x",
        layouts=(Layout(name="x", inputs="LR/{id}x4.png", truth="HR/{id}.png", picture="{id}"),),
    )  # fmt: skip
    track = load_track("general").model_copy(update={"data": {"all": kinds}})
    (found,) = [inspected(one, scale=4) for one in arranged(track, Places((tmp_path,)))]
    (problem,) = found.problems
    assert "c is 10 x 12, its truth" in problem
    assert "b is" not in problem, "what is left over at the right and at the bottom is cut"


def test_no_link_goes_where_something_else_is(tmp_path):
    put(tmp_path / "CBSD68" / "a.png")
    put(tmp_path / "out/gt/a.png")
    put(tmp_path / "out/gt/old.png")
    track = played("denoise", "all")
    with pytest.raises(
        UserError, match=r"(?s)a\.png: expected nothing, or a link.*pictures that the track does not have: old"
    ):
        link(track, looked(track, tmp_path / "CBSD68"), tmp_path / "out")


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA_SETS.glob("*.toml")))
def test_every_data_set_that_ships_is_read_and_played(name):
    assert data_set(name).where()
    assert any(name in track.data.values() for track in all_tracks())


def test_a_track_has_as_many_pictures_as_its_data_sets():
    for track in all_tracks():
        if track.subsets and track.data:
            assert {subset: known.images for subset, known in data_of(track).items()} == track.subsets, track.name


MINE = """
name = "mine"
title = "Fourfold"
inputs = "general"
metrics = ["psnr"]
terms = [{ metric = "psnr", scale = 1.0 }]
source = "made for tests"

[data.all]
title = "Two pictures"
images = 2
homepage = "https://example.org"
licence = "not stated"
layouts = [{ name = "theirs", inputs = "LR/{id}x4.png", truth = "HR/{id}.png", picture = "{id}" }]
"""


def test_the_commands_list_check_and_link_the_data_of_a_track_of_ones_own(ntire, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(MINE)
    mine = tmp_path / "mine.toml"
    listed = ntire("data", "list", "--track", mine)
    assert "https://example.org" in listed.out
    assert "LR/{id}x4.png with HR/{id}.png" in listed.out
    for number in (801, 802):
        write_png(tmp_path / "down" / "LR" / f"0{number}x4.png", scene(18, 20))
    write_png(tmp_path / "down" / "HR" / "0801.png", scene(18, 20))
    checked = ntire("data", "check", "--track", mine, tmp_path / "down")
    assert checked.code == 1
    assert "found none for 0802x4.png (HR/0802.png)" in checked.out + checked.err
    linked = ntire("data", "link", "--track", mine, tmp_path / "down", "-o", tmp_path / "out")
    assert linked.code == 2
    write_png(tmp_path / "down" / "HR" / "0802.png", scene(18, 20))
    (found,) = json.loads(ntire("data", "check", "--track", mine, f"all={tmp_path / 'down'}", "--json").out)
    assert (found["state"], found["pictures"], found["layout"]) == ("here", 2, "theirs")
    monkeypatch.setenv("NTIRE_DATA", str(tmp_path / "data"))
    assert ntire("data", "link", "--track", mine, tmp_path / "down").code == 0
    assert (tmp_path / "data/mine/lq/0801.png").is_symlink()
    wrong = ntire("data", "check", "--track", mine, f"hazy={tmp_path}", tmp_path / "nowhere")
    assert wrong.code == 2
    assert "track mine has no such data; it has: all" in wrong.err
    assert "nowhere: expected a folder, found none" in wrong.err
    assert "is played on no published data set" in ntire("data", "list", "--track", "general").err
