"""Measures the server against a plain loop over the same models, in turns and in one run, and prints ratios.

    python benchmarks/run.py                # the table of the README
    python benchmarks/run.py overhead --rounds 9 --json

Needs the demo models (`modelport demo`). Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", Path.home() / ".cache/modelport/demo"))
TEXTS = [
    f"The {n}th customer asked whether the parcel from the northern warehouse would arrive before Friday." for n in range(32)
]
PROMPTS = [f"Write a short story about the number {n} and a lighthouse keeper who counts ships." for n in range(8)]
TOKENS = 64


class Loop:
    """The plain loop, in a child process."""

    def __init__(self, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "loops.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        self._ask(
            threads=threads,
            embed=str(DEMO / "all-minilm-l6-v2"),
            generate=str(DEMO / "smollm2-135m-instruct"),
            texts=TEXTS,
            prompts=PROMPTS,
            tokens=TOKENS,
        )

    def seconds(self, work: str, batch: int, repeat: int) -> float:
        return float(self._ask(work=work, batch=batch, repeat=repeat))

    def _ask(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


class Server:
    """`modelport serve` with both demo models and a tiny one; `live_s` is the time to its first answer on /health/live."""

    def __init__(self, folder: Path) -> None:
        from modelport.testing.checkpoints import tiny_bert

        tiny_bert(folder / "tiny")
        sources = {"minilm": DEMO / "all-minilm-l6-v2", "smollm2": DEMO / "smollm2-135m-instruct", "tiny": folder / "tiny"}
        models = "".join(f'[models.{name}]\nsource = "{path}"\ndtype = "float32"\n' for name, path in sources.items())
        (folder / "modelport.toml").write_text(models)
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "modelport",
                "serve",
                "--config",
                str(folder / "modelport.toml"),
                "--port",
                "0",
                "--log-level",
                "error",
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"MODELPORT_STATE_DIR": str(folder / "state"), "HF_HUB_OFFLINE": "1"},
        )
        assert self.process.stdout is not None
        match = None
        while match is None:
            line = self.process.stdout.readline()
            assert line, "the server ended before it served"
            match = re.search(r"serving on http://([\d.]+):(\d+)", line)
        self.host, self.port = match[1], int(match[2])
        self.connection = http.client.HTTPConnection(self.host, self.port)
        self.request("GET", "/health/live")
        self.live_s = time.perf_counter() - began

    def request(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {"content-type": "application/json"} if data else {})
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer[:500]
        return json.loads(answer) if answer.startswith(b"{") else answer

    def embed(self, batch: int, repeat: int) -> float:
        began = time.perf_counter()
        for _ in range(repeat):
            self.request("POST", "/v1/embeddings", {"model": "minilm", "input": TEXTS[:batch], "encoding_format": "base64"})
        return time.perf_counter() - began

    async def generate(self, streams: int) -> float:
        async with httpx.AsyncClient(base_url=f"http://{self.host}:{self.port}", timeout=600) as client:

            async def one(prompt: str) -> None:
                body = {"model": "smollm2", "prompt": prompt, "temperature": 0, "stream": True}
                body |= {"max_tokens": TOKENS, "ignore_eos": True}
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    async for _ in response.aiter_raw():
                        pass

            began = time.perf_counter()
            await asyncio.gather(*(one(prompt) for prompt in PROMPTS[:streams]))
            return time.perf_counter() - began

    def overhead(self, repeat: int) -> float:
        """Median milliseconds of a request beyond what the worker itself took, seen from a socket."""
        request = _post("/v1/infer/tiny", {"inputs": "a short text"})
        beyond = []
        with socket.create_connection((self.host, self.port)) as connection, connection.makefile("rb") as answers:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(repeat):
                began = time.perf_counter()
                connection.sendall(request)
                head = b"".join(iter(answers.readline, b"\r\n"))
                body = answers.read(_length(head))
                seconds = time.perf_counter() - began
                beyond.append((seconds - json.loads(body)["timings"]["worker_s"]) * 1000)
        return statistics.median(beyond)

    async def throughput(self, clients: int, seconds: float) -> float:
        """Requests per second with a model that takes no time, over raw keep-alive connections."""
        request = _post("/v1/embeddings", {"model": "tiny", "input": "a short text"})
        done, end = 0, time.perf_counter() + seconds

        async def one() -> None:
            nonlocal done
            reader, writer = await asyncio.open_connection(self.host, self.port)
            while time.perf_counter() < end:
                writer.write(request)
                headers = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(headers))
                done += 1
            writer.close()

        await asyncio.gather(*(one() for _ in range(clients)))
        return done / seconds

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait(60)


def embeddings(loop: Loop, server: Server, rounds: int) -> list[dict[str, Any]]:
    """Texts a second, one request after another."""
    loop.seconds("embed", 32, 2), server.embed(32, 2)
    rows = []
    for batch, repeat, bar in ((1, 40, None), (8, 12, None), (32, 5, 0.9)):
        pairs = [(loop.seconds("embed", batch, repeat), server.embed(batch, repeat)) for _ in range(rounds)]
        rows.append(_ratio(f"embeddings, {batch} texts a request", pairs, batch * repeat, "texts/s", bar))
    return rows


def generation(loop: Loop, server: Server, rounds: int) -> list[dict[str, Any]]:
    """Tokens a second, beside padded `generate` of the same prompts."""
    loop.seconds("generate", 8, 1), asyncio.run(server.generate(8))
    rows = []
    for streams, bar in ((1, None), (8, 0.8)):
        pairs = [(loop.seconds("generate", streams, 1), asyncio.run(server.generate(streams))) for _ in range(rounds)]
        rows.append(_ratio(f"generation, {streams} streams", pairs, streams * TOKENS, "tokens/s", bar))
    return rows


def overhead(loop: Loop, server: Server, rounds: int) -> list[dict[str, Any]]:
    """What the server adds to a model that takes no time."""
    server.request("POST", "/v1/infer/tiny", {"inputs": "x"})
    beyond = server.overhead(100 * rounds)
    rate = asyncio.run(server.throughput(16, 5))
    return [
        {"what": "overhead beyond the worker, 1 client", "figure": beyond, "unit": "ms", "bar": "< 2"},
        {"what": "tiny model, 16 clients", "figure": rate, "unit": "requests/s", "bar": ""},
    ]


def start(loop: Loop, server: Server, rounds: int) -> list[dict[str, Any]]:
    """From the command to the first answer on /health/live."""
    live = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            fresh = Server(Path(folder))
            live.append(fresh.live_s)
            fresh.close()
    return [{"what": "start to /health/live", "figure": statistics.median(live), "unit": "s", "bar": "< 1"}]


PARTS = {"embeddings": embeddings, "overhead": overhead, "start": start, "generation": generation}


def measure(parts: list[str], rounds: int) -> list[dict[str, Any]]:
    """Every row of the table: what, the figure, and the bar it is held to."""
    loop = Loop(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            return [row for part in parts for row in PARTS[part](loop, server, rounds)]
        finally:
            server.close()
            loop.close()


def _post(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        + data
    )


def _length(head: bytes) -> int:
    return int(re.search(rb"content-length: (\d+)", head, re.I)[1])  # type: ignore[index]


def _ratio(what: str, pairs: list[tuple[float, float]], units: int, unit: str, bar: float | None) -> dict[str, Any]:
    ratios = sorted(loop / served for loop, served in pairs)
    return {
        "what": what,
        "loop": units / statistics.median(loop for loop, _ in pairs),
        "server": units / statistics.median(served for _, served in pairs),
        "unit": unit,
        "ratio": statistics.median(ratios),
        "spread": (ratios[0], ratios[-1]),
        "bar": f">= {bar}" if bar else "",
    }


def _machine() -> str:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu)
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}, Python {platform.python_version()}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of loop and server per row")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows = measure(args.parts or list(PARTS), args.rounds)
    if args.json:
        print(json.dumps({"machine": _machine(), "rows": rows}, indent=1))
        return
    print(f"{_machine()}; float32; medians of {args.rounds} turns\n")
    print("| work | plain loop | modelport | ratio (spread) | bar |\n|---|---|---|---|---|")
    for row in rows:
        if "ratio" in row:
            low, high = row["spread"]
            print(
                f"| {row['what']} | {row['loop']:.0f} {row['unit']} | {row['server']:.0f} {row['unit']} "
                f"| {row['ratio']:.2f} ({low:.2f}–{high:.2f}) | {row['bar']} |"
            )
        else:
            print(f"| {row['what']} | | {row['figure']:.2f} {row['unit']} | | {row['bar']} |")


if __name__ == "__main__":
    main()
