"""HTTP/1.1 as uvicorn speaks it, with bounds on how large the head of a request may be and how long a request may take to arrive.

The parser has neither: whoever never ends a header would fill the memory, and whoever sends nothing would keep a connection,
before any key is looked at.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "BoundedProtocol"]

HEAD_BYTES = 262_144
"""Most bytes of a request line and its headers, some of which arrive with what stands before them."""


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """Closes a connection whose request has too large a head, or stops arriving.

    A head must be whole, and the next piece of a body must come, within the seconds that an idle connection is kept
    (`server.keep_alive_s`). While the application lets the body wait, the time stands still.
    """

    _is_heading = True
    _is_whole = False
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The first request is awaited."""
        super().connection_made(transport)
        self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._await_nothing()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Another protocol takes over."""
        self._await_nothing()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_heading, self._is_whole, self._head_bytes = True, False, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_heading = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_whole = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Counts what arrives while a head is not whole, and waits for more if there must be more."""
        super().data_received(data)
        if self._is_whole or self.transport.is_closing():
            self._await_nothing()
        elif not self._is_heading:
            self._await_nothing()
            self._await_more()
        else:
            if self._patience is None:
                self._await_more()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse("431 Request Header Fields Too Large", "The headers are too large. Send fewer, or shorter.")

    def _await_more(self) -> None:
        self._patience = self.loop.call_later(self.timeout_keep_alive, self._stalled)

    def _await_nothing(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _stalled(self) -> None:
        self._patience = None
        if self.flow.read_paused:
            self._await_more()
        else:
            self._refuse("408 Request Timeout", "The request did not arrive in time. Send it again.")

    def _refuse(self, status: str, why: str) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        if not is_answering and not self.transport.is_closing():
            head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(why) + 2}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n{why}\r\n".encode())
        self.transport.close()
