"""What an API plugin may ask of the server: `Host`, and the `Principal` that every question needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from modelport.contract.reply import Options, Reply, Timings, Usage
from modelport.contract.task import Task

__all__ = ["AUTO", "DeltaStream", "Host", "ModelInfo", "Principal"]

AUTO = "auto"
"""The model name that leaves the choice to the server, among those that do the task."""


class Principal(Protocol):
    """Who asks. Only the core makes one; `Host` refuses anything else."""

    @property
    def name(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]:
        """`infer`, `admin`, or both."""

    @property
    def models(self) -> frozenset[str] | None:
        """The only models this caller may use, or None for all."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the server offers it.

    `id` is the name to ask for; `aliases` mean the same model. `state` is one of `declared`, `loading`, `ready`, `busy`,
    `draining`, `unloaded`, `failed`, or `family`, which nobody has asked for yet: its first request declares it. `created` is
    the Unix time at which it was declared. `error` is the cause of `failed`.
    `labels` are the names that its configuration gives to its classes, by index; `pooling` is how it makes one vector of many;
    `end_tokens` are the ids that its configuration ends texts with.
    """

    id: str
    tasks: tuple[str, ...] = ()
    state: str = "declared"
    aliases: tuple[str, ...] = ()
    skill: str = ""
    backend: str = ""
    source: str = ""
    owned_by: str = ""
    created: int = 0
    context_length: int | None = None
    license: str = ""
    parameters: int = 0
    model_type: str = ""
    has_chat_template: bool = False
    memory_bytes: int = 0
    pinned: bool = False
    error: str = ""
    labels: tuple[str, ...] = ()
    pooling: str = ""
    end_tokens: tuple[int, ...] = ()


class DeltaStream(Protocol):
    """A streamed answer. Iterate it to its end, or `aclose` it; leaving it cancels the request.

    `usage` and `timings` are complete once iteration has ended. An error after the first delta is raised by iteration.
    """

    model: str
    usage: Usage
    timings: Timings

    def __aiter__(self) -> AsyncIterator[Any]: ...
    async def __anext__(self) -> Any: ...
    async def aclose(self) -> None: ...


@runtime_checkable  # Litestar checks the type of what it injects
class Host(Protocol):
    """The server, as API plugins see it. All methods run on the server's event loop.

    Every method that takes a principal checks its scope, its models and its limits. `scope` is the ASGI scope of the request,
    if there is one: the host watches it for the client's leaving, also for plain requests, and cancels.
    """

    def authenticate(self, credential: str | None, headers: Mapping[str, str], client: str) -> Principal:
        """Who bears `credential` (a key, without `Bearer`). For transports that the HTTP middleware does not see.

        Raises:
            Unauthenticated: with keys in force and none, or a bad one, given.
        """

    def principal(self, scope: Mapping[str, Any]) -> Principal:
        """The principal that the middleware put into this ASGI scope.

        Raises:
            Unauthenticated: if there is none.
        """

    def models(self, principal: Principal) -> Sequence[ModelInfo]:
        """Every model that the caller may use, in the configuration's order."""

    def model(self, principal: Principal, name: str) -> ModelInfo:
        """The model of that name or alias.

        Raises:
            NotFound: with the nearest name.
        """

    def tasks(self) -> Mapping[str, Task[Any, Any, Any]]:
        """Every task that an enabled skill serves, by name."""

    async def default_task(self, principal: Principal, name: str) -> str:
        """The first task of a model. Waits until its checkpoint has been read, which says what it does.

        Raises:
            InvalidRequest: the name is `auto`, which does what it is asked for.
            NotFound: no such model.
            Unavailable: its checkpoint cannot be had, or takes longer than a request may wait.
        """

    def placement(self, principal: Principal, name: str) -> Mapping[str, Any]:
        """The whole decision where and how the model runs, every candidate with its reason."""

    def hardware(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """Every enabled backend with its devices, or the reason why it has none."""

    def recommendations(self, principal: Principal, task: str | None = None) -> Sequence[Mapping[str, Any]]:
        """For each task, or the one asked for: the models that do it, the best first, and what that rests on.

        Raises:
            WrongTask: there is no such task.
        """

    def rate(self, principal: Principal, request_id: str, score: float) -> None:
        """Notes what a caller thinks of an answer it had, from 0 (useless) to 1; `auto` learns from it.

        Raises:
            NotFound: the caller has no such request that waits for a rating.
        """

    def plugins(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """Every plugin that is installed, with its state and the reason of it."""

    async def load(self, principal: Principal, name: str) -> ModelInfo:
        """Loads a model and returns when it is ready. Needs the scope `admin`.

        Raises:
            Unavailable: it failed to load; the message is the cause.
        """

    async def unload(self, principal: Principal, name: str) -> ModelInfo:
        """Unloads a model once its running requests are done. Needs the scope `admin`.

        Raises:
            Conflict: it is pinned.
        """

    async def run(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> Reply[Any]:
        """Answers one request. The model `auto` is the server's choice; the reply names it.

        Raises:
            ModelportError: of the kind that says why not; see `contract.errors`.
        """

    async def stream(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> DeltaStream:
        """Starts a streamed answer and returns when its first delta is there, so that a refusal is still a status code."""
