"""HTTP/1.1 as uvicorn speaks it, with a bound on the head of a request.

The parser has none: whoever never ends a header would fill the memory, before any key is looked at.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "BoundedProtocol"]

HEAD_BYTES = 262_144
"""Most bytes of a request line and its headers, some of which arrive with what stands before them."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 52\r\n"
    b"connection: close\r\n\r\nThe headers are too large. Send fewer, or shorter.\r\n"
)


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """Closes a connection whose request has too large a head."""

    _is_heading = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_heading, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_heading = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Counts what arrives while a head is not whole."""
        super().data_received(data)
        if self._is_heading and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
