"""The replicas of a deployment: which run, what they are charged for, and their end."""

from __future__ import annotations

import asyncio

import structlog

from modelport.contract.errors import ModelportError
from modelport.core.serving.keeper import Keeper, Tenant
from modelport.core.serving.slot import Slot

__all__ = ["Replicas"]

_log = structlog.get_logger("modelport.serving")


class Replicas:
    """Those that run. Whichever way one ends, its memory is given back once.

    Args:
        model: The model, for logs.
        keeper: Who counts the memory.
        tenant: In whose name.

    Attributes:
        slots: Each replica's.
    """

    def __init__(self, model: str, keeper: Keeper, tenant: Tenant) -> None:
        self.slots: list[Slot] = []
        self._model = model
        self._keeper = keeper
        self._tenant = tenant
        self._ending: set[asyncio.Task[int]] = set()

    @property
    def memory_bytes(self) -> int:
        """What they are charged for."""
        return sum(sum(slot.memory.values()) for slot in self.slots)

    def died(self, slot: Slot) -> None:
        """Takes one that died out of the list, and clears up behind it."""
        self._forget(slot)
        ending = asyncio.ensure_future(slot.stop())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def stop(self, *, drain: bool = False) -> int:
        """Ends all, if `drain` once what is aboard has ended; returns how many bytes came back."""
        slots = list(self.slots)
        if drain:
            await asyncio.gather(*(slot.drain() for slot in slots))
        return sum(await asyncio.gather(*(self._stop(slot) for slot in slots)))

    async def ended(self) -> None:
        """Returns when those that died have been cleared up behind."""
        if self._ending:
            await asyncio.wait(self._ending)

    async def _stop(self, slot: Slot) -> int:
        try:
            return await slot.stop()
        except ModelportError as error:
            _log.error("stop failed", model=self._model, cause=error.message)
            return 0
        finally:
            self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        if slot in self.slots:
            self.slots.remove(slot)
        memory, slot.memory = slot.memory, {}
        if memory:
            self._keeper.release(self._tenant, memory)
