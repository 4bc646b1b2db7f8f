"""The scripts for Slurm on a real one: a run in parts, and Ray inside a job, make the bytes of a run on one machine."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from ntire.cluster import text_of
from ntire.entry.journal import read_journal
from ntire.method import catalogue
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import find_inputs, run
from tests.made import scene, write_png
from tests.slurm import CannotStart, Slurm, one_machine_slurm, why_not

pytestmark = pytest.mark.skipif(why_not() != "", reason=f"Slurm cannot be started here: {why_not()}")
whole = pytest.mark.skipif(
    os.environ.get("NTIRE_TEST_SLURM") != "all", reason="takes long: `make slurm` (NTIRE_TEST_SLURM=all) runs it"
)
METHOD = """
import time
from ntire.method import Method

class Slow(Method):
    team, track, cite, tiling, halo, stride = "Slow", "srgb", "x", "exact", 0, 1

    def forward(self, lq):
        time.sleep(0.5)
        return lq * 0.5
"""
PICTURES = 12


@pytest.fixture(scope="module")
def slurm():
    # Short: paths of sockets have 107 letters at most.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    # Where this Python's ntire is, and Ray's own command.
    places = [Path(sys.executable).parent, Path(shutil.which("ray") or sys.executable).parent]
    try:
        with one_machine_slurm(folder, ":".join(map(str, places))) as started:
            yield started
    except CannotStart as why:
        pytest.skip(f"Slurm does not come up here: {why}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def work(slurm, tmp_path):
    """A folder for jobs: the scripts, pictures, a method that takes its time."""
    for number in range(PICTURES):
        write_png(tmp_path / "in" / f"{number:02d}.png", scene(24, 24, seed=number))
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "method.py").write_text(METHOD)
    for name, file in (("slurm-array", "array.sbatch"), ("slurm-ray", "ray.sbatch")):
        (tmp_path / file).write_text(text_of(name))
    return tmp_path


def as_one_run(folder: Path) -> dict[str, bytes]:
    """What a run on this machine makes of the pictures."""
    made = prepare(catalogue.load(folder / "slow"), Options())
    run(made, find_inputs([folder / "in"], "srgb"), folder / "one", "raim-2025-srgb")
    return pictures_of(folder / "one")


def pictures_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "images").iterdir()}


def finished(slurm: Slurm, job: str) -> bool:
    states = [state for name, state in slurm.states().items() if name.partition("_")[0] == job]
    return bool(states) and all(state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT") for state in states)


def lines_of_parts(folder: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) - 1 for file in folder.rglob("journal.jsonl"))


def test_a_job_array_whose_tasks_are_requeued_makes_the_bytes_of_one_run(slurm, work):
    words = ["run", "--team", "./slow", "--track", "srgb", "in", "-o", "out", "--device", "cpu"]
    small = ["--gpus-per-task=1", "--cpus-per-task=1", "--mem-per-cpu=1G"]
    job = slurm.run("sbatch", "--parsable", "--array=1-2", *small, "array.sbatch", 2, *words, cwd=work)
    after = ["--dependency=afterany:" + job, "--cpus-per-task=1", "--mem-per-cpu=1G"]
    merging = slurm.run("sbatch", "--parsable", *after, "--wrap", "ntire merge out", cwd=work)
    slurm.wait(lambda: lines_of_parts(work / "out") >= 4, "both parts are under way")
    slurm.run("scontrol", "requeue", f"{job}_1")
    slurm.run("scancel", "--batch", "--signal=USR1", f"{job}_2")  # as 120 s before the time limit
    slurm.wait(lambda: finished(slurm, job), "the array ends")
    slurm.wait(lambda: finished(slurm, merging), "the merge ends")
    assert {slurm.states()[name] for name in (f"{job}_1", f"{job}_2", merging)} == {"COMPLETED"}, slurm.logs()
    logs = [(work / f"ntire-{job}_{part}.log").read_text() for part in (1, 2)]
    for log in logs:
        assert "stopped by SIGTERM. What is finished stays" in log
        assert " kept" in log, "the second attempt goes on where the first was"
    assert "put into the queue again" in logs[1]
    assert pictures_of(work / "out") == as_one_run(work)
    assert [line["image"] for line in read_journal(work / "out" / "journal.jsonl")] == sorted(
        f"{number:02d}" for number in range(PICTURES)
    )


@whole
def test_what_is_cancelled_does_not_come_again(slurm, work):
    words = ["run", "--team", "./slow", "--track", "srgb", "in", "-o", "out", "--device", "cpu"]
    small = ["--gpus-per-task=1", "--cpus-per-task=1", "--mem-per-cpu=1G"]
    job = slurm.run("sbatch", "--parsable", "--array=1-1", *small, "array.sbatch", 1, *words, cwd=work)
    slurm.wait(lambda: lines_of_parts(work / "out") >= 1, "it is under way")
    slurm.run("scancel", job)
    slurm.wait(lambda: finished(slurm, job), "it ends")
    assert slurm.states()[f"{job}_1"] == "CANCELLED"
    assert "stopped by SIGTERM" in (work / f"ntire-{job}_1.log").read_text()


@whole
def test_ray_inside_a_job_that_is_requeued_makes_the_bytes_of_one_run_and_leaves_nothing(slurm, work):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ntire[ray]'")
    words = ["run", "--team", "./slow", "--track", "srgb", "in", "-o", "out", "--device", "cpu"]
    small = ["--ntasks=2", "--gpus-per-task=1", "--cpus-per-task=1", "--mem-per-cpu=1G"]
    job = slurm.run("sbatch", "--parsable", *small, "ray.sbatch", *words, cwd=work)
    log = work / f"ntire-{job}.log"
    slurm.wait(lambda: log.exists() and " done " in log.read_text(), "a shard is finished")
    slurm.run("scancel", "--batch", "--signal=USR1", job)  # as 120 s before the time limit
    slurm.wait(lambda: finished(slurm, job), "the job ends")
    assert slurm.states()[job] == "COMPLETED", slurm.logs() + "".join(file.read_text() for file in work.glob("*.log"))
    said = log.read_text()
    assert "stopped by SIGTERM. What is finished stays" in said
    assert "put into the queue again" in said
    assert " kept " in said, "the second attempt goes on where the first was"
    assert pictures_of(work / "out") == as_one_run(work)
    assert not list(Path("/tmp").glob(f"ntire-{job}-*"))
