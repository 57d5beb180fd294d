"""Clients over raw keep-alive connections: they must cost less than what they measure, and run on another core."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Stream", "chat", "drive"]

Address = tuple[str, int]


class Stream(NamedTuple):
    """When the tokens of a stream came, in seconds since it was asked for."""

    arrivals: tuple[float, ...]

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0]

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)]


async def drive(address: Address, path: str, bodies: Sequence[Any], clients: int) -> float:
    """Sends every body once, by so many clients that each have one request open; returns the seconds it took."""
    left = iter([_request(path, body) for body in bodies])

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for request in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readexactly(_length(head))
            assert head.startswith(b"HTTP/1.1 200"), answer[:500]
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - began


async def chat(address: Address, model: str, prompts: Sequence[str], tokens: int) -> list[Stream]:
    """Streams one answer of exactly `tokens` tokens to each prompt, all at once, greedily."""
    return await asyncio.gather(*(_chat(address, model, prompt, tokens) for prompt in prompts))


async def _chat(address: Address, model: str, prompt: str, tokens: int) -> Stream:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True, "temperature": 0}
    reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
    began = time.perf_counter()
    writer.write(_request("/v1/chat/completions", body | {"max_tokens": tokens, "ignore_eos": True}))
    arrivals = []
    async for line in reader:
        if line.startswith(b"data: {") and (b'"content"' in line or b'"finish_reason":"' in line):
            arrivals.append(time.perf_counter() - began)
        assert not line.startswith(b"HTTP/1.1 ") or b" 200 " in line, line
        if line.startswith(b"data: [DONE]"):
            break
    writer.close()
    return Stream(tuple(arrivals))


def _request(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _length(head: bytes) -> int:
    return int(re.search(rb"content-length: (\d+)", head, re.I)[1])  # type: ignore[index]
