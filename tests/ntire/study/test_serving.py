"""A study as a process: what it has acknowledged survives kill -9 and a full disk, and many at once lose and double nothing."""

import concurrent.futures
import os
import shutil
import socket
import sqlite3
import stat
import threading

import httpx
import pytest

from ntire.study.design import open_study
from ntire.study.serving import serve
from ntire.study.store import Store
from tests.ntire.study.serving import Program, served
from tests.ntire.study.test_app import QUICK, edited


def kept(folder):
    """For each observer the positions that have a vote, and their nonces, in the file as it lies there."""
    with sqlite3.connect(folder / "votes.sqlite") as database:
        rows = database.execute(
            "SELECT observer, position, nonce FROM votes WHERE undone IS NULL ORDER BY id"
        ).fetchall()
    database.close()
    return rows


def test_an_address_that_is_told_can_be_gone_to_at_once(study):
    class EnoughError(Exception):
        pass

    def told(site, port):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        raise EnoughError

    with pytest.raises(EnoughError):
        serve(study("--open"), "127.0.0.1", 0, "", told)


def test_what_was_acknowledged_survives_kill_9_and_the_study_goes_on(study):
    folder = edited(study("--open"), QUICK)
    acknowledged, stop = [], threading.Event()
    with served(folder) as (process, base, _):
        with Program(base) as here:
            here.take_part()
            cookies = dict(here.client.cookies)
            form = here.form()
            asked = here.asked()

            def vote_until_it_dies(asked):
                while not stop.is_set() and asked.get("stage") == "trials":
                    ballot = here.ballot(asked)
                    try:
                        answer = here.client.post(f"{base}/api/vote", json=ballot, headers={"X-Form": form})
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200
                    acknowledged.append((ballot["position"], ballot["nonce"]))
                    if len(acknowledged) == 5:
                        stop.set()
                    asked = answer.json()

            voter = threading.Thread(target=vote_until_it_dies, args=(asked,))
            voter.start()
            stop.wait(30)
            process.kill()
            voter.join(30)
        process.wait(20)
    assert len(acknowledged) >= 5
    assert acknowledged == [(position, nonce) for _, position, nonce in kept(folder)][: len(acknowledged)]
    with served(folder) as (_, base, _), Program(base) as here:
        for name, value in cookies.items():
            here.client.cookies.set(name, value)
        assert here.asked()["position"] == len(kept(folder))
        assert here.send("/api/vote", here.ballot(here.asked())).status_code == 200


def test_a_full_disk_refuses_votes_loses_none_and_takes_them_again_when_there_is_room(study):
    folder = edited(study("--open"), QUICK, ("trials = 12", "trials = 400"))
    Store(folder, open_study(folder)).close()
    acknowledged = []
    room = 24 * 4096 + 40_000
    with served(folder, file_bytes=room) as (_, base, _), Program(base) as here:
        here.take_part()
        cookies, form, asked = dict(here.client.cookies), here.form(), here.asked()
        while True:
            ballot = here.ballot(asked)
            answer = here.client.post(f"{base}/api/vote", json=ballot, headers={"X-Form": form})
            if answer.status_code != 200:
                break
            acknowledged.append((ballot["position"], ballot["nonce"]))
            asked = answer.json()
            assert len(acknowledged) < 400
        assert answer.status_code == 507
        assert "disk is full" in answer.json()["problem"]
        assert here.page("/health").status_code == 200
        assert here.asked()["position"] == len(acknowledged)
    assert [(position, nonce) for _, position, nonce in kept(folder)] == acknowledged
    assert len(acknowledged) >= 3
    with served(folder) as (_, base, _), Program(base) as here:
        for name, value in cookies.items():
            here.client.cookies.set(name, value)
        assert here.client.post(f"{base}/api/vote", json=ballot, headers={"X-Form": form}).status_code == 200
    assert [(position, nonce) for _, position, nonce in kept(folder)] == [
        *acknowledged, (ballot["position"], ballot["nonce"])
    ]  # fmt: skip


def test_many_at_once_lose_and_double_no_vote(study):
    """Each answers, sends every third answer twice, and takes one back; how long it takes is not asked here."""
    folder = edited(study("--open"), QUICK)
    people, votes_each = 16, 5

    def take_part(base, number):
        with Program(base) as here:
            here.take_part(f"p{number}")
            form, asked, sent = here.form(), here.asked(), []
            while len(sent) < votes_each:
                ballot = here.ballot(asked)
                for _ in range(2 if asked["position"] % 3 == 0 else 1):
                    answer = here.client.post(f"{base}/api/vote", json=ballot, headers={"X-Form": form})
                    assert answer.status_code == 200
                sent.append((ballot["position"], ballot["nonce"]))
                asked = answer.json()
            back = here.client.post(f"{base}/api/undo", json={"position": votes_each - 1}, headers={"X-Form": form})
            assert back.status_code == 200
            return sent[:-1]

    with served(folder) as (_, base, _), concurrent.futures.ThreadPoolExecutor(people) as pool:
        sent = list(pool.map(lambda number: take_part(base, number), range(people)))
    stored = kept(folder)
    assert sorted(nonce for _, _, nonce in stored) == sorted(nonce for of_one in sent for _, nonce in of_one)
    assert len({(who, position) for who, position, _ in stored}) == len(stored) == people * (votes_each - 1)
    store = Store(folder, open_study(folder))
    assert sorted(one.slot for one in store.observers()) == list(range(people))
    store.close()


def test_it_listens_on_loopback_alone_answers_one_server_and_keeps_its_files_private(study, ntire):
    folder = edited(study("--open"), QUICK)
    with served(folder) as (_, base, organiser):
        assert base.startswith("http://127.0.0.1:")
        port = int(base.rpartition(":")[2])
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.2:{port}/health")
        assert httpx.get(organiser).status_code == 303
        ran = ntire("study", "serve", folder, "--port", "0")
        assert ran.code == 2
        assert "served by another process" in ran.err
        other = ntire("study", "serve", study_beside(folder), "--port", port)
        assert other.code == 2
        assert f"127.0.0.1:{port}: cannot be listened at" in " ".join(other.err.split())
    assert stat.S_IMODE(os.stat(folder / "secret.key").st_mode) == 0o600  # noqa: PTH116
    assert stat.S_IMODE(os.stat(folder / "votes.sqlite").st_mode) & 0o077 == 0  # noqa: PTH116


def study_beside(folder):
    return shutil.copytree(folder, folder.with_name("other"), ignore=shutil.ignore_patterns("votes*", "*.lock"))


@pytest.mark.parametrize("path", ["study", "/a b", "/a/../b", "/<x>"])
def test_a_root_path_that_is_none_is_told(study, ntire, path):
    ran = ntire("study", "serve", "nowhere", "--root-path", path)
    assert ran.code == 2
    assert "--root-path" in ran.err


def test_a_damaged_file_of_votes_is_told(study, ntire):
    folder = study()
    (folder / "votes.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    ran = ntire("study", "serve", folder)
    assert ran.code == 2
    assert "votes.sqlite" in ran.err
