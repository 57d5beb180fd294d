"""Which plugins serve, what they may not do to each other, and who may call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import httpx
import pytest

from modelport.core.config.settings import Settings
from modelport.core.plugins.discover import discover
from modelport.core.server.routes import routes_of
from modelport.testing.checkpoints import tiny_bert, tiny_llama

from .conftest import Server
from .plugins import api, install

MOUNT = """
@asgi("{path}", is_mount=True, copy_scope=True)
async def {name}(scope: Scope, receive: Receive, send: Send) -> None:
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"mounted"}})
"""
ROUTE = """
@get("{path}")
async def {name}() -> str:
    return "{name}"
"""


def keys(server_or_folder, *args: str) -> dict:
    """Runs `modelport keys` against a state folder."""
    done = subprocess.run(
        [sys.executable, "-m", "modelport", "keys", *args, "--json"],
        capture_output=True, text=True, check=True, env=os.environ | {"MODELPORT_STATE_DIR": str(server_or_folder)},
    )  # fmt: skip
    return json.loads(done.stdout)


def test_only_chosen_apis_are_served_and_others_are_never_imported(tmp_path, serve):
    env = install(tmp_path / "site", "apis", "canary", "open(__file__ + '.imported', 'w'); raise ImportError('boom')")
    server = serve('apis = ["native"]', env=env)
    assert server.client.post("/v1/chat/completions", json={}).status_code == 404
    assert server.client.get("/v1/catalog").status_code == 200
    assert not list((tmp_path / "site").glob("*.imported"))


def test_plugin_that_fails_to_import_is_listed_with_its_reason_and_the_rest_serves(tmp_path, serve):
    env = install(tmp_path / "site", "apis", "broken", "raise ImportError('no such driver')")
    server = serve(env=env)
    listed = {p["name"]: p for p in server.client.get("/v1/plugins").json()["plugins"]}
    assert listed["broken"]["state"] == "failed"
    assert "no such driver" in listed["broken"]["reason"]
    assert listed["openai"]["state"] == "enabled"
    assert server.client.get("/v1/models").status_code == 200
    with pytest.raises(RuntimeError, match="no such driver"):
        serve("strict = true", env=env)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ROUTE.format(path="/x/a", name="a"), ROUTE.format(path="/x/a", name="b")),
        (ROUTE.format(path="/x/{one:str}", name="a"), ROUTE.format(path="/x/{two:str}", name="b")),
        (MOUNT.format(path="/x", name="a"), MOUNT.format(path="/x", name="b")),
        (MOUNT.format(path="/x", name="a"), ROUTE.format(path="/x/deep", name="b")),
        (ROUTE.format(path="/x/{rest:path}", name="a"), ""),
    ],
    ids=["same path", "other parameter names", "two mounts", "mount over route", "catch-all"],
)
def test_conflicting_routes_refuse_to_start_and_name_both(tmp_path, serve, first, second):
    env = install(tmp_path / "site", "apis", "alpha", api("alpha", first, "a"))
    names = ["alpha"]
    if second:
        install(tmp_path / "site", "apis", "beta", api("beta", second, "b"))
        names.append("beta")
    with pytest.raises(RuntimeError) as failure:
        serve(env=env)
    for name in names:
        assert name in str(failure.value)
    assert "/x" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_everything_but_health_needs_a_key_and_says_so_in_the_dialect_of_the_path(tmp_path, serve):
    handlers = MOUNT.format(path="/rpc.Service", name="a") + ROUTE.format(path="/mine", name="b")
    env = install(tmp_path / "site", "apis", "alpha", api("alpha", handlers, "a, b"))
    server: Server = serve('[auth]\nrequired = "always"', env=env)
    for path in ("/health", "/health/live", "/health/ready"):
        assert server.client.get(path).status_code in {200, 503}
    paths = (
        "/ /v1/models /v1/models/a/b /v1/catalog /v1/infer/x /metrics /v1/metrics /nowhere /rpc.Service/Method /rpc.Service "
        "/mine /v1/chat/completions /health/../v1/models /healthy /schema"
    ).split()
    for path in paths:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH"):
            response = server.client.request(method, path)
            assert response.status_code == 401, (method, path, response.status_code)
    openai_error = server.client.post("/v1/chat/completions").json()["error"]
    assert set(openai_error) == {"message", "type", "param", "code"}
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert server.client.options("/v1/models", headers=preflight).status_code != 401


def test_every_route_of_every_api_refuses_without_a_good_key_and_keeps_operators_apart(serve):
    server: Server = serve('[auth]\nrequired = "always"')
    state = server.config.parent / "state"
    good = {scope: keys(state, "create", scope, "--scope", scope) for scope in ("infer", "admin")}
    gone = keys(state, "create", "gone", "--scope", "infer")
    keys(state, "revoke", gone["id"])
    registry = discover(Settings(), ["apis"])
    assert {"native", "openai", "huggingface"} <= registry.apis.keys()
    routes = [route for name, api in registry.apis.items() for route in routes_of(name, api.routes())]
    assert len(routes) > 50
    for route in routes:
        path = re.sub(r"[{}]", "", route.template)
        for method in route.methods:
            for key in (None, "wrong", gone["key"]):
                headers = {"authorization": f"Bearer {key}"} if key else {}
                assert server.client.request(method, path, headers=headers).status_code == 401, (method, path)
            status = server.client.request(method, path, headers={"x-api-key": good["infer"]["key"]}).status_code
            assert status != 401, (method, path)
            for_admins = method != "OPTIONS" and path.endswith(("/load", "/unload", "/v1/hardware", "/v1/plugins"))
            assert (status == 403) is for_admins, (method, path, status)


def test_a_key_for_one_model_reaches_that_one_at_the_root_too(tmp_path, serve):
    bert, llama = tiny_bert(tmp_path / "bert"), tiny_llama(tmp_path / "llama")
    models = f'[models.chat]\nsource = "{llama}"\n[models.embedder]\nsource = "{bert}"\n'
    server: Server = serve(f'[auth]\nrequired = "always"\n[apis.huggingface]\nmodel = "chat"\n{models}')
    key = keys(server.config.parent / "state", "create", "app", "--scope", "infer", "--model", "embedder")["key"]
    server.client.headers["authorization"] = f"Bearer {key}"
    server.until(lambda: server.client.get("/info").json().get("model_id") == "embedder")
    for path in ("/embed", "/"):
        assert len(server.client.post(path, json={"inputs": "a"}).json()) == 1, path
    assert server.client.post("/generate", json={"inputs": "a"}).status_code == 404
    say = {"messages": [{"role": "user", "content": "a"}], "model": "chat"}
    for path, body in (
        ("/models/chat", {"inputs": "a"}),
        ("/models/chat/v1/chat/completions", say),
        ("/v1/chat/completions", say),
        ("/v1/generate", {"inputs": "a", "model": "chat"}),
        ("/v1/infer/chat", {"prompt": "a"}),
    ):
        assert server.client.post(path, json=body).status_code == 403, path
    assert server.client.get("/models/chat/health").status_code == 403


def test_infer_key_may_infer_and_nothing_else_until_it_is_revoked(tmp_path, serve):
    server: Server = serve('[auth]\nrequired = "always"\n[models.loud]\nsource = "skill:nothing"')
    state = server.config.parent / "state"
    infer = keys(state, "create", "app", "--scope", "infer")
    admin = keys(state, "create", "ops", "--scope", "admin", "--scope", "infer")
    as_infer, as_admin = ({"authorization": f"Bearer {key['key']}"} for key in (infer, admin))
    assert server.client.get("/v1/models", headers=as_infer).status_code == 200
    assert server.client.post("/v1/models/loud/load", headers=as_infer).status_code == 403
    assert server.client.post("/v1/models/loud/unload", headers=as_infer).status_code == 403
    assert server.client.get("/v1/plugins", headers=as_infer).status_code == 403
    assert server.client.get("/v1/plugins", headers=as_admin).status_code == 200
    assert infer["key"] not in (state / "keys.json").read_text()
    keys(state, "revoke", infer["id"])
    server.until(lambda: server.client.get("/v1/models", headers=as_infer).status_code == 401, 10)


def test_public_bind_without_keys_is_refused(serve):
    with pytest.raises(RuntimeError, match="insecure"):
        serve("", "--host", "0.0.0.0")


def test_busy_port_is_one_sentence(serve):
    server = serve()
    port = server.url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "modelport", "serve", "--port", port], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_tls_is_served_with_the_certificate_that_was_named(tmp_path, serve):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = serve("", "--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    assert server.url.startswith("https://")
    import ssl

    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    assert httpx.get(f"{server.url}/health/live", verify=context).status_code == 200
