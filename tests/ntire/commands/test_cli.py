import csv
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ntire import __version__
from ntire.picture.image import read_pixels
from tests.made import scene, write_png


@pytest.fixture
def pair(tmp_path):
    """Noisy pictures in lq/, the truth in gt/."""
    for number, name in enumerate(("a", "b", "below/c")):
        gt = scene(64, 72, seed=number)
        noisy = (gt + np.random.default_rng(number).normal(0, 20, gt.shape)).round().clip(0, 255).astype(np.uint8)
        write_png(tmp_path / "gt" / f"{name}.png", gt)
        write_png(tmp_path / "lq" / f"{name}.png", noisy)
    return tmp_path


def table(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def toml(path):
    return tomllib.loads(Path(path).read_text())


def test_the_whole_way_from_noisy_pictures_to_a_leaderboard(ntire, pair):
    for team in ("MiAlgo", "Copy"):
        ran = ntire("run", "--team", team, "--track", "srgb", pair / "lq", "--device", "cpu")
        assert ran.code == 0, ran.err
        assert "3 of 3 image(s) restored" in ran.out
    # The truth itself is an entry whose result is known beforehand.
    shutil.copytree("submissions/Copy-srgb", "submissions/gold")
    shutil.copytree(pair / "gt", "submissions/gold/images", dirs_exist_ok=True)
    ran = ntire("score", "submissions", "--gt", pair / "gt", "--metrics", "psnr-y,ssim-y")
    assert ran.code == 0, ran.err
    rows = {row["entry"]: row for row in table("submissions-results/leaderboard.csv")}
    assert rows["gold"]["psnr-y"] == "80"
    assert float(rows["MiAlgo-srgb"]["psnr-y"]) > float(rows["Copy-srgb"]["psnr-y"]) + 2
    copied = read_pixels(pair / "lq" / "a.png")
    assert np.array_equal(read_pixels(Path("submissions/Copy-srgb/images/a.png")), copied)
    assert [row["image"] for row in table("submissions-results/MiAlgo-srgb/scores.csv")] == ["a", "b", "below/c"]


def test_without_input_the_sample_set_is_restored_and_scored(ntire):
    assert ntire("run", "--team", "Copy", "--track", "raw", "--device", "cpu").code == 0
    assert ntire("run", "--team", "MiAlgo", "--track", "raw", "--limit", "1", "-o", "one", "--device", "cpu").code == 0
    ran = ntire("score", "submissions", "--json")
    assert ran.code == 0
    line = ran.json()[0]
    assert (line["entry"], line["track"], line["rank"]) == ("Copy-raw", "demo-raw", 1)
    assert 20 < line["metrics"]["psnr"] < 40
    # One image of four: listed with its reason, not ranked, exit code 1.
    ran = ntire("score", "one", "--json", "-o", "scores")
    assert ran.code == 1
    line = ran.json()[0]
    assert (line["rank"], line["total"], line["valid"]) == (None, None, False)
    assert line["problems"][0].startswith("3 missing (")


def test_the_demo_ranks_the_network_above_the_copy_on_both_tracks(ntire, tmp_path):
    ran = ntire("demo", "-o", "demo", "--device", "cpu")
    assert ran.code == 0, ran.err
    rows = table("demo/leaderboard.csv")
    assert [(row["rank"], row["entry"]) for row in rows] == [
        ("1", "MiAlgo-raw"), ("2", "Copy-raw"), ("1", "MiAlgo-srgb"), ("2", "Copy-srgb"),
    ]  # fmt: skip
    raw, copy_raw, srgb, copy_srgb = (float(row["psnr"]) for row in rows)
    assert raw > copy_raw + 3
    assert srgb > copy_srgb + 2
    with Image.open("demo/contact-sheet.png") as sheet:
        assert sheet.width > 900
        assert sheet.height > 2000
    # Again: nothing is computed, the tables are the same.
    before = Path("demo/leaderboard.csv").read_text()
    again = ntire("demo", "-o", "demo", "--device", "cpu")
    assert again.err.count("kept") == 16
    assert Path("demo/leaderboard.csv").read_text() == before


def test_the_track_data_folder_is_used_where_it_is_set(ntire, pair, monkeypatch):
    monkeypatch.setenv("NTIRE_DATA", str(pair / "data"))
    shutil.copytree(pair / "lq", pair / "data" / "raim-2025-srgb" / "lq")
    shutil.copytree(pair / "gt", pair / "data" / "raim-2025-srgb" / "gt")
    ran = ntire("run", "--team", "Copy", "--track", "srgb", "--device", "cpu")
    assert "3 of 3" in ran.out
    assert "no input given: restoring" in ran.err
    assert ntire("score", "submissions", "--metrics", "psnr-y").code == 0
    ran = ntire("run", "--team", "Copy", "--track", "raw", "--device", "cpu")
    assert ran.code == 2
    assert "expected" in ran.err
    assert "raim-2025-raw/lq" in ran.err


def test_a_folder_named_like_a_team_is_not_the_team(ntire, pair):
    """A stranger's folder that lies in the working directory under a team's name runs only by its path."""
    Path("MiAlgo").mkdir()
    Path("MiAlgo/method.py").write_text("from pathlib import Path; Path('ran').touch()")
    assert ntire("cost", "--team", "MiAlgo", "--track", "srgb").code == 0
    assert not Path("ran").exists()
    Path("MiAlgo").rename("Nobody")
    ran = ntire("cost", "--team", "Nobody", "--track", "srgb")
    assert (ran.code, "--team ./Nobody" in ran.err, Path("ran").exists()) == (2, True, False)
    ran = ntire("cost", "--team", "./Nobody", "--track", "srgb")
    assert "its method.py runs with all your rights" in ran.err
    assert Path("ran").exists(), "the tests trust their folders"


@pytest.mark.parametrize("command", ["run", "cost", "bench", "train"])
def test_without_trust_and_without_a_sandbox_a_folder_s_code_does_not_run(ntire, plugin, pair, monkeypatch, command):
    import ntire.sandbox.child as sandbox

    monkeypatch.delenv("NTIRE_TRUST")
    monkeypatch.setattr(sandbox, "why_not", lambda backend: "bwrap is not installed")
    folder = plugin()
    (folder / "method.py").write_text("from pathlib import Path; Path(__file__).with_name('ran').touch()")
    inputs = {"cost": [], "train": ["--data", pair / "gt"]}.get(command, [pair / "lq"])
    ran = ntire(command, "--team", folder, "--track", "srgb", *inputs)
    assert ran.code == (2 if command == "train" else 3)
    assert "--trust" in ran.err
    assert ("apt-get install bubblewrap" in ran.err) is (command != "train")
    assert not (folder / "ran").exists()


def test_what_does_not_go_in_a_sandbox_is_told_at_once(ntire, plugin, pair, monkeypatch):
    monkeypatch.delenv("NTIRE_TRUST")
    ran = ntire(
        "run", "--team", plugin(), "--track", "srgb", pair / "lq", "--compile", "--set", "a=b", "--precision", "bf16"
    )
    assert ran.code == 2
    assert "without --set, --precision bf16, --compile" in ran.err
    ran = ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "--sandbox")
    assert (ran.code, "./Copy" in ran.err) == (2, True)


def test_a_folder_with_a_method_runs_like_a_team(ntire, plugin, pair):
    ran = ntire("run", "--team", plugin(), "--track", "srgb", pair / "lq", "--device", "cpu")
    assert ran.code == 0
    assert toml("submissions/Plus-srgb/submission.toml")["team"] == "Plus"
    ran = ntire("run", "--team", plugin(), "--track", "raw", pair / "lq", "--device", "cpu")
    assert ran.code == 2
    assert "its method is for srgb inputs" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--team", "MiAglo", "--track", "srgb"], 2, "Did you mean MiAlgo?"),
        (["run", "--team", "MiAlgo", "--track", "rgb"], 2, "unknown track: 'rgb'"),
        (["run", "--team", "MiAlgo", "--track", "srgb", "nowhere"], 2, "found nothing there"),
        (["run", "--team", "MiAlgo", "--track", "srgb", "empty"], 2, "found none"),
        (["run", "--team", "Copy", "--track", "srgb", "lq", "-o", "/proc/x"], 2, "can be written to"),
        (["run", "--team", "Copy", "--track", "srgb", "lq", "--tile", "many"], 2, "expected a number of pixels"),
        (["run", "--team", "Copy", "--track", "srgb", "lq", "--device", "tpu"], 2, "--device tpu"),
        (["run", "--team", "MiAlgo", "--track", "srgb", "lq", "--weights", "lq/a.png"], 2, "not a whole weights file"),
        (["run", "--team", "Copy"], 2, "Missing option"),
        (["score", "nowhere"], 2, "no such file or folder"),
        (["score", "empty"], 2, "found nothing"),
        (["score", "lq"], 2, "Name the track with --track"),
        (["tracks", "rwa"], 2, "unknown track"),
        (["train", "--team", "Copy", "--track", "srgb", "--data", "lq"], 2, "has no recipe"),
        (
            ["train", "--team", "NJUST-KMG", "--track", "srgb", "--data", "empty", "--stage", "l1"],
            2,
            "expected pictures",
        ),
        (
            ["train", "--team", "NJUST-KMG", "--track", "srgb", "--data", "lq", "--stage", "x"],
            2,
            "no stage x; it has: l1",
        ),
        (["train", "--team", "NJUST-KMG", "--track", "srgb", "--data", "lq", "--pairs", "l1"], 2, "such as snowy=DIR"),
        (
            ["train", "--team", "NJUST-KMG", "--track", "srgb", "--data", "lq", "--stage", "l1", "--pairs", "l1=lq"],
            2,
            "found no gt",
        ),
        (["weights", "fetch", "Nobody"], 2, "no weights are declared under Nobody"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(ntire, pair, monkeypatch, words, code, message):
    monkeypatch.chdir(pair)
    (pair / "empty").mkdir()
    ran = ntire(*words)
    assert ran.code == code
    assert message in " ".join(ran.err.replace("│", " ").split())


def test_bad_pictures_are_told_and_the_exit_code_is_one(ntire, pair):
    (pair / "lq" / "text.png").write_text("hello")
    ran = ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "--device", "cpu")
    assert ran.code == 1
    assert "3 of 4 image(s) restored" in ran.out
    assert "found text" in ran.out
    ran = ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "--device", "cpu", "--json")
    statuses = {result["image"]: result["status"] for result in ran.json()["images"]}
    assert statuses["text"] == "unreadable"


def test_a_manifest_with_mistakes_lists_them(ntire, pair):
    ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "--device", "cpu")
    manifest = Path("submissions/Copy-srgb/submission.toml")
    manifest.write_text('team = ""\ntrack = "raim-2025-srgb"\ndate = "soon"\nteem = 1\n')
    ran = ntire("score", "submissions", "--gt", pair / "gt")
    assert ran.code == 2
    for part in ("line 1: team", "line 3: date", "line 4: teem"):
        assert part in ran.err


def test_scoring_some_metrics_gives_no_total(ntire, pair):
    ntire("run", "--team", "Copy", "--track", "demo-srgb", pair / "lq", "--device", "cpu")
    ran = ntire("score", "submissions", "--gt", pair / "gt", "--metrics", "psnr", "--json")
    assert ran.json()[0]["total"] is None
    assert set(ran.json()[0]["metrics"]) == {"psnr"}
    ran = ntire("score", "submissions", "--gt", pair / "gt", "--metrics", "psrn")
    assert ran.code == 2
    assert "it has: psnr, ssim" in ran.err


def test_scoring_again_gives_the_same_bytes(ntire, pair):
    ntire(
        "run", "--team", "Copy", "--track", "demo-srgb", pair / "lq", "--device", "cpu", "-o", "submissions/Copy-srgb"
    )
    tables = []
    for _ in range(2):
        assert ntire("score", "submissions", "--gt", pair / "gt").code == 0
        files = ("leaderboard.csv", "leaderboard.json", "leaderboard.md", "Copy-srgb/scores.csv")
        tables.append([Path("submissions-results", file).read_bytes() for file in files])
    assert tables[0] == tables[1]


def test_training_through_the_command_line_makes_weights_that_run_uses(ntire, pair):
    words = ("train", "--team", "NJUST-KMG", "--track", "srgb", "--data", pair / "gt", "-o", "t", "--device", "cpu")
    words += ("--stage", "l1")
    scaled = ("--iterations", "6", "--batch", "2", "--patch", "32", "--held-out", "1", "--validate-every", "3")
    ran = ntire(*words, *scaled)
    assert ran.code == 0, ran.err
    assert "dB on held-out pictures" in ran.err
    card = toml("t/card.toml")
    assert card["command"].startswith("ntire train --team NJUST-KMG --track srgb --data gt -o t")
    ran = ntire(
        "run",
        "--team",
        "NJUST-KMG",
        "--track",
        "srgb",
        pair / "lq",
        "--weights",
        "t/weights.safetensors",
        "--device",
        "cpu",
    )
    assert ran.code == 0
    assert toml("submissions/NJUST-KMG-srgb/submission.toml")["method"]["weights"][0]["sha256"] == card["sha256"]


def test_the_report_s_table_is_ranked_from_the_command_line(ntire, data):
    golden = data.parent / "golden" / "face_2025_table1.csv"
    if not golden.is_file():
        pytest.skip(f"the report's table is not in {golden}")
    ran = ntire("leaderboard", golden, "--track", "face-2025", "-o", "board.csv")
    assert ran.code == 0
    rows = table("board.csv")
    assert [row["rank"] for row in rows] == [*map(str, range(1, 11)), "N/A", "N/A", "N/A"]
    assert float(rows[0]["total"]) == pytest.approx(4.3638, abs=1.5e-4)
    assert rows[-1]["problems"] == "gate identity: 17 failed, 10 allowed"
    assert Path("board.md").is_file()
    assert Path("board.json").is_file()


def test_scores_are_ranked_again_from_their_files(ntire, pair):
    for team in ("Copy", "MiAlgo"):
        ntire("run", "--team", team, "--track", "demo-srgb", pair / "lq", "--device", "cpu", "-o", f"entries/{team}")
    ntire("score", "entries", "--gt", pair / "gt")
    ran = ntire(
        "leaderboard",
        "entries-results/Copy/scores.csv",
        "entries-results/MiAlgo/scores.csv",
        "--track",
        "demo-srgb",
        "--json",
    )
    again = {line["entry"]: line["total"] for line in ran.json()}
    assert again == pytest.approx(
        {row["entry"]: float(row["total"]) for row in table("entries-results/leaderboard.csv")}
    )


def test_a_track_of_one_s_own_is_a_toml(ntire, pair):
    Path("mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\ninputs = "srgb"\nmetrics = ["psnr"]\nsource = "me"\n'
        'terms = [{ metric = "psnr", scale = 2 }]\n'
    )
    assert "total      2 psnr" in ntire("tracks", "mine.toml").out
    ntire("run", "--team", "Copy", "--track", "mine.toml", pair / "lq", "--device", "cpu")
    ran = ntire("score", "submissions", "--track", "mine.toml", "--gt", pair / "gt", "--json")
    line = ran.json()[0]
    assert line["total"] == pytest.approx(2 * line["metrics"]["psnr"])


def test_denoising_adds_its_noise_to_clean_pictures(ntire, pair):
    ran = ntire("run", "--team", "Copy", "--track", "denoise", pair / "gt", "--device", "cpu")
    assert "noise of sigma 25 added to 3 clean picture(s)" in ran.err
    assert ntire("run", "--team", "MiAlgo", "--track", "denoise", pair / "gt", "--device", "cpu").code == 0
    ran = ntire("score", "submissions", "--gt", pair / "gt", "--json")
    lines = {line["entry"]: line for line in ran.json()}
    assert lines["Copy-denoise"]["metrics"]["psnr"] == pytest.approx(20.17, abs=0.5)
    assert lines["MiAlgo-denoise"]["rank"] == 1
    again = ntire("run", "--team", "Copy", "--track", "denoise", pair / "gt", "--device", "cpu")
    assert "(3 were there)" in again.out


def test_general_restorers_get_pictures_of_ones_own_as_they_are(ntire, pair):
    assert ntire("run", "--team", "Copy", "--track", "general", pair / "gt", "--device", "cpu").code == 0
    pictures = sorted((pair / "gt").glob("*.png"))
    assert pictures
    for path in pictures:
        own = Path("submissions") / "Copy-general" / "images" / path.name
        assert np.array_equal(read_pixels(own), read_pixels(path))


def test_missing_weights_are_named_with_their_sizes_and_nothing_is_written(ntire, pair, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "--device", "cpu")
    ran = ntire("score", "submissions", "--gt", pair / "gt")
    assert ran.code == 3
    for part in ("LPIPS_v0.1_alex-df73285e.pth", "vgg16-397923af.pth", "553 MB", "ntire weights fetch"):
        assert part in ran.err
    assert not Path("submissions-results").exists()
    ran = ntire("weights", "list", "--track", "face-2025", "--json")
    files = {row["file"] for row in ran.json()}
    assert {"RN50.pt", "adaface_ir50_ms1mv2.ckpt", "q-future/one-align", "inception_FFHQ_512.pth"} <= files
    assert all(row["urls"] or row["by_hand"] or row["file"] == "q-future/one-align" for row in ran.json())


def test_drifted_libraries_refuse_to_rank(ntire, pair, monkeypatch):
    from ntire.scoring import calibration

    ntire("run", "--team", "Copy", "--track", "demo-srgb", pair / "lq", "--device", "cpu")
    monkeypatch.setitem(calibration.PINNED, "ssim", 0.5)
    ran = ntire("score", "submissions", "--gt", pair / "gt")
    assert ran.code == 3
    assert "nothing is ranked" in ran.err
    assert "ssim: 0.96108228 for 0.5" in ran.err
    assert not Path("submissions-results").exists()


def test_faces_without_a_table_of_landmarks_are_looked_for_and_that_is_said(ntire, pair, monkeypatch, tmp_path):
    from ntire.scoring import random_weights
    from ntire.scoring.identity import Face

    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "weights"))
    random_weights.write("adaface")
    Path("faces.toml").write_text(
        'name = "faces"\ntitle = "Faces"\ninputs = "face"\nmetrics = ["adaface"]\nsource = "me"\npair_by = "stem"\n'
    )
    ntire("run", "--team", "Copy", "--track", "faces.toml", pair / "lq", "--device", "cpu")
    words = ("score", "submissions", "--track", "faces.toml", "--lq", pair / "lq", "--device", "cpu")
    ran = ntire(*words)
    assert ran.code == 3
    assert "detection_Resnet50_Final.pth" in ran.err
    points = ((20.0, 20.0), (45.0, 21.0), (32.0, 35.0), (22.0, 48.0), (44.0, 49.0))
    monkeypatch.setattr("ntire.scoring.detect.retinaface", lambda device: lambda path: Face(points))
    ran = ntire(*words, "--json")
    assert ran.code == 0, ran.err
    assert "RetinaFace's are used, which are not the organisers'" in ran.err
    assert ran.json()[0]["metrics"]["adaface"] == pytest.approx(1)


def test_teams_lists_claims_beside_counts(ntire):
    ran = ntire("teams", "--track", "raw", "--json")
    rows = {(row["team"], row["track"], row["variant"]): row for row in ran.json()}
    keys = [
        "team",
        "track",
        "variant",
        "params",
        "macs",
        "scale",
        "at",
        "output_at",
        "claimed",
        "difference",
        "weights",
    ]
    keys += ["validation", "license", "settings", "caveats"]
    assert all(list(row) == keys for row in rows.values())
    light = rows["MiAlgo", "raw", "phase3"]
    assert light["params"] == 4621784
    assert light["weights"] == "shipped"
    assert light["difference"] == {"params": pytest.approx(0.0004, abs=1e-4), "macs": pytest.approx(-0.005, abs=1e-3)}
    assert rows["MiAlgo", "raw", "phase2"]["claimed"]["unmatched"] == ["macs_g"]
    assert rows["IID-AI", "raw", ""]["difference"] == {"params": None, "macs": None}
    table = ntire("teams", "--track", "srgb").out
    assert "0.07542 M" in table
    assert "4.622 M" not in table


def test_tracks_doctor_and_weights_print_tables_and_json(ntire, pair):
    assert "border     4 px" in ntire("tracks", "raim-2025-raw").out
    assert any(track["name"] == "demo-raw" for track in ntire("tracks", "--json").json())
    ran = ntire("doctor", "--json")
    assert ran.code == 0
    assert {check["state"] for check in ran.json()} <= {"ok", "absent"}
    assert "metric calibration" in ntire("doctor").out
    assert ntire("weights", "verify", "MiAlgo").code == 0
    states = {row["for"]: row["state"] for row in ntire("weights", "list", "--json").json()}
    assert states["MiAlgo raw phase3"] == states["MiAlgo srgb phase3"] == "shipped"
    assert "nothing to fetch" in ntire("weights", "fetch", "MiAlgo").out
    night_watch = {row["for"] for row in ntire("weights", "list", "Night Watch", "--json").json()}
    assert night_watch == {"Night Watch face"}
    assert (
        "ntire weights fetch 'Night Watch'" in ntire("run", "--team", "Night Watch", "--track", "face", pair / "lq").err
    )


def test_doctor_exits_with_three_when_something_is_broken(ntire, monkeypatch):
    from ntire.scoring import calibration

    monkeypatch.setitem(calibration.PINNED, "psnr", 12.0)
    ran = ntire("doctor")
    assert ran.code == 3
    assert "values differ from the pinned ones: psnr" in ran.out


@pytest.mark.parametrize(
    "command",
    ["demo", "teams", "run", "score", "leaderboard", "bench", "train", "tracks", "doctor", "weights list"],
)
def test_every_command_has_help_with_an_example(ntire, command):
    ran = ntire(*command.split(), "--help")
    assert ran.code == 0
    assert "Example" in ran.out


def test_the_version_is_printed(ntire):
    assert ntire("--version").out == f"ntire {__version__}\n"


def test_cost_counts_at_any_size_and_shows_the_claim_where_it_is_made(ntire):
    ran = ntire("cost", "--team", "MiAlgo", "--track", "raw")
    assert "4,621,784" in ran.out
    assert "claimed          4,620,000   difference +0.04%" in ran.out
    assert "GFLOPs are 2 x MAC, attention included" in ran.out
    big = ntire("cost", "--team", "MiAlgo", "--track", "raw", "--at", "2048x1024", "--json").json()
    usual = ntire("cost", "--team", "MiAlgo", "--track", "raw", "--json").json()
    assert big["macs"] == pytest.approx(2 * usual["macs"], rel=1e-6)
    assert big["difference"]["macs"] is None
    assert (
        "reaches 34 pixels; declared: exact, halo 36"
        in ntire("cost", "--team", "MiAlgo", "--track", "srgb", "--reach").out
    )
    ran = ntire("cost", "--team", "MiAlgo", "--track", "raw", "--at", "huge")
    assert ran.code == 2
    assert "--at huge: expected height x width" in ran.err


def test_sheet_puts_entries_beside_the_truth(ntire, pair):
    for name in ("one", "two"):
        assert ntire("run", "--team", "Copy", "--track", "srgb", pair / "lq", "-o", f"submissions/{name}").code == 0
    ran = ntire("sheet", "submissions/one", "submissions/two", "--gt", pair / "gt", "-o", "sheet.png")
    assert ran.code == 0, ran.err
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 320
    ran = ntire("sheet", "submissions/one", "--gt", "nowhere")
    assert ran.code == 2
    assert "nowhere: expected a folder of pictures" in ran.err


def test_our_scores_stand_beside_published_ones(ntire, tmp_path):
    subsets = {"hazy": 30.0, "rainy": 40.0, "noisy": 31.5, "motion-blurry": 30.0, "low-light": 24.0}
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "scores.csv").write_text(
        "image,subset,status,psnr,ssim-skimage,problem\n"
        + "".join(f"{name}/{n},{name},ok,{psnr},0.9,\n" for name, psnr in subsets.items() for n in range(2))
    )
    found = ntire("leaderboard", tmp_path / "ours" / "scores.csv", "--track", "multi-5", "--published", "--json").json()
    assert found[0]["team"] == "ours"
    assert found[0]["total"] == pytest.approx(sum(subsets.values()) / 5)
    assert {"MIRAGE-S", "PromptIR", "AirNet"} <= {one["team"] for one in found}
    refused = ntire("leaderboard", "--track", "face-2026", "--published")
    assert (refused.code, "no published rows ship for track face-2026" in refused.err) == (2, True)
    unknown = ntire("leaderboard", "--track", "multi-5", "--table", "MIRAGE table 9")
    assert "Did you mean MIRAGE table 2?" in unknown.err
    assert "name the tables to rank" in ntire("leaderboard", "--track", "multi-5").err


def test_noise_is_added_to_the_subsets_whose_inputs_are_clean(tmp_path):
    from ntire.commands.restoring import plan
    from ntire.picture.image import read_pixels

    for name in ("hazy/a", "noisy-25/a", "noisy-50/a"):
        write_png(tmp_path / "lq" / f"{name}.png", scene(40, 40))
    said = []
    job = plan("Copy", "multi-3", [tmp_path / "lq"], tmp_path / "out", None, None, said.append)
    made = {item.name: read_pixels(item.path).astype(float) for item in job.inputs}
    # The protocol of the noisy subsets cuts pictures to a multiple of 16 about their centre.
    clean = {
        name: scene(40, 40) if pixels.shape[0] == 40 else scene(40, 40)[4:36, 4:36] for name, pixels in made.items()
    }
    found = {name: np.abs(pixels - clean[name]).mean() for name, pixels in made.items()}
    assert found["hazy/a"] == 0
    assert 10 < found["noisy-25/a"] < 25 < found["noisy-50/a"] < 45
    assert len(said) == 3
    assert "1 picture(s) cut about their centre to a multiple of 16" in said[2]
    assert "noisy-25: noise of sigma 25 added to 1" in said[0]


def test_a_terminal_of_another_encoding_gets_codes_for_letters_that_it_lacks():
    """The arrows of a leaderboard ended in a traceback and exit code 3, with the tables written."""
    command = [sys.executable, "-m", "ntire", "leaderboard", "--published", "--track", "denoise"]
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, text=True, encoding="latin-1",
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "psnr \\u2191" in ran.stdout
