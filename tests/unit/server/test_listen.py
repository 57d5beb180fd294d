from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import defaultdict

import httpx
import msgspec
import pytest
from litestar import Request, get, post

from modelport.contract import ConfigurationError
from modelport.core.config.settings import ServerSettings
from modelport.core.server.listen import Listener, bind, url_of


def settings(**values) -> ServerSettings:
    return msgspec.convert({"port": 0, "drain_s": 5.0, **values}, ServerSettings)


def test_port_0_picks_a_free_one_and_tells():
    with bind(settings(), keys_in_force=False) as bound:
        assert url_of(bound, secure=False) == f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_busy_port_is_one_sentence_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            bind(settings(port=port), keys_in_force=False)
    assert caught.value.message == (
        f"127.0.0.1 port {port} is in use by another program. Choose another with --port, or --port 0 for any free one."
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_bind_needs_keys_or_insecure(host):
    if host == "::" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with pytest.raises(ConfigurationError, match="modelport keys create"):
        bind(settings(host=host), keys_in_force=False)
    try:
        bind(settings(host=host), keys_in_force=True).close()
        bind(settings(host=host, insecure=True), keys_in_force=False).close()
    except ConfigurationError as error:
        if host == "::" and "cannot be bound" in error.message:
            pytest.skip("this machine has no IPv6")
        raise


def test_an_address_that_is_not_ours_is_named():
    with pytest.raises(ConfigurationError, match="'no such host'"):
        bind(settings(host="no such host"), keys_in_force=False)


class Served:
    """A listener on a real socket, with what it reported."""

    def __init__(self, build, *apis, **values):
        self.settings = settings(**values)
        self.state = "ready"
        self.lines: list[str] = []
        self.announced = asyncio.Event()
        self.happened: list[str] = []
        self._reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.startup = self._startup
        self.bound = bind(self.settings, keys_in_force=False)
        self._build = lambda: build(*apis)

    def note(self, what):
        self.happened.append(what)
        self._reached[what].set()

    async def reached(self, what):
        await self._reached[what].wait()

    async def _startup(self):
        self.note("startup")

    async def _shutdown(self):
        self.note("shutdown")

    def _announce(self, line):
        self.lines.append(line)
        self.announced.set()

    def listener(self):
        loop = asyncio.get_running_loop()
        return Listener(
            self._build(),
            self.bound,
            self.settings,
            startup=self.startup,
            shutdown=self._shutdown,
            on_drain=lambda: self.note("drain"),
            announce=self._announce,
            kill=lambda: loop.call_soon_threadsafe(self.note, "kill"),
        )


@pytest.fixture
def slow():
    """A route that answers when the test lets it."""
    entered, leave = asyncio.Event(), asyncio.Event()

    @get("/slow")
    async def handler() -> str:
        entered.set()
        await leave.wait()
        return "finished"

    return handler, entered, leave


@post("/reads", status_code=200)
async def reads(request: Request) -> bytes:
    return await request.body()


async def test_a_head_without_end_is_cut_off_before_it_fills_the_memory(build, surface):
    served = Served(build, surface("red", []))
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    reader, writer = await asyncio.open_connection(*served.bound.getsockname())
    writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: ")
    sent = 0
    try:
        while sent < 20_000_000 and not reader.at_eof():
            writer.write(b"a" * 100_000)
            await writer.drain()
            sent += 100_000
    except ConnectionError:
        pass
    assert sent < 20_000_000
    async with httpx.AsyncClient() as client:
        longest = {"x-long": "a" * 30_000}
        assert (await client.get(f"{listener.url}/health", headers=longest)).status_code == 200
    writer.close()
    listener.stop()
    await serving


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /reads HTTP/1.1\r\nHost: a\r\nx-api-key: infer-key\r\ncontent-length: 9\r\n\r\n{",
        b"",
    ],
    ids=["head", "body", "nothing"],
)
async def test_a_request_that_stops_arriving_is_told_so_and_its_connection_closed(build, surface, sent):
    served = Served(build, surface("red", [reads]), keep_alive_s=1)
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    reader, writer = await asyncio.open_connection(*served.bound.getsockname())
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert answer.endswith(b"The request did not arrive in time. Send it again.\r\n")
    writer.close()
    listener.stop()
    await serving


async def test_an_answer_may_take_longer_than_a_request_may(build, surface, slow):
    handler, entered, leave = slow
    served = Served(build, surface("red", [handler]), keep_alive_s=1)
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient(headers={"x-api-key": "infer-key"}) as client:
        asked = asyncio.create_task(client.get(f"{listener.url}/slow"))
        await entered.wait()
        asyncio.get_running_loop().call_later(1.5, leave.set)
        assert (await asked).text == "finished"
    listener.stop()
    await serving


async def test_a_drain_lets_running_requests_finish_and_takes_no_new_ones(build, surface, slow):
    handler, entered, leave = slow
    served = Served(build, surface("red", [handler]))
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    assert served.lines == [f"modelport serving on {listener.url}"]
    address = served.bound.getsockname()
    async with httpx.AsyncClient(headers={"x-api-key": "infer-key"}) as client:
        assert (await client.get(f"{listener.url}/health/live")).status_code == 200
        running = asyncio.create_task(client.get(f"{listener.url}/slow"))
        await entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await served.reached("shutdown")  # the host stops while the request still runs: it decides how long it may
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        leave.set()
        assert (await running).text == "finished"
    await serving
    assert served.happened == ["startup", "drain", "shutdown"]


async def test_a_second_signal_kills(build, surface, slow):
    handler, entered, leave = slow
    served = Served(build, surface("red", [handler]))
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient(headers={"x-api-key": "infer-key"}) as client:
        running = asyncio.create_task(client.get(f"{listener.url}/slow"))
        await entered.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await served.reached("drain")
        assert "kill" not in served.happened
        os.kill(os.getpid(), signal.SIGINT)
        await served.reached("kill")
        leave.set()
        await running
    await serving


async def test_health_is_answered_while_the_models_load(build):
    loaded = asyncio.Event()
    served = Served(build)
    served.startup = loaded.wait
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{listener.url}/health/live")).status_code == 200
    listener.stop()
    await serving
    assert not loaded.is_set()


async def test_a_start_that_fails_stops_the_server_with_its_cause(build):
    async def fails():
        raise ConfigurationError("The model cannot be loaded.")

    served = Served(build)
    served.startup = fails
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        await served.listener().serve()
    assert served.happened == ["drain", "shutdown"]


async def test_a_surface_that_cannot_start_is_named_in_the_log(build, capsys):
    from contextlib import asynccontextmanager

    from modelport.contract import Api

    class Broken(Api):
        name = "broken"

        @asynccontextmanager
        async def lifespan(self, host):
            raise RuntimeError("no licence")
            yield

    served = Served(build, Broken())
    with pytest.raises(ConfigurationError, match="could not start"):
        await served.listener().serve()
    served.bound.close()
    logged = "".join(capsys.readouterr())
    assert "broken" in logged
    assert "no licence" in logged


async def test_a_certificate_serves_https(build, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    served = Served(build, tls_cert=str(tmp_path / "both.pem"), tls_key=str(tmp_path / "both.pem"))
    listener = served.listener()
    assert listener.url.startswith("https://")
    import ssl

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient(verify=trusting) as client:
        assert (await client.get(f"{listener.url}/health")).status_code == 200
    listener.stop()
    await serving


async def test_a_certificate_that_is_none_is_named(build, tmp_path):
    (tmp_path / "junk.pem").write_text("junk")
    for values, expected in [
        ({"tls_cert": "/no/such.pem"}, "server.tls_cert: there is no file"),
        ({"tls_cert": str(tmp_path / "junk.pem"), "tls_key": str(tmp_path / "junk.pem")}, "cannot be used"),
        ({"tls_key": str(tmp_path / "junk.pem")}, "tls_cert is not"),
    ]:
        served = Served(build, **values)
        with served.bound, pytest.raises(ConfigurationError, match=expected):
            served.listener()


async def test_a_body_over_the_limit_is_refused_on_a_real_socket_and_the_next_request_served(build, surface):
    served = Served(build, surface("red", [reads]))
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient(headers={"x-api-key": "infer-key"}) as client:
        response = await client.post(f"{listener.url}/reads", content=bytes(100_000_000))
        assert response.status_code == 413
        assert (await client.post(f"{listener.url}/reads", content=b"{}")).status_code == 200
    listener.stop()
    await serving


async def test_head_is_answered_as_get_without_the_body(build, surface, make_route):
    served = Served(build, surface("red", [make_route(get, "/a"), make_route(post, "/b")]))
    listener = served.listener()
    serving = asyncio.create_task(listener.serve())
    await served.announced.wait()
    async with httpx.AsyncClient(headers={"x-api-key": "infer-key"}, base_url=listener.url) as client:
        for _ in range(2):  # on one connection
            head, whole = await client.head("/a"), await client.get("/a")
            assert (head.status_code, head.content, whole.content) == (200, b"", b"answered")
            assert head.headers["content-length"] == whole.headers["content-length"]
        assert (await client.head("/b")).status_code == 405
    listener.stop()
    await serving
