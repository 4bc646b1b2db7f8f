import errno
import fcntl
import json
import os
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


def eight_lines(path: Path) -> bytes:
    path.unlink(missing_ok=True)
    with Journal(path, HEADER) as journal:
        for number in range(8):
            journal.append({"image": str(number), "text": "x" * number})
    return path.read_bytes()


def images(journal: Journal) -> list[str]:
    return [line["image"] for line in journal.lines]


@given(cut=st.integers(12, 800), junk=st.binary(max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_journal_torn_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path, cut, junk):
    path = tmp_path / "journal.jsonl"
    whole = eight_lines(path)
    torn = whole[: min(cut, len(whole))] + (junk.replace(b"\n", b"") if cut < len(whole) else b"")
    path.write_bytes(torn)
    kept = max(torn.count(b"\n") - 1, 0)
    # The last byte of a line is its line break: without it, the line is whole.
    kept += cut < len(whole) and whole[cut : cut + 1] == b"\n" and kept >= 0 and b"\n" in torn
    with Journal(path, HEADER) as journal:
        assert images(journal) == [str(number) for number in range(kept)]
        journal.append({"image": "new"})
    lines = path.read_bytes().splitlines()
    assert json.loads(lines[-1])["image"] == "new"
    assert all(json.loads(line) for line in lines)


def test_a_flipped_bit_anywhere_is_named_and_drops_at_most_its_own_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    path = tmp_path / "journal.jsonl"
    whole = eight_lines(path)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        line = whole[:place].count(b"\n")
        with Journal(path, HEADER) as journal:
            lost = {str(number) for number in range(8)} - set(images(journal))
            assert lost <= {str(line - 1)}, place
            assert all(one["text"] == "x" * int(one["image"]) for one in journal.lines)
            assert journal.remarks
            assert f"line {line + 1}" in journal.remarks[0] or "lines" in journal.remarks[0]
            journal.append({"image": "new", "text": ""})
        with Journal(path, HEADER) as journal:
            assert not journal.remarks
            assert images(journal)[-1] == "new"


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path):
    path = tmp_path / "journal.jsonl"
    for content in (b"my notes\nof years\n", b"my notes", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        for fresh in (False, True):
            with pytest.raises(UserError, match="another file. It is left as it is"):
                Journal(path, HEADER, fresh=fresh)
        assert path.read_bytes() == content


def test_a_reader_does_not_take_a_damaged_journal_for_a_whole_one(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = eight_lines(path)
    path.write_bytes(whole.replace(b"xxx", b"xyx", 1))
    with pytest.raises(UserError, match="line 5: damaged"):
        read_journal(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with Journal(tmp_path / "journal.jsonl", HEADER) as journal:
        journal.append({"image": "a"})
        assert "no locks" in journal.remarks[0]
    assert read_journal(tmp_path / "journal.jsonl") == [{"image": "a"}]


def test_a_name_that_is_not_utf8_comes_back(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append({"image": "a\udcff"})
    assert read_journal(path) == [{"image": "a\udcff"}]


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
