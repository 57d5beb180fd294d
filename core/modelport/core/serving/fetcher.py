"""Media fetched by address, from hosts that the configuration names, and from public addresses only.

A name is resolved once, and the connection goes to the address that was judged: a name that means another address a moment later
gains nothing. Proxies of the environment are not used, since they would resolve names themselves.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

import httpx
import msgspec

from modelport.contract.errors import InvalidRequest, ModelportError, PayloadTooLarge
from modelport.contract.task import Media
from modelport.core.config.settings import MediaSettings
from modelport.core.serving.public import is_public
from modelport.core.serving.references import filled, references

__all__ = ["Fetcher"]

R = TypeVar("R", bound=msgspec.Struct)
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A host's name and a port to its addresses."""

_MOST_ADDRESSES = 256
"""Different ones in one request. Each costs a question to a host that is not ours."""

_MOST_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}


class Fetcher:
    """Puts bytes in place of addresses.

    Args:
        settings: Which hosts, and within which bounds.
        most_bytes: Most bytes of all media of one request.
        offline: Whether the network is not to be used at all.
        resolve: How names become addresses; by default the system's way.
    """

    def __init__(
        self, settings: MediaSettings, most_bytes: int, *, offline: bool = False, resolve: Resolve | None = None
    ) -> None:
        self._hosts = () if offline else tuple(host.lower() for host in settings.allowed_hosts)
        self._networks = tuple(ip_network(network, strict=False) for network in settings.allowed_networks)
        self._timeout_s = settings.timeout_s
        self._most_bytes = most_bytes
        self._resolve = resolve or _resolve
        self._turns = asyncio.Semaphore(settings.at_once)

    def wanted(self, request: msgspec.Struct) -> dict[str, str]:
        """The addresses in `request` that may be fetched, by the way to their fields."""
        if not self._hosts:
            return {}
        return {way: url for way, url in references(request).items() if self._is_allowed(url)}

    async def fetched(self, request: R, wanted: dict[str, str]) -> R:
        """`request` with the bytes of the media that are `wanted`, each address asked once. Others stay, and whoever reads
        them refuses them.

        Raises:
            InvalidRequest: an allowed host did not give the media, or there are too many; `param` names the field.
            PayloadTooLarge: they are more bytes than one request may have.
        """
        ways = {url: way for way, url in reversed(wanted.items())}
        uses = Counter(wanted.values())
        if len(ways) > _MOST_ADDRESSES:
            way = [*wanted][_MOST_ADDRESSES]
            raise InvalidRequest(f"{way} is one address too many: a request has at most {_MOST_ADDRESSES}.", param=way)
        room = _Room(self._most_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {url: group.create_task(self._fetch(url, way, room, uses[url])) for url, way in ways.items()}
        except ExceptionGroup as errors:
            raise _first(errors) from None
        found: R = filled(request, {way: tasks[url].result() for way, url in wanted.items()})
        return found

    def _is_allowed(self, address: str | httpx.URL) -> bool:
        try:
            url = httpx.URL(address)
            host = url.host.lower()
        except (httpx.InvalidURL, UnicodeError):
            return False
        if url.scheme not in _PORTS:
            return False
        port = url.port or _PORTS[url.scheme]
        names = [host, *(f"*.{host.split('.', cut)[-1]}" for cut in range(1, host.count(".") + 1))]
        if port == _PORTS[url.scheme]:
            return any(name in self._hosts for name in names)
        return any(f"{name}:{port}" in self._hosts for name in names)

    async def _fetch(self, url: str, way: str, room: _Room, uses: int) -> Media:
        async with self._turns:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._follow(httpx.URL(url), way, room, uses)
            except TimeoutError:
                raise _refused(way, f"its host did not send it within {self._timeout_s:g} s") from None
            except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
                raise _refused(way, str(error).rstrip(".") or type(error).__name__) from None

    async def _follow(self, url: httpx.URL, way: str, room: _Room, uses: int) -> Media:
        for _ in range(_MOST_REDIRECTS + 1):
            target = await self._pinned(url, way)
            async with (
                httpx.AsyncClient(trust_env=False, timeout=self._timeout_s, verify=_certificates()) as client,
                client.stream("GET", target, headers=_headers(url), extensions={"sni_hostname": url.host}) as answer,
            ):
                if answer.has_redirect_location:
                    url = self._next(url, answer.headers["location"], way)
                    continue
                if answer.status_code != 200:
                    raise _refused(way, f"its host answered {answer.status_code}")
                data = bytearray()
                async for piece in answer.aiter_raw():
                    room.take(len(piece) * uses)  # each goes to the model by itself
                    data += piece
                return Media(data=bytes(data), mime=answer.headers.get("content-type", "").partition(";")[0].strip())
        raise _refused(way, f"it is redirected more than {_MOST_REDIRECTS} times")

    def _next(self, url: httpx.URL, location: str, way: str) -> httpx.URL:
        after = url.join(location)
        if not self._is_allowed(after) or (url.scheme, after.scheme) == ("https", "http"):
            raise _refused(way, f"it is redirected to {after.host}, which is not allowed")
        return after

    async def _pinned(self, url: httpx.URL, way: str) -> httpx.URL:
        """The same address with a number for the host's name, one of those that may be asked."""
        port = url.port or _PORTS[url.scheme]
        found = await self._resolve(url.host, port)
        good = [text for text in found if is_public(ip_address(text), self._networks)]
        if not good:
            raise _refused(way, "its host has no public address")
        return url.copy_with(host=good[0], port=port)


class _Room:
    """The bytes that one request may still fetch."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise PayloadTooLarge(f"The media of the request are larger than the {self._most:,} bytes that this server takes.")


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, read once: it takes long."""
    return httpx.create_ssl_context(trust_env=False)


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _headers(url: httpx.URL) -> dict[str, str]:
    return {"host": url.netloc.decode("ascii"), "accept-encoding": "identity", "user-agent": "modelport"}


def _refused(way: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{way} could not be fetched: {why}. Send the bytes as data, or as a data URL.", param=way)


def _first(errors: ExceptionGroup[Any]) -> ModelportError:
    """What to tell of several that failed: the first of ours, else it is a defect."""
    for error in errors.exceptions:
        if isinstance(error, ModelportError):
            return error
    raise errors
