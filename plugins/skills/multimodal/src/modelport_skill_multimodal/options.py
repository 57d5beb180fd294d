"""What the configuration may say of a model that this skill serves."""

from __future__ import annotations

from modelport.contract import ConfigurationError, SessionContext

__all__ = ["NEW_TOKENS", "whole_number"]

NEW_TOKENS = 256
"""Most tokens of a text, where neither the request nor the checkpoint says."""


def whole_number(context: SessionContext, name: str, default: int) -> int:
    """`models.NAME.options.<name>`.

    Raises:
        ConfigurationError: if it is not a whole number above 0.
    """
    card = context.card
    value = context.options.get(name, card.options.get(name, default))
    if not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"models.{card.name}.options.{name} is {value!r}; it must be a whole number above 0.",
            param=f"models.{card.name}.options.{name}",
        )
    return value
