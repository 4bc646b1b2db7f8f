import csv
import json
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from ntire import UserError
from ntire.image import read_pixels
from ntire.submission import Manifest, Submission
from scoring.leaderboard import cells, line_of, markdown, ranked, write_leaderboard, write_scores
from scoring.metrics import METRICS
from scoring.score import Row, score
from scoring.track import Track, load_track
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


def rows_of(entry, gt, track=TRACK, metrics=None):
    return {row.image: row for row in score(entry, track, gt, metrics or track.metrics)}


def test_every_image_gets_its_metrics_unrounded(entry, gt):
    rows = rows_of(entry, gt)
    assert list(rows) == sorted(NAMES)
    for name, row in rows.items():
        restored, truth = read_pixels(entry.images / f"{name}.png"), read_pixels(gt / f"{name}.png")
        assert row.status == "ok"
        assert row.values == {metric: METRICS[metric].measure(restored, truth) for metric in TRACK.metrics}


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
    assert statuses["below/c"] == ("wrong size", "expected 40 x 48 as in the ground truth, found 39 x 48")
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


def test_the_border_is_cut_before_any_metric(entry, gt):
    framed = read_pixels(gt / "a.png").copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 0
    write_png(entry.images / "a.png", framed)
    cut = TRACK.model_copy(update={"border": 4})
    assert rows_of(entry, gt)["a"].values["psnr"] < 30
    assert rows_of(entry, gt, cut)["a"].values["psnr"] == math.inf


def test_a_picture_too_small_for_a_metric_has_a_status_and_its_other_metrics(tmp_path):
    write_png(tmp_path / "gt" / "a.png", scene(5, 7))
    write_png(tmp_path / "entry" / "images" / "a.png", scene(5, 7, seed=1))
    entry = Submission(tmp_path / "entry", Manifest(team="T", track=TRACK.name, date="2026-01-01"))
    row = rows_of(entry, tmp_path / "gt")["a"]
    assert row.status == "metric failed"
    assert set(row.values) == {"psnr"}
    assert "at least 11 x 11" in row.problem


def test_an_empty_ground_truth_is_an_error_not_a_mean_of_nothing(entry, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="expected ground-truth pictures"):
        score(entry, TRACK, tmp_path / "none", TRACK.metrics)


def row(image, status="ok", **values):
    return Row(image, "", status, values, "" if status == "ok" else f"{image} is bad")


def line(entry, rows, track=TRACK, metrics=None, team="Team"):
    return line_of(entry, team, track, rows, metrics or track.metrics, {"ntire": "0"})


def test_psnr_is_averaged_per_image_not_over_the_batch():
    one = line("x", [row("a", psnr=20.0, ssim=0.5), row("b", psnr=40.0, ssim=0.7)])
    assert one.means == {"psnr": 30.0, "ssim": pytest.approx(0.6)}
    assert one.total == 30.0


def test_a_submission_with_a_gap_is_listed_after_the_ranked_with_its_reason():
    gap = line("gap", [row("a", psnr=99.0, ssim=1.0), row("b", "missing")])
    low = line("low", [row("a", psnr=20.0, ssim=0.5), row("b", psnr=20.0, ssim=0.5)])
    high = line("high", [row("a", psnr=21.0, ssim=0.5), row("b", psnr=20.0, ssim=0.5)])
    board = ranked([gap, low, high])
    assert [(one.entry, one.rank) for one in board] == [("high", 1), ("low", 2), ("gap", None)]
    assert board[2].total is None
    assert board[2].means == {}
    assert board[2].problem == "1 missing (b)"


def test_an_unexpected_image_is_noted_and_never_averaged():
    rows = [row("a", psnr=20.0, ssim=0.5), Row("z", "", "unexpected")]
    one = line("x", rows)
    assert (one.images, one.scored, one.total, one.problem) == (1, 1, 20.0, "")
    assert one.notes == ("1 unexpected image(s), not counted",)


def test_equal_totals_are_decided_by_the_tie_break_or_share_a_rank():
    def entry_with(name, psnr, ssim):
        return line(name, [row("a", psnr=psnr, ssim=ssim)])

    given = [("c", 20, 0.5), ("b", 20, 0.6), ("a", 20, 0.5), ("d", 19, 1)]
    board = ranked([entry_with(*one) for one in given])
    assert [(one.entry, one.rank) for one in board] == [("b", 1), ("a", 2), ("c", 2), ("d", 4)]


def test_gold_has_infinite_psnr_and_is_shown_as_such(tmp_path):
    gold = line("gold", [row("a", psnr=math.inf, ssim=1.0), row("b", psnr=math.inf, ssim=1.0)])
    good = line("good", [row("a", psnr=50.0, ssim=0.99), row("b", psnr=50.0, ssim=0.99)])
    board = ranked([good, gold])
    assert [one.entry for one in board] == ["gold", "good"]
    write_leaderboard(tmp_path, board)
    text = (tmp_path / "leaderboard.csv").read_text()
    assert next(csv.DictReader(text.splitlines()))["psnr"] == "inf"
    loaded = json.loads((tmp_path / "leaderboard.json").read_text())
    assert loaded[0]["total"] == "inf"
    assert loaded[0]["notes"] == ["2 image(s) equal to the ground truth"]
    assert "inf" in markdown(board)


def test_the_csv_begins_with_the_public_columns(tmp_path):
    write_leaderboard(tmp_path, ranked([line("x", [row("a", psnr=20.0, ssim=0.5)])]))
    header = (tmp_path / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert header[:8] == ["rank", "entry", "team", "track", "valid", "total", "psnr", "ssim"]
    write_scores(tmp_path / "scores.csv", [row("a", psnr=1 / 3, ssim=0.5)], TRACK.metrics)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("image,subset,status,psnr,ssim")
    assert lines[1].startswith("a,,ok,0.3333333333,0.5")


def test_names_cannot_become_formulas_or_break_the_tables(tmp_path):
    evil = line("=HYPERLINK(1)", [row("a", psnr=20.0, ssim=-0.5)], team="a|b\n<script>")
    write_leaderboard(tmp_path, ranked([evil]))
    read = next(csv.DictReader((tmp_path / "leaderboard.csv").read_text().splitlines(keepends=True)))
    assert read["entry"] == "'=HYPERLINK(1)"
    assert read["ssim"] == "-0.5", "numbers stay numbers"
    table = (tmp_path / "leaderboard.md").read_text()
    assert len(table.splitlines()) == 3
    assert "a\\|b &lt;script>" in table


def test_a_table_without_all_metrics_has_no_total():
    partial = line("x", [row("a", psnr=20.0)], metrics=("psnr",))
    assert partial.total is None
    assert ranked([partial])[0].rank is None
    assert cells([partial])[0][:5] == ["rank", "entry", "team", "track", "total"]


def test_lower_is_better_terms_and_ties_rank_the_right_way_up(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(METRICS, "error", replace(METRICS["psnr"], name="error", higher_is_better=False))
    track = Track(
        name="t", title="t", inputs="srgb", metrics=("psnr", "error"), tie_break=("error",), source="s",
        terms=[{"metric": "psnr", "scale": 1}],
    )  # fmt: skip
    worse = line("worse", [row("a", psnr=20.0, error=9.0)], track)
    better = line("better", [row("a", psnr=20.0, error=2.0)], track)
    assert [one.entry for one in ranked([worse, better])] == ["better", "worse"]
