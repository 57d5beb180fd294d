"""What goes over the wire, without the wire: bodies and paths out, answers, deltas and errors in."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import numpy as np

from modelport import tasks as built_in
from modelport.contract.errors import ConfigurationError, ModelportError, Unavailable, WireError, error_from_wire
from modelport.contract.reply import Options, Timings, Usage
from modelport.contract.task import Task, decode_hook, encode_hook

__all__ = ["Answer", "End", "event_of", "infer_body", "model_path", "reply_of", "settings_of", "unreachable"]

_TASKS: dict[str, Task[Any, Any, Any]] = {
    task.name: task for task in (getattr(built_in, name) for name in built_in.__all__) if isinstance(task, Task)
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request.

    `result` is the task's result Struct if the task is one of `modelport.tasks`, else plain data in which arrays are NumPy's.
    `model` is the model's own name, aliases resolved.
    """

    model: str
    task: str
    result: Any
    usage: Usage = Usage()
    timings: Timings = Timings()


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of a stream."""

    model: str
    task: str
    usage: Usage = Usage()
    timings: Timings = Timings()


class _Raw(msgspec.Struct, kw_only=True):
    model: str
    task: str
    result: msgspec.Raw
    usage: Usage = Usage()
    timings: Timings = Timings()


class _ErrorBody(msgspec.Struct, kw_only=True):
    """An error as the native API writes it."""

    type: str = "internal"
    message: str = ""
    param: str | None = None
    retry_after_s: float | None = None


class _Event(msgspec.Struct, kw_only=True):
    delta: msgspec.Raw = msgspec.Raw(b"")  # empty: none
    done: bool = False
    error: _ErrorBody | None = None
    model: str = ""
    task: str = ""
    usage: Usage = Usage()
    timings: Timings = Timings()


class _Failed(msgspec.Struct):
    error: _ErrorBody


def settings_of(base_url: str, key: str | None, timeout_s: float | None) -> dict[str, Any]:
    """Arguments of httpx's clients. `timeout_s` bounds each wait for bytes, not a whole answer.

    Raises:
        ConfigurationError: `base_url` is no address.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{base_url!r} is not the address of a server. Write it as in http://127.0.0.1:8000.")
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    return {"base_url": base_url, "headers": headers, "timeout": httpx.Timeout(timeout_s, connect=10.0)}


def model_path(prefix: str, model: str, suffix: str = "") -> str:
    """The path of a route about `model`, whose id may hold a slash."""
    return f"{prefix}/{quote(model, safe='')}{suffix}"


def infer_body(request: msgspec.Struct | Mapping[str, Any], task: str | None, options: Options, *, stream: bool) -> bytes:
    """The body of POST /v1/infer/{model}."""
    chosen = {name: value for name, value in msgspec.to_builtins(options).items() if name != "request_id"}
    body: dict[str, Any] = {"request": request, "stream": stream, "arrays": "base64", "options": chosen}
    if task is not None:
        body["task"] = task
    return msgspec.json.encode(body, enc_hook=encode_hook)


def reply_of(response: httpx.Response, kind: Any = Any) -> Any:
    """A response's body as a `kind`; `Answer` gets its result typed, None is no body.

    Raises:
        ModelportError: the one that the server reported.
    """
    if response.status_code >= 400:
        raise _error_of(response)
    if kind is None:
        return None
    try:
        if kind is not Answer:
            return msgspec.json.decode(response.content, type=kind)
        raw = msgspec.json.decode(response.content, type=_Raw)
        known = _TASKS.get(raw.task)
        result = _decoded(raw.result, known.result if known else None)
        return Answer(model=raw.model, task=raw.task, result=result, usage=raw.usage, timings=raw.timings)
    except msgspec.DecodeError as error:
        raise ModelportError(
            f"The server at {response.url.host} answered something that is not the native API's: {error}."
        ) from None


def event_of(data: str, task: str | None) -> tuple[Any, End | None]:
    """A server-sent event's `data`: (delta, None), or (None, End).

    Raises:
        ModelportError: the one that the event reports.
    """
    try:
        event = msgspec.json.decode(data, type=_Event)
    except msgspec.DecodeError as error:
        raise ModelportError(f"The server streamed something that is not the native API's: {error}.") from None
    if event.error is not None:
        raise _typed(event.error)
    if event.done or not bytes(event.delta):
        return None, End(model=event.model, task=event.task, usage=event.usage, timings=event.timings)
    known = _TASKS.get(task or "")
    return _decoded(event.delta, known.delta if known else None), None


def unreachable(error: httpx.TransportError, base_url: str) -> ModelportError:
    """The error of a server that did not answer."""
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"The server at {base_url} did not answer in time. Give the client a larger `timeout_s`.")
    if isinstance(error, httpx.ConnectError):
        return Unavailable(f"No server answers at {base_url} ({error}). Start one with `modelport serve`, or check the address.")
    return Unavailable(
        f"The connection to {base_url} broke off ({type(error).__name__}). The server may have stopped; try again."
    )


def _error_of(response: httpx.Response) -> ModelportError:
    try:
        return _typed(msgspec.json.decode(response.content, type=_Failed).error)
    except msgspec.DecodeError:
        return ModelportError(
            f"The server answered {response.status_code} {response.reason_phrase} without a reason it could tell."
        )


def _typed(error: _ErrorBody) -> ModelportError:
    return error_from_wire(WireError(error.type, error.message, error.param, error.retry_after_s))


def _decoded(raw: msgspec.Raw, kind: Any) -> Any:
    if kind is not None:
        return msgspec.json.decode(raw, type=kind, dec_hook=_array_or_hook)
    return _with_arrays(msgspec.json.decode(raw))


def _array_or_hook(kind: type, value: Any) -> Any:
    tensor = _tensor(value)
    return tensor if tensor is not None else decode_hook(kind, value)


def _with_arrays(value: Any) -> Any:
    """Plain data with every `{dtype, shape, data}` turned into an array."""
    if isinstance(value, list):
        return [_with_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    tensor = _tensor(value)
    return tensor if tensor is not None else {key: _with_arrays(item) for key, item in value.items()}


def _tensor(value: Any) -> np.ndarray | None:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data"}:
        return None
    try:
        return np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"])).reshape(value["shape"])
    except (TypeError, ValueError, binascii.Error):
        return None
