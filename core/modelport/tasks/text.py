"""The built-in tasks on text, under the Hub's pipeline tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np

from modelport.contract.errors import InvalidRequest
from modelport.contract.generate import Constraint, FinishReason
from modelport.contract.task import Task

__all__ = [
    "FEATURE_EXTRACTION",
    "MOST_DOCUMENTS",
    "MOST_INPUTS",
    "MOST_LOGPROBS",
    "TEXT_CLASSIFICATION",
    "TEXT_GENERATION",
    "TEXT_RANKING",
    "ClassificationRequest",
    "ClassificationResult",
    "EmbeddingRequest",
    "EmbeddingResult",
    "GeneratedChoice",
    "GenerationDelta",
    "GenerationRequest",
    "GenerationResult",
    "LabelScore",
    "Message",
    "RankedDocument",
    "RankingRequest",
    "RankingResult",
    "TextToken",
    "ToolCall",
    "ToolCallDelta",
    "ToolFunction",
]

MOST_INPUTS = 2048
"""Most inputs, or prompts, of one request, as OpenAI has it."""

MOST_DOCUMENTS = 1000
"""Most documents of one request for a ranking, as Cohere advises."""

MOST_LOGPROBS = 20
"""Most of the likeliest tokens that are reported per step, as OpenAI's chat has it."""


def _refuse_crowd(field: str, entries: str | list[Any], most: int) -> None:
    """Returns if `entries` are not too many; numbers alone are the token ids of one input."""
    if isinstance(entries, list) and len(entries) > most and not isinstance(entries[0], int):
        raise InvalidRequest(
            f"{field} has {len(entries)} entries, and a request holds at most {most}. Send several requests.", param=field
        )


# ------------------------------------------------------------------------------------------------ feature-extraction


class EmbeddingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to embed.

    Args:
        inputs: One text, several, one list of token ids, or several: at most 2048.
        normalize: Whether to divide by the L2 norm; `None` leaves it to the checkpoint.
        dimensions: Keep the first so many dimensions, normalised again (matryoshka).
        prompt_name: A prompt of the checkpoint (`query`, `passage`) to put before each text.
        truncate: Cut an input that is too long instead of refusing it.
        truncation_direction: Which end is cut.
    """

    inputs: str | list[str | int | list[int]]
    normalize: bool | None = None
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate: bool = False
    truncation_direction: Literal["left", "right"] = "right"

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs, MOST_INPUTS)


class EmbeddingResult(msgspec.Struct, kw_only=True):
    """One row per input, in order: (inputs, width) float32."""

    embeddings: np.ndarray


FEATURE_EXTRACTION: Task[EmbeddingRequest, EmbeddingResult, Any] = Task(
    "feature-extraction", EmbeddingRequest, EmbeddingResult, summary="Texts to vectors"
)

# ---------------------------------------------------------------------------------------------- text-classification


class ClassificationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts, or pairs of texts, to label.

    Args:
        inputs: One text or several, at most 2048. A two-element list of texts inside the list is a pair.
        top_k: The best so many labels; `None` gives all.
        function_to_apply: What turns logits into scores; `None` leaves it to the checkpoint (softmax, or sigmoid for one
            label and for multi-label problems).
        truncate: Cut an input that is too long instead of refusing it.
    """

    inputs: str | list[str | tuple[str, str]]
    top_k: int | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs, MOST_INPUTS)


class LabelScore(msgspec.Struct, array_like=False):
    """A label and its score."""

    label: str
    score: float


class ClassificationResult(msgspec.Struct, kw_only=True):
    """The labels of each input, best first."""

    results: list[list[LabelScore]]


TEXT_CLASSIFICATION: Task[ClassificationRequest, ClassificationResult, Any] = Task(
    "text-classification", ClassificationRequest, ClassificationResult, summary="Texts to labels"
)

# ------------------------------------------------------------------------------------------------------ text-ranking


class RankingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Documents to order by their relevance to a query.

    Args:
        query: The query.
        documents: At least one text, and at most 1000.
        top_n: The best so many; `None` gives all.
        raw_scores: Logits instead of scores in [0, 1].
        max_tokens_per_document: Cut each document to so many tokens.
        truncate: Cut a pair that is too long instead of refusing it.
    """

    query: str
    documents: list[str]
    top_n: int | None = None
    raw_scores: bool = False
    max_tokens_per_document: int | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        _refuse_crowd("documents", self.documents, MOST_DOCUMENTS)


class RankedDocument(msgspec.Struct):
    """The position of a document in the request, and its score."""

    index: int
    score: float


class RankingResult(msgspec.Struct, kw_only=True):
    """Documents, the most relevant first."""

    results: list[RankedDocument]


TEXT_RANKING: Task[RankingRequest, RankingResult, Any] = Task(
    "text-ranking", RankingRequest, RankingResult, summary="Documents by relevance to a query"
)

# --------------------------------------------------------------------------------------------------- text-generation


class ToolFunction(msgspec.Struct, omit_defaults=True):
    """A function call: its name, and its arguments as JSON text."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call of a tool by the model."""

    id: str
    function: ToolFunction
    type: Literal["function"] = "function"


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn of a conversation. `content` is text, or parts as the chat template knows them."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class GenerationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text, or a conversation, to continue.

    Exactly one of `prompt` and `messages`. Sampling fields have transformers' names and meanings; `None` means the
    checkpoint's generation_config.json.

    Args:
        prompt: Text or token ids, continued as they are.
        messages: A conversation, put through the checkpoint's chat template.
        tools: JSON Schemas of functions, for templates that know them (OpenAI's form).
        tool_choice: `none`, `auto`, `required` or a function's name.
        template_options: Further variables of the chat template.
        continue_final_message: Continue the last message instead of starting a new one.
        max_new_tokens: `None`: up to the context length.
        stop: Texts that end a choice; they are not part of the output.
        n: How many choices; choice i draws from seed + i.
        logprobs: Report so many of the likeliest tokens per step, at most 20; 0 reports only the chosen one.
        prompt_logprobs: The same for the prompt's tokens.
        echo: Put the prompt before the text.
        constraint: A language that the output must be in.
        adapter: The name of a LoRA adapter.
        cache_salt: Prefixes are shared only between requests of one salt.
        truncate: Cut a prompt that is too long at its left end instead of refusing it.
    """

    prompt: str | list[int] | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | None = None
    template_options: dict[str, Any] | None = None
    continue_final_message: bool = False
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    ignore_eos: bool | None = None
    seed: int | None = None
    stop: list[str] | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False
    constraint: Constraint | None = None
    adapter: str | None = None
    cache_salt: str = ""
    truncate: bool = False

    def __post_init__(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= MOST_LOGPROBS:
                raise InvalidRequest(f"{name} is {count}; it must be from 0 to {MOST_LOGPROBS}.", param=name)


class TextToken(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A token with its text and natural-log probability. `data` are its bytes, which may be part of a character; the text that is
    generated leaves `special` ones out."""

    id: int
    text: str
    logprob: float | None = None
    special: bool = False
    data: bytes = b""
    top: list[TextToken] | None = None


class ToolCallDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A piece of a tool call: id and name once, then pieces of the arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class GenerationDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one choice gained. `finish_reason` ends the choice; `stop_sequence` is the text that ended it, if one did.

    `prompt_tokens` come with the first delta of a choice if `prompt_logprobs` was asked.
    """

    index: int = 0
    text: str = ""
    tokens: list[TextToken] | None = None
    prompt_tokens: list[TextToken] | None = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning: str = ""
    finish_reason: FinishReason | Literal["tool_calls"] | None = None
    stop_sequence: str | None = None


class GeneratedChoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One finished choice."""

    index: int = 0
    text: str = ""
    finish_reason: FinishReason | Literal["tool_calls"] = "stop"
    tokens: list[TextToken] | None = None
    prompt_tokens: list[TextToken] | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning: str = ""
    stop_sequence: str | None = None


class GenerationResult(msgspec.Struct, kw_only=True):
    """All choices, by index."""

    choices: list[GeneratedChoice]


def merge_generation(first: GenerationDelta, second: GenerationDelta) -> GenerationDelta | None:
    """One delta of two consecutive ones of the same choice; None if they belong to different choices."""
    if first.index != second.index or first.finish_reason is not None:
        return None
    return GenerationDelta(
        index=first.index,
        text=first.text + second.text,
        tokens=_both(first.tokens, second.tokens),
        prompt_tokens=_both(first.prompt_tokens, second.prompt_tokens),
        tool_calls=_both(first.tool_calls, second.tool_calls),
        reasoning=first.reasoning + second.reasoning,
        finish_reason=second.finish_reason,
        stop_sequence=second.stop_sequence,
    )


def join_generation(deltas: Iterable[GenerationDelta]) -> GenerationResult:
    """The result that a plain request would have got."""
    choices: dict[int, GeneratedChoice] = {}
    for delta in deltas:
        choice = choices.setdefault(delta.index, GeneratedChoice(index=delta.index))
        choice.text += delta.text
        choice.reasoning += delta.reasoning
        choice.tokens = _both(choice.tokens, delta.tokens)
        choice.prompt_tokens = _both(choice.prompt_tokens, delta.prompt_tokens)
        for piece in delta.tool_calls or ():
            calls = choice.tool_calls = choice.tool_calls or []
            while len(calls) <= piece.index:
                calls.append(ToolCall(id="", function=ToolFunction("")))
            call = calls[piece.index]
            call.id, call.function.name = piece.id or call.id, piece.name or call.function.name
            call.function.arguments += piece.arguments
        if delta.finish_reason is not None:
            choice.finish_reason, choice.stop_sequence = delta.finish_reason, delta.stop_sequence
    return GenerationResult(choices=[choices[index] for index in sorted(choices)])


def _both(first: list[Any] | None, second: list[Any] | None) -> list[Any] | None:
    return first + second if first and second else first or second


TEXT_GENERATION: Task[GenerationRequest, GenerationResult, GenerationDelta] = Task(
    "text-generation",
    GenerationRequest,
    GenerationResult,
    GenerationDelta,
    join_generation,
    merge_generation,
    summary="Texts and conversations, continued",
)
