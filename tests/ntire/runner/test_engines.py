import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ntire import UserError
from ntire.runner.engines import State, Task, Worker, open_engine
from ntire.runner.engines import engine as engine_module

# Workers are processes of their own and import what they do by its name.
sys.path.append(str(Path(__file__).parents[2] / "for_workers"))
import engine_tasks


@pytest.fixture(scope="module")
def local():
    with open_engine("local", workers=2, device="cpu") as engine:
        yield engine


def values(results):
    return {one.task.key: one.value for one in results}


def test_every_task_gives_one_result_with_what_it_printed(local):
    tasks = [Task(str(number), engine_tasks.double, (number,)) for number in range(5)]
    results = list(local.run([*tasks, tasks[0]]))
    assert values(results) == {str(number): 2 * number for number in range(5)}
    assert {one.log for one in results} == {f"doubling {number}\n" for number in range(5)}


def test_a_task_that_fails_is_not_tried_again_and_the_others_go_on(local):
    results = {
        one.task.key: one for one in local.run([Task("bad", engine_tasks.fail), Task("1", engine_tasks.double, (1,))])
    }
    assert results["bad"].problem == "ValueError: of course"
    assert "about to fail" in results["bad"].log
    assert "Traceback" in results["bad"].log
    assert results["1"].value == 2


def test_what_a_result_asks_for_is_done_too(local):
    def more(result):
        number = result.task.arguments[0]
        return [Task(f"{number + 1}", engine_tasks.double, (number + 1,))] if number < 3 else []

    assert values(local.run([Task("0", engine_tasks.double, (0,))], more)) == {"0": 0, "1": 2, "2": 4, "3": 6}


def test_a_worker_keeps_what_it_has_prepared(local):
    states = [State(word, engine_tasks.prepared, (word,)) for word in "ab"]
    tasks = [
        Task(f"{state.key}{number}", engine_tasks.with_state, state=state) for state in states for number in range(3)
    ]
    assert len(set(values(local.run(tasks)).values())) <= 3  # at the end, a free worker helps the other


def test_a_lost_worker_is_replaced_and_its_task_done_again(local, tmp_path):
    heard = []
    local.say = heard.append
    [result] = local.run([Task("k", engine_tasks.die_once, (tmp_path / "died",), title="shard 7")])
    assert result.value == "lived"
    assert "killed by SIGKILL, perhaps out of memory" in heard[0]
    assert "shard 7" in heard[0]


def test_a_worker_whose_machine_is_at_fault_is_replaced(local, tmp_path):
    heard = []
    local.say = heard.append
    [result] = local.run([Task("k", engine_tasks.full_disk_once, (tmp_path / "full",))])
    assert result.value == "room"
    assert "no space left" in heard[0]


def test_a_task_that_kills_three_workers_is_given_up(local):
    [result] = local.run([Task("k", engine_tasks.die)])
    assert result.problem.startswith("3 workers were lost at it")


def test_a_task_that_hangs_is_begun_again_by_a_free_worker(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_module, "LEAST_OVERDUE", 0.2)
    with open_engine("local", workers=2, device="cpu") as engine:
        tasks = [
            Task("slow", engine_tasks.slow_once, (tmp_path / "began",), seconds=0.1),
            Task("1", engine_tasks.double, (1,)),
        ]
        assert values(engine.run(tasks)) == {"slow": "quick", "1": 2}


def test_a_task_that_no_machine_can_do_says_what_each_lacks(local):
    state = State("w", engine_tasks.prepared, ("unable",))
    [result] = local.run([Task("k", engine_tasks.with_state, state=state)])
    assert "no machine can do it" in result.problem
    assert "weights are missing" in result.problem


def test_workers_that_are_ended_leave_no_folder_behind(tmp_path, monkeypatch):
    began, scratch = tmp_path / "began", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    with open_engine("local", workers=1, device="cpu") as engine:
        engine._add([Task("slow", engine_tasks.slow_once, (began,))])
        engine._hand_out()
        while not began.exists():
            engine.wait(0.05)
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []


def test_ctrl_c_of_a_terminal_is_left_to_the_program_from_the_first_moment(tmp_path):
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, lambda *given: None); sys.path.append(sys.argv[1])\n"
        "from ntire.runner.engines import Task, open_engine; import engine_tasks\n"
        "with open_engine('local', workers=1, device='cpu') as engine:\n"
        "    run = engine.run([Task('1', engine_tasks.double, (1,))])\n"
        "    engine.tick = lambda: os.killpg(0, signal.SIGINT)\n"
        "    print([one.value for one in run])"
    )
    words = [sys.executable, "-c", code, str(Path(engine_tasks.__file__).parent)]
    ran = subprocess.run(words, capture_output=True, text=True, start_new_session=True, timeout=120)
    assert (ran.stdout.strip(), ran.stderr) == ("[2]", "")


def test_what_cannot_be_pickled_is_the_task_s_problem(local):
    [result] = local.run([Task("k", engine_tasks.unpicklable)])
    assert "cannot be pickled" in result.problem


class OnPaper(engine_module.Engine):
    start = wait = close = None


OnPaper.__abstractmethods__ = frozenset()


def test_what_one_kind_of_device_cannot_do_another_of_the_same_machine_does():
    engine = OnPaper()
    old, new = (Worker(f"n/{name}", "n", "cuda", 80 << 30, name) for name in ("V100", "H100"))
    engine.workers = {one.name: one for one in (old, new)}
    engine._add([Task("k", engine_tasks.fail, title="shard")])
    for worker, problem in ((old, "no bfloat16"), (new, "no weights")):
        assert list(engine._hopeless()) == []
        task = worker.task = engine._next(worker)
        assert engine._settled(worker, engine_module.WorkerAnswer("unable", problem=problem)) is None
        assert engine._next(worker) is None
    assert task.key == "k"
    [result] = engine._hopeless()
    assert result.problem == "no machine can do it:\nn: no bfloat16\nn: no weights"


def test_the_longest_begin_first_where_there_is_memory_and_a_state_is_kept():
    engine = OnPaper()
    small, large = (Worker(f"{gb}/0", f"n{gb}", "cuda", gb << 30) for gb in (16, 80))
    engine.workers = {one.name: one for one in (small, large)}
    state = State("s", engine_tasks.prepared, ("s",))
    engine._add([
        Task("short", engine_tasks.fail, seconds=1),
        Task("long", engine_tasks.fail, seconds=9),
        Task("huge", engine_tasks.fail, seconds=99, memory=40 << 30),
        Task("kept", engine_tasks.fail, seconds=2, state=state),
        Task("larger than all", engine_tasks.fail, seconds=100, memory=400 << 30),
    ])  # fmt: skip
    assert engine._next(small).key == "long"
    assert engine._next(large).key == "larger than all"
    large.state = "s"
    assert engine._next(large).key == "kept"
    engine._add([Task("probe", engine_tasks.fail, seconds=math.inf)])
    assert engine._next(large).key == "probe"


def test_an_unknown_engine_is_named():
    with pytest.raises(UserError, match="--engine slurm: expected local or ray"):
        open_engine("slurm")
