"""The table of benchmarks/ablations.py: paired by seed, with intervals that hold."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "ablations.py"


@pytest.fixture
def ablations():
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interval_is_student_s(ablations):
    mean, half = ablations.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / 3**0.5, rel=1e-4))


def test_arms_are_paired_by_seed_and_a_question_without_pairs_is_left_out(ablations, tmp_path):
    found = {"spd": (30.0, 31.0, 35.0), "no-spd": (29.0, 30.5), "scratch": (20.0, 21.0), "orthogonal": (1.0, 2.0)}
    for arm, values in found.items():
        for seed, value in enumerate(values):
            (tmp_path / f"{arm}-{seed}").mkdir()
            (tmp_path / f"{arm}-{seed}" / "psnr.json").write_text(json.dumps({"a": value - 1, "b": value + 1}))
    text = ablations.table(ablations.Bench(tmp_path, tmp_path, 1))
    rows = text.splitlines()[2:]
    assert len(rows) == 1, "the third seed of one arm and arms without a partner do not count"
    assert "| five kinds | 2 | 30.50 | 29.75 | +0.750 " in rows[0]
    assert rows[0].endswith("| cannot be told |")


def test_every_question_asks_for_arms_that_are_trained_after_what_they_begin_from(ablations):
    for _, having, lacking in ablations.QUESTIONS:
        assert {having, lacking} <= set(ablations.ARMS)
    assert ablations.ARMS.index("pretrained") < min(map(ablations.ARMS.index, ablations.AFTER_GENERATION))
    for name in ablations.ARMS:
        method, stage, places = (ablations.mirage if "spd" in name else ablations.denoiser)(name, 10)
        assert stage.iterations == (20 if name == "scratch-twice" else 10)
        assert ("own" in stage.losses) == (name == "spd")
        assert len(places) in (3, 5)
        assert getattr(method, "exchanged", False) == (name == "exchanged")
