"""Why a choice ended, in the words that this dialect has."""

from __future__ import annotations

from typing import Literal

from modelport.contract.errors import Cancelled, ModelFailed

__all__ = ["finished"]


def finished(reason: str) -> Literal["stop", "length", "tool_calls"]:
    """The finish reason of a choice that ended well.

    Raises:
        ModelportError: for a choice that did not: OpenAI has no finish reason for that, and half an answer must not pass
            for a whole one.
    """
    match reason:
        case "stop" | "length" | "tool_calls":
            return reason
        case "cancelled":
            raise Cancelled("The request was cancelled before the answer was complete.")
        case _:
            raise ModelFailed("The model failed before the answer was complete. Sending the request again may succeed.")
