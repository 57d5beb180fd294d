"""POST /v1/rerank and /v2/rerank: the union of Jina's and Cohere's answers."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

import msgspec
from litestar import Response, post
from msgspec import UNSET, Meta, UnsetType

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.contract.reply import Reply
from modelport.tasks.text import RankingRequest, RankingResult
from modelport_api_openai.answer import AnyRequest, HostDependency, TokenUsage, answer
from modelport_api_openai.errors import invalid

__all__ = ["RerankBody", "rerank_v1", "rerank_v2"]

_NAMES = {"max_tokens_per_document": "max_tokens_per_doc"}


class RerankBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The request. A document is a text, or an object whose `text` counts and whose other fields come back with it.

    What is too long is cut, as both services do. Without `return_documents`, /v1 returns them (Jina's default) and /v2
    does not (Cohere's).
    """

    model: str
    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[str | dict[str, Any]], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=1)] | None = None
    user: Any = None

    def to_task(self) -> RankingRequest:
        """The request in the task's terms.

        Raises:
            InvalidRequest: for a document without text.
        """
        return RankingRequest(
            query=self.query,
            documents=[_text(document, position) for position, document in enumerate(self.documents)],
            top_n=self.top_n,
            max_tokens_per_document=self.max_tokens_per_doc,
            truncate=True,
        )


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A document's position in the request, its score in [0, 1], and itself if it was asked for."""

    index: int
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET


class RankedList(msgspec.Struct, frozen=True, kw_only=True):
    """The documents, the most relevant first. `id` and `meta` are Cohere's, `model`, `object` and `usage` Jina's."""

    id: str
    object: str = "list"
    model: str
    results: list[Ranked]
    usage: TokenUsage
    meta: dict[str, Any]


@post("/v1/rerank", status_code=200, summary="Documents by relevance", tags=["openai"])
async def rerank_v1(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Documents by their relevance to a query; they come back with their scores unless refused."""
    return await _rerank(request, host, "1", with_documents=True)


@post("/v2/rerank", status_code=200, summary="Documents by relevance", tags=["openai"])
async def rerank_v2(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Documents by their relevance to a query; they come back with their scores only if asked for."""
    return await _rerank(request, host, "2", with_documents=False)


async def _rerank(request: AnyRequest, host: HostDependency, version: str, *, with_documents: bool) -> Response[bytes]:
    started = time.perf_counter()
    principal = host.principal(request.scope)
    body = decode_body(await request.body(), RerankBody)
    with speaking(_NAMES):
        reply: Reply[RankingResult] = await host.run("text-ranking", body.model, body.to_task(), principal, request.scope)
    if body.return_documents is not None:
        with_documents = body.return_documents
    ranked = [
        Ranked(
            index=one.index,
            relevance_score=one.score,
            document=_document(body.documents[one.index]) if with_documents else UNSET,
        )
        for one in reply.result.results
    ]
    return answer(
        RankedList(
            id=str(uuid.uuid4()),
            model=reply.model,
            results=ranked,
            usage=TokenUsage.of_input(reply.usage),
            meta={"api_version": {"version": version}, "tokens": {"input_tokens": reply.usage.prompt_tokens}},
        ),
        started,
    )


def _text(document: str | dict[str, Any], position: int) -> str:
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        param = f"documents.{position}.text"
        raise invalid(param, f"The field '{param}' is required: a document is a text, or an object with a 'text'.")
    return text


def _document(document: str | dict[str, Any]) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document
