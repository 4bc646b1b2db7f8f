import contextlib
import sqlite3

import numpy as np
import pytest

from ntire.scoring.cache import Cache, key_of

VECTORS = {key_of(str(number)): np.arange(number + 1) / 7 for number in range(12)}


def stored(path):
    with Cache(path) as cache:
        cache.put(VECTORS)
    return path.read_bytes()


def check_all(path):
    """Whatever comes out is what was put in, and the cache works afterwards."""
    with Cache(path) as cache:
        found = cache.get(VECTORS)
        for key, vector in found.items():
            assert np.array_equal(vector, VECTORS[key])
        cache.put(VECTORS)
        assert cache.get(VECTORS).keys() == VECTORS.keys()
        return len(found) == len(VECTORS), cache.remarks


def no_wrong_value(path):
    """A row that lies in the wrong place may be written again in vain: that costs time, not truth."""
    with Cache(path) as cache:
        for _ in range(2):
            for key, vector in cache.get(VECTORS).items():
                assert np.array_equal(vector, VECTORS[key])
            cache.put(VECTORS)


def test_vectors_come_back_and_the_next_process_finds_them(tmp_path):
    stored(tmp_path / "cache.sqlite")
    assert check_all(tmp_path / "cache.sqlite") == (True, [])


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_gives_a_wrong_value_or_an_exception(tmp_path, seed):
    path = tmp_path / "cache.sqlite"
    whole = stored(path)
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    for place in rng.choice(used, 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        no_wrong_value(path)


def test_a_flipped_bit_in_a_value_is_named(tmp_path):
    path = tmp_path / "cache.sqlite"
    whole = stored(path)
    wanted = VECTORS[key_of("11")].tobytes()
    path.write_bytes(whole.replace(wanted, wanted[:-1] + bytes([wanted[-1] ^ 1])))
    complete, remarks = check_all(path)
    assert not complete
    assert remarks == [f"{path}: 1 row(s) were damaged and are observed again."]
    assert check_all(path) == (True, [])


def test_a_file_cut_anywhere_gives_no_wrong_value_and_is_begun_again(tmp_path):
    path = tmp_path / "cache.sqlite"
    whole = stored(path)
    for length in range(1, len(whole), 997):
        path.write_bytes(whole[:length])
        no_wrong_value(path)
    path.write_bytes(b"no database at all" * 1000)
    complete, remarks = check_all(path)
    assert not complete
    assert "It is now cache.sqlite.damaged" in remarks[0]


def test_a_place_that_cannot_be_used_does_not_stop_anybody(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "cache.sqlite", tmp_path):
        complete, remarks = check_all(path)
        assert not complete
        assert "cannot be used as a cache" in remarks[0]


def test_a_disk_that_fills_up_costs_only_what_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "cache.sqlite"
    stored(path)
    with Cache(path) as cache:
        cache._database.execute(f"PRAGMA max_page_count = {path.stat().st_size // 4096 + 1}")
        cache.put({key_of("large"): np.zeros(100_000)})
        assert cache.get([key_of("large")]).keys() == {key_of("large")}
        assert "full" in cache.remarks[0]
    assert check_all(path)[0]
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_damaged_name_in_the_file_s_own_schema_is_set_aside(tmp_path):
    """SQLite puts it into its message, which then is no UTF-8."""
    path = tmp_path / "cache.sqlite"
    with Cache(path) as cache:
        cache.put({"a": np.arange(3.0)})
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE observations", b"CREATE TABLE \xefbservations"))
    with Cache(path) as cache:
        assert cache.get(["a"]) == {}
        assert "damaged" in cache.remarks[0]
