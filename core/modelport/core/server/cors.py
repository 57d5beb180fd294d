"""Cross-origin calls from browsers: answered outside of everything, so that even a 401 can be read by the page."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Cors"]

Headers = list[tuple[bytes, bytes]]


class Cors:
    """Which origins may call.

    Args:
        origins: `https://app.example`, or `*` for all.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._all = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode("latin-1") for origin in origins)

    def headers(self, origin: bytes | None) -> Headers:
        """What to add to a response to a request from `origin`."""
        if origin is None or not (self._all or origin in self._origins):
            return []
        allowed = b"*" if self._all else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", b"*"),  # none holds a secret, and dialects tell times and counts in theirs
            *([] if self._all else [(b"vary", b"Origin")]),
        ]

    def preflight(self, origin: bytes, asked: bytes) -> Headers:
        """The headers of an answer to a preflight; none of them if `origin` may not call, which the browser understands.

        `asked` is what the browser wants to send (`Access-Control-Request-Headers`).
        """
        allowed = self.headers(origin)
        if not allowed:
            return []
        return [
            *allowed,
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (b"access-control-allow-headers", asked or b"authorization, content-type, x-api-key, x-request-id"),
            (b"access-control-max-age", b"600"),
        ]
