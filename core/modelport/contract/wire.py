"""Structs as bytes between server and worker: a msgpack head, and the buffers of its arrays beside it, uncopied.

An array in a Struct becomes an extension in the head that holds dtype, shape and the index of its buffer. The transport sends
head and buffers in one piece and hands views of what it received to `decode`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from modelport.contract.task import decode_hook

__all__ = ["decode", "encode"]

T = TypeVar("T")
_ARRAY = 1
_HEADER = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], int])


def encode(value: Any) -> tuple[bytes, list[memoryview]]:
    """(head, buffers) of any Struct of the contract or of a task. Buffers alias the arrays' memory."""
    buffers: list[memoryview] = []

    def hook(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            array = np.ascontiguousarray(item)
            buffers.append(array.reshape(-1).view(np.uint8).data)
            header = msgspec.msgpack.encode((str(item.dtype), item.shape, len(buffers) - 1))
            return msgspec.msgpack.Ext(_ARRAY, header)
        if isinstance(item, np.generic):
            return item.item()
        raise NotImplementedError(f"cannot send a {type(item).__name__}")

    return msgspec.msgpack.encode(value, enc_hook=hook), buffers


def decode(head: bytes | memoryview, buffers: Sequence[bytes | memoryview], kind: type[T]) -> T:
    """The reverse of `encode`. Arrays are read-only views of `buffers`.

    Raises:
        msgspec.ValidationError: if the head does not describe a `kind`.
    """
    _received.buffers = buffers
    try:
        value: T = _decoder(kind).decode(head)  # type: ignore[arg-type]
        return value
    finally:
        _received.buffers = ()


class _Received(threading.local):
    """The buffers of the frame that this thread decodes."""

    buffers: Sequence[bytes | memoryview] = ()


_received = _Received()


@functools.lru_cache(256)
def _decoder(kind: type) -> msgspec.msgpack.Decoder[Any]:
    """Made once for each type: to make one takes longer than to decode a request."""
    return msgspec.msgpack.Decoder(kind, ext_hook=_array, dec_hook=_pass_arrays)


def _array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise msgspec.ValidationError(f"unknown extension {code}")
    dtype, shape, index = _HEADER.decode(data)
    return np.frombuffer(_received.buffers[index], np.dtype(dtype)).reshape(shape)


def _pass_arrays(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else decode_hook(kind, value)
