"""The twelve RAIM recipes hold what the supplement of the report states in numbers."""

import pytest
import torch

from ntire.method import catalogue
from ntire.training import Constant, Steps


def recipe(team, track, variant=""):
    return catalogue.find(team, track, variant).recipe


def lengths(found):
    return [(stage.iterations, stage.patch) for stage in found.stages]


def test_mialgo_raw_trains_by_the_losses_of_the_report():
    stages = {stage.name: stage for stage in recipe("MiAlgo", "raw", "phase2").stages}
    assert [(stage.iterations, stage.patch) for stage in stages.values()][:2] == [(300_000, 256), (100_000, 512)]
    assert stages["quality"].losses == {"l2": 1.0, "perceptual": 0.1, "lpips": 0.1, "ssim": 0.1}
    assert stages["texture"].losses == {"l2": 1.0, "perceptual": 0.1, "gan": 0.01, "lpips": 4.0}
    assert stages["texture"].lr == stages["texture"].lr_at(99_999) == 1e-5
    assert recipe("MiAlgo", "raw", "phase3").stages[1].losses == stages["quality"].losses
    assert recipe("MiAlgo", "raw", "phase3").degradation.shrinking != (1.0, 1.0)


def test_mialgo_s_second_network_begins_as_the_first_and_changes_nothing_at_first():
    torch.manual_seed(0)
    method = catalogue.find("MiAlgo", "raw", "phase2")(width=8).eval()
    lq = torch.rand(1, 1, 32, 32)
    method.begin_stage("l1")
    alone = method(lq)
    method.begin_stage("texture")
    method.enter_stage("texture")
    assert torch.allclose(method(lq), alone)
    assert torch.equal(method.refine.latent[0].attn.project_out.weight, method.joint.latent[0].attn.project_out.weight)
    first, joint = method.refine.patch_embed.proj.weight, method.joint.patch_embed.proj.weight
    assert torch.equal(first[:, 1], joint[:, 1] + joint[:, 2])
    assert not any(parameter.requires_grad for parameter in method.joint.parameters())


def test_mialgo_s_mwrcan_leaves_the_first_stage_s_picture_until_it_has_learnt():
    torch.manual_seed(0)
    method = catalogue.find("MiAlgo", "raw", "phase3-mwrcan")(width=8).eval()
    lq = torch.rand(1, 1, 32, 32)
    assert torch.equal(method(lq), method.joint(lq))


def test_iid_ai_has_adam_and_three_sensor_settings():
    found = recipe("IID-AI", "raw")
    assert found.optimiser == "adam"
    assert lengths(found) == [(70_000, 512), (30_000, 512)]
    assert [stage.lr for stage in found.stages] == [1e-4, 1e-5]
    assert {stage.batch for stage in found.stages} == {2}
    assert found.degradation.iso_levels == (1600, 3200, 6400)


def test_polyu_has_adam_and_a_cosine():
    found = recipe("PolyU-AISP", "raw")
    assert found.optimiser == "adam"
    (stage,) = found.stages
    assert (stage.iterations, stage.patch, stage.lr, stage.lr_end) == (200_000, 256, 1e-3, 1e-7)


@pytest.mark.parametrize(("track", "long"), [("raw", True), ("srgb", False)])
def test_tongji_keeps_its_rate_then_lowers_it(track, long):
    constant, cosine, *rest = recipe("TongJi-IPOE", track).stages
    assert (constant.iterations, cosine.iterations) == (92_000, 208_000)
    assert constant.lr_at(91_999) == constant.lr_at(0) == 1e-4
    assert cosine.lr_at(207_999) == pytest.approx(1e-6)
    assert [(stage.iterations, stage.lr_at(0), stage.lr_at(299_999)) for stage in rest] == [
        (300_000, 1e-5, 1e-5)
    ] * long


def test_njust_raw_has_a_heavy_and_a_light_phase():
    found = recipe("NJUST-KMG", "raw")
    heavy, light = found.stages
    assert (found.degradation.iso, found.degradation.blur_sigma) == ((3200, 9600), (0.6, 1.2))
    assert found.degradation.blur_sides == (3, 5, 7)
    assert found.degradation.channel_gain == (0.8, 1.2)
    assert heavy.degradation is None
    day = {part.name: part for part in light.parts}["day"].degradation
    assert day.blur_probability < found.degradation.blur_probability
    assert day.iso[1] < found.degradation.iso[1]


def test_xianggkl_has_three_steps():
    found = recipe("xianggkl", "raw")
    assert [(stage.iterations, stage.patch, stage.batch) for stage in found.stages] == [
        (60_000, 256, 4),
        (20_000, 256, 2),
        (50_000, 512, 2),
    ]
    assert found.stages[1].degradation.iso[0] > found.degradation.iso[0]


def test_nulltozero_lowers_its_rate_in_steps_and_blurs_or_filters_but_adds_no_noise():
    (stage,) = recipe("NulltoZero", "srgb").stages
    assert isinstance(stage.curve, Steps)
    assert set(stage.losses) == {"l1", "ssim", "lpips", "dists"}
    made = {part.name: part for part in stage.parts}["made"].degradation
    assert (made.blur_probability, made.noise_probability, made.jpeg_probability) == (1.0, 0.0, 0.0)
    assert 0 < made.bilateral_share < 1


def test_teleai_has_its_own_noise_a_batch_of_12_and_ends_on_real_pairs_alone():
    found = recipe("TeleAI-Vision", "srgb", "phase3")
    assert [(stage.iterations, stage.lr, stage.batch, stage.patch) for stage in found.stages] == [
        (330_000, 1e-4, 12, 128),
        (400_000, 1e-4, 12, 128),
        (10_000, 1e-5, 12, 128),
    ]
    assert [stage.paired for stage in found.stages] == [False, False, True]
    for time in (found.degradation.first, found.degradation.second):
        assert (time.gaussian_probability, time.gray_probability) == (0.5, 0.4)
        assert (time.noise_sigma, time.poisson_scale) == ((0.5, 1.0), (0.05, 0.1))
    assert found.degradation.second.blur_probability == 0.8
    for variant in ("phase2", "phase2-teacher"):
        assert all(stage.paired for stage in recipe("TeleAI-Vision", "srgb", variant).stages)


def test_iam_ir_ends_with_all_metrics_then_with_pseudo_targets():
    stages = {stage.name: stage for stage in recipe("iAM-IR", "srgb").stages}
    assert (stages["l1"].iterations, stages["gan"].iterations) == (20_000, 150_000)
    assert stages["gan"].losses == {"l1": 1.0, "perceptual": 1.0, "gan": 0.1}
    assert set(stages["metrics"].losses) == {"psnr", "ssim", "lpips", "dists"}
    assert stages["pseudo"].losses == {"l1": 1.0, "perceptual": 1.5, "gan": 0.2}
    assert stages["metrics"].paired
    assert stages["pseudo"].paired


def test_mialgo_srgb_turns_to_portraits_and_to_sharpened_targets():
    stages = recipe("MiAlgo", "srgb", "phase3").stages
    assert [(stage.iterations, stage.lr) for stage in stages] == [
        (10_000, 1e-5),
        (800_000, 1e-5),
        (40_000, 1e-6),
        (10_000, 1e-7),
    ]
    assert {(stage.patch, stage.batch) for stage in stages} == {(512, 32)}
    assert all(isinstance(stage.curve, Constant) for stage in stages)
    shares = [{part.name: part.share for part in stage.parts}["portraits"] for stage in stages]
    assert shares == [None, None, 0.8, 0.8]
    assert [bool(stage.sharpened) for stage in stages] == [False, False, False, True]
