"""What every handler of this dialect shares: the host, decoding, and a timed JSON answer."""

from __future__ import annotations

import time
import uuid
from importlib.metadata import version
from typing import Annotated, Any, TypeAlias

import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from msgspec import UNSET, Meta, UnsetType

from modelport.contract.host import Host
from modelport.contract.reply import Usage
from modelport.tasks.text import MOST_INPUTS
from modelport_api_openai.errors import invalid

__all__ = [
    "FINGERPRINT",
    "AnyRequest",
    "CachedTokens",
    "HostDependency",
    "TextInput",
    "TokenUsage",
    "add_usage",
    "answer",
    "elapsed",
    "fresh_id",
    "split_input",
]

AnyRequest: TypeAlias = Request[Any, Any, Any]
HostDependency: TypeAlias = NamedDependency[
    SkipValidation[Host]
]  # to look through a protocol's methods takes longer than to call one

FINGERPRINT = f"modelport-{version('modelport')}"
"""What generated an answer. OpenAI's own client may go without, TGI's may not."""

TokenId: TypeAlias = Annotated[int, Meta(ge=0)]
TextInput: TypeAlias = str | list[str | TokenId | list[TokenId]]
"""A text, several, the token ids of one, or the token ids of several; `split_input` refuses mixtures."""


class CachedTokens(msgspec.Struct, frozen=True):
    """Prompt tokens that a cache answered."""

    cached_tokens: int = 0


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's count of tokens; embeddings and rerank have no completion."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET
    prompt_tokens_details: CachedTokens | UnsetType = UNSET

    @classmethod
    def of_input(cls, usage: Usage) -> TokenUsage:
        """The count of a request that generates nothing."""
        return cls(prompt_tokens=usage.prompt_tokens, total_tokens=usage.prompt_tokens)

    @classmethod
    def of_generation(cls, usage: Usage) -> TokenUsage:
        """The count of a request that generates."""
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details=CachedTokens(usage.cached_tokens),
        )


def add_usage(usages: list[Usage]) -> Usage:
    """The sum over the host calls of one request."""
    if len(usages) == 1:
        return usages[0]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )


def fresh_id(prefix: str) -> str:
    """An id of an answer, as `chatcmpl-…`."""
    return f"{prefix}-{uuid.uuid4().hex}"


def elapsed(started: float) -> dict[str, str]:
    """The header that says how long it took since `started` (`time.perf_counter()`)."""
    return {"openai-processing-ms": str(round((time.perf_counter() - started) * 1000))}


def answer(value: msgspec.Struct, started: float) -> Response[bytes]:
    """`value` as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json", status_code=200, headers=elapsed(started))


def split_input(value: TextInput, field: str) -> dict[str, str | list[int]]:
    """The single inputs of the request's field `field`, texts or lists of token ids, each by its place: `field`, or `field.1`.

    Raises:
        InvalidRequest: if there is none, there are too many, or texts and ids are mixed.
    """
    if isinstance(value, str):
        return {field: value}
    if not value:
        raise invalid(field, f"The field '{field}' is an empty list. Send at least one text.")
    kinds = {type(item) for item in value}
    if len(kinds) > 1:
        raise invalid(field, f"The field '{field}' mixes kinds. Send texts, or token ids, or lists of token ids.")
    if kinds == {int}:
        return {field: value}  # type: ignore[dict-item]
    if len(value) > MOST_INPUTS:
        raise invalid(
            field, f"The field '{field}' has {len(value)} entries; a request holds at most {MOST_INPUTS}. Send several."
        )
    return {f"{field}.{index}": item for index, item in enumerate(value)}  # type: ignore[misc]
