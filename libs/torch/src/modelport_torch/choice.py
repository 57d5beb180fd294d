"""Whether to compile, and for which shapes: the option, the plan and the decision, in numbers and names only. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Entry, Forward, Generate, Module

__all__ = ["Choice", "Plan", "bucket", "compile_option", "decide", "plan"]

Choice = Literal["off", "on", "auto"]
"""`on` compiles, and fails to load where that fails; `auto` keeps what was measured to be faster when the model was loaded."""

_CHOICES = ("off", "on", "auto")
_WORTH = 0.95
_LEAST_LENGTH = 32
_MOST_LENGTH = 8192
_ROWS = 8


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How the forwards of a program are compiled.

    Args:
        graphs: Whether what was compiled is replayed as graphs, which have fixed shapes.
        shapes: With graphs, the (rows, length) to make one for, ascending; batches of other shapes run as they are.
        pads: Whether batches are to be padded to `shapes`; if not, lengths mean nothing.
        without_graphs: Why there are none, as the end of a sentence.
    """

    graphs: bool = False
    shapes: tuple[tuple[int, int], ...] = ()
    pads: bool = False
    without_graphs: str = ""


def compile_option(options: Mapping[str, Any], backend: str) -> Choice:
    """The option `compile` of a backend.

    Raises:
        ConfigurationError: if it is none of those that there are.

    >>> compile_option({}, "cuda"), compile_option({"compile": "auto"}, "cuda")
    ('off', 'auto')
    """
    given = options.get("compile", "off")
    if given not in _CHOICES:
        raise ConfigurationError(
            f"backends.{backend}.compile is {given!r}; it must be one of {', '.join(map(repr, _CHOICES))}.", param="compile"
        )
    return cast("Choice", given)


def plan(entries: Sequence[Entry], device: str, max_items: int, max_length: int | None, max_tokens: int) -> Plan:
    """Graphs where a program's shapes can be counted, on devices that have them; else one compiled form for all shapes.

    Args:
        device: torch's name of the kind of device.
        max_items: Most rows of a batch.
        max_length: Most tokens of a sequence, if that is known.
        max_tokens: Most tokens of a batch, padding included.

    >>> from modelport.contract.program import ArraySpec
    >>> text = Forward(head="feature-extraction", inputs=(ArraySpec("input_ids"),), outputs=())
    >>> plan([text], "cuda", 2, 50, 64).shapes
    ((1, 32), (1, 50), (2, 32))
    """
    if device != "cuda":
        return Plan(without_graphs=f"torch has none on {device}")
    if any(isinstance(entry, Generate) for entry in entries):
        return Plan(without_graphs="the program generates too, and fixed shapes would bind its prompts")
    forwards = [entry for entry in entries if isinstance(entry, Forward | Module)]
    axes = {axis for entry in forwards for spec in entry.inputs for axis in spec.axes if isinstance(axis, str)}
    if unknown := sorted(axes - {"batch", "sequence"}):
        return Plan(without_graphs=f"inputs may have any {unknown[0]}")
    if "sequence" not in axes:
        rows = range(1, min(max_items, _ROWS) + 1)
        return Plan(graphs=True, shapes=tuple((row, 1) for row in rows))
    if not all(any("sequence" in spec.axes for spec in entry.inputs) for entry in forwards):
        return Plan(without_graphs="its entries have no lengths in common")
    if max_length is None:
        return Plan(without_graphs="nothing says how long a sequence may be")
    if max_length > _MOST_LENGTH:
        return Plan(without_graphs=f"sequences may have {max_length} tokens")
    lengths, counts = _doubled(_LEAST_LENGTH, max_length), _doubled(1, max_items)
    shapes = [(count, length) for count in counts for length in lengths if count == 1 or count * length <= max_tokens]
    return Plan(graphs=True, shapes=tuple(shapes), pads=True)


def bucket(shapes: Sequence[tuple[int, int]], rows: int, length: int) -> tuple[int, int]:
    """The smallest of `shapes` that holds so many rows of such a length; ValueError if none does."""
    return min((s for s in shapes if s[0] >= rows and s[1] >= length), key=lambda s: (s[0] * s[1], s))


def decide(wanted: Choice, plain_s: float, compiled_s: float) -> tuple[bool, str]:
    """Whether to use what was compiled, and the two times in words. Under `auto` a gain of less than a twentieth is none.

    >>> decide("auto", 0.0040, 0.0010)
    (True, '1.00 ms instead of 4.00')
    >>> decide("auto", 0.0040, 0.0039)
    (False, '3.90 ms instead of 4.00')
    """
    return wanted == "on" or compiled_s <= _WORTH * plain_s, f"{1000 * compiled_s:.2f} ms instead of {1000 * plain_s:.2f}"


def _doubled(first: int, last: int) -> list[int]:
    """`first`, twice as many, and so on, up to `last`, which is always among them."""
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return [*found, last]
