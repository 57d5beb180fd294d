"""Who asks: the only principal that `Host` believes."""

from __future__ import annotations

import time

import msgspec

from modelport.contract.errors import Unauthenticated

__all__ = ["ADMIN", "INFER", "SCOPES", "Caller", "anonymous"]

INFER = "infer"
ADMIN = "admin"
SCOPES = frozenset({INFER, ADMIN})


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller. The core alone makes one: plugins may not import this room, and the host takes no other type.

    Args:
        name: The key's name, or `anonymous`; for logs and observers.
        scopes: `infer`, `admin`, or both.
        models: The only models this caller may use, or None for all.
        expires_at: Unix time after which this principal is refused, for connections that outlive their key.
        key_id: The key that was shown, or empty.
    """

    name: str
    scopes: frozenset[str] = frozenset({INFER})
    models: frozenset[str] | None = None
    expires_at: float | None = None
    key_id: str = ""

    def check_expiry(self) -> None:
        """Returns while the key is good.

        Raises:
            Unauthenticated: once it has expired.
        """
        if self.expires_at is not None and time.time() >= self.expires_at:
            raise Unauthenticated(
                f"The key {self.name!r} has expired. Ask for a new one, or create one with: modelport keys create"
            )


def anonymous() -> Caller:
    """The principal of everybody on a server that asks for no keys: may do all."""
    return Caller(name="anonymous", scopes=SCOPES)
