"""The host: the server as API plugins see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal

import msgspec
import structlog

from modelport.contract.errors import Conflict, InvalidRequest, ModelportError, Unavailable, WrongTask
from modelport.contract.executor import Executor
from modelport.contract.host import AUTO, ModelInfo, Principal
from modelport.contract.reply import Options, Reply
from modelport.contract.task import Task
from modelport.core.catalog.catalog import Catalog
from modelport.core.config.paths import state_dir
from modelport.core.config.settings import Settings
from modelport.core.config.source import parse_source
from modelport.core.placement.decide import readable_bytes
from modelport.core.placement.hardware import Hardware
from modelport.core.placement.hooks import Hooks
from modelport.core.plugins.registry import Registry
from modelport.core.serving.access import Access
from modelport.core.serving.admission import Admission
from modelport.core.serving.clock import Clock, LoopClock
from modelport.core.serving.departure import attended
from modelport.core.serving.deployment import Deployment
from modelport.core.serving.dispatch import Dispatcher
from modelport.core.serving.events import Events
from modelport.core.serving.fetcher import Fetcher
from modelport.core.serving.job import Job
from modelport.core.serving.keeper import Keeper
from modelport.core.serving.keys import Keyring
from modelport.core.serving.learner import Learner
from modelport.core.serving.model import Model
from modelport.core.serving.observers import ObserverQueue
from modelport.core.serving.planning import Planning
from modelport.core.serving.principal import Caller
from modelport.core.serving.refusals import shutting_down
from modelport.core.serving.router import Route, Router, candidates
from modelport.core.serving.stream import Stream
from modelport.core.serving.views import family_info, hardware_view, placement_view

__all__ = ["Host"]

_log = structlog.get_logger("modelport.serving")
_SWEEP_S = 1.0
_TOLD = frozenset({"loading", "ready", "draining", "unloaded", "failed"})


class Host:
    """Implements `contract.host.Host`. Everything happens on one event loop.

    Args:
        settings: The configuration.
        registry: The plugins.
        catalog: Names, cards and skills.
        hardware: What there is to run on.
        executors: Where replicas run, by name.
        metrics: What is reported.
        keyring: The keys; by default those that the configuration means.
        clock: The time.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        catalog: Catalog,
        hardware: Hardware,
        executors: Mapping[str, Executor],
        metrics: Events,
        *,
        keyring: Keyring | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._catalog = catalog
        self._hardware = hardware
        self._executors = dict(executors)
        self._events = metrics
        self._clock = clock or LoopClock()
        self._hooks = Hooks(registry.manager)
        self._access = Access(keyring or Keyring.of(settings), registry.authorizers)
        self._observers = ObserverQueue(registry.observers, metrics.observer_dropped)
        self._learner = Learner(settings.learning, state_dir(settings) / "learned.json", self._clock)
        self._planning = Planning(settings, registry, catalog, hardware, self._executors, self._hooks, self._learner)
        limits = settings.limits
        self._keeper = Keeper(hardware.budgets, self._clock, min(limits.load_wait_s / 4, 5.0))
        self._dispatcher = Dispatcher(self._clock, metrics, self._observers, limits.request_s, self._learner)
        self._fetcher = Fetcher(settings.media, limits.media_bytes, offline=settings.offline)
        self._created = int(time.time())
        self._models = {name: self._declare(name) for name in catalog.names.models}
        deadline_s = self._dispatcher.deadline_s
        self._router = Router(settings, registry, hardware, self._access, self._learner, metrics, self._models, self, deadline_s)
        self._background: set[asyncio.Task[Any]] = set()
        self._phase: Literal["starting", "serving", "draining", "stopped"] = "starting"

    # ------------------------------------------------------------------------------------------------------ callers

    @property
    def keys_in_force(self) -> bool:
        """Whether a request needs a key."""
        return self._access.keys_in_force

    def authenticate(self, credential: str | None, headers: Mapping[str, str], client: str) -> Caller:
        """Who bears `credential`."""
        return self._access.authenticate(credential)

    def principal(self, scope: Mapping[str, Any]) -> Caller:
        """The principal that the middleware put into this ASGI scope."""
        return self._access.of_scope(scope)

    # ------------------------------------------------------------------------------------------------- what there is

    def models(self, principal: Principal) -> Sequence[ModelInfo]:
        """Every model that the caller may use, in the configuration's order; where none is configured and requests may name
        families, those instead that a request can load without more."""
        caller = self._access.caller(principal)
        found = [
            model.info() for model in self._models.values() if self._access.may_use(caller, model.name, model.settings.aliases)
        ]
        if self._settings.models or not self._settings.allow_families:
            return found
        loaded = {info.id for info in found}
        families = [each for each in self._catalog.families.all(self._registry.skills) if each.name not in loaded]
        ready = [each for each in families if each.default_checkpoint and self._access.may_use(caller, each.name)]
        return found + [family_info(each) for each in ready]

    def model(self, principal: Principal, name: str) -> ModelInfo:
        """The model of that name or alias."""
        return self.visible(self._access.caller(principal), name).info()

    def tasks(self) -> Mapping[str, Task[Any, Any, Any]]:
        """Every task that an enabled skill serves, by name."""
        return self._registry.tasks

    async def default_task(self, principal: Principal, name: str) -> str:
        """The first task of a model, once its checkpoint has been read."""
        if name == AUTO:
            raise InvalidRequest(f"The model {AUTO!r} does what it is asked for: name the task.", param="task")
        model = await self.named(self._access.caller(principal), name)
        await model.read(wait_s=self._settings.limits.load_wait_s)
        return model.tasks[0]

    def placement(self, principal: Principal, name: str) -> Mapping[str, Any]:
        """The whole decision where and how the model runs, of its default task; `others` has those of its other programs."""
        model = self.visible(self._access.caller(principal), name)
        return placement_view(model, self._planning, self._hardware)

    def hardware(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """Every enabled backend with its devices, or the reason why it has none."""
        self._access.caller(principal)
        return hardware_view(self._registry.backends, self._hardware, self._keeper)

    def plugins(self, principal: Principal) -> Sequence[Mapping[str, Any]]:
        """Every plugin that is installed, with its state and the reason of it."""
        self._access.caller(principal)
        return [record.describe() for record in self._registry.records]

    def recommendations(self, principal: Principal, task: str | None = None) -> Sequence[Mapping[str, Any]]:
        """What `auto` would be answered by, for each task that the caller's models do, and what that rests on."""
        caller = self._access.caller(principal)
        mine = [m for m in self._models.values() if self._access.may_use(caller, m.name, m.settings.aliases)]
        if task is not None and task not in self._registry.tasks:
            known = ", ".join(sorted(self._registry.tasks)) or "none"
            raise WrongTask(f"No skill here does {task!r}. Tasks: {known}.", param="task")
        asked = sorted({name for model in mine for name in model.tasks}) if task is None else [task]
        return self._learner.recommendations({name: [model.name for model in candidates(mine, name)] for name in asked})

    def rate(self, principal: Principal, request_id: str, score: float) -> None:
        """Notes what a caller thinks of an answer it had."""
        self._learner.rate(request_id, self._access.need(principal, "infer").name, score)

    # ----------------------------------------------------------------------------------------------- load and unload

    async def load(self, principal: Principal, name: str) -> ModelInfo:
        """Loads a model's default task and returns when it is ready."""
        caller = self._access.need(principal, "admin")
        model = await self.named(caller, name)
        self._access.check(caller, "load", model.name, model.settings.aliases)
        self.refuse_while_stopping()
        await model.read(again=True)
        await model.deployment(model.tasks[0]).load()
        return model.info()

    async def unload(self, principal: Principal, name: str) -> ModelInfo:
        """Unloads a model once its running requests are done."""
        caller = self._access.need(principal, "admin")
        model = self.visible(caller, name)
        self._access.check(caller, "unload", model.name, model.settings.aliases)
        if model.settings.pin:
            raise Conflict(
                f"The model {model.name!r} is pinned (models.{model.name}.pin), so it is not unloaded. Remove the pin first."
            )
        unloads = [asyncio.shield(each.unload(f"asked for by {caller.name}")) for each in model.deployments.values()]
        freed = sum(await asyncio.gather(*unloads))
        _log.info("unloaded on request", model=model.name, freed=readable_bytes(freed))
        return model.info()

    # ------------------------------------------------------------------------------------------------------ requests

    async def run(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> Reply[Any]:
        """Answers one request."""
        route = await self._router.route(task, model, request, principal, scope, options)
        request, options = await self._with_media(request, route, scope)
        return await self._dispatcher.run(route.deployment, route.task, request, route.caller.name, scope, options)

    async def stream(
        self,
        task: str,
        model: str,
        request: msgspec.Struct,
        principal: Principal,
        scope: Mapping[str, Any] | None = None,
        options: Options = Options(),
    ) -> Stream:
        """Starts a streamed answer and returns when its first delta is there."""
        route = await self._router.route(task, model, request, principal, scope, options)
        if route.task.delta is None:
            raise InvalidRequest(f"The task {task!r} does not stream. Ask without streaming.", param="stream")
        request, options = await self._with_media(request, route, scope)
        return await self._dispatcher.stream(route.deployment, route.task, request, route.caller.name, scope, options)

    # -------------------------------------------------------------------------------------------------- start and stop

    async def start(self) -> None:
        """Begins to probe the hardware, reads the checkpoints that are here, and begins to load what is to be preloaded."""
        self._background_task(self._hardware.probe())
        if self._settings.allow_families:
            self._background_task(self._catalog.load_families())
        if any(model.settings.keep_alive_s is not None for model in self._models.values()):
            self._sweep()
        for model in self._models.values():
            if model.settings.preload:
                self._background_task(self._preload(model))
        here = [model for model in self._models.values() if parse_source(model.settings.source).kind in {"folder", "skill"}]
        await asyncio.gather(*(model.read() for model in here), return_exceptions=True)  # the failure is the model's state
        if self._phase == "starting":
            self._phase = "serving"

    def drain(self) -> None:
        """Takes no new requests from now on; those it has are still answered."""
        if self._phase != "stopped":
            self._phase = "draining"
        for deployment in self._deployments():
            deployment.close()

    async def stop(self, drain_s: float | None = None) -> None:
        """Lets requests finish within `drain_s`, then ends all models, executors and threads. Idempotent."""
        if self._phase == "stopped":
            return
        self.drain()
        limit_s = self._settings.server.drain_s if drain_s is None else drain_s
        if busy := [deployment for deployment in self._deployments() if deployment.is_open]:
            try:
                await asyncio.wait_for(asyncio.gather(*(deployment.idle() for deployment in busy)), limit_s)
            except TimeoutError:
                _log.warning("drain ended", seconds=limit_s, unfinished=[each.name for each in busy if each.is_open])
        self._phase = "stopped"
        for task in self._background:
            task.cancel()
        await asyncio.gather(*(model.close() for model in self._models.values()))
        await asyncio.gather(*(deployment.stop() for deployment in self._deployments()))
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*(executor.close() for executor in self._executors.values()), return_exceptions=True)
        await self._hardware.close()
        self._learner.save()
        await asyncio.to_thread(self._observers.close)

    def readiness(self) -> Literal["ready", "loading", "failed", "draining"]:
        """Whether the server wants traffic: once every model that is to be preloaded is there."""
        if self._phase in {"draining", "stopped"}:
            return "draining"
        states = {model.state for model in self._models.values() if model.settings.preload}
        if "failed" in states:
            return "failed"
        # a preloaded model that was idle long enough to be unloaded is as ready as it was configured to be
        return "ready" if self._phase == "serving" and states <= {"ready", "busy", "draining", "unloaded"} else "loading"

    def loads(self) -> dict[str, tuple[str, float]]:
        """What is being fetched or loaded, by model: the step, and how much of it is done."""
        return {name: model.progress for name, model in self._models.items() if model.progress is not None}

    def health(self) -> dict[str, Any]:
        """What an operator may know: readiness, and the state of each model."""
        return {"status": self.readiness(), "models": {name: model.state for name, model in self._models.items()}}

    # ----------------------------------------------------------------------------------------------------- the inside

    def _declare(self, name: str) -> Model:
        model = Model(
            name,
            self._catalog.model(name),
            limits=self._settings.limits,
            catalog=self._catalog,
            deploy=self._deploy,
            clock=self._clock,
            created=self._created,
            on_state=self._state_changed,
        )
        self._events.model_state(name, "declared")
        return model

    def _deploy(self, job: Job, admission: Admission, on_state: Callable[[str, str], None]) -> Deployment:
        return Deployment(
            job,
            limits=self._settings.limits,
            admission=admission,
            planner=self._planning,
            keeper=self._keeper,
            clock=self._clock,
            events=self._events,
            on_state=on_state,
        )

    def visible(self, caller: Caller, name: str) -> Model:
        """The model that a caller means by `name`; an unknown one is told only of models it may use."""
        resolved = self._catalog.names.resolve(name, caller.models)
        model = self._models.get(resolved)
        self._access.allow(caller, resolved, model.settings.aliases if model is not None else ())
        if model is None:  # a family, named by a request for the first time
            if not self._catalog.families.heads:
                raise Unavailable("The families are still being read from the installed transformers.", retry_after_s=2.0)
            model = self._models[resolved] = self._declare(resolved)
        return model

    async def named(self, caller: Caller, name: str) -> Model:
        """As `visible`; waits for the families where they may be named."""
        if self._settings.allow_families and not self._catalog.families.heads and name not in self._models:
            await self._catalog.load_families()
        return self.visible(caller, name)

    async def _with_media(
        self, request: msgspec.Struct, route: Route, scope: Mapping[str, Any] | None
    ) -> tuple[msgspec.Struct, Options]:
        """The request with the media that it names by address, and the options with the time that is left."""
        wanted = self._fetcher.wanted(request)
        if not wanted:
            return request, route.options
        fetching = self._fetcher.fetched(request, wanted)
        try:
            deadline_s = self._dispatcher.deadline_s(route.options)
            request, left_s = await attended(fetching, scope, deadline_s, "its media were being fetched")
        except ModelportError as error:
            self._events.request_rejected(route.deployment.job.model, error.kind)
            raise
        return request, msgspec.structs.replace(route.options, deadline_s=left_s)

    def _deployments(self) -> list[Deployment]:
        return [deployment for model in self._models.values() for deployment in model.deployments.values()]

    def _state_changed(self, model: str, state: str, reason: str) -> None:
        self._events.model_state(model, state)
        if state in _TOLD:
            self._hooks.model_state_changed(model, state, reason)

    def refuse_while_stopping(self) -> None:
        """Raises `Unavailable` once no more requests are taken."""
        if self._phase in {"draining", "stopped"}:
            raise shutting_down()

    async def _preload(self, model: Model) -> None:
        try:
            await model.read()
            await model.deployment(model.tasks[0]).load()
        except ModelportError as error:
            _log.error("preload failed", model=model.name, cause=error.message)

    def _sweep(self) -> None:
        if self._phase != "stopped":
            self._keeper.sweep()
            self._clock.later(_SWEEP_S, self._sweep)

    def _background_task(self, work: Coroutine[Any, Any, Any]) -> None:
        def ended(task: asyncio.Task[Any]) -> None:
            self._background.discard(task)
            if not task.cancelled() and task.exception() is not None:
                _log.error("background work failed", cause=str(task.exception()))

        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(ended)
