"""Chats with SmolLM2-135M-Instruct through POST /v1/chat/completions: processor time a token, and what waiting feels like."""

from __future__ import annotations

import asyncio
import statistics
from itertools import count
from typing import NamedTuple

from clients import Stream, chat
from rows import Loop, Row, median
from server import DEMO, Server
from texts import prompts

__all__ = ["measure"]

_CHECKPOINT = str(DEMO / "smollm2-135m-instruct")
_TOKENS = 64
_SEEDS = count()

_PAIRS = 5

Work = tuple[str, int, float, bool, str]
"""Model, streams, target, whether that is less than the engine alone needed when it was set, best of other servers."""

_WORK: tuple[Work, ...] = (
    ("openvino", 16, 3.2, False, "3.30 (vLLM), 3.71 (llama.cpp)"),
    ("openvino", 4, 5.1, False, ""),
    ("openvino", 1, 11.8, True, "11.8 (llama.cpp), 17.3 (vLLM)"),
    ("openvino-int8", 1, 8.7, True, "8.7 (llama.cpp, q8)"),
    ("cpu", 16, 7.6, False, "50 (transformers serve)"),
)
_MODELS = {
    "openvino": {"source": _CHECKPOINT, "backend": "openvino", "dtype": "bfloat16"},
    "openvino-int8": {
        "source": _CHECKPOINT,
        "backend": "openvino",
        "dtype": "bfloat16",
        "backend_options": {"weights": "int8"},
    },
    "cpu": {"source": _CHECKPOINT, "backend": "cpu", "dtype": "bfloat16"},
}


class Taken(NamedTuple):
    """What a token took, and the gaps between tokens in seconds."""

    loop_ms: float
    server_ms: float
    gaps: list[float]
    parts_ms: dict[str, float]


def measure(rounds: int) -> list[Row]:
    """All rows, loop and server in turns."""
    with Loop() as loop, Server(_MODELS) as server:
        crowds = [_row(work, [_taken(loop, server, work) for _ in range(rounds)]) for work in _WORK if work[1] > 1]
        rest = [_first(server, rounds), *(_beside(server, model, rounds) for model in ("openvino", "cpu"))]
    return [*crowds, *(_alone(work) for work in _WORK if work[1] == 1), *rest]


def _alone(work: Work) -> Row:
    """A stream alone, with several servers and loops."""
    found = []
    for _ in range(_PAIRS):
        with Loop() as loop, Server({work[0]: _MODELS[work[0]]}) as server:
            found.append(_taken(loop, server, work))
    return _row(work, found)


def _taken(loop: Loop, server: Server, work: Work) -> Taken:
    """One round of both, after one that warms up."""
    model, streams = work[:2]
    facts = server.place(model)
    if model == "cpu":
        name, setup = "chat torch", {"checkpoint": _CHECKPOINT, "dtype": "bfloat16"}
    else:
        name, setup = (
            "chat openvino",
            {"checkpoint": _CHECKPOINT, "converted": facts["converted"], "dtype": "bf16", "rows": streams},
        )
    for _ in range(2):
        loop_ms = loop.cpu_ms(name, setup, _fresh(streams), _TOKENS)
        before, parts = server.tree.cpu_ms(), server.tree.parts_ms()
        found = _chat(server, model, streams)
        ms = server.tree.cpu_ms() - before
        where = {part: took - parts.get(part, 0.0) for part, took in server.tree.parts_ms().items()}
    each = 1 / streams / _TOKENS
    gaps = [gap for stream in found for gap in stream.gaps]
    return Taken(loop_ms * each, ms * each, gaps, {part: took * each for part, took in where.items()})


def _row(work: Work, taken: list[Taken]) -> Row:
    model, streams, target, is_beyond, users = work
    gaps = [gap for each in taken for gap in each.gaps]
    value, spread = median([each.server_ms for each in taken])
    return Row(
        work=f"chat, {model}, bfloat16, {streams} stream{'s' if streams > 1 else ''}, 87 + {_TOKENS} tokens",
        unit="CPU ms/token",
        server=value,
        spread=spread,
        target=target,
        is_beyond=is_beyond,
        loop=median([each.loop_ms for each in taken])[0],
        users=users,
        wall=f"{statistics.median(gaps) * 1000:.0f} ms between tokens (p99 {_percentile(gaps, 99) * 1000:.0f} ms)",
        note=", ".join(
            f"{part} {statistics.median(each.parts_ms[part] for each in taken):.2f} ms" for part in taken[-1].parts_ms
        ),
    )


def _first(server: Server, rounds: int) -> Row:
    """How long 16 who ask at once wait for their first token."""
    server.place("openvino")
    waits = [[stream.first * 1000 for stream in _chat(server, "openvino", 16, tokens=8)] for _ in range(rounds)]
    value, spread = median([statistics.median(found) for found in waits])
    return Row(
        work="time to first token, openvino, bfloat16, 16 streams at once, 87 tokens of prompt",
        unit="ms",
        server=value,
        spread=spread,
        target=800,
        users="830 (vLLM), 1,150 (llama.cpp)",
        wall=f"the last of them {median([max(found) for found in waits])[0]:.0f} ms",
    )


def _beside(server: Server, model: str, rounds: int) -> Row:
    """The p99 of the time between tokens of eight streams beside a prompt of 2,000 tokens, as a multiple of that without it."""
    server.place(model)
    ratios, alone, beside = [], [], []
    for _ in range(rounds):
        quiet = [gap for stream in _chat(server, model, 8, tokens=96) for gap in stream.gaps]
        crowded = [gap for stream in asyncio.run(_with_long_prompt(server, model)) for gap in stream.gaps]
        alone.append(_percentile(quiet, 99) * 1000)
        beside.append(_percentile(crowded, 99) * 1000)
        ratios.append(beside[-1] / alone[-1])
    value, spread = median(ratios)
    return Row(
        work=f"p99 between tokens of 8 streams, {model}, bfloat16, beside a prompt of 2,000 tokens",
        unit="× without it",
        server=value,
        spread=spread,
        target=3.0,
        wall=f"{median(alone)[0]:.0f} ms alone, {median(beside)[0]:.0f} ms beside it",
    )


async def _with_long_prompt(server: Server, model: str) -> list[Stream]:
    streams = asyncio.create_task(chat(server.address, model, _fresh(8), 96))
    await asyncio.sleep(1.5)  # they are under way
    await chat(server.address, model, prompts(1, words=1_960, seed=next(_SEEDS)), 1)
    return await streams


def _chat(server: Server, model: str, streams: int, tokens: int = _TOKENS) -> list[Stream]:
    return asyncio.run(chat(server.address, model, _fresh(streams), tokens))


def _fresh(streams: int) -> list[str]:
    return prompts(streams, seed=next(_SEEDS))  # never asked before: nothing is in a prefix cache but the template


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
