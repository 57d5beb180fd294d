"""Frames on a socket pair: a few parts of bytes, written in one piece and read as views.

A frame is a prefix (inline bytes that follow, number of parts, kind, number of descriptors), a table of part sizes, and the parts
themselves, each aligned. Parts that are large, or that would make the inline piece large, lie in one anonymous file beside the
frame: memory that is sealed against change where the system can do that, an unlinked temporary file elsewhere.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["FRAME_VERSION", "INLINE_BYTES", "Frame", "FrameError", "FrameReader", "Packed", "pack", "pack_receipt"]

FRAME_VERSION = 1
"""Changes whenever the bytes of a frame or the meaning of its head do."""

INLINE_BYTES = 256 * 1024
"""Most bytes that travel inside the socket; a frame's other parts travel as shared memory."""

_ALIGN = 16
_PREFIX = struct.Struct("<IHBB")
_RECEIPT = struct.Struct("<IHBBQ")
_OUTSIDE = 1 << 63
_DATA, _RECEIPT_KIND = 0, 1
_MAPS_WITHOUT_DESCRIPTOR = sys.version_info[:2] >= (3, 13)

Buffer: TypeAlias = bytes | memoryview


class FrameError(Exception):
    """The other side sent bytes that are no frame, or memory that may not be read."""


class Packed(NamedTuple):
    """A frame ready to be written: its bytes, and the descriptor of what lies outside them, which its owner closes."""

    data: bytes
    file: int | None
    outside_bytes: int


class Frame(NamedTuple):
    """A frame as it was read. `receipt_bytes` is not 0 for a receipt, which has no parts."""

    parts: list[memoryview]
    outside_bytes: int
    receipt_bytes: int = 0


def pack(parts: Sequence[Buffer]) -> Packed:
    """Lays out `parts`; the first is the head.

    Raises:
        ValueError: for more than 65 535 parts.
    """
    if len(parts) > 0xFFFF:
        raise ValueError(f"a frame holds at most 65535 arrays, not {len(parts)}")
    table: list[int] = []
    inside: list[Buffer] = []
    outside: list[Buffer] = []
    position = start = _aligned(_PREFIX.size + 8 * len(parts))
    for part in parts:
        size = len(part)
        if position - start + size > INLINE_BYTES:
            outside.append(part)
            table.append(size | _OUTSIDE)
            continue
        inside.append(part)
        table.append(size)
        position += size
        if gap := -position % _ALIGN:
            inside.append(bytes(gap))
            position += gap
    prefix = _PREFIX.pack(position - _PREFIX.size, len(parts), _DATA, 1 if outside else 0) + struct.pack(
        f"<{len(table)}Q", *table
    )
    data = b"".join([prefix, bytes(start - len(prefix)), *inside])
    if not outside:
        return Packed(data, None, 0)
    return Packed(data, memory_file(outside), sum(_aligned(len(part)) for part in outside))


def pack_receipt(outside_bytes: int) -> Packed:
    """A frame that tells the sender that so many bytes outside frames have arrived."""
    return Packed(_RECEIPT.pack(_RECEIPT.size - _PREFIX.size, 0, _RECEIPT_KIND, 0, outside_bytes), None, 0)


def memory_file(parts: Sequence[Buffer]) -> int:
    """A descriptor of an anonymous file that holds `parts`, aligned, one after the other; sealed where that exists."""
    fd = _anonymous_file()
    try:
        offset = 0
        for part in parts:
            view = memoryview(part)
            end = offset + _aligned(len(view))
            while view:
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written
            offset = end
        os.ftruncate(fd, offset)
        _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


class FrameReader:
    """Puts frames together from whatever pieces of bytes and descriptors arrive. It owns the descriptors given to it."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._files: deque[int] = deque()

    def feed(self, data: bytes, files: Sequence[int] = ()) -> Iterator[Frame]:
        """The frames that `data` completes.

        Raises:
            FrameError: if it is no frame; the reader is of no more use then and should be closed.
        """
        self._files.extend(files)
        self._bytes += data
        while len(self._bytes) >= _PREFIX.size:
            inline, count, kind, files_of_it = _PREFIX.unpack_from(self._bytes)
            end = _PREFIX.size + inline
            if inline > 2 * INLINE_BYTES + 8 * 0xFFFF or files_of_it > 1:
                raise FrameError(f"the other side announced {inline} bytes and {files_of_it} files in one frame")
            if len(self._bytes) < end:
                return
            raw = bytes(memoryview(self._bytes)[:end])
            del self._bytes[:end]
            if kind == _RECEIPT_KIND:
                yield Frame([], 0, _RECEIPT.unpack(raw)[-1])
            else:
                yield self._unpack(raw, count, bool(files_of_it))

    def close(self) -> None:
        """Closes descriptors that no frame has claimed."""
        while self._files:
            os.close(self._files.popleft())

    def _unpack(self, raw: bytes, count: int, has_file: bool) -> Frame:
        sizes = struct.unpack_from(f"<{count}Q", raw, _PREFIX.size)
        outside = sum(_aligned(size & ~_OUTSIDE) for size in sizes if size & _OUTSIDE)
        memory = memoryview(b"")
        if has_file:
            if not self._files:
                raise FrameError("a frame came without the descriptor it announced")
            memory = _open_memory(self._files.popleft(), outside)
        view = memoryview(raw)
        parts: list[memoryview] = []
        inside_at, outside_at = _aligned(_PREFIX.size + 8 * count), 0
        for size in sizes:
            if size & _OUTSIDE:
                size &= ~_OUTSIDE
                parts.append(memory[outside_at : outside_at + size])
                outside_at += _aligned(size)
            else:
                parts.append(view[inside_at : inside_at + size])
                inside_at += _aligned(size)
            if len(parts[-1]) != size:
                raise FrameError("a frame is shorter than its table says")
        return Frame(parts, outside)


def _aligned(size: int) -> int:
    return size + -size % _ALIGN


def _anonymous_file() -> int:
    create = getattr(os, "memfd_create", None)
    if create is not None:
        return int(create("modelport", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    with tempfile.TemporaryFile(prefix="modelport-") as file:
        return os.dup(file.fileno())


def _seal(fd: int) -> None:
    if sys.platform == "linux":
        import fcntl

        # An unlinked file without memfd refuses seals; the reader then copies what it could otherwise map.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)


def _is_sealed(fd: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted
    except OSError:
        return False


def _open_memory(fd: int, size: int) -> memoryview:
    """The first `size` bytes of `fd`, which is closed. Sealed memory is mapped if a mapping keeps no descriptor; all else is
    copied, because an open descriptor for every array in use would exhaust the process, and unsealed memory can change."""
    try:
        if os.fstat(fd).st_size < size:
            raise FrameError("shared memory is smaller than its frame says")
        if _MAPS_WITHOUT_DESCRIPTOR and _is_sealed(fd):
            options = {"access": mmap.ACCESS_READ, "trackfd": False}
            return memoryview(mmap.mmap(fd, size, **options))
        copy = bytearray(size)
        view, offset = memoryview(copy), 0
        while offset < size:
            count = os.preadv(fd, [view[offset:]], offset)
            if count <= 0:
                raise FrameError("shared memory ended before its frame did")
            offset += count
        return view.toreadonly()
    finally:
        os.close(fd)
