"""The learned metrics, through pyiqa: its networks, its weights in its cache, our loop around them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ntire import UserError
from ntire.method.pyiqa_networks import build, replaced
from ntire.method.state_dict import read_state_dict
from ntire.scoring.instruments import NetworkInstrument
from ntire.scoring.niqe import BLOCK, niqe
from ntire.scoring.pixels import MetricError


class Iqa(NetworkInstrument):
    """A pyiqa metric, called as pyiqa calls it."""

    def __init__(self, device: str, name: str, **options: str | int) -> None:
        super().__init__(device)
        self.net = build(name, **options).to(self.device)

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        observed: Tensor = self.net(images) if references is None else self.net(images, references)
        return observed


class WithHeads(Iqa):
    """LPIPS and DISTS: pyiqa fills their heads from any file that has some of their names; ours must have all of them,
    and no others.
    """

    def __init__(self, device: str, name: str, heads: Path, expected: Sequence[str], least: int = 1) -> None:
        found = read_state_dict(heads)
        if set(found) != set(expected):
            raise UserError(
                f"{heads}: expected the tensors {', '.join(expected)}, found {', '.join(found)}.", exit_code=3
            )
        super().__init__(device, name)
        self.least = least


class Niqe(Iqa):
    """NIQE: luma in float64, 96-pixel blocks from the top left; no value for images below 96 pixels or without texture.

    From pyiqa come its luma and its way to the authors' model, not its computation: see `ntire.scoring.niqe`.
    """

    least = BLOCK

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        from pyiqa.utils.color_util import to_y_channel

        model = [values.to(self.device, torch.float64) for values in (self.net.mu_pris_param, self.net.cov_pris_param)]
        try:
            found = torch.stack([niqe(luma[0].round(), *model) for luma in to_y_channel(images, 255, "yiq")])
        except ValueError as error:
            raise MetricError(f"NIQE finds no texture: {error}") from None
        if not found.isfinite().all():
            raise MetricError("NIQE finds no texture: its statistics are not numbers")
        return found


class ClipIqa(Iqa):
    """CLIP-IQA with its ten prompts encoded once: they do not depend on the image, and are half of the work."""

    batch: ClassVar[int] = 4
    least = 31  # halved five times, one value is left

    def __init__(self, device: str, backbone: Path) -> None:
        super().__init__(device, "clipiqa", backbone=str(backbone))
        self.clip: Any = self.net.clip_model[0].to(self.device)
        with torch.inference_mode():
            self.prompts: Tensor = self.clip.encode_text(self.net.prompt_pairs.to(self.device))

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        mean, std = self.net.default_mean.to(images), self.net.default_std.to(images)
        logits, _ = self.clip((images - mean) / std, None, pos_embedding=False, text_features=self.prompts)
        likelihood = logits.reshape(len(images), -1, 2).softmax(dim=-1)
        return likelihood[..., 0].mean(dim=1, keepdim=True)


class Maniqa(Iqa):
    """MANIQA without the last two ViT blocks, whose output nothing reads; its hooks are emptied before every call, as an
    exception leaves them full and the next image's value wrong.
    """

    READ_BLOCKS = 10

    def __init__(self, device: str, crops: int = 20) -> None:
        super().__init__(device, "maniqa", test_sample=crops)
        vit: Any = self.net.vit
        vit.blocks = vit.blocks[: self.READ_BLOCKS]
        vit.norm = vit.fc_norm = vit.head = nn.Identity()

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        self.net.save_output.outputs.clear()
        return super().forward(images, references)


class QAlign(NetworkInstrument):
    """Q-Align in half precision, as it is defined; the prompt's tokens are checked, since a tokenizer that leaves out the
    first one changes every score a little and fails nowhere.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        with _offline():
            self.net = build("qalign").to(self.device)
        check_tokens(self.net.model.tokenizer)

    def forward(self, images: Tensor, references: Tensor | None) -> Tensor:
        observed: Tensor = self.net(images)
        return observed


QALIGN_PROMPT = "USER: How would you rate the quality of this image?\n"
QALIGN_LEVELS = ("excellent", "good", "fair", "poor", "bad")


def check_tokens(tokenizer: Any) -> None:
    """Raise UserError unless the prompt begins with the token of the beginning, and the five levels are five tokens."""
    first = tokenizer(QALIGN_PROMPT).input_ids[0]
    levels = [tokenizer(level).input_ids[-1] for level in QALIGN_LEVELS]
    if first != tokenizer.bos_token_id or first != 1 or len(set(levels)) != len(QALIGN_LEVELS):
        raise UserError(
            f"Q-Align: expected a prompt that begins with token 1 and five different levels, found {first} and {levels}. "
            "The installed transformers tokenizes it otherwise: use transformers >= 5.4, < 5.16.",
            exit_code=3,
        )


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Hub clients look only into their caches."""
    import huggingface_hub.constants as hub

    with replaced(hub, "HF_HUB_OFFLINE", True):
        yield
