"""A two-way connection for frames inside an event loop; both ends of a worker's socket are one of these."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from modelport.core.worker.frames import Buffer, FrameError, FrameReader, Packed, pack, pack_receipt

__all__ = ["Channel"]

_READ_BYTES = 64 * 1024
_READS_PER_WAKE = 8
_SMALL_BYTES = 16 * 1024
_CONGESTED_BYTES = 1024 * 1024
_OUTSIDE_BYTES = 256 * 1024 * 1024
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_CUT = int(getattr(socket, "MSG_CTRUNC", 0))


class _Outgoing:
    __slots__ = ("ids", "is_large", "packed")

    def __init__(self, packed: Packed, ids: tuple[int, ...], is_large: bool) -> None:
        self.packed = packed
        self.ids = ids
        self.is_large = is_large


class Channel:
    """Sends and receives frames over one stream socket. Everything happens on one event loop's thread.

    Small frames overtake large ones that still wait, except those that concern the same ids, whose order is kept. Shared memory
    that the other side has not yet confirmed is bounded: large frames wait for receipts. `received` gets the parts of every
    frame; `closed` is called once, with the reason, when the other side is gone or speaks nonsense, and not after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[list[memoryview]], None],
        closed: Callable[[str], None],
        outside_limit_bytes: int = _OUTSIDE_BYTES,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received, self._closed = received, closed
        self._reader = FrameReader()
        self._small: deque[_Outgoing] = deque()
        self._large: deque[_Outgoing] = deque()
        self._large_ids: Counter[int] = Counter()
        self._rest: memoryview | None = None
        self._queued_bytes = 0
        self._unconfirmed_bytes = 0
        self._outside_limit_bytes = outside_limit_bytes
        self._writing = self._is_gathering = False
        self._is_open = True
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._on_clear: Callable[[], None] | None = None
        self._loop.add_reader(sock, self._read)

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent."""
        return self._is_open

    @property
    def is_congested(self) -> bool:
        """Whether so much waits to be written that what can wait, or be merged, should."""
        return self._queued_bytes > _CONGESTED_BYTES

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when the channel is no longer congested."""
        self._on_clear = callback

    def send(self, parts: Sequence[Buffer], ids: Iterable[int] = (), *, at_once: bool = True) -> None:
        """Sends one frame, or queues it. `ids` are the calls it concerns. Does nothing on a closed channel.

        Unless it is sent `at_once`, it leaves at the end of the loop's turn, with all others that this turn brings, in one write.

        Raises:
            ValueError: if there are too many parts.
        """
        if self._is_open:
            self._send(pack(parts), tuple(ids), at_once)

    async def flush(self) -> None:
        """Returns when everything has been handed to the system, or the channel is closed."""
        await self._idle.wait()

    def close(self) -> None:
        """Closes the socket and every descriptor held. Idempotent; `closed` is not called."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._sock)
        if self._writing:
            self._loop.remove_writer(self._sock)
        for outgoing in (*self._small, *self._large):
            if outgoing.packed.file is not None:
                os.close(outgoing.packed.file)
        self._small.clear()
        self._large.clear()
        self._reader.close()
        self._sock.close()
        self._on_clear = None
        self._idle.set()

    def read_rest(self) -> None:
        """Reads what already lies in the socket, up to its end; for a peer that is known to be dead."""
        while self._is_open and self._read_once():
            continue

    # ------------------------------------------------------------------------------------------------------- writing

    def _send(self, packed: Packed, ids: tuple[int, ...], at_once: bool = True) -> None:
        is_large = packed.outside_bytes > 0 or len(packed.data) > _SMALL_BYTES
        if is_large or (self._large_ids and not self._large_ids.keys().isdisjoint(ids)):
            self._large.append(_Outgoing(packed, ids, True))
            self._large_ids.update(ids)
        else:
            self._small.append(_Outgoing(packed, ids, False))
        self._queued_bytes += len(packed.data) + packed.outside_bytes
        if self._writing:
            return
        if at_once:
            self._write()
        elif not self._is_gathering:
            self._is_gathering = True
            self._idle.clear()
            self._loop.call_soon(self._gathered)

    def _gathered(self) -> None:
        self._is_gathering = False
        if self._is_open and not self._writing:
            self._write()

    def _next(self) -> _Outgoing | None:
        if len(self._small) > 1:
            return self._joined()
        if self._small:
            return self._small.popleft()
        if not self._large:
            return None
        size = self._large[0].packed.outside_bytes
        if size and self._unconfirmed_bytes and self._unconfirmed_bytes + size > self._outside_limit_bytes:
            return None
        outgoing = self._large.popleft()
        for key in outgoing.ids:
            self._large_ids[key] -= 1
            if not self._large_ids[key]:
                del self._large_ids[key]
        return outgoing

    def _joined(self) -> _Outgoing:
        """Small frames that wait, as one write."""
        size, frames = 0, []
        while self._small and size < _READ_BYTES:
            frames.append(self._small.popleft().packed.data)
            size += len(frames[-1])
        return _Outgoing(Packed(b"".join(frames), None, 0), (), False)

    def _write(self) -> None:
        try:
            while True:
                if self._rest is not None:
                    sent = self._sock.send(self._rest)
                    self._queued_bytes -= sent
                    self._rest = self._rest[sent:] if sent < len(self._rest) else None
                    continue
                outgoing = self._next()
                if outgoing is None:
                    break
                self._write_first(outgoing)
        except (BlockingIOError, InterruptedError):
            self._wait_writable(True)
        except OSError as error:
            self._fail(f"the connection broke ({error.strerror or error})")
            return
        else:
            self._wait_writable(False)
        if self._queued_bytes == 0:
            self._idle.set()
        else:
            self._idle.clear()
        if self._on_clear is not None and not self.is_congested:
            callback, self._on_clear = self._on_clear, None
            callback()

    def _write_first(self, outgoing: _Outgoing) -> None:
        data, file, outside = outgoing.packed
        try:
            if file is None:
                sent = self._sock.send(data)
            else:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
                sent = self._sock.sendmsg([data], rights)
        except (BlockingIOError, InterruptedError):
            # Nothing was taken: it goes first when its lane is asked again.
            if outgoing.is_large:
                self._large_ids.update(outgoing.ids)
                self._large.appendleft(outgoing)
            else:
                self._small.appendleft(outgoing)
            raise
        except OSError:
            if file is not None:
                os.close(file)
            raise
        if file is not None:
            os.close(file)
        self._unconfirmed_bytes += outside
        self._queued_bytes -= sent + outside
        if sent < len(data):
            self._rest = memoryview(data)[sent:]

    def _wait_writable(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._sock, self._write)
            else:
                self._loop.remove_writer(self._sock)

    # ------------------------------------------------------------------------------------------------------- reading

    def _read(self) -> None:
        for _ in range(_READS_PER_WAKE):
            if not self._is_open or self._read_once() < _READ_BYTES:
                return

    def _read_once(self) -> int:
        """Reads once; how many bytes came, 0 if none are there or the channel has ended."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(_READ_BYTES, socket.CMSG_SPACE(16 * 4), _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._fail(f"the connection broke ({error.strerror or error})")
            return 0
        files = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files.frombytes(content[: len(content) - len(content) % files.itemsize])
        if not data:
            for file in files:
                os.close(file)
            self._fail("the connection was closed")
            return 0
        try:
            for frame in self._reader.feed(data, files):
                if frame.receipt_bytes:
                    self._unconfirmed_bytes -= frame.receipt_bytes
                    if not self._writing:
                        self._write()
                    continue
                if frame.outside_bytes:
                    self._send(pack_receipt(frame.outside_bytes), ())
                self._deliver(frame.parts)
                if not self._is_open:
                    return 0
            if flags & _CUT:
                raise FrameError("descriptors were lost because this process has no room for more")
        except FrameError as error:
            self._fail(str(error))
            return 0
        return len(data)

    def _deliver(self, parts: list[memoryview]) -> None:
        try:
            self._received(parts)
        except Exception as error:  # a defect of the receiver must not lose the frames behind this one
            context = {"message": "a frame could not be handled", "exception": error}
            self._loop.call_exception_handler(context)

    def _fail(self, reason: str) -> None:
        if self._is_open:
            with contextlib.suppress(OSError):
                self.close()
            self._closed(reason)
