import pytest

from ntire.scoring.bench import bench_scorer


def test_the_scorer_gives_the_numbers_of_the_plain_loop(tmp_path, monkeypatch):
    """Numbers only: speed is measured by `ntire bench --scorer`, not by a test on a busy machine."""
    pytest.importorskip("pyiqa", reason="the plain loop is pyiqa's")
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "weights"))
    report = bench_scorer(tmp_path / "bench", ("niqe", "adaface"), images=2, entries=2, rounds=1)
    assert [part.name for part in report.parts] == ["niqe", "adaface", "all"]
    for part in report.parts:
        assert part.difference <= 1e-6
        assert part.plain_s > 0
        assert part.ours_s > 0
    assert report.again_s < 5
    assert 0 <= report.harness_share < 0.5


def test_a_metric_that_the_time_does_not_suffice_for_is_named(tmp_path, monkeypatch):
    pytest.importorskip("pyiqa", reason="the plain loop is pyiqa's")
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "weights"))
    report = bench_scorer(tmp_path / "bench", ("niqe", "adaface"), images=2, entries=1, rounds=3, minutes=0)
    assert [part.name for part in report.parts] == ["niqe", "all"]
    assert report.left_out == ("adaface",)
