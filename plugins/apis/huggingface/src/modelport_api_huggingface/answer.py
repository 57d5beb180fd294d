"""What every handler shares: the host, JSON answers with the headers of TGI and TEI, and plain data out of Structs."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import numpy as np
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from modelport.contract.host import Host, Principal
from modelport.contract.reply import Reply, Timings, Usage
from modelport.contract.task import Media

__all__ = ["AnyRequest", "Call", "HostDependency", "json_answer", "plain", "root_model"]

AnyRequest: TypeAlias = Request[Any, Any, Any]
HostDependency: TypeAlias = NamedDependency[
    SkipValidation[Host]
]  # to look through a protocol's methods takes longer than to call one


def root_model(request: AnyRequest) -> str:
    """The model that the configuration names for routes which name none, or nothing."""
    return str(request.scope["route_handler"].opt["huggingface_model"])


class Call:
    """One request on its way: who asks whom, since when, and what it took so far.

    Args:
        request: The HTTP request.
        host: The server.
    """

    def __init__(self, request: AnyRequest, host: Host) -> None:
        self.request = request
        self.host = host
        self.principal: Principal = host.principal(request.scope)
        self.characters = 0
        self._started = time.perf_counter()
        self._model = ""
        self._replies: list[tuple[Usage, Timings]] = []

    async def run(self, task: str, model: str, asked: msgspec.Struct) -> Any:
        """The result of a task."""
        reply: Reply[Any] = await self.host.run(task, model, asked, self.principal, self.request.scope)
        self._model = reply.model
        self._replies.append((reply.usage, reply.timings))
        return reply.result

    @property
    def usage(self) -> Usage:
        """The tokens of all that was run."""
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage, _ in self._replies),
            completion_tokens=sum(usage.completion_tokens for usage, _ in self._replies),
        )

    def begun(self, model: str) -> dict[str, str]:
        """What is known of an answer before it is whole: the backend, and how much text there is to read."""
        backend = self.host.model(self.principal, model).backend if model else ""
        return {"x-compute-type": backend or "modelport", "x-compute-characters": str(self.characters)}

    def headers(self, *, generated: bool = False) -> dict[str, str]:
        """What it took, in milliseconds (`x-compute-time`: seconds for TGI), as TGI counts for text that was `generated`, else
        as TEI does."""
        total = time.perf_counter() - self._started
        usage, timings = self.usage, [timings for _, timings in self._replies]
        prepare, queue, run = (sum(getattr(each, name) for each in timings) for name in ("prepare_s", "queue_s", "run_s"))
        common = self.begun(self._model) | {
            "x-total-time": _ms(total),
            "x-queue-time": _ms(queue),
            "x-inference-time": _ms(run),
        }
        if not generated:
            took = {"x-compute-time": _ms(total), "x-tokenization-time": _ms(prepare)}
            return common | took | {"x-compute-tokens": str(usage.prompt_tokens)}
        return common | {
            "x-compute-time": f"{total:.6f}",
            "x-validation-time": _ms(prepare),
            "x-time-per-token": _ms(run / max(usage.completion_tokens, 1)),
            "x-prompt-tokens": str(usage.prompt_tokens),
            "x-generated-tokens": str(usage.completion_tokens),
        }


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


_encoder = msgspec.json.Encoder(enc_hook=lambda value: value.tolist())  # arrays and NumPy's numbers as lists and numbers


def json_answer(value: Any, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """`value` as JSON; arrays are nested lists."""
    return Response(_encoder.encode(value), media_type="application/json", status_code=200, headers=dict(headers or {}))


def plain(value: Any) -> Any:
    """A task's result as the Hub writes results: Structs are objects, media are base64 text, and what is absent is left out."""
    if isinstance(value, Media):
        return value.url or base64.b64encode(value.data).decode("ascii")
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, msgspec.Struct):
        return {
            written: plain(each)
            for name, written, default in _fields(type(value))
            if (each := getattr(value, name)) is not default and not (default is not msgspec.NODEFAULT and each == default)
        }
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


@lru_cache(maxsize=512)
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Name, written name, and the default with which a field is left out (NODEFAULT: it never is)."""
    omits = kind.__struct_config__.omit_defaults
    return tuple(
        (field.name, field.encode_name, field.default if omits else msgspec.NODEFAULT) for field in msgspec.structs.fields(kind)
    )
