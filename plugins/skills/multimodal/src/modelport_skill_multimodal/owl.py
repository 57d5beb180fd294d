"""OWL-ViT and OWLv2 in two halves: what reads a label, and what looks for it. transformers has both in one forward only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modelport_torch.load import checkpoint_dtype, load_model

__all__ = ["build"]


class Owl(torch.nn.Module):
    """`embedding` of texts, (batch, width) of length 1; or `logits` (batch, patches, queries) and `pred_boxes` (batch, patches,
    4) of images for such embeddings: what the model's own forward makes of both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        query_embeds: torch.Tensor | None = None,
        query_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        model = self.model
        if pixel_values is None:
            towers = model.owlvit if hasattr(model, "owlvit") else model.owlv2
            pooled = towers.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
            embedded = towers.text_projection(pooled)
            return {"embedding": embedded / torch.linalg.norm(embedded, ord=2, dim=-1, keepdim=True)}
        places, _ = model.image_embedder(pixel_values=pixel_values)
        patches = places.flatten(1, 2)
        logits, _ = model.class_predictor(patches, query_embeds, query_mask)
        return {"logits": logits, "pred_boxes": model.box_predictor(patches, places)}


def build(folder: Path) -> Owl:
    """Both halves of the checkpoint in `folder`, in its own type."""
    return Owl(load_model("zero-shot-object-detection", folder, checkpoint_dtype(folder), torch.device("cpu"), _silent))


def _silent(what: str, fraction: float) -> None:
    """The backend reports the loading of its modules itself."""
