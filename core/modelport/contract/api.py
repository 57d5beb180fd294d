"""API surfaces: what a `modelport.apis` plugin registers.

A surface decodes its dialect into a task's request and encodes the result; it knows no model. Its `__init__.py` holds the
`Api` and imports nothing heavy; the handlers live in a module that `routes` imports::

    class Echo(Api):
        name = "echo"

        def routes(self):
            from modelport_api_echo.handlers import echo
            return [echo]

Handlers are Litestar's. They get the host as a dependency, `host: NamedDependency[Host]`, and say `opt={"scope": "admin"}` if
an `infer` key must not reach them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from modelport.contract.errors import InvalidRequest, ModelportError
from modelport.contract.task import decode_hook

if TYPE_CHECKING:
    from modelport.contract.host import Host

__all__ = ["RESERVED_NAMES", "Api", "ErrorReply", "convert_fields", "decode_body", "model_id", "model_route", "status_of"]

T = TypeVar("T")

RESERVED_NAMES = frozenset({"info", "placement", "load", "unload", "ready", "versions"})
"""Words that cannot be the last part of a model's name: they follow names in routes."""

_STATUS = {
    "invalid": 400,
    "unsupported": 400,
    "too_long": 400,
    "wrong_task": 400,
    "too_large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "overloaded": 429,
    "unavailable": 503,
    "deadline": 504,
    "cancelled": 499,
    "model_failed": 500,
    "device_failed": 503,
    "out_of_memory": 503,
    "not_numbers": 503,
    "configuration": 503,
    "internal": 500,
}


def status_of(error: ModelportError) -> int:
    """The HTTP status of an error's kind; a surface may choose another."""
    return _STATUS.get(error.kind, 500)


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """An error in a dialect. The core adds `x-request-id` and, where known, `Retry-After`."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = {}


class Api:
    """The base of every surface. One instance lives in the server.

    Attributes:
        name: Its name in configuration, equal to its entry point's.
        prefixes: Paths whose errors it words even where no route of its own matches (`/v1/chat`).
    """

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        """`options` is the table `apis.NAME` of the configuration."""
        self.options = options or {}

    def routes(self) -> Sequence[Any]:
        """Litestar handlers, controllers, routers or mounts. Called once, at start, only if the surface is enabled."""
        return ()

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        """`error` in this dialect, for a request to `path`; None leaves it to the plain form. Must not raise."""
        return None

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Runs around the server's life, for what a surface must open and close."""
        yield

    async def serve(self, host: Host) -> None:
        """Another transport (gRPC): runs until cancelled, authenticates through `host.authenticate`. Default: nothing."""


def model_route(prefix: str, suffix: str = "") -> list[str]:
    """The two path templates of a route about one model, whose id may hold one slash.

    >>> model_route("/v1/models", "/info")
    ['/v1/models/{name:str}/info', '/v1/models/{owner:str}/{name:str}/info']

    A handler of both gets the id as `model_id(**request.path_params)`. A slash written as `%2F` arrives as the second form.
    """
    return [f"{prefix}/{{name:str}}{suffix}", f"{prefix}/{{owner:str}}/{{name:str}}{suffix}"]


def model_id(name: str, owner: str | None = None) -> str:
    """The model id of a `model_route`'s path parameters."""
    return f"{owner}/{name}" if owner else name


def decode_body(body: bytes, kind: type[T], prefix: str = "") -> T:
    """The JSON text `body` as a `kind`, usually a Struct.

    Raises:
        InvalidRequest: with a sentence about what is wrong and `param` naming the field, dotted (`messages.0.role`), after
            `prefix` if there is one.
    """
    if not body.strip():
        raise InvalidRequest("The body is empty. Send JSON, with `Content-Type: application/json`.")
    try:
        value: T = _decoder(kind).decode(body)  # type: ignore[arg-type]
        if _LONG_DIGITS.search(body):
            _refuse_wide(value, (prefix,) if prefix else ())
        return value
    except msgspec.ValidationError as error:
        raise _invalid(str(error), prefix) from None
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise InvalidRequest(f"The body is not valid JSON: {reason}.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid JSON: it is not UTF-8 text.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def convert_fields(value: Any, kind: type[T], prefix: str = "") -> T:
    """`value`, made of dictionaries, lists and Structs, as a `kind`: for requests that a surface puts together itself.

    Raises:
        InvalidRequest: as `decode_body` does.
    """
    try:
        _refuse_wide(value, (prefix,) if prefix else ())
        return msgspec.convert(value, kind, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), prefix) from None


@lru_cache(maxsize=512)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=decode_hook)


_LONG_DIGITS = re.compile(rb"[0-9]{19}")


def _refuse_wide(value: Any, path: tuple[str, ...]) -> None:
    """Returns if no integer in `value` is wider than what can be sent to the process that runs the model."""
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            param = ".".join(path)
            raise InvalidRequest(f"The field '{param}' is wrong: an integer must fit 64 bits.", param=param or None)
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(key, int):
                _refuse_wide(key, path)
            _refuse_wide(each, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for position, each in enumerate(value):
            _refuse_wide(each, (*path, str(position)))
    elif isinstance(value, msgspec.Struct):
        for name, field in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
            _refuse_wide(getattr(value, field), (*path, name))


_AT = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_FIELD = re.compile(r"^Object (?P<how>missing required|contains unknown) field `(?P<field>[^`]*)`$")


def _invalid(text: str, prefix: str) -> InvalidRequest:
    """msgspec's complaint as an error whose `param` is the field's dotted path."""
    at = _AT.search(text)
    steps = re.findall(r"[^.\[\]]+", at["path"]) if at else []
    path = [*([prefix] if prefix else []), *(step for step in steps if step != "...")]
    what = text[: at.start()] if at else text
    field = _FIELD.match(what)
    if field:
        param = ".".join([*path, field["field"]])
        missing = field["how"].startswith("missing")
        return InvalidRequest(f"The field '{param}' is required." if missing else f"Unknown field '{param}'.", param=param)
    param = ".".join(path)
    where = f"The field '{param}' is wrong" if param else "The body is wrong"
    return InvalidRequest(f"{where}: {what[:1].lower()}{what[1:]}.".replace("`", ""), param=param or None)
