"""Which degradations a picture suffers from: its CLIP embedding against a bank of embedded words (Luo et al. 2024, DA-CLIP).

Picture -> resized, and a crop as it is -> CLIP image tower -> softmax(100 x cosine with each word) -> top K -> weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntire import UserError
from ntire.files import write_atomically
from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights, locate

CLIP = Weights(
    "openai/clip-vit-base-patch32",
    sha256=None,
    license="MIT",
    provenance="official",
    size=605_000_000,
    home="huggingface",
)
BANK = "bank.safetensors"
SIDE = 224
"""Of the pictures that CLIP ViT-B/32 looks at."""
SHARPNESS = 100.0
"""Factor on the cosines before the softmax."""
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on."""
Correction = Literal["mean", "maximum", "none"]


@dataclass(frozen=True)
class Bank:
    """A vocabulary as data: words, and an embedding of length 1 for each, (words, D)."""

    words: tuple[str, ...]
    embeddings: Tensor

    @classmethod
    def of_words(cls, words: tuple[str, ...], clip: Path) -> "Bank":
        """What the text tower of the CLIP in a folder makes of the words; raises UserError if there is none."""
        return cls._embedded(words, _read_clip(clip), clip)

    @classmethod
    def _embedded(cls, words: tuple[str, ...], model: Any, clip: Path) -> "Bank":
        from transformers import CLIPTokenizer

        try:
            tokenizer = CLIPTokenizer.from_pretrained(clip, local_files_only=True)
        except OSError as error:
            raise UserError(f"{clip}: has no tokenizer: {str(error).splitlines()[0]}", exit_code=3) from None
        tokens = tokenizer(list(words), padding=True, return_tensors="pt")
        with torch.no_grad():
            embeddings = model.text_projection(model.text_model(**tokens).pooler_output)
        return cls(words, F.normalize(embeddings.float(), dim=1))

    @classmethod
    def read(cls, path: Path) -> "Bank":
        """A safetensors file with one vector (D,) for each word, under the word's name."""
        vectors = dict(sorted(read_state_dict(path).items()))
        shapes = {tuple(vector.shape) for vector in vectors.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise UserError(f"{path}: expected vectors of one length, one a word, found the shapes {sorted(shapes)}.")
        return cls(tuple(vectors), F.normalize(torch.stack(list(vectors.values())).float(), dim=1))

    def write(self, path: Path) -> None:
        """Write what `read` reads."""
        from safetensors.torch import save

        vectors = {word: vector.contiguous() for word, vector in zip(self.words, self.embeddings, strict=True)}
        write_atomically(path, save(vectors))

    def extended(self, word: str, embedding: Tensor) -> "Bank":
        """With one more word and its embedding (D,)."""
        if word in self.words:
            raise ValueError(f"the bank has the word {word!r} already")
        vector = F.normalize(embedding.float(), dim=0)[None]
        return Bank((*self.words, word), torch.cat([self.embeddings, vector]))

    def in_order(self, words: tuple[str, ...]) -> "Bank":
        """The same words in this order; raises UserError if they are not the same."""
        if set(words) != set(self.words):
            lacking, strange = sorted(set(words) - set(self.words)), sorted(set(self.words) - set(words))
            raise UserError(
                f"the bank of words and the adapters do not fit: without an embedding {', '.join(lacking) or 'none'}; "
                f"without an adapter {', '.join(strange) or 'none'}. Each degradation needs both."
            )
        return Bank(words, self.embeddings[[self.words.index(word) for word in words]])


def find_clip(folder: Path) -> Path | None:
    """The folder of a CLIP with its tokenizer: `clip` in `folder`, else the one in the cache of Hugging Face, else None."""
    if (folder / "clip" / "config.json").is_file():
        return folder / "clip"
    repository, _ = locate(CLIP, None)
    return next((path.parent for path in sorted(repository.glob("snapshots/*/config.json"))), None)


class Router(nn.Module):
    """Pictures (3, H, W) in [0, 1] to weights of degradations; random until it is filled.

    At full size the image tower of CLIP ViT-B/32 with 87.8 M parameters, which nothing here trains.
    """

    bank: Tensor

    def __init__(self, words: tuple[str, ...], width: int = 768, layers: int = 12) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        self.words = words
        self.correction: Correction = "mean"
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(width // 64, 1),
            image_size=SIDE,
            projection_dim=width * 2 // 3,
        )
        tower: Any = CLIPVisionModelWithProjection
        self.clip = tower(config)
        self.side = SIDE
        self.register_buffer("bank", F.normalize(torch.randn(len(words), width * 2 // 3), dim=1))

    def fill_from(self, clip: Path) -> None:
        """Take the image tower of the CLIP in a folder, and `bank.safetensors` in it or what its text tower makes of the words.

        Raises UserError for a folder that is not a CLIP of this size, and for a bank of other words.
        """
        model = _read_clip(clip)
        own = (clip / BANK).is_file()
        bank = Bank.read(clip / BANK) if own else Bank._embedded(self.words, model, clip)
        parts = ("vision_model.", "visual_projection.")
        images = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
        fill(self.clip, images, clip)
        self.use(bank)

    def use(self, bank: Bank) -> None:
        """Compare with the embeddings of a bank that has just the words of this router."""
        embeddings = bank.in_order(self.words).embeddings
        if embeddings.shape != self.bank.shape:
            raise UserError(
                f"the bank of words: expected embeddings of length {self.bank.shape[1]}, found {embeddings.shape[1]}. "
                "Image and text tower must be of one CLIP."
            )
        self.bank.copy_(embeddings)

    @torch.no_grad()
    def probabilities(self, picture: Tensor) -> Tensor:
        """How far each word is what the picture suffers from: (words,), sums to 1.

        Resizing hides noise and compression, so a crop that is not resized corrects the resized picture.
        """
        height, width = picture.shape[-2:]
        views = [self._resized(picture)]
        if self.correction != "none" and min(height, width) >= self.side:
            views.append(_centre(picture, self.side, self.side))
        x = torch.stack(views).float()
        mean, deviation = (x.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        embedded = F.normalize(self.clip(pixel_values=(x - mean) / deviation).image_embeds, dim=1)
        likely = (SHARPNESS * embedded @ self.bank.T).softmax(dim=1)
        joined = likely.amax(0) if self.correction == "maximum" else likely.mean(0)
        return joined / joined.sum()

    def weights(self, picture: Tensor, top: int) -> dict[str, float]:
        """The `top` most likely degradations and their weights, which sum to 1."""
        values, indices = self.probabilities(picture).topk(min(top, len(self.words)))
        values = values / values.sum()
        return {self.words[index]: value for index, value in zip(indices.tolist(), values.tolist(), strict=True)}

    def _resized(self, picture: Tensor) -> Tensor:
        """CLIP's view: the central square at its size."""
        side = min(picture.shape[-2:])
        square = _centre(picture, side, side)[None].float()
        size = (self.side, self.side)
        return F.interpolate(square, size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Router":
        # Moves, but stays in float32: at 100 times the cosine, half precision would choose other degradations.
        moved: Router = super()._apply(  # type: ignore[no-untyped-call]
            lambda value: value.to(fn(value.flatten()[:0]).device), recurse
        )
        return moved


def _read_clip(folder: Path) -> Any:
    """The CLIP in a folder, in float32; raises UserError if it cannot be read or is not whole."""
    from transformers import CLIPModel

    model: Any = CLIPModel
    try:
        clip, found = model.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: cannot be read as a CLIP of transformers: {reason}", exit_code=3) from None
    # transformers fills with random numbers what a file lacks.
    lacking = sorted(found["missing_keys"])
    if lacking:
        raise UserError(f"{folder}: lacks {len(lacking)} tensors, such as {lacking[0]}.", exit_code=3)
    return clip.eval()


def _centre(picture: Tensor, height: int, width: int) -> Tensor:
    top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
    return picture[:, top : top + height, left : left + width]
