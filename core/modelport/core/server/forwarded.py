"""`X-Forwarded-*`: believed from named proxies, removed from everybody else's requests."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from modelport.contract.errors import ConfigurationError

__all__ = ["Proxies"]

Headers = list[tuple[bytes, bytes]]


class Proxies:
    """The addresses whose forwarding headers are believed.

    Args:
        trusted: Addresses and networks (`10.0.0.0/8`).

    Raises:
        ConfigurationError: for a value that is neither.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = []
        for value in trusted:
            try:
                self._networks.append(ipaddress.ip_network(value, strict=False))
            except ValueError:
                raise ConfigurationError(
                    f"server.trusted_proxies: {value!r} is neither an address nor a network. Write 10.0.0.5 or 10.0.0.0/8."
                ) from None

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of ours."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def resolve(self, peer: str, scheme: str, headers: Headers) -> tuple[str, str, Headers]:
        """(client, scheme, headers) of a request from `peer`.

        The client is the last address in `X-Forwarded-For` that is not a proxy of ours: what stands before it was written by
        the client itself.
        """
        if not any(name.startswith(b"x-forwarded-") or name == b"forwarded" for name, _ in headers):
            return peer, scheme, headers
        if not self.trusts(peer):
            kept = [pair for pair in headers if not pair[0].startswith(b"x-forwarded-") and pair[0] != b"forwarded"]
            return peer, scheme, kept
        client = peer
        hops = ",".join(value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for")
        for hop in reversed([hop.strip() for hop in hops.split(",") if hop.strip()]):
            client = hop
            if not self.trusts(hop):
                break
        for name, value in headers:
            if name == b"x-forwarded-proto":
                asked = value.decode("latin-1").split(",")[-1].strip().lower()
                secure = scheme in {"https", "wss"} or asked in {"https", "wss"}
                scheme = ("wss" if secure else "ws") if scheme.startswith("ws") else ("https" if secure else "http")
        return client, scheme, headers
