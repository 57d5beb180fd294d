"""Text classification, with labels of the model's or of the request's, and the scoring of query and document pairs."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import ArraySpec, Claim, Forward, ModelCard, Output, Program, Session, SessionContext, Skill
from modelport.tasks.text import TEXT_CLASSIFICATION, TEXT_RANKING
from modelport.tasks.zero_shot import ZERO_SHOT_CLASSIFICATION
from modelport_hf.folder import has_tokenizer, label_names, takes_type_ids
from modelport_hf.heads import head_of, is_text
from modelport_hf.tokenizing import tokenizing
from modelport_skill_text_classification.entailment import entailment_label

MODELPORT_CONTRACT = "1.0"


@tokenizing
class TextClassification(Skill):
    """Serves `text-classification`; `text-ranking` too where a model has a single label, and `zero-shot-classification` where one
    of them is entailment."""

    name = "text_classification"
    tasks = (TEXT_CLASSIFICATION, TEXT_RANKING, ZERO_SHOT_CLASSIFICATION)
    heads = {"sequence-classification": ("text-classification",)}
    default_checkpoints = {
        "distilbert": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "bert": "cross-encoder/ms-marco-MiniLM-L6-v2",
        "xlm-roberta": "BAAI/bge-reranker-v2-m3",
        "bart": "facebook/bart-large-mnli",
        "roberta": "cardiffnlp/twitter-roberta-base-sentiment-latest",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        if head_of(card.architectures) != "sequence-classification":
            return None
        if not has_tokenizer(card.files) or not (is_text(card.config, card.files) or "text_config" in card.config):
            return None
        name = card.architectures[0]
        if len(label_names(card.config)) == 1:
            return Claim(("text-ranking", "text-classification"), 100, f"{name} has a single score: a cross-encoder")
        if entailment_label(label_names(card.config)) is not None:
            both = ("text-classification", "zero-shot-classification")
            wanted = both[::-1] if both[1] in card.tasks else both
            return Claim(wanted, 100, f"{name} judges whether one text entails another")
        return Claim(("text-classification",), 100, f"{name} has {len(label_names(card.config))} labels")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_type_ids(card) else [])]
        entry = Forward(
            head="sequence-classification",
            inputs=tuple(ArraySpec(name, pad=None if name == "input_ids" else 0) for name in names),
            outputs=(Output("logits"),),
        )
        program = Program({"main": entry})
        claim = self.claim(card)
        return dict.fromkeys(claim.tasks if claim else ("text-classification",), program)

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_text_classification.session import ClassificationSession

        return ClassificationSession(context)


@hookimpl
def register_skills() -> list[Skill]:
    """Text classification."""
    return [TextClassification()]
