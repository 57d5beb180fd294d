"""Stop strings in a growing text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopStrings", "held_suffix"]


def held_suffix(text: str, needles: Sequence[str]) -> int:
    """The length of the longest end of `text` that is a proper beginning of one of `needles`.

    >>> held_suffix("one tw", ["two", "six"])
    2
    """
    longest = max((len(needle) for needle in needles), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        tail = text[-size:]
        if any(needle.startswith(tail) and len(needle) > size for needle in needles):
            return size
    return 0


class StopStrings:
    """Watches for the first of several texts. What may still become one of them is held back.

    Attributes:
        matched: The text that ended the output, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """What can be shown of the text so far and has not been; after a match nothing more."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.matched = min(found)
            self._held = ""
            return text[:at]
        size = held_suffix(text, self._stops)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def finish(self) -> str:
        """What was held back: the output has ended, so it is no stop string after all."""
        held, self._held = self._held, ""
        return held
