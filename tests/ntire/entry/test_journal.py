import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntire import UserError
from ntire.entry.journal import Journal, read_journal

ROOT = Path(__file__).parents[3]
HEADER = {"team": "X", "tile": 64}


def test_lines_come_back_and_the_header_is_not_one_of_them(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append({"image": "a"})
        journal.append({"image": "ü\n=1"})
    with Journal(path, HEADER) as journal:
        assert journal.lines == [{"image": "a"}, {"image": "ü\n=1"}]
    assert read_journal(path) == [{"image": "a"}, {"image": "ü\n=1"}]
    assert read_journal(tmp_path / "none") == []


@given(cut=st.integers(0, 400), junk=st.binary(max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_journal_torn_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path, cut, junk):
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    with Journal(path, HEADER) as journal:
        for number in range(8):
            journal.append({"image": str(number), "text": "x" * number})
    whole = path.read_bytes()
    torn = whole[: min(cut, len(whole))] + (junk.replace(b"\n", b"") if cut < len(whole) else b"")
    path.write_bytes(torn)
    kept = max(torn.count(b"\n") - 1, 0)
    assert len(read_journal(path)) <= 8
    with Journal(path, HEADER) as journal:
        assert [line["image"] for line in journal.lines] == [str(number) for number in range(kept)]
        journal.append({"image": "new"})
    lines = path.read_bytes().splitlines()
    assert json.loads(lines[-1]) == {"image": "new"}
    assert all(json.loads(line) for line in lines)


def test_another_run_is_refused_naming_what_differs_unless_fresh(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append({"image": "a"})
    with pytest.raises(UserError, match="tile: 64 there, 128 now"):
        Journal(path, HEADER | {"tile": 128})
    with Journal(path, HEADER | {"tile": 128}, fresh=True) as journal:
        assert journal.lines == []


def test_two_writers_at_once_are_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    code = (
        f"from pathlib import Path; from ntire.entry.journal import Journal; Journal(Path({str(path)!r}), {HEADER!r})"
    )
    with Journal(path, HEADER):
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert other.returncode == 1
    assert "another run is writing here" in other.stderr
    Journal(path, HEADER).__exit__(None, None, None)
