"""The table of all routes, made and checked before Litestar sees any of them.

Litestar lets the last of two overlapping routes win in several cases, and a mount swallow its neighbours. Here each plugin's
routes are written down as (methods, segments); an overlap is a `ConfigurationError` that names both sides. The table also
answers, for any request, which surface owns the path (so that errors are in its dialect) and which template it matched
(for metrics).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from litestar import Router
from litestar.exceptions import ImproperlyConfiguredException
from litestar.routes import ASGIRoute, HTTPRoute
from litestar.types.internal_types import PathParameterDefinition

from modelport.contract.errors import ConfigurationError

__all__ = ["CORE", "Match", "Route", "RouteTable", "normalized", "routes_of"]

CORE = "core"
"""The owner of the routes that no plugin may touch."""

_ANY = ""
"""The segment of a parameter in a normalised path."""

_SCOPES = frozenset({"infer", "admin"})


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One path of one handler.

    `segments` are the path's parts, a parameter being the empty one. `methods` holds HTTP methods, `WEBSOCKET`, or `*` for a
    mounted or plain ASGI app.
    """

    owner: str
    template: str
    segments: tuple[str, ...]
    methods: frozenset[str]
    mount: bool = False

    def __str__(self) -> str:
        kind = "mount" if self.mount else " ".join(sorted(self.methods))
        return f"{kind} {self.template}"


class Match(msgspec.Struct, frozen=True):
    """What a request's path and method lead to.

    `owner` is None where nobody owns the path. `allowed` is empty if the path exists for the method, or if it does not exist at
    all (`template` is empty then); otherwise it lists the methods that do exist.
    """

    owner: str | None
    template: str = ""
    allowed: tuple[str, ...] = ()


def normalized(path: str) -> tuple[str, ...]:
    """The segments of a request's path, as Litestar will see them: empty ones do not count."""
    return tuple(part for part in path.split("/") if part)


def routes_of(owner: str, handlers: Sequence[Any]) -> list[Route]:
    """Every route of `handlers`: functions, controllers, routers and mounts, with all of their paths.

    Raises:
        ConfigurationError: for a `{name:path}` parameter, an unknown scope, or handlers that Litestar itself refuses.
    """
    try:
        flat = Router("/", route_handlers=list(handlers)).routes
    except ImproperlyConfiguredException as error:
        raise ConfigurationError(f"The routes of the API plugin '{owner}' cannot be used: {error.detail}.") from None
    routes = []
    for route in flat:
        if any(isinstance(part, PathParameterDefinition) and part.type is Path for part in route.path_components):
            raise ConfigurationError(
                f"The API plugin '{owner}' has the route {route.path}: a parameter of type `path` would swallow other"
                f" plugins' routes. Use `modelport.contract.api.model_route` for model ids."
            )
        segments = tuple(part if isinstance(part, str) else _ANY for part in route.path_components if part != "/")
        mount = False
        if isinstance(route, HTTPRoute):
            methods = frozenset(str(method) for handler in route.route_handlers for method in handler.http_methods)
            found = route.route_handlers
        else:
            found = [route.route_handler]  # type: ignore[list-item]
            methods = frozenset({"*"} if isinstance(route, ASGIRoute) else {"WEBSOCKET"})
            mount = isinstance(route, ASGIRoute) and route.route_handler.is_mount
        for handler in found:
            _check_scope(owner, route.path, handler.opt.get("scope", "infer"))
        routes.append(Route(owner=owner, template=route.path_format, segments=segments, methods=methods, mount=mount))
    return routes


def _check_scope(owner: str, path: str, scope: object) -> None:
    if owner != CORE and scope not in _SCOPES:
        raise ConfigurationError(f"The route {path} of '{owner}' has the scope {scope!r}; it may be 'infer' or 'admin'.")


class RouteTable:
    """All routes of all owners. Literal segments win over parameters, without going back, as in Litestar.

    Args:
        routes: In the order of registration.
        prefixes: Paths whose errors a surface words although it has no route there, by owner.

    Raises:
        ConfigurationError: naming every pair that overlaps.
    """

    def __init__(self, routes: Iterable[Route], prefixes: Mapping[str, Sequence[str]] | None = None) -> None:
        self._routes = list(routes)
        conflicts = list(_conflicts(self._routes))
        if conflicts:
            raise ConfigurationError("\n".join(conflicts))
        self._root = _Node()
        for route in self._routes:
            self._root.add(route)
        self._prefixes = sorted(
            ((normalized(prefix), owner) for owner, listed in (prefixes or {}).items() for prefix in listed),
            key=lambda pair: -len(pair[0]),
        )

    @property
    def has_websockets(self) -> bool:
        """Whether any route or mount could take a WebSocket."""
        return any(route.methods & {"WEBSOCKET", "*"} for route in self._routes)

    def match(self, path: str, method: str) -> Match:
        """Where a request goes. `method` is `WEBSOCKET` for WebSockets."""
        segments = normalized(path)
        node, mount = self._root.find(segments)
        if node is not None and node.by_method:
            route = node.by_method.get(method) or node.by_method.get("*")
            if route is not None:
                return Match(route.owner, route.template)
            if method == "OPTIONS" and "WEBSOCKET" not in node.by_method:
                first = next(iter(node.by_method.values()))
                return Match(first.owner, first.template)
            first = next(iter(node.by_method.values()))
            allowed = tuple(sorted(node.by_method.keys() - {"WEBSOCKET"}))
            return Match(first.owner, first.template if allowed else "", allowed)
        if mount is not None:
            return Match(mount.owner, mount.template)
        for prefix, owner in self._prefixes:
            if segments[: len(prefix)] == prefix:
                return Match(owner)
        return Match(None)


class _Node:
    """A place in the tree of segments."""

    __slots__ = ("by_method", "children", "mount")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.by_method: dict[str, Route] = {}
        self.mount: Route | None = None

    def add(self, route: Route) -> None:
        node = self
        for segment in route.segments:
            node = node.children.setdefault(segment, _Node())
        if route.mount:
            node.mount = route
        for method in route.methods:
            node.by_method[method] = route

    def find(self, segments: tuple[str, ...]) -> tuple[_Node | None, Route | None]:
        """The node of the path, if there is one, and the innermost mount on the way."""
        node, mount = self, self.mount
        for segment in segments:
            following = node.children.get(segment) or node.children.get(_ANY)
            if following is None:
                return None, mount
            node = following
            mount = node.mount or mount
        return node, mount


def _conflicts(routes: Sequence[Route]) -> Iterable[str]:
    """A sentence for each pair of routes that overlap."""
    seen: dict[tuple[str, ...], list[Route]] = {}
    for route in routes:
        for other in seen.get(route.segments, ()):
            common = route.methods & other.methods - {"OPTIONS"} or ("*" in route.methods | other.methods)
            if common:
                yield _sentence(other, route, "two mounts on one path" if route.mount and other.mount else "the same path")
        seen.setdefault(route.segments, []).append(route)
    for mount in (route for route in routes if route.mount):
        for route in routes:
            under = len(route.segments) > len(mount.segments) and _covers(mount.segments, route.segments)
            if route is not mount and under:
                yield _sentence(mount, route, "a mount takes everything under its path")


def _covers(mount: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """Whether some request under `segments` is under `mount` too."""
    return all(mine in (theirs, _ANY) or theirs == _ANY for mine, theirs in zip(mount, segments, strict=False))


def _sentence(first: Route, second: Route, why: str) -> str:
    def side(route: Route) -> str:
        return f"{'the core' if route.owner == CORE else f'the API plugin {route.owner!r}'} ({route})"

    owners = {first.owner, second.owner} - {CORE}
    cure = f" Disable one of them, for example with apis.{min(owners)} = {{ enabled = false }}." if owners else ""
    return f"Routes overlap: {side(first)} and {side(second)}: {why}.{cure}"
