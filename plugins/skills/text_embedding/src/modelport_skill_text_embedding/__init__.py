"""Text embeddings, dense and sparse: any text encoder, and what sentence-transformers says of how to pool it."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import ArraySpec, Claim, Forward, ModelCard, Output, Program, Session, SessionContext, Skill
from modelport.tasks.embeddings import SENTENCE_SIMILARITY, SPARSE_EMBEDDING, TOKEN_EMBEDDING
from modelport.tasks.text import FEATURE_EXTRACTION
from modelport_hf.folder import has_tokenizer, takes_type_ids
from modelport_hf.heads import head_of, is_text
from modelport_hf.tokenizing import tokenizing
from modelport_skill_text_embedding.recipe import is_sparse, recipe_of

MODELPORT_CONTRACT = "1.0"

_ENCODER_OF = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Encoder-decoders whose encoder alone embeds text; `AutoModel` would load both halves and ask for a decoder's input."""


_DENSE = ("feature-extraction", "sentence-similarity", "token-embedding")
"""What one loaded model does."""

_SPARSE = "sparse-embedding"


@tokenizing
class TextEmbedding(Skill):
    """Serves vectors of texts and of their tokens, and how alike texts are."""

    name = "text_embedding"
    tasks = (FEATURE_EXTRACTION, SENTENCE_SIMILARITY, TOKEN_EMBEDDING, SPARSE_EMBEDDING)
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
        if is_sparse(card):
            return Claim((_SPARSE,), 100, "modules.json says that it is a sparse model of sentence-transformers")
        tasks: tuple[str, ...] = _DENSE
        if "modules.json" in card.files:
            return Claim(tasks, 100, "modules.json says that it is a sentence-transformers model")
        if is_part or head == "text-encoding" or (head == "feature-extraction" and not card.config.get("is_encoder_decoder")):
            return Claim(tasks, 60, f"{card.architectures[0]} is a text encoder without a head")
        if head in ("masked-lm", "pretraining"):
            tasks = (*tasks, _SPARSE) if head == "masked-lm" else tasks
            return Claim(tasks, 10, f"{card.architectures[0]} can be pooled into embeddings, though it was not trained for them")
        if head == "causal-lm":
            return Claim(tasks, 5, f"{card.architectures[0]} generates text; its last token's state can serve as an embedding")
        return None

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_type_ids(card) else [])]
        inputs = tuple(ArraySpec(name, pad=None if name == "input_ids" else 0) for name in names)
        found: dict[str, Program] = {}
        if not is_sparse(card):
            head = "text-encoding" if card.model_type in _ENCODER_OF or _is_text_part(card) else "feature-extraction"
            pooled = Output("embedding", source="last_hidden_state", chain=recipe_of(card).chain)
            # Only who asks for tokens fetches these.
            tokens = Output("tokens", source="last_hidden_state", keep=True)
            found |= dict.fromkeys(_DENSE, Program({"main": Forward(head=head, inputs=inputs, outputs=(pooled, tokens))}))
        if head_of(card.architectures) == "masked-lm":
            weights = Output("embedding", source="logits", chain=recipe_of(card, sparse=True).chain)
            found[_SPARSE] = Program({"main": Forward(head="masked-lm", inputs=inputs, outputs=(weights,))})
        return found

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
