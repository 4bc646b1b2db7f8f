"""What PISA-MAP's second stage promises: steps that can be undone, a climb along true gradients, measures as published."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ntire import UserError
from ntire.teams.face.pisa_map import PisaMap, _mapped
from ntire.teams.parts import edict
from ntire.teams.parts.edict import climb, denoised, edict_times, mixing, noised
from ntire.teams.parts.ms_liqe import GRADES, MsLiqe
from ntire.teams.parts.nlpd import coarse_distance
from ntire.teams.parts.seesr import ImageSight, SeesrControl, control_names, of_ram
from tests.teams.published import listed_shapes, on_meta, shapes_of

WEIGHT = torch.linspace(-1, 1, 16).view(4, 4, 1, 1)


def noise_in(latent, time):
    """A smooth stand-in for a network."""
    return torch.tanh(F.conv2d(latent, WEIGHT) + time / 1000)


def test_a_step_of_edict_is_undone_exactly():
    pair = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    for number in range(20):
        clean = denoised(pair, lambda x, t: noise_in(x.float(), t).double(), number, 20)
        back = noised(clean, lambda x, t: noise_in(x.float(), t).double(), number, 20)
        assert torch.allclose(back, pair, atol=1e-6)
        pair = clean


def test_a_step_of_edict_is_diffusers_ddim_for_the_latent_that_leads(monkeypatch):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(20)
    assert tuple(scheduler.timesteps.tolist()) == edict_times(20)
    monkeypatch.setattr(edict, "mixing", lambda steps: 1.0)
    pair = torch.randn(2, 4, 3, 5)
    for number, time in enumerate(edict_times(20)):
        first, second = number % 2, (number + 1) % 2
        led = scheduler.step(noise_in(pair[second][None], time), time, pair[first][None]).prev_sample
        leads = scheduler.step(noise_in(led, time), time, pair[second][None]).prev_sample
        pair = denoised(pair, noise_in, number, 20)
        assert torch.allclose(pair[first], led[0], atol=1e-4)
        assert torch.allclose(pair[second], leads[0], atol=1e-4)


def test_the_mixing_is_that_of_the_report():
    assert mixing(50) == 0.93
    assert mixing(20) == pytest.approx(0.834, abs=1e-3)


def brightness(picture):
    return picture.mean() * 100, picture.mean() * 100


def test_the_climb_raises_what_it_is_to_raise_and_stops_when_that_is_enough():
    latent = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    def watched(picture):
        seen.append(float(brightness(picture.detach())[0]))
        return brightness(picture)

    def decode(x):
        return 0.5 + x[:, :3] / 10

    def run(**options):
        seen.clear()
        return climb(latent, noise_in, decode, watched, steps=5, **options)

    made = run(rounds=6)
    firsts = seen[::2]
    assert len(firsts) == 6
    assert firsts == sorted(firsts)
    assert firsts[-1] > firsts[0]
    assert float(brightness(made)[0]) == pytest.approx(firsts[-1])
    stopped = run(rounds=6, enough=firsts[0] - 1)
    assert len(seen) == 2, "good enough at once"
    assert torch.allclose(stopped, decode(latent).clamp(0, 1), atol=1e-3), "there and back again"


def test_the_first_move_is_twice_half_the_gradient_cut_at_a_thousandth():
    latent = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    starts = []

    def counting(x, time):
        if time == edict_times(5)[0] and len(x) == 1:
            starts.append(x.detach())
        return noise_in(x, time)

    climb(latent, counting, lambda x: 0.5 + x[:, :3] / 1000, brightness, steps=5, rounds=2)
    # The last time asked for on the way back, then the first one of each round and again on its way back.
    moved = (starts[-2] - starts[2]).abs().max()
    assert 0 < float(moved) <= 2e-3 + 1e-6


def test_the_distance_is_that_of_the_paper_s_coarsest_band():
    rng = np.random.default_rng(0)
    pictures = rng.random((2, 3, 37, 50))
    taps = np.array([1, 5, 8, 5, 1]) / 20

    def band(plane):
        for _ in range(4):
            padded = np.pad(plane, 2, mode="symmetric")
            blurred = np.apply_along_axis(lambda row: np.convolve(row, taps, "valid"), 1, padded)
            plane = np.apply_along_axis(lambda column: np.convolve(column, taps, "valid"), 0, blurred)[::2, ::2]
        around = np.pad(np.abs(plane), 1)
        return plane / (0.2782 + 0.0717 * around[1:-1, :-2] + 0.2215 * around[1:-1, 2:])

    one, other = (np.stack([band(plane) for plane in picture]) for picture in pictures)
    expected = np.sqrt(np.mean((one - other) ** 2))
    ours = coarse_distance(*(torch.from_numpy(picture)[None] for picture in pictures))
    assert float(ours) == pytest.approx(expected, rel=1e-6)
    assert float(coarse_distance(ours := torch.rand(1, 3, 5, 7), ours)) == 0


@pytest.mark.filterwarnings("ignore")
def test_ms_liqe_grades_as_openai_s_clip_does_over_fifteen_views(tmp_path):
    model = pytest.importorskip("clip.model")
    torch.manual_seed(0)
    ours = MsLiqe(side=32, layers=1).eval().requires_grad_(False)
    theirs = model.CLIP(32, 32, 1, 64, 8, 77, len(ours.words), 64, 1, 1).eval().requires_grad_(False)
    state = theirs.state_dict()
    for name, value in state.items():  # as wide inside as ours is
        if ".mlp.c_fc." in name:
            state[name] = value[:64]
        elif name.endswith(".mlp.c_proj.weight"):
            state[name] = value[:, :64]
    for tower in (theirs.visual.transformer, theirs.transformer):
        mlp = tower.resblocks[0].mlp
        mlp.c_fc, mlp.c_proj = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
    theirs.load_state_dict(state)
    torch.save(state, tmp_path / "MS_LIQE.pt")
    ours.take(tmp_path / "MS_LIQE.pt", "")
    picture = torch.rand(2, 3, 64, 80)
    views = ours._views(picture)
    assert views.shape == (2, 15, 3, 32, 32)
    with torch.no_grad():
        seen = F.normalize(theirs.encode_image(views.flatten(0, 1)), dim=1)
        meant = F.normalize(
            theirs.encode_text(ours.words([f"a photo with {grade} quality" for grade in GRADES])), dim=1
        )
        logits = (theirs.logit_scale.exp() * seen @ meant.T).view(2, 15, 5).mean(1)
        expected = ((logits / 2).softmax(1) * torch.arange(1, 6)).sum(1)
        assert torch.allclose(ours(picture), expected, atol=1e-4)
    torch.save({"strange": torch.ones(1)}, tmp_path / "MS_LIQE.pt")
    with pytest.raises(UserError, match="missing"):
        ours.take(tmp_path / "MS_LIQE.pt", "")


def test_measures_are_mapped_to_a_hundred():
    assert float(_mapped(torch.tensor(2.0), 2.0, 1.0)) == 50
    assert float(_mapped(torch.tensor(3.0), 2.0, 1.0)) == pytest.approx(100 / (1 + np.exp(-1)))


@pytest.fixture(scope="module")
def control():
    torch.manual_seed(1)
    built = SeesrControl(width=32, token=16).eval().requires_grad_(False)
    for part in (built.network.controlnet_down_blocks, built.network.controlnet_mid_block):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(built.network.controlnet_cond_embedding.conv_out.weight, std=0.1)
    return built


def test_seesr_s_control_sees_prompt_picture_and_tokens(control):
    def asked(**other):
        generator = torch.Generator().manual_seed(3)

        def some(*shape):
            return torch.rand(shape, generator=generator)

        given = {
            "latent": some(1, 4, 8, 8),
            "prompt": some(1, 5, 64),
            "image": some(1, 3, 64, 64),
            "tokens": some(1, 7, 16),
        }
        return control(times=torch.tensor([9]), **given | other)

    once = asked()
    assert len(once) == 13
    for name, shape in (
        ("latent", (1, 4, 8, 8)),
        ("prompt", (1, 5, 64)),
        ("image", (1, 3, 64, 64)),
        ("tokens", (1, 7, 16)),
    ):
        assert not torch.allclose(asked(**{name: torch.zeros(shape)})[-1], once[-1], atol=1e-5), name


def test_seesr_s_file_has_its_image_attentions_beside_the_text_s(control, tmp_path):
    published = {}
    for name, value in control.network.state_dict().items():
        before, mark, after = name.partition(".attentions.")
        number, _, rest = after.partition(".")
        kind, _, inner = rest.partition(".")
        kinds = {"text": "attentions", "image": "image_attentions"}
        published[f"{before}.{kinds[kind]}.{number}.{inner}" if mark else name] = value
    assert "down_blocks.0.image_attentions.1.transformer_blocks.0.attn2.to_k.weight" in published
    assert "mid_block.image_attentions.0.proj_in.weight" in published
    torch.save(published, tmp_path / "controlnet.pth")
    other = SeesrControl(width=32, token=16)
    other.take(tmp_path / "controlnet.pth", "")
    assert all(torch.equal(other.state_dict()[name], value) for name, value in control.state_dict().items())


def test_the_sight_is_a_swin_and_reads_ram_s_file_and_dape_s_adapters(tmp_path):
    swin = pytest.importorskip("timm.models.swin_transformer")
    torch.manual_seed(0)
    sight = ImageSight(32, (2, 2), window=4, token=16).eval().requires_grad_(False)
    theirs = swin.SwinTransformer(
        img_size=32, patch_size=4, embed_dim=32, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=0
    ).eval()
    places = ("relative_position_index", "attn_mask")
    own = {
        k.removeprefix("visual_encoder."): v for k, v in sight.state_dict().items() if k.startswith("visual_encoder.")
    }
    named = {
        k.replace("layers.0.downsample", "layers.1.downsample"): v for k, v in own.items() if not k.endswith(places)
    }
    theirs.load_state_dict(named | {k: v for k, v in theirs.state_dict().items() if k.endswith(places)})
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(sight.visual_encoder(picture), theirs.forward_features(picture).flatten(1, 2), atol=1e-4)
    assert sight(picture).shape == (1, 17, 16)

    other = ImageSight(32, (2, 2), window=4, token=16)
    plain = {name: value for name, value in sight.state_dict().items() if not name.endswith("attn_mask")}
    torch.save({"model": plain | {"tagging_head.weight": torch.ones(2)}}, tmp_path / "ram.pth")
    other.take(tmp_path / "ram.pth", "")
    assert torch.equal(other(picture), sight(picture))


def dape(sight):
    """Adapters for a small RAM, all but those of the tagging head's and of the caption writer's that are not used here."""
    adapters = {
        "tagging_head.encoder.layer.0.crossattention.self.key.lora_A": torch.ones(8, 16),
        "text_decoder.bert.encoder.layer.0.attention.self.key.lora_A": torch.ones(8, 16),
    }
    for name, value in sight.state_dict().items():
        if name.endswith(".qkv.weight"):
            layer, width = name.removesuffix(".weight"), value.shape[1]
            adapters |= {f"{layer}.lora_A": torch.randn(16, width), f"{layer}.lora_B": torch.randn(width * 2, 8)}
    return adapters


def test_dape_s_adapters_change_queries_and_values_of_every_block_and_a_file_without_one_is_refused(tmp_path):
    sight = ImageSight(32, (2, 2), window=4, token=16)
    before = {name: value.clone() for name, value in sight.state_dict().items()}
    adapters = dape(sight)
    torch.save(adapters, tmp_path / "DAPE.pth")
    sight.take(tmp_path / "DAPE.pth", "")
    adapted = [name.removesuffix(".lora_B") for name in adapters if name.endswith(".lora_B")]
    assert len(adapted) == 4
    for layer in adapted:
        change = sight.state_dict()[f"{layer}.weight"] - before[f"{layer}.weight"]
        down, up = adapters[f"{layer}.lora_A"], adapters[f"{layer}.lora_B"]
        third = len(change) // 3
        assert torch.allclose(change[:third], up[:third] @ down[:8] / 8, atol=1e-5)
        assert torch.equal(change[third : 2 * third], torch.zeros(third, third)), "keys are not adapted"
        assert torch.allclose(change[2 * third :], up[third:] @ down[8:] / 8, atol=1e-5)
    others = {name for name in before if name.removesuffix(".weight") not in adapted}
    assert all(torch.equal(sight.state_dict()[name], before[name]) for name in others)
    del adapters[f"{adapted[2]}.lora_B"]
    torch.save(adapters, tmp_path / "DAPE.pth")
    with pytest.raises(UserError, match=r"1 difference.*\n.*lora_B: expected \(128, 8\), found None"):
        sight.take(tmp_path / "DAPE.pth", "")


def test_the_published_tensors_are_ours_at_full_size():
    with torch.device("meta"):
        control, sight = SeesrControl().network.state_dict(), ImageSight().state_dict()
    assert shapes_of(control_names(on_meta(listed_shapes("seesr_controlnet")))) == shapes_of(control)
    for table in ("ram", "ram_plus", "dape"):
        assert shapes_of(of_ram(sight, on_meta(listed_shapes(table)), Path(table))) == shapes_of(sight)


def test_every_file_of_pisa_map_has_a_place_that_takes_it():
    tiny = PisaMap(**PisaMap.tiny | {"judged": 1})
    for weights in PisaMap.weights:
        assert hasattr(tiny.get_submodule(weights.into), "take"), weights.file
