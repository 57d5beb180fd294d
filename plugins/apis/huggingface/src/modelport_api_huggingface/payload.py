"""What a caller of the Inference API sent: JSON with `inputs` and `parameters`, or a file as it is."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from modelport.contract.api import decode_body
from modelport.contract.errors import InvalidRequest, PayloadTooLarge
from modelport.contract.task import Media
from modelport_api_huggingface.answer import AnyRequest

__all__ = ["Payload", "read_payload", "read_text"]


class Payload(msgspec.Struct, kw_only=True):
    """A request of any task.

    Args:
        inputs: What the task is done with: text, an object, or the file that the body was.
        parameters: How it is to be done.
        beside: What stood beside them; for some tasks parameters, for others more inputs.
        is_file: Whether the body was a file.
        excess: By how many bytes it was larger than JSON may be; at least as many must be files.
        stream: Whether events are wanted.
    """

    inputs: Any = None
    parameters: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    is_file: bool = False
    excess: int = 0
    stream: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """The parameters, wherever they stood."""
        return {**self.parameters, **self.beside}

    def check_files(self, file_bytes: int = 0) -> None:
        """Returns if the JSON without so many bytes of files, as they were sent, is not larger than JSON may be.

        Raises:
            PayloadTooLarge: it is.
        """
        if file_bytes < self.excess:
            raise _too_large()


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge("The JSON is larger than this server takes (limits.body_bytes), without the files that are in it.")


def _most_bytes(request: AnyRequest) -> int:
    return cast("int", request.app.request_max_body_size)  # the server always sets it


async def read_text(request: AnyRequest) -> bytes:
    """The body, which holds no files.

    Raises:
        PayloadTooLarge: it is larger than JSON may be.
    """
    body = await request.body()
    if len(body) > _most_bytes(request):
        raise _too_large()
    return body


async def read_payload(request: AnyRequest) -> Payload:
    """The request's body, as its Content-Type says; without one, what begins like an object is JSON.

    Raises:
        InvalidRequest: it is no JSON object, or has no inputs.
        PayloadTooLarge: it has more values than JSON without files can have.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/octet-stream":
        is_json = kind.endswith("json") or kind == "application/x-www-form-urlencoded" or kind.startswith("text/")
    else:
        is_json = body.lstrip()[:1] in (b"{", b"")
    if not is_json:
        return Payload(inputs=Media(data=body, mime=kind), is_file=True)
    excess = len(body) - _most_bytes(request)
    if excess > 0 and sum(map(body.count, (b",", b"[", b"{"))) > _most_bytes(request):  # a file has none of them
        raise _too_large()
    fields = {name: value for name, value in decode_body(body, dict[str, Any]).items() if value is not None}
    parameters = fields.pop("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("The field 'parameters' is wrong: it must be an object.", param="parameters")
    fields.pop("options", None)  # the old API's wishes of how to wait and to cache
    stream = fields.pop("stream", False)
    if not isinstance(stream, bool):
        raise InvalidRequest("The field 'stream' is wrong: it must be true or false.", param="stream")
    inputs = fields.pop("inputs", None)
    if inputs is None and not fields:
        raise InvalidRequest("The field 'inputs' is required.", param="inputs")
    sent = {name: value for name, value in parameters.items() if value is not None}
    return Payload(inputs=inputs, parameters=sent, beside=fields, excess=excess, stream=stream)
