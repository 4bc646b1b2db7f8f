"""The face pipelines: each calls its stages in its figure's order, with the constants of its program."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ntire import UserError
from ntire.commands.restoring import run
from ntire.method import catalogue
from ntire.method.face_alignment import TEMPLATE
from ntire.method.state_dict import fill_from
from ntire.picture.image import read_pixels
from ntire.runner.prepare import Options, prepare
from ntire.runner.weight_offload import take_turns
from ntire.teams.face import acvlab, aiia, hh, miportrait, night_watch, uphorse
from ntire.teams.parts.diffbir import LONG_PROMPT, NEGATIVE
from ntire.teams.parts.quality import WEIGHTS as QUALITY_WEIGHTS
from ntire.teams.parts.quality import Quality
from tests.made import scene, write_png

TEAMS = sorted({method.team for method in catalogue.methods("face") if method.weights})


@pytest.fixture
def recorded(monkeypatch):
    """A tiny method whose stages only write down what they are given, and lighten the picture."""

    def record(method_class, *stages, **constants):
        method = method_class(**method_class.tiny | constants)
        calls = []

        def stand_in(name):
            def call(image, *others, **options):
                calls.append((name, options))
                return image * 0.5 + 0.5

            return call

        for name in stages:
            monkeypatch.setattr(getattr(method, name), "forward", stand_in(name))
        return method, calls

    return record


def restored(method, side=64):
    with torch.no_grad():
        return method(torch.full((1, 3, side, side), 0.2))


def test_hh_is_codeformer_at_full_fidelity_then_diffbir_with_clip_iqas_words(recorded):
    method, calls = recorded(hh.Hh, "codeformer", "diffbir", steps=50)
    assert torch.allclose(restored(method), torch.tensor(0.8))
    assert [name for name, _ in calls] == ["codeformer", "diffbir"]
    assert calls[0][1] == {"fidelity": 1.0}
    options = calls[1][1]
    assert (options["steps"], options["guidance"], options["seed"]) == (50, 4.0, 231)
    assert options["prompt"].startswith("Good image, Sharp image")
    assert options["negative"].endswith("noisy image")


def test_acvlab_restores_faces_before_a_background_and_its_report_takes_codeformer(recorded):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    method, calls = recorded(acvlab.AcvLab, "real_esrgan", "unaligned", "diffbir", steps=75)
    restored(method)
    assert [name for name, _ in calls] == ["real_esrgan", "unaligned", "diffbir"]
    assert calls[0][1] == {"outscale": 1}
    assert float(calls[1][1]["background"].mean()) == pytest.approx(0.6)
    options = calls[2][1]
    assert (options["steps"], options["guidance"], options["prompt"], options["negative"]) == (
        75, 3.0, LONG_PROMPT, NEGATIVE,
    )  # fmt: skip
    assert catalogue.find("ACVLab", "face", "report") is acvlab.AcvLabReport


def test_aiia_restores_the_faces_that_it_finds_and_its_variant_learns_from_the_result(recorded):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    method, calls = recorded(aiia.Aiia, "unaligned", "tsd_sr")
    restored(method)
    assert calls == [("unaligned", {}), ("tsd_sr", {"seed": 42, "side": 64})]
    method, calls = recorded(aiia.AiiaZssr, "unaligned", "tsd_sr", "zssr", steps=8000)
    recorded_zssr = method.zssr.forward
    method.zssr.forward = lambda image, **options: recorded_zssr(image, **options).repeat(1, 1, 2, 2)
    assert restored(method).shape == (1, 3, 64, 64)
    assert calls[2] == ("zssr", {"factor": 2, "steps": 8000, "patch": 16})
    assert float(restored(method).mean()) == pytest.approx(0.9)
    assert catalogue.find("AIIA", "face", "zssr") is aiia.AiiaZssr


def test_aiia_s_faces_come_from_gfpgan_and_a_picture_without_any_stays_as_it_is(monkeypatch):
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    method = aiia.Aiia(**aiia.Aiia.tiny).eval().requires_grad_(False)
    monkeypatch.setattr(method.tsd_sr, "forward", lambda image, **options: image)
    monkeypatch.setattr(method.gfpgan, "forward", torch.zeros_like)
    monkeypatch.setattr(method.unaligned, "_mask", lambda face: torch.ones(face.shape[-2:]))
    found = [tuple(map(tuple, TEMPLATE / 8))]  # a face as large as the picture
    for points, mean in ((found, 0.0), ([], 0.2)):
        monkeypatch.setattr(method.unaligned.finder, "forward", lambda picture, points=points: points)
        assert float(restored(method)[..., 4:-4, 4:-4].mean()) == pytest.approx(mean, abs=1e-6)


def test_aiia_s_variant_raises_clip_iqa_and_chooses_by_niqe_too(monkeypatch, tmp_path):
    built = {"clipiqa": lambda image: image.mean((1, 2, 3)), "niqe": lambda image: 12 - 10 * image.mean((1, 2, 3))}
    monkeypatch.setattr("ntire.teams.parts.quality.build", lambda name, **options: built[name])
    judge = aiia.Judge()
    for weights in (one for one in aiia.AiiaZssr.weights if one.into == "quality"):
        fill_from(judge, weights, tmp_path / weights.file)
    pictures = torch.tensor([0.1, 0.6]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(judge.clip_iqa(pictures), torch.tensor([0.1, 0.6]))
    torch.testing.assert_close(judge.score(pictures), torch.tensor([0.1, 0.6 + 0.4]))


@pytest.mark.parametrize(("scores", "helps"), [((0.2, 10.0), True), ((0.2, 20.0), False), ((0.4, 10.0), False)])
def test_miportrait_lets_gfpgan_help_where_both_measures_of_the_input_are_low(recorded, scores, helps):
    stages = ("pisa_sr", "ffa_net", "gfpgan", "diffbir", "face_tone")
    method, calls = recorded(miportrait.MiPortrait, *stages, judged=1)
    judged = []

    def judge(image):
        judged.append(float(image.mean()))
        return tuple(torch.tensor([value]) for value in scores)

    method.quality.forward = judge
    restored(method)
    assert judged == [pytest.approx(0.2)], "the input is judged, not what became of it"
    expected = [name for name in stages if helps or name != "gfpgan"]
    assert [name for name, _ in calls] == expected
    assert calls[0][1]["seed"] == 42
    assert calls[-2][1]["negative"] == f"{NEGATIVE}, out of focus"


def test_without_a_judge_gfpgan_helps_always(recorded):
    method, calls = recorded(miportrait.MiPortrait, "pisa_sr", "ffa_net", "gfpgan", "diffbir", "face_tone")
    restored(method)
    assert "gfpgan" in [name for name, _ in calls]


def test_the_judge_is_read_from_its_files_and_refuses_to_guess_without(tmp_path, monkeypatch):
    empty = Quality()
    from ntire import UserError

    with pytest.raises(UserError, match="clipiqa decides"):
        empty(torch.zeros(1, 3, 8, 8))
    built = {}
    monkeypatch.setattr(
        "ntire.teams.parts.quality.build",
        lambda name, **options: built.setdefault(name, torch.nn.Flatten(0)) and _Mean(name),
    )
    for weights in QUALITY_WEIGHTS:
        fill_from(empty, weights, tmp_path / weights.file)
    assert set(built) == {"clipiqa", "musiq"}
    clip_iqa, musiq = empty(torch.full((2, 3, 8, 8), 0.25))
    assert clip_iqa.tolist() == [0.25, 0.25]
    assert musiq.tolist() == [25.0, 25.0]


class _Mean(torch.nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.times = 100 if name == "musiq" else 1

    def forward(self, image: Tensor) -> Tensor:
        return self.times * image.mean((1, 2, 3))[:, None]


def test_uphorse_runs_three_diffusion_models_and_comes_back_to_its_size(recorded):
    method, calls = recorded(uphorse.UpHorse, "diffbir", "stable_sr", "supir", steps=50)
    assert restored(method).shape == (1, 3, 64, 64)
    assert [name for name, _ in calls] == ["diffbir", "stable_sr", "supir"]
    assert calls[0][1]["guidance"] == 6.0
    assert calls[1][1] == {"steps": 4, "decoder": 0.5, "seed": 42, "side": 64}
    options = calls[2][1]
    assert options.pop("prompt").startswith("sufficient detail, high-resolution")
    assert options.pop("negative").startswith("blurry, pixelated")
    assert options == {
        "side": 192, "steps": 50, "guidance": 7.5, "guidance_start": 4.0, "churn": 5.0, "noise": 1.003, "seed": 1234,
    }  # fmt: skip


def test_uphorses_models_take_turns_where_there_is_room_for_one():
    torch.manual_seed(1)
    whole = uphorse.UpHorse(**uphorse.UpHorse.tiny).eval().requires_grad_(False)
    usual = restored(whole)
    largest = max(
        sum(one.nbytes for one in part.state_dict().values()) for part in (whole.diffbir, whole.stable_sr, whole.supir)
    )
    turns = take_turns(whole, torch.device("cpu"), "fp32", 1.01e-9 * largest)
    assert torch.equal(restored(whole), usual)
    assert [part.name for part in turns.present] == ["supir"]


def test_night_watch_takes_other_settings_from_its_caller(recorded):
    method, calls = recorded(night_watch.NightWatch, "diffbir", steps=30)
    restored(method)
    assert (calls[0][1]["guidance"], calls[0][1]["strength"], calls[0][1]["steps"]) == (8.0, 0.6, 30)
    method.settings = night_watch.DarkSettings(prompts=3, guidance=5.0, mask=None)
    assert torch.allclose(restored(method), torch.tensor(0.6))
    assert calls[1][1]["prompt"] == night_watch.PROMPTS[3][0]


def test_night_watch_reads_what_a_user_sets_as_words():
    method = night_watch.NightWatch(**night_watch.NightWatch.tiny)
    for name, word in (("prompts", "1"), ("guidance", "5.5"), ("steps", "50"), ("mask", "none")):
        setattr(method, name, word)
    method.deploy()
    assert method.settings == night_watch.DarkSettings(prompts=1, guidance=5.5, strength=0.6, steps=50, mask=None)
    for name, word in (("mask", "0.2"), ("prompts", "4"), ("steps", "1.5"), ("strength", "much")):
        method = night_watch.NightWatch(**night_watch.NightWatch.tiny)
        setattr(method, name, word)
        with pytest.raises(UserError, match=f"--set {name}={word}: expected "):
            method.deploy()


def test_night_watchs_mask_is_the_programs(monkeypatch):
    """The program's steps in OpenCV, on a picture large enough for its kernel."""
    import cv2

    mask = night_watch.MASKS["1.0"]
    picture = scene(90, 100).astype(np.float32) / 255
    blur = cv2.GaussianBlur(picture, (61, 61), 0)
    detail = picture - blur
    soft = cv2.GaussianBlur((np.abs(detail) * 255 > mask.threshold).astype(np.float32), (61, 61), 0)
    where = np.clip(mask.contrast * soft, 0, 1)
    sharper = np.clip(picture + mask.weight * detail, 0, 1)
    high, low = cv2.dilate(picture, np.ones((3, 3))), cv2.erode(picture, np.ones((3, 3)))
    bounded = np.where(sharper > high, high + (sharper - high) * mask.overshoot, sharper)
    bounded = np.where(sharper < low, low - (low - sharper) * mask.overshoot, bounded)
    theirs = where * bounded + (1 - where) * picture
    ours = night_watch.sharpened(torch.from_numpy(picture).permute(2, 0, 1)[None], mask)
    assert float(np.abs(theirs - picture).max()) > 0.02
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), theirs, atol=1e-4)


def test_other_sizes_are_brought_to_the_networks_and_back(recorded):
    method, _ = recorded(hh.Hh, "codeformer", "diffbir")
    seen = []
    forward = method.codeformer.forward
    method.codeformer.forward = lambda image, **options: seen.append(image.shape) or forward(image, **options)
    assert restored(method, side=40).shape == (1, 3, 40, 40)
    assert seen == [(1, 3, 64, 64)]


@pytest.mark.parametrize("team", TEAMS)
def test_weights_that_are_missing_are_told_with_their_addresses_and_licences(
    ntire, pictures, team, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ran = ntire("run", "--team", team, "--track", "face", pictures)
    assert ran.code == 3
    said = ran.err.replace("\n", "")
    for weights in catalogue.find(team, "face").weights:
        assert weights.file in said
        assert weights.license.split()[0] in said
        assert all(url in said for url in weights.urls)
        assert weights.by_hand in said
        assert weights.urls or weights.by_hand


def test_how_to_get_what_is_missing_is_told_without_a_network_for_what_is_named(ntire):
    said = ntire("weights", "list", "IPCV").out
    for weights in catalogue.find("IPCV", "face").weights:
        assert weights.license in said
        assert all(f"\n  from {url}\n" in said for url in weights.urls)
        assert weights.by_hand in said
    assert "from https" not in ntire("weights", "list").out, "the list of all is a table"


def test_a_file_of_two_variants_is_verified_once(ntire):
    said = ntire("weights", "verify", "AIIALab").out
    # Its name and its path, in one line.
    for file in ("v2-1_512-ema-pruned.ckpt", "codeformer.pth"):
        assert sum(file in line for line in said.splitlines()) == 1
    assert ntire("weights", "list", "AIIALab").out.count("\n  from https://huggingface.co/sd2-community/") == 1


def test_a_file_of_several_stages_is_listed_once(ntire):
    files = [row["file"] for row in ntire("weights", "list", "UpHorse", "--json").json()]
    assert files.count("bpe_simple_vocab_16e6.txt.gz") == 1
    assert len(files) == len(set(files)) == 8


@pytest.fixture
def small_hh(tmp_path, monkeypatch):
    """HH as a tiny copy, and a file of random weights for it."""
    from safetensors.torch import save_file

    method_class = catalogue.find("HH", "face")
    build = method_class.__init__
    monkeypatch.setattr(method_class, "__init__", lambda self: build(self, **method_class.tiny))
    torch.manual_seed(3)
    save_file(method_class().state_dict(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_a_face_is_restored_from_the_command_line_with_weights_of_ones_own(ntire, small_hh, tmp_path):
    face = write_png(tmp_path / "in" / "CelebA" / "face.png", scene(64, 64))
    ran = ntire(
        "run", "--team", "HH", "--track", "face", tmp_path / "in", "-o", tmp_path / "out", "--weights", small_hh,
        "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    written = read_pixels(tmp_path / "out" / "images" / "CelebA" / "face.png")
    method = prepare(catalogue.find("HH", "face"), Options(weights=small_hh)).method
    np.testing.assert_array_equal(written, np.rint(method.restore(face).permute(1, 2, 0).numpy() * 255))


@pytest.mark.data
def test_real_portraits_are_restored_at_their_own_size(ntire, small_hh, data, tmp_path):
    pictures = sorted((data / "face").glob("*.png"))
    if not pictures:
        pytest.skip(f"no pictures in {data / 'face'}")
    ran = ntire(
        "run", "--team", "HH", "--track", "face", data / "face", "-o", tmp_path / "out", "--weights", small_hh,
        "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    for path in pictures:
        assert read_pixels(tmp_path / "out" / "images" / path.name).shape == read_pixels(path).shape


@pytest.mark.parametrize(("variant", "other"), [(None, "codeformer"), ("codeformer", "diffbir")])
def test_a_run_of_one_expert_of_aiialab_says_so_and_names_the_other(variant, other, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "none"))
    said = []
    with pytest.raises(UserError):  # no weights are here
        run(
            "AIIALab",
            "face",
            write_png(tmp_path / "a.png", scene()),
            tmp_path / "out",
            variant=variant,
            say=said.append,
        )
    (line,) = [one for one in said if "one of its two experts" in one]
    assert f"--variant {variant or 'diffbir'};" in line
    assert f"the other is --variant {other}" in line
