"""The stepped generation engine: continuous batching over a slotted cache.

A request's way through it: `engine.add` → `scheduler` (waiting, then a row) → prefill into `cache` → one token per step
(`masks`, forward, `sampling`) → events.
"""

from __future__ import annotations
