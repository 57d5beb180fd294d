"""A `Host` without models, for tests of API plugins: it answers what it was told to, and checks keys like the real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from modelport.contract.errors import Cancelled, Forbidden, ModelportError, NotFound, Unauthenticated, WrongTask
from modelport.contract.host import AUTO, ModelInfo, Principal
from modelport.contract.reply import Options, Reply, Timings, Usage
from modelport.contract.task import Task

__all__ = ["FakeHost", "FakePrincipal", "FakeStream", "Received"]


class FakePrincipal(msgspec.Struct, frozen=True):
    """A caller."""

    name: str = "tester"
    scopes: frozenset[str] = frozenset({"infer", "admin"})
    models: frozenset[str] | None = None


class Received(msgspec.Struct, frozen=True):
    """A call that reached `run` or `stream`."""

    task: str
    model: str
    request: Any
    principal: Principal
    options: Options
    stream: bool


class FakeStream:
    """Deltas from a list, then `failure` if there is one. `closed` tells whether the surface let go of it."""

    def __init__(self, model: str, deltas: Sequence[Any], failure: ModelportError | None, gate: asyncio.Event | None) -> None:
        self.model = model
        self.usage = Usage()
        self.timings = Timings()
        self.closed = False
        self._failure = failure
        self._deltas = self._iterate(list(deltas), gate)

    async def _iterate(self, deltas: list[Any], gate: asyncio.Event | None) -> AsyncIterator[Any]:
        for index, delta in enumerate(deltas):
            if index and gate is not None:
                await gate.wait()
            yield delta
        if self._failure is not None:
            raise self._failure
        self.usage = Usage(prompt_tokens=3, completion_tokens=len(deltas))

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._deltas.__anext__()

    async def aclose(self) -> None:
        """Lets go of the stream."""
        self.closed = True


class FakeHost:
    """A `contract.host.Host`.

    Args:
        models: What it offers.
        tasks: Their definitions.
        answer: Makes the result of a request (`answer(task, request)`), or the list of deltas if it is streamed
            (`answer(task, request, stream=True)`).
        keys: Principals by key; None for a server without keys.

    Attributes:
        failure: Raised by the next calls instead of an answer.
        failure_midway: Raised by a stream after its deltas.
        gate: If set, a stream waits for it after its first delta, and a plain request before its answer.
        calls: What arrived.
        streams: The streams that were handed out.
        actions: Loads and unloads, as (verb, model).
        ratings: What callers thought, as (request id, score).
        received: Set once a call has arrived.
        left: How many callers left while they waited for the gate.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo] = (),
        tasks: Sequence[Task[Any, Any, Any]] = (),
        answer: Callable[..., Any] | None = None,
        keys: Mapping[str, FakePrincipal] | None = None,
    ) -> None:
        self._models = {info.id: info for info in models}
        self._aliases = {alias: info.id for info in models for alias in info.aliases}
        self._tasks = {task.name: task for task in tasks}
        self._answer = answer
        self._keys = keys
        self.failure: ModelportError | None = None
        self.failure_midway: ModelportError | None = None
        self.gate: asyncio.Event | None = None
        self.calls: list[Received] = []
        self.streams: list[FakeStream] = []
        self.actions: list[tuple[str, str]] = []
        self.ratings: list[tuple[str, float]] = []
        self.received = asyncio.Event()
        self.left = 0

    def authenticate(self, credential: str | None, headers: Mapping[str, str], client: str) -> Principal:
        """Looks the key up; without keys everybody may do everything."""
        if self._keys is None:
            return FakePrincipal("anonymous")
        principal = self._keys.get(credential or "")
        if principal is None:
            raise Unauthenticated("A key is needed: send `Authorization: Bearer KEY`.")
        return principal

    def principal(self, scope: Mapping[str, Any]) -> Principal:
        """What the middleware put into the scope."""
        found = scope.get("modelport.principal")
        if not isinstance(found, FakePrincipal):
            raise Unauthenticated("The request did not pass authentication.")
        return found

    def models(self, principal: Principal) -> Sequence[ModelInfo]:
        """All that the caller may use."""
        return [info for info in self._models.values() if principal.models is None or info.id in principal.models]

    def model(self, principal: Principal, name: str) -> ModelInfo:
        """By name or alias."""
        offered = {info.id: info for info in self.models(principal)}
        info = offered.get(self._aliases.get(name, name))
        if info is None:
            near = get_close_matches(name, offered, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise NotFound(f"There is no model '{name}'.{hint}", param="model")
        return info

    def tasks(self) -> Mapping[str, Task[Any, Any, Any]]:
        """All definitions."""
        return self._tasks

    async def default_task(self, principal: Principal, name: str) -> str:
        """The first task of a model."""
        return self.model(principal, name).tasks[0]

    def placement(self, principal: Principal, name: str) -> Mapping[str, Any]:
        """One candidate, chosen."""
        info = self.model(principal, name)
        return {"model": info.id, "chosen": "fake:0", "candidates": [{"device": "fake:0", "answer": "yes", "reason": "a test"}]}

    def hardware(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """One backend."""
        self._require_admin(principal)
        return [{"backend": "fake", "devices": [{"id": "fake:0"}], "reason": ""}]

    def recommendations(self, principal: Principal, task: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The first model of each task."""
        if task is not None and task not in self._tasks:
            raise WrongTask(f"There is no task {task!r}.", param="task")
        told = []
        for name in self._tasks if task is None else [task]:
            able = [info.id for info in self._models.values() if name in info.tasks]
            arms = [{"model": model, "reward": 0.5, "observations": 0} for model in able]
            told.append({"task": name, "model": next(iter(able), None), "decisions": 0, "explored": 0, "arms": arms})
        return told

    def rate(self, principal: Principal, request_id: str, score: float) -> None:
        """Keeps it in `ratings`."""
        if not any(call.options.request_id == request_id for call in self.calls):
            raise NotFound(f"No request {request_id!r} is remembered.", param="request_id")
        self.ratings.append((request_id, score))

    def plugins(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """One plugin."""
        self._require_admin(principal)
        return [{"kind": "apis", "name": "fake", "state": "enabled", "reason": ""}]

    async def load(self, principal: Principal, name: str) -> ModelInfo:
        """Notes it."""
        self._require_admin(principal)
        info = self.model(principal, name)
        self._raise_failure()
        self.actions.append(("load", info.id))
        return msgspec.structs.replace(info, state="ready")

    async def unload(self, principal: Principal, name: str) -> ModelInfo:
        """Notes it."""
        self._require_admin(principal)
        info = self.model(principal, name)
        self._raise_failure()
        self.actions.append(("unload", info.id))
        return msgspec.structs.replace(info, state="unloaded")

    async def run(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> Reply[Any]:
        """The answer that was given to the constructor."""
        info = self._receive(task, model, request, principal, options, stream=False)
        if self.gate is not None:
            await self._wait_or_leave(self.gate, scope)
        if self._answer is None:
            raise ModelportError("This FakeHost has no answer.")
        result = self._answer(task, request)
        return Reply(result=result, model=info.id, usage=Usage(prompt_tokens=3), timings=Timings(run_s=0.001))

    async def stream(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> FakeStream:
        """The deltas that were given to the constructor."""
        info = self._receive(task, model, request, principal, options, stream=True)
        if self._answer is None:
            raise ModelportError("This FakeHost has no answer.")
        stream = FakeStream(info.id, self._answer(task, request, stream=True), self.failure_midway, self.gate)
        self.streams.append(stream)
        return stream

    def _receive(self, task: str, model: str, request: Any, principal: Principal, options: Options, *, stream: bool) -> ModelInfo:
        if "infer" not in principal.scopes:
            raise Forbidden("This key may not infer.")
        able = (info.id for info in self.models(principal) if task in info.tasks)
        info = self.model(principal, next(able, AUTO) if model == AUTO else model)
        if task not in info.tasks:
            raise WrongTask(f"'{info.id}' does not do '{task}'. It does: {', '.join(info.tasks)}.", param="task")
        self.calls.append(Received(task, info.id, request, principal, options, stream))
        self.received.set()
        self._raise_failure()
        return info

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def _wait_or_leave(self, gate: asyncio.Event, scope: Mapping[str, Any] | None) -> None:
        """Waits for the gate; the client's leaving cancels, as in the real host."""
        watch = scope.get("modelport.receive") if scope is not None else None
        if watch is None:
            await gate.wait()
            return
        waiting = {asyncio.ensure_future(gate.wait()), asyncio.ensure_future(watch())}
        _, unfinished = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in unfinished:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if not gate.is_set():
            self.left += 1
            raise Cancelled("The client left.")

    @staticmethod
    def _require_admin(principal: Principal) -> None:
        if "admin" not in principal.scopes:
            raise Forbidden("This needs a key with the scope 'admin'.")
