"""What every method promises, asked of each one in the catalogue: a method added tomorrow is tested by existing."""

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ntire import UserError, teams
from ntire.method import catalogue
from ntire.method.cost_breakdown import break_down_built
from ntire.method.count import lq_on_meta
from ntire.method.counters import look
from ntire.method.facts import Cost
from ntire.method.receptive_field import reach_of
from ntire.method.recording import facts_from
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import locate
from ntire.picture.image import as_pixels
from ntire.runner.prepare import Options, prepare
from ntire.training.loop import Settings, train
from ntire.training.losses import PIXELS
from tests.made import scene, write_png

METHODS = catalogue.methods()
MOST_TRACED = 700
"""Operators; a trace of thousands takes seconds and shows the same blocks again."""
SEAMS = 0.05
"""Mean difference that tiles may make to a network that sees the whole image, of 1."""
BIBLIOGRAPHY = (Path(next(iter(teams.__path__))) / "references.bib").read_text()


@pytest.fixture(params=METHODS, ids=lambda method: f"{method.track}-{method.team}-{method.variant}".strip("-"))
def method_class(request):
    return request.param


@cache
def built_once(method_class):
    torch.manual_seed(1)
    return method_class(**method_class.tiny).eval().requires_grad_(False)


@pytest.fixture
def tiny(method_class):
    """A small copy with random weights."""
    return copy.deepcopy(built_once(method_class))


@pytest.fixture
def lq_path(method_class, tmp_path):
    """A 45 x 39 picture, or a raw frame of 46 x 38."""
    if method_class.track != "raw":
        return write_png(tmp_path / "picture.png", scene(45, 39))
    np.save(tmp_path / "frame.npy", np.random.default_rng(0).integers(64, 4096, (46, 38), dtype=np.uint16))
    return tmp_path / "frame.npy"


LONG_TO_COUNT = {"MiPortrait", "OSEDiff", "PISA-MAP", "TeleAI-Vision", "UIR-LoRA", "UpHorse"}
"""Take 10 to 30 s each: what is recorded is believed as long as the source is unchanged, unless NTIRE_TEST_RECOUNT is all."""


def test_its_facts_are_complete_and_its_paper_is_cited(method_class):
    assert method_class.track in catalogue.folders()
    assert method_class.__module__.split(".")[3] == catalogue.module_name(method_class.team)
    assert re.search(rf"^@\w+{{{re.escape(method_class.cite)},", BIBLIOGRAPHY, re.MULTILINE)
    assert method_class.__doc__
    for weights in method_class.weights:
        assert weights.license
        assert weights.sha256 or weights.urls or weights.by_hand, "what ships is known to the bit"


def test_what_the_release_knows_of_it_is_counted_and_meets_the_report(method_class):
    """After a change: `ntire teams --record` writes the release's data anew."""
    recorded = catalogue.facts_in_release(method_class)
    assert recorded is not None, "its source has changed since it was recorded: run `ntire teams --record`"
    heavy = method_class.team in LONG_TO_COUNT and os.environ.get("NTIRE_TEST_RECOUNT") != "all"
    found = recorded if heavy else facts_from(method_class, recorded.module)
    assert replace(found, footprints=()) == replace(recorded, footprints=())
    # Versions of PyTorch differ in what they keep in between.
    assert np.allclose(found.footprints, recorded.footprints, rtol=0.1)
    claimed = method_class.claimed
    if claimed is None or claimed.at is None:
        return
    counted = Cost("", params_m=found.counts.claimed_params / 1e6, macs_g=found.counts.claimed_macs / 1e9)
    for figure, within in (("params_m", 0.01), ("macs_g", 0.05)):
        stated = getattr(claimed, figure)
        if stated is None:
            continue
        meets = abs(getattr(counted, figure) - stated) <= max(within * stated, half_a_digit(stated))
        assert meets != (figure in claimed.unmatched), f"{figure}: counted {getattr(counted, figure)}, stated {stated}"
    if claimed.unmatched:
        assert any("%" in caveat for caveat in method_class.caveats), "a caveat says how far off ours are"


def test_three_counters_agree_on_it_and_no_layer_is_missed(tiny):
    tiny.deploy()
    side = max(64, 2 * tiny.stride)
    lq = lq_on_meta(type(tiny), (side, side))
    seen = look(tiny.to("meta"), lq)
    assert +seen.dispatch == +seen.modules
    if seen.operators <= MOST_TRACED:
        assert break_down_built(tiny, lq).problems == []


def half_a_digit(stated):
    """Half a unit of the last digit that is printed: 0.39 stands for all from 0.385 to 0.395."""
    return 0.5 * 10.0 ** Decimal(str(stated)).as_tuple().exponent


def test_it_restores_a_small_odd_picture_the_same_every_time_and_under_every_name(tiny, lq_path):
    restored = tiny.restore(lq_path)
    height, width = (46, 38) if tiny.track == "raw" else (45, 39)
    assert restored.shape == (3, tiny.scale * height, tiny.scale * width)
    assert restored.dtype == torch.float32
    assert bool(torch.isfinite(restored).all())
    assert 0 <= float(restored.min()) <= float(restored.max()) <= 1
    assert torch.equal(tiny.restore(lq_path), restored)
    renamed = lq_path.rename(lq_path.with_stem("another_name"))
    assert torch.equal(tiny.restore(renamed), restored)


def test_tiles_give_the_whole_image_where_it_says_so(tiny):
    if tiny.tiling == "method":
        pytest.skip("its tiles are part of it: see its own test")
    torch.manual_seed(2)
    times = max(8, 256 // tiny.stride) if tiny.tiling == "exact" else max(1, 64 // tiny.stride)
    lq = torch.rand(tiny.lq_channels(), 3 * times * tiny.stride, 2 * times * tiny.stride)
    whole = tiny.in_tiles(lq)
    tiny.tile = times * tiny.stride
    pieces = tiny.in_tiles(lq)
    if tiny.tiling == "exact":
        assert torch.allclose(pieces, whole, atol=1e-5)
    else:
        assert float((pieces - whole).abs().mean()) < SEAMS


def test_its_halo_is_at_least_its_reach(tiny):
    if tiny.tiling == "method":
        pytest.skip("it does its own tiles")
    reach = reach_of(tiny)
    if tiny.tiling == "exact":
        assert reach is not None
        assert reach <= tiny.halo
    else:
        assert reach is None, "a network that is not global should say that it is exact"


def test_half_precision_is_close_to_full(tiny, lq_path):
    full = tiny.restore(lq_path)
    half = tiny.to(torch.bfloat16).restore(lq_path)
    error = float((half - full).square().mean())
    assert error < 10 ** (-tiny.bf16_psnr_db / 10)


def test_its_weights_go_through_a_file_strictly(tiny, method_class, tmp_path):
    if not tiny.state_dict():
        pytest.skip("it has no parameters")
    save_file(tiny.state_dict(), tmp_path / "weights.safetensors")
    other = method_class(**method_class.tiny).eval()
    fill(other, load_file(tmp_path / "weights.safetensors"), tmp_path / "weights.safetensors")
    side = tiny.stride * max(1, 64 // tiny.stride)
    lq = torch.rand(1, tiny.lq_channels(), side, side)
    with torch.no_grad():
        assert torch.equal(other(lq), tiny(lq))


def test_weights_that_ship_are_whole_have_a_card_and_improve_on_the_input(method_class, tmp_path):
    import tomllib

    folder = catalogue.folder_of(method_class)
    shipped = [weights for weights in method_class.weights if locate(weights, folder)[1] == "shipped"]
    if not shipped:
        pytest.skip("no weights ship with it")
    for weights in shipped:
        card = tomllib.loads((folder / "weights" / weights.file).with_suffix(".toml").read_text())
        assert card["sha256"] == weights.sha256
        assert card["provenance"] == weights.provenance == "retrained"
        assert (card["team"], card["track"], card["variant"]) == (
            method_class.team, method_class.track, method_class.variant,
        )  # fmt: skip
        assert card["validation"]["psnr_db"] > card["validation"]["plain_psnr_db"] + 1
        assert card["command"].startswith("ntire train ")
        assert f"--team {method_class.team} " in card["command"]
    prepare(method_class, Options())


def test_it_restores_one_pixel_where_its_input_can_have_one(tiny, tmp_path):
    if tiny.track == "raw":
        np.save(tmp_path / "a.npy", np.full((2, 2), 99, np.uint16))
        assert tiny.restore(tmp_path / "a.npy").shape == (3, 2 * tiny.scale, 2 * tiny.scale)
    else:
        assert tiny.restore(write_png(tmp_path / "a.png", scene(8, 8)[:1, :1])).shape == (3, tiny.scale, tiny.scale)
        as_pixels(tiny.restore(write_png(tmp_path / "b.png", scene(8, 8)[:5, :7])))


@dataclass(frozen=True)
class Always:
    """The same damage to every picture, so that a few steps are enough to see it mended."""

    degradation: Callable

    def __call__(self, gt, rng):
        return self.degradation(gt, torch.Generator().manual_seed(0))


def test_a_few_steps_of_its_recipe_lower_its_loss(method_class, tmp_path):
    recipe = method_class.recipe
    if recipe is None:
        pytest.skip("it has no recipe")
    torch.manual_seed(4)
    method = method_class(**method_class.tiny)
    side = max(32, method.stride)
    for name in ("a", "b"):
        for folder in ("clean", "pairs/gt", "pairs/lq"):
            write_png(tmp_path / folder / f"{name}.png", scene(side, side) // (2 if folder == "pairs/lq" else 1))
    first = next(stage for stage in recipe.stages if stage.losses.keys() & PIXELS.keys())
    lacking = any(part.lacking for part in first.drawn_from(recipe.degradation))
    needing = [loss for loss in recipe.losses if loss not in PIXELS and loss in first.losses]
    scaled = replace(
        recipe, degradation=Always(recipe.degradation), stages=(replace(first, parts=(), degradation=None),)
    )
    scaled = scaled.with_folders({first.name: tmp_path / "pairs"} if lacking and method.track != "raw" else {})
    scaled = scaled.scaled(without=tuple(needing), iterations=24, batch=1, patch=side, lr=3e-3)
    settings = Settings(data=tmp_path / "clean", out=tmp_path / "out", held_out=1)
    steps = []
    train(method, replace(scaled, ema=0.9), settings, steps.append)
    losses = [step.loss for step in steps]
    assert sum(losses[-6:]) < sum(losses[:6]) - 0.1 * abs(sum(losses[:6])), losses


def test_what_its_recipe_adds_to_the_report_is_a_caveat(method_class):
    recipe = method_class.recipe
    if recipe is None:
        pytest.skip("it has no recipe")
    if recipe.ema or recipe.clip_gradient is not None or recipe.turns:
        words = " ".join(method_class.caveats)
        assert "average of the weights" in words
        assert "gradients" in words or recipe.clip_gradient is None
        assert "quarter turns" in words or not recipe.turns


def test_it_takes_gray_and_transparent_pictures_and_frames_of_any_phase_and_size(tiny, tmp_path):
    rng = np.random.default_rng(0)
    if tiny.track != "raw":
        for name, channels in (("gray", ()), ("rgba", (4,))):
            pixels = rng.integers(0, 256, (9, 8, *channels), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{name}.png")
            assert tiny.restore(tmp_path / f"{name}.png").shape == (3, 9 * tiny.scale, 8 * tiny.scale)
        return
    for cfa, size in (("GRBG", (8, 8)), ("GBRG", (11, 14)), ("BGGR", (13, 9))):
        np.save(tmp_path / f"{cfa}.npy", rng.integers(64, 1023, size, dtype=np.uint16))
        (tmp_path / f"{cfa}.toml").write_text(f'cfa = "{cfa}"\nwhite_level = 1023\n')
        restored = tiny.restore(tmp_path / f"{cfa}.npy")
        assert restored.shape == (3, *(tiny.scale * side for side in size))
        assert bool(torch.isfinite(restored).all())


def test_it_refuses_weights_of_another_method_and_half_written_ones(tiny, method_class, tmp_path):
    if not tiny.state_dict():
        pytest.skip("it has no parameters")
    path = tmp_path / "weights.safetensors"
    save_file({"strange.weight": torch.ones(3)}, path)
    with pytest.raises(UserError, match="strange.weight"):
        fill(tiny, read_state_dict(path), path)
    save_file({name: value.contiguous() for name, value in tiny.state_dict().items()}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_state_dict(path)
