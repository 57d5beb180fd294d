from __future__ import annotations

import asyncio

import pytest

from modelport.contract import PayloadTooLarge
from modelport.core.server.receiving import Receiver


class Client:
    """An ASGI server's side: messages are handed out as the test puts them in."""

    def __init__(self):
        self.messages: asyncio.Queue = asyncio.Queue()
        self.reading = 0

    def sends(self, body: bytes, more: bool = False):
        self.messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leaves(self):
        self.messages.put_nowait({"type": "http.disconnect"})

    async def receive(self):
        assert self.reading == 0, "two reads at once"
        self.reading += 1
        try:
            return await self.messages.get()
        finally:
            self.reading -= 1


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def receiver(client):
    made = Receiver(client.receive, 100)
    yield made
    made.close()


async def test_a_watcher_does_not_take_the_body(client, receiver):
    watching = asyncio.create_task(receiver.disconnected())
    client.sends(b"one", more=True)
    client.sends(b"two")
    assert (await receiver())["body"] == b"one"
    assert (await receiver())["body"] == b"two"
    assert not watching.done()
    client.leaves()
    assert (await watching)["type"] == "http.disconnect"
    assert (await receiver())["type"] == "http.disconnect"


async def test_a_watcher_reads_one_message_ahead_and_no_more(client, receiver):
    watching = asyncio.create_task(receiver.disconnected())
    for _ in range(5):
        client.sends(b"x", more=True)
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.messages.qsize() == 4
    watching.cancel()


async def test_leaving_wakes_everybody(client, receiver):
    client.sends(b"all")
    assert (await receiver())["body"] == b"all"
    waiting = [asyncio.create_task(receiver.disconnected()) for _ in range(3)] + [asyncio.create_task(receiver())]
    await asyncio.sleep(0)
    client.leaves()
    assert {message["type"] for message in await asyncio.gather(*waiting)} == {"http.disconnect"}


async def test_a_cancelled_waiter_loses_no_message(client, receiver):
    reading = asyncio.create_task(receiver())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    client.sends(b"kept")
    assert (await receiver())["body"] == b"kept"


async def test_a_body_over_the_limit_raises(client, receiver):
    client.sends(b"x" * 60, more=True)
    client.sends(b"x" * 60, more=True)
    await receiver()
    with pytest.raises(PayloadTooLarge):
        await receiver()


async def test_closing_ends_watchers(client, receiver):
    client.sends(b"")
    await receiver()
    watching = asyncio.create_task(receiver.disconnected())
    for _ in range(3):
        await asyncio.sleep(0)
    receiver.close()
    assert (await watching)["type"] == "http.disconnect"


async def test_a_watcher_reads_on_when_the_application_is_cancelled(client, receiver):
    reading = asyncio.create_task(receiver())
    await asyncio.sleep(0)
    watching = asyncio.create_task(receiver.disconnected())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    client.leaves()
    assert (await asyncio.wait_for(watching, 10))["type"] == "http.disconnect"
