"""`modelport bench`: how fast a running server answers, or each backend does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from modelport.contract.errors import ModelportError
from modelport.core.cli.options import config_option, json_option, server_options

__all__ = ["Measured", "command", "repeat", "summarise"]

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
@server_options
@click.option("--task", metavar="TASK", help="One of the model's tasks; its first by default.")
@click.option("--input", "text", default=_TEXT, metavar="TEXT", help="A text, or a JSON object with the request's fields.")
@click.option("--concurrency", type=click.IntRange(min=1), default=8, metavar="N", help="Requests at once; 8 by default.")
@click.option(
    "--requests", "-n", "count", type=click.IntRange(min=1), default=64, metavar="N", help="Requests in all; 64 by default."
)
@click.option(
    "--backends",
    metavar="NAMES",
    help="Without a server: load MODEL on these backends one after the other (`all`, or names with commas between).",
)
@config_option
@json_option
def command(
    model: str,
    url: str,
    key: str | None,
    task: str | None,
    text: str,
    concurrency: int,
    count: int,
    backends: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Measure how fast a running server answers, or how fast a model is on each backend.

    Sends the same request again and again, after one that warms the model up. With `--backends` no server is needed: the
    model is loaded on each, and what is measured is kept for servers, which load it where it was fastest unless their
    configuration says where.

    Examples:

    - `modelport bench all-minilm-l6-v2 --concurrency 64 --requests 1000`
    - `modelport bench smollm2-135m-instruct --input '{"prompt": "Once", "max_new_tokens": 64}'`
    - `modelport bench ./all-minilm --backends all`
    """
    from modelport.core.cli.output import print_json, print_table

    if backends is not None:
        _compare(model, backends, task, text, concurrency, count, config, as_json)
        return
    measured = asyncio.run(_measure(model, url, key, task, text, concurrency, count))
    if as_json:
        print_json(measured)
    else:
        rows = [
            (name, round(value, 4) if isinstance(value, float) else value)
            for name, value in msgspec.structs.asdict(measured).items()
        ]
        print_table(("measure", "value"), [row for row in rows if row[1] != ""], "")


def _compare(
    model: str, backends: str, task: str | None, text: str, concurrency: int, count: int, config: Path | None, as_json: bool
) -> None:
    from modelport.core.cli.comparing import compare
    from modelport.core.cli.output import bytes_text, print_json, print_table
    from modelport.core.cli.parts import assemble

    names = [] if backends == "all" else [name.strip() for name in backends.split(",")]
    results = asyncio.run(compare(assemble(config, model), names, task, text, concurrency, count))
    if as_json:
        print_json(results)
        return
    rows: list[tuple[object, ...]] = []
    for each in results:
        if each.measured is None or each.load_s is None or each.memory_bytes is None:
            rows.append((each.backend, each.device, each.dtype, "", "", "", "", "", each.reason))
            continue
        latencies = (f"{1000 * s:.1f} ms" for s in (each.measured.latency_p50_s, each.measured.latency_p95_s))
        memory, rate = bytes_text(each.memory_bytes), f"{each.measured.requests_per_s:.1f}"
        failed = f"{each.measured.failed} failed: {each.measured.first_error}" if each.measured.failed else ""
        rows.append((each.backend, each.device, each.dtype, f"{each.load_s:.2f} s", memory, rate, *latencies, failed))
    columns = ("backend", "device", "dtype", "load", "memory", "requests/s", "median", "p95", "notes")
    print_table(columns, rows, "No backend is installed. Try: pip install modelport-backend-cpu")


async def _measure(model: str, url: str, key: str | None, task: str | None, text: str, concurrency: int, count: int) -> Measured:
    from modelport.client import AsyncClient
    from modelport.contract.errors import WrongTask
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
        return await repeat(lambda: client.infer(model, body, name), info.id, name, concurrency, count)


async def repeat(ask: Callable[[], Awaitable[Any]], model: str, task: str, concurrency: int, count: int) -> Measured:
    """Asks `count` times, `concurrency` at once, after once for nothing; an answer has `usage` and `timings`."""
    await ask()
    answers: list[Any] = []
    latencies: list[float] = []
    errors: list[str] = []
    numbers = iter(range(count))

    async def caller() -> None:
        for _ in numbers:
            sent = time.perf_counter()
            try:
                answers.append(await ask())
            except ModelportError as error:
                errors.append(error.message)
            else:
                latencies.append(time.perf_counter() - sent)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return summarise(model, task, concurrency, time.perf_counter() - began, answers, latencies, errors)


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
