"""How large an image may be, by configuration."""

from __future__ import annotations

from modelport.contract import ConfigurationError, SessionContext
from modelport_hf.media import MOST_PIXELS

__all__ = ["most_pixels"]


def most_pixels(context: SessionContext) -> int:
    """The most pixels of an image: `options.max_pixels`, else 50 million.

    Raises:
        ConfigurationError: if the option is not a number above 0.
    """
    card = context.card
    most = context.options.get("max_pixels", card.options.get("max_pixels", MOST_PIXELS))
    if not isinstance(most, int) or most < 1:
        raise ConfigurationError(
            f"models.{card.name}.options.max_pixels is {most!r}; it must be a whole number above 0.",
            param=f"models.{card.name}.options.max_pixels",
        )
    return most
