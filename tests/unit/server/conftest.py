from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
from litestar import asgi, get, post

from modelport.contract import Api, ErrorReply, status_of
from modelport.core.config.settings import Settings
from modelport.core.observe.metrics import Metrics
from modelport.core.server.asgi import build_asgi
from modelport.testing.answers import MODELS, TASKS, answer
from modelport.testing.fake_host import FakeHost, FakePrincipal


class Surface(Api):
    """A surface made of given handlers, whose errors name it."""

    name = "surface"

    def __init__(self, name: str, handlers=(), prefixes=()):
        super().__init__()
        self.name = name
        self.prefixes = prefixes
        self._handlers = handlers

    def routes(self):
        return self._handlers

    def error(self, error, path):
        return ErrorReply(status=status_of(error), body=msgspec.json.encode({"dialect": self.name, "says": error.message}))


class Registry:
    def __init__(self, *apis: Api):
        self.apis: Mapping[str, Api] = {api.name: api for api in apis}


def route(method: Callable, path: str | list[str], **kwargs):
    @method(path, **({"status_code": 200} if method is post else {}), **kwargs)
    async def handler() -> str:
        return "answered"

    return handler


def mount(path: str, answered: str = "mounted", **kwargs):
    @asgi(path, is_mount=True, copy_scope=True, **kwargs)
    async def handler(scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answered.encode()})

    return handler


KEYS = {
    "admin-key": FakePrincipal("admin"),
    "infer-key": FakePrincipal("infer", frozenset({"infer"})),
    "narrow-key": FakePrincipal("narrow", frozenset({"infer"}), frozenset({"embedder"})),
}


@pytest.fixture
def host():
    return FakeHost(MODELS, TASKS, answer, KEYS)


@pytest.fixture
def build(host):
    def make(*apis: Api, state: str = "ready", settings: dict | None = None, metrics: Metrics | None = None, host=host):
        converted = msgspec.convert(settings or {}, Settings)
        return build_asgi(host, Registry(*apis), converted, metrics or Metrics(), lambda: state)

    return make


@pytest.fixture
def connect(build):
    @asynccontextmanager
    async def open_client(*apis: Api, key: str | None = "admin-key", client=("127.0.0.1", 9), **kwargs):
        transport = httpx.ASGITransport(build(*apis, **kwargs), raise_app_exceptions=False, client=client)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as connected:
            yield connected

    return open_client


@pytest.fixture
def surface():
    return Surface


@pytest.fixture
def make_route():
    return route


@pytest.fixture
def make_mount():
    return mount


@pytest.fixture
def http():
    return {"get": get, "post": post}
