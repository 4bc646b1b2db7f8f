"""MS-LIQE: how good a picture looks to CLIP ViT-B/32, in crops at two sizes and as a whole (after LIQE, Zhang et al. 2023)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntire.method.state_dict import fill, read_state_dict
from ntire.method.weights_files import Weights
from ntire.teams.parts.clip_text import MERGES, VOCABULARY, Words, from_open_clip
from ntire.teams.parts.face_pipeline import from_the_challenge
from ntire.teams.parts.full_precision import FullPrecision

GRADES = ("bad", "poor", "fair", "good", "perfect")
SCALES = (1.0, 0.75)
CROPS, STEP = 7, 32
"""Crops of each scale, and pixels between the places from which they are chosen."""
COOLING = 2.0
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WEIGHTS = (
    Weights("pisa-map-MS_LIQE.pt", None, "none stated", "official", by_hand=from_the_challenge(3, "MS_LIQE.pt")),
    Weights(
        VOCABULARY.file, VOCABULARY.sha256, VOCABULARY.license, "official", into="words", urls=VOCABULARY.urls,
        size=VOCABULARY.size,
    ),
)  # fmt: skip


class MsLiqe(FullPrecision):
    """Pictures (B, 3, H, W), RGB in [0, 1], to a grade from 1 to 5 each; gradients go through it."""

    def __init__(self, side: int = 224, layers: int = 12) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        full = layers == 12
        self.side = side
        self.words = Words(MERGES if full else 0)
        text = {
            "vocab_size": len(self.words), "hidden_size": 512 if full else 64, "intermediate_size": 2048 if full else 64,
            "num_hidden_layers": layers, "num_attention_heads": 8 if full else 1, "bos_token_id": self.words.start,
            "eos_token_id": self.words.end, "pad_token_id": 0,
        }  # fmt: skip
        vision = {
            "hidden_size": 768 if full else 64, "intermediate_size": 3072 if full else 64, "num_hidden_layers": layers,
            "num_attention_heads": 12 if full else 1, "image_size": side, "patch_size": 32 if full else 8,
        }  # fmt: skip
        self.clip: Any = CLIPModel(
            CLIPConfig(text_config=text, vision_config=vision, projection_dim=512 if full else 32)
        )

    def forward(self, image: Tensor) -> Tensor:
        views = self._views(image.float())
        seen = self.clip.visual_projection(self.clip.vision_model(views.flatten(0, 1)).pooler_output)
        words = self.words([f"a photo with {grade} quality" for grade in GRADES])
        meant = self.clip.text_projection(self.clip.text_model(words).pooler_output)
        likeness = F.normalize(seen, dim=1) @ F.normalize(meant, dim=1).T * self.clip.logit_scale.exp()
        shares = (likeness.unflatten(0, views.shape[:2]).mean(dim=1) / COOLING).softmax(dim=1)
        return shares @ torch.arange(1, 6, device=image.device, dtype=shares.dtype)

    def _views(self, image: Tensor) -> Tensor:
        """(B, 15, 3, side, side): the whole picture, and crops from evenly chosen places at each scale."""
        mean, deviation = (torch.tensor(one, device=image.device).view(3, 1, 1) for one in (MEAN, DEVIATION))
        image = (image - mean) / deviation
        views = [F.interpolate(image, (self.side, self.side), mode="bicubic")[:, None]]
        step = STEP * self.side // 224
        for scale in SCALES:
            scaled = image if scale == 1.0 else F.interpolate(image, scale_factor=scale, mode="bicubic")
            crops = scaled.unfold(2, self.side, step).unfold(3, self.side, step).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
            views.append(crops[:, [crops.shape[1] // CROPS * number for number in range(CROPS)]])
        return torch.cat(views, dim=1)

    def take(self, path: Path, prefix: str) -> None:
        """A CLIP with the names of OpenAI's program. Raises UserError for another network's."""
        fill(self.clip, clip_names(read_state_dict(path, prefix)), path)


def clip_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's CLIP under transformers' names."""
    visual = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    text = {name: value for name, value in state.items() if not name.startswith("visual.")}
    named = {f"text_model.{name}": value for name, value in from_open_clip(text).items()}
    blocks = {name: value for name, value in visual.items() if name.startswith("transformer.")}
    named |= {f"vision_model.{name}": value for name, value in from_open_clip(blocks).items()}
    ends = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        # The misspelling is transformers'.
        **{f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")},
        **{f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")},
    }
    named |= {f"vision_model.{ours}": visual[theirs] for theirs, ours in ends.items() if theirs in visual}
    projections = {
        "visual_projection.weight": visual.get("proj"),
        "text_projection.weight": state.get("text_projection"),
    }
    named |= {name: value.T for name, value in projections.items() if value is not None}
    if "logit_scale" in state:
        named["logit_scale"] = state["logit_scale"]
    return named
