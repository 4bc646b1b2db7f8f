import contextlib
import hashlib
import http.server
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ntire import UserError
from ntire.method.weights_files import (
    Weights,
    cache_folder,
    fetch,
    fill,
    fill_from,
    locate,
    read_state_dict,
    require,
    verify,
)

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


ODD = {
    "/garbage": b"\x00\xff garbage\r\n\r\n",
    "/length": b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc",
    "/negative": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    "/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "/nothing": b"",
    "/status": b"HTTP/1.1 abc OK\r\n\r\n",
    "/endless": b"HTTP/1.1 200 OK\r\n\r\n",
    "/larger": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nabc",
}
"""What broken or hostile servers answer."""


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT: whole, by range, or with a connection that breaks after 300,000 bytes."""

    def do_GET(self):
        if self.path in ODD:
            self.server.asked.append((self.path, None))
            self.wfile.write(ODD[self.path])
            if self.path == "/endless":
                with contextlib.suppress(OSError):
                    for _ in range(100):
                        self.wfile.write(CONTENT)
            return
        start = 0
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        if asked and self.path != "/norange":
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/slow":
            time.sleep(0.3)
        breaks = self.path == "/breaks" and start == 0
        self.wfile.write(body[:300_000] if breaks else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def file_at(server, *paths, sha256=SHA256):
    urls = tuple(f"http://127.0.0.1:{server.server_port}{path}" for path in paths)
    return Weights("net.bin", sha256, "MIT", "official", urls=urls)


def test_a_file_is_fetched_into_the_cache_and_checked(server):
    seen = []
    path = fetch(file_at(server, "/whole"), lambda have, total: seen.append((have, total)))
    assert path == cache_folder() / "net.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert locate(file_at(server), None) == (path, "here")


def test_a_broken_download_goes_on_where_it_stopped(server):
    weights = file_at(server, "/breaks")
    with pytest.raises(UserError, match="ended after 300000 of 1280000 bytes"):
        fetch(weights)
    assert locate(weights, None)[1] == "missing"
    seen = []
    assert fetch(weights, lambda have, total: seen.append((have, total))).read_bytes() == CONTENT
    assert {total for _, total in seen} == {len(CONTENT)}, "the size of the whole file, not of what is left of it"
    assert 300_000 < seen[0][0] <= seen[-1][0] == len(CONTENT)
    assert server.asked == [("/breaks", None), ("/breaks", "bytes=300000-")]


@pytest.mark.parametrize("path", ["/norange", "/whole"])
def test_a_download_that_was_whole_but_not_renamed_is_kept_or_begun_again(server, path):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "net.bin.part").write_bytes(CONTENT)
    assert fetch(file_at(server, path)).read_bytes() == CONTENT


def test_a_mirror_steps_in_and_every_answer_is_reported(server):
    assert fetch(file_at(server, "/breaks", "/whole")).read_bytes() == CONTENT
    with pytest.raises(UserError) as caught:
        fetch(Weights("other.bin", "0" * 64, "MIT", "official", urls=file_at(server, "/whole").urls * 2))
    assert str(caught.value).count("expected sha256 000") == 2
    assert not (cache_folder() / "other.bin").exists()
    assert not (cache_folder() / "other.bin.part").exists()


@pytest.mark.parametrize("path", sorted(ODD))
def test_after_any_malformed_answer_the_next_mirror_is_asked(server, path):
    weights = replace(file_at(server, path, "/whole"), size=len(CONTENT))
    assert fetch(weights).read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked] == [path, "/whole"]


def test_a_download_stops_at_the_declared_size(server):
    sizes = []
    with pytest.raises(UserError, match="more than the 1,280,001 bytes expected"):
        fetch(replace(file_at(server, "/endless"), size=len(CONTENT) + 1), lambda have, total: sizes.append(have))
    assert max(sizes) <= len(CONTENT) + 1
    assert not list(cache_folder().iterdir())


def test_of_two_that_want_one_file_at_once_one_fetches_and_the_other_waits(server):
    # A lock is of an open file, so two threads stand for two processes.
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(fetch, [file_at(server, "/slow")] * 2))
    assert both == [cache_folder() / "net.bin"] * 2
    assert [asked for asked, _ in server.asked] == ["/slow"]
    assert [path.name for path in cache_folder().iterdir()] == ["net.bin"]


def test_a_damaged_file_is_found_by_its_hash(tmp_path):
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=f"expected sha256 {SHA256}"):
        verify(Weights("net.bin", SHA256, "MIT", "official"), path)


def test_a_file_that_many_need_is_read_once_for_its_hash_until_it_changes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("ntire.method.weights_files.sha256_of", lambda path: read.append(path) or SHA256)
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT)
    for _ in range(3):
        verify(Weights("net.bin", SHA256, "MIT", "official"), path)
    assert read == [path]
    path.write_bytes(CONTENT + b"1")
    verify(Weights("net.bin", SHA256, "MIT", "official"), path)
    assert read == [path, path]


def test_all_missing_files_are_listed_at_once_with_licences_mirrors_and_the_way_to_get_them():
    at = ("https://one.example/b.bin", "https://two.example/b.bin")
    wanted = {
        "A": (
            Weights("a1.bin", None, "MIT", "official", size=5_000_000, urls=at[:1]),
            Weights("a2.bin", None, "NC", "official", by_hand="Accept the terms on page P."),
        ),
        "B": (Weights("b.bin", None, "MIT", "official", urls=at),),
    }
    with pytest.raises(UserError) as caught:
        require(wanted, dict.fromkeys(wanted))
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert all(
        part in message for part in ("3 weights", "a1.bin (MIT, 5 MB)", "a2.bin (NC)", "b.bin", "fetch A B", *at)
    )
    assert "Accept the terms on page P." in message
    assert "by hand" in message


def test_a_file_that_several_need_is_listed_once_and_sizes_are_added_up():
    base = Weights("base.ckpt", None, "MIT", "official", size=5_000_000_000, urls=("https://one.example/base.ckpt",))
    own = Weights("own.pth", None, "none stated", "official", by_hand="Get it from page P.")
    with pytest.raises(UserError) as caught:
        require({"A": (base, own, replace(base, into="other")), "B": (base,)}, {"A": None, "B": None})
    message = str(caught.value)
    assert message.startswith("2 weights file(s) missing, 5000 MB and more:")
    assert message.count("base.ckpt (MIT") == 1
    assert "A, B: " in message
    assert "Get those that have an address with:  ntire weights fetch A B" in message


def test_what_only_a_person_may_get_says_what_to_do_instead_of_being_fetched():
    with pytest.raises(UserError, match=r"terms on page P.*Put it at .*gated\.bin"):
        fetch(Weights("gated.bin", None, "NC", "official", by_hand="Accept the terms on page P."))


def test_weights_beside_the_code_go_before_the_cache(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.bin").write_bytes(b"x")
    assert locate(Weights("net.bin", None, "MIT", "official"), tmp_path)[1] == "shipped"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_tensors_come_back_by_name(tmp_path, name):
    tensors = {"w": torch.rand(3, 2), "b": torch.arange(4)}
    if name.endswith("safetensors"):
        save_file(tensors, tmp_path / name)
    else:
        torch.save({"params": tensors}, tmp_path / name)
    found = read_state_dict(tmp_path / name)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemError('code in a checkpoint ran')",)


def test_a_pickle_that_runs_code_is_refused_not_run(tmp_path):
    torch.save({"w": Harmful()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("a.pth", "b.pth", "half.safetensors", "list.pth", "none.safetensors"):
        with pytest.raises(UserError, match=name):
            read_state_dict(tmp_path / name)


def test_a_training_checkpoint_gives_its_tensors_and_runs_none_of_its_objects(tmp_path):
    network = nn.Linear(3, 2)
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    state["head.kernel"] = torch.zeros(2, 2)
    checkpoint = {"state_dict": state, "hyper_parameters": Harmful(), "callbacks": {Harmful: [slice(3)]}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    found = read_state_dict(tmp_path / "a.ckpt", prefix="model.")
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="with the prefix net."):
        read_state_dict(tmp_path / "a.ckpt", prefix="net.")


def test_a_hash_of_which_only_the_beginning_is_known_is_checked_as_far(tmp_path):
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT)
    verify(Weights("net.bin", SHA256[:8], "MIT", "official"), path)
    with pytest.raises(UserError, match="expected sha256 00000000"):
        verify(Weights("net.bin", "00000000", "MIT", "official"), path)


def test_libraries_find_their_files_in_their_own_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert cache_folder("pyiqa") == tmp_path / "torch" / "hub" / "pyiqa"
    assert cache_folder("torchvision") == tmp_path / "torch" / "hub" / "checkpoints"
    repository = Weights("org/model", None, "MIT", "official", home="huggingface")
    assert locate(repository, None)[1] == "missing"
    (tmp_path / "hf/hub/models--org--model/snapshots/1").mkdir(parents=True)
    (tmp_path / "hf/hub/models--org--model/snapshots/1/config.json").write_text("{}")
    assert locate(repository, None)[1] == "here"


def test_filling_is_strict_and_lists_every_difference(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    tensors = dict(module.state_dict())
    tensors["0.weight"] = torch.zeros(4, 3, 5, 5)
    tensors["2.weight"] = torch.zeros(1)
    tensors["0.bias"] = torch.full((4,), float("nan"))
    del tensors["1.bias"]
    with pytest.raises(UserError) as caught:
        fill(module, tensors, tmp_path / "net.safetensors")
    shapes = "expected (4, 3, 3, 3), found (4, 3, 5, 5)"
    for part in ("4 difference", "missing 1.bias", "unexpected 2.weight", shapes, "0.bias: contains NaN"):
        assert part in str(caught.value)


def test_half_precision_files_fill_full_precision_networks(tmp_path):
    module = nn.Linear(4, 2)
    halves = {name: value.half() for name, value in module.state_dict().items()}
    target = nn.Linear(4, 2)
    fill(target, halves, tmp_path / "x")
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, halves["weight"].float())


def test_a_part_that_knows_its_published_file_reads_it_itself(tmp_path):
    class Own(nn.Linear):
        def take(self, path, prefix):
            self.seen = (path, prefix)

    part = Own(2, 2)
    weights = Weights("words.txt", sha256=None, license="MIT", provenance="official", prefix="module.")
    fill_from(part, weights, tmp_path / "words.txt")
    assert part.seen == (tmp_path / "words.txt", "module.")
