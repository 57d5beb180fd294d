"""In what the NPU computes: float16, or whole numbers of 16 or 8 bits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelport.contract.errors import ConfigurationError

__all__ = ["DTYPES", "FLOAT", "INTEGERS", "Precision", "precision_of"]

FLOAT = "float16"
INTEGERS = ("int16", "int8")
DTYPES = (FLOAT, *INTEGERS)
"""What `dtype` may name: the type of activations."""

_WEIGHTS = {"int16": ("int8", "int16"), "int8": ("int8",)}


class Precision(msgspec.Struct, frozen=True):
    """The types of a compiled model's activations and weights."""

    activations: str = FLOAT
    weights: str = FLOAT

    @property
    def is_quantised(self) -> bool:
        return self.activations in INTEGERS


def precision_of(dtype: str, options: Mapping[str, Any]) -> Precision:
    """What `dtype` and `backends.qnn.weights` ask for; anything but a type of whole numbers is float16.

    Raises:
        ConfigurationError: weights of a type that does not go with the activations'.
    """
    given = options.get("weights")
    if dtype not in INTEGERS:
        if given is not None:
            raise ConfigurationError(
                f'backends.qnn.weights is {given!r}, and weights are quantised together with activations: set dtype = "int16" or '
                '"int8" of the model as well.',
                param="weights",
            )
        return Precision()
    weights = "int8" if given is None else given
    if weights not in _WEIGHTS[dtype]:
        raise ConfigurationError(
            f"backends.qnn.weights is {given!r}; with dtype {dtype} it may be {' or '.join(_WEIGHTS[dtype])}.", param="weights"
        )
    return Precision(activations=dtype, weights=weights)
