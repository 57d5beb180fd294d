"""What a server costs around its models: per request, at start, in memory, and when nothing happens."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from clients import drive
from rows import Row, median
from server import DEMO, Server
from texts import texts

__all__ = ["measure"]

_MINILM = {"source": str(DEMO / "all-minilm-l6-v2"), "backend": "openvino", "dtype": "float32"}
_IDLE_S = 10.0


def measure(rounds: int) -> list[Row]:
    """All rows."""
    return [_overhead(rounds), *_start(rounds), *_second(rounds), _memory(), _idle()]


def _overhead(rounds: int) -> Row:
    """A model of one layer, so that nearly all of it is the server's own."""
    from modelport.testing.checkpoints import tiny_bert

    with tempfile.TemporaryDirectory() as folder:
        tiny_bert(Path(folder))
        with Server({"tiny": {"source": folder, "backend": "openvino", "dtype": "float32", "max_items": 64}}) as server:
            server.place("tiny")
            costs, rates = [], []
            for number in range(-1, rounds):
                bodies = [{"model": "tiny", "input": text} for text in texts(2_000, 8, seed=number)]
                before = server.tree.cpu_ms()
                seconds = asyncio.run(drive(server.address, "/v1/embeddings", bodies, 32))
                if number >= 0:  # the first round warms up
                    costs.append((server.tree.cpu_ms() - before) / len(bodies))
                    rates.append(len(bodies) / seconds)
    value, spread = median(costs)
    return Row(
        work="overhead, model of one layer, 32 clients",
        unit="CPU ms/request",
        server=value,
        spread=spread,
        target=0.40,
        users="0.20 (a Rust front), 0.6–1.8 (Python servers)",
        wall=f"{median(rates)[0]:.0f} requests/s",
    )


def _start(rounds: int) -> list[Row]:
    """From the command to the first embedding; the converted model is there."""
    first, live = [], []
    with Server({"one": _MINILM}) as server:
        server.place("one")
    for _ in range(rounds):
        with Server({"one": _MINILM | {"preload": True}}) as server:
            server.ask("GET", "/health/live")
            live.append(time.perf_counter() - server.began)
            server.ask("POST", "/v1/embeddings", {"model": "one", "input": "a first text"})
            first.append(time.perf_counter() - server.began)
    value, spread = median(first)
    users = "0.2 (llama.cpp), 10–21 (Python servers)"
    work = "start of the process to the first embedding, openvino"
    rows = [Row(work=work, unit="s", server=value, spread=spread, target=2.5, users=users)]
    value, spread = median(live)
    return [*rows, Row(work="start of the process to /health/live", unit="s", server=value, spread=spread, target=1.0)]


def _second(rounds: int) -> list[Row]:
    """From the request for a second model to its first embedding, without and with a spare worker; and what that takes."""
    rows = []
    for backend in ("openvino", "cpu"):
        for spare in (0, 1):
            model = _MINILM | {"backend": backend}
            found, sizes = [], []
            for _ in range(rounds):
                with Server({"one": model, "two": model}, spare) as server:
                    server.place("one")
                    while server.tree.processes() < 2 + spare:
                        time.sleep(0.1)
                    _quiet(server)
                    sizes.append(server.tree.pss_mib())
                    began = time.perf_counter()
                    server.ask("POST", "/v1/embeddings", {"model": "two", "input": "a first text"})
                    found.append(time.perf_counter() - began)
            value, spread = median(found)
            how = "the spare worker waiting that there is by default" if spare else "without a spare worker"
            work = f"request of a second model to its first embedding, {backend}, {how}"
            wall = f"{median(sizes)[0]:.0f} MiB of memory before it"
            rows.append(Row(work=work, unit="s", server=value, spread=spread, target=1.0, wall=wall))
    return rows


def _memory() -> Row:
    with Server({"one": _MINILM}) as server:
        server.place("one")
        for text in texts(64, 21):
            server.ask("POST", "/v1/embeddings", {"model": "one", "input": text})
        _quiet(server)
        size = server.tree.pss_mib()
    return Row(
        work="memory of the tree (PSS), one all-MiniLM-L6-v2, openvino, float32",
        unit="MiB",
        server=size,
        spread=(size, size),
        target=350,
        users="566–880 (Python servers)",
    )


def _idle() -> Row:
    with Server({"one": _MINILM}) as server:
        server.place("one")
        _quiet(server)
        before = server.tree.cpu_ms()
        time.sleep(_IDLE_S)
        used = (server.tree.cpu_ms() - before) / _IDLE_S / 1000
    return Row(
        work="idle, one model loaded",
        unit="cores",
        server=used,
        spread=(used, used),
        target=0.005,
        users="0.6 (vLLM)",
        note=f"over {_IDLE_S:.0f} s; the clock counts in hundredths",
    )


def _quiet(server: Server) -> None:
    """Waits until the tree has stopped working: what was started beside the answer is done."""
    before = server.tree.cpu_ms()
    while True:
        time.sleep(1.0)
        now = server.tree.cpu_ms()
        if now - before < 20:
            return
        before = now
