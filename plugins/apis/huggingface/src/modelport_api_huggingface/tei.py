"""The routes of text-embeddings-inference, for the configured model or the only one that does the route's task."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import Response, get, post
from msgspec import Meta

from modelport.contract.api import convert_fields, decode_body
from modelport.contract.dialect import speaking
from modelport.contract.errors import InvalidRequest, PayloadTooLarge, UnsupportedParameter
from modelport.contract.host import ModelInfo
from modelport.tasks.text import (
    MOST_DOCUMENTS,
    MOST_INPUTS,
    ClassificationRequest,
    ClassificationResult,
    EmbeddingRequest,
    EmbeddingResult,
    RankingRequest,
    RankingResult,
)
from modelport.tasks.tokenization import DetokenizationRequest, TokenizationRequest, TokenizationResult
from modelport_api_huggingface.answer import AnyRequest, Call, HostDependency, json_answer, plain
from modelport_api_huggingface.choice import ENCODING, root_of
from modelport_api_huggingface.errors import Empty

__all__ = ["HANDLERS", "answer_own", "info_of", "similarities", "tokenize"]

Direction = Literal["left", "right", "Left", "Right"]
Inputs = str | list[str | int | list[int]]


def _unless_crowded(field: str, entries: Any, most: int = MOST_INPUTS) -> None:
    """Returns if a request has an input, and not too many.

    Raises:
        Empty: it has none.
        PayloadTooLarge: it has too many.
    """
    if not entries:
        raise Empty(f"`{field}` cannot be empty; send at least one text.", param=field)
    if isinstance(entries, list) and len(entries) > most and not isinstance(entries[0], int):
        raise PayloadTooLarge(f"batch size {len(entries)} > maximum allowed batch size {most}. Send several.", param=field)


def _length(entries: Any) -> int:
    """How many characters of text there are."""
    if isinstance(entries, str):
        return len(entries)
    return sum(_length(each) for each in entries) if isinstance(entries, list) else 0


# --------------------------------------------------------------------------------------------------------- embeddings


class EmbedBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Texts, or token ids, to embed."""

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None

    def fields(self) -> dict[str, Any]:
        """What was said of how to read the texts."""
        return {
            "inputs": self.inputs,
            "prompt_name": self.prompt_name,
            "truncate": bool(self.truncate),
            "truncation_direction": "left" if self.truncation_direction in ("left", "Left") else "right",
        }


@post("/embed", status_code=200, summary="Texts to vectors", tags=["tei"])
async def embed(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """A vector for each text, always in a list."""
    return await _answer(Call(request, host), "feature-extraction", await request.body())


async def _embed(call: Call, model: str, body: EmbedBody) -> Response[bytes]:
    return json_answer(await _vectors(call, model, body), call.headers())


async def _vectors(call: Call, model: str, body: EmbedBody) -> np.ndarray:
    _unless_crowded("inputs", body.inputs)
    call.characters += _length(body.inputs)
    normalize = body.normalize is not False
    asked = EmbeddingRequest(**body.fields(), normalize=normalize, dimensions=body.dimensions)
    result: EmbeddingResult = await call.run("feature-extraction", model, asked)
    return result.embeddings


@post("/embed_all", status_code=200, summary="A vector for each token", tags=["tei"])
async def embed_all(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """A vector for each token of each text."""
    return await _by_fields(request, host, "token-embedding")


@post("/embed_sparse", status_code=200, summary="Sparse vectors", tags=["tei"])
async def embed_sparse(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """The terms of each text, with their weights."""
    return await _by_fields(request, host, "sparse-embedding")


async def _by_fields(request: AnyRequest, host: HostDependency, task: str) -> Response[bytes]:
    """The answer of a task whose Structs a skill brings, by the names of their fields."""
    call = Call(request, host)
    body = decode_body(await request.body(), EmbedBody)
    _unless_crowded("inputs", body.inputs)
    for name in ("normalize", "dimensions"):
        if getattr(body, name) is not None:
            raise UnsupportedParameter(f"{name} has no meaning here; leave it out.", param=name)
    info = await root_of(call, (task,))
    call.characters += _length(body.inputs)
    asked = {name: value for name, value in body.fields().items() if value is not None}
    result = await call.run(task, info.id, convert_fields(asked, call.host.tasks()[task].request))
    return json_answer(plain(result.results), call.headers())


class SimilarityInputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A sentence, and others to compare with it."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How they are read."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None


class SimilarityBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The request of the Hub's sentence-similarity, which is TEI's too."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


@post("/similarity", status_code=200, summary="How like sentences are", tags=["tei"])
async def similarity(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """The cosine of a sentence with each of others."""
    call = Call(request, host)
    body = decode_body(await request.body(), SimilarityBody)
    info = await root_of(call, ("feature-extraction",))
    return json_answer(await similarities(call, info.id, body), call.headers())


async def similarities(call: Call, model: str, body: SimilarityBody) -> list[float]:
    """The cosine of the source sentence with each of the others."""
    said = body.parameters or SimilarityParameters()
    _unless_crowded("inputs.sentences", body.inputs.sentences, MOST_INPUTS - 1)
    every = EmbedBody(
        inputs=[body.inputs.source_sentence, *body.inputs.sentences],
        truncate=said.truncate,
        truncation_direction=said.truncation_direction,
        prompt_name=said.prompt_name,
    )
    vectors = await _vectors(call, model, every)
    return [float(cosine) for cosine in vectors[1:] @ vectors[0]]


class OpenAIBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """TEI's request in OpenAI's form. `user` is ignored, and so is a `model` that is no model's name, as TEI does."""

    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: Any = None


@post("/embeddings", status_code=200, summary="Texts to vectors, in OpenAI's form", tags=["tei"])
async def embeddings(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """A vector for each text, in OpenAI's form, with TEI's errors. /v1/embeddings is the plugin openai's."""
    call = Call(request, host)
    body = decode_body(await request.body(), OpenAIBody)
    _unless_crowded("input", body.input)
    names = {name for info in host.models(call.principal) for name in (info.id, *info.aliases)}
    model = body.model if body.model in names else (await root_of(call, ("feature-extraction",))).id
    with speaking({"inputs": "input"}):
        vectors = await _vectors(call, str(model), EmbedBody(inputs=body.input, dimensions=body.dimensions))
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": call.usage.prompt_tokens, "total_tokens": call.usage.prompt_tokens}
    return json_answer({"object": "list", "data": data, "model": model, "usage": usage}, call.headers())


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


# ------------------------------------------------------------------------------------------------ rankings and labels


class RerankBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Texts to order by their relevance to a query."""

    query: Annotated[str, Meta(min_length=1)]
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None


@post("/rerank", status_code=200, summary="Texts by relevance", tags=["tei"])
async def rerank(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Every text with its score, the most relevant first."""
    return await _answer(Call(request, host), "text-ranking", await request.body())


async def _rerank(call: Call, model: str, body: RerankBody) -> Response[bytes]:
    _unless_crowded("texts", body.texts, MOST_DOCUMENTS)
    _refuse_left(body.truncation_direction)
    call.characters += len(body.query) + _length(body.texts)
    asked = RankingRequest(query=body.query, documents=body.texts, raw_scores=bool(body.raw_scores), truncate=bool(body.truncate))
    with speaking({"documents": "texts"}):
        result: RankingResult = await call.run("text-ranking", model, asked)
    ranked: list[dict[str, Any]] = [{"index": each.index, "score": each.score} for each in result.results]
    if body.return_text:
        for each in ranked:
            each["text"] = body.texts[each["index"]]
    return json_answer(ranked, call.headers())


class PredictBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A text, a pair (a list of two), or a batch: lists of one or two texts."""

    inputs: str | list[str | list[str]]
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None


@post("/predict", status_code=200, summary="Texts to labels", tags=["tei"])
async def predict(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """The labels of a text or pair, or, of a batch, of each."""
    return await _answer(Call(request, host), "text-classification", await request.body())


async def _predict(call: Call, model: str, body: PredictBody) -> Response[bytes]:
    _unless_crowded("inputs", body.inputs)
    _refuse_left(body.truncation_direction)
    call.characters += _length(body.inputs)
    single = isinstance(body.inputs, str) or isinstance(body.inputs[0], str)
    entries: list[Any] = [_entry(body.inputs, "inputs")] if single else [
        _entry(each, f"inputs.{index}") for index, each in enumerate(body.inputs)
    ]  # fmt: skip
    asked = ClassificationRequest(
        inputs=entries, function_to_apply="none" if body.raw_scores else None, truncate=bool(body.truncate)
    )
    result: ClassificationResult = await call.run("text-classification", model, asked)
    labels = plain(result.results)
    return json_answer(labels[0] if single else labels, call.headers())


def _entry(entry: str | list[Any], param: str) -> str | tuple[str, str]:
    """A text, or a pair of texts.

    Raises:
        InvalidRequest: it is neither.
    """
    texts = [entry] if isinstance(entry, str) else entry
    if not 1 <= len(texts) <= 2 or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"`{param}` must be one text, or a pair of texts.", param=param)
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _refuse_left(direction: Direction | None) -> None:
    if direction in ("left", "Left"):
        raise UnsupportedParameter(
            "truncation_direction: texts are cut at their right end here. Leave it out.", param="truncation_direction"
        )


# ------------------------------------------------------------------------------------------------------------- tokens


class TokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Texts to tokenise."""

    inputs: str | list[str]
    add_special_tokens: bool = True


async def tokenize(call: Call, info: ModelInfo, text: bytes) -> Response[bytes]:
    """The tokens of each text, in TEI's form: always nested, and special ones without a place."""
    body = decode_body(text, TokenizeBody)
    _unless_crowded("inputs", [body.inputs] if isinstance(body.inputs, str) else body.inputs)
    call.characters += _length(body.inputs)
    asked = TokenizationRequest(inputs=body.inputs, add_special_tokens=body.add_special_tokens)
    result: TokenizationResult = await call.run("tokenization", info.id, asked)
    return json_answer(plain(result.results), call.headers())


class DecodeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The ids of one text, or of several."""

    ids: list[int | list[int]]
    skip_special_tokens: bool = True


@post("/decode", status_code=200, summary="Tokens to texts", tags=["tei"])
async def decode(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """The text of each list of ids."""
    call = Call(request, host)
    body = decode_body(await request.body(), DecodeBody)
    _unless_crowded("ids", body.ids)
    info = await root_of(call, ("detokenization",))
    asked = DetokenizationRequest(ids=body.ids, skip_special_tokens=body.skip_special_tokens)
    return json_answer((await call.run("detokenization", info.id, asked)).results, call.headers())


# ------------------------------------------------------------------------------------------------------- shared paths


async def answer_own(call: Call, info: ModelInfo, text: bytes) -> Response[bytes]:
    """The answer of an encoder to its own task: TEI's POST /."""
    return await _answer(call, next(task for task in info.tasks if task in ENCODING), text, info.id)


async def _answer(call: Call, task: str, text: bytes, model: str | None = None) -> Response[bytes]:
    """The answer to the body of one of the routes that POST / does too, of that model or the one for the task."""
    kind, answer = _OWN[task]
    body = decode_body(text, kind)
    return await answer(call, model or (await root_of(call, (task,))).id, body)


_OWN: Mapping[str, tuple[type[Any], Callable[[Call, str, Any], Awaitable[Response[bytes]]]]] = {
    "feature-extraction": (EmbedBody, _embed),
    "text-ranking": (RerankBody, _rerank),
    "text-classification": (PredictBody, _predict),
}


def info_of(info: ModelInfo) -> dict[str, Any]:
    """What TEI says of itself; null where this server has no such thing, or no bound."""
    kinds = {"text-ranking": "reranker", "text-classification": "classifier"}
    kind = next((kinds[task] for task in info.tasks if task in kinds), "embedding")
    if kind == "embedding":
        details: dict[str, Any] = {"pooling": info.pooling or None}
    else:
        details = {
            "id2label": {str(index): label for index, label in enumerate(info.labels)},
            "label2id": {label: index for index, label in enumerate(info.labels)},
        }
    return {
        "model_id": info.id,
        "model_sha": None,
        "model_dtype": None,
        "model_type": {kind: details},
        "served_model_name": info.id,
        "max_concurrent_requests": None,
        "max_input_length": info.context_length,
        "max_batch_tokens": None,
        "max_batch_requests": None,
        "max_client_batch_size": MOST_INPUTS,
        "auto_truncate": False,
        "tokenization_workers": None,
        "version": version("modelport"),
        "sha": None,
        "docker_label": None,
    }


@get("/", summary="Whether the server is there", tags=["tei"])
async def healthy(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """As /health."""
    host.principal(request.scope)
    return json_answer({})


HANDLERS = (embed, embed_all, embed_sparse, similarity, embeddings, rerank, predict, decode, healthy)
