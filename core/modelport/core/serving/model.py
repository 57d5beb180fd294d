"""A model as the server offers it: its card and skill once they are known, and its deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from modelport.contract.card import ModelCard
from modelport.contract.errors import ModelFailed, ModelportError, Overloaded, Unavailable, WrongTask
from modelport.contract.host import ModelInfo
from modelport.contract.program import Pool
from modelport.core.catalog.catalog import Catalog, Choice
from modelport.core.config.settings import LimitSettings, ModelSettings
from modelport.core.serving.admission import Admission
from modelport.core.serving.clock import Clock
from modelport.core.serving.deployment import Deployment
from modelport.core.serving.job import Job

__all__ = ["Model"]

_log = structlog.get_logger("modelport.serving")
_LIVELIEST = ("busy", "ready", "loading", "draining", "failed", "unloaded", "declared")

Deploy = Callable[[Job, Admission, Callable[[str, str], None]], Deployment]
"""Makes a deployment for a job; the last argument is told of its states."""


class Model:
    """One name in the configuration.

    Args:
        name: That name.
        settings: Its table.
        limits: Waiting times and bounds.
        catalog: Reads its checkpoint.
        deploy: Makes deployments.
        clock: The time.
        created: Unix time of its declaration.
        on_state: Told when its state changes: the state and the reason.
    """

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        *,
        limits: LimitSettings,
        catalog: Catalog,
        deploy: Deploy,
        clock: Clock,
        created: int,
        on_state: Callable[[str, str, str], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.card: ModelCard | None = None
        self.choice: Choice | None = None
        self.deployments: dict[tuple[str, str], Deployment] = {}
        self.admission = Admission(name, settings.queue_items or limits.queue_items, limits.queue_bytes)
        self._ways: dict[tuple[str, str], Deployment] = {}
        self._limits = limits
        self._catalog = catalog
        self._deploy = deploy
        self._clock = clock
        self._created = created
        self._on_state = on_state
        self._labels: tuple[str, ...] = ()
        self._pooling = ""
        self._end_tokens: tuple[int, ...] = ()
        self._state = "declared"
        self._reading: asyncio.Task[None] | None = None
        self._waiting = 0
        self._progress = ("reading its checkpoint", 0.0)
        self._failure: ModelportError | None = None
        self._retry_at = 0.0

    # ----------------------------------------------------------------------------------------------- what is known

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it serves, the default first; empty until its checkpoint has been read."""
        return self.choice.tasks if self.choice is not None else ()

    @property
    def state(self) -> str:
        """The liveliest state of its deployments."""
        states = {deployment.state for deployment in self.deployments.values()}
        if not states:
            return self._state
        return next(state for state in _LIVELIEST if state in states)

    @property
    def error(self) -> str:
        """Why it failed, if it did."""
        if self.state != "failed":
            return ""
        if self._failure is not None:
            return self._failure.message
        return next((each.reason for each in self.deployments.values() if each.state == "failed"), "")

    @property
    def progress(self) -> tuple[str, float] | None:
        """What its fetch or its load is doing, and how much of that is done; None if neither goes on."""
        if not self.deployments:
            return self._progress if self._state == "loading" else None
        return next((each.progress for each in self.deployments.values() if each.state == "loading"), None)

    def info(self) -> ModelInfo:
        """What the server says of it."""
        card = self.card or ModelCard(name=self.name)
        backends = [
            deployment.record.backend for deployment in self.deployments.values() if deployment.slots and deployment.record
        ]
        return ModelInfo(
            id=self.name,
            tasks=self.tasks or ((self.settings.task,) if self.settings.task else ()),
            state=self.state,
            aliases=tuple(self.settings.aliases),
            skill=self.choice.skill if self.choice else "",
            backend=backends[0] if backends else "",
            source=self.settings.source,
            owned_by=_owner(self.settings.source),
            created=self._created,
            context_length=card.limit,
            license=card.license,
            parameters=card.parameters,
            model_type=card.model_type,
            has_chat_template=card.has_chat_template,
            memory_bytes=sum(deployment.memory_bytes for deployment in self.deployments.values()),
            pinned=self.settings.pin,
            error=self.error,
            labels=self._labels,
            pooling=self._pooling,
            end_tokens=self._end_tokens,
        )

    # ---------------------------------------------------------------------------------------------------- reading

    async def read(self, *, wait_s: float | None = None, again: bool = False) -> None:
        """Returns when its card is read and its skill is chosen; many callers cause one reading.

        Args:
            wait_s: Longest wait; the reading goes on after it.
            again: Try at once, even if it has just failed.

        Raises:
            Unavailable: it failed, or takes longer than `wait_s`.
            Overloaded: as many wait for it as may wait at all.
        """
        if self.choice is not None:
            return
        if self._failure is not None and not again and self._clock.now() < self._retry_at:
            raise self._unreadable(self._failure)
        if self._waiting >= (self.settings.queue_items or self._limits.queue_items):
            raise Overloaded(
                f"The model {self.name!r} is being fetched, and {self._waiting} requests wait for it already.", retry_after_s=5.0
            )
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        self._waiting += 1
        try:
            await asyncio.wait([self._reading], timeout=wait_s)
        finally:
            self._waiting -= 1
        if self.choice is None:
            if self._failure is not None:
                raise self._unreadable(self._failure)
            what, fraction = self._progress
            raise Unavailable(
                f"The model {self.name!r} is still being fetched: {what}, {fraction:.0%} done. Try again later; it goes on.",
                retry_after_s=5.0,
            )

    async def _read(self) -> None:
        self._failure = None
        try:
            card = await self._catalog.card(self.name, self._advance)
            self.choice, self.card = self._catalog.choose(card, self.settings), card
            self._labels, self._pooling = _labels(card.config), _pooling(self.choice)
            self._end_tokens = _end_tokens(card.config)
            for task in self.choice.tasks:
                self.deployment(task)
            self._enter("declared", "its checkpoint has been read")
        except ModelportError as error:
            self._failed(error)
        except Exception as error:
            _log.exception("reading failed", model=self.name)
            self._failed(ModelFailed(f"Reading the checkpoint raised {type(error).__name__}; the server's log has the details."))
        finally:
            self._reading = None

    def _advance(self, what: str, fraction: float) -> None:
        self._progress = (what, fraction)
        if self._state != "loading":  # only what takes time reports progress
            self._enter("loading", what)

    def _failed(self, error: ModelportError) -> None:
        _log.error("failed", model=self.name, cause=error.message)
        self._failure, self._retry_at = error, self._clock.now() + self._limits.retry_failed_s
        self._enter("failed", error.message)

    def _unreadable(self, error: ModelportError) -> Unavailable:
        left = max(self._retry_at - self._clock.now(), 0.0)
        return Unavailable(f"The model {self.name!r} could not be loaded: {error.message}", retry_after_s=max(left, 1.0))

    def _enter(self, state: str, reason: str) -> None:
        self._state = state
        self._on_state(self.name, state, reason)

    # ------------------------------------------------------------------------------------------------ deployments

    def deployment(self, task: str, hardware: str = "") -> Deployment:
        """Where requests of a task go; its checkpoint must have been read.

        Raises:
            WrongTask: it does not do that.
        """
        found = self._ways.get((task, hardware))
        if found is None:
            found = self._ways[task, hardware] = self._way(task, hardware)
        return found

    def _way(self, task: str, hardware: str) -> Deployment:
        choice, card = self.choice, self.card
        assert choice is not None
        assert card is not None
        if task not in choice.tasks:
            can = ", ".join(choice.tasks)
            raise WrongTask(f"The model {self.name!r} does not do {task!r}. It does: {can}.", param="task")
        program = choice.programs.get(task)
        digest = program.digest if program is not None else ""
        found = self.deployments.get((digest, hardware))
        if found is not None:
            return found
        tasks = tuple(other for other in choice.tasks if choice.programs.get(other) == program)
        suffix = [part for part in (tasks[0] if len(tasks) < len(choice.tasks) else "", hardware) if part]
        job = Job(
            name="#".join([self.name, *suffix]),
            model=self.name,
            settings=self.settings,
            card=card,
            skill=choice.skill,
            tasks=tasks,
            program=program,
            hardware=hardware,
        )
        made = self._deploy(job, self.admission, self._changed)
        self.deployments[digest, hardware] = made
        return made

    def loaded_on(self, task: str, hardware: str) -> Deployment | None:
        """The task's own deployment, if it already runs on `hardware`."""
        own = self.deployment(task)
        places = {
            place for slot in own.slots for place in (slot.candidate.backend, *(device.id for device in slot.candidate.devices))
        }
        return own if hardware in places else None

    def _changed(self, state: str, reason: str) -> None:
        self._on_state(self.name, self.state if len(self.deployments) > 1 else state, reason)

    def claims(self) -> list[Mapping[str, Any]]:
        """What every skill said of its checkpoint."""
        claims = self.choice.claims if self.choice else []
        return [
            {"skill": c.skill, "state": c.state, "tasks": list(c.tasks), "score": c.score, "reason": c.reason} for c in claims
        ]

    async def close(self) -> None:
        """Ends a reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


def _owner(source: str) -> str:
    head, slash, _ = source.partition("/")
    return head if slash and head and not head.startswith((".", "~")) and ":" not in head else "modelport"


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a checkpoint's classes by index, if its configuration names all of them."""
    names = config.get("id2label")
    by_index = {str(index): str(name) for index, name in names.items()} if isinstance(names, Mapping) else {}
    indices = [str(index) for index in range(len(by_index))]
    return tuple(by_index[index] for index in indices) if set(indices) == by_index.keys() else ()


def _pooling(choice: Choice) -> str:
    """How the first program that pools does it."""
    entries = [entry for program in choice.programs.values() for entry in program.entries.values()]
    steps = (step for entry in entries for output in getattr(entry, "outputs", ()) for step in output.chain)
    return next((step.mode for step in steps if isinstance(step, Pool)), "")


def _end_tokens(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens that end a text, of the model itself or of the part of it that writes."""
    for each in (config, config.get("text_config")):
        found = each.get("eos_token_id") if isinstance(each, Mapping) else None
        found = found if isinstance(found, list) else [found]
        if all(isinstance(token, int) for token in found):
            return tuple(found)
    return ()
