import json
import os
import shutil

import pytest

from ntire import UserError
from ntire.entry.journal import Journal, read_header, read_journal
from ntire.entry.manifest import open_submission
from ntire.method import catalogue
from ntire.runner.prepare import Options, prepare
from ntire.runner.runner import find_inputs, run
from ntire.runner.shards import SHARDS, ShardPart, merge, parsed_part, published, restore_part
from tests.made import scene, write_png

TRACK = "raim-2025-srgb"
COMMAND = ("ntire", "run", "--team", "./plus", "-o", "a folder")
MEASURED = ("seconds", "peak_memory_mb")


@pytest.fixture
def five(tmp_path):
    for number, name in enumerate(("a", "b", "below/c", "d", "e")):
        write_png(tmp_path / "five" / f"{name}.png", scene(seed=number))
    return tmp_path / "five"


def ready(folder, **options):
    return prepare(catalogue.load(folder), Options(**options))


def part(folder, inputs, out, text, **options):
    found = find_inputs([inputs], "srgb")
    return restore_part(ready(folder, **options), found, out, parsed_part(text), TRACK, COMMAND)


def all_but_measurements(out):
    """Every file of a folder; of the journal, the lines without what was measured and their checksums."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    lines = [json.loads(line) for line in files.pop("journal.jsonl").splitlines()]
    bare = [{key: value for key, value in line.items() if key not in (*MEASURED, "check")} for line in lines[1:]]
    return files, lines[0], bare, [list(line) for line in lines]


def calls(folder):
    file = folder / "calls.log"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_the_merged_folder_is_the_one_of_a_single_run_byte_for_byte(plugin, five, tmp_path):
    folder = plugin()
    run(ready(folder), find_inputs([five], "srgb"), tmp_path / "one" / "out", TRACK)
    out = tmp_path / "several" / "out"
    for text in ("2/3", "3/3", "1/3"):
        part(folder, five, out, text)
    summary = merge(out)
    assert [one.image for one in summary.results] == ["a", "b", "below/c", "d", "e"]
    assert all_but_measurements(out) == all_but_measurements(tmp_path / "one" / "out")
    assert open_submission(out).manifest.entry == "out"
    assert run(ready(folder), find_inputs([five], "srgb"), out, TRACK).computed == 0


def test_merged_pictures_are_those_of_the_inputs_as_they_are_now(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    run(ready(folder), find_inputs([five], "srgb"), out, TRACK)
    (five / "b.png").write_text("not a picture")
    part(folder, five, out, "1/1")
    assert [one.image for one in merge(out).failed] == ["b"]
    assert sorted(path.stem for path in (out / "images").rglob("*.png")) == ["a", "c", "d", "e"]
    (out / "journal.jsonl").unlink()
    with pytest.raises(UserError, match="no journal.jsonl beside it"):
        part(folder, five, out, "1/1")


def test_a_part_that_is_finished_is_not_made_again(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    assert part(folder, five, out, "1/2").computed == 3
    assert part(folder, five, out, "1/2").computed == 0
    assert calls(folder) == 3
    assert len(published(out)) == 1


def test_a_part_that_was_killed_goes_on_where_it_stopped_and_is_seen_by_nobody(plugin, five, tmp_path):
    folder, out = (
        plugin('if self.calls.exists() and not self.calls.with_name(".on").exists(): raise KeyboardInterrupt'),
        tmp_path / "out",
    )
    with pytest.raises(KeyboardInterrupt):
        part(folder, five, out, "1/1")
    assert published(out) == []
    with pytest.raises(UserError, match="are missing"):
        merge(out)
    (folder / ".on").touch()
    summary = part(folder, five, out, "1/1")
    assert len(summary.results) - summary.computed == 1
    assert calls(folder) == 5
    assert len(merge(out).results) == 5


def test_missing_parts_are_named_with_the_commands_that_make_them(plugin, five, tmp_path):
    out = tmp_path / "out"
    part(plugin(), five, out, "2/4")
    with pytest.raises(UserError) as raised:
        merge(out)
    message = str(raised.value)
    assert "4 of 5 image(s) are missing: a, below/c, d, e" in message
    for number in (1, 3, 4):
        assert f"ntire run --team ./plus -o 'a folder' --shard {number}/4" in message
    assert "--shard 2/4" not in message
    assert not (out / "journal.jsonl").exists()


def test_parts_of_another_number_may_overlap_and_doubles_do_no_harm(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    for text in ("1/2", "1/3", "2/3", "3/3"):
        part(folder, five, out, text)
    shutil.copytree(published(out)[0], out / SHARDS / "again")
    assert [one.image for one in merge(out).results] == ["a", "b", "below/c", "d", "e"]
    assert not (out / SHARDS).exists()


def test_parts_of_other_settings_are_refused_and_what_differs_is_said(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/2")
    with pytest.raises(UserError, match="tile: 'auto' there, 32 now"):
        part(folder, five, out, "2/2", tile=32)
    part(folder, five, tmp_path / "other", "2/2", tile=32)
    other = published(tmp_path / "other")[0]
    other.rename(out / SHARDS / other.name)
    with pytest.raises(UserError, match=f"{other.name}: of another run:\n  tile: 32 there, 'auto' now"):
        merge(out)


def test_parts_of_other_inputs_are_refused(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/2")
    write_png(five / "f.png", scene(seed=9))
    with pytest.raises(UserError, match="inputs: a, b, below/c, d, e there, a, b, below/c, d, e and 1 more now"):
        part(folder, five, out, "2/2")


def test_pictures_that_failed_are_told_and_tried_again_by_the_same_part(plugin, five, tmp_path):
    folder, out = (
        plugin('if not self.calls.with_name(".well").exists() and lq.mean() > 0: raise ValueError("not today")'),
        tmp_path / "out",
    )
    assert [one.status for one in part(folder, five, out, "1/2").results] == ["failed"] * 3
    (folder / ".well").touch()
    part(folder, five, out, "2/2")
    assert [one.status for one in part(folder, five, out, "1/2").results] == ["done"] * 3
    assert merge(out).failed == []


def test_a_picture_that_failed_stays_a_line_and_the_next_run_tries_it(plugin, five, tmp_path):
    folder, out = (
        plugin('if not self.calls.with_name(".well").exists(): raise ValueError("not today")'),
        tmp_path / "out",
    )
    part(folder, five, out, "1/1")
    summary = merge(out)
    assert [one.problem for one in summary.failed] == ["ValueError: not today"] * 5
    assert [line["status"] for line in read_journal(out / "journal.jsonl")] == ["failed"] * 5
    (folder / ".well").touch()
    assert run(ready(folder), find_inputs([five], "srgb"), out, TRACK).computed == 5


def test_a_damaged_picture_counts_as_missing(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/2")
    part(folder, five, out, "2/2")
    next(out.rglob("d.png")).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"1 of 5 image\(s\) are missing: d\.(.|\n)*--shard 2/2"):
        merge(out)
    part(folder, five, out, "2/2")
    merge(out)


def test_a_merge_that_was_killed_in_the_middle_goes_on(plugin, five, tmp_path, monkeypatch):
    folder, out = plugin(), tmp_path / "out"
    for text in ("1/2", "2/2"):
        part(folder, five, out, text)
    monkeypatch.setattr("ntire.runner.shards.write_manifest", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge(out)
    monkeypatch.undo()
    assert len(merge(out).results) == 5
    assert open_submission(out).manifest.team == "Plus"


def test_more_parts_than_pictures_leave_some_with_nothing_to_do(plugin, five, tmp_path):
    assert part(plugin(), five, tmp_path / "out", "7/9").results == ()


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "1/0", "/"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UserError, match="--shard .*: expected I/N with I from 1 to N"):
        parsed_part(text)
    assert parsed_part("4/4") == ShardPart(4, 4)


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(UserError, match="expected shards of a run"):
        merge(tmp_path)


def test_shards_that_were_copied_without_their_plan_are_not_told_as_none(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/1")
    plan = out / SHARDS / "plan.json"
    kept = plan.read_bytes()
    plan.unlink()
    with pytest.raises(UserError, match=r"holds 1 shard\(s\) and no plan.json"):
        merge(out)
    plan.write_bytes(kept)
    assert len(merge(out).results) == 5


def test_the_command_line_makes_parts_and_joins_them(ntire, plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    words = ("run", "--team", folder, "--track", "srgb", five, "-o", out)
    assert ntire(*words, "--shard", "1/2").code == 0
    refused = ntire("merge", out)
    assert refused.code == 2
    assert "--shard 2/2" in refused.err
    assert ntire(*words, "--shard=2/2").code == 0
    merged = ntire("merge", out, "--json")
    assert merged.code == 0
    assert len(merged.json()[0]["images"]) == 5
    assert read_header(out / "journal.jsonl")["team"] == "Plus"


def test_an_input_that_changed_is_not_told_as_a_method_that_is_not_deterministic(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/1")
    merge(out)
    write_png(five / "b.png", scene(seed=77))
    assert part(folder, five, out, "1/1").computed == 1
    assert merge(out).remarks == ()


def test_parts_made_from_different_inputs_are_refused(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    for text in ("1/2", "2/2"):
        part(folder, five, out, text)
    write_png(five / "a.png", scene(seed=77))
    part(folder, five, tmp_path / "other", "1/2")
    other = published(tmp_path / "other")[0]
    other.rename(out / SHARDS / other.name)
    with pytest.raises(UserError, match=f"made from different inputs: a; in shards/: .*{other.name}"):
        merge(out)
    assert len(published(out)) == 3


def test_a_part_of_more_inputs_than_the_run_has_is_refused_and_not_lost(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/2")
    write_png(five / "f.png", scene(seed=9))
    part(folder, five, tmp_path / "other", "2/2")
    other = published(tmp_path / "other")[0]
    other.rename(out / SHARDS / other.name)
    with pytest.raises(UserError, match=f"none of the 5 of this run: f; in shards/: {other.name}"):
        merge(out)


@pytest.mark.parametrize("operation", ["rename", "replace", "unlink", "rmdir", "mkdir", "open"])
def test_a_merge_that_was_killed_anywhere_goes_on_and_leaves_nothing(plugin, five, tmp_path, operation):
    folder, whole = plugin(), tmp_path / "whole"
    for text in ("1/2", "2/2"):
        part(folder, five, whole, text)
    done = False
    for at in range(1, 100):
        out = tmp_path / "killed" / str(at) / "out"
        shutil.copytree(whole, out)
        if done := _merge_killed_at(operation, at, out):
            break
        if (out / SHARDS / "plan.json").exists():
            assert len(merge(out).results) == 5
        assert sorted(one.name for one in out.iterdir() if one.name != SHARDS) == [
            "images", "journal.jsonl", "submission.toml"
        ]  # fmt: skip
        assert not published(out)
        assert len(list((out / "images").rglob("*.png"))) == 5
    assert done


def _merge_killed_at(operation, at, out):
    """Merge in a child that dies at its `at`-th call of `os.<operation>`; whether it came to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    calls, honest = iter(range(1, 1000)), getattr(os, operation)
    setattr(os, operation, lambda *given, **named: os._exit(9) if next(calls) == at else honest(*given, **named))
    merge(out)
    os._exit(0)


def test_a_damaged_line_counts_as_missing_and_the_same_part_makes_it_again(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    part(folder, five, out, "1/1")
    journal = published(out)[0] / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"image": "b"', b'"image": "x"'))
    with pytest.raises(UserError, match=r"1 of 5 image\(s\) are missing: b\."):
        merge(out)
    assert part(folder, five, out, "1/1").computed == 1
    assert len(merge(out).results) == 5


def test_a_part_after_a_merge_makes_what_had_failed_alone(plugin, five, tmp_path):
    folder, out = (
        plugin('if not self.calls.with_name(".well").exists() and self.calls.exists(): raise ValueError("not today")'),
        tmp_path / "out",
    )
    part(folder, five, out, "1/1")
    assert len(merge(out).failed) == 4
    (folder / ".well").touch()
    again = part(folder, five, out, "1/1")
    assert (again.computed, [one.image for one in again.results]) == (4, ["a", "b", "below/c", "d", "e"])
    assert merge(out).failed == []


def test_a_part_in_the_folder_of_another_run_is_refused_before_it_is_made(plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    run(ready(folder), find_inputs([five], "srgb"), out, TRACK)
    with pytest.raises(UserError, match="of another run:\n  tile: 'auto' there, 32 now"):
        part(folder, five, out, "1/2", tile=32)
    assert not (out / SHARDS).exists()


def test_a_part_that_is_being_made_is_not_merged_away(ntire, plugin, five, tmp_path):
    out = tmp_path / "out"
    part(plugin(), five, out, "1/1")
    shard = published(out)[0]
    with Journal(shard / "journal.jsonl", _header(shard)):
        merged = ntire("merge", out)
        assert merged.code == 2
        assert f"{shard.name}: a part is being made there now" in merged.err.replace("\n", " ")
    assert ntire("merge", out).code == 0


def _header(shard):
    return {key: value for key, value in read_header(shard / "journal.jsonl").items() if key != "format"}


def test_a_run_of_the_whole_does_not_pass_over_parts(ntire, plugin, five, tmp_path):
    folder, out = plugin(), tmp_path / "out"
    words = ("run", "--team", folder, "--track", "srgb", five, "-o", out)
    assert ntire(*words, "--shard", "1/2").code == 0
    refused = ntire(*words)
    assert (refused.code, "ntire merge" in refused.err) == (2, True)
    # As an engine has it between two shards.
    with Journal(out / "journal.jsonl", _header(published(out)[0])):
        for more in ((), ("--fresh",)):
            assert "another run is writing here" in " ".join(ntire(*words, *more).err.split())
    assert len(published(out)) == 1
    assert ntire(*words, "--fresh").code == 0
    assert sorted(one.name for one in out.iterdir()) == ["images", "journal.jsonl", "submission.toml"]
