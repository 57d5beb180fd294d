"""Notices that the client has left, and calls back; and a wait that ends then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from modelport.contract.errors import Cancelled, DeadlineExceeded

__all__ = ["Departure", "attended"]

T = TypeVar("T")

_FIRST_LOOK_S = 0.01


class Departure:
    """Watches `scope["modelport.receive"]` for `http.disconnect`.

    It starts to watch after ten milliseconds: most short requests are over by then and have cost no task.

    Args:
        scope: The ASGI scope of the request, or None.
        gone: Called, once, when the client has left.
    """

    __slots__ = ("_gone", "_receive", "_task", "_timer")

    def __init__(self, scope: Mapping[str, Any] | None, gone: Callable[[], None]) -> None:
        self._receive: Callable[[], Awaitable[Mapping[str, Any]]] | None = scope.get("modelport.receive") if scope else None
        self._gone = gone
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if self._receive is not None:
            self._timer = asyncio.get_running_loop().call_later(_FIRST_LOOK_S, self._start)

    def close(self) -> None:
        """Watches no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._timer = self._task = None

    def _start(self) -> None:
        self._timer = None
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        assert self._receive is not None
        while True:
            event = await self._receive()
            if event["type"] in {"http.disconnect", "websocket.disconnect"}:
                self._gone()
                return


async def attended(
    work: Coroutine[Any, Any, T], scope: Mapping[str, Any] | None, deadline_s: float | None, what: str
) -> tuple[T, float | None]:
    """Waits for `work` while the client is there and has time; returns its result, and what is left of the time.

    `what` is being done, for the error.

    Raises:
        Cancelled, DeadlineExceeded: the client left, or its time is over; `work` is cancelled.
    """
    began = asyncio.get_running_loop().time()
    task = asyncio.ensure_future(work)

    def gone() -> None:
        task.cancel()

    departure = Departure(scope, gone)
    try:
        done, _ = await asyncio.wait([task], timeout=deadline_s)
    finally:
        departure.close()
        task.cancel()
    left_s = None if deadline_s is None else deadline_s - (asyncio.get_running_loop().time() - began)
    if not done or (left_s is not None and left_s <= 0):
        raise DeadlineExceeded(f"The request's deadline passed while {what}. Give it more time.")
    if task.cancelled():
        raise Cancelled("The client closed the connection before the answer was ready.")
    return task.result(), left_s
