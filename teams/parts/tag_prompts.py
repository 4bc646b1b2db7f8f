"""Prompts for training: tags that RAM, tuned by DAPE, gives a damaged picture, as a base model's text encoder reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ntire import UserError
from ntire.teams.parts.clip_text import TOKENS
from ntire.teams.parts.tagger import RAM_WITH_DAPE, Tagger


class Read(Protocol):
    """Texts to their embeddings (B, 77, width)."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class TagPrompts:
    """Pictures (B, 3, H, W), RGB in [0, 1], to embeddings of their tags. Copies share its networks, which are not trained."""

    def __init__(self, tagger: Tagger, read: Read) -> None:
        self.tagger = tagger.eval().requires_grad_(False)
        self.read = read

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        self.tagger.to(image.device)
        texts = [", ".join(tags) for tags in self.tagger(image.float())]
        return self.read(texts).to(image.device)

    def __deepcopy__(self, memo: dict[int, object]) -> "TagPrompts":
        return self


def tag_prompts(base: Path) -> TagPrompts | None:
    """Of a folder with Stable Diffusion as diffusers keeps it and the tagger's files in `tagger` below; None without that.

    Raises UserError that lists the files that the folder `tagger` lacks.
    """
    folder = base / "tagger"
    if not folder.is_dir():
        return None
    missing = [one.file for one in RAM_WITH_DAPE if not (folder / one.file).is_file()]
    if missing:
        raise UserError(f"{folder}: expected the tagger's files, found no {', '.join(missing)}.")
    tagger = Tagger(descriptions=1)
    for one in RAM_WITH_DAPE:
        part: Any = tagger.get_submodule(one.into)
        part.take(folder / one.file, one.prefix)
    return TagPrompts(tagger, text_reader(base))


def text_reader(base: Path) -> Read:
    """The text encoder of a base model in a folder as diffusers keeps it."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    encoder: Any = CLIPTextModel.from_pretrained(base / "text_encoder")

    def read(texts: Sequence[str]) -> Tensor:
        words = tokenizer(list(texts), padding="max_length", max_length=TOKENS, truncation=True)
        with torch.no_grad():
            embedded: Tensor = encoder(torch.tensor(words["input_ids"])).last_hidden_state
        return embedded

    return read
