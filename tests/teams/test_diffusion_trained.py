"""What diffusion-trained restoration promises: the paper's formulas, computed in another way, and a training that goes on."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from ntire import UserError
from ntire.commands.training import search_steps
from ntire.method import catalogue
from ntire.teams.general.diffusion_trained import (
    GENERATION,
    IMPORTANCE,
    MATCHING,
    PRETRAIN,
    DiffusionTrained,
    DiffusionTrainedExperts,
    DiffusionTrainedNafnet,
    DiffusionTrainedXRestormer,
)
from ntire.teams.general.diffusion_trained.diffusion import (
    SHARES,
    clean_estimate,
    ddpm_step,
    diffuse,
    distances,
    matching_step,
    reverse,
)
from ntire.teams.general.diffusion_trained.experts import EXPERTS, PROMPT, Clock, TimeExperts
from ntire.teams.general.diffusion_trained.regularisers import (
    alignment,
    blocks_of,
    generative_blocks,
    generative_share,
    importance_loss,
    orthogonality,
)
from ntire.training import Part, Recipe, Stage
from ntire.training.loop import Settings, train
from tests.made import scene, write_png


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def steps(number, batch=2):
    return torch.full((batch,), number)


@pytest.fixture
def pair():
    gt = torch.rand(2, 3, 16, 16, generator=rng()) * 2 - 1
    return gt + 0.3 * torch.randn(gt.shape, generator=rng(1)), gt


def blocks(method):
    method.clock.steps = None
    return blocks_of(method.net, method.block, torch.rand(1, 3, 16, 16).to(next(method.parameters())))


def begun(method, stage, batch=4, seed=3, side=8):
    """In training, with a batch given to it."""
    method = method.train()
    method.begin_stage(stage)
    gt = torch.rand(batch, 3, side, side, generator=rng(5)).to(next(method.parameters()))
    method.mixed = 1.0
    method.begin_step((gt + 0.2).clamp(0, 1), gt, rng(seed))
    return method


def test_the_schedule_is_ddpm_s_rescaled_and_noise_50_is_step_6():
    assert (len(SHARES), float(SHARES[0])) == (51, 1.0)
    assert float(SHARES[1]) == pytest.approx(1 - 20 * 1e-4)
    assert float(SHARES[50] / SHARES[49]) == pytest.approx(1 - 20 * 0.02)
    noise = ((1 - SHARES[1:]) / SHARES[1:]).sqrt()
    assert int((noise - 2 * 50 / 255).abs().argmin()) + 1 == 6


def test_a_step_back_with_the_true_noise_is_one_step_less_and_all_of_them_give_the_clean_picture():
    clean, noise = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    noisy = diffuse(clean, noise, steps(30))
    assert float(noisy.var()) == pytest.approx(1, abs=0.3)
    assert torch.allclose(reverse(noisy, noise, steps(30)), diffuse(clean, noise, steps(29)), atol=1e-5)
    assert torch.allclose(clean_estimate(noisy, noise, steps(30)), clean, atol=1e-4)
    for number in range(30, 0, -1):
        noisy = reverse(noisy, noise, steps(number))
    assert torch.allclose(noisy, clean, atol=1e-4)


def test_distances_of_a_predictor_that_sees_no_noise_have_a_closed_form(pair):
    lq, gt = pair
    noise = torch.randn(lq.shape, generator=rng(7))
    for number, found in ((1, 0), (20, 19), (50, 49)):
        share, before = SHARES[number], SHARES[number - 1]
        there_and_back = lq + ((1 - share) / share).sqrt() * noise
        expected = float((there_and_back - gt).square().mean())
        assert float(distances(lambda x, t: 0 * x, lq, gt, "reversal", rng(7))[found]) == pytest.approx(
            expected, rel=1e-4
        )
        diffused = share.sqrt() * lq + (1 - share).sqrt() * noise
        taken = diffused * (1 - (before / share).sqrt())
        expected = float((taken - (lq - gt)).square().mean())
        assert float(distances(lambda x, t: 0 * x, lq, gt, "change", rng(7))[found]) == pytest.approx(
            expected, rel=1e-4
        )


def test_algorithm_2_takes_the_step_of_ddpm(pair):
    """The posterior mean of Ho et al. 2020, equation 7, for a predictor that knows the noise; new noise has variance beta."""
    lq, _ = pair
    noise, fresh = torch.randn(lq.shape, generator=rng(1)), torch.randn(lq.shape, generator=rng(2))
    for number in (2, 20, 50):
        share, before = SHARES[number], SHARES[number - 1]
        kept, beta = share / before, 1 - share / before
        noisy = diffuse(lq, noise, torch.full((len(lq),), number))
        mean = (before.sqrt() * beta * lq + kept.sqrt() * (1 - before) * noisy) / (1 - share)
        found = ddpm_step(noisy, noise, torch.full((len(lq),), number), fresh)
        assert torch.allclose(found, mean + beta.sqrt() * fresh, atol=1e-4)
    last = torch.ones(len(lq), dtype=torch.long)
    assert torch.allclose(ddpm_step(diffuse(lq, noise, last), noise, last, fresh), lq, atol=1e-4)


def test_each_task_of_setting_a_has_a_variant_that_learns_it_alone():
    for kind in ("hazy", "rainy", "snowy", "low-light"):
        recipe = catalogue.find("Diffusion-trained", "general", f"unet-{kind}").recipe
        assert [(stage.name, stage.iterations) for stage in recipe.stages] == [
            ("pretrain", 500_000),
            ("importance", 1_000),
            (kind, 300_000),
        ]
        assert recipe.optimiser == "adam"


def test_the_matching_steps_of_a_network_are_searched_for_on_pairs_by_every_definition(tmp_path, monkeypatch):
    torch.manual_seed(0)
    method = DiffusionTrained(**DiffusionTrained.tiny)
    monkeypatch.setattr("ntire.commands.training.chosen_method", lambda *_, **__: Tiny)
    seen = []

    def matching(predict, lq, gt, rng, definition):
        seen.append((definition, lq, gt, predict(lq, steps(3))))
        return len(seen)

    monkeypatch.setattr("ntire.teams.general.diffusion_trained.matching_step", matching)
    save_file(method.state_dict(), tmp_path / "w.safetensors")
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", scene(32, 32, seed=number))
    settings = Settings(data=tmp_path / "clean", out=tmp_path, held_out=1)
    asked = {"stages": ("noisy",), "count": 2, "patch": 16, "pairs": {}}
    found = search_steps("Diffusion-trained", "general", None, settings, tmp_path / "w.safetensors", **asked)
    assert found == {"noisy": {"reversal": 1, "change": 2, "algorithm-2": 3, "score": 4}}
    _, lq, gt, noise = seen[0]
    assert lq.shape == gt.shape == (2, 3, 16, 16)
    assert 0.2 < float((lq - gt).std()) < 0.5, "noise of 50 of 255 in pictures of [-1, 1]"
    assert torch.equal(noise, method.eval().noise_in(lq, steps(3))), "the network of the file is asked"
    with pytest.raises(UserError, match="needs a network that has learnt to generate"):
        search_steps("Diffusion-trained", "general", None, settings, None, **asked)


class Tiny(DiffusionTrained):
    """The network at the size of tests."""

    def __init__(self):
        super().__init__(**DiffusionTrained.tiny)


def test_the_step_whose_score_makes_up_for_the_damage_matches():
    gt = torch.rand(1, 3, 8, 8)
    for number in (4, 27, 50):
        lq = gt + (1 - SHARES[number]).sqrt()
        assert matching_step(lambda x, t: torch.ones_like(x), lq, gt, rng(), "score") == number


def test_a_perfect_prior_comes_back_to_the_clean_picture_from_every_step(pair):
    lq, gt = pair

    def perfect(x, t):
        share = SHARES[t][:, None, None, None]
        return (x - share.sqrt() * gt) / (1 - share).sqrt()

    assert float(distances(perfect, lq, gt, "reversal", rng()).max()) < 1e-6


def test_experts_are_the_weighted_sum_of_ten_bottlenecks_and_start_without_effect():
    torch.manual_seed(0)
    clock = Clock()
    experts = TimeExperts(12, clock)
    x = torch.randn(3, 12, 5, 4)
    clock.steps = torch.tensor([8])
    assert torch.equal(experts(x), x)
    nn.init.normal_(experts.up.weight)
    shares = experts.gate(torch.cat([clock.prompt(PROMPT, x), x.mean((2, 3))], 1)).softmax(1)
    expected = x.clone()
    for number in range(EXPERTS):
        own = slice(number * 2, number * 2 + 2)
        hidden = F.gelu(F.conv2d(x, experts.down.weight[own], experts.down.bias[own]))
        expected = expected + shares[:, number, None, None, None] * F.conv2d(hidden, experts.up.weight[:, own])
    assert torch.allclose(experts(x), expected, atol=1e-5)
    at_8 = experts(x)
    clock.steps = torch.tensor([50])
    assert not torch.allclose(experts(x), at_8, atol=1e-4), "the step chooses"
    clock.steps = None
    assert bool(torch.isfinite(experts(x)).all()), "without a step the features alone choose"


def test_the_share_of_generation_is_the_paper_s_for_every_damage():
    printed = (0.82, 0.67, 0.55, 0.47, 0.39, 0.33, 0.26, 0.15, 0.10, 0.08)
    assert [round(generative_share(step), 2) for step in MATCHING.values()] == list(printed)
    assert [generative_blocks(step, 10) for step in (4, 8, 50)] == [9, 7, 1]


@pytest.mark.parametrize("method", [DiffusionTrainedExperts, DiffusionTrainedNafnet, DiffusionTrainedXRestormer])
def test_every_weight_has_a_block_in_the_order_in_which_a_picture_meets_them(method):
    built = method(**method.tiny)
    side = 2 * built.stride
    found = blocks_of(built.net, built.block, torch.rand(1, 3, side, side))
    assert set(found.of) == {name for name, _ in built.net.named_parameters()}
    assert found.count == sum(isinstance(module, built.block) for module in built.net.modules())
    assert set(found.last_convs) == set(range(found.count))
    names = list(found.of)
    first, last = names[0], names[-1]
    assert (found.depth(first), found.depth(last)) == (0.0, 1.0)
    assert found.of[found.last_convs[0]] == 0
    deep = [number for name, number in found.of.items() if "decoder" in name or name.startswith("ups")]
    early = [number for name, number in found.of.items() if "encoder" in name or name.startswith("downs")]
    assert max(early) < min(deep)


def test_the_importance_loss_is_the_sum_by_hand_and_its_gradient_that_of_finite_differences():
    weights = {"a": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor([[3.0]], dtype=torch.float64)}
    before = {"a": torch.tensor([0.5, 2.0]), "b": torch.tensor([[5.0]])}
    importance = {"a": torch.tensor([2.0, 9.0]), "b": torch.tensor([[0.25]])}
    shares = {"a": 1.0, "b": 0.5}
    # a: g d = 1, 0 -> 1 + 1; b: g d = -0.5 -> 0.5 x (0.5 + 0.25)
    assert float(importance_loss(weights, before, importance, shares)) == pytest.approx(2 + 0.375)
    weights["a"].requires_grad_()
    importance_loss(weights, before, importance, shares).backward()
    nudge = 1e-6
    up, down = (
        float(
            importance_loss({**weights, "a": weights["a"].detach() + torch.tensor([by, 0])}, before, importance, shares)
        )
        for by in (nudge, -nudge)
    )
    assert float(weights["a"].grad[0]) == pytest.approx((up - down) / (2 * nudge), rel=1e-5) == pytest.approx(2 + 4)


def test_the_orthogonality_loss_is_as_printed_or_as_its_name_says():
    generative, restoring = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [3.0, 3.0]])
    between, within = (float(value) for value in alignment(generative, restoring))
    half = math.sqrt(0.5)
    assert between == pytest.approx((1 + half + 0 + half) / 4)
    assert within == pytest.approx((1 + 1 + 0 + 0 + 1 + 1 + half + half) / 8), (
        "as printed, with each gradient's own cosine"
    )
    assert float(orthogonality(generative, restoring)) == pytest.approx(1 - between + within)
    assert float(orthogonality(generative, restoring, exchanged=True)) == pytest.approx(1 - within + between)
    assert float(orthogonality(generative, -restoring)) == pytest.approx(1 + between + within)
    alone = alignment(generative[:1], restoring[:1])
    assert [float(value) for value in alone] == [1.0, 1.0]


def test_the_orthogonality_loss_has_the_gradient_of_finite_differences_through_the_network():
    method = begun(DiffusionTrained(**DiffusionTrained.tiny).double(), "low-light")
    method.own_loss("orthogonality").backward()
    weight = method.net.downs[0].block1.conv2.weight
    direction = torch.randn(weight.shape, generator=rng(9), dtype=torch.float64)
    slope = float((weight.grad * direction).sum())
    values = []
    for by in (1e-5, -1e-5):
        with torch.no_grad():
            weight += by * direction
        values.append(method.own_loss("orthogonality").item())
        with torch.no_grad():
            weight -= by * direction
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
    assert abs(slope) > 1e-6


@pytest.mark.parametrize(("damage", "share"), [("noisy", 0.82), ("motion-blurry", 0.08)])
def test_only_the_first_blocks_learn_from_generation_the_fewer_the_later_the_step(damage, share):
    method = begun(DiffusionTrainedExperts(**DiffusionTrained.tiny), damage)
    method.own_loss("generation").backward()
    found = blocks(method)
    learning = math.ceil(share * found.count)
    for name, weight in method.net.named_parameters():
        learns = weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        assert learns <= (found.of[name] < learning), name
        if name in found.last_convs.values():
            assert learns == (found.of[name] < learning), name


def test_generation_is_the_squared_error_of_the_noise_in_the_diffused_clean_picture():
    method = begun(DiffusionTrained(**DiffusionTrained.tiny), PRETRAIN)
    restored = method(method._lq)
    noisy = diffuse(2 * method._gt - 1, method._noise, method._steps)
    predicted = method.noise_in(noisy, method._steps)
    assert method.own_loss("generation").item() == pytest.approx(
        (predicted - method._noise).square().mean().item(), rel=1e-5
    )
    assert torch.allclose(restored, (clean_estimate(noisy, predicted, method._steps) + 1) / 2, atol=1e-4)
    later = begun(method, "noisy")
    assert later.own_loss("generation").item() == pytest.approx(
        (method.noise_in(noisy, method._steps) - method._noise).square().mean().item(), rel=1e-5
    )


def test_a_tenth_of_the_batches_generates():
    method = DiffusionTrained(**DiffusionTrained.tiny).train()
    method.begin_stage("noisy")
    image = torch.rand(1, 3, 8, 8)
    found = []
    for seed in range(400):
        method.begin_step(image, image, rng(seed))
        found.append(method._generates)
    assert 20 <= sum(found) <= 60
    assert method.own_loss("generation").item() == 0 or found[-1]


def test_importance_is_the_mean_absolute_gradient_over_the_pass():
    method = DiffusionTrained(**DiffusionTrained.tiny)
    expected = {name: torch.zeros_like(weight) for name, weight in method.net.named_parameters()}
    for seed in (1, 2, 3):
        begun(method, IMPORTANCE, seed=seed)
        method(method._lq)
        loss = method.own_loss("generation")
        for name, gradient in zip(expected, torch.autograd.grad(loss, list(method.net.parameters())), strict=True):
            expected[name] += gradient.abs() / 3
    for name, mean in expected.items():
        assert torch.allclose(method.memory()[f"importance.{name}"], mean, atol=1e-6)


def test_the_hold_is_on_what_the_last_damage_left_and_weakens_with_depth():
    method = begun(DiffusionTrained(**DiffusionTrained.tiny), IMPORTANCE)
    method(method._lq)
    method.own_loss("generation")
    begun(method, "hazy")
    assert method.own_loss("importance").item() == 0
    with torch.no_grad():
        for weight in method.net.parameters():
            weight += 0.1
    memory, found = method.memory(), blocks(method)
    expected = 0.0
    for name in dict(method.net.named_parameters()):
        change = 0.1 * memory[f"importance.{name}"].double()
        share = generative_share(47) ** (found.of[name] / (found.count - 1))
        expected += share * float((change + change.square()).sum())
    assert method.own_loss("importance").item() == pytest.approx(expected, rel=1e-4)
    begun(method, "hazy")
    assert method.own_loss("importance").item() > 0, "another batch of the same damage is held where it began"
    begun(method, "motion-blurry")
    assert method.own_loss("importance").item() == 0, "the next damage is held where this one ended"


def test_without_a_pass_for_importance_its_loss_says_what_to_do():
    method = begun(DiffusionTrained(**DiffusionTrained.tiny), "noisy")
    with pytest.raises(UserError, match="train the stage importance in the same run, or .* --without importance"):
        method.own_loss("importance")


def test_damages_are_learnt_ascending_by_the_step_that_they_match():
    names = [stage.name for stage in DiffusionTrainedExperts.recipe.scaled().stages]
    assert names == [PRETRAIN, IMPORTANCE, *sorted(MATCHING, key=MATCHING.__getitem__)]
    method = DiffusionTrainedExperts(**DiffusionTrained.tiny).eval()
    for module in method.modules():
        if isinstance(module, TimeExperts):
            nn.init.normal_(module.up.weight)
    results = []
    for damage in ("noisy", "hazy"):
        method.begin_stage(damage)
        with torch.no_grad():
            results.append(method(torch.full((1, 3, 8, 8), 0.4)))
    assert not torch.allclose(*results, atol=1e-4)
    assert int(method.state_dict()["step"]) == MATCHING["hazy"], "the step goes with the weights"
    for damage, expected in (("noisy", 0), ("hazy", 1)):
        method.damage = damage
        with torch.no_grad():
            assert torch.equal(method(torch.full((1, 3, 8, 8), 0.4)), results[expected])
    method.damage = "unknown"
    with torch.no_grad():
        unknown = method(torch.full((1, 3, 8, 8), 0.4))
    assert not any(torch.allclose(unknown, result, atol=1e-5) for result in results)
    method.damage = "foggy"
    with pytest.raises(UserError, match="no step matches 'foggy'. There are: noisy, .*, and unknown"):
        method.deploy()


def test_without_a_matching_step_none_is_told_and_all_blocks_generate():
    method = DiffusionTrained(**DiffusionTrained.tiny)
    method.matching = "none"
    begun(method, "hazy")
    assert method._generating() == method._known().count
    method.eval()
    lq = torch.full((1, 3, 8, 8), 0.4)
    with torch.no_grad():
        untold = method(lq)
        method.matching, method.damage = "printed", "unknown"
        assert torch.equal(method(lq), untold)
    for matching, expected in (("printed", 47), ("20", 20)):
        method.matching, method.damage = matching, None
        method.begin_stage("hazy")
        assert int(method.get_buffer("step")) == expected
    for wrong in ("0", "51", "best"):
        method.matching = wrong
        with pytest.raises(UserError, match=f"matching={wrong}: expected printed, none, or a step from 1 to 50"):
            method.begin_stage("hazy")


def test_without_decay_all_blocks_generate_and_the_hold_does_not_weaken():
    method = begun(DiffusionTrained(**DiffusionTrained.tiny), "motion-blurry")
    assert method._generating() < method._known().count
    method.decay = 0.0
    assert method._generating() == method._known().count
    begun(method, IMPORTANCE)
    method(method._lq)
    method.own_loss("generation")
    begun(method, "motion-blurry")
    with torch.no_grad():
        for weight in method.net.parameters():
            weight += 0.1
    memory = method.memory()
    changes = [0.1 * memory[f"importance.{name}"].double() for name, _ in method.net.named_parameters()]
    expected = sum(float((change + change.square()).sum()) for change in changes)
    assert method.own_loss("importance").item() == pytest.approx(expected, rel=1e-4)


def test_together_every_batch_is_of_one_damage_which_the_network_is_told(tmp_path, clean, monkeypatch):
    stage = DiffusionTrainedExperts.recipe.stages[-1]
    assert (stage.name, stage.iterations) == ("together", 1_000_000)
    assert [part.name for part in stage.parts] == list(MATCHING)
    parts = tuple(Part(name, Painted(value)) for name, value in (("noisy", 0.25), ("hazy", 0.5), ("rainy", 0.75)))
    recipe = replace(DiffusionTrainedExperts.recipe, stages=(replace(stage, parts=parts, losses={"l1": 1.0}),))
    recipe = recipe.scaled(stages=("together",), iterations=12, batch=3, patch=8)
    seen = []

    class Watched(DiffusionTrained):
        def begin_step(self, lq, gt, rng):
            super().begin_step(lq, gt, rng)
            seen.append((int(self.get_buffer("step")), {round(float(value), 2) for value in lq.unique()}))

    def run(out, stop_after=None):
        def report(step):
            if step.iteration == stop_after:
                raise KeyboardInterrupt

        train(Watched(**DiffusionTrained.tiny), recipe, Settings(clean, out, held_out=1, save_every=4), report)

    run(tmp_path / "whole")
    told = {MATCHING["noisy"]: {0.25}, MATCHING["hazy"]: {0.5}, MATCHING["rainy"]: {0.75}}
    assert all(told[step] == values for step, values in seen), "one damage a batch, and that one is told"
    assert len({step for step, _ in seen}) == 3
    whole = list(seen)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_after=4)
    run(tmp_path / "stopped")
    assert seen == whole, "a run that goes on draws the same"


class Painted:
    """Makes every picture one gray."""

    def __init__(self, value):
        self.value = value

    def __call__(self, gt, rng):
        return torch.full_like(gt, self.value), gt


SHORT = replace(
    DiffusionTrained.recipe,
    stages=(
        *(replace(stage, iterations=2, patch=16, batch=2) for stage in GENERATION),
        *(replace(stage, iterations=2, patch=16, batch=2) for stage in DiffusionTrainedExperts.recipe.stages[2:4]),
    ),
).scaled(lr=1e-3)


def trained(clean, out, recipe: Recipe, stop_after=None):
    torch.manual_seed(0)
    method = DiffusionTrainedExperts(**DiffusionTrained.tiny)
    method.mixed = 0.5
    found = []

    def report(step):
        found.append(step)
        if step.iteration == stop_after:
            raise KeyboardInterrupt

    train(method, recipe, Settings(data=clean, out=out, held_out=1, save_every=2), report)
    return found


@pytest.fixture
def clean(tmp_path):
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", scene(32, 32, seed=number))
    return tmp_path / "clean"


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_run_stopped_in_the_pass_or_after_it_ends_with_the_very_weights(clean, tmp_path, stop_after):
    whole = trained(clean, tmp_path / "whole", SHORT)
    assert [step.stage for step in whole] == [
        name for name in (PRETRAIN, IMPORTANCE, "noisy", "rainy") for _ in range(2)
    ]
    assert {step.lr for step in whole[2:4]} == {0.0}, "a pass that only looks keeps its rate of 0"
    with pytest.raises(KeyboardInterrupt):
        trained(clean, tmp_path / "stopped", SHORT, stop_after)
    trained(clean, tmp_path / "stopped", SHORT)
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_learning_to_generate_finds_the_noise(clean, tmp_path):
    stage: Stage = replace(GENERATION[0], iterations=60, patch=16, batch=2, lr=5e-3)
    found = trained(clean, tmp_path / "out", replace(DiffusionTrained.recipe, stages=(stage,), ema=0.9))
    losses = [step.loss for step in found]
    assert sum(losses[-15:]) < 0.7 * sum(losses[:15])


def test_while_it_learns_to_generate_it_is_validated_by_one_step_from_noise_50(monkeypatch):
    method = DiffusionTrained(**DiffusionTrained.tiny).eval()
    method.begin_stage(PRETRAIN)
    gt = torch.rand(2, 3, 8, 8)
    seen = []

    def true_noise(noisy, at):
        seen.append(at.tolist())
        share = SHARES[at][:, None, None, None]
        return (noisy - share.sqrt() * (2 * gt - 1)) / (1 - share).sqrt()

    monkeypatch.setattr(method, "noise_in", true_noise)
    lq = gt + 50 / 255 * torch.randn(gt.shape)
    assert torch.allclose(method(lq), gt, atol=1e-5)
    assert seen == [[6, 6]]
    assert float(true_noise(SHARES[6].sqrt() * (2 * lq - 1), torch.tensor([6, 6])).std()) == pytest.approx(1, abs=0.15)
