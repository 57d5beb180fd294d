"""Keys and values of all running sequences: one row each, in buffers that are written in place.

With `masks` this is all that knows transformers' cache: a model calls `update` in every layer and gets what to attend to.
Rows are dense (0 … running-1), a sequence starts at column 0 of its row, and the engine tells before each forward where
the new tokens go. What lies behind a row's length is finite garbage, which masks hide.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import torch
from transformers.cache_utils import Cache

__all__ = ["CacheLost", "SlotCache"]

_BLOCK = 64


class CacheLost(MemoryError):
    """The cache could not grow, and what it held is gone."""


class SlotCache(Cache):  # type: ignore[misc]
    """A cache of rows, grown in blocks, never copied while nothing outgrows it.

    Args:
        max_rows: Most rows.
        max_tokens: Most rows × columns, whatever rounding would like.

    Attributes:
        generation: Another number as soon as a buffer lies elsewhere than before.
    """

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        super().__init__(layers=[])
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._keys: list[torch.Tensor | None] = []
        self._values: list[torch.Tensor | None] = []
        self._rows = 0
        self._columns = 0
        self.generation = 0
        # The place of the coming forward: rows [first, first + count), columns [start, start + width), or one column per row.
        self._first = self._count = self._start = self._width = 0
        self._scatter: torch.Tensor | None = None

    # ------------------------------------------------------------------------------------------ said by the engine

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that there is memory for now."""
        return self._rows, self._columns

    def bytes_per_token(self) -> int:
        """Bytes of one column of one row over all layers; 0 before the first forward."""
        return sum(b[0, 0].numel() * b.element_size() for b in (*self._keys, *self._values) if b is not None)

    def reserve(self, rows: int, columns: int) -> None:
        """Makes room for `rows` × `columns`, which must cover all that is in use. Grows by halves, so that it happens seldom.

        Raises:
            CacheLost: if there is no memory; every row is gone then.
        """
        if rows <= self._rows and columns <= self._columns:
            return
        more_rows = max(self._rows, rows if rows <= self._rows else min(1 << (rows - 1).bit_length(), self._max_rows))
        more_columns = self._columns
        if columns > self._columns:
            more_columns = -(-max(columns, self._columns * 3 // 2) // _BLOCK) * _BLOCK
        if more_rows * more_columns > self._max_tokens:
            more_rows, more_columns = rows, -(-columns // _BLOCK) * _BLOCK
        kept = min(self._rows, more_rows), min(self._columns, more_columns)
        try:
            for buffers in (self._keys, self._values):
                for index, old in enumerate(buffers):
                    if old is not None:
                        # One at a time, so that one only is held twice.
                        new = _zeros(old, more_rows, more_columns, *old.shape[2:])
                        new[: kept[0], : kept[1]] = old[: kept[0], : kept[1]]
                        buffers[index] = new
                        self.generation += 1
        except (RuntimeError, MemoryError, OSError) as error:
            self.release()
            raise CacheLost(f"no memory for a cache of {more_rows} × {more_columns} tokens") from error
        self._rows, self._columns = more_rows, more_columns

    def release(self) -> None:
        """Gives all memory back."""
        self._keys, self._values = [], []
        self._rows = self._columns = 0
        self.generation += 1

    def at_rows(self, first: int, count: int, start: int, width: int) -> None:
        """The coming forward fills columns `start` … `start + width` of `count` rows from `first` on: a prefill."""
        self._first, self._count, self._start, self._width = first, count, start, width
        self._scatter = None

    def at_ends(self, lengths: list[int], device: torch.device) -> None:
        """The coming forward adds one token to each of the rows 0 … n, which hold `lengths` tokens."""
        self.at_places(torch.tensor(self.places(lengths), device=device), max(lengths) + 1)

    def places(self, lengths: list[int]) -> list[int]:
        """Where the next token of each of the rows 0 … n goes, which hold `lengths` tokens: row × columns + column."""
        return [row * self._columns + length for row, length in enumerate(lengths)]

    def at_places(self, places: torch.Tensor, width: int) -> None:
        """The coming forward adds a token to each of the rows 0 … n at `places`, and looks at the first `width` columns."""
        self._first, self._count, self._start, self._width = 0, len(places), width - 1, 1
        self._scatter = places

    def copy(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes a copy of the first `length` tokens of row `source`."""
        if source == target:
            return
        for buffer in (*self._keys, *self._values):
            if buffer is not None:
                buffer[target, :length] = buffer[source, :length]

    def read(self, row: int, length: int) -> list[torch.Tensor]:
        """Copies of the first `length` tokens of `row`, (length, heads, width) for each buffer."""
        return [buffer[row, :length].clone() for buffer in (*self._keys, *self._values) if buffer is not None]

    def write(self, row: int, states: list[torch.Tensor], length: int) -> None:
        """The first `length` tokens of what `read` gave become those of `row`."""
        half = len(states) // 2
        for buffers, found in ((self._keys, states[:half]), (self._values, states[half:])):
            for layer, state in enumerate(found):
                while len(buffers) <= layer:
                    buffers.append(None)
                buffer = buffers[layer]
                if buffer is None:
                    buffer = buffers[layer] = _zeros(state, self._rows, self._columns, *state.shape[1:])
                    self.generation += 1
                buffer[row, :length] = state[:length]

    # ------------------------------------------------------------------------------------------ asked by the model

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes new keys and values, (batch, heads, new, width) each, and returns those that the new tokens may attend to."""
        while len(self._keys) <= layer_idx:
            self._keys.append(None)
            self._values.append(None)
        keys = self._write(self._keys, layer_idx, key_states)
        values = self._write(self._values, layer_idx, value_states)
        return keys, values

    def _write(self, buffers: list[torch.Tensor | None], layer: int, new: torch.Tensor) -> torch.Tensor:
        buffer = buffers[layer]
        if buffer is None:
            buffer = buffers[layer] = _zeros(new, self._rows, self._columns, new.shape[1], new.shape[3])
            self.generation += 1
        if self._scatter is not None:
            buffer.view(-1, *buffer.shape[2:]).index_copy_(0, self._scatter, new[:, :, 0])
        else:
            rows = buffer[self._first : self._first + self._count]
            rows[:, self._start : self._start + self._width] = new.transpose(1, 2)
            if self._start == 0:
                return new
        end = self._start + self._width
        return buffer[self._first : self._first + self._count, :end].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the new ones; of the longest row, if they differ (then masks are given)."""
        return self._start

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """(keys, offset of the first) for masks that transformers makes itself."""
        return self._start + self._width, 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_sliding(self) -> list[bool]:
        """No layer forgets: sliding windows are a matter of masks here."""
        return [False] * max(len(self._keys), 1)

    def __len__(self) -> int:
        return len(self._keys)


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Zeros, for a masked NaN would still be a NaN, of the type of `like` and where it lies.

    In the host's memory they cost nothing until they are written to: the system gives pages of zeros as they are touched, and
    most of a rectangle of rows never is.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * like.element_size()), dtype=like.dtype).view(shape)
