"""Answers as JSON: arrays as nested lists, or as {dtype, shape, data: base64}."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from litestar import Response

from modelport.contract.task import encode_hook

__all__ = ["encoder", "json_reply"]


def _nested_lists(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else encode_hook(value)


_ENCODERS = {"lists": msgspec.json.Encoder(enc_hook=_nested_lists), "base64": msgspec.json.Encoder(enc_hook=encode_hook)}


def encoder(arrays: Literal["lists", "base64"]) -> msgspec.json.Encoder:
    """The encoder that writes arrays so."""
    return _ENCODERS[arrays]


def json_reply(value: Any, arrays: Literal["lists", "base64"] = "lists", status: int = 200) -> Response[bytes]:
    """`value` as a response."""
    return Response(_ENCODERS[arrays].encode(value), status_code=status, media_type="application/json")
