"""One request to a model that is loaded for it alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from modelport.contract.errors import InvalidRequest, WrongTask
from modelport.contract.task import Task, decode_hook
from modelport.core.app import Application
from modelport.core.cli.ask import input_text, request_body, with_options
from modelport.core.cli.output import note, print_json
from modelport.core.cli.parts import assemble
from modelport.core.cli.progress import ProgressView
from modelport.core.cli.watching import show_loads
from modelport.core.serving.host import Host
from modelport.core.serving.principal import anonymous

__all__ = ["Question", "answer"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask.

    Args:
        model: A configured name, or a source.
        text: A text, or a JSON object with the request's fields; None or `-` reads it from stdin.
        task: One of the model's tasks, or None for its first.
        options: `KEY=VALUE` fields of the request.
        is_raw: Leave the chat template out.
        is_streamed: Print text as it comes, where the task streams.
    """

    model: str
    text: str | None
    task: str | None = None
    options: tuple[str, ...] = ()
    is_raw: bool = False
    is_streamed: bool = True


async def answer(question: Question, config: Path | None, placed: Mapping[str, Any]) -> None:
    """Prints the answer. The model's process is gone when this returns.

    Raises:
        ModelportError: the model cannot be loaded, or the request is wrong.
    """
    parts = assemble(config, question.model, placed)
    with ProgressView() as view:
        card = await parts.catalog.card(parts.name, view.task(parts.name))
    choice = parts.catalog.choose(card, parts.catalog.model(parts.name))
    name = question.task or choice.tasks[0]
    if name not in choice.tasks:
        raise WrongTask(f"The model {parts.name!r} does not do {name!r}. It does: {', '.join(choice.tasks)}.", param="task")
    task = parts.registry.tasks[name]
    chat = card.has_chat_template and not question.is_raw
    body = with_options(request_body(input_text(question.text), _fields(task), chat=chat), question.options)
    request = _request(task, body)
    # who waits at a shell has asked for this load, and no other request stands behind it
    limits = msgspec.structs.replace(parts.settings.limits, load_wait_s=86_400.0)
    settings = msgspec.structs.replace(parts.settings, limits=limits)
    application = Application.build(settings, in_server=False)
    async with _running(application):
        if question.is_streamed and task.delta is not None and "text" in task.delta.__struct_fields__:
            await _stream(application.host, task.name, parts.name, request)
        else:
            async with show_loads(application.host):
                reply = await application.host.run(task.name, parts.name, request, anonymous())
            shown = {"model": reply.model, "task": task.name, "result": reply.result, "usage": reply.usage}
            print_json({**shown, "timings": reply.timings})


async def _stream(host: Host, task: str, model: str, request: msgspec.Struct) -> None:
    async with show_loads(host):
        stream = await host.stream(task, model, request, anonymous())
    async for delta in stream:
        click.echo(delta.text, nl=False)
    click.echo()
    usage = stream.usage
    note(f"{usage.prompt_tokens} prompt tokens, {usage.completion_tokens} new ones, {stream.timings.worker_s:.2f} s")


def _request(task: Task[Any, Any, Any], body: Mapping[str, Any]) -> msgspec.Struct:
    try:
        request: msgspec.Struct = msgspec.convert(body, task.request, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        fields = ", ".join(sorted(_fields(task)))
        raise InvalidRequest(f"The request for {task.name!r} is wrong: {error}. Its fields are: {fields}.") from None
    return request


@asynccontextmanager
async def _running(application: Application) -> AsyncIterator[None]:
    await application.startup()
    try:
        yield
    finally:
        await asyncio.shield(application.shutdown())


def _fields(task: Task[Any, Any, Any]) -> set[str]:
    return set(task.request.__struct_fields__)
