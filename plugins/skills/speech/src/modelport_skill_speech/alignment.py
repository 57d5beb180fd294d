"""When each word was said: from the attention of Whisper's decoder to what it heard, by dynamic time warping."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["times_of_tokens", "warp", "words_of"]

_STEP_S = 0.02
_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_BEFORE, _AFTER = "\"'“¡¿([{-", "\"'.。,，!！?？:：”)]}、"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def times_of_tokens(attention: np.ndarray, width: int = 7) -> np.ndarray:
    """When each token ends, in seconds from the window's begin.

    Args:
        attention: (heads, tokens - 1, steps) of 20 ms: row i is where the decoder looked with token i as its latest. It is told
            nothing of the last token, which gets the time of the one before it.
        width: Of the median that smooths it; odd.

    Returns:
        float64 (tokens,).
    """
    _, rows, steps = attention.shape
    if rows == 0 or steps == 0:
        return np.zeros(rows + 1)
    weights = attention.astype(np.float64)
    weights = (weights - weights.mean(axis=-2, keepdims=True)) / np.maximum(weights.std(axis=-2, keepdims=True), 1e-12)
    if steps > width // 2:
        padded = np.pad(weights, ((0, 0), (0, 0), (width // 2, width // 2)), mode="reflect")
        weights = np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)
    row_of, step_of = warp(-weights.mean(axis=0))
    begins = np.flatnonzero(np.diff(row_of, prepend=-1))
    times = step_of[begins] * _STEP_S
    return np.append(times, times[-1])


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path through `cost` (rows, columns) from one corner to the other, as indices of rows and of columns.

    Of steps that cost the same, one of the column alone is taken before one of the row, and that before both, unless both are
    strictly cheapest. Computed diagonal by diagonal, which do not depend on themselves.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    total[0, 0] = 0
    trace = np.zeros((rows + 1, columns + 1), np.int8)
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, row, column = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        way = np.where((both < row) & (both < column), 0, np.where((row < both) & (row < column), 1, 2))
        total[i, j] = cost[i - 1, j - 1] + np.choose(way, (both, row, column))
        trace[i, j] = way
    trace[0, :], trace[:, 0] = 2, 1
    i, j = rows, columns
    path = []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        way = trace[i, j]
        i, j = i - (way != 2), j - (way != 1)
    found = np.array(path[::-1])
    return found[:, 0], found[:, 1]


def words_of(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], language: str) -> list[tuple[str, list[int]]]:
    """The words that tokens of text make up, each with the places of its tokens; marks go with the word that they belong to.

    Args:
        language: Its code. Where words are not set apart by spaces, each character is one.
    """
    words: list[tuple[str, list[int]]] = []
    for text, places in _characters(tokens, decode):
        opens = text.startswith(" ") or text.strip() in _PUNCTUATION or language in _NO_SPACES or not words
        if opens:
            words.append((text, places))
        else:
            before, earlier = words[-1]
            words[-1] = before + text, earlier + places
    return _with_marks(words)


def _characters(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[str, list[int]]]:
    """Tokens that are whole characters only together, put together."""
    found: list[tuple[str, list[int]]] = []
    whole, done, places = decode(tokens), 0, list[int]()
    for place in range(len(tokens)):
        places.append(place)
        text = decode([tokens[at] for at in places])
        broken = text.find("\ufffd")
        if broken < 0 or whole[done + broken : done + broken + 1] == "\ufffd":
            found.append((text, places))
            done += len(text)
            places = []
    return found


def _with_marks(words: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    led: list[tuple[str, list[int]]] = []
    for text, places in reversed(words):
        if led and text.startswith(" ") and text.strip() in _BEFORE:
            after, later = led[-1]
            led[-1] = text + after, places + later
        else:
            led.append((text, places))
    joined: list[tuple[str, list[int]]] = []
    for text, places in reversed(led):
        if joined and not joined[-1][0].endswith(" ") and text in _AFTER:
            before, earlier = joined[-1]
            joined[-1] = before + text, earlier + places
        else:
            joined.append((text, places))
    return joined
