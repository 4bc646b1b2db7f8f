import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ntire import UserError
from ntire.entry.manifest import Manifest, Submission, write_manifest
from ntire.review import score_on_engine
from ntire.review.acceptance import Entrance
from ntire.review.score_on_engine import identities_of, score_on
from ntire.runner.engines import Desk, TaskResult, open_engine
from ntire.runner.engines import engine as engine_module
from ntire.scoring.cache import Cache
from ntire.scoring.metrics import METRICS
from ntire.scoring.references import References, expected_images
from ntire.scoring.score import Scorer, listed
from ntire.scoring.track import load_track
from tests.made import scene, write_png

sys.path.append(str(Path(__file__).parents[2] / "for_workers"))
import score_tasks

RULES = load_track("demo-srgb")
TRACK = RULES.model_copy(update={"metrics": (*RULES.metrics, "fid-gt"), "terms": ()})
IMAGES = 6


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Three entries, one with a picture missing and one too many, one with a torn picture and one of a wrong size."""
    return made_field(tmp_path_factory.mktemp("field"))


def made_field(root):
    entries = []
    for number in range(3):
        entry = root / "uploads" / f"team{number}"
        for image in range(IMAGES):
            write_png(root / "gt" / f"{image}.png", scene(seed=image))
            noise = np.random.default_rng(10 * number + image).integers(-3 - number, 4 + number, (40, 48, 3))
            write_png(entry / "images" / f"{image}.png", (scene(seed=image) + noise).clip(0, 255).astype(np.uint8))
        manifest = Manifest(team=f"Team {number}", track=TRACK.name, date="2026-01-01")
        write_manifest(entry, manifest)
        entries.append(Submission(entry, manifest))
    images = [entry.images for entry in entries]
    (images[0] / "0.png").rename(images[0] / "more.png")
    (images[1] / "2.png").write_bytes((images[1] / "2.png").read_bytes()[:300])
    write_png(images[2] / "1.png", scene(39, 48))
    return entries, expected_images(TRACK, References(root / "gt"), TRACK.metrics)


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    """Where workers leave a file for each observation of the small metric."""
    folder = tmp_path_factory.mktemp("looks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(score_tasks.LOOKS, str(folder))
        yield folder


@pytest.fixture(scope="module")
def local(looks):
    with open_engine("local", workers=2, device="cpu") as engine:
        yield engine


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Many small tasks, and a small metric over sets that workers know, too."""
    monkeypatch.setattr(score_on_engine, "SECONDS", 1e-6)
    monkeypatch.setattr(score_on_engine, "make_scorer", score_tasks.make_scorer)
    monkeypatch.setattr(score_on_engine, "say_identities", score_tasks.say_identities)
    monkeypatch.setitem(METRICS, "fid-gt", score_tasks.small_fid())
    monkeypatch.setattr(engine_module, "LEAST_OVERDUE", 1000.0)  # a busy machine repeats nothing


def plain(field, track=TRACK):
    entries, expected = field
    with Cache(None) as cache, pytest.MonkeyPatch.context() as patch:
        for name in (score_tasks.LOOKS, score_tasks.SECONDS):
            patch.delenv(name, raising=False)
        entrance = Entrance(cache)
        scored = Scorer(track, track.metrics, "cpu", cache).score(entries, expected, source=entrance)
        return told(scored, entrance)


def on(engine, field, cache, report=lambda: None, track=TRACK):
    entries, expected = field
    entrance = Entrance(cache)
    scorer = Scorer(track, track.metrics, "cpu", cache, identities_of(engine, track.metrics))
    return told(score_on(engine, scorer, entries, expected, entrance, report), entrance)


def told(scored, entrance):
    """All that tables are made of."""
    return [(one.rows, one.of_set, one.of_present, entrance.refusals(one)) for one in scored]


def names_in(looks):
    return sorted(path.name.partition("-")[0] for path in looks.iterdir())


def test_workers_find_what_one_process_finds(field, local, tmp_path):
    with Cache(tmp_path / "cache") as cache:
        seen = []
        found = on(local, field, cache, lambda: seen.append(1))
        assert found == plain(field)
        assert len(seen) == 3 * IMAGES
        assert [row.status for row in found[2][0]] == ["ok", "wrong size", *["ok"] * (IMAGES - 2)]
        assert found[2][1] == {}
        assert set(found[2][2]) == {"fid-gt"}
        assert "E302" in found[0][3][0]


def test_what_is_known_is_not_looked_at_again(field, local, looks, tmp_path):
    entries, expected = field
    with Cache(tmp_path / "cache") as cache:
        on(local, (entries[:2], expected), cache)
    before = names_in(looks)
    with Cache(tmp_path / "cache") as cache:
        assert on(local, (entries[:2], expected), cache) == plain((entries[:2], expected))
        assert cache.observed == 0
        # The torn picture has no observation: a worker looked at it again, and at no other.
        assert names_in(looks) == before
        assert on(local, field, cache) == plain(field)
        assert cache.observed == 3 * (IMAGES - 1)
    assert len(names_in(looks)) == len(before) + IMAGES - 1


def test_a_worker_that_is_killed_costs_only_what_it_was_at(field, tmp_path, monkeypatch):
    monkeypatch.setenv(score_tasks.LOOKS, str(tmp_path / "looks"))
    (tmp_path / "looks").mkdir()
    (tmp_path / "looks" / "kill").touch()
    heard = []
    with Cache(None) as cache, open_engine("local", workers=1, device="cpu", say=heard.append) as engine:
        assert on(engine, field, cache) == plain(field)
    assert "killed by SIGKILL" in heard[0]
    twice = len(names_in(tmp_path / "looks")) - len(set(names_in(tmp_path / "looks")))
    assert twice <= 4  # the truth and three entries of the image that it was at


def test_what_was_observed_before_a_run_was_stopped_is_kept(field, local, looks, tmp_path):
    done = []

    def stop():
        done.append(1)
        if len(done) > 12:
            raise KeyboardInterrupt

    before = names_in(looks)
    with (
        pytest.raises(KeyboardInterrupt),
        Cache(tmp_path / "cache") as cache,
        open_engine("local", workers=1, device="cpu") as engine,
    ):
        on(engine, field, cache, stop)
    with Cache(tmp_path / "cache") as cache:
        assert on(local, field, cache) == plain(field)
    fresh = Counter(names_in(looks)) - Counter(before)
    assert sum(fresh.values()) - len(fresh) <= 4


def test_what_no_worker_can_compute_is_told_before_any_work(local):
    with pytest.raises(UserError, match="no worker can compute psnr, adaface") as caught:
        identities_of(local, ("psnr", "adaface"))
    assert caught.value.exit_code == 3
    assert "ntire weights fetch adaface" in str(caught.value)


def test_a_worker_that_does_not_see_the_files_finds_the_same_and_names_them_as_they_were(field, tmp_path):
    entries, expected = field
    with Cache(None) as cache:
        entrance = Entrance(cache)
        scorer = Scorer(TRACK, TRACK.metrics, "cpu", cache)
        listings = [listed(TRACK, one, entrance) for one in entries]
        engine = SimpleNamespace(workers={})
        work = score_on_engine._Work(engine, scorer, listings, entrance, lambda: None)
        (probe,) = work.probes(expected)
        tasks = [probe, *work.others(TaskResult(probe, problem="not measured"))]
        for task in tasks:
            sent = {}
            for file in task.files:
                sent[file.path] = tmp_path / "node" / file.path.relative_to("/")
                sent[file.path].parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.path, sent[file.path])
            desk = Desk("w", "cpu", tmp_path, sent=sent)
            desk.state = task.state.prepare(desk, *task.state.arguments)
            work.take(task.work(desk, *task.arguments))
        found = scorer.gathered(listings, expected, work.in_order(len(expected)))
        assert told(found, entrance) == plain(field)
        assert str(tmp_path) not in repr(found)


def test_tables_of_the_command_are_the_same_bytes(field, tmp_path, ntire):
    entries, expected = field
    uploads, gt = entries[0].root.parent, expected[0].gt.parent
    options = ("--gt", gt, "--device", "cpu", "--no-cache")
    assert ntire("score", uploads, *options, "-o", tmp_path / "plain").code == 1
    ran = ntire("score", uploads, *options, "-o", tmp_path / "engine", "--engine", "local", "--workers", 1)
    assert ran.code == 1
    assert re.search(r"1 worker\(s\), \d+% busy, \d+ done", ran.err)
    files = [path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*") if path.is_file()]
    assert len(files) >= 9
    for file in files:
        assert (tmp_path / "engine" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes(), file


def test_an_engine_takes_no_single_gpu(field, ntire):
    ran = ntire("score", field[0][0].root, "--engine", "local", "--device", "cuda:1")
    assert (ran.code, "--device cuda:1: with --engine" in ran.err) == (2, True)
