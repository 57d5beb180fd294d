"""From a body of the Inference API to a task's request: by the names of the Struct's fields, so that any plugin's task fits.

What a task is asked on the Hub differs from its fields in a few places only; the tables say where.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, get_args, get_origin

import msgspec

from modelport.contract.api import convert_fields
from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Media, Task
from modelport.tasks.text import GenerationRequest
from modelport_api_huggingface.payload import Payload

__all__ = ["fits", "request_of"]

AnyTask = Task[Any, Any, Any]
Fields = dict[str, Any]

_IGNORED = {
    "table-question-answering": ("model", "padding"),
    "text-to-speech": ("use_cache",),
}
"""What the official client sends and what changes no answer here."""

_GENERATE = ("generate_parameters", "generation_parameters", "generate_kwargs")
"""What the Hub's tasks, and their older versions, call the parameters of generation."""


def fits(task: AnyTask, payload: Payload) -> bool:
    """Whether a body has what the task needs, and nothing that it does not know."""
    kind = task.request
    if kind is GenerationRequest:  # asked as TGI is
        return isinstance(payload.inputs, str) and not payload.beside
    fields = _fields_of(task, payload)
    of_kind = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    needed = {name for name, field in of_kind.items() if field.required}
    if not needed <= fields.keys() <= of_kind.keys():
        return False
    if any(isinstance(value, dict) and not _takes_object(of_kind[name].type, value) for name, value in fields.items()):
        return False
    files = {name for name, value in fields.items() if isinstance(value, Media)}
    return not payload.is_file or bool(files & _media_fields(task).keys())


def _takes_object(kind: Any, value: Fields) -> bool:
    """Whether a field of that type may be such an object."""
    if kind is Media:
        return value.keys() <= set(Media.__struct_encode_fields__)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return value.keys() <= set(kind.__struct_encode_fields__)
    return kind in (Any, dict) or get_origin(kind) is dict or any(_takes_object(part, value) for part in get_args(kind))


def request_of(task: AnyTask, payload: Payload) -> Any:
    """The task's request.

    Raises:
        InvalidRequest: a field is wrong, missing or unknown; the message lists the known ones.
        PayloadTooLarge: there is too much beside the files.
    """
    kind = task.request
    fields = _fields_of(task, payload)
    known = kind.__struct_encode_fields__
    if unknown := next((name for name in fields if name not in known), None):
        raise InvalidRequest(f"Unknown field '{unknown}'. The task '{task.name}' takes: {', '.join(known)}.", param=unknown)
    holding = _media_fields(task)
    payload.check_files(sum(_sent_bytes(value) for name, value in fields.items() if name in holding))
    for name, value in fields.items():
        if name in holding:
            several = holding[name] and isinstance(value, list)
            fields[name] = [_media(each, name) for each in value] if several else _media(value, name)
        elif isinstance(value, Media):
            raise InvalidRequest(
                f"The task '{task.name}' takes JSON: send {{\"{name}\": …}} with Content-Type application/json.", param=name
            )
    return convert_fields(fields, kind)


def _fields_of(task: AnyTask, payload: Payload) -> Fields:
    """The body's values by the names of the task's fields."""
    known = frozenset(task.request.__struct_encode_fields__)
    fields = {name: value for name, value in payload.asked.items() if name not in _IGNORED.get(task.name, ())}
    if "generate_parameters" in known:
        fields = _with_generate_parameters(task, fields, known)
    inputs = payload.inputs
    if "inputs" in known or inputs is None:
        fields |= {} if inputs is None else {"inputs": inputs}
    elif isinstance(inputs, dict):
        fields = {**inputs, **fields}
    else:  # a question about a file: the file is sent as the inputs, or as the inputs too
        file = next(iter(_media_fields(task)), "inputs")
        fields.setdefault(file, inputs)
    adapt = _ADAPTERS.get(task.name)
    return adapt(fields) if adapt else fields


def _with_generate_parameters(task: AnyTask, fields: Fields, known: frozenset[str]) -> Fields:
    """Parameters of generation by themselves, under whatever name, or scattered among the others as older clients have them."""
    inner = next(field.type for field in msgspec.structs.fields(task.request) if field.encode_name == "generate_parameters")
    names = frozenset(getattr(inner, "__struct_encode_fields__", ())) - known
    given: Fields = {}
    for name in _GENERATE:
        value = fields.pop(name, None)
        if isinstance(value, dict):
            given |= {key: each for key, each in value.items() if each is not None}
        elif value is not None:
            raise InvalidRequest(f"The field '{name}' is wrong: it must be an object.", param=name)
    given |= {name: fields.pop(name) for name in [*fields] if name in names}
    return {**fields, "generate_parameters": given} if given else fields


# ------------------------------------------------------------------------------------------------------------ adapters


def _document(fields: Fields) -> Fields:
    """The Hub's `word_boxes` are words and boxes in one list."""
    mixed = fields.pop("word_boxes", None)
    if mixed is None:
        return fields
    if not isinstance(mixed, list):
        raise InvalidRequest("The field 'word_boxes' is wrong: it must be a list of words and boxes.", param="word_boxes")
    if mixed and all(isinstance(each, list) and len(each) == 2 for each in mixed):  # pairs of a word and its box
        return {**fields, "words": [each[0] for each in mixed], "boxes": [each[1] for each in mixed]}
    words = [each for each in mixed if isinstance(each, str)]
    return {**fields, "words": words, "boxes": [each for each in mixed if not isinstance(each, str)]}


def _embedding(fields: Fields) -> Fields:
    """TEI writes directions with a capital too. `encoding_format` is the answer's."""
    if fields.pop("encoding_format", "float") not in ("float", "base64"):
        raise InvalidRequest("The field 'encoding_format' is wrong: it is 'float' or 'base64'.", param="encoding_format")
    direction = fields.get("truncation_direction")
    return fields | {"truncation_direction": direction.lower()} if isinstance(direction, str) else fields


_ADAPTERS: Mapping[str, Callable[[Fields], Fields]] = {
    "document-question-answering": _document,
    "feature-extraction": _embedding,
}


# --------------------------------------------------------------------------------------------------------------- media


@lru_cache(maxsize=512)
def _media_fields(task: AnyTask) -> Mapping[str, bool]:
    """The fields of a task's request that hold files, and whether each holds several."""
    fields = msgspec.structs.fields(task.request)
    return {field.encode_name: _holds_list(field.type) for field in fields if _holds(field.type)}


def _holds(kind: Any) -> bool:
    return kind is Media or any(_holds(part) for part in get_args(kind))


def _holds_list(kind: Any) -> bool:
    return get_origin(kind) is list or any(_holds_list(part) for part in get_args(kind))


def _sent_bytes(value: Any) -> int:
    """How many bytes of a body are files in `value`."""
    if isinstance(value, list | dict):
        return sum(map(_sent_bytes, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str) else 0


def _media(value: Any, name: str) -> Any:
    """A file from base64 text, or a data URL.

    Raises:
        InvalidRequest: the text is neither.
    """
    if not isinstance(value, str):
        return value
    if value[:5].lower() == "data:" or value[:8].lower().startswith(("http://", "https://")):
        return Media(url=value)
    try:
        return Media(data=base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            f"The field '{name}' is wrong: a file is sent as base64 text, as a data URL, or as the body itself.", param=name
        ) from None
