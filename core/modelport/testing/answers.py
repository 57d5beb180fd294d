"""Canned answers to the built-in tasks, for surfaces that are tested without a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract.errors import ModelportError
from modelport.contract.host import ModelInfo
from modelport.contract.task import Media
from modelport.tasks.synthesis import TEXT_TO_SPEECH, SpeechResult
from modelport.tasks.text import (
    FEATURE_EXTRACTION,
    TEXT_CLASSIFICATION,
    TEXT_GENERATION,
    TEXT_RANKING,
    ClassificationResult,
    EmbeddingRequest,
    EmbeddingResult,
    GenerationDelta,
    LabelScore,
    RankedDocument,
    RankingResult,
)

__all__ = ["MODELS", "TASKS", "answer"]

TASKS = (FEATURE_EXTRACTION, TEXT_CLASSIFICATION, TEXT_GENERATION, TEXT_RANKING, TEXT_TO_SPEECH)
"""The definitions that `answer` knows."""

MODELS = (
    ModelInfo(id="embedder", tasks=("feature-extraction",), state="ready", aliases=("embed",), owned_by="tests", created=1),
    ModelInfo(
        id="org/chat",
        tasks=("text-generation",),
        state="ready",
        has_chat_template=True,
        context_length=64,
        owned_by="tests",
        created=1,
    ),
    ModelInfo(id="ranker", tasks=("text-ranking", "text-classification"), owned_by="tests", created=1),
    ModelInfo(id="speaker", tasks=("text-to-speech",), owned_by="tests", created=1),
)
"""A model for each, one of them with a slash and one with an alias."""


def answer(task: str, request: Any, stream: bool = False) -> Any:
    """A plausible result of a request, or its deltas."""
    if task == "feature-extraction":
        return EmbeddingResult(embeddings=_vectors(request))
    if task == "text-classification":
        count = 1 if isinstance(request.inputs, str) else len(request.inputs)
        return ClassificationResult(results=[[LabelScore("yes", 0.75), LabelScore("no", 0.25)] for _ in range(count)])
    if task == "text-ranking":
        ranked = [RankedDocument(index, 1 / (index + 1)) for index in range(len(request.documents))]
        return RankingResult(results=ranked[: request.top_n])
    if task == "text-to-speech":
        return SpeechResult(audio=Media(data=b"RIFF" * 9000, mime=f"audio/{request.format}"), sampling_rate=16_000)
    if task == "text-generation":
        deltas = [GenerationDelta(index=index, text=text) for text in ("Hel", "lo") for index in range(request.n)]
        deltas += [GenerationDelta(index=index, finish_reason="stop") for index in range(request.n)]
        assert TEXT_GENERATION.join is not None
        return deltas if stream else TEXT_GENERATION.join(deltas)
    raise ModelportError(f"There is no canned answer for '{task}'.")


def _vectors(request: EmbeddingRequest) -> np.ndarray:
    inputs = request.inputs
    one = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))
    count = 1 if one else len(inputs)
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)[:, : request.dimensions]
