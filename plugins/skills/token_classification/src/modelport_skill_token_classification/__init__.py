"""What points into a text or a table: labelled tokens, filled masks, and answers to questions."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import ArraySpec, At, Claim, Forward, ModelCard, Output, Program, Session, SessionContext, Skill, Softmax
from modelport.tasks.table import TABLE_QUESTION_ANSWERING
from modelport.tasks.tokens import FILL_MASK, QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from modelport_hf.folder import has_tokenizer, takes_type_ids
from modelport_hf.heads import head_of, is_text
from modelport_hf.tokenizing import tokenizing

MODELPORT_CONTRACT = "1.0"

_TASKS = {
    "token-classification": "token-classification",
    "masked-lm": "fill-mask",
    "question-answering": "question-answering",
    "table-question-answering": "table-question-answering",
}
_OF_TABLES = frozenset({"tapas"})
"""Types whose head for questions, named as that for texts, points into tables."""

_OUTPUTS = {
    "token-classification": (Output("logits"),),
    "fill-mask": (Output("logits", chain=(At("mask_positions"), Softmax())),),
    "question-answering": (Output("start_logits"), Output("end_logits")),
}


_FILLERS = frozenset({"bart", "mbart", "mvp"})
"""Encoder-decoders that were trained to repeat a text with its masks filled, which is how transformers' fill-mask uses them."""


@tokenizing
class TokenClassification(Skill):
    """One head, one task."""

    name = "token_classification"
    tasks = (TOKEN_CLASSIFICATION, FILL_MASK, QUESTION_ANSWERING, TABLE_QUESTION_ANSWERING)
    untokenized = ("table-question-answering",)
    heads = {head: (task,) for head, task in _TASKS.items()}
    default_checkpoints = {
        "bert": "google-bert/bert-base-uncased",
        "distilbert": "distilbert/distilbert-base-cased-distilled-squad",
        "roberta": "FacebookAI/roberta-base",
        "xlm-roberta": "FacebookAI/xlm-roberta-base",
        "modernbert": "answerdotai/ModernBERT-base",
        "deberta-v2": "deepset/deberta-v3-base-squad2",
        "electra": "google/electra-small-generator",
        "albert": "albert/albert-base-v2",
        "camembert": "almanach/camembert-base",
        "tapas": "google/tapas-base-finetuned-wtq",
        "big_bird": "google/bigbird-roberta-base",
        "esm": "facebook/esm2_t6_8M_UR50D",
        "flaubert": "flaubert/flaubert_base_cased",
        "fnet": "google/fnet-base",
        "xlm": "FacebookAI/xlm-mlm-en-2048",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        task = _TASKS.get(_head(card) or "")
        is_of_text = is_text(card.config, card.files) or "text_config" in card.config or task == "fill-mask"
        if not has_tokenizer(card.files) or not is_of_text:
            return None
        if task is None:
            return Claim(("fill-mask",), 80, f"{card.architectures[0]} was trained to fill masks") if _fills(card) else None
        # Sparse models of sentence-transformers have the head for masked words, and another use for it.
        score = 50 if "modules.json" in card.files else 100
        return Claim((task,), score, f"{card.architectures[0]} does {task}")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        claim = self.claim(card)
        task = claim.tasks[0] if claim else "token-classification"
        head = next(head for head, served in _TASKS.items() if served == task)
        if task == "table-question-answering":
            return {task: _table_program(card)}
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_type_ids(card) else [])]
        inputs = [ArraySpec(name, pad=None if name == "input_ids" else 0) for name in names]
        if task == "fill-mask":
            inputs.append(ArraySpec("mask_positions", axes=("batch", "masks")))
        return {task: Program({"main": Forward(head=head, inputs=tuple(inputs), outputs=_OUTPUTS[task])})}

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_token_classification.answers import AnsweringSession
        from modelport_skill_token_classification.masks import MaskSession
        from modelport_skill_token_classification.tables import TableSession
        from modelport_skill_token_classification.tokens import TokenSession

        kinds: dict[str, type[Session]] = {
            "token-classification": TokenSession,
            "fill-mask": MaskSession,
            "question-answering": AnsweringSession,
            "table-question-answering": TableSession,
        }
        return kinds[context.task](context)


def _head(card: ModelCard) -> str | None:
    head = head_of(card.architectures)
    return "table-question-answering" if head == "question-answering" and card.model_type in _OF_TABLES else head


def _table_program(card: ModelCard) -> Program:
    """A model of tables takes several types of each token: its row, its column, its rank there."""
    types = ArraySpec("token_type_ids", axes=("batch", "sequence", 7))
    inputs = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"), types)
    names = ("logits", "logits_aggregation") if card.config.get("num_aggregation_labels") else ("logits",)
    entry = Forward(head="table-question-answering", inputs=inputs, outputs=tuple(Output(name) for name in names))
    return Program({"main": entry})


def _fills(card: ModelCard) -> bool:
    """Whether a model without `ForMaskedLM` in its name fills masks: XLM and Flaubert have one class for both directions."""
    name = card.architectures[0] if card.architectures else ""
    if name.endswith("WithLMHeadModel"):
        return not card.config.get("causal")
    return card.model_type in _FILLERS and head_of(card.architectures) == "conditional-generation"


@hookimpl
def register_skills() -> list[Skill]:
    """All that points into a text."""
    return [TokenClassification()]
