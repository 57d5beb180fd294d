"""Tasks whose answers point into a text: labelled spans, filled masks, answers to questions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task

__all__ = [
    "FILL_MASK",
    "MOST_QUESTIONS",
    "QUESTION_ANSWERING",
    "TOKEN_CLASSIFICATION",
    "AnswerSpan",
    "AnsweringRequest",
    "AnsweringResult",
    "Entity",
    "FilledMask",
    "MaskRequest",
    "MaskResult",
    "Question",
    "TokenRequest",
    "TokenResult",
]

MOST_QUESTIONS = 256
"""Most texts or questions of one request."""


def _refuse_crowd(name: str, entries: Any) -> None:
    if isinstance(entries, list) and len(entries) > MOST_QUESTIONS:
        raise InvalidRequest(
            f"{name} has {len(entries)} entries, and a request holds at most {MOST_QUESTIONS}. Send several requests.", param=name
        )


class TokenRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts whose tokens are labelled.

    Args:
        inputs: One text or several, at most 256.
        aggregation_strategy: `none` gives tokens. The others give groups of tokens with one label: `simple` joins what the model
            labels alike; `first`, `average` and `max` decide for whole words, by the first token, the mean or the highest score.
        ignore_labels: Labels that are left out.
        stride: Tokens that consecutive windows share of a text that is longer than the model takes; without it such a text is
            refused. Needs an aggregation.
    """

    inputs: str | list[str]
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "none"
    ignore_labels: list[str] = msgspec.field(default_factory=lambda: ["O"])
    stride: int | None = None

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs)


class Entity(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A labelled token (`entity`, and its `index` in the text) or group of tokens (`entity_group`).

    `start` and `end` count characters of the text; `word` is the tokenizer's spelling.
    """

    entity: str | None = None
    entity_group: str | None = None
    score: float
    index: int | None = None
    word: str
    start: int
    end: int


class TokenResult(msgspec.Struct, kw_only=True):
    """The entities of each input, in the order of the text."""

    results: list[list[Entity]]


TOKEN_CLASSIFICATION: Task[TokenRequest, TokenResult, Any] = Task(
    "token-classification", TokenRequest, TokenResult, summary="Tokens and spans of texts to labels"
)


class MaskRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts with masks to fill.

    Args:
        inputs: One text or several, at most 256, each with one mask token at least (`[MASK]`, `<mask>`: the checkpoint's own).
        top_k: The best so many fillings of each mask.
        targets: Only these words, each a single token of the model.
    """

    inputs: str | list[str]
    top_k: int = 5
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs)


class FilledMask(msgspec.Struct):
    """A filling: its probability, the token's id and text, and the text with it in place (other masks stay)."""

    score: float
    token: int
    token_str: str
    sequence: str


class MaskResult(msgspec.Struct, kw_only=True):
    """For each input, for each of its masks, the fillings, the best first."""

    results: list[list[list[FilledMask]]]


FILL_MASK: Task[MaskRequest, MaskResult, Any] = Task("fill-mask", MaskRequest, MaskResult, summary="Masks in texts, filled")


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """A question, and the text that holds its answer."""

    question: str
    context: str


class AnsweringRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Questions to answer from texts.

    Args:
        inputs: One question with its context, or several, at most 256.
        top_k: The best so many answers to each.
        doc_stride: Tokens that consecutive windows of a long context share.
        max_answer_len: Most tokens of an answer.
        max_seq_len: Most tokens of question and window together; the model's limit goes before it.
        handle_impossible_answer: Whether "no answer" (an empty one) may be the best.
        align_to_words: Whether answers are widened to whole words.
    """

    inputs: Question | list[Question]
    top_k: int = 1
    doc_stride: int = 128
    max_answer_len: int = 15
    max_seq_len: int = 384
    handle_impossible_answer: bool = False
    align_to_words: bool = True

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs)


class AnswerSpan(msgspec.Struct):
    """A span of the context; `start` and `end` count its characters. The empty one means that there is no answer."""

    answer: str
    score: float
    start: int
    end: int


class AnsweringResult(msgspec.Struct, kw_only=True):
    """The answers to each question, the best first."""

    results: list[list[AnswerSpan]]


QUESTION_ANSWERING: Task[AnsweringRequest, AnsweringResult, Any] = Task(
    "question-answering", AnsweringRequest, AnsweringResult, summary="Questions to spans of a text"
)
