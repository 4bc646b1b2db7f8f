"""Prompts: CLIP's words (byte pairs, Radford et al. 2021) and a text tower, as Stable Diffusion reads them.

The words are tensors as the weights are: one file holds all that a pipeline needs, and random copies spell letter by letter.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.weights_files import Weights

TOKENS = 77
"""Length of a prompt."""
MERGES = 48_894
"""Pairs of CLIP's vocabulary."""
LETTERS = 512
"""Bytes, and bytes that end a word: the vocabulary before any merge."""
VOCABULARY = Weights(
    "bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    license="MIT",
    provenance="official",
    urls=(
        "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
        "https://github.com/mlfoundations/open_clip/raw/main/src/open_clip/bpe_simple_vocab_16e6.txt.gz",
    ),
    size=1_356_917,
)


class Words(nn.Module):
    """Prompts to the numbers of their words, (prompts, 77); longer prompts are cut."""

    merges: Tensor
    """(M, 2): which two words each further word is made of; -1 where no vocabulary was read yet."""

    def __init__(self, merges: int = MERGES, pad: int | None = None) -> None:
        super().__init__()
        self.register_buffer("merges", torch.full((merges, 2), -1, dtype=torch.int32))
        self.start, self.end = LETTERS + merges, LETTERS + merges + 1
        self.pad = self.end if pad is None else pad
        self._backend: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self.end + 1

    def forward(self, prompts: Sequence[str], pad: int | None = None) -> Tensor:
        """`pad` is the number that fills up short prompts, where it is not the usual one."""
        if self.merges.device.type == "meta":  # counting: no values, and none are needed
            return torch.empty(len(prompts), TOKENS, dtype=torch.long, device="meta")
        fill = self.pad if pad is None else pad
        rows = []
        for prompt in prompts:
            words = self._tokenizer()(prompt, add_special_tokens=False)["input_ids"][: TOKENS - 2]
            rows.append([self.start, *words, self.end] + [fill] * (TOKENS - 2 - len(words)))
        return torch.tensor(rows, device=self.merges.device)

    def take(self, path: Path, prefix: str) -> None:
        """CLIP's own list of pairs, as OpenAI publishes it. Raises UserError for any other file."""
        try:
            lines = gzip.decompress(path.read_bytes()).decode().splitlines()[1 : 1 + len(self.merges)]
            numbers = {word: number for number, word in enumerate(_letters())}
            pairs = []
            for line in lines:
                left, right = line.split()
                pairs.append((numbers[left], numbers[right]))
                numbers[left + right] = LETTERS + len(pairs) - 1
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, ValueError, KeyError) as error:
            raise UserError(f"{path}: not CLIP's list of pairs: {type(error).__name__}: {error}") from None
        if len(pairs) != len(self.merges):
            raise UserError(f"{path}: expected {len(self.merges)} pairs of CLIP's vocabulary, found {len(pairs)}.")
        self.merges.copy_(torch.tensor(pairs, dtype=self.merges.dtype))

    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        version = self.merges._version
        if self._backend is None or self._backend[0] != version:
            words = _letters()
            merges: Any = []  # pairs, which its type does not know
            for left, right in self.merges.tolist():
                if left >= 0:
                    merges.append((words[left], words[right]))
                    words.append(words[left] + words[right])
            vocabulary = {word: number for number, word in enumerate(words)}
            vocabulary |= {"<|startoftext|>": self.start, "<|endoftext|>": self.end}
            # CLIPTokenizer warns of long prompts, which are cut here as CLIP does it.
            self._backend = version, CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=10**9)
        return self._backend[1]


class TextTower(nn.Module):
    """Prompts to embeddings (prompts, 77, width); OpenCLIP ViT-H without its last block at full size (340 M parameters).

    That is what Stable Diffusion 2 is conditioned on: the last but one block's result, normalised.
    """

    def __init__(self, width: int = 1024, layers: int = 23, merges: int = MERGES) -> None:
        super().__init__()
        from transformers import CLIPTextModel

        self.words = Words(merges, pad=0)
        self.transformer: Any = CLIPTextModel(_config(self.words, width, layers, "gelu"))

    def forward(self, prompts: Sequence[str]) -> Tensor:
        embedded: Tensor = self.transformer(self.words(prompts)).last_hidden_state
        return embedded

    def named_as_here(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of OpenCLIP's or transformers' text tower under the names of `transformer`."""
        return tower_names(self.transformer, state)


class TwoTowers(nn.Module):
    """Prompts as Stable Diffusion XL reads them (Podell et al. 2024, section 2.1), 818 M parameters at full size.

    The last but one blocks of CLIP ViT-L and OpenCLIP ViT-bigG side by side, and bigG's embedding of the prompt as a whole.
    """

    def __init__(
        self, small: int = 768, large: int = 1280, layers: tuple[int, int] = (12, 32), merges: int = MERGES
    ) -> None:
        super().__init__()
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        self.words = Words(merges)
        self.small: Any = CLIPTextModel(_config(self.words, small, layers[0], "quick_gelu"))
        self.large: Any = CLIPTextModelWithProjection(_config(self.words, large, layers[1], "gelu"))

    def forward(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings of the words (prompts, 77, small + large) and of the prompts (prompts, large)."""
        small = self.small(self.words(prompts), output_hidden_states=True)
        large = self.large(self.words(prompts, pad=0), output_hidden_states=True)
        return torch.cat((small.hidden_states[-2], large.hidden_states[-2]), dim=-1), large.text_embeds


def tower_names(tower: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of OpenCLIP's or transformers' text tower under the names of `tower`, one of transformers'."""
    own = tower.state_dict()
    outer = "text_model." if any(name.startswith("text_model.") for name in own) else ""
    projection = {}
    if "positional_embedding" in state:
        if "text_projection.weight" in own and "text_projection" in state:
            projection = {"text_projection.weight": state["text_projection"].T}
        layers: Any = tower.config
        state = from_open_clip(state, layers=layers.num_hidden_layers)
    plain = {name.removeprefix("text_model."): value for name, value in state.items()}
    # A buffer that older files hold: 0, 1, 2 ...
    return {outer + name: value for name, value in plain.items() if name != "embeddings.position_ids"} | projection


def _config(words: Words, width: int, layers: int, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=width * 4,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        hidden_act=activation,
        bos_token_id=words.start,
        eos_token_id=words.end,
        pad_token_id=words.pad,
    )


def _letters() -> list[str]:
    """CLIP's signs for the 256 bytes, printable ones first, then the same as ends of words."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    signs = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]
    return signs + [f"{sign}</w>" for sign in signs]


OPEN_CLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


OPEN_CLIP_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def from_open_clip(state: Mapping[str, Tensor], layers: int | None = None) -> dict[str, Tensor]:
    """A tower of OpenCLIP's or OpenAI's CLIP under transformers' names: its first `layers` blocks, or all.

    What a text tower has no place for, such as its projection, is left out.
    """
    named = {ours: state[theirs] for theirs, ours in OPEN_CLIP_ENDS.items() if theirs in state}
    for name, value in state.items():
        parts = name.split(".")
        if parts[:2] != ["transformer", "resblocks"] or (layers is not None and int(parts[2]) >= layers):
            continue
        here, inner, kind = f"encoder.layers.{parts[2]}", ".".join(parts[3:-1]), parts[-1]
        if kind in ("in_proj_weight", "in_proj_bias"):
            for one, part in zip("qkv", value.chunk(3), strict=True):
                named[f"{here}.self_attn.{one}_proj.{kind.removeprefix('in_proj_')}"] = part
        else:
            named[f"{here}.{OPEN_CLIP.get(inner, inner)}.{kind}"] = value
    return named
