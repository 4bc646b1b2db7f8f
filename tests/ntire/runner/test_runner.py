import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ntire import UserError
from ntire.entry.journal import read_journal
from ntire.entry.manifest import open_submission
from ntire.files import sha256_of
from ntire.method import catalogue
from ntire.picture.image import read_pixels
from ntire.runner import runner
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import Input, find_inputs, run
from tests.made import scene, start, write_png


def restored_by(folder, inputs, out, **options):
    """Run the plugin in `folder`; returns the summary and how often its network was called in all."""
    chosen = Options(**options)
    method = prepare(catalogue.load(folder), chosen)
    summary = run(method, find_inputs([inputs], "srgb"), out, "raim-2025-srgb")
    calls = folder / "calls.log"
    return summary, len(calls.read_text().splitlines()) if calls.exists() else 0


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_pictures_become_a_submission_folder_with_the_same_names(plugin, pictures, tmp_path):
    summary, _ = restored_by(plugin(), pictures, tmp_path / "out")
    assert [result.status for result in summary.results] == ["done"] * 3
    assert set(tree(tmp_path / "out")) == {"images/a.png", "images/b.png", "images/below/c.png"}
    expected = np.rint((scene(seed=0) / np.float32(255) + np.float32(0.05)).clip(0, 1) * 255)
    assert np.abs(read_pixels(tmp_path / "out" / "images" / "a.png") - expected).max() <= 1
    lines = read_journal(tmp_path / "out" / "journal.jsonl")
    assert {line["image"] for line in lines} == {"a", "b", "below/c"}
    assert all(line["seconds"] > 0 and line["peak_memory_mb"] > 0 for line in lines)


def test_a_finished_run_started_again_calls_no_model(plugin, pictures, tmp_path):
    folder = plugin()
    _, calls = restored_by(folder, pictures, tmp_path / "out")
    before = tree(tmp_path / "out")
    summary, again = restored_by(folder, pictures, tmp_path / "out")
    assert (calls, again, summary.computed) == (3, 3, 0)
    assert tree(tmp_path / "out") == before


def test_starting_over_leaves_no_picture_of_the_earlier_method(plugin, pictures, tmp_path):
    out = tmp_path / "out"
    restored_by(plugin(), pictures, out)
    (pictures / "b.png").unlink()
    restored_by(plugin("lq = lq + 0.2"), pictures, out, fresh=True)
    assert set(tree(out)) == {"images/a.png", "images/below/c.png"}


def test_an_input_that_was_good_and_is_broken_now_has_no_picture(plugin, pictures, tmp_path):
    out, folder = tmp_path / "out", plugin()
    restored_by(folder, pictures, out)
    (pictures / "b.png").write_text("not a picture")
    summary, _ = restored_by(folder, pictures, out)
    assert [result.image for result in summary.failed] == ["b"]
    assert set(tree(out)) == {"images/a.png", "images/below/c.png"}


def test_pictures_that_no_run_has_made_are_never_overwritten(plugin, pictures, tmp_path):
    folder, mine = plugin(), tmp_path / "mine" / "images"
    shutil.copytree(pictures, mine)
    before = tree(mine)
    for inputs in (mine, pictures):
        with pytest.raises(UserError, match=r"images: expected nothing, or what an earlier run made, found 3 picture"):
            restored_by(folder, inputs, tmp_path / "mine", fresh=True)
    assert tree(mine) == before
    restored_by(folder, pictures, tmp_path / "out")
    with pytest.raises(UserError, match=r"a\.png: expected inputs elsewhere, .* where the results go"):
        restored_by(folder, tmp_path / "out" / "images", tmp_path / "out")


@pytest.mark.parametrize("out", ["", "out", "submissions/Plus-srgb"])
def test_results_among_the_inputs_are_not_restored_again(plugin, pictures, out):
    folder = plugin()
    restored_by(folder, pictures, pictures / out)
    summary, calls = restored_by(folder, pictures, pictures / out)
    assert ([result.image for result in summary.results], calls) == (["a", "b", "below/c"], 3)
    restored_by(folder, pictures / out, pictures.parent / "twice")
    twice = {"images/a.png", "images/b.png", "images/below/c.png"}
    assert set(tree(pictures.parent / "twice")) == (
        twice if not out else {name.replace("/", "/images/", 1) for name in twice}
    )


def test_where_there_is_little_room_large_pictures_go_one_by_one_and_come_out_the_same(
    plugin, pictures, tmp_path, monkeypatch
):
    restored_by(plugin(), pictures, tmp_path / "out")
    weights = []
    weigh = runner._bytes_of
    monkeypatch.setattr(runner, "_bytes_of", lambda *given: weights.append(weigh(*given)) or weights[-1])
    monkeypatch.setattr(runner, "ROOM", 1)
    monkeypatch.setattr(runner, "ROOM_A_CORE", 1)
    restored_by(plugin(), pictures, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    height, width = scene(seed=0).shape[:2]
    assert weights == [2 * 3 * height * width] * 3


def test_only_what_changed_is_done_again(plugin, pictures, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    restored_by(folder, pictures, out)
    write_png(pictures / "a.png", scene(seed=9))
    (out / "images" / "b.png").unlink()
    (out / "images" / "below" / "c.png").write_bytes(b"damaged")
    write_png(pictures / "d.png", scene(seed=5))
    summary, calls = restored_by(folder, pictures, out)
    assert summary.computed == 4
    assert calls == 7
    assert restored_by(folder, pictures, out, fresh=True)[1] == 11


def test_an_image_stays_while_its_input_is_out_of_reach(plugin, pictures, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    restored_by(folder, pictures, out)
    found = find_inputs([pictures], "srgb")
    (pictures / "a.png").rename(tmp_path / "a.png")
    summary = run(prepare(catalogue.load(folder), Options()), found, out, "raim-2025-srgb")
    assert [one.image for one in summary.failed] == ["a"]
    (tmp_path / "a.png").rename(pictures / "a.png")
    assert restored_by(folder, pictures, out)[0].computed == 0


def test_other_settings_in_the_same_folder_are_refused(plugin, pictures, tmp_path):
    folder = plugin()
    restored_by(folder, pictures, tmp_path / "out")
    with pytest.raises(UserError, match="tile: 'auto' there, 32 now"):
        restored_by(folder, pictures, tmp_path / "out", tile=32)
    (folder / "method.py").write_text((folder / "method.py").read_text().replace("0.05", "0.06"))
    with pytest.raises(UserError, match="code: "):
        restored_by(folder, pictures, tmp_path / "out")


def test_a_methods_own_settings_are_set_recorded_and_not_mixed(ntire, plugin, pictures, tmp_path):
    folder, out = plugin("lq = lq + float(self.by)"), tmp_path / "out"
    code, settable = folder / "method.py", "    settable, by = {'by': 'how much'}, '0'\n"
    code.write_text(code.read_text().replace("    stride = 1\n", f"    stride = 1\n{settable}"))
    words = ["run", "--team", folder, "--track", "raim-2025-srgb", pictures, "-o", out, "--device", "cpu"]
    assert ntire(*words, "--set", "by=0.5", "--set", "by=1").code == 0
    assert read_pixels(out / "images" / "a.png").min() == 255, "the last of a name counts"
    assert open_submission(out).manifest.method.settings == {"by": "1"}
    assert "settings: {'by': '1'} there" in ntire(*words, "--set", "by=0.5").err
    assert "has no setting b. Did you mean by? It has by: how much" in ntire(*words, "--set", "b=1").err
    assert "expected NAME=VALUE" in ntire(*words, "--set", "by").err


def test_one_bad_picture_does_not_hurt_the_others(plugin, pictures, tmp_path):
    (pictures / "text.png").write_text("not a picture")
    whole = (pictures / "a.png").read_bytes()
    (pictures / "half.png").write_bytes(whole[: len(whole) // 2])
    second = Image.fromarray(scene(seed=1))
    Image.fromarray(scene()).save(pictures / "frames.webp", save_all=True, append_images=[second])
    summary, _ = restored_by(plugin(), pictures, tmp_path / "out")
    statuses = {result.image: result.status for result in summary.results}
    assert statuses == {
        "a": "done", "b": "done", "below/c": "done", "frames": "unreadable", "half": "unreadable", "text": "unreadable",
    }  # fmt: skip
    assert "found text" in next(result.problem for result in summary.failed if result.image == "text")
    assert len(tree(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("if lq.mean() > 0.45: raise KeyError('no such layer')", "KeyError: 'no such layer'"),
        ("if lq.mean() > 0.45: return lq * float('nan')", "NaN or infinite"),
        ("if lq.mean() > 0.45: return lq[..., :-1]", "returned 16 x 15 for an input of 16 x 16"),
        ("if lq.mean() > 0.45: raise torch.OutOfMemoryError('x')", "out of memory on the device"),
        ("if lq.mean() > 0.45: return (lq * 255).to(torch.uint8)", "the network returned a tensor of torch.uint8"),
        ("if lq.mean() > 0.45: return (lq, lq)", "the network returned tuple, expected a tensor of floats"),
        ("if lq.mean() > 0.45: raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_method_that_fails_on_one_picture_fails_on_one_picture(plugin, tmp_path, body, problem):
    inputs = tmp_path / "pictures"
    write_png(inputs / "dark.png", np.full((16, 16, 3), 50, np.uint8))
    write_png(inputs / "light.png", np.full((16, 16, 3), 200, np.uint8))
    summary, _ = restored_by(plugin(body), inputs, tmp_path / "out")
    assert [result.status for result in summary.results] == ["done", "failed"]
    assert problem in summary.failed[0].problem
    # A failure is tried again, a success is not.
    again, _ = restored_by(plugin(body), inputs, tmp_path / "out")
    assert again.computed == 1


def test_a_method_whose_memory_cannot_be_planned_runs_all_the_same(plugin, pictures, tmp_path):
    folder = plugin()
    code = (folder / "method.py").read_text()
    wise = "if lq.is_meta:  # the runner plans its memory\n            return lq + 1"
    (folder / "method.py").write_text(code.replace(wise, "lq = torch.from_numpy(lq.numpy() + 0)"))
    write_png(pictures / "a.png", scene(300, 300))
    summary, _ = restored_by(folder, pictures, tmp_path / "out")
    assert not summary.failed
    assert "its memory cannot be planned" in summary.results[0].notes[0]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return (lq * 255).byte()", "restore returned a tensor of torch.uint8"),
        ("return None", "restore returned NoneType"),
        ("return lq.permute(1, 2, 0)", "restore must return an image"),
    ],
)
def test_what_a_method_of_its_own_reading_returns_is_a_picture_or_told(plugin, pictures, tmp_path, body, problem):
    folder = plugin()
    own = f"    def restore(self, path):\n        lq = torch.zeros(3, 40, 48)\n        {body}\n"
    (folder / "method.py").write_text((folder / "method.py").read_text() + own)
    summary, _ = restored_by(folder, pictures, tmp_path / "out")
    assert [problem in result.problem for result in summary.failed] == [True] * 3


def test_the_smallest_pictures_go_through(plugin, tmp_path):
    for height, width in ((1, 1), (5, 7), (1, 30)):
        write_png(tmp_path / "small" / f"{height}x{width}.png", scene(40, 48)[:height, :width])
    summary, _ = restored_by(plugin(), tmp_path / "small", tmp_path / "out")
    assert not summary.failed


def test_randomness_follows_the_pixels_not_the_name_or_the_order(plugin, tmp_path):
    folder = plugin("lq = lq + torch.randn_like(lq) * 0.1")
    for name in ("a", "b", "c"):
        write_png(tmp_path / "one" / f"{name}.png", scene(seed=ord(name)))
        write_png(tmp_path / "two" / f"{'cab'['abc'.index(name)]}.png", scene(seed=ord(name)))
    restored_by(folder, tmp_path / "one", tmp_path / "out1")
    restored_by(folder, tmp_path / "two", tmp_path / "out2")
    one, two = tree(tmp_path / "out1"), tree(tmp_path / "out2")
    assert [one[f"images/{name}.png"] for name in "abc"] == [two[f"images/{name}.png"] for name in "cab"]


def test_the_number_of_devices_and_threads_changes_no_byte_and_no_order(plugin, tmp_path, monkeypatch):
    for number in range(12):
        write_png(tmp_path / "in" / f"{number:02}.png", scene(24 + number, 40, seed=number))
    folder = plugin("lq = lq + torch.randn_like(lq) * 0.1")
    restored_by(folder, tmp_path / "in", tmp_path / "one")
    monkeypatch.setattr(runner, "_threads", lambda cores: 5)
    summary, _ = restored_by(folder, tmp_path / "in", tmp_path / "three", device="cpu,cpu,cpu")
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert [result.image for result in summary.results] == [f"{number:02}" for number in range(12)]
    one, three = (read_journal(tmp_path / name / "journal.jsonl") for name in ("one", "three"))
    for key in ("image", "input_sha256", "output_sha256", "tile"):
        assert [line[key] for line in one] == [line[key] for line in three]
    assert [stage.workers for stage in summary.stages] == [5, 3, 5]
    # The number of devices is no reason to start again.
    assert restored_by(folder, tmp_path / "in", tmp_path / "three")[0].computed == 0


def test_the_busiest_stage_is_named(slow, pictures, tmp_path):
    summary, _ = restored_by(slow, pictures, tmp_path / "out")
    assert summary.bottleneck.name == "restore"
    assert summary.bottleneck.busy_seconds >= 3 * 0.15
    assert {stage.name for stage in summary.stages} == {"read", "restore", "write"}
    assert restored_by(slow, pictures, tmp_path / "out")[0].bottleneck is None


COUNTED = """
import threading, weakref
lock, alive, most = threading.Lock(), set(), 0

def watched(frame):
    global most
    with lock:
        alive.add(id(frame))
        most = max(most, len(alive))
    weakref.finalize(frame, alive.discard, id(frame))
    return frame
"""


@pytest.mark.parametrize("count", [15, 60])
def test_the_memory_of_a_run_does_not_grow_with_the_number_of_pictures(plugin, tmp_path, count):
    folder = plugin()
    source = (folder / "method.py").read_text().replace("class Plus", f"{COUNTED}\nclass Plus")
    (folder / "method.py").write_text(
        f"{source}\n    def read(self, path):\n        return watched(super().read(path))\n"
    )
    for number in range(count):
        write_png(tmp_path / "in" / f"{number}.png", scene(8, 8, seed=number))
    options = Options()
    method_class = catalogue.load(folder)
    run(
        prepare(method_class, options),
        find_inputs([tmp_path / "in"], "srgb"),
        tmp_path / "out",
        "raim-2025-srgb",
    )
    most = sys.modules[method_class.__module__].most
    assert 1 <= most <= runner._threads(1) + runner.AHEAD + 1, (
        "in the readers' hands, in front of the device, and in it"
    )


def test_a_reader_that_fails_on_one_picture_says_which_and_why(plugin, tmp_path):
    folder = plugin()
    failing = 'if path.stem == "07":\n            raise KeyError("no such tag")\n        return super().read(path)'
    with (folder / "method.py").open("a") as file:
        file.write(f"\n    def read(self, path):\n        {failing}\n")
    for number in range(1, 21):
        write_png(tmp_path / "in" / f"{number:02}.png", scene(8, 8, seed=number))
    summary, _ = restored_by(folder, tmp_path / "in", tmp_path / "out")
    assert [result.image for result in summary.failed] == ["07"]
    assert str(tmp_path / "in" / "07.png") in summary.failed[0].problem
    assert "KeyError: 'no such tag'" in summary.failed[0].problem
    assert len(tree(tmp_path / "out")) == 19


def test_memory_that_runs_out_in_the_middle_shrinks_the_tiles_and_changes_no_pixel(plugin, tmp_path):
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", scene(100, 150, seed=number))
    narrow = "if self.calls.exists() and max(lq.shape[2:]) > 80: raise torch.OutOfMemoryError('2 GiB wanted')"
    plain, tight = plugin(), plugin(narrow, name="tight")
    restored_by(plain, tmp_path / "in", tmp_path / "plain")
    summary, calls = restored_by(tight, tmp_path / "in", tmp_path / "tight")
    assert tree(tmp_path / "tight") == tree(tmp_path / "plain")
    assert [result.tile for result in summary.results] == [None] + [75] * 5
    assert summary.results[1].notes == ("memory ran out with the whole image: went on with tiles of 75",)
    # Learned once: the tiles of later pictures are planned so.
    assert all(not result.notes for result in summary.results[2:])
    assert calls == 1 + 5 * 4


LOST = [
    "RuntimeError('CUDA error: unspecified launch failure\\nCUDA kernel errors might be reported later')",
    "getattr(torch, 'AcceleratorError', RuntimeError)('CUDA error: an illegal memory access was encountered')",
]


@pytest.mark.parametrize("error", LOST)
def test_a_device_that_disappears_ends_the_run_and_what_is_finished_stays(plugin, tmp_path, error):
    for number in range(8):
        write_png(tmp_path / "in" / f"{number}.png", scene(12, 12, seed=number))
    out = tmp_path / "out"
    gone = plugin(f"if self.calls.exists() and len(self.calls.read_text().split()) >= 3: raise {error}")
    with pytest.raises(
        UserError, match=r"cpu was lost: .*CUDA error: .*What is finished stays: 3 of 8 image"
    ) as caught:
        restored_by(gone, tmp_path / "in", out)
    assert caught.value.exit_code == 3
    lines = read_journal(out / "journal.jsonl")
    assert [line["status"] for line in lines] == ["done"] * 3 + ["failed"]
    assert "CUDA error" in lines[3]["problem"]
    assert len(tree(out)) == 3


@pytest.mark.parametrize("error", LOST)
def test_when_one_of_several_devices_disappears_the_others_do_the_rest(plugin, tmp_path, error):
    for number in range(10):
        write_png(tmp_path / "in" / f"{number}.png", scene(12, 12, seed=number))
    once = f"""
        try:
            self.calls.with_name("lost").mkdir()
        except FileExistsError:
            pass
        else:
            raise {error}
"""
    summary, _ = restored_by(plugin(once), tmp_path / "in", tmp_path / "out", device="cpu,cpu")
    assert len(summary.failed) == 1
    assert "CUDA error" in summary.failed[0].problem
    assert len(tree(tmp_path / "out")) == 9


def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(plugin, pictures, tmp_path, monkeypatch):
    folder, out = plugin(), tmp_path / "out"
    write = runner.write_atomically

    def fills_up(path, data):
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(runner, "write_atomically", fills_up)
    with pytest.raises(UserError, match="No space left on device.*What is finished stays") as caught:
        restored_by(folder, pictures, out)
    assert caught.value.exit_code == 3
    monkeypatch.setattr(runner, "write_atomically", write)
    finished = len(read_journal(out / "journal.jsonl"))
    summary, _ = restored_by(folder, pictures, out)
    assert finished >= 1
    assert summary.computed == 3 - finished
    assert len(tree(out)) == 3


def test_a_disk_that_is_really_full_loses_nothing_that_is_finished(plugin, small_disk, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        write_png(tmp_path / "in" / f"{number}.png", rng.integers(0, 200, (50, 60, 3), dtype=np.uint8))
    folder, out = plugin(), small_disk / "out"
    with pytest.raises(UserError, match="No space left on device.*What is finished stays: [1-9] of 10"):
        restored_by(folder, tmp_path / "in", out)
    finished = read_journal(out / "journal.jsonl")
    for line in finished:
        assert sha256_of(out / "images" / f"{line['image']}.png") == line["output_sha256"]
    room = tmp_path / "room"
    shutil.copytree(out, room)
    summary, _ = restored_by(folder, tmp_path / "in", room)
    assert len(summary.results) - summary.computed == len(finished)
    assert not summary.failed


@pytest.mark.parametrize("out", ["file/out", "/proc/ntire-out"])
def test_a_folder_that_cannot_be_written_to_is_named(plugin, pictures, tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder that can be written to"):
        restored_by(plugin(), pictures, tmp_path / out)


def test_inputs_that_would_overwrite_each_other_or_are_not_there_are_refused(pictures, tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        find_inputs([tmp_path / "none"], "srgb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected inputs of track srgb .*found none"):
        find_inputs([tmp_path / "empty"], "srgb")
    Image.fromarray(scene()).save(pictures / "A.jpg")
    with pytest.raises(UserError, match=r"A\.jpg and .*a\.png would both become a\.png"):
        find_inputs([pictures], "srgb")


def test_a_raw_frame_is_done_again_when_its_facts_change(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 4096, (16, 18), dtype=np.uint16))
    options = Options()
    method = prepare(catalogue.find("Copy", "raw"), options)

    def go():
        return run(method, [Input(tmp_path / "a.npy", "a")], tmp_path / "out", "raim-2025-raw")

    assert go().results[0].notes
    assert go().computed == 0
    (tmp_path / "a.toml").write_text("white_level = 4095\nwhite_balance = [2.0, 1.0, 2.0]\n")
    assert go().computed == 1


@pytest.fixture
def slow(plugin):
    return plugin("time.sleep(0.15)")


def killed_and_started_again(folder, inputs, out, kills, rng):
    """Kill the run at random moments, then let it finish; returns how often the network was called."""
    words = ("run", "--team", folder, "--track", "srgb", inputs, "-o", out, "--device", "cpu")
    for _ in range(kills):
        process = start(*words)
        lines = out / "journal.jsonl"
        before = lines.read_bytes().count(b"\n") if lines.exists() else 0
        deadline = time.monotonic() + 60
        # Wait until it works, then a random moment more.
        while time.monotonic() < deadline and process.poll() is None:
            if lines.exists() and lines.read_bytes().count(b"\n") > before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(*words)
    output = last.communicate(timeout=120)
    assert last.returncode == 0, output
    return len((folder / "calls.log").read_text().splitlines())


def under_way():
    """Pictures that may be restored and not yet in the journal."""
    return runner.AHEAD + runner._threads(4) + 2


def test_killed_at_random_moments_a_run_ends_with_the_same_bytes(slow, tmp_path):
    for number in range(8):
        write_png(tmp_path / "in" / f"{number}.png", scene(24, 24, seed=number))
    quick = tmp_path / "quick"
    shutil.copytree(slow, quick)
    (quick / "method.py").write_text((slow / "method.py").read_text().replace("0.15", "0.0"))
    restored_by(quick, tmp_path / "in", tmp_path / "whole")
    seed = int(os.environ.get("NTIRE_SEED", random.randrange(2**32)))
    kills = 4
    calls = killed_and_started_again(slow, tmp_path / "in", tmp_path / "killed", kills, random.Random(seed))
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole"), f"with NTIRE_SEED={seed}"
    done = [line["image"] for line in read_journal(tmp_path / "killed" / "journal.jsonl")]
    assert sorted(done) == [str(number) for number in range(8)]
    # What was restored but not yet written is lost with the process, and nothing else.
    assert calls <= 8 + kills * under_way()
    assert not list((tmp_path / "killed").rglob("*.part"))


def test_ctrl_c_keeps_what_is_finished_and_says_so(slow, tmp_path):
    for number in range(12):
        write_png(tmp_path / "in" / f"{number}.png", scene(24, 24, seed=number))
    out = tmp_path / "out"
    process = start("run", "--team", slow, "--track", "srgb", tmp_path / "in", "-o", out, "--device", "cpu")
    while process.poll() is None and len(read_journal(out / "journal.jsonl")) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"finishing what is in work; press Ctrl-C again to stop now" in err
    assert b"Run the same command again to go on" in err
    finished = read_journal(out / "journal.jsonl")
    assert 0 < len(finished) < 12
    for line in finished:
        assert (out / "images" / f"{line['image']}.png").is_file()


def test_a_batch_systems_signal_keeps_what_is_finished_and_says_so(slow, tmp_path):
    """SIGTERM comes some seconds before SIGKILL, from Slurm, Kubernetes and service managers alike."""
    for number in range(12):
        write_png(tmp_path / "in" / f"{number}.png", scene(24, 24, seed=number))
    out = tmp_path / "out"
    words = ("run", "--team", slow, "--track", "srgb", tmp_path / "in", "-o", out, "--device", "cpu")
    process = start(*words)
    while process.poll() is None and len(read_journal(out / "journal.jsonl")) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"SIGTERM: finishing what is in work" in err
    finished = read_journal(out / "journal.jsonl")
    assert (
        f"stopped by SIGTERM. What is finished stays: {len(finished)} of 12 image(s). Run the same command".encode()
        in err
    )
    assert 1 < len(finished) < 12
    for line in finished:
        assert (out / "images" / f"{line['image']}.png").is_file()


def test_ctrl_c_twice_leaves_at_once_and_what_is_finished_stays(plugin, tmp_path):
    for number in range(6):
        write_png(tmp_path / "in" / f"{number}.png", scene(24, 24, seed=number))
    out = tmp_path / "out"
    stuck = plugin("self.calls.exists() and len(self.calls.read_text().split()) == 2 and time.sleep(60)")
    process = start("run", "--team", stuck, "--track", "srgb", tmp_path / "in", "-o", out, "--device", "cpu")
    while process.poll() is None and len(read_journal(out / "journal.jsonl")) < 2:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "it waits for the picture that is being restored"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert b"What is finished stays" in err
    assert len(read_journal(out / "journal.jsonl")) == 2
    (stuck / "calls.log").write_text("a b c")
    assert restored_by(stuck, tmp_path / "in", out)[0].computed == 4


def test_a_watcher_hears_of_the_tiles_of_every_picture(plugin, pictures, tmp_path):
    heard = []

    class Listening(runner.Watcher):
        def __call__(self, result, computed):
            heard.append((result.image, result.status))

        def advanced(self, image, done, of):
            heard.append((image, done, of))

    made = prepare(catalogue.load(plugin()), Options(tile=24))
    run(made, find_inputs([pictures], "srgb"), tmp_path / "out", "srgb", Listening())
    for image in ("a", "b", "below/c"):
        assert [one[1:] for one in heard if one[0] == image] == [(1, 4), (2, 4), (3, 4), (4, 4), ("done",)]


def test_the_manifest_says_what_made_the_images(plugin, pictures, tmp_path):
    import tomllib

    restored_by(plugin(), pictures, tmp_path / "out")
    manifest = tomllib.loads((tmp_path / "out" / "submission.toml").read_text())
    assert manifest["team"] == "Plus"
    assert manifest["track"] == "raim-2025-srgb"
    assert manifest["environment"]["torch"]
    header = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert header["precision"] == "fp32"
    assert Path(tmp_path / "out" / "images").is_dir()


def test_a_name_that_cannot_be_written_fails_alone_and_long_ones_are_fine(plugin, pictures, tmp_path):
    long = "x" * 250
    for name in (long, "a\udcff"):
        shutil.copy(pictures / "a.png", pictures / f"{name}.png")
    (tmp_path / "out" / "images" / "b.png").mkdir(parents=True)
    summary, _ = restored_by(plugin(), pictures, tmp_path / "out")
    assert {one.image: one.status for one in summary.results} == {
        "a": "done", "a\udcff": "unreadable", "b": "failed", "below/c": "done", long: "done",
    }  # fmt: skip
    problems = {one.image: one.problem for one in summary.failed}
    assert "not UTF-8" in problems["a\udcff"]
    assert "Is a directory" in problems["b"]
    again, calls = restored_by(plugin(), pictures, tmp_path / "out")
    assert again.computed == 2
    assert calls == 5


def test_a_damaged_line_of_the_journal_is_named_and_only_its_image_is_made_again(plugin, pictures, tmp_path):
    folder = plugin()
    restored_by(folder, pictures, tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    text = journal.read_bytes()
    for place, images in ((text.index(b'"image": "b"') + 3, 1), (text.index(b'"torch"') + 2, 0)):
        journal.write_bytes(text[:place] + bytes([text[place] ^ 4]) + text[place + 1 :])
        summary, _ = restored_by(folder, pictures, tmp_path / "out")
        assert summary.computed == images
        assert "damaged" in summary.remarks[0]
        assert not restored_by(folder, pictures, tmp_path / "out")[0].remarks
