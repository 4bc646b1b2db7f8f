import os
import subprocess
import sys

import pytest

from ntire.environment import memory_to_use, usable_cores


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "0::/batch/job7\n"
V1 = "5:memory:/job7\n4:cpu,cpuacct:/batch/job7\n"
TREE = "sys/fs/cgroup/"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (V2, {}, 64),
        (V2, {"batch/job7/cpu.max": "max 100000"}, 64),
        (V2, {"batch/job7/cpu.max": "400000 100000"}, 4),
        # The group around it may allow less, and a part of a processor is one that is used in part.
        (V2, {"batch/job7/cpu.max": "max 100000", "batch/cpu.max": "250000 100000"}, 3),
        # In a container its own group is the root of what it sees.
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        (
            V1,
            {"cpu,cpuacct/batch/job7/cpu.cfs_quota_us": "200000", "cpu,cpuacct/batch/job7/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            V1,
            {"cpu,cpuacct/batch/job7/cpu.cfs_quota_us": "-1", "cpu,cpuacct/batch/job7/cpu.cfs_period_us": "100000"},
            64,
        ),
        (V1, {"memory/job7/cpu.cfs_quota_us": "100000", "memory/job7/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_quotas_of_control_groups_bound_the_cores(machine, tmp_path, groups, files, cores):
    written(tmp_path, {"proc/self/cgroup": groups, **{TREE + name: text for name, text in files.items()}})
    assert usable_cores(tmp_path) == cores


def test_affinity_bounds_the_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("groups", "files", "mib"),
    [
        (V2, {}, 2048),
        (V2, {"batch/job7/memory.max": "max", "batch/job7/memory.current": "7"}, 2048),
        (V2, {"batch/job7/memory.max": f"{1000 << 20}", "batch/job7/memory.current": f"{400 << 20}"}, 300),
        # Files that are only kept in memory make room; the group around it may have less.
        (
            V2,
            {
                "batch/memory.max": f"{1000 << 20}",
                "batch/memory.current": f"{900 << 20}",
                "batch/memory.stat": f"anon 1\ninactive_file {500 << 20}",
            },
            300,
        ),
        (V1, {"memory/job7/memory.limit_in_bytes": f"{600 << 20}", "memory/job7/memory.usage_in_bytes": "0"}, 300),
        (V1, {"memory/job7/memory.limit_in_bytes": "9223372036854771712", "memory/job7/memory.usage_in_bytes": "0"}, 2048),
        ("0::/\n", {"memory.max": "100", "memory.current": "200"}, 0),
    ],
)  # fmt: skip
def test_a_picture_takes_half_of_what_control_groups_leave(tmp_path, groups, files, mib):
    for name in [*files]:
        files.setdefault(f"{name.rpartition('/')[0]}/memory.stat", "anon 0\ninactive_file 0")
    texts = {"proc/self/cgroup": groups, "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 64000000 kB"}
    written(tmp_path, texts | {TREE + name: text for name, text in files.items()})
    assert memory_to_use("cpu", tmp_path) >> 20 == mib


FAULTS = """
import resource, sys
import numpy
from ntire.environment import keep_freed_memory

keep_freed_memory(sys.argv[1] == "keep")
for turn in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(64 << 20, numpy.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is of Linux")
@pytest.mark.parametrize("word", ["keep", "as usual"])
def test_memory_that_was_given_back_is_used_again_without_new_pages_where_asked(word):
    ran = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
    first, *later = map(int, ran.stdout.split())
    assert first >= 32  # 64 MiB in pages of up to 2 MiB
    assert (max(later) < first / 4) == (word == "keep")
