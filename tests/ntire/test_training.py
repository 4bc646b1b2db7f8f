import contextlib
import json
import math
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import structural_similarity
from torch import nn

from ntire import UserError
from ntire.commands.options import parsed_losses
from ntire.method import Method, catalogue
from ntire.picture.degradations import RawDegradation, SrgbDegradation, gaussian_noise
from ntire.picture.image import as_image
from ntire.training import Constant, Cosine, Part, Recipe, Stage, Steps, even_steps
from ntire.training.data import Pairs, Pool, batches, clean_images, hold_out, paired_images, validation_pairs
from ntire.training.discriminator import UNetDiscriminator
from ntire.training.loop import Settings, psnr, train
from ntire.training.losses import Aids, colour_loss, fft_loss, psnr_loss, scaled_fft_loss, ssim_loss
from ntire.training.parallel import Group
from ntire.training.perceptual import PerceptualLoss, perceptual_loss
from ntire.training.sources import pools_of
from tests.made import scene, write_png

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(
    degradation=SrgbDegradation(blur_probability=0, noise_probability=1, noise_sigma=(25, 25), jpeg_probability=0),
    stages=(
        Stage("first", 30, patch=24, batch=2, lr=1e-2, lr_end=1e-3, losses={"l1": 1.0}),
        Stage("second", 10, patch=32, batch=1, lr=1e-3, lr_end=1e-4, losses={"l2": 1.0, "ssim": 0.1}),
    ),
    source="made for tests",
    ema=0.9,
)


class Small(Method):
    team, track, cite = "Small", "srgb", "raim2025"
    tiling, halo, stride = "exact", 4, 1

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, lq):
        return lq + self.net(lq)


@pytest.fixture
def clean(tmp_path):
    for number in range(6):
        write_png(tmp_path / "clean" / f"{number}.png", scene(48, 64, seed=number))
    return tmp_path / "clean"


def trained(clean, out, recipe=RECIPE, stop_after=None, **settings):
    """Train and return every step; `stop_after` simulates a kill after that iteration."""
    torch.manual_seed(0)
    steps = []

    def report(step):
        steps.append(step)
        if step.iteration == stop_after:
            raise KeyboardInterrupt

    chosen = Settings(data=clean, out=out, held_out=2, **{"validate_every": 20, "save_every": 7, **settings})
    train(Small(), recipe, chosen, report)
    return steps


def test_training_lowers_the_loss_and_beats_the_input(clean, tmp_path):
    steps = trained(clean, tmp_path / "out", recipe=RECIPE.scaled(iterations=200), validate_every=100)
    assert [step.iteration for step in steps] == list(range(1, 201))
    assert [step.stage for step in steps] == ["first"] * 150 + ["second"] * 50
    assert sum(step.loss for step in steps[130:150]) < 0.9 * sum(step.loss for step in steps[:20])
    assert steps[-1].psnr_db > steps[-1].plain_psnr_db + 1
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in log] == [100, 200]


@pytest.mark.parametrize("stop_after", [5, 17, 33])
def test_a_run_stopped_anywhere_ends_with_the_very_weights(clean, tmp_path, stop_after):
    trained(clean, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(clean, tmp_path / "stopped", stop_after=stop_after)
    trained(clean, tmp_path / "stopped")
    whole, stopped = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_another_recipe_does_not_go_on_in_the_same_folder(clean, tmp_path):
    trained(clean, tmp_path / "out")
    with pytest.raises(UserError, match=r"other settings \(recipe: lr=[\d.e-]+ there and lr=0.0001 now\)\."):
        trained(clean, tmp_path / "out", recipe=RECIPE.scaled(lr=1e-4))
    steps = trained(clean, tmp_path / "out", recipe=RECIPE.scaled(iterations=4), fresh=True)
    assert len(steps) == 4


def test_the_card_tells_what_was_done(clean, tmp_path):
    trained(clean, tmp_path / "out", export="fp16", command="ntire train ...")
    card = tomllib.loads((tmp_path / "out" / "card.toml").read_text())
    weights = load_file(tmp_path / "out" / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert card["provenance"] == "retrained"
    assert card["parameters"] == sum(value.numel() for value in weights.values())
    assert card["validation"]["pictures"] == 2
    assert card["validation"]["psnr_db"] > card["validation"]["plain_psnr_db"]
    assert card["data"] == {"folder": "clean", "pictures": 4}
    assert [stage["name"] for stage in card["training"]["stages"]] == ["first", "second"]
    assert card["command"] == "ntire train ..."


def test_the_card_names_the_weights_that_training_began_with(clean, tmp_path):
    trained(clean, tmp_path / "first", recipe=RECIPE.scaled(iterations=2))
    earlier = tmp_path / "first" / "weights.safetensors"
    trained(clean, tmp_path / "second", recipe=RECIPE.scaled(iterations=2), begun_from=earlier)
    first, second = (tomllib.loads((tmp_path / name / "card.toml").read_text()) for name in ("first", "second"))
    assert "begun_from" not in first
    assert second["begun_from"] == {"weights.safetensors": first["sha256"]}


def test_pictures_that_stay_as_they_are_do_not_make_validation_infinite(clean, tmp_path):
    some = replace(RECIPE, degradation=replace(RECIPE.degradation, untouched=0.5))
    steps = trained(clean, tmp_path / "out", recipe=some.scaled(stages=("first",), iterations=2), seed=2)
    assert 19 < steps[-1].plain_psnr_db < 22
    card = tomllib.loads((tmp_path / "out" / "card.toml").read_text())
    assert card["validation"]["pictures"] == 1, "of two, one is damaged"


def test_losses_are_added_and_weighed_by_name():
    scaled = RECIPE.scaled(losses=parsed_losses(["colour=2", "l1=0.5"]), without=("ssim",))
    assert [stage.losses for stage in scaled.stages] == [
        {"l1": 0.5, "colour": 2.0},
        {"l2": 1.0, "colour": 2.0, "l1": 0.5},
    ]
    with pytest.raises(UserError) as caught:
        parsed_losses(["lpips=1", "l1=much", "ssim", "l2=-1"])
    said = str(caught.value)
    assert "no loss lpips that needs no network; there are l1, l2" in said
    assert all(f"--loss {wrong}: expected NAME=WEIGHT" in said for wrong in ("l1=much", "ssim", "l2=-1"))


def test_the_loss_of_colours_sees_tints_and_grids_but_hardly_noise():
    gray = torch.full((2, 3, 64, 64), 0.5)
    noise = torch.randn(gray.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    grid = torch.zeros_like(gray)
    grid[..., ::2, ::2], grid[..., 1::2, ::2] = 0.02, -0.02
    assert float(colour_loss(gray + 0.02, gray)) == pytest.approx(0.02)
    assert float(colour_loss(gray + grid, gray)) == pytest.approx(0.01), "two of four places are off, their mean is not"
    assert float(colour_loss(gray + noise, gray)) < 0.002
    assert float(colour_loss(gray[..., :6, :6] + 0.1, gray[..., :6, :6])) == pytest.approx(0.1), "smaller than a block"


def test_samples_do_not_depend_on_workers_or_where_a_run_began(clean):
    paths = clean_images(clean, 24)
    stage = RECIPE.stages[0]
    alone = list(batches([Pool(paths, RECIPE.degradation)], stage, 0, range(6), seed=1, workers=0, group=Group()))
    helped = list(batches([Pool(paths, RECIPE.degradation)], stage, 0, range(2, 6), seed=1, workers=2, group=Group()))
    for (lq, gt), (lq2, gt2) in zip(alone[2:], helped, strict=True):
        assert torch.equal(lq, lq2)
        assert torch.equal(gt, gt2)
    assert not torch.equal(alone[0][0], alone[1][0])


def test_pairs_are_crops_of_the_pictures_and_their_degraded_selves(clean):
    paths = clean_images(clean, 24)
    none = SrgbDegradation(blur_probability=0, noise_probability=0, jpeg_probability=0)
    lq, gt = Pairs([Pool(paths, none)], 24, seed=0)[3]
    assert torch.equal(lq, gt)
    assert gt.shape == (3, 24, 24)
    mosaic, camera = Pairs([Pool(paths, RawDegradation())], 24, seed=0)[3]
    assert (mosaic.shape, camera.shape) == ((1, 24, 24), (3, 24, 24))


def test_the_same_pictures_are_held_out_whatever_else_is_there(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(50)]
    training, held = hold_out(paths, 5)
    assert len(held) == 5
    assert not set(training) & set(held)
    assert set(held) & set(paths[:40]) <= set(hold_out(paths[:40], 5)[1])


def test_unusable_pictures_are_all_listed(clean, tmp_path):
    (clean / "text.png").write_text("no")
    write_png(clean / "tiny.png", scene(10, 10))
    with pytest.raises(UserError, match="(?s)2 of 8 pictures cannot be used.*text.png.*tiny.png.*10 x 10 < 24"):
        clean_images(clean, 24)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected pictures"):
        clean_images(tmp_path / "empty", 24)
    with pytest.raises(UserError, match="expected a folder"):
        clean_images(tmp_path / "none", 24)


def test_a_loss_that_explodes_stops_the_run_and_says_so(clean, tmp_path):
    wild = RECIPE.scaled(lr=1e30)
    with pytest.raises(UserError, match="the loss is (nan|inf)"):
        trained(clean, tmp_path / "out", recipe=wild)


@pytest.fixture
def paired(tmp_path):
    """Six pairs in gt and LQ, one of them in a folder below; the damaged ones are a third darker and JPEGs."""
    for number in range(6):
        name, pixels = ("below/5" if number == 5 else str(number)), scene(48, 64, seed=number)
        write_png(tmp_path / "pairs" / "gt" / f"{name}.png", pixels)
        dark = tmp_path / "pairs" / "LQ" / f"{name}.webp"
        dark.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 0.67).astype("uint8")).save(dark, lossless=True)
    return tmp_path / "pairs"


def test_pairs_are_the_same_crop_of_both_pictures(paired):
    found = paired_images(paired, 24)
    assert [gt.relative_to(paired / "gt").as_posix() for gt, _ in found] == [
        *(f"{n}.png" for n in range(5)),
        "below/5.png",
    ]
    pairs = Pairs([Pool(found, None)], 24, seed=0)
    for number in range(8):
        lq, gt = pairs[number]
        assert torch.allclose(lq, gt * 0.67, atol=1 / 255)
    assert torch.equal(pairs[3][0], Pairs([Pool(found, None)], 24, seed=0)[3][0])


def test_unusable_pairs_are_all_listed(paired):
    (paired / "gt" / "0.png").rename(paired / "gt" / "zero.png")
    write_png(paired / "gt" / "1.png", scene(40, 64))
    write_png(paired / "gt" / "2.png", scene(10, 64))
    with pytest.raises(UserError) as caught:
        paired_images(paired, 24)
    message = str(caught.value)
    assert message.startswith("4 of 12 pictures")
    for part in ("zero.png: has no picture of that name in lq", "0.webp: has no picture of that name in gt"):
        assert part in message
    assert "1.webp: not of the size of its clean picture: 40 x 64 and 48 x 64" in message
    assert "2.png: smaller than the training patch, 10 x 64 < 24" in message
    with pytest.raises(UserError, match="expected paired pictures in its folders gt and lq, found no gt"):
        paired_images(paired / "gt", 24)


def test_a_stage_learns_from_its_pairs_and_goes_on_only_with_the_same(clean, paired, tmp_path):
    recipe = RECIPE.with_folders({"second": paired}).scaled(iterations=12)
    steps = trained(clean, tmp_path / "out", recipe=recipe, validate_every=1)
    dark = [step.plain_psnr_db for step in steps if step.stage == "second"]
    assert {step.plain_psnr_db for step in steps if step.stage == "first"} != set(dark)
    expected = [
        psnr(lq, gt) for lq, gt in validation_pairs([Pool(hold_out(paired_images(paired, 24), 2)[1], None)], 1, 0)
    ]
    assert dark[0] == pytest.approx(sum(expected) / 2)
    card = tomllib.loads((tmp_path / "out" / "card.toml").read_text())
    assert [stage["parts"][0].get("pairs") for stage in card["training"]["stages"]] == [None, "pairs"]
    with pytest.raises(UserError, match="other settings.*pairs"):
        trained(
            clean,
            tmp_path / "out",
            recipe=RECIPE.with_folders({"second": paired / "gt" / ".."})
            .with_folders({"first": paired})
            .scaled(iterations=12),
        )


def test_damage_that_cannot_be_made_asks_for_all_its_pairs_at_once(clean, paired, tmp_path):
    needy = replace(RECIPE, stages=tuple(replace(stage, paired=True) for stage in RECIPE.stages))
    with pytest.raises(UserError, match="first, second cannot be made.*--pairs first=DIR --pairs second=DIR.*--stage"):
        trained(clean, tmp_path / "out", recipe=needy)
    with pytest.raises(UserError, match="has no stage snowy; it has: first, second"):
        RECIPE.with_folders({"snowy": paired})


def test_a_stage_that_learns_nothing_keeps_its_rate_of_zero():
    looking = replace(RECIPE, stages=(replace(RECIPE.stages[0], lr=0.0, lr_end=0.0), RECIPE.stages[1]))
    assert [(stage.lr, stage.lr_end) for stage in looking.scaled(lr=1e-2).stages] == [
        (0.0, 0.0),
        (1e-2, pytest.approx(1e-3)),
    ]


def test_a_method_draws_the_same_again_after_a_stop(clean, tmp_path):
    class Drawing(Small):
        def __init__(self):
            super().__init__()
            self.drawn = []

        def begin_step(self, lq, gt, rng):
            assert (lq.shape, gt.shape) == ((2, 3, 24, 24),) * 2
            self.drawn.append(float(torch.rand((), generator=rng)))

        def memory(self):
            return {"drawn": torch.tensor(self.drawn)}

        def remember(self, memory):
            self.drawn = memory["drawn"].tolist()

    def run(out, stop_after=None):
        method = Drawing()

        def report(step):
            if step.iteration == stop_after:
                raise KeyboardInterrupt

        train(
            method,
            RECIPE.scaled(stages=("first",), iterations=6),
            Settings(data=clean, out=out, held_out=2, save_every=2),
            report,
        )
        return method.drawn

    whole = run(tmp_path / "whole")
    assert len(set(whole)) == 6
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_after=5)
    assert run(tmp_path / "stopped") == pytest.approx(whole)


def test_a_recipe_is_scaled_to_a_budget():
    scaled = RECIPE.scaled(iterations=8, batch=5, patch=16)
    assert [(stage.iterations, stage.batch, stage.patch) for stage in scaled.stages] == [(6, 5, 16), (2, 5, 16)]
    only = RECIPE.scaled(stages=("second",), lr=1e-2)
    assert [(stage.name, stage.lr) for stage in only.stages] == [("second", 1e-2)]
    assert only.stages[0].lr_end == pytest.approx(1e-3)
    with pytest.raises(UserError, match="no stage third; it has: first, second"):
        RECIPE.scaled(stages=("third",))


def test_the_learning_rate_is_half_a_cosine():
    stage = Stage("x", 101, 8, 1, lr=1.0, lr_end=0.0, losses={"l1": 1.0})
    assert [stage.lr_at(step) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


def test_the_ssim_loss_is_one_minus_what_scikit_image_measures():
    gt = as_image(scene(40, 50))
    noisy = gaussian_noise(gt, 10, torch.Generator().manual_seed(0)).clamp(0, 1)
    expected = structural_similarity(
        noisy.permute(1, 2, 0).double().numpy(), gt.permute(1, 2, 0).double().numpy(), channel_axis=2, data_range=1,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert float(ssim_loss(noisy[None].double(), gt[None].double())) == pytest.approx(1 - expected, abs=1e-6)
    assert float(ssim_loss(gt[None], gt[None])) == pytest.approx(0, abs=1e-6)


def test_psnr_of_a_known_error():
    gt = torch.full((3, 8, 8), 0.5)
    assert psnr(gt + 0.1, gt) == pytest.approx(20, abs=1e-4)
    assert psnr(gt, gt) == float("inf")


def test_the_scaled_fft_loss_is_the_mean_difference_of_real_and_imaginary_parts():
    found = scaled_fft_loss(torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4))
    assert float(found) == pytest.approx(0.5 / (4 * 3 * 2))
    wave = torch.sin(torch.arange(8) * 2 * math.pi / 8)[None, None, None].expand(1, 1, 8, 8)
    assert float(scaled_fft_loss(wave, torch.zeros(1, 1, 8, 8))) == pytest.approx(0.5 / (8 * 5 * 2), rel=1e-5)


def test_the_fft_loss_weighs_a_flat_error_alike_in_patches_of_any_size():
    for side in (8, 16):  # the whole error is one coefficient of side x side x 0.5 among as many complex numbers
        assert float(fft_loss(torch.full((1, 1, side, side), 0.5), torch.zeros(1, 1, side, side))) == pytest.approx(
            0.25
        )


def test_the_psnr_loss_is_what_the_scorer_measures():
    restored, gt = torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)
    assert float(psnr_loss(restored, gt)) == pytest.approx(-psnr(restored[0], gt[0]), abs=1e-4)


def test_the_discriminator_has_the_published_size_and_learns_to_tell():
    assert sum(parameter.numel() for parameter in UNetDiscriminator().parameters()) == 4_376_897
    torch.manual_seed(0)
    judge = UNetDiscriminator(8)
    optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3)
    gt, made = torch.rand(2, 3, 20, 24) * 0.2 + 0.7, torch.rand(2, 3, 20, 24) * 0.2
    assert judge(gt).shape == (2, 1, 20, 24)
    before = judge.own(judge, made, gt).item()
    assert before == pytest.approx(2 * math.log(2), rel=0.2)
    for _ in range(40):
        optimizer.zero_grad()
        judge.own(judge, made, gt).backward()
        optimizer.step()
    assert judge.own(judge, made, gt).item() < 0.2 * before
    assert judge.against(judge, gt).item() < 0.2 < 2 < judge.against(judge, made).item()


def gan_recipe():
    return replace(
        RECIPE, stages=(Stage("gan", 12, patch=24, batch=2, lr=1e-3, lr_end=1e-3, losses={"l1": 1.0, "gan": 0.1}),)
    )


def gan_trained(clean, out, stop_after=None):
    torch.manual_seed(0)
    aids = Aids(opponents={"gan": UNetDiscriminator(8)})
    before = {name: value.clone() for name, value in aids.opponents["gan"].state_dict().items()}

    def report(step):
        if step.iteration == stop_after:
            raise KeyboardInterrupt

    settings = Settings(data=clean, out=out, held_out=2, save_every=5)
    train(Small(), gan_recipe(), settings, report, aids)
    after = aids.opponents["gan"].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before), "the discriminator learns too"


def test_a_gan_goes_on_with_its_discriminator_to_the_very_weights(clean, tmp_path):
    gan_trained(clean, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        gan_trained(clean, tmp_path / "stopped", stop_after=8)
    gan_trained(clean, tmp_path / "stopped")
    whole, stopped = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_student_comes_nearer_to_its_teacher(clean, tmp_path):
    class Darker(nn.Module):
        def forward(self, lq):
            return lq * 0.5

    teacher = Darker()
    losses = {"distill": 1.0}
    recipe = replace(RECIPE, stages=(Stage("s", 60, patch=24, batch=2, lr=2e-2, lr_end=1e-3, losses=losses),))
    steps = []
    torch.manual_seed(0)
    settings = Settings(data=clean, out=tmp_path / "out", held_out=2)
    train(Small(), recipe, settings, steps.append, Aids(teacher=teacher))
    assert steps[-1].loss < 0.4 * steps[0].loss


def test_the_perceptual_loss_compares_features_before_their_activation_and_passes_gradients():
    torch.manual_seed(0)
    loss = PerceptualLoss()
    gt = torch.rand(1, 3, 32, 32)
    assert float(loss(gt, gt)) == 0
    restored = (gt + 0.1).requires_grad_()
    value = loss(restored, gt)
    value.backward()
    assert float(restored.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    first = loss.features[:3]
    with torch.no_grad():
        a, b = (first((x - loss.mean) / loss.deviation) for x in (restored, gt))
    monkey = {2: 1.0}
    with mock.patch("ntire.training.perceptual.LAYERS", monkey):
        assert loss(restored, gt).item() == pytest.approx(float((a - b).abs().mean()), rel=1e-5)


def test_perceptual_weights_are_torchvision_s_and_missing_ones_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="vgg19-dcbb9e9d.pth"):
        perceptual_loss()
    features = PerceptualLoss().features.state_dict()
    path = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    path.parent.mkdir(parents=True)
    torch.save(
        {f"features.{name}": value for name, value in features.items()} | {"classifier.0.bias": torch.ones(1)}, path
    )
    loaded = perceptual_loss().features.state_dict()
    assert all(torch.equal(loaded[name], features[name]) for name in features)


def test_losses_can_be_left_out_but_not_all_and_not_unknown_ones():
    assert [dict(stage.losses) for stage in RECIPE.scaled(without=("ssim",)).stages] == [{"l1": 1.0}, {"l2": 1.0}]
    with pytest.raises(UserError, match="no loss gan; it has: l1, l2, ssim"):
        RECIPE.scaled(without=("gan",))
    with pytest.raises(UserError, match="stage first has no loss without l1"):
        RECIPE.scaled(without=("l1",))


def test_a_loss_whose_network_was_not_given_stops_the_training(clean, tmp_path):
    with pytest.raises(ValueError, match="loss gan"):
        train(Small(), gan_recipe(), Settings(data=clean, out=tmp_path / "out", held_out=2), lambda step: None)


def test_two_processes_share_every_batch(clean):
    stage, pools = replace(RECIPE.stages[0], batch=6), [Pool(clean_images(clean, 24), RECIPE.degradation)]
    whole = [lq for lq, _ in batches(pools, stage, 5, range(3), 1, 0, Group())]
    halves = [[lq for lq, _ in batches(pools, stage, 5, range(3), 1, 0, Group(rank, 2))] for rank in (0, 1)]
    for together, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(together, torch.cat([first, second]))


def test_two_processes_train_to_the_weights_of_one(clean, tmp_path):
    words = ["-m", "ntire", "train", "--team", "MiAlgo", "--track", "srgb", "--data", clean, "--stage", "l2"]
    words += ["--pictures", f"portraits={clean}", "--lr", 1e-3]
    scaled = ["--iterations", 12, "--batch", 2, "--patch", 32, "--held-out", 1, "--device", "cpu"]
    found = []
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launcher, *words, *scaled, "-o", tmp_path / str(processes)]
        ran = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stderr
        state = load_file(tmp_path / str(processes) / "weights.safetensors")
        found.append(torch.cat([state[name].flatten() for name in sorted(state)]))
    torch.manual_seed(0)
    state = catalogue.find("MiAlgo", "srgb")().state_dict()
    start = torch.cat([state[name].flatten() for name in sorted(state)])
    one, two = found
    assert float((one - start).norm()) > 0.05
    assert float((two - one).norm()) < 0.02 * float((one - start).norm())


def test_a_batch_that_cannot_be_shared_out_is_refused(clean):
    stage = replace(RECIPE.stages[0], batch=3)
    with pytest.raises(UserError, match="a batch of 3 cannot be shared out to 2 processes"):
        next(iter(batches([Pool(clean_images(clean, 24), RECIPE.degradation)], stage, 0, range(2), 0, 0, Group(0, 2))))


def test_half_precision_training_keeps_its_scale_across_a_stop(clean, tmp_path):
    trained(clean, tmp_path / "out", recipe=RECIPE.scaled(iterations=8), precision="fp16")
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert saved["scaler"]["scale"] > 0


def test_the_rate_rises_evenly_and_falls_along_a_cosine():
    stage = Stage("s", 110, patch=24, batch=1, lr=1.0, lr_end=0.0, losses={"l1": 1.0}, warmup=10)
    assert [stage.lr_at(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert stage.lr_at(109) == pytest.approx(0)
    assert stage.lr_at(59) == pytest.approx(0.5, abs=0.02)
    assert replace(RECIPE, stages=(stage,)).scaled(iterations=55).stages[0].warmup == 5


def test_curves_are_those_of_pytorch_s_schedulers():
    weight = nn.Parameter(torch.zeros(()))

    def rates(make, count=40):
        optimizer = torch.optim.SGD([weight], lr=1e-2)
        scheduler, found = make(optimizer), []
        for _ in range(count):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    def ours(curve, lr_end, count=40):
        stage = Stage("s", count, patch=8, batch=1, lr=1e-2, lr_end=lr_end, losses={"l1": 1.0}, curve=curve)
        return [stage.lr_at(step) for step in range(count)]

    lr = torch.optim.lr_scheduler
    milestones = rates(lambda optimizer: lr.MultiStepLR(optimizer, [20, 30], gamma=0.1))
    assert ours(Steps((0.5, 0.75)), 1e-4) == pytest.approx(milestones)
    assert ours(even_steps(4), 1e-2 / 8) == pytest.approx(rates(lambda optimizer: lr.StepLR(optimizer, 10, gamma=0.5)))
    assert ours(Constant(), 0.0) == rates(lambda optimizer: lr.ConstantLR(optimizer, factor=1.0))
    restarted = rates(lambda optimizer: lr.CosineAnnealingWarmRestarts(optimizer, 20, eta_min=1e-4), 41)
    assert ours(Cosine(cycles=2), 1e-4, 41)[:40] == pytest.approx(restarted[:40], rel=1e-6)
    with pytest.raises(ValueError, match="ascending order"):
        Steps((0.5, 0.2))


def test_adam_is_adam_and_without_an_average_the_weights_themselves_are_saved(clean, tmp_path):
    """Adam's first step moves every weight with a gradient by the rate; decoupled decay would move it further."""
    stage = Stage("s", 1, patch=24, batch=2, lr=1e-2, lr_end=1e-2, losses={"l1": 1.0})
    trained(clean, tmp_path / "out", recipe=replace(RECIPE, stages=(stage,), optimiser="adam", ema=0.0))
    torch.manual_seed(0)
    start, end = Small().state_dict(), load_file(tmp_path / "out" / "weights.safetensors")
    moved = torch.cat([(end[name] - start[name]).abs().flatten() for name in end])
    assert float(moved[moved > 0].median()) == pytest.approx(1e-2, rel=1e-3)


def test_a_stage_draws_from_its_parts_by_share_fresh_noise_beside_pairs(clean, paired, tmp_path):
    stage = Stage(
        "mixed", 8, patch=24, batch=2, lr=1e-3, lr_end=1e-3, losses={"l1": 1.0},
        parts=(Part("dark", share=0.25), Part("noisy", RECIPE.degradation, share=0.75)),
    )  # fmt: skip
    recipe = replace(RECIPE, stages=(stage,))
    with pytest.raises(UserError, match="dark cannot be made.*--pairs dark=DIR"):
        trained(clean, tmp_path / "out", recipe=recipe)
    given = recipe.with_folders({"dark": paired})
    pools, held = pools_of(given, clean, 2)[0]
    pairs = Pairs(pools, 24, seed=0)
    dark = [torch.allclose(lq, gt * 0.67, atol=1 / 255) for lq, gt in (pairs[number] for number in range(200))]
    assert 0.15 < sum(dark) / 200 < 0.35
    assert [len(pool.pictures) for pool in held] == [2, 2]
    trained(clean, tmp_path / "whole", recipe=given)
    with pytest.raises(KeyboardInterrupt):
        trained(clean, tmp_path / "stopped", recipe=given, stop_after=7, save_every=5)
    trained(clean, tmp_path / "stopped", recipe=given, save_every=5)
    whole, stopped = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_part_is_drawn_as_often_as_its_pictures_times_its_repeats(clean, paired):
    parts = (Part("dark", repeats=3), Part("noisy", RECIPE.degradation))
    recipe = replace(RECIPE, stages=(replace(RECIPE.stages[0], parts=parts),)).with_folders({"first/dark": paired})
    pools, _ = pools_of(recipe, clean, 2)[0]
    assert [pool.weight for pool in pools] == [12, 4]


def test_a_part_of_its_own_kind_asks_for_its_pictures(clean, tmp_path):
    for number in range(4):
        write_png(tmp_path / "faces" / f"{number}.png", scene(48, 48, seed=20 + number))
    parts = (Part("portraits", RECIPE.degradation, share=0.8, own=True), Part("scenes", RECIPE.degradation, share=0.2))
    recipe = replace(RECIPE, stages=(replace(RECIPE.stages[0], parts=parts),))
    with pytest.raises(UserError, match="portraits needs pictures of its own kind.*--pictures portraits=DIR"):
        pools_of(recipe, clean, 1)
    pools, _ = pools_of(recipe.with_folders({}, {"portraits": tmp_path / "faces"}), clean, 1)[0]
    assert {path.parent.name for path in pools[0].pictures} == {"faces"}
    assert {path.parent.name for path in pools[1].pictures} == {"clean"}


def test_shares_of_parts_add_up_to_one():
    with pytest.raises(ValueError, match="shares of its parts do not add up"):
        replace(RECIPE.stages[0], parts=(Part("a", share=0.5), Part("b", share=0.4)))


def test_targets_may_be_sharpened_and_inputs_stay(clean):
    pool = [Pool(clean_images(clean, 24), RECIPE.degradation)]
    (lq, gt), (lq2, sharp) = Pairs(pool, 24, 0)[5], Pairs(pool, 24, 0, sharpened=0.5)[5]
    assert torch.equal(lq, lq2)
    assert float(sharp.std()) > float(gt.std())


def test_pictures_are_turned_by_quarters_only_where_the_recipe_says_so(tmp_path):
    ramp = np.tile(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 1, 3))
    write_png(tmp_path / "ramp.png", ramp)
    pool = [Pool([tmp_path / "ramp.png"], SrgbDegradation(0, noise_probability=0, jpeg_probability=0))]
    for turns in (False, True):
        samples = [Pairs(pool, 24, 0, turns=turns)[number][1] for number in range(20)]
        across = [bool((gt[:, 0] == gt[:, -1]).all()) for gt in samples]
        assert all(across) != turns
        assert len({float(gt[0, 0, 0] - gt[0, -1, -1]) > 0 for gt in samples}) == 2


class Inheriting(Small):
    """Its second stage begins with the bias of the first layer set to 7."""

    def enter_stage(self, name):
        if name == "second":
            with torch.no_grad():
                self.net[0].bias.fill_(7.0)


def test_a_stage_is_entered_once_also_when_a_run_goes_on_inside_it(clean, tmp_path):
    found = {}
    for name, stop in (("whole", None), ("stopped", 36)):
        for stop_after in (stop, None) if stop else (None,):
            torch.manual_seed(0)

            def report(step, stop_after=stop_after):
                if step.iteration == stop_after:
                    raise KeyboardInterrupt

            settings = Settings(data=clean, out=tmp_path / name, held_out=2, save_every=7)
            with contextlib.suppress(KeyboardInterrupt):
                train(Inheriting(), RECIPE, settings, report)
        found[name] = load_file(tmp_path / name / "weights.safetensors")
    assert float(found["whole"]["net.0.bias"].min()) > 6.9
    assert all(torch.equal(found["whole"][key], found["stopped"][key]) for key in found["whole"])
