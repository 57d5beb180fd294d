"""What was measured of a model at a place, which goes before what a backend estimates."""

from __future__ import annotations

import msgspec

__all__ = ["Measured"]

_FOLLOW = 0.1


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One model, program and type at one place.

    Args:
        latency_s: Seconds on the device, of a request or of a generated token; it follows about the last ten. None if it never
            answered there.
        requests: How many it answered.
        load_s: Of the last load.
        memory_bytes: What the last load took.
    """

    latency_s: float | None = None
    requests: int = 0
    load_s: float = 0.0
    memory_bytes: int = 0

    def answered(self, seconds: float) -> Measured:
        """After one more request."""
        known = seconds if self.latency_s is None else (1 - _FOLLOW) * self.latency_s + _FOLLOW * seconds
        return msgspec.structs.replace(self, latency_s=known, requests=self.requests + 1)

    def loaded(self, load_s: float, memory_bytes: int) -> Measured:
        """After one more load."""
        return msgspec.structs.replace(self, load_s=load_s, memory_bytes=memory_bytes)
