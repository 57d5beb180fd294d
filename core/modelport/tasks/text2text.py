"""Tasks from text to text, under the Hub's pipeline tags and with the field names of its inference clients."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task

__all__ = [
    "MOST_TEXTS",
    "SUMMARIZATION",
    "TEXT2TEXT_GENERATION",
    "TRANSLATION",
    "GenerateParameters",
    "GeneratedText",
    "SummarizationRequest",
    "SummarizationResult",
    "Summary",
    "Text2TextRequest",
    "Text2TextResult",
    "Translation",
    "TranslationRequest",
    "TranslationResult",
]

MOST_TEXTS = 64
"""Most texts of one request."""

Truncation = Literal["do_not_truncate", "longest_first", "only_first", "only_second"]


class GenerateParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How tokens are chosen, in the names and meanings of transformers' `GenerationConfig`; by default as the checkpoint says.

    `max_length` and `min_length` count the token that the decoder starts from too, as transformers does.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    seed: int | None = None


class Text2TextRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to be rewritten.

    Args:
        inputs: One text or several, at most 64.
        truncation: Whether a text that is longer than the model takes is cut at its end; by default it is refused. There is no
            second text, so all but `do_not_truncate` mean the same.
        clean_up_tokenization_spaces: Whether spaces before marks are taken out of the answer; by default as the tokenizer says.
        generate_parameters: How tokens are chosen.
    """

    inputs: str | list[str]
    truncation: Truncation = "do_not_truncate"
    clean_up_tokenization_spaces: bool | None = None
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)

    def __post_init__(self) -> None:
        if isinstance(self.inputs, list) and len(self.inputs) > MOST_TEXTS:
            raise InvalidRequest(
                f"inputs has {len(self.inputs)} entries, and a request holds at most {MOST_TEXTS}. Send several requests.",
                param="inputs",
            )


class SummarizationRequest(Text2TextRequest, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to be made shorter; fields as `Text2TextRequest` has them."""


class TranslationRequest(Text2TextRequest, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to be translated; fields as `Text2TextRequest` has them, and languages.

    Languages are written as the checkpoint writes them: `en_XX`, `eng_Latn`, `en`.

    Args:
        src_lang: The language of the texts; by default the tokenizer's.
        tgt_lang: The language of the answers; needed by models of many languages.
    """

    src_lang: str | None = None
    tgt_lang: str | None = None


class GeneratedText(msgspec.Struct):
    """What a text became."""

    generated_text: str


class Summary(msgspec.Struct):
    """The summary of a text."""

    summary_text: str


class Translation(msgspec.Struct):
    """The translation of a text."""

    translation_text: str


class Text2TextResult(msgspec.Struct, kw_only=True):
    """One for each input."""

    results: list[GeneratedText]


class SummarizationResult(msgspec.Struct, kw_only=True):
    """One for each input."""

    results: list[Summary]


class TranslationResult(msgspec.Struct, kw_only=True):
    """One for each input."""

    results: list[Translation]


TEXT2TEXT_GENERATION: Task[Text2TextRequest, Text2TextResult, Any] = Task(
    "text2text-generation", Text2TextRequest, Text2TextResult, summary="Texts to other texts"
)
SUMMARIZATION: Task[SummarizationRequest, SummarizationResult, Any] = Task(
    "summarization", SummarizationRequest, SummarizationResult, summary="Texts to shorter ones"
)
TRANSLATION: Task[TranslationRequest, TranslationResult, Any] = Task(
    "translation", TranslationRequest, TranslationResult, summary="Texts from one language to another"
)
