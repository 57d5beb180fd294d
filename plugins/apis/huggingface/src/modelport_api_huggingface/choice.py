"""Which model answers a route that names none, and which of a model's tasks a body means."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from modelport.contract.errors import Forbidden, InvalidRequest, ModelportError, NotFound
from modelport.contract.host import ModelInfo
from modelport_api_huggingface.answer import Call, root_model
from modelport_api_huggingface.errors import MODEL_KEY

__all__ = ["ENCODING", "GENERATING", "encodes", "first_of", "generates", "known", "root_of", "task_of"]

GENERATING = ("text-generation", "image-text-to-text")
"""Tasks that TGI does."""

ENCODING = ("feature-extraction", "text-ranking", "text-classification")
"""Tasks that TEI does."""


async def root_of(call: Call, tasks: Sequence[str]) -> ModelInfo:
    """The model for a route that one of `tasks` answers: the configured one if it does one of them, else the only one that does,
    of those that the caller may use.

    Raises:
        InvalidRequest: several do, and the configuration names none.
        NotFound: none does.
    """
    if named := root_model(call.request):
        with suppress(Forbidden):  # to callers whose models are others it is none
            info = await known(call, named)
            if first_of(info, tasks):
                return info
    fitting = [info for info in call.host.models(call.principal) if first_of(info, tasks)] or await _unread(call, tasks)
    if len(fitting) > 1:
        names = ", ".join(info.id for info in fitting)
        raise InvalidRequest(
            f"Several models could answer this route: {names}. Set {MODEL_KEY} to one of them, or ask for a model by its name"
            " at /models/NAME.",
            param=MODEL_KEY,
        )
    if not fitting:
        raise NotFound(f"No model here does {' or '.join(tasks)}, which this route needs.")
    return fitting[0]


async def known(call: Call, name: str) -> ModelInfo:
    """The model of that name, once it is known what it does."""
    info = call.host.model(call.principal, name)
    if not info.tasks:
        await call.host.default_task(call.principal, info.id)
        info = call.host.model(call.principal, info.id)
    return info


async def _unread(call: Call, tasks: Sequence[str]) -> list[ModelInfo]:
    """Those that do one of `tasks` among the models whose checkpoints have not been read yet."""
    found = []
    for info in call.host.models(call.principal):
        if info.tasks:
            continue
        try:
            info = await known(call, info.id)
        except ModelportError:
            continue  # its checkpoint cannot be had; the model itself says why
        if first_of(info, tasks):
            found.append(info)
    return found


def first_of(info: ModelInfo, tasks: Sequence[str]) -> str | None:
    """The first of `tasks` that the model does."""
    return next((task for task in tasks if task in info.tasks), None)


def generates(info: ModelInfo) -> bool:
    """Whether the model is asked as TGI is."""
    return first_of(info, GENERATING) is not None


def encodes(info: ModelInfo) -> bool:
    """Whether the model is asked as TEI is."""
    return not generates(info) and first_of(info, ENCODING) is not None


def task_of(info: ModelInfo, tasks: Sequence[str]) -> str:
    """As `first_of`, of a model that was chosen for one of `tasks`."""
    return first_of(info, tasks) or tasks[0]
