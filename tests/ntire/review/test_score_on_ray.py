"""Scoring on a cluster of several nodes on this machine: one is killed, one lacks weights and sees no files."""

# ruff: noqa: F401, F811 - fixtures of other modules

import os
from functools import partial

import pytest

if os.environ.get("NTIRE_TEST_RAY") != "all":
    pytest.skip(
        "takes long, and a busy machine loses nodes: `make ray` (NTIRE_TEST_RAY=all) runs it", allow_module_level=True
    )

from ntire.entry.manifest import Manifest, Submission, write_manifest
from ntire.review import score_on_engine
from ntire.runner.engines import open_engine
from ntire.scoring import random_weights
from ntire.scoring.cache import Cache
from ntire.scoring.references import References, expected_images
from ntire.scoring.track import load_track
from tests.made import scene, write_png
from tests.ntire.review.test_score_on_engine import _small, field, made_field, names_in, on, plain, score_tasks
from tests.ntire.runner.test_ray_cluster import _quick, another, blind, cluster, soon, wait_for

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def both_at_work(engine):
    wait_for(lambda: engine.wait(0.1) is not None and sum(worker.ready for worker in engine.workers.values()) == 2, 180)


def test_a_node_that_is_killed_while_it_scores_costs_only_what_it_was_at(
    cluster,
    another,
    field,
    tmp_path,
    monkeypatch,
):
    looks = tmp_path / "looks"
    looks.mkdir()
    there = {score_tasks.LOOKS: str(looks), score_tasks.SECONDS: "0.25"}
    monkeypatch.setattr(score_on_engine, "make_scorer", partial(score_tasks.make_scorer_with, there))
    heard = []
    with Cache(None) as cache, open_engine("ray", address=cluster.address, workers=1, say=heard.append) as engine:
        both_at_work(engine)
        killed = soon(lambda: len(names_in(looks)) >= 4, lambda: cluster.remove_node(another, allow_graceful=False))
        found = on(engine, field, cache)
    killed.join()
    assert found == plain(field)
    assert any("is lost" in line for line in heard)
    assert len(names_in(looks)) - len(set(names_in(looks))) <= 4


def test_a_node_without_weights_says_so_and_one_without_the_files_gets_them(cluster, tmp_path, request):
    field = made_field(tmp_path / "field")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", "/nowhere")
        request.getfixturevalue("blind")
    random_weights.write("niqe")
    track = load_track("demo-srgb").model_copy(update={"metrics": ("niqe",), "terms": ()})
    entry = Submission(tmp_path / "entry", Manifest(team="T", track=track.name, date="2026-01-01"))
    for number in range(3):
        write_png(entry.images / f"{number}.png", scene(100, 110, seed=number))
        write_png(tmp_path / "gt" / f"{number}.png", scene(100, 110, seed=number + 9))
    write_manifest(entry.root, entry.manifest)
    large = [entry], expected_images(track, References(tmp_path / "gt"), ("niqe", "psnr"))
    heard = []
    with Cache(None) as cache, open_engine("ray", address=cluster.address, workers=1, say=heard.append) as engine:
        both_at_work(engine)
        assert on(engine, field, cache) == plain(field)
        assert any("does not see the files" in line for line in heard)
        assert on(engine, large, cache, track=track) == plain(large, track)
    assert any("cannot do" in line and "niqe_modelparameters.mat" in line for line in heard)
