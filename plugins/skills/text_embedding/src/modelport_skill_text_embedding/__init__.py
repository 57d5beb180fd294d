"""Text embeddings: any text encoder, and what sentence-transformers says of how to pool it."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import ArraySpec, Claim, Forward, ModelCard, Output, Program, Session, SessionContext, Skill
from modelport.tasks.text import FEATURE_EXTRACTION
from modelport_hf.folder import has_tokenizer, takes_type_ids
from modelport_hf.heads import head_of, is_text
from modelport_skill_text_embedding.recipe import recipe_of

MODELPORT_CONTRACT = "1.0"

_ENCODER_OF = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Encoder-decoders whose encoder alone embeds text; `AutoModel` would load both halves and ask for a decoder's input."""


class TextEmbedding(Skill):
    """Serves `feature-extraction`: one vector per text."""

    name = "text_embedding"
    tasks = (FEATURE_EXTRACTION,)
    heads = {"feature-extraction": ("feature-extraction",), "text-encoding": ("feature-extraction",)}
    default_checkpoints = {
        "bert": "sentence-transformers/all-MiniLM-L6-v2",
        "mpnet": "sentence-transformers/all-mpnet-base-v2",
        "distilbert": "sentence-transformers/multi-qa-distilbert-cos-v1",
        "xlm-roberta": "intfloat/multilingual-e5-small",
        "modernbert": "nomic-ai/modernbert-embed-base",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        head = head_of(card.architectures)
        is_part = _is_text_part(card)
        if not has_tokenizer(card.files) or head == "sequence-classification":
            return None
        if not is_part and not is_text(card.config, card.files):
            return None
        if card.config.get("is_encoder_decoder") and card.model_type not in _ENCODER_OF and not is_part:
            return None
        tasks = ("feature-extraction",)
        if "modules.json" in card.files:
            return Claim(tasks, 100, "modules.json says that it is a sentence-transformers model")
        if is_part or head == "text-encoding" or (head == "feature-extraction" and not card.config.get("is_encoder_decoder")):
            return Claim(tasks, 60, f"{card.architectures[0]} is a text encoder without a head")
        if head in ("masked-lm", "pretraining"):
            return Claim(tasks, 10, f"{card.architectures[0]} can be pooled into embeddings, though it was not trained for them")
        if head == "causal-lm":
            return Claim(tasks, 5, f"{card.architectures[0]} generates text; its last token's state can serve as an embedding")
        return None

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        recipe = recipe_of(card)
        names = ["input_ids", "attention_mask"]
        if takes_type_ids(card):
            names.append("token_type_ids")
        entry = Forward(
            head="text-encoding" if card.model_type in _ENCODER_OF or _is_text_part(card) else "feature-extraction",
            inputs=tuple(ArraySpec(name, pad=None if name == "input_ids" else 0) for name in names),
            outputs=(Output("embedding", source="last_hidden_state", chain=recipe.chain),),
        )
        return {"feature-extraction": Program({"main": entry})}

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_text_embedding.session import EmbeddingSession

        return EmbeddingSession(context)


def _is_text_part(card: ModelCard) -> bool:
    """Whether the checkpoint is the part that reads text of a model that has more, and says so by its class."""
    name = card.architectures[0] if card.architectures else ""
    whole = not {"text_config", "encoder"}.isdisjoint(card.config)
    return whole and name.endswith(("TextModel", "EncoderModel"))


@hookimpl
def register_skills() -> list[Skill]:
    """Text embeddings."""
    return [TextEmbedding()]
