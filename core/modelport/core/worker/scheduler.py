"""Items that wait for the device, and the batches made of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Protocol

import msgspec
import numpy as np

from modelport.contract.array import Array
from modelport.contract.errors import InputTooLong, ModelportError
from modelport.contract.program import Generate, Program
from modelport.contract.reduce import DenseWeights, finish, split_chain
from modelport.contract.runner import Limits
from modelport.contract.session import Item, Session
from modelport.core.worker.batcher import Plan, choose, fits, halves
from modelport.core.worker.device import DeviceThread
from modelport.core.worker.numbers import not_numbers, rows_that_are_numbers
from modelport.core.worker.patience import LEAST_S, Patience

__all__ = ["Rider", "Scheduler"]

Outputs = dict[str, Array]
Rows = Sequence[Outputs | BaseException]


class Rider(Protocol):
    """The call that an item belongs to."""

    @property
    def priority(self) -> int: ...

    def started(self) -> bool:
        """One of its items goes to the device; whether it is the first."""

    def rode(self, queue_s: float, run_s: float) -> None:
        """A batch with one or more of its items is done."""


class Queued:
    """One item that waits, or is aboard."""

    __slots__ = ("alone", "arrived", "cost", "entry", "future", "group", "item", "priority", "rider")

    def __init__(self, entry: str, item: Item, rider: Rider, future: asyncio.Future[Outputs]) -> None:
        self.entry, self.item, self.rider, self.future = entry, item, rider, future
        self.cost, self.group, self.priority = item.cost, item.group, rider.priority
        self.alone = not all(isinstance(array, np.ndarray) for array in item.arrays.values())
        self.arrived = time.monotonic()


class Scheduler:
    """Makes batches of what `forward` is given, whenever the device is free, and gives every item its outputs.

    Lives on the event loop. Collation runs on the device thread if that would idle anyway, else on the CPU pool while another
    batch computes; what a backend leaves of the reductions, and the split, run off the device thread. One batch more than the
    runner may have open is prepared ahead, but only a full one: until the device is free, more items can still join others.
    A batch that the device has no memory for is tried again in halves, down to single items, so that one that is too large
    for the device fails alone; no later batch is larger than a half that follows a failure.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        device: DeviceThread,
        pool: Executor,
        session: Session,
        program: Program,
        limits: Limits,
        dense: Mapping[str, DenseWeights],
        announce: Callable[[], None],
    ) -> None:
        self.items = self.batches = self.batch_tokens = self.padded_tokens = 0
        self._loop, self._device, self._pool = loop, device, pool
        self._session, self._program, self._limits, self._dense = session, program, limits, dense
        self._announce = announce
        self._waiting: list[Queued] = []
        self._open_batches = 0
        self._aboard = 0
        self._is_pumping = False
        self._patience = Patience(limits.linger)
        self._holding: asyncio.TimerHandle | None = None
        self._splits_plainly = type(session).split is Session.split
        self._finishes = {
            name
            for name, entry in program.entries.items()
            if not isinstance(entry, Generate) and any(split_chain(o.chain, limits.reductions)[1] for o in entry.outputs)
        }

    @property
    def waiting(self) -> int:
        """Items that are not aboard yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Items aboard batches, those whose callers have left included."""
        return self._aboard

    def forward(self, entry: str, item: Item, rider: Rider) -> asyncio.Future[Outputs]:
        """Queues one item.

        Raises:
            InputTooLong: if it fits no batch of this runner.
            KeyError, TypeError: if `entry` is not one that runs forward.
        """
        self._program.forward(entry)
        if not fits(item.cost, self._limits):
            most = self._limits.max_length or max(length for _, length in self._limits.shapes or ((0, 0),))
            raise InputTooLong(
                f"The input has {item.cost} tokens; this model takes at most {most} where it runs. Shorten the input."
            )
        future: asyncio.Future[Outputs] = self._loop.create_future()
        self._waiting.append(Queued(entry, item, rider, future))
        if not self._is_pumping:
            # At the loop's next turn, so that everything that this turn brings can share a batch.
            self._is_pumping = True
            self._loop.call_soon(self._pump)
        return future

    def withdraw(self, rider: Rider) -> None:
        """Takes the items of a call that has ended out of the queue; those aboard are dropped when their batch ends."""
        mine = [queued for queued in self._waiting if queued.rider is rider]
        if mine:
            self._waiting = [queued for queued in self._waiting if queued.rider is not rider]
        for queued in mine:
            queued.future.cancel()

    # ---------------------------------------------------------------------------------------------------- on the loop

    def _pump(self) -> None:
        self._is_pumping = False
        while self._waiting and self._open_batches <= self._limits.in_flight:
            self._waiting = [queued for queued in self._waiting if not queued.future.done()]
            plan = choose(self._waiting, self._limits, time.monotonic())
            if plan is None or (self._open_batches >= self._limits.in_flight and not plan.is_full) or self._holds(plan):
                return
            chosen = set(map(id, plan.items))
            self._waiting = [queued for queued in self._waiting if id(queued) not in chosen]
            self._dispatch(plan)

    def _holds(self, plan: Plan[Queued]) -> bool:
        """Whether it should wait for more; then the pump is called again."""
        wait_s = 0.0 if plan.is_full else self._patience.wait_s(time.monotonic(), len(self._callers()))
        if self._holding is not None:
            self._holding.cancel()
        self._holding = self._loop.call_later(max(wait_s, LEAST_S), self._pump) if wait_s else None
        return bool(wait_s)

    def _callers(self) -> set[int]:
        return {id(queued.rider) for queued in self._waiting}

    def _dispatch(self, plan: Plan[Queued], *, again: bool = False) -> None:
        batch = Batch(plan, self._session, self._batch_ended)
        is_idle = self._open_batches == 0
        self._open_batches += 1
        self._aboard += len(plan.items)
        self.batches += 1
        self.items += 0 if again else len(plan.items)
        self.batch_tokens += sum(queued.cost for queued in plan.items)
        self.padded_tokens += plan.padded_tokens
        if sum(rider.started() for rider in batch.riders()):
            self._announce()
        if is_idle:
            self._device.submit(batch)
        else:
            self._pool.submit(self._collate, batch)

    def _free(self, batch: Batch) -> None:
        self._open_batches -= 1
        self._aboard -= len(batch.queued)
        callers = self._callers()
        answered = sum(id(rider) not in callers for rider in batch.riders())
        self._patience.batch_ended(time.monotonic(), batch.ended - batch.began, answered, len(callers))
        self._pump()

    def _arrived(self, batch: Batch, future: Future[Outputs]) -> None:
        """The batch is done and its split is cheap: both at once."""
        self._free(batch)
        self._split(batch, future)

    def _settle(self, batch: Batch, rows: Rows | BaseException) -> None:
        for rider in batch.riders():
            rider.rode(batch.began - batch.created, batch.ended - batch.began)
        if isinstance(rows, MemoryError) and (plans := halves(batch.queued, self._limits)):
            most = plans[0]
            self._limits = msgspec.structs.replace(
                self._limits,
                max_items=min(len(most.items), self._limits.max_items),
                max_tokens=min(most.padded_tokens, self._limits.max_tokens),
            )
            for plan in plans:
                self._dispatch(plan, again=True)
            return
        for index, queued in enumerate(batch.queued):
            if queued.future.done():
                continue
            row = rows if isinstance(rows, BaseException) else rows[index]
            if isinstance(row, BaseException):
                queued.future.set_exception(_for_one(row))
            else:
                queued.future.set_result(row)

    # --------------------------------------------------------------------------------------------- on other threads

    def _collate(self, batch: Batch) -> None:
        batch.collate()
        self._device.submit(batch)

    def _batch_ended(self, batch: Batch, future: Future[Outputs]) -> None:
        """On the device thread, or one of the runner's."""
        with contextlib.suppress(RuntimeError):  # the worker is gone
            if self._splits_plainly and batch.entry not in self._finishes:
                self._loop.call_soon_threadsafe(self._arrived, batch, future)
            else:
                self._loop.call_soon_threadsafe(self._free, batch)
                self._pool.submit(self._split_and_tell, batch, future)

    def _split_and_tell(self, batch: Batch, future: Future[Outputs]) -> None:
        rows = self._rows(batch, future)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, batch, rows)

    def _split(self, batch: Batch, future: Future[Outputs]) -> None:
        self._settle(batch, self._rows(batch, future))

    def _rows(self, batch: Batch, future: Future[Outputs]) -> Rows | BaseException:
        try:
            outputs = future.result()
            if batch.entry in self._finishes:
                entry = self._program.forward(batch.entry)
                dense = self._dense.get(entry.checkpoint)
                outputs = finish(entry.outputs, outputs, batch.arrays(), self._limits.reductions, dense)
            rows = self._session.split(batch.entry, outputs, [queued.item for queued in batch.queued])
            if len(rows) != len(batch.queued):
                raise ValueError(f"split gave {len(rows)} outputs for {len(batch.queued)} items")
            if not_numbers(outputs):
                return rows_that_are_numbers(batch.entry, rows, [queued.item for queued in batch.queued])
            return rows
        except BaseException as error:
            return error


class Batch:
    """Items on their way through the device together: a `Job` of the device thread."""

    __slots__ = ("_arrays", "_error", "_on_end", "_session", "_shape", "began", "created", "ended", "entry", "queued")

    def __init__(self, plan: Plan[Queued], session: Session, on_end: Callable[[Batch, Future[Outputs]], None]) -> None:
        self.queued = plan.items
        self.entry = plan.items[0].entry
        self.created = min(queued.arrived for queued in plan.items)
        self.began = self.ended = self.created
        self._shape = plan.shape
        self._session = session
        self._on_end = on_end
        self._arrays: dict[str, Array] | None = None
        self._error: BaseException | None = None

    def riders(self) -> Iterable[Rider]:
        """The calls aboard, each once."""
        return {id(queued.rider): queued.rider for queued in self.queued}.values()

    def collate(self) -> None:
        """Makes the arrays; what goes wrong is raised by `arrays`."""
        try:
            self._arrays = self._session.collate(self.entry, [queued.item for queued in self.queued], self._shape)
        except BaseException as error:
            self._error = error

    def arrays(self) -> dict[str, Array]:
        if self._arrays is None and self._error is None:
            self.collate()
        if self._error is not None:
            raise self._error
        assert self._arrays is not None
        return self._arrays

    def started(self) -> None:
        self.began = time.monotonic()

    def finished(self, future: Future[Outputs]) -> None:
        self.ended = time.monotonic()
        self._on_end(self, future)


def _for_one(error: BaseException) -> BaseException:
    """An exception for one of the items: each needs its own, because raising adds to an exception's traceback."""
    if isinstance(error, ModelportError):
        return type(error)(error.message, param=error.param, retry_after_s=error.retry_after_s)
    copy = BatchFailed(error)
    copy.__cause__ = error
    return copy


class BatchFailed(Exception):
    """What a batch raised, for each of its items."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error
