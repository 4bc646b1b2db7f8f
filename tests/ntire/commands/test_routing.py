"""`ntire route`: a router's accuracy on pictures whose damage is known."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
from typer.testing import CliRunner

from ntire import UserError
from ntire.cli import app
from ntire.commands.routing import route
from ntire.method.routing import judged
from ntire.picture.image import read_image
from ntire.teams.general.uir_lora import UirLora
from ntire.teams.parts.degradation_router import BANK, Bank, Router
from tests.made import scene, write_png

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


class Three(UirLora):
    """Three kinds, and a small router."""

    words = ("hazy", "noisy", "rainy")
    router_size = (48, 1)


class Sure:
    """Takes a picture for the word whose number its first value is."""

    words = ("hazy", "noisy", "rainy")

    def probabilities(self, picture):
        return torch.nn.functional.one_hot(picture.flatten()[0].long(), 3) * 0.5 + torch.full((3,), 1 / 6)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("ntire.commands.routing.chosen_method", lambda *_: Three)


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of each of two kinds, in a layout with clean ones beside them."""
    for number, kind in enumerate(("hazy", "noisy")):
        for index in range(2):
            pixels = scene(240, 232, seed=index) // (2 if number else 1)
            write_png(tmp_path / "set" / kind / "LQ" / f"{index}.png", pixels)
            write_png(tmp_path / "set" / kind / "GT" / f"{index}.png", 255 - pixels)
    return tmp_path / "set"


@pytest.fixture
def base(tmp_path, pictures):
    """A folder with a random CLIP whose words for haze and noise are its own views of one picture of each."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=48, intermediate_size=192, num_hidden_layers=1, num_attention_heads=1, projection_dim=32
    )
    clip = tmp_path / "base" / "clip"
    CLIPModel(CLIPConfig(text_config=SMALL, vision_config=vision.to_dict(), projection_dim=32)).save_pretrained(clip)
    router = Router(Three.words, *Three.router_size)
    Bank(Three.words, torch.nn.functional.normalize(torch.randn(3, 32), dim=1)).write(clip / BANK)
    router.fill_from(clip)
    router.correction = "none"
    router.bank = torch.eye(32)  # so that similarities are the embedding itself
    views = [router.similarities(read_image(pictures / kind / "LQ/0.png"))[0] for kind in ("hazy", "noisy")]
    assert not torch.allclose(*views)
    Bank(Three.words, torch.stack([*views, -views[0]])).write(clip / BANK)
    return tmp_path / "base"


def test_accuracy_is_the_share_of_pictures_taken_for_what_they_are():
    asked = [("a", "hazy", 0), ("b", "hazy", 1), ("c", "hazy", 0), ("d", "rainy", 1), ("e", "hazy", 0)]
    found = judged(Sure(), [(name, kind, torch.full((3, 2, 2), float(number))) for name, kind, number in asked])
    assert found.share() == pytest.approx(3 / 5)
    assert found.share("hazy") == pytest.approx(3 / 4)
    assert found.mean == pytest.approx(3 / 8)
    assert found.kinds == ("hazy", "rainy")
    assert found.confusion("hazy") == {"hazy": 3, "noisy": 1}
    assert found.as_json()["kinds"]["rainy"] == {"pictures": 1, "accuracy": 0.0, "taken_for": {"noisy": 1}}
    assert found.as_json()["images"][1]["probability"] == pytest.approx(0.5 + 1 / 6, abs=1e-6)


def test_a_folder_by_kind_gives_a_table_and_leaves_clean_pictures_out(small, pictures, base):
    said = []
    found = route("UIR-LoRA", "general", pictures, weights=base, settings={"correction": "none"}, say=said.append)
    assert [(one.image, one.kind) for one in found.judged] == [
        (f"{kind}/LQ/{index}", kind) for kind in ("hazy", "noisy") for index in range(2)
    ]
    assert found.judged[0].taken_for == "hazy"
    assert found.judged[2].taken_for == "noisy"
    assert [line for line in said if "left out" in line] == [
        f"{kind}: 2 picture(s) outside its folder of inputs, lq, are left out" for kind in ("hazy", "noisy")
    ]
    assert len(route("UIR-LoRA", "general", pictures, weights=base, limit=1).judged) == 2


def test_the_command_prints_the_confusion_and_json(small, pictures, base, monkeypatch):
    words = ["route", "--team", "UIR-LoRA", "--track", "general", str(pictures), "--weights", str(base)]
    said = CliRunner().invoke(app, [*words, "--set", "correction=none", "--json"])
    found = json.loads(said.stdout)
    assert found["settings"] == {"correction": "none"}
    assert found["pictures"] == 4
    right = sum(one["kind"] == one["taken_for"] for one in found["images"])
    assert found["accuracy"] == pytest.approx(right / 4)
    table = CliRunner().invoke(app, [*words, "--set", "correction=none"]).stdout
    assert f"accuracy {right / 4:.1%} of 4 picture(s); mean of 2 kind(s)" in table
    assert "as hazy" in table
    assert "as rainy" not in table
    # All of one kind, as the paper's table 4 has blurry pictures alone.
    all_hazy = CliRunner().invoke(app, [*words, "--kind", "noisy", "--json"])
    assert list(json.loads(all_hazy.stdout)["kinds"]) == ["noisy"]


def test_a_file_of_the_method_s_weights_gives_its_router_alone(small, pictures, base, tmp_path):
    router = Three.router_from(base, {})
    others = {"unet.conv_in.weight": torch.zeros(2), "prompt": torch.zeros(3)}
    named = {f"router.{name}": value.contiguous() for name, value in router.state_dict().items()}
    save_file(named | others, tmp_path / "trained.safetensors")
    asked = {"settings": {"correction": "none"}, "limit": 1}
    found, expected = (
        route("UIR-LoRA", "general", pictures, weights=weights, **asked)
        for weights in (tmp_path / "trained.safetensors", base)
    )
    assert found == expected


def test_what_it_cannot_use_is_told(small, pictures, base, tmp_path):
    write_png(pictures / "foggy" / "0.png", scene())
    write_png(pictures / "0.png", scene())
    with pytest.raises(UserError, match=r"hazy, noisy, rainy.*found some in the folder itself, foggy"):
        route("UIR-LoRA", "general", pictures, weights=base)
    with pytest.raises(UserError, match="--kind foggy: expected one of hazy, noisy, rainy"):
        route("UIR-LoRA", "general", pictures, weights=base, kind="foggy")
    for settings in ({"top": "2"}, {"correction": "median"}):
        with pytest.raises(UserError, match="the router has the setting correction, of mean, maximum, none"):
            route("UIR-LoRA", "general", pictures, weights=base, kind="hazy", settings=settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"found no CLIP there.*--weights") as caught:
        route("UIR-LoRA", "general", pictures, weights=tmp_path / "empty", kind="hazy")
    assert caught.value.exit_code == 3


def test_a_method_without_a_router_says_so(pictures):
    with pytest.raises(UserError, match="Copy on track general has no router"):
        route("Copy", "general", pictures)
