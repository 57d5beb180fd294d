"""What a child process prints: always read, mostly forgotten, its last lines kept as the cause of a failure."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

__all__ = ["LINE_BYTES", "Output"]

LINE_BYTES = 8 * 1024
"""Longer lines are cut."""

_KEPT_LINES = 50
_READ_BYTES = 64 * 1024
_LINES_PER_S = 100
_BYTES_PER_S = 4 * 1024 * 1024
_PAUSE_S = 0.02


class Output:
    """Reads pipes of a child on the event loop until they end or `close` is called. It owns their descriptors.

    `line` is called for at most 100 lines a second. A child that prints without end is read ever on, so it never blocks for
    good, but at a bounded rate, so that the event loop stays free.
    """

    def __init__(self, descriptors: list[int], line: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.line = line
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._partial: dict[int, bytearray] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._window = self._loop.time()
        self._lines = self._bytes = 0
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
            self._partial[descriptor] = bytearray()
            self._loop.add_reader(descriptor, self._read, descriptor)

    def tail(self) -> list[str]:
        """The last lines, oldest first, those that are not complete included."""
        rest = [bytes(part) for part in self._partial.values() if part]
        return [*self._kept, *(_text(part) for part in rest)][-_KEPT_LINES:]

    def read_rest(self) -> None:
        """Reads what a child that has ended left in its pipes, up to a bound."""
        for descriptor in list(self._partial):
            for _ in range(16):
                if descriptor not in self._partial or not self._read(descriptor, pauses=False):
                    break

    def close(self) -> None:
        """Closes the pipes; the tail is kept. Idempotent."""
        for descriptor in list(self._partial):
            self._end(descriptor)

    def _read(self, descriptor: int, pauses: bool = True) -> int:
        try:
            data = os.read(descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            data = b""
        if not data:
            self._end(descriptor)
            return 0
        now = self._loop.time()
        if now - self._window >= 1:
            self._window, self._lines, self._bytes = now, 0, 0
        self._bytes += len(data)
        self._take(descriptor, data)
        if pauses and self._bytes > _BYTES_PER_S:
            self._loop.remove_reader(descriptor)
            self._timers[descriptor] = self._loop.call_later(_PAUSE_S, self._resume, descriptor)
        return len(data)

    def _take(self, descriptor: int, data: bytes) -> None:
        partial = self._partial[descriptor]
        lines = data.split(b"\n")
        if len(lines) > _KEPT_LINES + 2 and self._lines >= _LINES_PER_S:
            lines = [b"", *lines[-_KEPT_LINES - 1 :]]  # a flood: the middle would be dropped anyway
        for index, piece in enumerate(lines):
            if index:
                self._complete(bytes(partial))
                partial.clear()
            partial += piece[: LINE_BYTES - len(partial)]

    def _complete(self, raw: bytes) -> None:
        if not raw.strip():
            return
        text = _text(raw)
        self._kept.append(text)
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            self.line(text)
        elif self._lines == _LINES_PER_S + 1:
            self.line("… it prints more than can be logged; the rest of this second is dropped")

    def _resume(self, descriptor: int) -> None:
        del self._timers[descriptor]
        self._loop.add_reader(descriptor, self._read, descriptor)

    def _end(self, descriptor: int) -> None:
        partial = self._partial.pop(descriptor, None)
        if partial is None:
            return
        if partial:
            self._complete(bytes(partial))
        timer = self._timers.pop(descriptor, None)
        if timer is not None:
            timer.cancel()
        else:
            self._loop.remove_reader(descriptor)
        os.close(descriptor)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rstrip("\r")
