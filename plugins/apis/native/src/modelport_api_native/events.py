"""How a stream's events look: one `data:` line per delta, then what it took, or the error."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.errors import ModelportError
from modelport.contract.host import DeltaStream
from modelport.streaming import EventStream
from modelport_api_native import error_body

__all__ = ["event_stream"]


def event_stream(stream: DeltaStream, task: str, encoder: msgspec.json.Encoder) -> EventStream:
    """The response that writes `stream`.

    Events are `{"delta": …}` in order, then one `{"done": true, "model", "task", "usage", "timings"}`, or, instead of it,
    `{"error": …}`.
    """
    headers = {"x-modelport-task": task.encode("latin-1", "replace").decode("latin-1")}
    return EventStream([stream], _Writer(stream, task, encoder), headers)


class _Writer:
    def __init__(self, stream: DeltaStream, task: str, encoder: msgspec.json.Encoder) -> None:
        self._stream = stream
        self._task = task
        self._encode = encoder.encode

    def delta(self, place: int, delta: Any) -> bytes:
        return self._event({"delta": delta})

    def end(self) -> bytes:
        stream = self._stream
        return self._event(
            {"done": True, "model": stream.model, "task": self._task, "usage": stream.usage, "timings": stream.timings}
        )

    def failure(self, error: ModelportError) -> bytes:
        return b"event: error\n" + self._event(error_body(error))

    def _event(self, value: Any) -> bytes:
        return b"data: " + self._encode(value) + b"\n\n"
