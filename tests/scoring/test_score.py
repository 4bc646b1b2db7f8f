import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from ntire import UserError
from ntire.entry.manifest import Manifest, Submission
from ntire.picture.image import read_pixels
from ntire.scoring import opened
from ntire.scoring import score as scoring
from ntire.scoring.cache import Cache
from ntire.scoring.identity import Face, write_landmarks
from ntire.scoring.instruments import Instrument, NetworkInstrument, View
from ntire.scoring.leaderboard import line_of
from ntire.scoring.metrics import METRICS
from ntire.scoring.read_back import lines_of
from ntire.scoring.references import References, expected_images
from ntire.scoring.score import Scorer
from ntire.scoring.tables import write_scores
from ntire.scoring.track import Track, load_track
from tests.made import scene, write_png

TRACK = load_track("demo-srgb")
NAMES = ("a", "b", "below/c", "d", "e")


@pytest.fixture
def gt(tmp_path):
    for number, name in enumerate(NAMES):
        write_png(tmp_path / "gt" / f"{name}.png", scene(seed=number))
    return tmp_path / "gt"


@pytest.fixture
def entry(tmp_path, gt):
    """A submission whose images are the truth with a little noise."""
    for number, name in enumerate(NAMES):
        noisy = scene(seed=number) + np.random.default_rng(number).integers(-4, 5, (40, 48, 3))
        write_png(tmp_path / "entry" / "images" / f"{name}.png", noisy.clip(0, 255).astype(np.uint8))
    manifest = Manifest(team="Team", track=TRACK.name, date="2026-01-01")
    return Submission(tmp_path / "entry", manifest)


def scored_of(entries, gt, track=TRACK, metrics=None, cache=None, lq=None, landmarks=None):
    metrics = metrics or track.metrics
    expected = expected_images(track, References(gt, lq, landmarks), metrics)
    if cache is not None:
        return Scorer(track, metrics, "cpu", cache).score(entries, expected)
    with Cache(None) as own:
        return Scorer(track, metrics, "cpu", own).score(entries, expected)


def rows_of(entry, gt, track=TRACK, metrics=None):
    (found,) = scored_of([entry], gt, track, metrics)
    return {row.image: row for row in found.rows}


def test_every_image_gets_its_metrics_unrounded(entry, gt):
    rows = rows_of(entry, gt)
    assert list(rows) == sorted(NAMES)
    for name, row in rows.items():
        restored, truth = read_pixels(entry.images / f"{name}.png"), read_pixels(gt / f"{name}.png")
        assert row.status == "ok"
        for metric in TRACK.metrics:
            (vector,) = METRICS[metric].load("cpu", {}).observe([View(restored, truth)])
            assert row.values[metric] == vector[0]


def test_what_cannot_be_scored_is_a_status(entry, gt):
    images = entry.images
    (images / "a.png").unlink()
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:200])
    write_png(images / "below" / "c.png", scene(39, 48))
    Image.fromarray(scene()).convert("RGBA").save(images / "d.png")
    write_png(images / "f.png", scene())
    statuses = {name: (row.status, row.problem) for name, row in rows_of(entry, gt).items()}
    assert statuses["a"][0] == "missing"
    assert statuses["b"][0] == "unreadable"
    assert statuses["below/c"] == ("wrong size", "expected 40 x 48 as in its reference, found 39 x 48")
    assert statuses["d"] == ("wrong format", "expected an 8-bit RGB PNG, found PNG RGBA of 8 bits")
    assert statuses["e"] == ("ok", "")
    assert statuses["f"][0] == "unexpected"


@pytest.mark.parametrize("kind", ["gray", "palette", "16 bit", "jpeg in a png", "text"])
def test_other_files_than_8_bit_rgb_png_are_not_scored(entry, gt, kind):
    path = entry.images / "a.png"
    picture = Image.fromarray(scene())
    if kind == "gray":
        picture.convert("L").save(path)
    elif kind == "palette":
        picture.quantize(16).save(path)
    elif kind == "16 bit":
        cv2.imwrite(str(path), scene().astype(np.uint16) * 257)
    elif kind == "jpeg in a png":
        picture.save(path, format="JPEG")
    else:
        path.write_text("text")
    row = rows_of(entry, gt)["a"]
    assert row.status in ("wrong format", "unreadable")
    assert not row.values
    assert row.problem


def write_deep(path, values):
    """A picture of values in [0, 1] as the suffix of its path says: 16-bit PNG or TIFF, TIFF of floats (.tiff), or .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values.astype(np.float32))
    elif path.suffix == ".tiff":
        tifffile.imwrite(path, values.astype(np.float32), photometric="rgb")
    else:
        sixteen = np.rint(values * 65535).astype(np.uint16)
        assert cv2.imwrite(str(path), sixteen[..., ::-1])


DEEP = [".png", ".tif", ".tiff", ".npy"]


@pytest.mark.parametrize("suffix", DEEP)
def test_a_deep_truth_of_8_bit_content_gives_what_the_8_bit_truth_gives(entry, gt, tmp_path, suffix):
    for name in NAMES:
        write_deep(tmp_path / "deep" / f"{name}{suffix}", read_pixels(gt / f"{name}.png") / 255)
    shallow, deep = rows_of(entry, gt), rows_of(entry, tmp_path / "deep")
    for name in NAMES:
        assert deep[name].status == "ok"
        assert deep[name].values == pytest.approx(shallow[name].values, abs=1e-4)


@pytest.mark.parametrize("suffix", DEEP)
def test_a_deep_truth_is_not_rounded_before_it_is_compared(entry, gt, tmp_path, suffix):
    values = {name: (read_pixels(gt / f"{name}.png") + 0.5) / 256 for name in NAMES}
    for name in NAMES:
        write_deep(tmp_path / "deep" / f"{name}{suffix}", values[name])
        write_png(entry.images / f"{name}.png", np.rint(values[name] * 255).astype(np.uint8))
    for name, row in rows_of(entry, tmp_path / "deep").items():
        error = np.mean((values[name] - np.rint(values[name] * 255) / 255) ** 2)
        assert row.values["psnr"] == pytest.approx(-10 * math.log10(error), abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "result"), [(".png", "png16"), (".tif", "tiff16"), (".tiff", "tiff-float"), (".npy", "npy")]
)
def test_deep_results_are_taken_where_the_track_says_so_and_refused_by_their_depth_elsewhere(entry, gt, suffix, result):
    (entry.images / "a.png").unlink()
    truth = read_pixels(gt / "a.png") / 255
    write_deep(entry.images / f"a{suffix}", (truth * 0.9).clip(0, 1))
    row = rows_of(entry, gt)["a"]
    assert row.status == "wrong format"
    assert "expected an 8-bit RGB PNG, found" in row.problem
    found = rows_of(entry, gt, TRACK.model_copy(update={"results": ("png8", result)}))
    assert found["a"].values["psnr"] == pytest.approx(-10 * math.log10(np.mean((truth * 0.1) ** 2)), abs=0.01)
    assert found["b"].status == "ok"


@pytest.mark.parametrize("results", ['["png8"]', '["png8", "png16"]'])
def test_a_check_takes_the_depths_that_the_track_takes(gt, tmp_path, ntire, results):
    (tmp_path / "deep.toml").write_text(
        f'name = "deep"\ntitle = "t"\ninputs = "srgb"\nmetrics = ["psnr"]\nresults = {results}\nsource = "s"\n'
    )
    write_deep(tmp_path / "deep" / "images" / "a.png", (read_pixels(gt / "a.png") / 300).clip(0, 1))
    (tmp_path / "deep" / "submission.toml").write_text('team = "T"\ntrack = "deep"\ndate = 2026-01-01\n')
    (tmp_path / "lq").mkdir()
    write_png(tmp_path / "lq" / "a.png", scene())
    ran = ntire("check", tmp_path / "deep", "--track", tmp_path / "deep.toml", "--lq", tmp_path / "lq", "--json")
    assert ("E305" in ran.out) == ("png16" not in results), ran.out + ran.err


@pytest.mark.parametrize(
    ("results", "codes"), [('["png8"]', {"E306"}), ('["npy"]', set()), ('["png8", "tiff16"]', {"E305"})]
)
def test_a_check_takes_other_formats_only_where_the_track_does(gt, tmp_path, ntire, results, codes):
    (tmp_path / "deep.toml").write_text(
        f'name = "deep"\ntitle = "t"\ninputs = "srgb"\nmetrics = ["psnr"]\nresults = {results}\nsource = "s"\n'
    )
    images = tmp_path / "deep" / "images"
    images.mkdir(parents=True)
    np.save(images / "a.npy", (read_pixels(gt / "a.png") / 300).clip(0, 1).astype(np.float32))
    (tmp_path / "deep" / "submission.toml").write_text('team = "T"\ntrack = "deep"\ndate = 2026-01-01\n')
    write_png(tmp_path / "lq" / "a.png", scene())
    ran = ntire("check", tmp_path / "deep", "--track", tmp_path / "deep.toml", "--lq", tmp_path / "lq", "--json")
    assert {one["code"] for one in json.loads(ran.out)["findings"] if one["code"].startswith("E3")} == codes, ran.out


def test_a_truth_whose_range_nobody_states_is_refused_with_its_numbers(entry, gt):
    (gt / "b.png").unlink()
    np.save(gt / "b.npy", scene(seed=1).astype(np.float32))
    with pytest.raises(UserError, match=r"b.npy: .*(2[0-9][0-9]|1[0-9][0-9])"):
        rows_of(entry, gt)


def test_the_border_is_cut_before_any_metric(entry, gt):
    framed = read_pixels(gt / "a.png").copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 0
    write_png(entry.images / "a.png", framed)
    cut = TRACK.model_copy(update={"border": 4})
    assert rows_of(entry, gt)["a"].values["psnr"] < 30
    assert rows_of(entry, gt, cut)["a"].values["psnr"] == math.inf


def test_a_metric_that_sees_whole_pictures_has_no_border_cut(entry, gt):
    track = TRACK.model_copy(update={"border": 4, "whole": ("ssim",)})
    cut, whole = (rows_of(entry, gt, one)["a"].values for one in (track, TRACK))
    assert cut["ssim"] == whole["ssim"]
    assert cut["psnr"] != whole["psnr"]


class _Colour(Instrument):
    """The mean colour: a set metric's observation that needs no network."""

    def observe(self, views):
        return [view.pixels.mean((0, 1)).astype(float) for view in views]


def test_fid_is_against_the_truth_of_each_subset_and_their_mean_where_these_count_alike(tmp_path, monkeypatch):
    known = replace(METRICS["fid-gt"], load=lambda device, paths: _Colour(), weights=())
    monkeypatch.setitem(METRICS, "fid-gt", known)
    for number in range(8):
        name = f"{'ab'[number % 2]}/{number}"
        write_png(tmp_path / "gt" / f"{name}.png", scene(seed=number))
        write_png(tmp_path / "entry" / "images" / f"{name}.png", scene(seed=number) // (2 if number % 2 else 1))
    track = TRACK.model_copy(
        update={"average": "subsets", "subsets": {"a": 4, "b": 4}, "metrics": ("psnr",), "also": ("fid-gt",)}
    )
    entry = Submission(tmp_path / "entry", Manifest(team="T", track=track.name, date="2026-01-01"))
    (found,) = scored_of([entry], tmp_path / "gt", track, ("psnr", "fid-gt"))
    assert found.of_set.keys() == {"fid-gt", "fid-gt/a", "fid-gt/b"}
    assert found.of_set["fid-gt/a"] == pytest.approx(0, abs=1e-9)
    assert found.of_set["fid-gt"] == pytest.approx(found.of_set["fid-gt/b"] / 2)
    line = line_of(found, track, ("psnr", "fid-gt"), {})
    assert line.by_subset["fid-gt"] == {"a": found.of_set["fid-gt/a"], "b": found.of_set["fid-gt/b"]}
    assert line.total is not None, "a metric beside the track's own takes no total away"
    (tmp_path / "table").mkdir()
    write_scores(tmp_path / "table" / "scores.csv", found.rows, found.of_set, ("psnr", "fid-gt"))
    (again,) = lines_of(tmp_path / "table" / "scores.csv", track)
    assert again.by_subset["fid-gt"] == pytest.approx(line.by_subset["fid-gt"])
    assert again.means["fid-gt"] == pytest.approx(line.means["fid-gt"])
    (tmp_path / "entry" / "images" / "b" / "1.png").unlink()
    (gap,) = scored_of([entry], tmp_path / "gt", track, ("psnr", "fid-gt"))
    assert gap.of_set.keys() == {"fid-gt/a"}, "a set with a gap has no value"


def test_a_picture_too_small_for_a_metric_has_a_status_and_its_other_metrics(tmp_path):
    write_png(tmp_path / "gt" / "a.png", scene(5, 7))
    write_png(tmp_path / "entry" / "images" / "a.png", scene(5, 7, seed=1))
    entry = Submission(tmp_path / "entry", Manifest(team="T", track=TRACK.name, date="2026-01-01"))
    row = rows_of(entry, tmp_path / "gt")["a"]
    assert row.status == "metric failed"
    assert set(row.values) == {"psnr"}
    assert "at least 11 x 11" in row.problem


def test_references_that_are_not_complete_are_told_at_once(gt, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no picture in .*none"):
        expected_images(TRACK, References(tmp_path / "none"), TRACK.metrics)
    with pytest.raises(UserError, match=r"compares with the ground truth \(--gt DIR\)"):
        expected_images(TRACK, References(), TRACK.metrics)
    with pytest.raises(UserError, match="expected a folder of references"):
        expected_images(TRACK, References(tmp_path / "nowhere"), TRACK.metrics)
    counted = TRACK.model_copy(update={"subsets": {"below": 2, "above": 1}})
    with pytest.raises(UserError, match="(?s)subset below: 2 images by the rules, 1 found.*subset above: 1 .* 0 found"):
        expected_images(counted, References(gt), TRACK.metrics)


FACES = Track(
    name="faces",
    title="t",
    inputs="face",
    pair_by="stem",
    subsets={"CelebA": 2, "LFW-Test": 1},
    metrics=("adaface", "fid"),
    gates=[
        {"name": "identity", "metric": "adaface", "max_failures": 0, "thresholds": {"CelebA": 0.5, "LFW-Test": 0.6}}
    ],
    source="s",
)
TABLE = {
    "000001": ("CelebA", Face(((70.0, 80.0), (130.0, 82.0), (100.0, 115.0), (75.0, 145.0), (126.0, 147.0)))),
    "000002": ("CelebA", Face(((60.0, 70.0), (120.0, 75.0), (95.0, 110.0), (70.0, 140.0), (120.0, 141.0)))),
    "A_B_0001_00": ("LFW-Test", Face(((75.0, 85.0), (135.0, 80.0), (105.0, 120.0), (85.0, 150.0), (130.0, 146.0)))),
}

CORNER = ((2.0, 2.0), (40.0, 2.0), (20.0, 3.0), (4.0, 5.0), (38.0, 5.0))
"""A face in the picture's corner, most of which would lie beyond its border."""


@pytest.fixture
def faces(tmp_path, random_metric):
    """Inputs, a table of landmarks and an entry that copies its inputs, in folders by subset."""
    for name in FACES.metrics:
        random_metric(name)
    for number, (stem, (subset, _)) in enumerate(TABLE.items()):
        write_png(tmp_path / "lq" / subset / f"{stem}.png", scene(200, 200, seed=number))
        write_png(tmp_path / "faces" / "images" / "anywhere" / subset / f"{stem}.png", scene(200, 200, seed=number))
    write_landmarks(tmp_path / "landmarks.csv", TABLE)
    return Submission(tmp_path / "faces", Manifest(team="T", track="faces", date="2026-01-01"))


def score_faces(entries, tmp_path, cache=None):
    return scored_of(entries, None, FACES, cache=cache, lq=tmp_path / "lq", landmarks=tmp_path / "landmarks.csv")


def test_a_copy_of_the_input_has_the_face_of_the_input(faces, tmp_path):
    (found,) = score_faces([faces], tmp_path)
    assert [(row.image, row.subset, row.status) for row in found.rows] == [
        ("000001", "CelebA", "ok"), ("000002", "CelebA", "ok"), ("A_B_0001_00", "LFW-Test", "ok"),
    ]  # fmt: skip
    assert all(row.values["adaface"] == pytest.approx(1) for row in found.rows)
    assert found.of_set.keys() == {"fid"}


def test_a_moved_face_is_another_face_to_the_gate(faces, tmp_path):
    path = faces.images / "anywhere" / "CelebA" / "000001.png"
    write_png(path, np.roll(scene(200, 200, seed=0), 40, axis=1))
    (found,) = score_faces([faces], tmp_path)
    assert found.rows[0].values["adaface"] < 0.99 < found.rows[1].values["adaface"]


def test_a_face_mostly_outside_of_its_picture_is_a_row_without_a_crop(faces, tmp_path):
    write_landmarks(tmp_path / "landmarks.csv", TABLE | {"000002": ("CelebA", Face(CORNER))})
    (found,) = score_faces([faces], tmp_path)
    assert [row.status for row in found.rows] == ["ok", "no crop", "ok"]
    assert "adaface: no crop: " in found.rows[1].problem
    line = line_of(found, FACES, ("adaface",), {})
    assert line.gates[0].failed == 1, "what has no crop has not passed"


def test_points_outside_of_their_pictures_are_mistakes_of_the_table_told_all_at_once(faces, tmp_path):
    moved = {
        name: (subset, Face(tuple((x + 5000, y) for x, y in face.points))) for name, (subset, face) in TABLE.items()
    }
    write_landmarks(tmp_path / "landmarks.csv", moved)
    with pytest.raises(UserError, match="(?s)000001: .*landmarks.csv: left_eye at .*000002: .*A_B_0001_00: ") as caught:
        score_faces([faces], tmp_path)
    assert "outside of the picture of 200 x 200" in str(caught.value)


def test_one_stem_in_two_folders_is_not_silently_overwritten(faces, tmp_path):
    write_png(faces.images / "other" / "000001.png", scene(200, 200))
    (found,) = score_faces([faces], tmp_path)
    assert found.rows[0].status == "duplicate"
    assert found.of_set == {}, "a set with a gap has no value"
    assert found.of_present.keys() == {"fid"}


def test_inputs_are_observed_once_for_all_entries_and_nothing_twice(faces, tmp_path):
    other = Submission(tmp_path / "other", faces.manifest)
    for number, (stem, _) in enumerate(TABLE.items()):
        write_png(other.images / f"{stem}.png", scene(200, 200, seed=number + 10))
    with Cache(tmp_path / "cache.sqlite") as cache:
        together = score_faces([faces, other], tmp_path, cache)
        # Embeddings: three inputs, which the first entry copies, and three of the other entry. Features: six.
        assert cache.observed == 3 + 3 + 6
    with Cache(tmp_path / "cache.sqlite") as cache:
        again = score_faces([faces, other], tmp_path, cache)
        assert cache.observed == 0
    assert [one.rows for one in again] == [one.rows for one in together]
    assert [one.of_set for one in again] == [one.of_set for one in together]


def test_a_folder_scored_before_loads_no_network(faces, tmp_path, monkeypatch):
    with Cache(tmp_path / "cache.sqlite") as cache:
        score_faces([faces], tmp_path, cache)
        monkeypatch.setattr(Scorer, "_instrument", lambda *_: pytest.fail("a metric was loaded"))
        monkeypatch.setattr(opened, "decode", lambda *_: pytest.fail("an image was decoded"))
        score_faces([faces], tmp_path, cache)


def test_other_weights_or_libraries_make_other_observations(faces, tmp_path, monkeypatch):
    with Cache(tmp_path / "cache.sqlite") as cache:
        score_faces([faces], tmp_path, cache)
        before = cache.observed
        monkeypatch.setattr("ntire.scoring.metrics.versions", lambda: {"torch": "99"})
        score_faces([faces], tmp_path, cache)
        assert cache.observed == 2 * before
        assert all("torch 99" in one for one in Scorer(FACES, FACES.metrics, "cpu", cache).identities().values())


def test_entries_side_by_side_score_as_each_alone(entry, gt, tmp_path):
    import shutil

    shutil.copytree(entry.root, tmp_path / "second")
    write_png(tmp_path / "second" / "images" / "a.png", scene(seed=7))
    second = Submission(tmp_path / "second", entry.manifest)
    together = scored_of([entry, second], gt)
    alone = [scored_of([one], gt)[0] for one in (entry, second)]
    assert [one.rows for one in together] == [one.rows for one in alone]


def test_missing_weights_are_all_told_before_anything_is_computed(entry, gt, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "weights"))
    with Cache(None) as cache, pytest.raises(UserError) as caught:
        Scorer(load_track("face-2025"), load_track("face-2025").metrics, "cpu", cache)
    assert caught.value.exit_code == 3
    for file in (
        "niqe_modelparameters.mat",
        "RN50.pt",
        "ckpt_koniq10k.pt",
        "musiq_koniq",
        "one-align",
        "FFHQ",
        "adaface",
    ):
        assert file in str(caught.value)


def test_an_image_that_breaks_a_metric_does_not_take_the_others_with_it(entry, gt, monkeypatch):
    from dataclasses import replace

    from ntire.scoring.instruments import Instrument
    from ntire.scoring.pixels import MetricError

    loaded = []

    class Fragile(Instrument):
        batch = 4

        def __init__(self):
            loaded.append(self)
            self.spoiled = False

        def observe(self, views):
            if self.spoiled:
                return [np.array([-1.0]) for _ in views]
            if any(view.pixels[0, 0, 0] == 255 for view in views):
                self.spoiled = len(views) > 1
                raise MetricError("this picture has no value")
            return [np.array([float(view.pixels.mean())]) for view in views]

    monkeypatch.setitem(METRICS, "psnr", replace(METRICS["psnr"], load=lambda device, paths: Fragile()))
    bad = read_pixels(entry.images / "b.png").copy()
    bad[0, 0] = 255
    write_png(entry.images / "b.png", bad)
    rows = rows_of(entry, gt, metrics=("psnr",))
    assert rows["b"].status == "metric failed"
    assert "this picture has no value" in rows["b"].problem
    for name in ("a", "below/c", "d", "e"):
        assert rows[name].values["psnr"] == read_pixels(entry.images / f"{name}.png").mean()
    assert len(loaded) == 2, "what had failed was built again"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_a_network_gives_that_is_no_number_is_no_score(entry, gt, monkeypatch, broken):
    """As not-a-number it would be in the mean of a valid entry, and below no threshold of a gate."""

    class Overflowing(NetworkInstrument):
        batch = 4

        def forward(self, images, references):
            value = images.mean(dim=(1, 2, 3))
            return value.where(images[:, 0, 0, 0] < 1, broken)

    monkeypatch.setitem(METRICS, "ssim", replace(METRICS["ssim"], load=lambda device, paths: Overflowing(device)))
    bad = read_pixels(entry.images / "b.png").copy()
    bad[0, 0] = 255
    write_png(entry.images / "b.png", bad)
    (found,) = scored_of([entry], gt)
    rows = {row.image: row for row in found.rows}
    assert rows["b"].status == "metric failed"
    assert rows["b"].problem == f"ssim: the network gives {broken}, which is no score"
    assert [row.status for row in found.rows if row.image != "b"] == ["ok"] * 4
    line = line_of(found, TRACK, TRACK.metrics, {})
    assert not line.valid
    assert "ssim" not in line.means


def test_where_subsets_count_alike_every_image_lies_in_one(gt):
    track = Track(
        name="t", title="t", inputs="srgb", average="subsets", subsets={"below": 1}, metrics=("psnr",), source="s",
    )  # fmt: skip
    with pytest.raises(UserError, match="a: lies in none of the folders below"):
        expected_images(track, References(gt), ("psnr",))


def test_no_more_pictures_are_decoded_at_once_than_their_bytes_allow(entry, gt, monkeypatch):
    usual = rows_of(entry, gt)
    groups = []
    own = Scorer._looked

    def seen(self, chunk, *rest):
        groups.append([one.name for one in chunk])
        return own(self, chunk, *rest)

    monkeypatch.setattr(Scorer, "_looked", seen)
    # A picture is 40 x 48 x 3 bytes, with an entry's twice that; a chunk holds two of them, and one at least.
    for limit, expected in ((4 * 40 * 48 * 3, [["a", "b"], ["below/c", "d"], ["e"]]), (1, [[name] for name in NAMES])):
        monkeypatch.setattr(opened, "CHUNK_BYTES", limit)
        groups.clear()
        assert rows_of(entry, gt) == usual
        assert groups == expected


def test_networks_get_no_more_pixels_at_once_than_they_may(entry, gt, monkeypatch):
    sizes = []

    class Network(Instrument):
        batch = 4

        def observe(self, views):
            sizes.append(len(views))
            return [np.array([1.0]) for _ in views]

    monkeypatch.setitem(METRICS, "niqe", replace(METRICS["niqe"], load=lambda device, paths: Network(), weights=()))
    for pixels, expected in ((1 << 21, [4, 1]), (3 * 40 * 48, [3, 2]), (1, [1] * 5)):
        monkeypatch.setattr(scoring, "BATCH_PIXELS", pixels)
        sizes.clear()
        rows_of(entry, gt, metrics=("niqe",))
        assert sizes == expected
