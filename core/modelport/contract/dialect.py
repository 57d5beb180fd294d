"""Errors about the fields that a caller knows: what a task calls `inputs` may be `prompt` in the dialect it was asked in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from modelport.contract.errors import ModelportError, error_from_wire

__all__ = ["renamed", "speaking"]


def renamed(error: ModelportError, names: Mapping[str, str]) -> ModelportError:
    """`error` about the field that the caller knows, not the task's.

    `names` maps a task's fields to the dialect's; what it does not hold is called the same in both. The message gets the new
    name where it is the subject, else before it: inside, the old one may be a key of the configuration.
    """
    if error.param is None:
        return error
    field, dot, rest = error.param.partition(".")
    name = names.get(field, field)
    if name == field:
        return error
    message, count = re.subn(rf"\A(['`\"]?){re.escape(field)}\b", rf"\g<1>{name}", error.message)
    if not count:
        message = f"{name}: {error.message}"
    return error_from_wire(msgspec.structs.replace(error.to_wire(), param=f"{name}{dot}{rest}", message=message))


@contextmanager
def speaking(names: Mapping[str, str]) -> Iterator[None]:
    """Whatever is raised inside names the fields that the caller knows; see `renamed`."""
    try:
        yield
    except ModelportError as error:
        raise renamed(error, names) from error
