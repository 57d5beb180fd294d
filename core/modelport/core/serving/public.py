"""Which addresses of the internet are public: those of anybody's servers, not of this machine or its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

__all__ = ["is_public"]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LOCAL = (IPv6Network("::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
"""Networks of old or local use that the standard library takes for public."""

_TRANSLATED = IPv6Network("64:ff9b::/96")
"""A gateway sends packets for these on to the IPv4 address in their last four bytes."""


def is_public(address: Address, also: Sequence[Network] = ()) -> bool:
    """Whether a packet to `address` ends at one that is public, or in a network of `also`, whatever gateways it passes."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped, also)
        inner = IPv4Address(address.packed[12:]) if address in _TRANSLATED else address.sixtofour
        if inner is not None and not is_public(inner, also):
            return False
    if any(address in network for network in also):
        return True
    return address.is_global and not address.is_multicast and not any(address in network for network in _LOCAL)
