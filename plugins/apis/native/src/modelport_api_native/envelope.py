"""The body of POST /v1/infer/{model}: a task's request, bare or in an envelope.

Bare: the request's own fields, and beside them `task`, `options`, `stream` and `arrays`, where wanted::

    {"inputs": ["a", "b"], "normalize": true}
    {"task": "text-generation", "prompt": "Once", "max_new_tokens": 16, "stream": true}

In an envelope, which any task can use and a task with a field of one of those names must::

    {"request": {"inputs": ["a", "b"]}, "task": "feature-extraction", "options": {"deadline_s": 2}}
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from modelport.contract.api import decode_body
from modelport.contract.errors import InvalidRequest
from modelport.contract.reply import Options
from modelport.contract.task import Task

__all__ = ["Envelope", "read_envelope", "read_request"]

Fields = dict[str, msgspec.Raw]


class InferOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every task's request may carry: `contract.reply.Options` without the id, which is a header here."""

    deadline_s: Annotated[float, Meta(gt=0)] | None = None
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0
    hardware: str = ""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything but the request, which stays JSON text until its task is known."""

    task: str | None = None
    options: InferOptions = InferOptions()
    stream: bool = False
    arrays: Literal["lists", "base64"] = "lists"
    request: msgspec.Raw = msgspec.Raw(b"{}")

    def for_host(self, request_id: str) -> Options:
        """The options as the host takes them."""
        chosen = self.options
        return Options(deadline_s=chosen.deadline_s, priority=chosen.priority, hardware=chosen.hardware, request_id=request_id)


_OUTER = ("task", "options", "stream", "arrays")


def read_envelope(body: bytes) -> tuple[Envelope, str]:
    """The envelope of `body`, and the prefix of the request's fields in errors (`request`, or nothing if it is bare).

    Raises:
        InvalidRequest: the body is no JSON object, or a field of the envelope is wrong.
    """
    fields = decode_body(body, Fields)
    if "request" in fields:
        return decode_body(body, Envelope), "request"
    if not any(name in fields for name in _OUTER):
        return Envelope(request=msgspec.Raw(body)), ""
    outer = {name: fields.pop(name) for name in _OUTER if name in fields}
    outer["request"] = msgspec.Raw(msgspec.json.encode(fields))
    return decode_body(msgspec.json.encode(outer), Envelope), ""


def read_request(envelope: Envelope, task: Task[Any, Any, Any], prefix: str) -> Any:
    """The task's request Struct.

    Raises:
        InvalidRequest: a field is wrong, missing or unknown; the message lists the known ones.
    """
    text = bytes(envelope.request)
    kind = task.request
    known = kind.__struct_encode_fields__
    try:
        if not kind.__struct_config__.forbid_unknown_fields and not kind.__struct_config__.array_like:
            # A typing error in an optional field must not pass in silence, whatever the Struct allows.
            for name in decode_body(text, Fields, prefix):
                if name not in known:
                    param = f"{prefix}.{name}" if prefix else name
                    raise InvalidRequest(f"Unknown field '{param}'.", param=param)
        return decode_body(text, kind, prefix)
    except InvalidRequest as error:
        if error.message.startswith("Unknown field"):
            listed = ", ".join(known)
            raise InvalidRequest(f"{error.message} The task '{task.name}' takes: {listed}.", param=error.param) from None
        raise
