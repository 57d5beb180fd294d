"""Tasks beside feature-extraction that an embedding model does: vectors of tokens, sparse vectors, and similarity."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task
from modelport.tasks.text import MOST_INPUTS

__all__ = [
    "SENTENCE_SIMILARITY",
    "SPARSE_EMBEDDING",
    "TOKEN_EMBEDDING",
    "SimilarityInputs",
    "SimilarityRequest",
    "SimilarityResult",
    "SparseEmbeddingRequest",
    "SparseEmbeddingResult",
    "SparseValue",
    "TokenEmbeddingRequest",
    "TokenEmbeddingResult",
]


def _refuse_crowd(name: str, entries: Any) -> None:
    if isinstance(entries, list) and len(entries) > MOST_INPUTS:
        raise InvalidRequest(
            f"{name} has {len(entries)} entries, and a request holds at most {MOST_INPUTS}. Send several requests.", param=name
        )


class _TextsRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    inputs: str | list[str | int | list[int]]
    prompt_name: str | None = None
    truncate: bool = False
    truncation_direction: Literal["left", "right"] = "right"

    def __post_init__(self) -> None:
        _refuse_crowd("inputs", self.inputs)


# --------------------------------------------------------------------------------------------------- token-embedding


class TokenEmbeddingRequest(_TextsRequest, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts whose tokens are embedded, each for itself.

    Args:
        inputs: One text, several, one list of token ids, or several: at most 2048, and 16384 tokens together.
        prompt_name: As for feature-extraction; its tokens have vectors too.
        truncate: Cut an input that is too long instead of refusing it.
        truncation_direction: Which end is cut.
    """


class TokenEmbeddingResult(msgspec.Struct, kw_only=True):
    """For each input (tokens, width) float32: the model's last hidden state, special tokens included."""

    results: list[np.ndarray]


TOKEN_EMBEDDING: Task[TokenEmbeddingRequest, TokenEmbeddingResult, Any] = Task(
    "token-embedding", TokenEmbeddingRequest, TokenEmbeddingResult, summary="Texts to one vector per token"
)

# -------------------------------------------------------------------------------------------------- sparse-embedding


class SparseEmbeddingRequest(_TextsRequest, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts to embed into the vocabulary: a weight for each word that they are about.

    Args:
        inputs: As for feature-extraction, at most 2048.
        prompt_name: As for feature-extraction.
        truncate: Cut an input that is too long instead of refusing it.
        truncation_direction: Which end is cut.
    """


class SparseValue(msgspec.Struct):
    """One entry of a sparse vector that is not 0: the token's id and its weight."""

    index: int
    value: float


class SparseEmbeddingResult(msgspec.Struct, kw_only=True):
    """The entries of each input's vector that are not 0, by index."""

    results: list[list[SparseValue]]


SPARSE_EMBEDDING: Task[SparseEmbeddingRequest, SparseEmbeddingResult, Any] = Task(
    "sparse-embedding", SparseEmbeddingRequest, SparseEmbeddingResult, summary="Texts to weights of words"
)

# ------------------------------------------------------------------------------------------------ sentence-similarity


class SimilarityInputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A sentence, and the sentences that it is compared with: 1 to 2047."""

    source_sentence: str
    sentences: list[str]

    def __post_init__(self) -> None:
        _refuse_crowd("inputs.sentences", [None, *self.sentences])


class SimilarityRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sentence to compare with others.

    Args:
        inputs: The sentences.
        prompt_name: A prompt of the checkpoint to put before each.
        truncate: Cut a sentence that is too long instead of refusing it.
        truncation_direction: Which end is cut.
    """

    inputs: SimilarityInputs
    prompt_name: str | None = None
    truncate: bool = False
    truncation_direction: Literal["left", "right"] = "right"


class SimilarityResult(msgspec.Struct, kw_only=True):
    """The cosine of the source sentence's embedding and that of each sentence, in order."""

    results: list[float]


SENTENCE_SIMILARITY: Task[SimilarityRequest, SimilarityResult, Any] = Task(
    "sentence-similarity", SimilarityRequest, SimilarityResult, summary="How alike a sentence is to others"
)
