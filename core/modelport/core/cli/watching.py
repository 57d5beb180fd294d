"""Loads as they go, shown while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from modelport.core.cli.progress import ProgressView
from modelport.core.serving.host import Host

__all__ = ["show_loads"]

_PERIOD_S = 0.2


@asynccontextmanager
async def show_loads(host: Host, *, only_live: bool = False) -> AsyncIterator[None]:
    """Shows what the host's models fetch and load, until the block ends.

    Args:
        host: The server.
        only_live: Show nothing where stderr is no terminal: a server's log has its own lines.
    """
    with ProgressView() as view:
        if only_live and not view.is_live:
            yield
            return
        watching = asyncio.create_task(_watch(host, view))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _watch(host: Host, view: ProgressView) -> None:
    shown: set[str] = set()
    while True:
        loads = host.loads()
        for name, (what, fraction) in loads.items():
            view.report(name, what, fraction)
        for name in shown - loads.keys():
            view.done(name)
        shown = set(loads)
        await asyncio.sleep(_PERIOD_S)
