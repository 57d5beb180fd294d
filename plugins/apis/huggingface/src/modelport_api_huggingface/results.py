"""From a task's result to what the Hub's clients parse: the list in `results`, without the layers that a single input does not
have."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from litestar import Response

from modelport.contract.task import Media, Task
from modelport_api_huggingface.answer import json_answer, plain
from modelport_api_huggingface.payload import Payload

__all__ = ["answer_result"]

_FILES = ("text-to-speech", "text-to-audio", "text-to-image", "image-to-image", "text-to-video", "image-to-video")
"""Tasks whose answer is a file."""


def answer_result(
    task: Task[Any, Any, Any], payload: Payload, request: Any, result: Any, headers: Mapping[str, str]
) -> Response[bytes]:
    """The response: JSON, or the file that was made."""
    if task.name in _FILES and (media := _only_media(result)) is not None:
        return Response(media.data, media_type=media.mime or "application/octet-stream", status_code=200, headers=dict(headers))
    shape = _SHAPES.get(task.name)
    return json_answer(shape(payload, request, result) if shape else _listed(request, result), headers)


def _listed(request: Any, result: Any) -> Any:
    """The list in `results`; of one input, what is in it."""
    if result.__struct_fields__ != ("results",):
        return plain(result)
    kind = msgspec.structs.fields(result)[0].type
    by_input = get_origin(kind) is list and get_origin(next(iter(get_args(kind)), None)) is list
    results = plain(result.results)
    return results[0] if by_input and not _is_batch(request) else results


def _is_batch(request: Any) -> bool:
    return isinstance(getattr(request, "inputs", getattr(request, "query", None)), list)


def _only_media(result: Any) -> Media | None:
    found = [value for name in result.__struct_fields__ if isinstance(value := getattr(result, name), Media)]
    return found[0] if len(found) == 1 else None


def _always_nested(payload: Payload, request: Any, result: Any) -> Any:
    return plain(result.results)


def _vectors(payload: Payload, request: Any, result: Any) -> Any:
    """The vector of one text, or a list of them; as base64 of float32 if that was asked for."""
    vectors: np.ndarray = result.embeddings
    rows: list[Any] = list(vectors)
    if payload.asked.get("encoding_format") == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
    inputs = request.inputs
    single = isinstance(inputs, str) or isinstance(inputs[0], int)
    return rows[0] if single else rows


def _fillings(payload: Payload, request: Any, result: Any) -> Any:
    """Of a text with one mask its fillings, of more masks those of each."""
    texts = [masks[0] if len(masks) == 1 else masks for masks in plain(result.results)]
    return texts if _is_batch(request) else texts[0]


def _spans(payload: Payload, request: Any, result: Any) -> Any:
    """An answer, or a list where several were asked for."""
    answers = [spans[0] if request.top_k == 1 and spans else spans for spans in plain(result.results)]
    return answers if _is_batch(request) else answers[0]


def _tables(payload: Payload, request: Any, result: Any) -> Any:
    answers = plain(result.results)
    return answers if _is_batch(request) else answers[0]


def _transcript(payload: Payload, request: Any, result: Any) -> Any:
    """The text, and where its parts are said if that was asked for."""
    chunks = plain(getattr(result, "chunks", None))
    return {"text": result.text} | ({"chunks": chunks} if chunks else {})


def _features(payload: Payload, request: Any, result: Any) -> Any:
    return result.features


_SHAPES: Mapping[str, Callable[[Payload, Any, Any], Any]] = {
    "text-classification": _always_nested,
    "feature-extraction": _vectors,
    "fill-mask": _fillings,
    "question-answering": _spans,
    "table-question-answering": _tables,
    "automatic-speech-recognition": _transcript,
    "image-feature-extraction": _features,
}
