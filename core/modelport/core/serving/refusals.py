"""The sentences in which a model that is not there is refused."""

from __future__ import annotations

from modelport.contract.errors import Unavailable

__all__ = ["load_failed", "not_yet", "shutting_down"]


def shutting_down() -> Unavailable:
    """The server takes no more."""
    return Unavailable("The server is shutting down. Ask another one, or try again later.", retry_after_s=5.0)


def load_failed(model: str, cause: str, retry_in_s: float) -> Unavailable:
    """The last load failed, and `retry_in_s` must pass before another is tried."""
    cause = cause if cause.endswith((".", "!", "?")) else f"{cause}."
    return Unavailable(
        f"The model {model!r} could not be loaded: {cause} A request after {max(retry_in_s, 0.0):.0f} s tries again.",
        retry_after_s=max(retry_in_s, 1.0),
    )


def not_yet(model: str, state: str, what: str, fraction: float, elapsed_s: float) -> Unavailable:
    """A load takes longer than a request may wait; when to come back follows from how far it got."""
    left_s = elapsed_s * (1 - fraction) / fraction if fraction > 0 else 5.0
    return Unavailable(
        f"The model {model!r} is {state}: {what}, {fraction:.0%} done. Try again later; the load goes on.",
        retry_after_s=min(max(left_s, 1.0), 60.0),
    )
