"""`modelport bench`: how fast a running server answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import rich_click as click

from modelport.core.cli.options import json_option

__all__ = ["Measured", "command", "summarise"]

_TEXT = "The quick brown fox jumps over the lazy dog while the sun sets behind the hills of the quiet valley."


class Measured(msgspec.Struct, kw_only=True, frozen=True):
    """What was measured. Latencies are seconds from sending to the whole answer; rates are over the whole run."""

    model: str
    task: str
    requests: int
    failed: int
    concurrency: int
    seconds: float
    requests_per_s: float
    prompt_tokens_per_s: float
    completion_tokens_per_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_max_s: float
    worker_mean_s: float
    first_error: str = ""


@click.command("bench")
@click.argument("model")
@click.option(
    "--url",
    default="http://127.0.0.1:8000",
    envvar="MODELPORT_URL",
    metavar="URL",
    help="The server; by default `$MODELPORT_URL`, else `http://127.0.0.1:8000`.",
)
@click.option("--key", envvar="MODELPORT_API_KEY", metavar="KEY", help="An API key; by default `$MODELPORT_API_KEY`.")
@click.option("--task", metavar="TASK", help="One of the model's tasks; its first by default.")
@click.option("--input", "text", default=_TEXT, metavar="TEXT", help="A text, or a JSON object with the request's fields.")
@click.option("--concurrency", "-c", type=click.IntRange(min=1), default=8, metavar="N", help="Requests at once; 8 by default.")
@click.option(
    "--requests", "-n", "count", type=click.IntRange(min=1), default=64, metavar="N", help="Requests in all; 64 by default."
)
@json_option
def command(
    model: str, url: str, key: str | None, task: str | None, text: str, concurrency: int, count: int, as_json: bool
) -> None:
    """Measure how fast a running server answers.

    Sends the same request again and again, after one that warms the model up.

    Examples:

    - `modelport bench all-minilm-l6-v2 --concurrency 64 --requests 1000`
    - `modelport bench smollm2-135m-instruct --input '{"prompt": "Once", "max_new_tokens": 64}'`
    """
    from modelport.core.cli.output import print_json, print_table

    measured = asyncio.run(_measure(model, url, key, task, text, concurrency, count))
    if as_json:
        print_json(measured)
    else:
        rows = [
            (name, round(value, 4) if isinstance(value, float) else value)
            for name, value in msgspec.structs.asdict(measured).items()
        ]
        print_table(("measure", "value"), [row for row in rows if row[1] != ""], "")


async def _measure(model: str, url: str, key: str | None, task: str | None, text: str, concurrency: int, count: int) -> Measured:
    from modelport.client import AsyncClient
    from modelport.contract.errors import ModelportError, WrongTask
    from modelport.core.cli.ask import request_body

    async with AsyncClient(url, key) as client:
        info = await client.info(model)
        tasks = (await client.catalog())["tasks"]
        name = task or next(iter(info.tasks), None)
        if name is None:
            raise WrongTask(
                f"The server has not read {model!r} yet, so its task is not known. Name it: --task {'|'.join(tasks)}."
            )
        if name not in tasks:
            raise WrongTask(f"The server knows no task {name!r}. Tasks: {', '.join(tasks)}.", param="task")
        body = request_body(text, _fields(tasks[name]["schema"]))
        if name == "text-generation":
            body.setdefault("max_new_tokens", 32)
        await client.infer(model, body, name)
        answers: list[Any] = []
        latencies: list[float] = []
        errors: list[str] = []
        numbers = iter(range(count))

        async def caller() -> None:
            for _ in numbers:
                sent = time.perf_counter()
                try:
                    answers.append(await client.infer(model, body, name))
                except ModelportError as error:
                    errors.append(error.message)
                else:
                    latencies.append(time.perf_counter() - sent)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        seconds = time.perf_counter() - began
    return summarise(info.id, name, concurrency, seconds, answers, latencies, errors)


def summarise(
    model: str, task: str, concurrency: int, seconds: float, answers: list[Any], latencies: list[float], errors: list[str]
) -> Measured:
    """Adds up a run. Percentiles are of answered requests; without any they are 0."""
    ordered = sorted(latencies) or [0.0]

    def percentile(fraction: float) -> float:
        return ordered[min(len(ordered) - 1, round(fraction * (len(ordered) - 1)))]

    return Measured(
        model=model,
        task=task,
        requests=len(answers) + len(errors),
        failed=len(errors),
        concurrency=concurrency,
        seconds=seconds,
        requests_per_s=len(answers) / seconds,
        prompt_tokens_per_s=sum(answer.usage.prompt_tokens for answer in answers) / seconds,
        completion_tokens_per_s=sum(answer.usage.completion_tokens for answer in answers) / seconds,
        latency_p50_s=percentile(0.5),
        latency_p95_s=percentile(0.95),
        latency_max_s=ordered[-1],
        worker_mean_s=sum(answer.timings.worker_s for answer in answers) / max(1, len(answers)),
        first_error=errors[0] if errors else "",
    )


def _fields(schema: dict[str, Any]) -> set[str]:
    """Names of the request's fields, from the task's JSON Schemas."""
    request = schema["request"]
    if "$ref" in request:
        request = schema["$defs"][request["$ref"].rsplit("/", 1)[-1]]
    return set(request.get("properties", {}))
