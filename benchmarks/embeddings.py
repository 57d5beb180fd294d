"""Embeddings of all-MiniLM-L6-v2 through POST /v1/embeddings: processor milliseconds of the server's tree a text."""

from __future__ import annotations

import asyncio
from typing import Any

from clients import drive
from rows import Loop, Row, median
from server import DEMO, Server
from texts import texts

__all__ = ["measure"]

_CHECKPOINT = str(DEMO / "all-minilm-l6-v2")
_HINTS = {"float32": "f32", "bfloat16": "bf16"}

# backend, dtype, clients, tokens a text, texts a request, texts in all, the loop's batch, target, best of other servers
_WORK: tuple[tuple[str, str, int, int, int, int, int, float, str], ...] = (
    ("openvino", "float32", 64, 21, 1, 768, 32, 2.8, "4.0 (CTranslate2), 6.5–16 (torch)"),
    ("openvino", "bfloat16", 64, 21, 1, 768, 32, 1.8, ""),
    ("openvino", "float32", 8, 21, 1, 384, 8, 3.3, "5.6 (llama.cpp), 6.6–12"),
    ("openvino", "float32", 1, 35, 1, 384, 1, 6.3, "11.7"),
    ("openvino", "bfloat16", 1, 35, 1, 384, 1, 4.2, "11.7"),
    ("openvino", "float32", 1, 117, 32, 128, 32, 15.0, "15.2"),
    ("openvino", "bfloat16", 1, 117, 32, 128, 32, 8.5, "15.2"),
    ("cpu", "float32", 64, 21, 1, 384, 32, 6.0, "6.5"),
    ("cpu", "bfloat16", 64, 21, 1, 384, 32, 2.8, "6.5"),
)


def measure(rounds: int) -> list[Row]:
    """All rows, loop and server in turns."""
    models = {
        f"{backend}-{dtype}": {"source": _CHECKPOINT, "backend": backend, "dtype": dtype, "max_items": 64}
        for backend, dtype in sorted({work[:2] for work in _WORK})
    }
    with Loop() as loop, Server(models) as server:
        return [_row(loop, server, rounds, *work) for work in _WORK]


def _row(
    loop: Loop,
    server: Server,
    rounds: int,
    backend: str,
    dtype: str,
    clients: int,
    tokens: int,
    each: int,
    count: int,
    batch: int,
    target: float,
    users: str,
) -> Row:
    model = f"{backend}-{dtype}"
    facts = server.place(model)
    setup = {"checkpoint": _CHECKPOINT, "dtype": dtype}
    if backend == "openvino":
        setup = {"checkpoint": _CHECKPOINT, "converted": facts["converted"], "dtype": _HINTS[dtype]}
    name = f"embed {'openvino' if backend == 'openvino' else 'torch'}"
    looped, served, rates = [], [], []
    for number in range(-1, rounds):
        found = texts(count, tokens, seed=number)
        loop_ms = loop.cpu_ms(name, setup, [found[at : at + batch] for at in range(0, count, batch)]) / count
        ms, seconds = _served(server, model, [found[at : at + each] for at in range(0, count, each)], clients)
        if number >= 0:  # the first round warms up
            looped.append(loop_ms)
            served.append(ms / count)
            rates.append(count / seconds)
    value, spread = median(served)
    crowd = f"{clients} clients" if clients > 1 else "1 client"
    shape = f"{each} texts of {tokens} tokens a request" if each > 1 else f"{tokens} tokens"
    return Row(
        work=f"embeddings, {backend}, {dtype}, {crowd}, {shape}",
        unit="CPU ms/text",
        server=value,
        spread=spread,
        target=target,
        loop=median(looped)[0],
        users=users,
        wall=f"{median(rates)[0]:.0f} texts/s",
    )


def _served(server: Server, model: str, requests: list[list[str]], clients: int) -> tuple[float, float]:
    bodies: list[Any] = [{"model": model, "input": found[0] if len(found) == 1 else found} for found in requests]
    before = server.tree.cpu_ms()
    seconds = asyncio.run(drive(server.address, "/v1/embeddings", bodies, clients))
    return server.tree.cpu_ms() - before, seconds
