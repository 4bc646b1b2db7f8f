"""What the tagger promises: published names, BERT's layers as PyTorch builds them, descriptions weighted by the picture."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ntire import UserError
from ntire.teams.parts.tagger import LONGEST, RAM_PLUS, RAM_WITH_DAPE, TAGS, Tagger, TagNames, Thresholds
from tests.teams.published import listed_shapes, on_meta, shapes_of


def small(descriptions):
    torch.manual_seed(1)
    return Tagger(descriptions, width=64).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ram_plus():
    return small(descriptions=3)


@pytest.fixture(scope="module")
def ram():
    return small(descriptions=1)


@pytest.fixture
def pictures():
    return torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("table", "descriptions"), [("ram", 1), ("dape", 1), ("ram_plus", 51)])
def test_the_published_tensors_are_ours_at_full_size(table, descriptions):
    with torch.device("meta"):
        full = Tagger(descriptions)
    named = full.named_as_here(on_meta(listed_shapes(table)), Path(table))
    assert shapes_of(named) == shapes_of(full.state_dict())


def published(tagger):
    """Its tensors as its authors keep them."""
    lists = ("names.", "thresholds.")
    return {k.removeprefix("sight."): v for k, v in tagger.state_dict().items() if not k.startswith(lists)}


def test_a_file_of_the_authors_fills_it_and_one_that_lacks_a_tensor_is_refused(ram_plus, pictures, tmp_path):
    state = published(ram_plus)
    assert "visual_encoder.layers.1.blocks.0.attn.qkv.weight" in state
    assert "tagging_head.encoder.layer.1.crossattention.self.key.weight" in state
    left_out = {"text_decoder.cls.predictions.bias": torch.ones(3)}
    torch.save({"model": state | left_out, "optimizer": {"state": {}}, "epoch": 4}, tmp_path / "ram_plus.pth")
    other = Tagger(3, width=64).eval()
    other.take(tmp_path / "ram_plus.pth", "")
    assert torch.equal(other.probabilities(pictures), ram_plus.probabilities(pictures))
    del state["tagging_head.encoder.layer.1.crossattention.self.key.weight"]
    torch.save({"model": state}, tmp_path / "ram_plus.pth")
    with pytest.raises(UserError, match=r"missing tagging_head\.encoder\.layer\.1\.crossattention\.self\.key\.weight"):
        other.take(tmp_path / "ram_plus.pth", "")


def test_tags_look_at_the_picture_as_pytorch_s_attention_does(ram, pictures):
    state = published(ram)
    tokens = ram.sight(pictures)
    x = (
        F.linear(state["label_embed"], state["wordvec_proj.weight"], state["wordvec_proj.bias"])
        .relu()
        .expand(2, -1, -1)
    )
    for number in range(2):
        layer = f"tagging_head.encoder.layer.{number}."
        own = {name.removeprefix(layer): value for name, value in state.items() if name.startswith(layer)}
        attention = nn.MultiheadAttention(64, 4, kdim=32, vdim=32, batch_first=True)
        inner, outer = "crossattention.self", "crossattention.output"
        attention.load_state_dict(
            {f"{one[0]}_proj_weight": own[f"{inner}.{one}.weight"] for one in ("query", "key", "value")}
            | {"in_proj_bias": torch.cat([own[f"{inner}.{one}.bias"] for one in ("query", "key", "value")])}
            | {f"out_proj.{kind}": own[f"{outer}.dense.{kind}"] for kind in ("weight", "bias")}
        )
        attended = attention(x, tokens, tokens, need_weights=False)[0]
        x = F.layer_norm(x + attended, (64,), own[f"{outer}.LayerNorm.weight"], own[f"{outer}.LayerNorm.bias"], 1e-12)
        wide = F.gelu(F.linear(x, own["intermediate.dense.weight"], own["intermediate.dense.bias"]))
        back = F.linear(wide, own["output.dense.weight"], own["output.dense.bias"])
        x = F.layer_norm(x + back, (64,), own["output.LayerNorm.weight"], own["output.LayerNorm.bias"], 1e-12)
    expected = F.linear(x, state["fc.weight"], state["fc.bias"])[..., 0].sigmoid()
    assert torch.allclose(ram.probabilities(pictures), expected, atol=1e-5)


def test_a_tag_means_what_its_descriptions_say_weighted_by_their_likeness_to_the_picture(ram_plus, pictures):
    seen = ram_plus.sight(pictures)[:, 0]
    meanings = ram_plus._meanings(seen)
    described = ram_plus.label_embed.view(16, 3, 32)
    for picture in range(2):
        for tag in range(16):
            likeness = F.cosine_similarity(seen[picture], described[tag], dim=-1) * described[tag].norm(dim=-1)
            shares = (likeness / 0.07).softmax(dim=0)
            expected = (shares[:, None] * described[tag]).sum(0)
            assert torch.allclose(meanings[picture, tag], expected, atol=1e-5)


def test_with_one_description_a_tag_means_the_same_for_every_picture(ram, pictures):
    meanings = ram._meanings(ram.sight(pictures)[:, 0])
    assert torch.equal(meanings[0], ram.label_embed)
    assert torch.equal(meanings[1], ram.label_embed)
    assert not hasattr(ram, "reweight_scale")


def test_a_picture_has_the_tags_that_are_likelier_than_their_own_thresholds_in_the_list_s_order(pictures, tmp_path):
    tagger = small(descriptions=3)
    likely = tagger.probabilities(pictures)
    thresholds = likely[0].clone()
    thresholds[[3, 7]] -= 0.01
    thresholds[12] = likely[:, 12].min() - 0.01
    (tmp_path / "names.txt").write_text("\n".join(f"thing {number}" for number in range(16)))
    (tmp_path / "thresholds.txt").write_text("".join(f"{value:.9f}\n" for value in thresholds.tolist()))
    tagger.names.take(tmp_path / "names.txt", "")
    tagger.thresholds.take(tmp_path / "thresholds.txt", "")
    assert torch.equal(tagger.thresholds.value, thresholds)
    first, second = tagger(pictures)
    assert first == ["thing 3", "thing 7", "thing 12"], "one that is as likely as its threshold is not meant"
    assert "thing 12" in second
    assert tagger(pictures[1:]) == [second], "a picture's tags are its own"


def test_nothing_is_named_before_the_list_is_read_and_names_go_with_the_weights(tmp_path):
    names = TagNames(2)
    assert names.of([0, 1]) == []
    (tmp_path / "names.txt").write_text("crème brûlée\nzoo\n", encoding="utf-8")
    names.take(tmp_path / "names.txt", "")
    other = TagNames(2)
    other.load_state_dict(names.state_dict())
    assert other.of([1, 0]) == ["zoo", "crème brûlée"]


@pytest.mark.parametrize(
    ("part", "content", "complaint"),
    [
        (TagNames, b"one\n", "expected 2 lines, one a tag, found 1"),
        (TagNames, b"one\n\n", "names of 1 to 64 bytes, found ''"),
        (TagNames, b"one\n" + b"x" * (LONGEST + 1), "names of 1 to 64 bytes, found 'xxx"),
        (TagNames, b"one\n\xff\xfe", "not a list of tags"),
        (Thresholds, b"0.5\nhalf\n", "could not convert string to float: 'half'"),
        (Thresholds, b"0.5\n65\n", "thresholds from 0 to 1, found 0.5 to 65.0"),
        (Thresholds, b"0.5\nnan\n", "thresholds from 0 to 1"),
    ],
)
def test_lists_that_are_no_lists_are_refused(part, content, complaint, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        part(2).take(tmp_path / "list.txt", "")


def test_dape_s_adapters_change_queries_and_keys_of_the_head_and_its_twin_s_are_added(ram, pictures, tmp_path):
    tagger = Tagger(1, width=64).eval().requires_grad_(False)
    tagger.load_state_dict(ram.state_dict())
    adapters = {}
    for name, value in published(ram).items():
        layer = name.removesuffix(".weight")
        if layer.endswith(".attn.qkv"):
            width = value.shape[1]
            adapters |= {f"{layer}.lora_A": torch.randn(16, width), f"{layer}.lora_B": torch.zeros(width * 2, 8)}
        elif layer.endswith((".self.query", ".self.key")):
            for one in (layer, layer.replace("tagging_head", "tag_encoder")):
                adapters |= {f"{one}.lora_A": torch.randn(8, value.shape[1]), f"{one}.lora_B": torch.randn(64, 8)}
    torch.save(adapters, tmp_path / "DAPE.pth")
    tagger.take(tmp_path / "DAPE.pth", "")
    after = published(tagger)
    for name, before in published(ram).items():
        change = torch.zeros_like(before)
        if name.endswith((".self.query.weight", ".self.key.weight")):
            layer = name.removesuffix(".weight")
            for one in (layer, layer.replace("tagging_head", "tag_encoder")):
                change += adapters[f"{one}.lora_B"] @ adapters[f"{one}.lora_A"] / 8
        assert torch.allclose(after[name] - before, change, atol=1e-5), name
    assert not torch.equal(tagger.probabilities(pictures), ram.probabilities(pictures))


def test_it_stays_in_full_precision_and_counts_without_values(ram_plus, pictures):
    half = Tagger(3, width=64).to(torch.bfloat16)
    assert {value.dtype for value in half.state_dict().values() if value.is_floating_point()} == {torch.float32}
    with torch.device("meta"):
        full = Tagger()
    assert full(torch.empty(2, 3, 512, 512, device="meta")) == [[], []]
    assert full.probabilities(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, TAGS)


def test_every_file_has_a_place_that_takes_it(ram_plus, ram):
    for tagger, files in ((ram_plus, RAM_PLUS), (ram, RAM_WITH_DAPE)):
        for weights in files:
            assert hasattr(tagger.get_submodule(weights.into), "take"), weights.file
