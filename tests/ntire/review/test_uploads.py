"""`ntire score` on what challenges receive: every child of a folder of uploads is a row or is named with a reason."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from ntire.picture.image import encode_png
from ntire.review.uploads import find_uploads
from tests.made import scene, write_png

README = """Team name: Größe 超
runtime per image [s] : 1.5
CPU[1] / GPU[0] : 0
Extra Data [1] / No Extra Data [0] : 0
Other description : none
"""
PICTURES = {f"{name}.png": encode_png(scene(seed=seed) ^ 1) for seed, name in enumerate("ab")}
LITTER = {"__MACOSX/x/._a.png": b"x", ".DS_Store": b"x", "x/Thumbs.db": b"x", "x/._readme.txt": b"x"}


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)


def below(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


@pytest.fixture
def gt(tmp_path):
    for seed, name in enumerate("ab"):
        write_png(tmp_path / "gt" / f"{name}.png", scene(seed=seed))
    return tmp_path / "gt"


@pytest.fixture
def uploads(tmp_path):
    place = tmp_path / "uploads"
    zipped(place / "flat.zip", {**PICTURES, "readme.txt": README})
    zipped(place / "mac.zip", {**below("x", {**PICTURES, "README.txt": README.encode("utf-16")}), **LITTER})
    zipped(
        place / "deep.zip",
        {**below("x/results", PICTURES), "x/other/fig.png": encode_png(scene(seed=9)), "x/readme.txt": ""},
    )
    zipped(place / "gap.zip", {"a.png": PICTURES["a.png"]})
    zipped(place / "within" / "submission.zip", {**PICTURES, "readme.txt": README.replace("name", "")})
    (place / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (place / "old.rar").write_bytes(b"Rar!")
    with tarfile.open(place / "tarred.tar.gz", "w:gz") as made:
        for name, data in below("images", PICTURES).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    for name in ("plain", "written/images"):
        for picture, data in PICTURES.items():
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name / picture).write_bytes(data)
    (place / "written" / "submission.toml").write_text('team = "W"\ntrack = "demo-srgb"\ndate = 2026-01-01\n')
    (place / "empty").mkdir()
    (place / "notes.pdf").write_text("")
    (place / ".DS_Store").write_text("")
    shutil.copytree(place / "written", place / "several" / "one")
    shutil.copytree(place / "written", place / "several" / "two")
    return place


TEAMS = {
    "deep": "deep", "flat": "Größe 超", "mac": "Größe 超", "plain": "plain", "tarred": "tarred", "within": "Größe 超",
    "written": "W",
}  # fmt: skip


def test_every_child_is_a_row_or_is_named_with_the_reason(ntire, uploads, gt):
    before = sorted(uploads.rglob("*"))
    ran = ntire("score", uploads, "--track", "demo-srgb", "--gt", gt, "--json")
    assert ran.code == 1
    assert sorted(uploads.rglob("*")) == before
    lines = {line["entry"]: line for line in ran.json()}
    assert {name: line["team"] for name, line in lines.items() if line["rank"] == 1} == TEAMS
    assert len({line["total"] for name, line in lines.items() if name in TEAMS}) == 1
    assert lines.keys() - TEAMS.keys() == {"broken", "gap", "old.rar"}
    assert lines["gap"]["problems"] == ["1 missing (b) E301"]
    assert (lines["gap"]["scored"], lines["gap"]["rank"]) == (1, None)
    assert all(lines[name]["problems"][0].startswith("E101 ") for name in ("broken", "old.rar"))
    for name, reason in (
        ("empty", "no picture"),
        ("notes.pdf", "neither a folder"),
        ("several", "a folder of entries"),
    ):
        assert f"{uploads / name}: {reason}" in ran.err.replace("\n", "")
    assert ".DS_Store" not in ran.err
    # What a form lacks is told and costs no rank; what it says counts.
    assert lines["deep"]["notes"] == ["E208 readme.txt lacks a line (runtime, CPU or GPU, extra data, other)"]
    assert lines["plain"]["notes"][0].startswith("E201 ")
    assert not lines["flat"]["notes"]
    results = uploads.with_name("uploads-results")
    assert (results / "within" / "scores.csv").is_file()
    again = ntire("leaderboard", results / "flat" / "scores.csv", "--track", "demo-srgb", "--json").json()
    assert (again[0]["team"], again[0]["total"]) == ("Größe 超", pytest.approx(lines["flat"]["total"]))


def test_a_folder_of_pictures_that_no_entry_may_have_is_a_row_with_the_reason(ntire, tmp_path):
    """Links, and accents as macOS writes them: there are pictures, so "no picture in it" was not true."""
    place, name = tmp_path / "uploads", "\u00e9"
    write_png(tmp_path / "gt" / f"{name}.png", scene())
    write_png(place / "good" / f"{name}.png", scene() ^ 1)
    write_png(place / "apart" / "e\u0301.png", scene() ^ 1)
    (place / "linked").mkdir()
    (place / "linked" / f"{name}.png").symlink_to(place / "good" / f"{name}.png")
    ran = ntire("score", place, "--track", "demo-srgb", "--gt", tmp_path / "gt", "--json")
    told = {line["entry"]: " ".join(line["problems"]) for line in ran.json()}
    assert told.keys() == {"good", "apart", "linked"}
    assert "E103 not a regular file" in told["linked"]
    assert "E102 unsafe name" in told["apart"]


def test_images_in_folders_of_subsets_are_all_found_where_file_names_pair(ntire, tmp_path):
    """The challenges of faces: only the largest folder of an upload without a manifest was looked into."""
    (tmp_path / "t.toml").write_text(
        'name = "t"\ntitle = "t"\ninputs = "srgb"\npair_by = "stem"\nmetrics = ["psnr"]\nsource = "s"\n'
        'subsets = { A = 2, B = 1 }\nterms = [{ metric = "psnr", scale = 1.0 }]\n'
    )
    for seed, name in enumerate(("A/1", "A/2", "B/3")):
        write_png(tmp_path / "gt" / f"{name}.png", scene(seed=seed))
        for team, where in {
            "subsets": name,
            "more": f"results/{name}",
            "below": f"images/{name}",
            "flat": name[2:],
        }.items():
            write_png(tmp_path / "uploads" / team / f"{where}.png", scene(seed=seed) ^ 1)
    write_png(tmp_path / "uploads" / "more" / "figures" / "overview.png", scene(seed=5))
    ran = ntire("score", tmp_path / "uploads", "--track", tmp_path / "t.toml", "--gt", tmp_path / "gt", "--json")
    assert {line["entry"]: (line["rank"], line["scored"]) for line in ran.json()} == dict.fromkeys(
        ("below", "flat", "more", "subsets"), (1, 3)
    )


def test_of_two_whole_sets_of_images_none_is_chosen(ntire, tmp_path, gt):
    """Two runs of one team, or two teams beside a stray picture: the first by name was ranked and the other not named."""
    for change, name in enumerate(("final", "first"), 1):
        for seed, picture in enumerate("ab"):
            write_png(tmp_path / "uploads" / "two" / name / f"{picture}.png", scene(seed=seed) ^ change)
    shutil.copytree(tmp_path / "uploads" / "two", tmp_path / "uploads" / "named")
    (tmp_path / "uploads" / "named" / "final").rename(tmp_path / "uploads" / "named" / "images")
    ran = ntire("score", tmp_path / "uploads", "--track", "demo-srgb", "--gt", gt, "--json")
    lines = {line["entry"]: line for line in ran.json()}
    assert lines["two"]["rank"] is None
    assert lines["two"]["problems"] == ["E303 several images for one input (first/)"]
    assert lines["named"]["rank"] == 1


def test_pictures_alone_are_compared_without_a_track(ntire, uploads, gt):
    shutil.copytree(uploads / "plain", "photos-restored")
    from PIL import Image

    Path("photos-restored/b.png").unlink()
    Image.fromarray(scene(seed=1)).save("photos-restored/b.jpg", quality=95)
    ran = ntire("score", "photos-restored", "--gt", gt, "--metrics", "ssim,psnr", "--json")
    (line,) = ran.json()
    assert (line["entry"], line["track"], line["scored"], line["rank"]) == ("photos-restored", "pictures", 2, None)
    assert 30 < line["metrics"]["psnr"] < 60
    # Where it lies in the working directory, that is where its results are looked for.
    assert Path("photos-restored-results/leaderboard.csv").is_file()
    assert sorted(map(str, Path().iterdir())) == ["photos-restored", "photos-restored-results"]
    assert list(ntire("score", uploads / "flat.zip", "--gt", gt, "--json").json()[0]["metrics"]) == ["psnr", "ssim"]
    wrong = ntire("score", "photos-restored", "--gt", gt, "--metrics", "psrn")
    assert wrong.code == 2
    assert "Did you mean psnr" in wrong.err
    lost = ntire("score", "photos-restored")
    assert lost.code == 2
    assert "--track" in lost.err


def test_an_entry_of_an_unknown_track_does_not_stop_the_others(ntire, uploads, gt):
    shutil.copytree(uploads / "written", "in/good")
    shutil.copytree(uploads / "written", "in/lost")
    Path("in/lost/submission.toml").write_text('team = "L"\ntrack = "demo-srbg"\ndate = 2026-01-01\n')
    shutil.copy(uploads / "flat.zip", "in")
    lines = {line["entry"]: line for line in ntire("score", "in", "--gt", gt, "--json").json()}
    assert lines["good"]["rank"] == 1
    assert [lines[name]["problems"][0][:4] for name in ("lost", "flat")] == ["E205", "E205"]


def test_two_uploads_of_one_name_are_told_with_their_places(ntire, uploads, gt):
    shutil.copy(uploads / "flat.zip", uploads / "plain.zip")
    ran = ntire("score", uploads, "--track", "demo-srgb", "--gt", gt)
    assert ran.code == 2
    assert f"several entries are called plain: {uploads / 'plain'}, {uploads / 'plain.zip'}" in ran.err.replace(
        "\n", " "
    )


def test_folders_of_subsets_are_one_entry_and_folders_of_teams_are_several(tmp_path):
    for name in ("x/one/a.png", "x/two/a.png"):
        write_png(tmp_path / name, scene())
    assert [one.name for one in find_uploads(tmp_path / "x", tmp_path, None, ("One", "two")).entries] == ["x"]
    assert [one.name for one in find_uploads(tmp_path / "x", tmp_path).entries] == ["one", "two"]


def test_results_of_ours_among_the_uploads_are_no_entry(ntire, uploads, gt, monkeypatch):
    monkeypatch.chdir(uploads)
    assert ntire("score", "plain", "--track", "demo-srgb", "--gt", gt).code == 0
    assert Path("plain-results/plain/scores.csv").is_file()
    found = find_uploads(uploads, Path(os.environ["HOME"]))
    assert ("plain-results", "results of ours, no entry") in {(one.name, one.reason) for one in found.others}
