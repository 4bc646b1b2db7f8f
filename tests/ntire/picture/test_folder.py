"""One walk for all: what is a picture, what is not read and why, whatever links, systems and alphabets do."""

import os
import unicodedata

import pytest

from ntire.entry import manifest
from ntire.picture import folder as folder_module
from ntire.picture.folder import in_lines, walk
from ntire.picture.suffixes import RAW, RAW_FACTS
from ntire.runner.runner import find_inputs
from ntire.scoring.references import pictures_below
from ntire.training.data import clean_images
from tests.made import scene, write_png

LEFT_BEHIND = [
    "._a.png",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir/a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "__MACOSX/._a.png",
    ".hidden/b.png",
    "sub/@EADIR/c.png",
]


def names(folder, **options):
    return sorted(one.name for one in walk(folder, **options).pictures)


def reasons(folder, **options):
    return {one.name: one.reason for one in walk(folder, **options).not_read}


@pytest.fixture
def folder(tmp_path):
    write_png(tmp_path / "in/a.png", scene())
    return tmp_path / "in"


def test_what_systems_leave_behind_is_passed_over_by_all_alike(folder):
    for name in LEFT_BEHIND:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    assert (
        names(folder) == [item.name for item in find_inputs([folder], "srgb")] == list(pictures_below(folder)) == ["a"]
    )
    assert clean_images(folder, 8) == [folder / "a.png"]
    assert reasons(folder) == {}


def test_linked_folders_are_followed_once_and_loops_are_told(folder, tmp_path):
    write_png(tmp_path / "real/b.png", scene())
    write_png(folder / "own/c.png", scene())
    (folder / "linked").symlink_to(tmp_path / "real")
    (folder / "again").symlink_to(tmp_path / "real")
    (folder / "an-own").symlink_to(folder / "own")
    (tmp_path / "real/loop").symlink_to(folder)
    (folder / "one.png").symlink_to(tmp_path / "real/b.png")
    expected = ["a", "again/b", "one", "own/c"]
    assert names(folder) == expected
    assert [item.name for item in find_inputs([folder], "srgb")] == expected
    assert sorted(pictures_below(folder)) == expected
    assert len(clean_images(folder, 8)) == 4
    told = reasons(folder)
    assert told.pop("linked") == "a link to a folder that is read already as again"
    assert told.pop("an-own") == "a link to a folder that is read already as own"
    assert told.pop("again/loop") == "a link to a folder that is read already as ."
    assert told == {}
    (tmp_path / "top").symlink_to(folder)
    assert names(tmp_path / "top") == expected


def test_without_links_none_is_followed(folder, tmp_path):
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "up").symlink_to(tmp_path)
    assert names(folder, links=False) == list(pictures_below(folder, links=False)) == ["a"]
    assert set(reasons(folder, links=False).values()) == {"a symbolic link"}


def test_results_of_a_run_are_told_and_read_only_where_they_are_named(folder):
    for entry in ("out", "."):
        write_png(folder / entry / "images/a.png", scene())
        (folder / entry / manifest.MANIFEST).write_text("")
    write_png(folder / "more/images/b.png", scene())
    assert names(folder) == list(pictures_below(folder)) == ["a", "more/images/b"]
    assert {name: told.partition(",")[0] for name, told in reasons(folder).items() if name != "submission.toml"} == {
        "images": "results of a run", "out": "results of a run",
    }  # fmt: skip
    assert names(folder / "out") == ["images/a"]
    assert names(folder, links=False) == ["a", "images/a", "more/images/b", "out/images/a"]
    assert (folder_module.MANIFEST, folder_module.IMAGES) == (manifest.MANIFEST, manifest.IMAGES)


def test_broken_links_fifos_and_folders_with_a_pictures_name_are_told(folder):
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert names(folder) == list(pictures_below(folder)) == ["a"]
    assert reasons(folder) == {
        "broken.png": "a link to nowhere, which is not there",
        "folder.png": "a folder, whatever its name; what is in it is read",
        "pipe.png": "a FIFO",
    }


def test_what_is_not_read_is_listed_by_name_and_reason(folder, monkeypatch):
    for name in ("b.gif", "c.JP2", "d.dng", "e.txt", "f.zip", "g.heic", "h.jfif", "i.HEIF", "noext"):
        (folder / name).write_bytes(b"")
    monkeypatch.setattr("ntire.picture.suffixes.find_spec", lambda name: None)
    told = reasons(folder)
    assert names(folder) == ["a", "h"]
    assert set(told) == {"b.gif", "c.JP2", "d.dng", "e.txt", "f.zip", "g.heic", "i.HEIF", "noext"}
    assert "GIF" in told["b.gif"]
    assert "JPEG 2000" in told["c.JP2"]
    assert "--track raw" in told["d.dng"]
    assert "unpacked first" in told["f.zip"]
    assert told["g.heic"] == told["i.HEIF"] == "HEIC needs the package pillow-heif: pip install 'ntire[photos]'"
    monkeypatch.undo()
    assert {"g.heic", "i.HEIF"}.isdisjoint(reasons(folder)) or "pillow-heif" in reasons(folder)["g.heic"]
    lines = in_lines(walk(folder).not_read)
    assert "not read: e.txt, noext (no picture by its name)" in lines


def test_raw_frames_their_facts_and_finished_pictures_are_told_apart(folder):
    for name in ("n.dng", "n.jpg", "n.toml", "m.X3F", "m.crw", "k.npz"):
        (folder / name).write_bytes(b"")
    assert names(folder, suffixes=RAW, quiet=RAW_FACTS) == ["a", "k", "m", "m", "n"]
    assert reasons(folder, suffixes=RAW, quiet=RAW_FACTS) == {"n.jpg": "a finished picture, not a raw frame"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_nfc_whatever_the_disk_has(tmp_path, form):
    name = unicodedata.normalize(form, 'café, 1.5 "x".v2')
    write_png(tmp_path / "in" / f"{name}.png", scene())
    expected = unicodedata.normalize("NFC", name)
    assert names(tmp_path / "in") == [item.name for item in find_inputs([tmp_path / "in"], "srgb")] == [expected]
    assert [item.name for item in find_inputs([tmp_path / "in" / f"{name}.png"], "srgb")] == [expected]
    assert list(pictures_below(tmp_path / "in")) == [expected]


def test_names_that_only_their_form_or_case_tells_apart_are_refused_all_at_once(tmp_path):
    for name in ("café", unicodedata.normalize("NFD", "café"), "x", "X"):
        write_png(tmp_path / f"{name}.png", scene())
    with pytest.raises(Exception, match="two ways") as caught:
        find_inputs([tmp_path], "srgb")
    assert "x.png" in str(caught.value)
    with pytest.raises(Exception, match="expected one picture of a name, found two"):
        pictures_below(tmp_path)


def test_a_name_that_is_not_utf_8_is_found_and_one_of_no_picture_can_be_printed(folder):
    for name in (b"/caf\xe9.png", b"/caf\xe9.gif"):
        with open(os.fsencode(folder) + name, "wb"):  # noqa: PTH123 - a Path has no bytes
            pass
    assert names(folder) == ["a", "caf\udce9"]
    assert list(reasons(folder)) == ["caf\\udce9.gif"]


def test_run_tells_and_records_what_it_leaves_out(ntire, folder):
    (folder / "b.gif").write_bytes(b"GIF89a")
    rgba = scene()
    from PIL import Image

    Image.fromarray(rgba).convert("RGBA").save(folder / "t.png")
    ran = ntire("run", "--team", "Copy", "--track", "srgb", folder, "-o", "out", "--json")
    assert ran.code == 0
    assert ran.json()["not_read"] == [{"name": "b.gif", "reason": "a GIF; save it as PNG to have it read"}]
    assert "not read: b.gif (a GIF" in ran.err
    notes = {one["image"]: one["notes"] for one in ran.json()["images"]}
    assert notes["a"] == []
    assert "transparency dropped" in notes["t"]


def test_score_and_check_tell_of_references_and_inputs_that_are_not_read(ntire, folder):
    ntire("run", "--team", "Copy", "--track", "srgb", folder, "-o", "entry")
    (folder / "b.gif").write_bytes(b"GIF89a")
    scored = ntire("score", "entry", "--gt", folder, "--metrics", "psnr-y", "--track", "srgb")
    assert "not read: b.gif (a GIF" in scored.err + scored.out
    checked = ntire("check", "entry", "--lq", folder, "--json")
    assert any("not read: b.gif (a GIF" in one["found"] for one in checked.json()["findings"])
