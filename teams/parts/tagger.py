"""Tags of a picture: RAM (Zhang et al. 2023) and RAM++ (Huang et al. 2023), which know 4,585 of them.

picture -> Swin-L -> 145 tokens -> each tag's meaning attends to them, twice -> its probability -> tags above their threshold

RAM knows a tag by one embedding; RAM++ by 51 descriptions, weighted by how well each fits the picture. Names of tags and
thresholds are tensors as the weights are, read from the authors' lists.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts import seesr
from ntire.teams.parts.full_precision import FullPrecision
from ntire.teams.parts.seesr import LICENSE, TOKEN, ImageSight, of_ram
from ntire.teams.parts.stable_diffusion import need_libraries

TAGS = 4585
DESCRIPTIONS = 51
"""Of a tag, by RAM++."""
HEADS, LAYERS = 4, 2
LONGEST = 64
"""Bytes of a tag's name; the authors' longest has 27."""
LISTS = "https://github.com/xinyu1205/recognize-anything/raw/main/ram/data"
TAG_LISTS = (
    Weights(
        "ram_tag_list.txt", "5d96d2f7225527480ad773aaac76b6e5c08a18adf6eae9ca7d2ab923d5e7bd8b", LICENSE, "official",
        into="names", urls=(f"{LISTS}/ram_tag_list.txt",), size=41_904,
    ),
    Weights(
        "ram_tag_list_threshold.txt", "b6f81d0de1bc7f9c251af512c413eae976c77dbfbadf700d4e3d90510f4c6447", LICENSE, "official",
        into="thresholds", urls=(f"{LISTS}/ram_tag_list_threshold.txt",), size=22_016,
    ),
)  # fmt: skip
RAM_PLUS = (
    Weights(
        "ram_plus_swin_large_14m.pth", "497c178836ba66698ca226c7895317e6e800034be986452dbd2593298d50e87d", LICENSE, "official",
        size=3_010_210_801,
        urls=("https://huggingface.co/xinyu1205/recognize-anything-plus-model/resolve/main/ram_plus_swin_large_14m.pth",),
    ),
    *TAG_LISTS,
)  # fmt: skip
RAM_WITH_DAPE = (replace(seesr.RAM, into=""), replace(seesr.DAPE, into=""), *TAG_LISTS)
"""RAM as SeeSR and OSEDiff use it: tuned to see through damage. In this order: the adapters are merged into RAM."""

T = TypeVar("T")


class Tagger(FullPrecision):
    """RAM++ at full size, 330 M parameters, of which 120 M describe the tags; RAM with one description a tag, 212 M."""

    def __init__(self, descriptions: int = DESCRIPTIONS, width: int = 768) -> None:
        super().__init__()
        need_libraries("RAM")
        full = width == 768
        self.tags = TAGS if full else 16
        token = TOKEN if full else 32
        self.sight = ImageSight() if full else ImageSight(32, (2, 2), window=4, token=token)
        self.label_embed = nn.Parameter(torch.randn(self.tags * descriptions, token) / token**0.5)
        if descriptions > 1:
            self.reweight_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.wordvec_proj = nn.Linear(token, width)
        self.tagging_head = _TagsLook(width, token)
        self.fc = nn.Linear(width, 1)
        self.names = TagNames(self.tags)
        self.thresholds = Thresholds(self.tags)

    def forward(self, image: Tensor) -> list[list[str]]:
        """The tags of each picture (B, 3, H, W), RGB in [0, 1], in the order of the authors' list; none on the meta device."""
        sure = self.probabilities(image) > self.thresholds.value
        if sure.is_meta:
            return [[] for _ in image]
        return [self.names.of(one.nonzero()[:, 0].tolist()) for one in sure]

    def probabilities(self, image: Tensor) -> Tensor:
        """How likely each tag is, (B, tags)."""
        tokens = self.sight(image)
        meanings = self.wordvec_proj(self._meanings(tokens[:, 0])).relu()
        likely: Tensor = self.fc(self.tagging_head(meanings, tokens))[..., 0].sigmoid()
        return likely

    def take(self, path: Path, prefix: str) -> None:
        """The authors' file, or DAPE's adapters for RAM. Raises UserError for another network's."""
        fill(self, self.named_as_here(read_state_dict(path, prefix), path), path)

    def named_as_here(self, state: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
        """The whole state that a file's tensors lead to; both lists stay. Raises UserError for adapters of another network."""
        own = self.state_dict()
        lists = {name: value for name, value in own.items() if name.startswith(("names.", "thresholds."))}
        networks = {name.removeprefix("sight."): value for name, value in own.items() if name not in lists}
        # The authors' loader, too, knows the head by the name that it had before.
        renamed = {name.replace("vision_multi.", "tagging_head."): value for name, value in state.items()}
        seeing = self.sight.state_dict()
        given = of_ram(networks, renamed, source)
        return lists | {f"sight.{name}" if name in seeing else name: value for name, value in given.items()}

    def _meanings(self, seen: Tensor) -> Tensor:
        """The embedding of each tag for each picture, (B, tags, token); `seen` (B, token) is the mean of what is to see."""
        described = self.label_embed.view(self.tags, -1, self.label_embed.shape[1])
        if described.shape[1] == 1:
            return described[:, 0].expand(len(seen), -1, -1)
        fits = (self.reweight_scale.exp() * nn.functional.normalize(seen, dim=-1)) @ self.label_embed.T
        shares = fits.view(len(seen), self.tags, -1).softmax(dim=-1)
        return torch.einsum("btd,tdc->btc", shares, described)


class _TagsLook(nn.Module):
    """BERT's layers without its attention of words to each other: tags (B, T, width) look at tokens (B, N, token)."""

    def __init__(self, width: int, token: int) -> None:
        super().__init__()
        from transformers.models.bert import modeling_bert

        bert: Any = modeling_bert  # transformers' layers have no types
        config = bert.BertConfig(
            hidden_size=width,
            num_attention_heads=HEADS,
            intermediate_size=width * 4,
            attn_implementation="eager",
        )
        # Published names, from here on.
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList()
        for _ in range(LAYERS):
            layer: Any = nn.Module()  # of three parts, which types do not know
            layer.crossattention = bert.BertAttention(config, is_cross_attention=True)
            # BERT would look at what is as wide as itself.
            layer.crossattention.self.key = nn.Linear(token, width)
            layer.crossattention.self.value = nn.Linear(token, width)
            layer.intermediate, layer.output = bert.BertIntermediate(config), bert.BertOutput(config)
            self.encoder.layer.append(layer)

    def forward(self, tags: Tensor, tokens: Tensor) -> Tensor:
        layers: Any = self.encoder.layer
        for layer in layers:
            attended = layer.crossattention(tags, encoder_hidden_states=tokens)[0]
            tags = layer.output(layer.intermediate(attended), attended)
        return tags


class TagNames(nn.Module):
    """The tags' names as UTF-8, zeros behind them; empty until they are read."""

    letters: Tensor
    """(tags, LONGEST), uint8."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.register_buffer("letters", torch.zeros(tags, LONGEST, dtype=torch.uint8))

    def of(self, numbers: list[int]) -> list[str]:
        """The names of some tags; those without one are left out."""
        names = [bytes(self.letters[number].tolist()).rstrip(b"\0").decode() for number in numbers]
        return [name for name in names if name]

    def take(self, path: Path, prefix: str) -> None:
        """A list with one name a line. Raises UserError for any other file."""
        names = [name.encode() for name in _lines(path, len(self.letters), str)]
        wrong = [name.decode() for name in names if not 0 < len(name) <= LONGEST]
        if wrong:
            raise UserError(f"{path}: expected names of 1 to {LONGEST} bytes, found {wrong[0][:80]!r}.")
        self.letters.copy_(torch.tensor([list(name.ljust(LONGEST, b"\0")) for name in names]))


class Thresholds(nn.Module):
    """How likely a tag must be at least: 0.68, the authors' usual figure, until their list is read."""

    value: Tensor
    """(tags,), float32."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((tags,), 0.68))

    def take(self, path: Path, prefix: str) -> None:
        """A list with one number a line. Raises UserError for any other file."""
        found = torch.tensor(_lines(path, len(self.value), float))
        if not bool(((found >= 0) & (found <= 1)).all()):
            raise UserError(
                f"{path}: expected thresholds from 0 to 1, found {float(found.min())} to {float(found.max())}."
            )
        self.value.copy_(found)


def _lines(path: Path, many: int, read: Callable[[str], T]) -> list[T]:
    try:
        lines = [read(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a list of tags or of their thresholds: {error}") from None
    if len(lines) != many:
        raise UserError(f"{path}: expected {many} lines, one a tag, found {len(lines)}.")
    return lines
