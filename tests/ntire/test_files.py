"""How files are written, and how those of strangers are read."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from ntire.files import (
    PART,
    new_file,
    open_regular,
    read_regular,
    sweep,
    writable_folder,
    write_atomically,
    write_together,
)


def test_two_writers_and_a_reader_never_meet_half_a_file(tmp_path):
    path = tmp_path / "board.csv"
    texts = [letter * 20_000 for letter in "ab"]
    write_atomically(path, texts[0])
    until = time.monotonic() + 1.0
    failures = []

    def write(text):
        while time.monotonic() < until:
            try:
                write_atomically(path, text)
                sweep(tmp_path)
            except OSError as error:
                failures.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    read = 0
    while time.monotonic() < until:
        assert path.read_text() in texts
        read += 1
    for writer in writers:
        writer.join()
    assert not failures
    assert read > 10
    assert not list(tmp_path.glob(f"{PART}*"))


def test_a_link_in_the_place_of_a_file_is_replaced_and_what_it_points_to_is_left(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "scores.csv").symlink_to("mine")
    write_atomically(tmp_path / "scores.csv", "scores")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "scores.csv").is_symlink()


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    write_atomically(tmp_path / ("x" * 251 + ".png"), b"1")
    assert (tmp_path / ("x" * 251 + ".png")).read_bytes() == b"1"


def test_what_a_killed_writer_leaves_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    code = (
        "import os; from pathlib import Path; from ntire.files import new_file\n"
        f"with new_file(Path({str(tmp_path / 'x')!r})) as file: file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code])
    assert len(list(tmp_path.glob(f"{PART}*.part"))) == 1
    with new_file(tmp_path / "y") as file:
        file.write(b"whole")
        writable_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"y"}


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with new_file(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(f"{PART}*"))


def test_where_nothing_can_be_written_the_file_is_named_and_not_the_part_of_it(tmp_path, monkeypatch):
    def refused(folder):
        raise OSError(errno.EROFS, "Read-only file system", ".ntire-1.part")

    (tmp_path / "sheet.png").write_text("old")
    monkeypatch.setattr("ntire.files._create", refused)
    with pytest.raises(OSError, match=r"sheet\.png") as caught:
        write_atomically(tmp_path / "sheet.png", "new")
    assert caught.value.errno == errno.EROFS


def test_of_several_files_a_full_disk_changes_none(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_text("old")
    flushed = []

    def fills_up(handle):
        flushed.append(handle)
        if len(flushed) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OSError, match="No space left"):
        write_together(dict.fromkeys(paths, "new"))
    assert [path.read_text() for path in paths] == ["old"] * 3


def test_no_link_is_followed_anywhere_below_an_entry(tmp_path):
    entry = tmp_path / "entry"
    (tmp_path / "secret" / "images").mkdir(parents=True)
    (tmp_path / "secret" / "images" / "a.png").write_bytes(b"secret")
    entry.mkdir()
    (entry / "images").symlink_to(tmp_path / "secret" / "images")
    (entry / "file").symlink_to(tmp_path / "secret" / "images" / "a.png")
    for name in ("images/a.png", "file"):
        with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
            open_regular(entry / name, entry)
    # The entry itself is a place that the user named.
    (tmp_path / "named").symlink_to(tmp_path / "secret")
    assert read_regular(tmp_path / "named" / "images" / "a.png", 100, tmp_path / "named") == b"secret"


def test_a_fifo_a_device_and_a_sparse_giant_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(1 << 42)
    for path, words in (
        (tmp_path / "fifo", "found a FIFO"),
        (tmp_path / "giant", "at most 1,000 bytes, found 4,398,046,511,104"),
    ):
        with pytest.raises(OSError, match=words):
            read_regular(path, 1000, tmp_path)
    with pytest.raises(OSError, match="found a character device"):
        read_regular(tmp_path.__class__("/dev/zero"), 1000)
