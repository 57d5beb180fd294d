"""POST /v1/embeddings."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import Response, post
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.dialect import speaking
from modelport.tasks.text import EmbeddingRequest
from modelport_api_openai.answer import AnyRequest, HostDependency, TextInput, TokenUsage, answer, split_input
from modelport_api_openai.errors import invalid

__all__ = ["EmbeddingsBody", "create_embeddings"]

_NAMES = {"inputs": "input", "truncate": "truncate_prompt_tokens"}


class EmbeddingsBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The request. `normalize`, `prompt_name` and `truncate_prompt_tokens` (−1: the model's limit) are additions.

    Without `encoding_format` the answer is floats; the official client asks for base64 when its caller asks for nothing.
    """

    model: str
    input: TextInput
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    normalize: bool | None = None
    prompt_name: str | None = None
    truncate_prompt_tokens: Literal[-1] | None = None
    user: Any = None

    def to_task(self) -> EmbeddingRequest:
        """The request in the task's terms.

        Raises:
            InvalidRequest: for an input that holds nothing.
        """
        for place, one in split_input(self.input, "input").items():
            if not one:
                raise invalid(place, f"The field '{place}' is empty. There is nothing to embed; leave it out or fill it.")
        return EmbeddingRequest(
            inputs=self.input,
            dimensions=self.dimensions,
            normalize=self.normalize,
            prompt_name=self.prompt_name,
            truncate=self.truncate_prompt_tokens is not None,
        )


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One vector: a list of numbers, or bytes of little-endian float32, which JSON carries as base64."""

    object: str = "embedding"
    index: int
    embedding: list[float] | memoryview


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the inputs."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: TokenUsage


@post("/v1/embeddings", status_code=200, summary="Texts to vectors", tags=["openai"])
async def create_embeddings(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Texts to vectors."""
    started = time.perf_counter()
    principal = host.principal(request.scope)
    body = decode_body(await request.body(), EmbeddingsBody)
    with speaking(_NAMES):
        reply = await host.run("feature-extraction", body.model, body.to_task(), principal, request.scope)
    rows = np.ascontiguousarray(reply.result.embeddings, dtype="<f4")
    vectors = [row.data for row in rows] if body.encoding_format == "base64" else rows.tolist()
    data = [Embedding(index=index, embedding=vector) for index, vector in enumerate(vectors)]
    return answer(EmbeddingList(data=data, model=reply.model, usage=TokenUsage.of_input(reply.usage)), started)
