"""What a run leaves becomes a zip that the grader's own check accepts."""

import json
import os
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest

from ntire.commands.restoring import plan, run_job
from ntire.entry.journal import Journal, read_header, read_journal
from ntire.files import sha256_of
from ntire.review.check import check
from ntire.runner.prepare import Options
from tests.made import scene, write_png


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of a catalogue's method with shipped weights over what `pictures` holds."""
    folder = tmp_path_factory.mktemp("finished")
    for number, name in enumerate(("a", "b", "below/c")):
        write_png(folder / "lq" / f"{name}.png", scene(seed=number))
    job = plan("MiAlgo", "srgb", [folder / "lq"], folder / "mine", None, None, print)
    assert not run_job(job, Options(), lambda result, computed: None).failed
    return job.out


@pytest.fixture
def run(finished) -> Path:
    shutil.copytree(finished, "mine")
    return Path("mine")


def members(path):
    with zipfile.ZipFile(path) as packed:
        return {info.filename: info for info in packed.infolist()}


def test_a_run_becomes_a_zip_that_check_accepts(ntire, run, pictures):
    (run / "scores.csv").write_text("image,subset,status\n")
    (run / "images" / ".hidden.png").write_text("x")
    ran = ntire("pack", run, "--lq", pictures, "--json")
    assert ran.code == 0, ran.err
    made = ran.json()["packed"]
    assert made["file"] == str(Path("mine.zip").resolve())
    assert made["sha256"] == sha256_of(Path("mine.zip"))
    assert list(members("mine.zip")) == [
        "factsheet.md", "images/a.png", "images/b.png", "images/below/c.png", "journal.jsonl", "submission.toml",
    ]  # fmt: skip
    assert check(Path("mine.zip"), None, lambda track: pictures).findings == ()


def test_the_same_folder_gives_the_same_bytes_on_any_day_and_with_any_umask(ntire, run, pictures):
    assert ntire("pack", run, "--lq", pictures, "-o", "one.zip").code == 0
    shutil.copytree(run, "copy")
    for path in Path("copy").rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700)
    assert ntire("pack", "copy", "--lq", pictures, "-o", "two.zip").code == 0
    assert Path("one.zip").read_bytes() == Path("two.zip").read_bytes()
    assert {info.date_time for info in members("one.zip").values()} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in members("one.zip").values()} == {0o100644}


def test_the_factsheet_says_what_was_measured_counted_and_claimed(ntire, run, pictures):
    ran = ntire("pack", run, "--lq", pictures)
    assert "factsheet: mine/factsheet.md" in ran.out
    text = (run / "factsheet.md").read_text()
    weights = tomllib.loads((run / "submission.toml").read_text())["method"]["weights"]
    assert all(f"| {one['file']} | {one['sha256']} | {one['license']} | retrained |" in text for one in weights)
    assert "| parameters | 0.075 M | 0.07542 M |" in text
    assert "| multiply-adds at 1024 x 1024 | 9.915 G at 1024 x 1024 | 9.915 G |" in text
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()[1:]]
    median = sorted(line["seconds"] for line in lines)[1]
    assert f"| measured | median {median:.4g} s an image" in text
    assert "| claimed | 58.9 ms at 3040 x 4032 on A100 |" in text
    assert "| device | cpu |" in text
    assert "| sizes | 40 x 48 |" in text


def test_a_factsheet_that_the_team_wrote_is_kept(ntire, run, pictures):
    (run / "factsheet.md").write_text("ours")
    ran = ntire("pack", run, "--lq", pictures)
    assert "factsheet:" not in ran.out
    with zipfile.ZipFile("mine.zip") as packed:
        assert packed.read("factsheet.md") == b"ours"


def test_code_that_is_not_the_catalogues_is_not_counted_in_its_name(ntire, run, pictures, plugin):
    """A folder may call itself MiAlgo: its journal tells that another code ran."""
    journal = run / "journal.jsonl"
    lines, header = read_journal(journal), read_header(journal)
    journal.unlink()
    with Journal(journal, header | {"code": "0" * 64}) as other:
        for line in lines:
            other.append(line)
    ntire("pack", run, "--lq", pictures)
    assert "| parameters | 0.075 M |  |" in (run / "factsheet.md").read_text()
    assert "Not counted" in (run / "factsheet.md").read_text()
    assert ntire("run", "--team", plugin(), "--track", "srgb", pictures, "-o", "plus", "--device", "cpu").code == 0
    assert ntire("pack", "plus", "--lq", pictures).code == 0
    text = Path("plus/factsheet.md").read_text()
    assert "Not counted" in text
    assert "None." in text


def test_submitted_code_travels_with_the_images(ntire, run, pictures, plugin):
    shutil.copytree(plugin(), run / "method")
    (run / "method" / "__pycache__").mkdir()
    (run / "method" / "__pycache__" / "method.pyc").write_bytes(b"x")
    # The weights of the manifest are those of the code that is shipped with it.
    weights = tomllib.loads((run / "submission.toml").read_text())["method"]["weights"]
    (run / "method" / "weights").mkdir()
    for one in weights:
        shutil.copy(Path(__file__).parents[3] / "teams" / "srgb" / "weights" / one["file"], run / "method" / "weights")
    assert ntire("pack", run, "--lq", pictures).code == 0
    assert [name for name in members("mine.zip") if name.startswith("method/")] == [
        "method/method.py", f"method/weights/{weights[0]['file']}",
    ]  # fmt: skip


def test_what_check_refuses_is_not_packed_and_all_of_it_is_told(ntire, run, pictures):
    (run / "images" / "b.png").unlink()
    write_png(run / "images" / "a.png", scene(80, 96))
    ran = ntire("pack", run, "--lq", pictures)
    assert ran.code == 1
    assert {"E301", "E304"} <= set(ran.out.split())
    assert not Path("mine.zip").exists()
    assert not (run / "factsheet.md").exists()


def test_an_image_that_the_run_could_not_make_is_missing_though_the_inputs_are_not_known(ntire, pictures):
    (pictures / "d.png").write_text("no picture")
    assert ntire("run", "--team", "MiAlgo", "--track", "srgb", pictures, "-o", "mine", "--device", "cpu").code == 1
    ran = ntire("pack", "mine", "--json")
    assert ran.code == 1
    assert ran.json()["packed"] is None
    told = [finding for finding in ran.json()["findings"] if finding["code"] == "E301"]
    assert [finding["file"] for finding in told] == ["d.png"]
    assert "unreadable" in told[0]["found"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "expected the folder of a run"), (["mine", "-o", "no/such/x.zip"], "cannot be written")],
)
def test_a_mistake_is_one_message(ntire, run, words, message):
    ran = ntire("pack", *words)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize(
    "line", ['{"image": 1, "status": "done"}', "{}", '{"image": "a", "status": "well", "input_sha256": ""}']
)
def test_a_journal_that_no_run_wrote_is_told(ntire, run, pictures, line):
    journal = run / "journal.jsonl"
    journal.write_text(journal.read_text() + line + "\n")
    ran = ntire("pack", run, "--lq", pictures)
    assert ran.code == 2
    assert "journal.jsonl, line 5" in ran.err
    journal.write_bytes(b"\xff\n")
    assert "journal.jsonl, line 1: damaged" in ntire("pack", run, "--lq", pictures).err
    journal.unlink()
    assert ntire("pack", run, "--lq", pictures).code == 0
    assert "not measured" in (run / "factsheet.md").read_text()


@pytest.fixture
def own(ntire) -> Path:
    """A method of somebody's own with weights beside it, as `ntire new-method` writes it."""
    assert ntire("new-method", "own").code == 0
    return Path("own")


def test_a_team_s_own_code_travels_in_the_zip_and_the_factsheet_counts_it(ntire, own, pictures):
    assert ntire("run", "--team", "./own", "--track", "srgb", pictures, "-o", "mine", "--device", "cpu").code == 0
    (own / "__pycache__").mkdir(exist_ok=True)
    (own / "__pycache__" / "method.pyc").write_bytes(b"x")
    (own / ".notes").write_text("mine")
    ran = ntire("pack", "mine", "--code", "own", "--lq", pictures, "--json")
    assert ran.code == 0, ran.out + ran.err
    assert ran.json()["findings"] == [], "what was counted is claimed"
    code = [name for name in members("mine.zip") if name.startswith("method/")]
    assert code == ["method/README.md", "method/method.py", "method/weights/net.safetensors"]
    manifest = tomllib.loads(Path("mine/submission.toml").read_text())
    assert manifest["method"]["file"] == "method/method.py"
    assert manifest["method"]["weights"][0]["provenance"] == "own"
    assert manifest["claims"] == {"params_m": 84e-6, "macs_g": 81 * 2**20 / 1e9, "at": [1024, 1024]}
    text = Path("mine/factsheet.md").read_text()
    assert "| parameters | 8.4e-05 M | 8.4e-05 M |" in text
    assert "Counted by ntire." in text
    assert ntire("verify", "mine.zip", "--lq", pictures, "--sample", 1, "--no-measure").code == 0
    again = ntire("pack", "mine", "--code", "own", "--lq", pictures, "--json")
    assert again.json()["packed"] == ran.json()["packed"]


def test_code_that_is_not_what_ran_and_files_that_would_be_lost_are_told_at_once(ntire, own, pictures):
    assert ntire("run", "--team", "./own", "--track", "srgb", pictures, "-o", "mine", "--device", "cpu").code == 0
    (own / "method.py").write_text((own / "method.py").read_text() + "\n")
    Path("mine/method").mkdir()
    Path("mine/method/notes.txt").write_text("mine")
    ran = ntire("pack", "mine", "--code", "own", "--lq", pictures)
    assert ran.code == 2
    assert "is not the code that made the images" in ran.err
    assert "ntire run --team ./own ... -o mine --fresh" in ran.err
    assert "has notes.txt, which own has not" in ran.err
    assert Path("mine/method/notes.txt").read_text() == "mine"
    assert "expected a folder with a method.py" in ntire("pack", "mine", "--code", "nowhere").err
