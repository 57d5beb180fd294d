from __future__ import annotations

import pytest
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException

from modelport.contract import InvalidRequest, ModelportError, Overloaded
from modelport.contract.api import Api
from modelport.core.observe.metrics import Metrics


def raising(error):
    @post("/fails", status_code=200)
    async def fails() -> str:
        raise error

    return fails


async def test_our_errors_are_in_the_dialect_with_retry_after(connect, surface):
    async with connect(surface("red", [raising(Overloaded("Full.", retry_after_s=1.2))])) as client:
        response = await client.post("/fails")
        assert response.status_code == 429
        assert response.headers["retry-after"] == "2"
        assert response.json() == {"dialect": "red", "says": "Full."}


async def test_an_unexpected_error_tells_the_caller_nothing_but_the_id(connect, surface, capfd):
    async with connect(surface("red", [raising(RuntimeError("a secret prompt"))])) as client:
        response = await client.post("/fails", headers={"x-request-id": "find-me"})
        assert response.status_code == 500
        assert "secret" not in response.text
        assert "Traceback" not in response.text
        assert response.headers["x-request-id"] == "find-me"
    out, err = capfd.readouterr()
    assert "unexpected error" in out + err
    assert "secret prompt" not in out + err


async def test_what_is_nested_too_deeply_for_a_handler_is_the_callers_fault(connect, surface):
    async with connect(surface("red", [raising(RecursionError("maximum depth"))])) as client:
        response = await client.post("/fails")
        assert (response.status_code, response.json()["says"]) == (400, "The request is nested too deeply.")


async def test_without_a_dialect_the_plain_form_has_all_four_keys(connect, make_route):
    class Silent(Api):
        name = "silent"

        def routes(self):
            return [raising(InvalidRequest("Wrong.", param="a.b"))]

    async with connect(Silent()) as client:
        response = await client.post("/fails", headers={"x-request-id": "r"})
        expected = {"message": "Wrong.", "type": "invalid", "param": "a.b", "request_id": "r"}
        assert response.json() == {"error": expected}


async def test_an_encoder_that_breaks_leaves_the_plain_form(connect):
    class Broken(Api):
        name = "broken"

        def routes(self):
            return [raising(InvalidRequest("Wrong."))]

        def error(self, error, path):
            raise KeyError("oops")

    async with connect(Broken()) as client:
        response = await client.post("/fails")
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "Wrong."


async def test_an_unknown_path_says_which_surfaces_there_are(connect, surface, make_route):
    async with connect(surface("red", [make_route(get, "/a")]), surface("blue")) as client:
        response = await client.post("/v1/chat/completions")
        assert response.status_code == 404
        assert response.json()["error"]["message"] == (
            "There is no route POST /v1/chat/completions. Enabled API plugins: blue, red."
        )


async def test_a_wrong_method_says_which_are_right(connect, surface, make_route):
    async with connect(surface("red", [make_route(post, "/a")])) as client:
        response = await client.delete("/a")
        assert response.status_code == 405
        assert response.headers["allow"] == "OPTIONS, POST"
        assert response.json()["says"] == "/a does not take DELETE. Allowed: OPTIONS, POST."


async def test_litestar_validation_names_the_field(connect, surface):
    @get("/numbers")
    async def numbers(count: int) -> str:
        return str(count)

    async with connect(surface("red", [numbers])) as client:
        response = await client.get("/numbers?count=many")
        assert response.status_code == 400
        assert "count" in response.json()["says"]


async def test_other_statuses_of_litestar_are_kept(connect, surface):
    error = HTTPException(detail="Send JSON", status_code=415)
    async with connect(surface("red", [raising(error)])) as client:
        response = await client.post("/fails")
        assert response.status_code == 415
        assert response.json()["says"] == "Send JSON."


async def test_a_response_that_breaks_midway_is_cut_off(build, surface):
    class Half(Response):
        def to_asgi_response(self, *args, **kwargs):
            async def respond(scope, receive, send):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
                raise RuntimeError("a secret prompt")

            return respond

    @post("/half", status_code=200)
    async def half() -> Response:
        return Half(b"")

    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message["type"])

    with pytest.raises(Exception, match="ended before its response did") as caught:
        await build(surface("red", [half]))(scope_of("/half"), receive, send)
    assert caught.value.__suppress_context__
    assert sent == ["http.response.start", "http.response.body"]


def scope_of(path, headers=()):
    return {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "query_string": b"", "scheme": "http",
        "headers": [(b"authorization", b"Bearer admin-key"), *headers],
        "client": ("127.0.0.1", 1), "server": ("h", 1), "asgi": {},
    }  # fmt: skip


class Flood:
    """A client that sends for ever, a mebibyte at a time."""

    def __init__(self):
        self.sent_bytes = 0

    async def receive(self):
        self.sent_bytes += 1 << 20
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": True}


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_of_100_mb_is_refused_before_it_is_read(build, surface, announced):
    @post("/reads", status_code=200)
    async def reads(request: Request) -> bytes:
        return await request.body()

    flood, sent = Flood(), []

    async def send(message):
        sent.append(message)

    headers = [(b"content-length", b"104857600")] if announced else []
    app = build(surface("red", [reads]), settings={"limits": {"body_bytes": 10_000_000}})
    await app(scope_of("/reads", headers), flood.receive, send)
    assert sent[0]["status"] == 413
    assert flood.sent_bytes <= (0 if announced else 12_000_000)


async def test_a_mount_cannot_read_more_than_the_limit_either(build, surface):
    from litestar import asgi

    @asgi("/mounted", is_mount=True, copy_scope=True)
    async def greedy(scope: dict, receive: object, send: object) -> None:
        while True:
            await receive()

    flood, sent = Flood(), []

    async def send(message):
        sent.append(message)

    limits = {"limits": {"body_bytes": 3_000_000, "media_bytes": 5_000_000}}
    await build(surface("red", [greedy]), settings=limits)(scope_of("/mounted"), flood.receive, send)
    assert sent[0]["status"] == 413
    assert flood.sent_bytes < 8_000_000


async def test_requests_are_counted_by_template_never_by_path(connect, surface, make_route):
    metrics = Metrics()
    async with connect(surface("red", [make_route(post, "/infer/{name:str}")]), metrics=metrics) as client:
        await client.post("/infer/secret-model")
        await client.post("/nowhere/secret")
        await client.request("BREW", "/infer/secret-model")
    text = metrics.exposition("")[0].decode()
    assert 'modelport_http_requests_total{method="POST",route="/infer/{name}",status="200"} 1.0' in text
    assert 'method="POST",route="unmatched",status="404"' in text
    assert 'method="OTHER",route="/infer/{name}",status="405"' in text
    assert "secret" not in text


async def test_a_defect_is_our_error_kind():
    assert ModelportError("x").kind == "internal"
