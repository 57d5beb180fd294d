"""One model on every place that can run it, measured one after the other, without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec

from modelport.contract.errors import ConfigurationError, InvalidRequest, ModelportError
from modelport.contract.task import decode_hook
from modelport.core.cli.ask import request_body
from modelport.core.cli.bench import Measured, repeat
from modelport.core.cli.parts import Parts
from modelport.core.cli.placing import place

__all__ = ["Compared", "compare"]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A place: what loading and answering took there, or `reason` why nothing could be measured."""

    backend: str
    device: str = ""
    dtype: str = ""
    load_s: float | None = None
    memory_bytes: int | None = None
    measured: Measured | None = None
    reason: str = ""


async def compare(
    parts: Parts, backends: Collection[str], task: str | None, text: str, concurrency: int, count: int
) -> list[Compared]:
    """Loads and measures the model on each of `backends`, or on all if that is empty. What is measured is kept, and decides
    where servers load the model where the configuration leaves it open.

    Raises:
        ConfigurationError: there is no such model or backend.
        InvalidRequest: the text is no request of the task.
    """
    missing = sorted(set(backends) - parts.registry.backends.keys())
    if missing:
        raise ConfigurationError(
            f"There is no backend {missing[0]!r} among the enabled ones: {', '.join(parts.registry.backends) or 'none'}."
        )
    record = (await place(parts)).placements[0]
    results = []
    for candidate in record.candidates:
        if backends and candidate.backend not in backends:
            continue
        device = "+".join(candidate.devices)
        if candidate.place is None:
            results.append(Compared(backend=candidate.backend, device=device, reason=candidate.reason))
            continue
        try:
            results.append(await _measure(parts, candidate.backend, device, task, text, concurrency, count))
        except InvalidRequest:
            raise
        except ModelportError as error:
            results.append(Compared(backend=candidate.backend, device=device, reason=error.message))
    return results


async def _measure(
    parts: Parts, backend: str, device: str, task: str | None, text: str, concurrency: int, count: int
) -> Compared:
    from modelport.core.app import Application
    from modelport.core.serving.principal import anonymous

    there = msgspec.structs.replace(parts.catalog.model(parts.name), backend=device or backend, strict=True)
    limits = msgspec.structs.replace(parts.settings.limits, load_wait_s=86_400.0)
    settings = msgspec.structs.replace(parts.settings, models={parts.name: there}, limits=limits, spare=0)
    application = Application.build(settings, in_server=False)
    host, me = application.host, anonymous()
    await application.startup()
    try:
        info = await host.load(me, parts.name)
        name = task or info.tasks[0]
        request = _request(host.tasks(), name, text)
        measured = await repeat(_asker(host.run, name, parts.name, request, me), info.id, name, concurrency, count)
        record = host.placement(me, parts.name)
        return Compared(
            backend=backend,
            device=device,
            dtype=record["facts"].get("dtype", ""),
            load_s=record["load_s"],
            memory_bytes=record["memory_measured_bytes"],
            measured=measured,
        )
    finally:
        await host.stop(0)


def _asker(run: Callable[..., Awaitable[Any]], *question: Any) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        return await run(*question)

    return ask


def _request(tasks: Any, name: str, text: str) -> msgspec.Struct:
    definition = tasks.get(name)
    if definition is None:
        raise InvalidRequest(f"No installed skill does {name!r}. Tasks: {', '.join(tasks)}.", param="task")
    body = request_body(text, definition.request.__struct_fields__)
    if name == "text-generation":
        body.setdefault("max_new_tokens", 32)
    try:
        request: msgspec.Struct = msgspec.convert(body, definition.request, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The request is wrong: {error}.") from None
    return request
