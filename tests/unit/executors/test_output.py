from __future__ import annotations

import asyncio
import itertools
import os

import psutil

from modelport.core.executors.output import LINE_BYTES, Output


async def test_lines_are_cut_and_the_last_fifty_are_kept() -> None:
    read_end, write_end = os.pipe()
    lines: list[str] = []
    output = Output([read_end], lines.append)
    os.write(write_end, b"x" * 20_000 + b"\n" + b"".join(b"%d\n" % number for number in range(60)) + b"no newline")
    os.close(write_end)
    async with asyncio.timeout(10):
        for _ in itertools.takewhile(lambda _: len(lines) < 62, itertools.count()):
            await asyncio.sleep(0)
    assert len(lines[0]) == LINE_BYTES
    assert output.tail() == [*map(str, range(11, 60)), "no newline"]
    output.close()


async def test_a_flood_is_logged_at_a_bounded_rate_and_read_to_its_end() -> None:
    read_end, write_end = os.pipe()
    lines: list[str] = []
    output = Output([read_end], lines.append)

    def flood() -> None:
        for _ in range(200):
            os.write(write_end, b"again and again\n" * 1000)
        os.close(write_end)

    await asyncio.wait_for(asyncio.to_thread(flood), 30)
    assert 100 <= len(lines) < 500
    output.close()


async def test_closing_gives_the_descriptors_back() -> None:
    before = psutil.Process().num_fds()
    read_end, write_end = os.pipe()
    output = Output([read_end], print)
    output.close()
    output.close()
    os.close(write_end)
    assert psutil.Process().num_fds() == before
