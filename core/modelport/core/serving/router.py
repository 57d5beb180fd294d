"""The router: which model and which deployment a request goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from modelport.contract.errors import InvalidRequest, ModelportError, NotFound, WrongTask
from modelport.contract.host import AUTO
from modelport.contract.reply import Options
from modelport.contract.task import Task
from modelport.core.config.settings import Settings
from modelport.core.placement.hardware import Hardware
from modelport.core.plugins.registry import Registry
from modelport.core.serving.access import Access
from modelport.core.serving.departure import attended
from modelport.core.serving.deployment import Deployment
from modelport.core.serving.events import Events
from modelport.core.serving.learner import Learner
from modelport.core.serving.model import Model
from modelport.core.serving.principal import Caller

__all__ = ["Models", "Route", "Router", "candidates"]

_BACKEND_HEADER = b"x-modelport-backend"


class Models(Protocol):
    """The host, as far as names go."""

    def visible(self, caller: Caller, name: str) -> Model:
        """The model that a caller means by `name`."""

    async def named(self, caller: Caller, name: str) -> Model:
        """As `visible`; waits for what the name needs."""

    def refuse_while_stopping(self) -> None:
        """Raises `Unavailable` if the server takes no more requests."""


class Route(msgspec.Struct, frozen=True):
    """Where a request goes, as what and with which options."""

    deployment: Deployment
    task: Task[Any, Any, Any]
    caller: Caller
    options: Options


class Router:
    """Checks requests and finds their deployments.

    Args:
        settings: The configuration.
        registry: Tasks and backends.
        hardware: Devices that requests may name.
        access: Who may do what.
        learner: Chooses among models that do the same.
        events: What is reported.
        models: Every model by name.
        host: Finds the others.
        deadline_s: Seconds that a request has, if its time is bounded.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        hardware: Hardware,
        access: Access,
        learner: Learner,
        events: Events,
        models: Mapping[str, Model],
        host: Models,
        deadline_s: Callable[[Options], float | None],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._hardware = hardware
        self._access = access
        self._learner = learner
        self._events = events
        self._models = models
        self._host = host
        self._deadline_s = deadline_s

    async def route(
        self, task: str, name: str, request: msgspec.Struct, principal: Any, scope: Mapping[str, Any] | None, options: Options
    ) -> Route:
        """Where a request goes. Suspends only if the checkpoint has not been read."""
        known = ""
        try:
            caller = self._access.need(principal, "infer")
            definition = self._definition(task, request)
            if name == AUTO:
                name = self._chosen(caller, task)
            model = self._models.get(name) or await self._host.named(caller, name)
            known = model.name
            self._access.check(caller, "infer", model.name, model.settings.aliases)
            self._host.refuse_while_stopping()
            if model.choice is None:
                reading = model.read(wait_s=self._settings.limits.load_wait_s)
                _, left_s = await attended(reading, scope, self._deadline_s(options), "its model was being fetched")
                self._host.refuse_while_stopping()  # it has no place yet, so the drain does not wait for it
                options = msgspec.structs.replace(options, deadline_s=left_s)
            options = self._completed(options, scope)
            return Route(self._deployment(model, task, options.hardware), definition, caller, options)
        except ModelportError as error:
            self._events.request_rejected(known, error.kind)
            raise

    def _definition(self, task: str, request: msgspec.Struct) -> Task[Any, Any, Any]:
        definition = self._registry.tasks.get(task)
        if definition is None:
            known = ", ".join(sorted(self._registry.tasks)) or "none"
            raise WrongTask(f"No skill here does {task!r}. Tasks: {known}.", param="task")
        if type(request) is not definition.request:
            raise InvalidRequest(
                f"The task {task!r} takes a {definition.request.__name__}, and was given a {type(request).__name__}.",
                param="request",
            )
        return definition

    def _chosen(self, caller: Caller, task: str) -> str:
        models = [model for model in self._models.values() if self._access.may_use(caller, model.name, model.settings.aliases)]
        able = candidates(models, task)
        if not able:
            raise NotFound(
                f"No model here that you may use does {task!r}, so there is none to choose for {AUTO!r}.", param="model"
            )
        # one that failed is not interchangeable with one that works
        sound = [model for model in able if model.state != "failed"] or able
        return self._learner.model(task, [model.name for model in sound])

    def _completed(self, options: Options, scope: Mapping[str, Any] | None) -> Options:
        """The options, with what the scope says beside the body: the request's id, and a backend where one may be named."""
        if not scope:
            return options
        more = {}
        if not options.request_id and (request_id := scope.get("modelport.request_id", "")):
            more["request_id"] = request_id
        if self._settings.allow_backend_choice and not options.hardware:
            more["hardware"] = next((v.decode("latin-1") for k, v in scope.get("headers", ()) if k == _BACKEND_HEADER), "")
        return msgspec.structs.replace(options, **more) if more else options

    def _deployment(self, model: Model, task: str, hardware: str) -> Deployment:
        if not hardware:
            return model.deployment(task)
        if not self._settings.allow_backend_choice:
            raise InvalidRequest(
                "This server does not let requests choose their hardware (allow_backend_choice).", param="hardware"
            )
        places = {*self._registry.backends, *(device.id for device in self._hardware.devices)}
        if hardware not in places:
            raise InvalidRequest(
                f"There is no hardware {hardware!r}. There is: {', '.join(sorted(places)) or 'none'}.", param="hardware"
            )
        return model.loaded_on(task, hardware) or model.deployment(task, hardware)


def candidates(models: list[Model], task: str) -> list[Model]:
    """Those that do `task`; of one whose checkpoint has not been read nothing is known."""
    return [model for model in models if task in model.tasks]
