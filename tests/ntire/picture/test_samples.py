import shutil

import numpy as np

from ntire.picture import samples
from ntire.picture.image import read_pixels
from ntire.picture.raw import read_raw
from ntire.picture.samples import PICTURES, sample_set


def test_the_sample_set_is_the_same_every_time(tmp_path):
    one, two = sample_set(tmp_path / "one"), sample_set(tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 5 * len(PICTURES) + 1
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)


def test_a_sample_set_that_was_cut_off_is_made_again(tmp_path):
    root = sample_set(tmp_path / "one")
    (root / "complete").unlink()
    (root / "raw" / "lq" / "coffee.png").unlink()
    assert (sample_set(root) / "raw" / "lq" / "coffee.png").is_file()


def test_samples_are_raw_frames_and_pictures_with_their_truth(tmp_path):
    root = sample_set(tmp_path / "one")
    for name in PICTURES:
        frame = read_raw(root / "raw" / "lq" / f"{name}.png")
        truth = read_pixels(root / "raw" / "gt" / f"{name}.png")
        assert frame.mosaic.shape[1:] == truth.shape[:2]
        assert not frame.notes
        lq, gt = (read_pixels(root / "srgb" / part / f"{name}.png") for part in ("lq", "gt"))
        error = np.sqrt(np.mean((lq.astype(float) - gt) ** 2))
        assert 5 < error < 30


def test_whoever_makes_the_sample_set_last_leaves_the_first_one_s_alone(tmp_path, monkeypatch):
    made = sample_set(tmp_path / "made")

    def photographed(name):
        if not (tmp_path / "one").exists():
            shutil.copytree(made, tmp_path / "one")  # by another machine
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(samples, "photograph", photographed)
    root = sample_set(tmp_path / "one")
    for path in made.rglob("*.*"):
        assert (root / path.relative_to(made)).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
