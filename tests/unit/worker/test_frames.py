from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelport.core.worker.channel import Channel
from modelport.core.worker.frames import INLINE_BYTES, FrameError, FrameReader, pack


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class End:
    """One end of a connection that keeps what it gets."""

    def __init__(self, sock: socket.socket, outside_limit_bytes: int = 1 << 28) -> None:
        self.frames: list[list[bytes]] = []
        self.reasons: list[str] = []
        self.changed = asyncio.Event()
        self.channel = Channel(sock, self.received, self.closed, outside_limit_bytes)

    def received(self, parts: list[memoryview]) -> None:
        self.frames.append([bytes(part) for part in parts])
        self.changed.set()

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    here, there = socket.socketpair()
    first, second = End(here), End(there)
    yield first, second
    first.channel.close()
    second.channel.close()


def test_a_frame_is_read_back_whatever_pieces_it_arrives_in() -> None:
    parts = [b"head", b"", b"x" * 1000, bytes(range(256))]
    data = pack(parts).data
    for size in (1, 3, 7, 64, len(data)):
        reader = FrameReader()
        frames = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
        assert [[bytes(part) for part in frame.parts] for frame in frames] == [parts]


def test_two_frames_in_one_piece_are_two_frames() -> None:
    data = pack([b"one"]).data + pack([b"two", b"more"]).data
    assert [bytes(frame.parts[0]) for frame in FrameReader().feed(data)] == [b"one", b"two"]


def test_parts_inside_a_frame_are_aligned_for_any_element_type() -> None:
    import numpy as np

    (frame,) = FrameReader().feed(pack([b"odd", b"1234567", np.arange(3.0).tobytes()]).data)
    assert np.frombuffer(frame.parts[2], np.float64).flags.aligned


def test_a_large_part_travels_beside_the_frame_and_cannot_be_changed() -> None:
    large = os.urandom(INLINE_BYTES + 1)
    before = descriptors()
    packed = pack([b"head", large, b"tail"])
    assert len(packed.data) < 1000
    assert packed.file is not None
    with pytest.raises(PermissionError):
        os.pwrite(packed.file, b"x", 0)
    (frame,) = FrameReader().feed(packed.data, [packed.file])
    assert [bytes(part) for part in frame.parts] == [b"head", large, b"tail"]
    assert all(part.readonly for part in frame.parts)
    del frame
    assert descriptors() == before


def test_a_large_head_travels_beside_the_frame_too() -> None:
    packed = pack([b"h" * (INLINE_BYTES + 1)])
    assert packed.file is not None
    (frame,) = FrameReader().feed(packed.data, [packed.file])
    assert len(frame.parts[0]) == INLINE_BYTES + 1


def test_many_small_parts_do_not_make_a_large_frame() -> None:
    parts = [b"head", *(bytes([n]) * 60_000 for n in range(20))]
    packed = pack(parts)
    assert len(packed.data) < 2 * INLINE_BYTES
    assert packed.file is not None
    (frame,) = FrameReader().feed(packed.data, [packed.file])
    assert [bytes(part) for part in frame.parts] == parts


def test_without_memfd_a_private_file_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    before = descriptors()
    large = os.urandom(INLINE_BYTES * 2)
    packed = pack([b"head", large])
    assert packed.file is not None
    (frame,) = FrameReader().feed(packed.data, [packed.file])
    assert bytes(frame.parts[1]) == large
    del frame
    assert descriptors() == before


def test_memory_shorter_than_announced_is_refused() -> None:
    packed = pack([b"head", bytes(INLINE_BYTES + 1)])
    assert packed.file is not None
    os.close(packed.file)
    short = os.memfd_create("short")
    os.write(short, b"only this")
    before = descriptors()
    with pytest.raises(FrameError, match="smaller than its frame says"):
        list(FrameReader().feed(packed.data, [short]))
    assert descriptors() == before - 1


def test_nonsense_is_refused_before_memory_is_taken_for_it() -> None:
    with pytest.raises(FrameError, match="announced"):
        list(FrameReader().feed(b"\xff" * 64))


def test_more_arrays_than_a_frame_can_count_is_an_error_of_the_sender() -> None:
    with pytest.raises(ValueError, match="65535"):
        pack([b""] * 65_536)


async def test_frames_arrive_in_order_both_ways(ends: tuple[End, End]) -> None:
    first, second = ends
    for index in range(100):
        first.channel.send([str(index).encode(), bytes(index)])
        second.channel.send([str(-index).encode()])
    await second.until(lambda: len(second.frames) == 100)
    await first.until(lambda: len(first.frames) == 100)
    assert [frame[0] for frame in second.frames] == [str(index).encode() for index in range(100)]
    assert [len(frame[1]) for frame in second.frames] == list(range(100))


async def test_small_frames_overtake_large_ones_that_wait(ends: tuple[End, End]) -> None:
    first, second = ends
    for index in range(20):
        first.channel.send([b"large", bytes(200_000)], [index])
    first.channel.send([b"small"], [100])
    first.channel.send([b"cancel"], [19])
    await second.until(lambda: len(second.frames) == 22)
    order = [frame[0] for frame in second.frames]
    assert order.index(b"small") < 19
    assert order[-1] == b"cancel", "what concerns a call never overtakes the call"


async def test_frames_of_one_turn_leave_in_one_write_and_in_order(ends: tuple[End, End]) -> None:
    first, second = ends
    writes: list[int] = []
    send = socket.socket.send
    sock = first.channel._sock
    first.channel._sock = type("Counting", (), {"send": lambda self, data: (writes.append(len(data)), send(sock, data))[1]})()
    try:
        for index in range(5):
            first.channel.send([str(index).encode()], [index], at_once=False)
        assert not writes
        await second.until(lambda: len(second.frames) == 5)
        assert len(writes) == 1
        first.channel.send([b"call"], [9], at_once=False)
        first.channel.send([b"cancel"], [9])
        assert len(writes) == 2, "what is sent at once takes along what was gathered"
        await second.until(lambda: len(second.frames) == 7)
        await first.channel.flush()
    finally:
        first.channel._sock = sock
    assert [frame[0] for frame in second.frames] == [b"0", b"1", b"2", b"3", b"4", b"call", b"cancel"]


async def test_shared_memory_in_flight_is_bounded() -> None:
    here, there = socket.socketpair()
    sender = End(here, outside_limit_bytes=1_000_000)
    for index in range(10):
        sender.channel.send([str(index).encode(), bytes(600_000)])
    there.setblocking(False)
    _, files, _, _ = socket.recv_fds(there, 65536, 8)
    assert len(files) == 1
    os.close(files[0])
    with pytest.raises(BlockingIOError):  # the second would have been over the limit
        there.recv(1)
    there.close()
    sender.channel.close()


async def test_large_frames_go_on_when_earlier_ones_are_confirmed() -> None:
    here, there = socket.socketpair()
    before = descriptors()
    sender, receiver = End(here, outside_limit_bytes=1_000_000), End(there)
    for index in range(10):
        sender.channel.send([str(index).encode(), bytes(600_000)])
    await receiver.until(lambda: len(receiver.frames) == 10)
    await sender.channel.flush()
    assert descriptors() == before
    sender.channel.close()
    receiver.channel.close()


async def test_a_channel_that_closes_drops_its_descriptors() -> None:
    before = descriptors()
    here, there = socket.socketpair()
    sender = End(here, outside_limit_bytes=1)
    for _ in range(5):
        sender.channel.send([b"head", bytes(600_000)])
    assert descriptors() > before + 2
    sender.channel.close()
    there.close()
    assert descriptors() == before
    sender.channel.send([b"into the void"])


async def test_the_end_of_the_other_side_is_told_once(ends: tuple[End, End]) -> None:
    first, second = ends
    first.channel.send([b"last words"])
    first.channel.close()
    await second.until(lambda: second.reasons)
    assert second.frames == [[b"last words"]]
    assert second.reasons == ["the connection was closed"]
    assert first.reasons == []


async def test_a_channel_becomes_clear_when_the_reader_catches_up() -> None:
    here, there = socket.socketpair()
    sender = End(here)
    clear = asyncio.Event()
    while not sender.channel.is_congested:
        sender.channel.send([bytes(100_000)])
    sender.channel.when_clear(clear.set)
    receiver = End(there)
    await asyncio.wait_for(clear.wait(), 10)
    assert not sender.channel.is_congested
    sender.channel.close()
    receiver.channel.close()
