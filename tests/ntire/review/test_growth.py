"""Text of strangers takes time and memory in proportion to its length, or is refused: no parser can be made to hang."""

import gc
import io
import json
import struct
import tarfile
import time
import tracemalloc

import pytest

from ntire.entry.archive import unpack
from ntire.entry.manifest import MethodUsed
from ntire.review.check import check
from ntire.review.code_checks import look_at_method

STEPS = range(1, 11)
"""Every size is this often the smallest."""
SLACK = 4.0
"""How many times more than in proportion a noisy machine may take."""


def layered(folder, step):
    """J3: two files a layer, each importing both of the next: 2^layers ways through."""
    (folder / "method").mkdir()
    for layer in range(3 * step):
        text = "".join(f"from m{layer + 1}{one} import *\n" for one in "ab")
        for one in "ab":
            (folder / "method" / f"m{layer}{one}.py").write_text(text)
    (folder / "method" / "method.py").write_text("from m0a import *\nfrom m0b import *\n")
    return code(folder)


def many_statements(folder, step):
    return written(folder, "a\n" * 2000 * step)


def deep_nesting(folder, step):
    return written(folder, "x = " + "(" * 20 * step + ")" * 20 * step)


def many_weights(folder, step):
    calls = ", ".join(f"Weights('a{number}', None)" for number in range(50 * step))
    return written(folder, f"from ntire.method import Method\nclass A(Method):\n    weights = ({calls},)\n")


def safetensors_header(folder, step):
    names = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(500 * step)}
    header = json.dumps(names).encode()
    (folder / "method").mkdir()
    (folder / "method" / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return code(folder)


def toml_keys(folder, step):
    (folder / "submission.toml").write_text("".join(f"k{number} = {number}\n" for number in range(100 * step)))
    return lambda: check(folder, None, lambda track: None)


def nested_toml(folder, step):
    (folder / "submission.toml").write_text("a = " + "[" * 30 * step + "]" * 30 * step)
    return lambda: check(folder, None, lambda track: None)


def pax_headers(folder, step):
    """J4: keys of one global header, which tarfile copies to every member."""
    keys = {f"k{number}": "v" for number in range(100 * step)}
    path = folder / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=keys) as packed:
        for number in range(20 * step):
            packed.addfile(tarfile.TarInfo(f"images/{number}.png"), io.BytesIO(b""))
    return lambda: unpack(path, folder / "out")


def many_members(folder, step):
    path = folder / "a.tar"
    with tarfile.open(path, "w") as packed:
        for number in range(60 * step):
            packed.addfile(tarfile.TarInfo(f"images/{number}.png"), io.BytesIO(b""))
    return lambda: unpack(path, folder / "out")


def code(folder):
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return lambda: look_at_method(folder, files, MethodUsed())


def written(folder, text):
    (folder / "method").mkdir()
    (folder / "method" / "method.py").write_text(text)
    return code(folder)


PARSED = (
    layered, many_statements, deep_nesting, many_weights, safetensors_header, toml_keys, nested_toml, pax_headers, many_members,
)  # fmt: skip


@pytest.mark.parametrize("made", PARSED, ids=lambda one: one.__name__)
def test_time_and_memory_grow_no_faster_than_the_input(tmp_path, made):
    spent = []
    for step in STEPS:
        folder = tmp_path / f"{made.__name__}{step}"
        folder.mkdir()
        parse = made(folder, step)
        gc.collect()
        began = time.process_time()
        parse()
        seconds = time.process_time() - began
        spent.append(seconds)
        assert seconds < 5, f"step {step} took {seconds:.1f} s"
    least = max(spent[0], 0.01)
    assert all(seconds <= SLACK * step * least for step, seconds in zip(STEPS, spent, strict=True)), spent


def test_memory_of_a_source_file_is_bounded(tmp_path):
    """J3: a file of 4 MiB took 3.7 GB; one that is longer than any method's code is not parsed."""
    parse = written(tmp_path, "a\n" * (2 << 20))
    tracemalloc.start()
    findings = parse()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one.code for one in findings] == ["E406"]
    assert peak < 4 << 20


def test_a_bomb_of_extended_headers_is_refused(tmp_path):
    pax_headers(tmp_path, 10)
    (finding,) = unpack(tmp_path / "a.tar", tmp_path / "out2")
    assert (finding.code, finding.expected) == ("E105", "at most 32 keys in extended headers")
