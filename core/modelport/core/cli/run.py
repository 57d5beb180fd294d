"""`modelport run`: one request from the shell, without a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from modelport.core.cli.options import config_option, json_option
from modelport.core.cli.sources import model_flags

__all__ = ["command"]


@click.command("run")
@click.argument("model", metavar="MODEL")
@click.argument("text", metavar="[INPUT]", required=False)
@click.option("--task", metavar="TASK", help="One of the model's tasks; its first by default.")
@click.option("--set", "-s", "options", multiple=True, metavar="KEY=VALUE", help="A field of the request; may be repeated.")
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")
@click.option("--dtype", help="`auto` (the checkpoint's own), `fast`, or a type such as `bfloat16`.")
@click.option("--max-length", type=int, metavar="TOKENS", help="Most tokens of a sequence.")
@click.option("--backend", metavar="NAME", help="Run on this backend and no other.")
@click.option("--device", metavar="DEVICE", help="Run on this device (`cuda:1`), or its number beside `--backend`.")
@click.option("--trust-remote-code", is_flag=True, help="Run the checkpoint's own code; needs a revision.")
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
    fields; without it, or with `-`, it is read from stdin. Text comes as it is generated; other results are JSON.

    Examples:

    - `modelport run ./smollm "What is the capital of France?" -s max_new_tokens=32`
    - `modelport run all-minilm-l6-v2 '{"inputs": ["a", "b"]}' --json`
    - `cat story.txt | modelport run org/model --task text-generation --raw`
    """
    from modelport.core.cli.asking import Question, answer

    if text is None or text == "-":
        text = sys.stdin.read()
    question = Question(model=model, text=text, task=task, options=options, is_raw=raw, is_streamed=not as_json)
    asyncio.run(answer(question, config, model_flags(**placed)))
