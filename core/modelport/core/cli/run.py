"""`modelport run`: one request from the shell, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import rich_click as click

from modelport.core.cli.model_options import model_flags, model_options
from modelport.core.cli.options import config_option, json_option

__all__ = ["command"]


@click.command("run")
@click.argument("model", metavar="MODEL")
@click.argument("text", metavar="[INPUT]", required=False)
@click.option("--task", metavar="TASK", help="One of the model's tasks; its first by default.")
@click.option("--set", "-s", "options", multiple=True, metavar="KEY=VALUE", help="A field of the request; may be repeated.")
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@model_options
@config_option
@json_option
def command(
    model: str,
    text: str | None,
    task: str | None,
    options: tuple[str, ...],
    raw: bool,
    config: Path | None,
    as_json: bool,
    **placed: Any,
) -> None:
    """Load a model, answer one request, and stop.

    MODEL is a configured name, or a source as `serve` takes them. INPUT is a text, or a JSON object with the request's
    fields; without it, or with `-`, it is read from stdin. Text comes as it is generated; other results are JSON, in which
    an array is its type, its shape and the base64 of its bytes.

    Examples:

    - `modelport run ./smollm "What is the capital of France?" -s max_new_tokens=32`
    - `modelport run ./minilm '{"inputs": ["a text", "another"]}'`
    - `cat story.txt | modelport run org/model --task text-generation --raw`
    """
    from modelport.core.cli.asking import Question, answer

    question = Question(model=model, text=text, task=task, options=options, is_raw=raw, is_streamed=not as_json)
    asyncio.run(answer(question, config, model_flags(**placed)))
