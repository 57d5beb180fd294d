from __future__ import annotations

import asyncio

import pytest
from litestar import get, post, websocket

from modelport.contract import Api, Unauthenticated

OPEN = ["/health", "/health/live", "/health/ready"]


@pytest.fixture
def red(surface, make_route, make_mount):
    handlers = [
        make_route(post, "/red/{name:str}"),
        make_route(get, "/red/admin", opt={"scope": "admin"}),
        make_mount("/redmount"),
        make_mount("/adminmount", opt={"scope": "admin"}),
    ]
    return surface("red", handlers, ("/elsewhere",))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", OPEN)
async def test_health_needs_no_key(connect, red, path, method):
    async with connect(red, key=None) as client:
        assert (await client.request(method, path)).status_code == 200


@pytest.mark.parametrize("key", [None, "no-such-key"])
async def test_everything_else_needs_one(connect, red, key):
    paths = [
        "/", "/red/a", "/red/admin", "/red", "/redmount", "/redmount/x/y", "/adminmount/x", "/nowhere", "/metrics", "/v1/metrics",
        "/health/", "//health", "/health/live/", "/health/other", "/healthy", "/HEALTH", "/schema", "/elsewhere/deep",
    ]  # fmt: skip
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
    async with connect(red, key=key) as client:
        for path in paths:
            for method in methods:
                response = await client.request(method, f"http://testserver{path}")
                assert response.status_code == 401, (method, path)
                assert response.headers["www-authenticate"] == "Bearer"
        for path in OPEN:
            for method in [*methods[2:]]:
                assert (await client.request(method, path)).status_code == 401, (method, path)


async def test_a_401_is_worded_by_the_owner_of_the_path(connect, red, surface, make_route):
    blue = surface("blue", [make_route(post, "/blue")])
    async with connect(red, blue, key=None) as client:
        for method, path, dialect in [
            ("POST", "/red/a", "red"),
            ("DELETE", "/red/a", "red"),
            ("GET", "/redmount/x", "red"),
            ("POST", "/elsewhere/x", "red"),
            ("POST", "/blue", "blue"),
        ]:
            response = await client.request(method, path)
            assert response.json()["dialect"] == dialect
        plain = (await client.get("/nowhere")).json()["error"]
        assert plain["type"] == "unauthenticated"
        assert plain["request_id"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer infer-key"},
        {"authorization": "bearer   infer-key "},
        {"x-api-key": "infer-key"},
        {"authorization": "Basic abc", "x-api-key": "infer-key"},
    ],
)
async def test_a_key_is_taken_from_either_header(connect, red, headers):
    async with connect(red, key=None) as client:
        assert (await client.post("/red/a", headers=headers)).text == "answered"


async def test_an_infer_key_reaches_no_admin_route_and_no_admin_mount(connect, red):
    async with connect(red, key="infer-key") as client:
        for path in ("/red/admin", "/adminmount", "/adminmount/x"):
            response = await client.get(path)
            assert response.status_code == 403, path
            assert "admin" in response.json()["says"]
        assert (await client.get("/redmount/x")).text == "mounted"
    async with connect(red, key="admin-key") as client:
        assert (await client.get("/red/admin")).text == "answered"
        assert (await client.get("/adminmount/x")).text == "mounted"


async def test_metrics_are_not_for_keys_with_an_allow_list(connect):
    async with connect(key="infer-key") as client:
        assert (await client.get("/metrics")).status_code == 200
    async with connect(key="narrow-key") as client:
        assert (await client.get("/metrics")).status_code == 403


async def test_a_host_that_breaks_lets_nobody_in(connect, red, host, monkeypatch):
    def broken(*args):
        raise RuntimeError("the keys file is gone")

    monkeypatch.setattr(host, "authenticate", broken)
    async with connect(red) as client:
        response = await client.post("/red/a")
        assert response.status_code == 401
        assert "keys file" not in response.text


async def test_another_transport_authenticates_through_the_host(build, host):
    asked, done = [], asyncio.Event()

    class Wire(Api):
        name = "wire"

        async def serve(self, host):
            with pytest.raises(Unauthenticated):
                host.authenticate(None, {}, "10.0.0.1")
            asked.append(host.authenticate("infer-key", {}, "10.0.0.1").name)
            done.set()

    await run_lifespan(build(Wire()), until=done)
    assert asked == ["infer"]


async def run_lifespan(app, until):
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent = []

    async def receive():
        if sent:
            await until.wait()
        return {"type": next(messages)}

    async def send(message):
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def websocket_call(app, path, headers=(), extensions=None):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket", "path": path, "headers": list(headers), "query_string": b"", "subprotocols": [],
        "client": ("127.0.0.1", 1), "server": ("h", 1), "scheme": "ws", "asgi": {}, "http_version": "1.1",
    }  # fmt: skip
    if extensions is not None:
        scope["extensions"] = extensions
    await app(scope, receive, send)
    return sent


@websocket("/socket")
async def accepting(socket: object) -> None:
    await socket.accept()
    await socket.close()


async def test_a_websocket_without_a_key_is_never_accepted(build, surface):
    app = build(surface("red", [accepting]))
    for path in ("/socket", "/nowhere"):
        sent = await websocket_call(app, path)
        assert [message["type"] for message in sent] == ["websocket.close"]
    sent = await websocket_call(app, "/socket", extensions={"websocket.http.response": {}})
    assert sent[0]["status"] == 401
    assert b"red" in sent[1]["body"]
    sent = await websocket_call(app, "/socket", [(b"authorization", b"Bearer infer-key")])
    assert sent[0]["type"] == "websocket.accept"


async def test_every_answer_carries_the_request_id(connect, red):
    async with connect(red) as client:
        for path in ("/health", "/red/a", "/nowhere", "/redmount"):
            response = await client.post(path, headers={"x-request-id": "mine-1"})
            assert response.headers.get_list("x-request-id") == ["mine-1"], path
        made = {(await client.post("/red/a")).headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3


@pytest.mark.parametrize("bad", ["a" * 129, "with space", "new\tline", 'quote"', ""])
async def test_an_unreasonable_request_id_is_replaced(connect, red, bad):
    async with connect(red) as client:
        response = await client.post("/red/a", headers={"x-request-id": bad})
        assert response.headers["x-request-id"] != bad


async def test_preflight_is_answered_without_a_key(connect, red):
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with connect(red, key=None, settings={"server": {"cors_origins": ["https://app.example"]}}) as client:
        allowed = await client.options("/red/a", headers={**asked, "access-control-request-headers": "authorization"})
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        assert allowed.headers["access-control-allow-headers"] == "authorization"
        other = await client.options("/red/a", headers={**asked, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        assert (await client.options("/red/a", headers={"origin": "https://app.example"})).status_code == 401


async def test_a_page_can_read_a_401(connect, red):
    async with connect(red, key=None, settings={"server": {"cors_origins": ["*"]}}) as client:
        response = await client.post("/red/a", headers={"origin": "https://app.example"})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-expose-headers"] == "*", "times and counts of a dialect too"
        assert "access-control-allow-origin" not in (await client.post("/red/a")).headers
