"""`--engine ray` on a cluster of several nodes on this machine: nodes and workers are killed while they work."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ntire import UserError
from ntire.commands import on_engine
from ntire.commands.restoring import run
from ntire.commands.running import run_all
from ntire.files import sha256_of
from ntire.runner.engines import State, Task, TaskFile, on_ray, open_engine
from ntire.runner.engines import engine as engine_module
from ntire.runner.shards import SHARDS, published
from tests.made import scene, write_png

if os.environ.get("NTIRE_TEST_RAY") != "all":
    pytest.skip(
        "takes long, and a busy machine loses nodes: `make ray` (NTIRE_TEST_RAY=all) runs it", allow_module_level=True
    )
NodeAffinity = pytest.importorskip("ray.util.scheduling_strategies", reason="no Ray").NodeAffinitySchedulingStrategy
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ntire[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

FOR_WORKERS = Path(__file__).parents[2] / "for_workers"
sys.path.append(str(FOR_WORKERS))
engine_tasks = importlib.import_module("engine_tasks")

STORE = 80 << 20
"""Bytes of a node's object store: Ray takes no smaller one."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without processors, so that nothing is done there, and a worker node of one processor."""
    from ray.cluster_utils import Cluster

    home = tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home),
        "NTIRE_TRUST": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(FOR_WORKERS),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
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
            # A minute after the cluster's end Ray ends every process that still asks it what there is.
            made.global_state.disconnect()
            made.shutdown()


@pytest.fixture
def another(cluster):
    """One more node, for as long as a test takes."""
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(on_ray, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(engine_module, "GRACE", 1.0)
    monkeypatch.setattr(on_engine, "SHARD_SECONDS", 0.5)


@pytest.fixture
def many(tmp_path):
    for number in range(12):
        write_png(tmp_path / "many" / f"{number}.png", scene(seed=number))
    return tmp_path / "many"


def images(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted((out / "images").rglob("*.png"))}


def calls(folder):
    file = folder / "calls.log"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def soon(what, then):
    """Do `then` in a thread as soon as `what()` holds."""
    thread = threading.Thread(target=lambda: (wait_for(what), then()), daemon=True)
    thread.start()
    return thread


def values(results):
    return {one.task.key: one.value for one in results}


def test_a_node_that_is_killed_while_it_restores_costs_only_its_shard(cluster, another, plugin, many, tmp_path):
    folder, out = plugin("__import__('time').sleep(0.15)"), tmp_path / "out"
    killed = soon(lambda: calls(folder) >= 6, lambda: cluster.remove_node(another, allow_graceful=False))
    heard = []
    [summary] = run_all([folder], "srgb", many, out, "ray", address=cluster.address, workers=1, say=heard.append)
    killed.join()
    assert summary.failed == []
    assert any("is lost" in line for line in heard)
    assert calls(folder) <= 12 + 4  # of one shard at most, which is of half a second
    before = calls(folder)
    alone = run(folder, "srgb", many, tmp_path / "alone", device="cpu")
    assert images(out) == images(alone.out)
    assert run(folder, "srgb", many, out, device="cpu").computed == 0
    assert calls(folder) - before == 12


def test_a_worker_that_runs_out_of_memory_is_replaced(cluster, tmp_path):
    heard = []
    with open_engine("ray", address=cluster.address, workers=1, say=heard.append) as engine:
        [result] = engine.run([Task("k", engine_tasks.die_once, (tmp_path / "died",), title="shard 7")])
    assert result.value == "lived"
    assert any("is lost" in line and "shard 7" in line for line in heard)


def test_a_driver_that_is_killed_is_started_again_and_makes_only_the_rest(cluster, plugin, many, tmp_path):
    folder, out = plugin("__import__('time').sleep(0.1)"), tmp_path / "out"
    words = [
        "run",
        "--team",
        folder,
        "--track",
        "srgb",
        many,
        "-o",
        out,
        "--engine",
        "ray",
        "--address",
        cluster.address,
    ]
    code = "from ntire.cli import main; from ntire.commands import on_engine; on_engine.SHARD_SECONDS = 0.3; main()"
    driver = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words), "--workers", "1"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: len(published(out)) >= 2, 180)
    with pytest.raises(UserError, match="another run is writing here"):
        run_all([folder], "srgb", many, out, "ray", address=cluster.address, workers=1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    [summary] = run_all([folder], "srgb", many, out, "ray", address=cluster.address, workers=1)
    assert summary.failed == []
    assert 0 < summary.computed < 12
    assert len(images(out)) == 12
    assert not (out / SHARDS).exists()


def test_a_full_object_store_delays_and_loses_nothing(cluster):
    with open_engine("ray", address=cluster.address, workers=1) as engine:
        tasks = [Task(str(number), engine_tasks.many_bytes, (number, 30 << 20)) for number in range(6)]
        found = values(engine.run(tasks))
    assert {key: (len(value), value[0]) for key, value in found.items()} == {str(n): (30 << 20, n) for n in range(6)}


def test_work_is_not_stuck_behind_a_slow_node(cluster, another, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "LEAST_OVERDUE", 1.0)
    with open_engine("ray", address=cluster.address, workers=1) as engine:
        engine.ready()
        wait_for(lambda: engine.wait(0.1) is not None and len(engine.ready()) == 2)
        tasks = [Task("slow", engine_tasks.slow_once, (tmp_path / "began",), seconds=0.1)]
        tasks += [Task(str(number), engine_tasks.double, (number,)) for number in range(8)]
        found = values(engine.run(tasks))
    assert found == {"slow": "quick", **{str(number): 2 * number for number in range(8)}}


@pytest.fixture
def blind(cluster, tmp_path):
    """A node that sees nothing of the test's folder, with an environment of its own, as a machine of another rack would."""
    start = f"{sys.executable} -m ray.scripts.scripts start --address={cluster.address} --num-cpus=1 --block"
    command = f"mount -t tmpfs none {tmp_path} && exec {start} --object-store-memory={STORE}"
    environment = os.environ | {"LACKS_WEIGHTS": "1", "PYTHONPATH": str(FOR_WORKERS), "RAY_USAGE_STATS_ENABLED": "0"}
    node = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", command], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    before = {one["NodeID"] for one in alive()}
    here = len(before)
    until = time.monotonic() + 60
    while len(alive()) == here and node.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if len(alive()) == here:
        node.kill()
        node.wait()
        pytest.skip("no node with a view of its own can be started here: unshare needs its rights")
    yield {one["NodeID"] for one in alive()} - before
    node.kill()
    node.wait()
    wait_for(lambda: len(alive()) == here)


def alive():
    return [node for node in ray.nodes() if node["Alive"]]


def test_a_node_without_the_shared_folder_gets_pictures_and_gives_images_through_the_object_store(
    cluster, blind, plugin, many, tmp_path
):
    for name in ("7", "8", "9", "10", "11"):
        (many / f"{name}.png").unlink()
    heard = []
    sighted = next(one["NodeID"] for one in alive() if one["Resources"].get("CPU") and one["NodeID"] not in blind)
    occupied = (
        ray.remote(num_cpus=1)(engine_tasks.Occupant)
        .options(scheduling_strategy=NodeAffinity(sighted, soft=False))
        .remote()
    )
    ray.get(occupied.here.remote())
    [summary] = run_all(
        ["MiAlgo"], "srgb", many, tmp_path / "out", "ray", address=cluster.address, workers=1, say=heard.append
    )
    assert summary.failed == []
    assert any("does not see the files" in line for line in heard)
    alone = run("MiAlgo", "srgb", many, tmp_path / "alone", device="cpu")
    assert images(summary.out) == images(alone.out)
    ray.kill(occupied)
    file = TaskFile(many / "0.png", sha256_of(many / "0.png"))
    state = State("weights", engine_tasks.prepared_unless_lacking)
    with open_engine("ray", address=cluster.address, workers=1) as engine:
        wait_for(lambda: engine.wait(0.1) is not None and len(engine.ready()) == 2)
        sent = list(engine.run([Task(f"{n}", engine_tasks.read, (file.path,), files=(file,)) for n in range(6)]))
        assert {one.value[0] for one in sent} == {file.path.read_bytes()}
        # One node has no weights: all is done by the other.
        kept = list(engine.run([Task(f"w{n}", engine_tasks.with_state, state=state) for n in range(4)]))
    assert {one.value for one in kept} == {"weights"}


def test_a_cluster_that_is_not_there_is_named():
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:1: expected a Ray cluster, found none"):
        open_engine("ray", address="127.0.0.1:1")
