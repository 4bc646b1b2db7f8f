import contextlib
import hashlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ntire.scoring import cache as of_cache
from ntire.scoring.cache import Cache, key_of
from ntire.scoring.observation_files import ABANDONED_SECONDS, MERGED, merge

VECTORS = {key_of(str(number)): np.arange(number + 1) / 7 + number for number in range(12)}


def stored(path):
    """The bytes of the one file of a cache."""
    with Cache(path) as cache:
        cache.put(VECTORS)
    (file,) = path.iterdir()
    return file, file.read_bytes()


def as_table(path):
    stored(path)
    merge(path, 1)
    (file,) = path.iterdir()
    assert file.suffix == ".table"
    return file, file.read_bytes()


FORMS = pytest.mark.parametrize("form", [stored, as_table])


def check_all(path):
    """Whatever comes out is what was put in, and the cache works afterwards."""
    with Cache(path) as cache:
        found = cache.get(VECTORS)
        for key, vector in found.items():
            assert np.array_equal(vector, VECTORS[key])
        cache.put({key: vector for key, vector in VECTORS.items() if key not in found})
        assert cache.get(VECTORS).keys() == VECTORS.keys()
        return len(VECTORS) - len(found), cache.remarks


def only(path, file, data):
    """Nothing else in the folder."""
    for one in path.iterdir():
        one.unlink()
    file.write_bytes(data)


@FORMS
def test_vectors_come_back_and_the_next_process_finds_them(tmp_path, form):
    form(tmp_path / "cache")
    assert check_all(tmp_path / "cache") == (0, [])


@FORMS
def test_no_flipped_bit_gives_a_wrong_value_or_an_exception_or_costs_more_than_a_record(tmp_path, form):
    path = tmp_path / "cache"
    file, whole = form(path)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        only(path, file, damaged)
        missing, _ = check_all(path)
        assert missing <= 1
        assert check_all(path) == (0, [])


@FORMS
def test_a_flipped_bit_in_a_value_is_named_once(tmp_path, form):
    path = tmp_path / "cache"
    file, whole = form(path)
    wanted = VECTORS[key_of("5")].tobytes()
    only(path, file, whole.replace(wanted, wanted[:-1] + bytes([wanted[-1] ^ 1])))
    assert check_all(path) == (1, [f"{path}: 1 record(s) were damaged and are observed again."])
    assert check_all(path) == (0, [])


@FORMS
def test_a_file_cut_anywhere_gives_no_wrong_value(tmp_path, form):
    path = tmp_path / "cache"
    file, whole = form(path)
    for length in range(0, len(whole), 37):
        only(path, file, whole[:length])
        check_all(path)
        assert check_all(path) == (0, [])
    only(path, file, b"no record at all" * 1000)
    assert check_all(path)[0] == len(VECTORS)


def test_a_place_that_cannot_be_used_does_not_stop_anybody(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "cache", tmp_path / "file"):
        missing, remarks = check_all(path)
        assert missing == len(VECTORS)
        assert any("cannot be used as a cache" in one and "is not kept" in one for one in remarks)


def test_what_others_may_only_read_is_read(tmp_path, monkeypatch):
    stored(tmp_path / "cache")
    (tmp_path / "cache").chmod(0o555)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    path, user = Path("cache"), os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with Cache(path) as cache:
            assert cache.get(VECTORS).keys() == VECTORS.keys()
            assert cache.remarks == []
            cache.put({key_of("new"): np.zeros(1)})
            assert cache.get([key_of("new")])
            assert "is not kept" in cache.remarks[0]
        assert len(list(path.iterdir())) == 1
    finally:
        os.seteuid(user)
        path.chmod(0o755)


def test_a_disk_that_fills_up_costs_only_what_is_not_kept(tmp_path):
    path = tmp_path / "cache"
    stored(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with Cache(path) as cache:
            cache.put({key_of("small"): np.ones(1)})
            cache.put({key_of("large"): np.zeros(100_000)})
            assert cache.get([key_of("large")]).keys() == {key_of("large")}
            assert "is not kept" in cache.remarks[0]
            assert cache.get(VECTORS).keys() == VECTORS.keys()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Cache(path) as cache:
        assert cache.get([key_of("small"), key_of("large")]).keys() == {key_of("small")}
        assert cache.remarks == []
    assert check_all(path) == (0, [])


def test_many_logs_become_one_table_and_nothing_is_lost(tmp_path):
    path = tmp_path / "cache"
    vectors = {key_of(f"run {number}"): np.full(3, float(number)) for number in range(3 * MERGED)}
    for key, vector in vectors.items():
        with Cache(path) as cache:
            cache.put({key: vector})
        assert len(list(path.iterdir())) <= MERGED + 2
    with Cache(path) as cache:
        found = cache.get(vectors)
    assert all(np.array_equal(found[key], vector) for key, vector in vectors.items())


def test_a_log_in_use_is_read_and_left_alone_and_an_abandoned_one_is_merged(tmp_path):
    path = tmp_path / "cache"
    with Cache(path) as one, Cache(path) as other:
        one.put(VECTORS)
        other._looked -= of_cache.LOOK_SECONDS + 1
        assert other.get(VECTORS).keys() == VECTORS.keys()
        merge(path, 1)
        (live,) = path.glob("*.live")
        os.utime(live, times=(time.time() - ABANDONED_SECONDS - 1,) * 2)
        with Cache(path) as third:
            third.put({key_of("third"): np.ones(1)})
        merge(path, 1)
        assert [file.suffix for file in path.iterdir()] == [".table"]
        # Its process only slept: it goes on in another file.
        one.put({key_of("awake"): np.ones(1)})
        assert one.get([*VECTORS, key_of("awake")]).keys() == {*VECTORS, key_of("awake")}
    with Cache(path) as cache:
        assert cache.get([*VECTORS, key_of("awake")]).keys() == {*VECTORS, key_of("awake")}


WRITER = """
import sys
import numpy as np
from pathlib import Path
from ntire.scoring.cache import Cache, key_of
path, name = Path(sys.argv[1]), sys.argv[2]
for run in range(1000):
    with Cache(path) as cache:
        for number in range(20):
            text = f"{name} {run} {number}"
            cache.put({key_of(text): np.frombuffer(bytes.fromhex(key_of(text)), np.uint8).astype(float)})
            print(text, flush=True)
"""


def test_writers_that_are_killed_lose_nothing_that_they_had_kept_and_nothing_wrong_is_read(tmp_path):
    path = tmp_path / "cache"
    command = [sys.executable, "-c", WRITER, str(path)]
    kept = []
    for generation in range(2):
        writers = [
            subprocess.Popen([*command, f"{generation}.{number}"], stdout=subprocess.PIPE, text=True)
            for number in range(3)
        ]
        for number, writer in enumerate(writers):
            kept += [writer.stdout.readline() for _ in range(250 + 70 * number)]
            writer.send_signal(signal.SIGKILL)
            kept += writer.stdout.readlines()
            writer.wait()
            writer.stdout.close()
    # A line that was being printed tells of a record all the same.
    texts = [text.rstrip("\n") for text in kept if text.endswith("\n")]
    with Cache(path) as cache:
        found = cache.get(map(key_of, texts))
        assert cache.remarks == []
    assert len(texts) > 1500
    assert len(found) == len(texts)
    assert all(bytes(vector.astype(np.uint8)).hex() == key for key, vector in found.items())
    assert list(path.glob("*.table"))


def test_the_database_of_an_earlier_version_is_taken_over_with_a_word(tmp_path):
    old, path = tmp_path / "cache.sqlite", tmp_path / "cache"
    with contextlib.closing(sqlite3.connect(old)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE observations (key TEXT PRIMARY KEY, vector BLOB) STRICT")
        for key, vector in VECTORS.items():
            data = vector.tobytes()
            digest = hashlib.blake2b(key.encode() + data, digest_size=16).digest()
            database.execute("INSERT INTO observations VALUES (?, ?)", (key, digest + data))
        database.execute("INSERT INTO observations VALUES (?, ?)", (key_of("damaged"), bytes(24)))
    with Cache(path) as cache:
        assert cache.get([*VECTORS, key_of("damaged")]).keys() == VECTORS.keys()
        assert cache.remarks == [f"{old}: the 12 observations of an earlier version are now kept in {path}."]
        assert cache.observed == 0
    assert not list(tmp_path.glob("cache.sqlite*"))
    assert check_all(path) == (0, [])


def test_a_damaged_database_of_an_earlier_version_is_set_aside_with_a_word(tmp_path):
    (tmp_path / "cache.sqlite").write_bytes(b"no database at all" * 1000)
    missing, remarks = check_all(tmp_path / "cache")
    assert missing == len(VECTORS)
    assert "cannot be read" in remarks[0]
    assert check_all(tmp_path / "cache") == (0, [])
