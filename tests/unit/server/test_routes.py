from __future__ import annotations

import pytest
from litestar import Controller, Router, delete, get, post, websocket

from modelport.contract import ConfigurationError
from modelport.core.server.routes import RouteTable, routes_of


def table(**owners):
    return RouteTable([route for owner, handlers in owners.items() for route in routes_of(owner, handlers)])


def refusal(**owners) -> str:
    with pytest.raises(ConfigurationError) as caught:
        table(**owners)
    return caught.value.message


def test_routes_with_one_path_and_method_in_two_plugins_are_refused_naming_both(make_route):
    message = refusal(red=[make_route(get, "/v1/a")], blue=[make_route(get, "/v1/a")])
    assert "'red'" in message
    assert "'blue'" in message
    assert "/v1/a" in message


def test_routes_that_differ_in_parameter_names_only_are_refused(make_route):
    message = refusal(red=[make_route(get, "/v1/{a:str}/x")], blue=[make_route(get, "/v1/{b:int}/x")])
    assert "/v1/{a}/x" in message
    assert "/v1/{b}/x" in message


def test_routes_for_different_methods_of_one_path_live_together(make_route):
    both = table(red=[make_route(get, "/v1/a")], blue=[make_route(post, "/v1/a")])
    assert both.match("/v1/a", "GET").owner == "red"
    assert both.match("/v1/a", "POST").owner == "blue"


def test_a_path_parameter_is_refused_naming_the_plugin(make_route):
    message = refusal(red=[make_route(get, "/files/{rest:path}")])
    assert "'red'" in message
    assert "/files/{rest:path}" in message


def test_two_mounts_on_one_path_are_refused(make_mount):
    message = refusal(red=[make_mount("/tools")], blue=[make_mount("/tools")])
    assert "'red'" in message
    assert "'blue'" in message
    assert "two mounts" in message


@pytest.mark.parametrize("path", ["/v1/tools", "/v1/tools/list", "/v1/{any:str}/list"])
def test_a_mount_over_a_route_is_refused(make_mount, make_route, path):
    message = refusal(red=[make_mount("/v1/tools")], blue=[make_route(get, path)])
    assert "'red' (mount /v1/tools)" in message
    assert "'blue'" in message


def test_a_mount_inside_a_mount_is_refused(make_mount):
    assert "mount /v1/tools" in refusal(red=[make_mount("/v1")], blue=[make_mount("/v1/tools")])


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/v1/metrics"])
def test_routes_of_the_core_cannot_be_taken(build, surface, make_route, path):
    with pytest.raises(ConfigurationError, match=r"the core .*'red'"):
        build(surface("red", [make_route(get, path)]))


def test_a_mount_over_the_core_is_refused(build, surface, make_mount):
    with pytest.raises(ConfigurationError, match="the core"):
        build(surface("red", [make_mount("/")]))


def test_every_conflict_is_named_at_once(make_route):
    message = refusal(red=[make_route(get, "/a"), make_route(get, "/b")], blue=[make_route(get, "/a"), make_route(get, "/b")])
    assert len(message.splitlines()) == 2


def test_controllers_routers_and_several_paths_are_seen(make_route):
    class Things(Controller):
        path = "/things"

        @get("/{id:int}")
        async def one(self, id: int) -> str:
            return ""

        @delete("/{id:int}", status_code=200)
        async def gone(self, id: int) -> str:
            return ""

    nested = Router("/api", route_handlers=[Router("/v2", route_handlers=[make_route(post, ["/x", "/y"])]), Things])
    found = {str(route) for route in routes_of("red", [nested])}
    assert "OPTIONS POST /api/v2/x" in found
    assert "OPTIONS POST /api/v2/y" in found
    assert "DELETE GET OPTIONS /api/things/{id}" in found
    with pytest.raises(ConfigurationError):
        table(red=[nested], blue=[make_route(get, "/api/things/{other:str}")])


def test_an_unknown_scope_is_refused(make_route):
    with pytest.raises(ConfigurationError, match="'open'"):
        routes_of("red", [make_route(get, "/a", opt={"scope": "open"})])


def test_a_request_finds_owner_and_template(make_route, make_mount):
    routes = RouteTable(
        routes_of("red", [make_route(get, ["/v1/models/{name:str}", "/v1/models/{owner:str}/{name:str}"])])
        + routes_of("blue", [make_route(get, "/v1/models/{name:str}/info")])
        + routes_of("green", [make_mount("/tools")]),
        {"red": ["/v1/chat"], "blue": ["/v1"]},
    )
    assert routes.match("/v1/models/a", "GET").template == "/v1/models/{name}"
    assert routes.match("/v1/models/a/b", "GET").owner == "red"
    assert routes.match("/v1/models/a/info", "GET").owner == "blue"
    assert routes.match("//v1//models/a/", "GET").owner == "red"
    assert routes.match("/tools/deep/inside", "PATCH").owner == "green"
    assert routes.match("/toolshed", "GET").owner is None
    assert routes.match("/v1/models/a", "POST").allowed == ("GET", "OPTIONS")
    assert routes.match("/v1/chat/anything", "POST").owner == "red"
    assert routes.match("/v1/other", "POST").owner == "blue"
    assert routes.match("/other", "GET").owner is None


def test_websockets_are_told_apart_from_get(make_route):
    @websocket("/live")
    async def live(socket: object) -> None:
        return None

    both = table(red=[live], blue=[make_route(get, "/live")])
    assert both.match("/live", "WEBSOCKET").owner == "red"
    assert both.match("/live", "GET").owner == "blue"
    assert both.has_websockets
