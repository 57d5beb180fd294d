"""Splits what a model thinks from what it says. Pure."""

from __future__ import annotations

from modelport_hf.stop import held_suffix

__all__ = ["ReasoningSplitter", "thinks"]

OPEN, CLOSE = "<think>", "</think>"


def thinks(template: str) -> bool:
    """Whether a chat template knows `<think>`; only then is it a marker and not text."""
    return CLOSE in template or OPEN in template


class ReasoningSplitter:
    """Divides a growing text at `<think>` and `</think>`. Only thinking at the very beginning counts.

    Args:
        prompt: The rendered prompt: templates that open the thinking themselves end with `<think>`.
    """

    def __init__(self, prompt: str) -> None:
        self._state = "inside" if prompt.rstrip().endswith(OPEN) else "start"
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """(reasoning, content) that `text` completes."""
        if self._state == "content":
            return "", text
        text = self._held + text
        self._held = ""
        if self._state == "start":
            stripped = text.lstrip()
            if stripped.startswith(OPEN):
                self._state, text = "inside", stripped[len(OPEN) :]
            elif OPEN.startswith(stripped):  # also when there is only white space so far
                self._held = text
                return "", ""
            else:
                self._state = "content"
                return "", text
        if self._state == "inside":
            reasoning, found, rest = text.partition(CLOSE)
            if not found:
                size = held_suffix(text, (CLOSE,))
                self._held = text[len(text) - size :]
                return text[: len(text) - size], ""
            self._state = "gap"
            return reasoning, self._gap(rest)
        return "", self._gap(text)

    def finish(self) -> tuple[str, str]:
        """(reasoning, content) that was held back."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "inside" else ("", held)

    def _gap(self, text: str) -> str:
        """Leaves out the empty lines between thought and answer."""
        text = text.lstrip("\n")
        if text:
            self._state = "content"
        return text
