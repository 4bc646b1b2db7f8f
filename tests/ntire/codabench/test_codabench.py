"""A competition is made, and a worker does with good and bad uploads what the platform would do."""

import io
import json
import shutil
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from ntire import UserError
from ntire.codabench import worker
from ntire.codabench.bundle import below, track_toml, zip_of
from ntire.codabench.competition import Competition, column_key, columns_of
from ntire.codabench.pages import pages_of
from ntire.commands.codabench import make_bundle
from ntire.method.weights_files import locate
from ntire.scoring.metrics import METRICS
from ntire.scoring.references import References
from ntire.scoring.track import all_tracks, load_track
from tests.conftest import ROOT

EXAMPLE = ROOT / "submissions" / "example"
IMAGES = EXAMPLE / "median" / "images"
START = datetime(2026, 3, 1)
WRITES = "import sys, pathlib; pathlib.Path(sys.argv[1], 'scores.json').write_text('{}')"
README = b"Team name: Those of the Median\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    given = References(EXAMPLE / "gt", EXAMPLE / "lq")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        make_bundle(load_track("demo-srgb"), Competition(START, contact="us@example.org"), given, made)
    return made


@pytest.fixture(scope="module")
def unpacked(bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    worker.read_bundle(bundle, folder)
    for name in ("scoring_program", "reference_data", "starting_kit"):
        with zipfile.ZipFile(folder / f"{name}.zip") as packed:
            packed.extractall(folder / name)
    return folder


@pytest.fixture
def upload(tmp_path):
    """A zip of the example's images, after a change to what goes in."""

    def make(change=lambda content: content, where="", **more) -> Path:
        content = {f"{where}{name}": path for name, path in below("", IMAGES).items()}
        return zip_of(change({**content, "readme.txt": README, **more}), tmp_path / "mine.zip")

    return make


def test_the_bundle_has_what_the_platform_asks_for(unpacked):
    found = yaml.safe_load((unpacked / "competition.yaml").read_text())
    assert found["version"] == 2
    assert found["terms"] == "pages/terms.md"
    for file in (found["image"], found["terms"], *(page["file"] for page in found["pages"])):
        assert (unpacked / file).stat().st_size > 0
    (phase,) = found["phases"]
    assert phase["start"] == "2026-03-01T00:00:00"
    assert "end" not in phase
    assert phase["execution_time_limit"] == 3600
    (board,) = found["leaderboards"]
    assert [(one["key"], one["sorting"], one["index"]) for one in board["columns"]] == [
        ("total", "desc", 0), ("psnr", "desc", 1), ("ssim", "desc", 2),
    ]  # fmt: skip
    assert found["contact_email"] == "us@example.org"
    assert yaml.safe_load((unpacked / "scoring_program" / "metadata.yaml").read_text())["command"].startswith(
        "python3 "
    )
    assert {path.name for path in (unpacked / "reference_data").iterdir()} == {"gt", "lq"}
    with zipfile.ZipFile(unpacked / "public_data.zip") as public:
        assert all(name.startswith("inputs/") for name in public.namelist()), "the truth stays with the organisers"


def test_columns_are_sorted_as_their_metrics_are_better():
    directions = {one["title"]: one["sorting"] for one in columns_of(load_track("face-2025"))}
    assert directions["Total"] == directions["clipiqa"] == directions["musiq"] == "desc"
    assert directions["niqe"] == directions["fid"] == "asc"
    assert column_key("psnr-y") == "psnr_y"


@pytest.mark.parametrize("track", all_tracks(), ids=lambda track: track.name)
def test_pages_say_the_rules_of_any_track_and_its_toml_comes_back(track, tmp_path):
    pages = pages_of(track, Competition(START))
    for name in track.metrics:
        assert f"| {name} |" in pages["Evaluation"]
    for limit in track.budgets.hold({}):
        assert limit.rule in pages["Terms"]
    for gate in track.gates:
        assert gate.name in pages["Terms"]
    (tmp_path / "track.toml").write_text(track_toml(track))
    assert load_track(str(tmp_path / "track.toml")) == track


def test_the_same_materials_make_the_same_bytes(bundle, tmp_path):
    given = References(EXAMPLE / "gt", EXAMPLE / "lq")
    again = tmp_path / "again.zip"
    make_bundle(load_track("demo-srgb"), Competition(START, contact="us@example.org"), given, again)
    with zipfile.ZipFile(bundle) as one, zipfile.ZipFile(again) as other:
        names = [name for name in one.namelist() if name not in ("starting_kit.zip", "sample_submission.zip")]
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in names), "samples have the date of their run"


def test_a_worker_scores_a_good_upload_as_score_does(ntire, bundle, upload, monkeypatch):
    # As macOS packs: one folder around everything, and its litter.
    packed = upload(where="my results/", **{"__MACOSX/my results/._sky.png": b"x", "my results/.DS_Store": b"x"})
    ran = ntire("codabench", "try", bundle, packed, "-o", "scored", "--json")
    assert ran.code == 0, ran.out + ran.err
    found = ran.json()
    assert (found["status"], found["missing_columns"], found["exit_codes"]) == ("Finished", [], {"scoring": 0})
    ours = ntire("score", EXAMPLE / "median", "--gt", EXAMPLE / "gt", "-o", "own", "--json").json()[0]
    assert found["scores"] == pytest.approx({"total": ours["total"], **ours["metrics"]})
    assert yaml.safe_load(Path("scored/scores.txt").read_text()) == found["scores"] == found["scores_txt"]
    page = Path("scored/detailed_results.html").read_text()
    assert "Those of the Median" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_worker_fails_a_bad_upload_with_every_reason_first(ntire, bundle, upload, tmp_path):
    def spoil(content):
        content["sky.png"] = EXAMPLE / "lq" / "sky.png"
        content["waves.png"] = b"\xff\xd8\xff\xe0 a JPEG by its content"
        del content["cones.png"]
        content["<script>alert(1)</script>.png"] = b"x"
        return content

    Path("scored").mkdir()
    for name in ("scores.json", "scores.txt"):  # of the same upload, tried before it was changed
        (Path("scored") / name).write_text('{"total": 30.0}')
    ran = ntire("codabench", "try", bundle, upload(spoil), "-o", "scored", "--json")
    assert ran.code == 1
    found = ran.json()
    assert (found["status"], found["reason"]) == ("Failed", "the scoring program exited with 1")
    assert found["scores"] == {}
    lines = found["output"].splitlines()
    assert {line.split()[0] for line in lines if line[:1] == "E"} >= {"E301", "E311"}
    assert lines[0].split()[0][0] == "E", "the first line is a reason"
    assert not list(Path("scored").glob("scores.*"))
    page = Path("scored/detailed_results.html").read_text()
    assert "E301" in page
    assert "cones.png" in page
    assert "<script>" not in page


def test_an_upload_that_cannot_be_unpacked_is_told_in_words(ntire, bundle, tmp_path):
    packed = tmp_path / "torn.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("sky.png", b"a picture " * 99)
    torn = bytearray(packed.read_bytes())
    torn[40:44] = b"\xff" * 4
    packed.write_bytes(torn)
    for upload in (packed, zip_of({"a": b"x", "a/b.png": b"x"}, tmp_path / "both.zip"), tmp_path):
        ran = ntire("codabench", "try", bundle, upload)
        assert ran.code in (1, 2)
        assert f"{upload}: " in ran.err.replace("\n", "")
    assert "found a folder" in ran.err


def ask(ntire, unpacked, tmp_path, content):
    """Run the scoring program's command in this process on what a worker has unpacked."""
    res = tmp_path / "input" / "res"
    with zipfile.ZipFile(zip_of(content, tmp_path / "u.zip")) as packed:
        packed.extractall(res)
    shutil.copytree(unpacked / "reference_data", tmp_path / "input" / "ref")
    return ntire("codabench", "score", unpacked / "scoring_program", tmp_path / "input", tmp_path / "output")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"readme.txt": README}, "E301"),
        ({}, "E301"),
        ({"all.zip": b"PK\x03\x04 no zip"}, "E1"),
        ({"notes.docx": b"x"}, "E301"),
    ],
    ids=["only a readme", "nothing", "a broken zip in the zip", "a document"],
)
def test_what_is_no_upload_has_no_scores_and_a_reason(ntire, unpacked, tmp_path, content, words):
    (tmp_path / "input" / "res").mkdir(parents=True)
    ran = ask(ntire, unpacked, tmp_path, content)
    assert ran.code == 1, ran.err
    assert words in ran.err
    assert "Not scored" in (tmp_path / "output" / "detailed_results.html").read_text()
    assert not (tmp_path / "output" / "scores.json").exists()


def test_weights_travel_with_the_reference_data_to_where_the_scorer_looks(ntire, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "here"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    rules = load_track("demo-srgb").model_copy(update={"metrics": ("psnr", "lpips"), "terms": (), "tie_break": ()})
    for weights in METRICS["lpips"].weights:
        path, _ = locate(weights, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights.file.encode())
    made = tmp_path / "bundle.zip"
    make_bundle(rules, Competition(START), References(EXAMPLE / "gt", EXAMPLE / "lq"), made, with_weights=True)
    worker.read_bundle(made, tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "bundle" / "reference_data.zip") as packed:
        packed.extractall(tmp_path / "ref")
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "ref" / "weights" / "ntire"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "ref" / "weights" / "torch"))
    for weights in METRICS["lpips"].weights:
        path, state = locate(weights, None)
        assert (state, path.read_bytes()) == ("here", weights.file.encode())


def test_the_truth_itself_is_no_score(ntire, unpacked, tmp_path):
    ran = ask(ntire, unpacked, tmp_path, {"readme.txt": README, "images": EXAMPLE / "gt"})
    assert ran.code == 1
    assert "psnr: the results are the truth itself" in ran.err
    assert not (tmp_path / "output" / "scores.json").exists()


def test_missing_weights_are_the_organiser_s_to_mend_and_nothing_is_downloaded(ntire, unpacked, tmp_path, monkeypatch):
    program = tmp_path / "program"
    shutil.copytree(unpacked / "scoring_program", program)
    rules = load_track("demo-srgb").model_copy(update={"metrics": ("psnr", "lpips"), "terms": (), "tie_break": ()})
    (program / "track.toml").write_text(track_toml(rules))
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("it goes to the network"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))  # other tests of this process make weights
    given = tmp_path / "input"
    shutil.copytree(unpacked / "reference_data", given / "ref")
    shutil.copytree(IMAGES, given / "res")
    ran = ntire("codabench", "score", program, given, tmp_path / "output")
    assert ran.code == 3
    assert ran.err.splitlines()[-1]
    assert "This is the organiser's to mend, not yours." in ran.err
    assert "lpips" in ran.err
    assert "organiser" in (tmp_path / "output" / "detailed_results.html").read_text()


def test_code_that_is_handed_in_runs_in_a_sandbox_and_its_results_are_scored(ntire, tmp_path, monkeypatch):
    monkeypatch.delenv("NTIRE_TRUST")
    made = tmp_path / "code.zip"
    given = References(EXAMPLE / "gt", EXAMPLE / "lq")
    make_bundle(load_track("demo-srgb"), Competition(START, code=True), given, made)
    upload = zip_of({"": EXAMPLE / "median" / "method"}, tmp_path / "method.zip")
    ran = ntire("codabench", "try", made, upload, "-o", "scored", "--json")
    assert ran.code == 0, ran.out + ran.err
    assert ran.json()["exit_codes"] == {"ingestion": 0, "scoring": 0}
    assert ran.json()["scores"]["psnr"] == pytest.approx(32.7364, abs=1e-3)


def test_where_no_sandbox_works_code_does_not_run(ntire, tmp_path, monkeypatch):
    monkeypatch.setattr("ntire.sandbox.child.why_not", lambda backend: "not installed")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "track.toml").write_text(track_toml(load_track("demo-srgb")))
    code = EXAMPLE / "median" / "method"
    ran = ntire("codabench", "ingest", tmp_path / "program", EXAMPLE / "lq", code, tmp_path / "out")
    assert ran.code == 3
    assert "runs only in a sandbox, and none works in this container" in ran.err
    assert not (tmp_path / "out").exists()
    ran = ntire("codabench", "ingest", tmp_path / "program", EXAMPLE / "lq", EXAMPLE / "gt", tmp_path / "out")
    assert ran.code == 1
    assert "expected a method.py at the top of the zip or in method/" in ran.err


def with_program(bundle, source, out, seconds=60, columns=("total",)):
    """A bundle whose scoring program is another."""
    competition = {
        "title": "t", "image": "logo.png", "terms": "logo.png", "pages": [{"title": "t", "file": "logo.png"}],
        "phases": [{"index": 0, "tasks": [0], "execution_time_limit": seconds}],
        "tasks": [{"index": 0, "scoring_program": "program.zip"}],
        "leaderboards": [{"columns": [{"key": key} for key in columns]}],
    }  # fmt: skip
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as packed:
        packed.writestr("metadata.yaml", "command: python3 $program/run.py $output")
        packed.writestr("run.py", source)
    return zip_of(
        {"competition.yaml": yaml.safe_dump(competition).encode(), "logo.png": b"x", "program.zip": program.getvalue()},
        out,
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "Could not find scores file"),
        (
            "import sys, pathlib; pathlib.Path(sys.argv[1], 'scores.json').write_text('{\"total\": 1}'); sys.exit(2)",
            "exited with 2",
        ),
        (
            "import sys, pathlib; pathlib.Path(sys.argv[1], 'scores.json').write_text('{\"total\": NaN}')",
            "finite numbers",
        ),
        ("import time; time.sleep(60)", "time limit"),
    ],
    ids=["no scores", "an exit code", "no number", "time"],
)
def test_the_worker_fails_what_the_platform_fails(tmp_path, bundle, upload, source, reason):
    made = with_program(bundle, source, tmp_path / "other.zip", seconds=1)
    found = worker.try_upload(made, upload(), tmp_path / "scratch", tmp_path / "out")
    assert not found.finished
    assert reason in found.reason


def test_what_codalab_would_read_is_shown_beside_it(ntire, tmp_path, upload):
    writes = "import sys, pathlib; out = pathlib.Path(sys.argv[1]); "
    writes += (
        "(out / 'scores.json').write_text('{\"total\": 1.5}'); (out / 'scores.txt').write_text('total: 1.5\\nold: 2')"
    )
    ran = ntire("codabench", "try", with_program(None, writes, tmp_path / "other.zip"), upload())
    assert ran.code == 0, ran.out
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["total", "1.5", "1.5"] in rows
    assert ["old", "2"] in rows


def test_a_bundle_that_the_platform_would_refuse_says_all_that_is_wrong(tmp_path):
    competition = {"title": "t", "image": "logo.png", "terms": "terms.md", "pages": [{"title": "t", "file": "a.md"}]}
    bad = zip_of({"competition.yaml": yaml.safe_dump(competition).encode(), "a.md": b""}, tmp_path / "bad.zip")
    with pytest.raises(UserError) as refused:
        worker.read_bundle(bad, tmp_path / "folder")
    for words in (
        "no phases",
        "no tasks",
        "no leaderboards",
        "image names logo.png",
        "terms names terms.md",
        "pages names a.md",
    ):
        assert words in str(refused.value)


def test_all_that_a_bundle_lacks_is_told_at_once(ntire, tmp_path):
    (tmp_path / "logo.png").write_text("no picture")
    ran = ntire(
        "codabench", "bundle", "--track", "face-2025", "--lq", tmp_path / "nowhere", "--start", "2026-03-02", "--end",
        "2026-03-01", "--logo", tmp_path / "logo.png", "--with-weights",
    )  # fmt: skip
    assert ran.code == 2
    for words in (
        "--end 2026-03-01",
        "--lq",
        "needs a table of landmarks",
        "--logo",
        "ntire weights fetch --track face-2025",
    ):
        assert words in ran.err
    assert not Path("bundle.zip").exists()


def test_the_starting_kit_has_an_upload_that_is_scored(ntire, unpacked, tmp_path):
    kit = unpacked / "starting_kit"
    assert {path.name for path in kit.iterdir()} == {"README.md", "track.toml", "sample_submission.zip"}
    words = ("--track", kit / "track.toml", "--lq", EXAMPLE / "lq")
    assert ntire("check", kit / "sample_submission.zip", *words).code == 0
    with zipfile.ZipFile(kit / "sample_submission.zip") as sample:
        sample.extractall(tmp_path / "input" / "res")
    shutil.copytree(unpacked / "reference_data", tmp_path / "input" / "ref")
    ran = ntire("codabench", "score", unpacked / "scoring_program", tmp_path / "input", tmp_path / "output")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "output" / "scores.json").read_text())["psnr"] < 32
    solutions = yaml.safe_load((unpacked / "competition.yaml").read_text())["solutions"]
    assert solutions == [{"index": 0, "path": "sample_submission.zip", "tasks": [0]}]
