"""The conformance suite of API surfaces. Subclass it in your plugin's tests::

    from modelport.testing.api import ApiCall, ApiSuite

    class TestNative(ApiSuite):
        def api(self):
            return Native()

        def calls(self):
            return [ApiCall("/v1/infer/embedder", {"inputs": "a"})]

It drives the surface through the server's own application, authentication and errors included, over a `FakeHost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec

from modelport.contract import errors as kinds
from modelport.contract.api import Api
from modelport.contract.errors import ModelportError
from modelport.core.config.settings import Settings
from modelport.core.observe.metrics import Metrics
from modelport.core.server.asgi import build_asgi
from modelport.core.server.routes import routes_of
from modelport.testing.answers import MODELS, TASKS, answer
from modelport.testing.fake_host import FakeHost, FakePrincipal

__all__ = ["ALL_ERRORS", "ApiCall", "ApiSuite", "connected"]

ALL_ERRORS: tuple[ModelportError, ...] = (
    kinds.InvalidRequest("What is wrong.", param="messages.0.role"),
    kinds.UnsupportedParameter("Nobody honours it.", param="top_k"),
    kinds.InputTooLong("70 tokens; the model takes 64.", param="inputs"),
    kinds.WrongTask("It does not do that.", param="task"),
    kinds.PayloadTooLarge("Too many bytes."),
    kinds.Unauthenticated("A key is needed."),
    kinds.Forbidden("This key may not."),
    kinds.NotFound("No such model.", param="model"),
    kinds.Conflict("It is pinned."),
    kinds.Overloaded("The queue is full.", retry_after_s=1.5),
    kinds.Unavailable("It is loading.", retry_after_s=7.0),
    kinds.DeadlineExceeded("Time is up."),
    kinds.Cancelled("The caller left."),
    kinds.ModelFailed("Its process died."),
    kinds.DeviceFailed("The device is lost."),
    kinds.OutOfMemory("The batch did not fit."),
    kinds.NotNumbers("The device computed NaN."),
    kinds.ConfigurationError("It cannot load."),
    ModelportError("A defect."),
)
"""One of every kind."""


class ApiCall(msgspec.Struct, frozen=True):
    """A request that the surface answers with success. `stream` are fields that make it a stream, if it can be one."""

    path: str
    body: dict[str, Any]
    stream: dict[str, Any] | None = None
    method: str = "POST"


@asynccontextmanager
async def connected(api: Api, host: FakeHost, key: str | None = None, settings: Settings | None = None) -> Any:
    """An httpx client of a server with this one surface, in memory."""

    class Registry:
        apis: Mapping[str, Api] = {api.name: api}

    app = build_asgi(host, Registry(), settings or Settings(), Metrics(), lambda: "ready")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
        yield client


class ApiSuite:
    """What every surface owes its callers."""

    def api(self) -> Api:
        """The surface under test."""
        raise NotImplementedError

    def calls(self) -> Sequence[ApiCall]:
        """At least one call per route that runs a model."""
        raise NotImplementedError

    def host(self, keys: Mapping[str, FakePrincipal] | None = None) -> FakeHost:
        """The server behind it: the built-in tasks with canned answers. Override it for tasks of your own."""
        return FakeHost(MODELS, TASKS, answer, keys)

    def message_of(self, body: bytes) -> str:
        """The sentence in an error body of the dialect. The default finds it in `{"error": {"message"}}` and its kin."""
        parsed = msgspec.json.decode(body)
        error = parsed.get("error", parsed)
        return str(error if isinstance(error, str) else error["message"])

    def is_error_event(self, event: bytes) -> bool:
        """Whether a server-sent event reports a failure in the dialect."""
        return b'"error"' in event

    async def test_calls_are_answered(self) -> None:
        """Every listed call succeeds, plain and streamed."""
        async with connected(self.api(), self.host()) as client:
            for call in self.calls():
                for body in _bodies(call):
                    response = await client.request(call.method, call.path, json=body)
                    assert response.status_code == 200, (call.path, response.text)

    def test_every_error_kind_has_a_body_in_the_dialect(self) -> None:
        """Each kind is worded, with its sentence and an error status."""
        api = self.api()
        for error in ALL_ERRORS:
            for call in self.calls():
                reply = api.error(error, call.path)
                assert reply is not None, error.kind
                assert 400 <= reply.status < 600, error.kind
                assert error.message in self.message_of(reply.body), error.kind

    async def test_refusals_come_as_status_codes_even_for_streams(self) -> None:
        """What the host refuses before the first delta is no 200."""
        api, host = self.api(), self.host()
        async with connected(api, host) as client:
            for call in self.calls():
                for body in _bodies(call):
                    for error in ALL_ERRORS:
                        host.failure = error
                        response = await client.request(call.method, call.path, json=body)
                        expected = api.error(error, call.path)
                        assert expected is not None
                        assert response.status_code == expected.status, (call.path, error.kind)
                        assert error.message in self.message_of(response.content)
                        if error.retry_after_s is not None:
                            assert int(response.headers["retry-after"]) >= error.retry_after_s

    async def test_a_failed_stream_ends_with_an_error_event(self) -> None:
        """What fails midway is an event, and the stream is let go of."""
        host = self.host()
        host.failure_midway = kinds.ModelFailed("The model's process died.")
        async with connected(self.api(), host) as client:
            for call in self.calls():
                if call.stream is None:
                    continue
                response = await client.request(call.method, call.path, json={**call.body, **call.stream})
                assert response.status_code == 200
                assert response.headers["content-type"].startswith("text/event-stream")
                events = [event for event in response.content.split(b"\n\n") if event.strip()]
                failed = [index for index, event in enumerate(events) if self.is_error_event(event)]
                assert failed, f"{call.path}: no error event in {events!r}"
                assert b"died" in events[failed[0]]
                assert host.streams[-1].closed

    async def test_without_a_key_everything_is_401_in_the_dialect(self) -> None:
        """Every route of the surface, known method or not."""
        api, host = self.api(), self.host(keys={"right": FakePrincipal()})
        paths = {route.template.replace("{", "").replace("}", "") for route in routes_of(api.name, api.routes())}
        async with connected(api, host, "wrong") as client:
            for path in sorted(paths):
                for method in ("GET", "POST", "DELETE", "OPTIONS", "BREW"):
                    response = await client.request(method, path)
                    assert response.status_code == 401, (method, path)
                    assert response.headers["www-authenticate"] == "Bearer"
                    assert "key" in self.message_of(response.content).lower()
        assert host.calls == []

    async def test_broken_bodies_are_the_callers_fault(self) -> None:
        """Broken JSON, the wrong type and nothing at all are 4xx, in the dialect, and reach no model."""
        host = self.host()
        async with connected(self.api(), host) as client:
            for call in self.calls():
                for body in (b"{", b"[]", b"", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000):
                    response = await client.request(
                        call.method, call.path, content=body, headers={"content-type": "application/json"}
                    )
                    assert response.status_code in {400, 422}, (call.path, body[:20], response.text)
                    assert self.message_of(response.content)
        assert host.calls == []

    async def test_unknown_fields_are_errors_that_name_them(self) -> None:
        """A misspelt optional field does not pass in silence."""
        host = self.host()
        async with connected(self.api(), host) as client:
            for call in self.calls():
                response = await client.request(call.method, call.path, json={**call.body, "surely_unknown": 1})
                assert response.status_code in {400, 422}, call.path
                assert "surely_unknown" in self.message_of(response.content)
        assert host.calls == []

    async def test_no_value_of_a_field_is_a_defect(self) -> None:
        """Whatever stands in a field, the answer is one, or says what is wrong with it."""
        async with connected(self.api(), self.host()) as client:
            for call in self.calls():
                for way in _ways(call.body):
                    for odd in _ODD:
                        body = _with(call.body, way, odd)
                        response = await client.request(call.method, call.path, content=body)
                        assert response.status_code < 500, (call.path, way, odd[:40], response.text)

    async def test_a_body_over_the_limit_is_413(self) -> None:
        """Whether its length is announced or not."""
        settings = msgspec.convert({"limits": {"body_bytes": 1000, "media_bytes": 1000}}, Settings)

        async def unannounced() -> Any:
            for _ in range(20):
                yield b" " * 100

        async with connected(self.api(), self.host(), settings=settings) as client:
            for call in self.calls():
                for content in (b" " * 2000, unannounced()):
                    response = await client.request(call.method, call.path, content=content)
                    assert response.status_code == 413, call.path
                    assert self.message_of(response.content)

    async def test_the_caller_is_whom_the_key_names(self) -> None:
        """The principal that reaches the host is the one that authentication found."""
        host = self.host(keys={"right": FakePrincipal("alice", frozenset({"infer"}))})
        async with connected(self.api(), host, "right") as client:
            for call in self.calls():
                response = await client.request(call.method, call.path, json=call.body)
                assert response.status_code == 200, response.text
        assert {received.principal.name for received in host.calls} == {"alice"}

    async def test_a_key_reaches_no_further_than_it_may(self) -> None:
        """One for other models and one that may not infer are refused, and reach no model."""
        limited = {"others": FakePrincipal(models=frozenset({"another"})), "watches": FakePrincipal(scopes=frozenset({"admin"}))}
        host = self.host(keys=limited)
        for key, statuses in (("others", {403, 404}), ("watches", {403})):
            async with connected(self.api(), host, key) as client:
                for call in self.calls():
                    for body in _bodies(call):
                        response = await client.request(call.method, call.path, json=body)
                        assert response.status_code in statuses, (key, call.path, response.text)
                        assert self.message_of(response.content)
        assert host.calls == []

    async def test_a_client_that_leaves_is_noticed(self) -> None:
        """The surface hands its scope to the host, which sees the disconnect of a plain request."""
        for call in self.calls():
            host = self.host()
            host.gate = asyncio.Event()
            await _call_and_leave(self.api(), host, call)
            assert host.left == len(host.calls) == 1, call.path


_ODD = (
    b"null", b"true", b"0", b"-1", b"1.5", b"1e308", b"18446744073709551615", b"18446744073709551616", b"NaN",
    b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"data:,x"', b'"http://127.0.0.1/"', b'{"url":"file:///etc/passwd"}',
    b"{}", b"[]", b"[[]]", b"[[1],[]]", b'["a",1]', *(b"[" * depth + b"]" * depth for depth in (100, 960, 965, 970, 5000)),
)  # fmt: skip
"""Values, as JSON or nearly, that a field may hold if nobody looks."""


def _ways(value: Any) -> list[tuple[Any, ...]]:
    """The ways to every value inside `value`."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for step, each in steps for way in ((step,), *((step, *rest) for rest in _ways(each)))]


def _with(value: Any, way: tuple[Any, ...], odd: bytes) -> bytes:
    """`value` as JSON, with `odd` at the end of `way`."""
    if not way:
        return odd
    if isinstance(value, dict):
        fields = (
            msgspec.json.encode(key) + b":" + (_with(each, way[1:], odd) if key == way[0] else msgspec.json.encode(each))
            for key, each in value.items()
        )
        return b"{" + b",".join(fields) + b"}"
    entries = (_with(each, way[1:], odd) if place == way[0] else msgspec.json.encode(each) for place, each in enumerate(value))
    return b"[" + b",".join(entries) + b"]"


def _bodies(call: ApiCall) -> list[dict[str, Any]]:
    return [call.body] if call.stream is None else [call.body, {**call.body, **call.stream}]


async def _call_and_leave(api: Api, host: FakeHost, call: ApiCall) -> None:
    """Sends a whole request, and disconnects as soon as the host has it."""

    class Registry:
        apis: Mapping[str, Api] = {api.name: api}

    app = build_asgi(host, Registry(), Settings(), Metrics(), lambda: "ready")
    messages = iter([{"type": "http.request", "body": msgspec.json.encode(call.body), "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        if message is None:
            await host.received.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message: Any) -> None:
        return None

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": call.method,
        "path": unquote(call.path),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "asgi": {"version": "3.0"},
    }
    async with asyncio.timeout(20):
        await app(scope, receive, send)
