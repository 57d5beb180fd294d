"""JSON schemas made at random, for engines that hold output to one."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["random_schema"]

_SCALARS = ("string", "integer", "boolean", "null", "enum", "const")


def random_schema(draw: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema, at most `depth` levels deep, whose instances are short: texts, lists and integers are bounded."""
    kind = draw.choice([*_SCALARS, *(["object", "object", "array", "anyOf"] if depth else [])])
    if kind == "string":
        return {"type": "string", "minLength": draw.randint(0, 2), "maxLength": draw.randint(2, 8)}
    if kind == "integer":
        low = draw.randint(-50, 50)
        return {"type": kind, "minimum": low, "maximum": low + draw.randint(0, 99)}
    if kind == "enum":
        return {"enum": draw.sample(["red", 7, None, True, "ünïcödé", "with space", 2.5], 3)}
    if kind == "const":
        return {"const": draw.choice(["fixed", 12, False, ["a", 1]])}
    if kind == "anyOf":
        return {"anyOf": [random_schema(draw, depth - 1) for _ in range(2)]}
    if kind == "array":
        return {"type": "array", "items": random_schema(draw, depth - 1), "minItems": draw.randint(0, 1), "maxItems": 2}
    if kind == "object":
        names = [f"k{index}" for index in range(draw.randint(1, 3))]
        return {
            "type": "object",
            "properties": {name: random_schema(draw, depth - 1) for name in names},
            "required": draw.sample(names, draw.randint(0, len(names))),
            "additionalProperties": False,
        }
    return {"type": kind}
