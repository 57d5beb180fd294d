"""BLIP-2's two towers, which transformers has in one forward only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modelport_torch.load import checkpoint_dtype, load_model

__all__ = ["build"]


class Blip2Towers(torch.nn.Module):
    """`embedding` of images, (batch, queries, width), or of texts, (batch, width), neither normalised: what
    `Blip2ForImageTextRetrieval.forward` compares without its matching head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        model = self.model
        if pixel_values is None:
            embedded = model.embeddings(input_ids=input_ids)
            states = model.qformer(query_embeds=embedded, query_length=0, attention_mask=attention_mask).last_hidden_state
            return {"embedding": model.text_projection(states[:, 0].to(model.text_projection.weight.dtype))}
        image = model.vision_model(pixel_values=pixel_values).last_hidden_state
        seen = torch.ones(image.shape[:-1], dtype=torch.long, device=image.device)
        queries = model.query_tokens.expand(image.shape[0], -1, -1)
        states = model.qformer(query_embeds=queries, encoder_hidden_states=image, encoder_attention_mask=seen).last_hidden_state
        return {"embedding": model.vision_projection(states.to(model.vision_projection.weight.dtype))}


def build(folder: Path) -> Blip2Towers:
    """The towers of the checkpoint in `folder`, in its own type."""
    return Blip2Towers(
        load_model("zero-shot-image-classification", folder, checkpoint_dtype(folder), torch.device("cpu"), _silent)
    )


def _silent(what: str, fraction: float) -> None:
    """The backend reports the loading of its modules itself."""
