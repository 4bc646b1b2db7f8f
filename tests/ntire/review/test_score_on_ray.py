"""Scoring on a cluster of several nodes on this machine: one is killed, one lacks weights, one sees no files."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ntire.entry.manifest import Manifest, Submission, write_manifest
from ntire.runner.engines import on_ray, open_engine
from ntire.scoring import random_weights
from ntire.scoring.cache import Cache
from ntire.scoring.references import References, expected_images
from ntire.scoring.track import load_track
from tests.made import scene, write_png
from tests.ntire.review.test_score_on_engine import _small, field, names_in, on, plain, score_tasks  # noqa: F401 - fixtures

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ntire[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

FOR_WORKERS = Path(__file__).parents[2] / "for_workers"
STORE = 80 << 20


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    return tmp_path_factory.mktemp("looks")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, looks):
    """A head without processors, so that nothing is done there, and a worker node of one processor."""
    from ray.cluster_utils import Cluster

    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(FOR_WORKERS),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
        score_tasks.LOOKS: str(looks),
        score_tasks.SECONDS: "0.25",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
        )
        made.add_node(num_cpus=1, object_store_memory=STORE)
        try:
            ray.init(address=made.address, log_to_driver=False)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(on_ray, "LOOK_EVERY", 0.5)


def alive():
    return [node for node in ray.nodes() if node["Alive"]]


def wait_for(what, seconds=120):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def poor(cluster, tmp_path):
    """A node that sees nothing of the tests' folders and has no weights, as a machine of another rack would."""
    seen = tmp_path.parent
    command = (
        f"mount -t tmpfs none {seen} && exec {sys.executable} -m ray.scripts.scripts start --address={cluster.address} "
    )
    command += f"--num-cpus=1 --object-store-memory={STORE} --block"
    environment = {**os.environ, "TORCH_HOME": "/nowhere", "PYTHONPATH": str(FOR_WORKERS), "OMP_NUM_THREADS": "1"}
    del environment[score_tasks.LOOKS], environment[score_tasks.SECONDS]
    here = len(alive())
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command], env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 120
    while len(alive()) == here and node.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if len(alive()) == here:
        pytest.skip("no node with a view of its own can be started here: unshare needs its rights")
    yield node
    os.killpg(node.pid, signal.SIGKILL)
    node.wait()
    wait_for(lambda: len(alive()) == here)


def both_at_work(engine):
    wait_for(lambda: engine.wait(0.1) is not None and sum(worker.ready for worker in engine.workers.values()) == 2)


def test_a_node_that_is_killed_while_it_scores_costs_only_what_it_was_at(cluster, field, looks):  # noqa: F811
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    killed = threading.Thread(
        target=lambda: (
            wait_for(lambda: len(names_in(looks)) >= 4),
            cluster.remove_node(node, allow_graceful=False),
        )
    )
    heard = []
    with Cache(None) as cache, open_engine("ray", address=cluster.address, workers=1, say=heard.append) as engine:
        both_at_work(engine)
        killed.start()
        assert on(engine, field, cache) == plain(field)
    killed.join()
    assert any("is lost" in line for line in heard)
    assert len(names_in(looks)) - len(set(names_in(looks))) <= 4


def test_a_node_without_weights_says_so_and_one_without_the_files_gets_them(cluster, poor, field, tmp_path):  # noqa: F811
    random_weights.write("niqe")
    track = load_track("demo-srgb").model_copy(update={"metrics": ("niqe",), "terms": ()})
    entry = Submission(tmp_path / "entry", Manifest(team="T", track=track.name, date="2026-01-01"))
    for number in range(3):
        write_png(entry.images / f"{number}.png", scene(100, 110, seed=number))
        write_png(tmp_path / "gt" / f"{number}.png", scene(100, 110, seed=number + 9))
    write_manifest(entry.root, entry.manifest)
    faces = [entry], expected_images(track, References(tmp_path / "gt"), ("niqe", "psnr"))
    heard = []
    with Cache(None) as cache, open_engine("ray", address=cluster.address, workers=1, say=heard.append) as engine:
        both_at_work(engine)
        assert on(engine, field, cache) == plain(field)
        assert any("does not see the files" in line for line in heard)
        assert on(engine, faces, cache, track=track) == plain(faces, track)
    assert any("cannot do" in line and "niqe_modelparameters.mat" in line for line in heard)
