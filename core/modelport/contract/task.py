"""A task: a name, what it takes, what it gives, and how a stream of it adds up."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

__all__ = ["Media", "Task", "Tensor", "decode_hook", "encode_hook"]

Request = TypeVar("Request", bound=msgspec.Struct)
Result = TypeVar("Result", bound=msgspec.Struct)
Delta = TypeVar("Delta", bound=msgspec.Struct)


class Task(Generic[Request, Result, Delta]):
    """A task's definition. Two plugins may serve one task; they may not define it differently.

    Args:
        name: The Hub's pipeline tag where there is one (`text-classification`).
        request: The Struct of a request. Its field names and types become the task's JSON Schema.
        result: The Struct of an answer.
        delta: The Struct of a piece of a streamed answer, if the task streams.
        join: Adds up deltas into the result that a plain request would have got.
        merge: Makes one delta of two that follow each other, for readers that are too slow to get each, or None if
            these two cannot be one.
        summary: One line for catalogues.
    """

    def __init__(
        self,
        name: str,
        request: type[Request],
        result: type[Result],
        delta: type[Delta] | None = None,
        join: Callable[[Iterable[Delta]], Result] | None = None,
        merge: Callable[[Delta, Delta], Delta | None] | None = None,
        summary: str = "",
    ) -> None:
        if not (delta is None) == (join is None) == (merge is None):
            raise TypeError(f"task {name!r}: delta, join and merge come together or not at all")
        self.name = name
        self.request = request
        self.result = result
        self.delta = delta
        self.join = join
        self.merge = merge
        self.summary = summary

    def __repr__(self) -> str:
        return f"Task({self.name!r})"

    def same_definition(self, other: Task[Any, Any, Any]) -> bool:
        """Whether both have the same name and the same Structs."""
        mine, theirs = (self.name, self.request, self.result, self.delta), (other.name, other.request, other.result, other.delta)
        return mine == theirs

    def schema(self) -> dict[str, Any]:
        """JSON Schemas by role (`request`, `result`, `delta` if it streams) and their shared `$defs`."""
        roles = {"request": self.request, "result": self.result} | ({"delta": self.delta} if self.delta else {})
        schemas, defs = msgspec.json.schema_components(roles.values(), schema_hook=_schema_hook, ref_template="#/$defs/{name}")
        return {**dict(zip(roles, schemas, strict=True)), "$defs": defs}


class Media(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes with a type, or a reference to fetch. In JSON `data` is base64; `url` may be a data URL."""

    data: bytes = b""
    mime: str = ""
    url: str = ""


class Tensor(msgspec.Struct, frozen=True):
    """An array in a request or a result: element type, shape, and the elements row-major, little-endian.

    In msgpack (between server and worker) `data` is raw bytes; in JSON it is base64.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        """The tensor of a NumPy array."""
        return cls(str(array.dtype), tuple(array.shape), np.ascontiguousarray(array).tobytes())

    def numpy(self) -> np.ndarray:
        """A read-only view of the elements."""
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape)

    def base64(self) -> str:
        """The elements as base64 text."""
        return base64.b64encode(self.data).decode("ascii")


def encode_hook(value: Any) -> Any:
    """For msgspec encoders: NumPy arrays as `Tensor`, NumPy scalars as Python's."""
    if isinstance(value, np.ndarray):
        return Tensor.of(value)
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"cannot encode a {type(value).__name__}")


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec decoders: the reverse of `encode_hook`; nested lists become float32 arrays.

    Raises:
        ValueError: if `value` is not an array of one shape.
    """
    if kind is np.ndarray:
        if isinstance(value, dict):
            return msgspec.convert(value, Tensor).numpy()
        array = np.asarray(value)
        if array.dtype == object:
            raise ValueError("expected a rectangular array")
        return array.astype(np.float32) if array.dtype == np.float64 else array
    raise NotImplementedError(f"cannot decode a {kind.__name__}")


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is np.ndarray:
        return {"description": "nested lists of numbers, or {dtype, shape, data: base64}"}
    raise NotImplementedError(f"no JSON Schema is known for a {kind.__name__}")
