"""A claim may be off by as much as counters and clocks are; further below what was measured it is a finding."""

import pytest

from ntire.entry.findings import CODES
from ntire.entry.manifest import Claims
from ntire.entry.measured import AtSize, Measured, held_against, measured_of, same_device

AT, GPU = (64, 96), "NVIDIA H100 80GB HBM3"
FOUND = Measured(1.0, (AtSize(10.0, AT),), (AtSize(8.0, AT),), GPU)


def claimed(**figures):
    return {one.code for one in held_against(Claims(at=AT, runtime_at=AT, device=GPU, **figures), FOUND)}


@pytest.mark.parametrize(
    ("figures", "codes"),
    [
        ({}, set()),
        ({"params_m": 0.991, "macs_g": 9.51, "runtime_ms": 4.01}, set()),
        ({"params_m": 0.989}, {"E614"}),
        ({"macs_g": 9.49}, {"E614"}),
        ({"runtime_ms": 3.99}, {"W615"}),
        ({"params_m": 5.0, "macs_g": 50.0, "runtime_ms": 500.0}, set()),
        ({"params_m": 0.0, "macs_g": 0.0, "runtime_ms": 0.0}, {"E614", "W615"}),
    ],
)
def test_a_claim_below_what_was_measured_is_found(figures, codes):
    assert claimed(**figures) == codes
    assert codes <= set(CODES)


def test_claims_for_another_size_or_device_are_not_compared():
    other = Claims(macs_g=1.0, at=(8, 8), runtime_ms=1.0, runtime_at=AT, device="CPU")
    assert held_against(other, FOUND) == ()
    assert held_against(Claims(runtime_ms=1.0, runtime_at=(8, 8), device=GPU), FOUND) == ()


@pytest.mark.parametrize(
    ("claim", "ours", "same"),
    [
        ("H100", GPU, True),
        ("NVIDIA A100", "NVIDIA A100-SXM4-40GB", True),
        ("RTX 4090", "NVIDIA GeForce RTX 4090", True),
        ("RTX 3090", "NVIDIA GeForce RTX 4090", False),
        ("NVIDIA", GPU, False),
        ("CPU", "Intel(R) Xeon(R) Processor", False),
        ("intel(r) xeon(r) processor", "Intel(R) Xeon(R) Processor", True),
        ("", GPU, False),
    ],
)
def test_a_device_is_the_same_by_its_model_not_by_its_kind(claim, ours, same):
    assert same_device(claim, ours) is same


@pytest.mark.parametrize("value", [None, 3, {"params_m": -1}, {"params_m": float("nan")}, {"macs_g": [{"value": 1}]}])
def test_figures_of_another_form_count_as_none(value):
    assert measured_of(value) is None
