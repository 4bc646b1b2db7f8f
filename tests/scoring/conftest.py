"""Learned metrics with random weights: files in the places where the real ones would be."""

from dataclasses import replace

import pytest

from ntire.scoring import random_weights
from ntire.scoring.metrics import METRICS


@pytest.fixture
def random_metric(monkeypatch, tmp_path_factory):
    """Write a metric's random files and take its hash out of the rules; returns the metric."""
    shared = tmp_path_factory.getbasetemp() / "random-weights"
    monkeypatch.setenv("NTIRE_WEIGHTS", str(shared))

    def prepare(name):
        random_weights.write(name)
        files = tuple(replace(weights, sha256=None) for weights in METRICS[name].weights)
        monkeypatch.setitem(METRICS, name, replace(METRICS[name], weights=files))
        return METRICS[name]

    return prepare
