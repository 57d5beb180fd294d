"""The sampling parameters of a request, checked, in the engine's words. Pure."""

from __future__ import annotations

from typing import Any

from modelport.contract import InvalidRequest, Sampling
from modelport.tasks.text import GenerationRequest

__all__ = ["check", "check_ranges", "sampling_of"]

_RANGES: tuple[tuple[str, float | None, float | None, bool], ...] = (
    ("max_new_tokens", 0, None, False),
    ("min_new_tokens", 0, None, False),
    ("temperature", 0, None, False),
    ("top_p", 0, 1, True),
    ("min_p", 0, 1, False),
    ("typical_p", 0, 1, True),
    ("top_k", 0, None, False),
    ("repetition_penalty", 0, None, True),
    ("no_repeat_ngram_size", 0, None, False),
    ("num_beams", 1, None, False),
    ("presence_penalty", -2, 2, False),
    ("frequency_penalty", -2, 2, False),
    ("n", 1, 128, False),
)
"""Field, least, most, and whether the least itself is excluded."""

_COLD = 1e-5
"""Below it a temperature is nought: logits divided by it leave what float32 can hold."""

_CHOOSES = ("temperature", "top_p", "top_k", "min_p", "typical_p")

_NEUTRAL: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "num_beams": 1,
    "ignore_eos": False,
    "min_new_tokens": 0,
}
"""Values that ask for nothing: they are dropped, so that an engine without the parameter serves them too."""


def check(request: GenerationRequest, vocabulary: int) -> None:
    """Checks everything that needs no text.

    Raises:
        InvalidRequest: naming the field, its value and what it can be.
    """
    check_ranges(request)
    if (request.prompt is None) == (request.messages is None):
        both = "both were given" if request.prompt is not None else "neither was given"
        raise InvalidRequest(f"Exactly one of prompt and messages is needed; {both}.", param="prompt")
    for index, stop in enumerate(request.stop or ()):
        if not stop:
            raise InvalidRequest("A stop text is empty; leave it out.", param=f"stop.{index}")
    for token in request.logit_bias or ():
        if not 0 <= token < vocabulary:
            raise InvalidRequest(
                f"logit_bias names token {token}, which is outside the model's vocabulary of {vocabulary} tokens.",
                param="logit_bias",
            )


def check_ranges(given: Any, prefix: str = "") -> None:
    """Checks every number of `given` that is named as a sampling parameter is; `prefix` leads to it from the request.

    Raises:
        InvalidRequest: naming the field, its value and what it can be.
    """
    for name, least, most, excluded in _RANGES:
        value = getattr(given, name, None)
        if value is None:
            continue
        too_small = least is not None and (value <= least if excluded else value < least)
        if too_small or (most is not None and value > most) or value != value:
            bound = f"{'more than' if excluded else 'at least'} {least}" + (f" and at most {most}" if most is not None else "")
            raise InvalidRequest(f"{name} is {value}; it must be {bound}.", param=f"{prefix}{name}")


def sampling_of(request: GenerationRequest, max_new_tokens: int) -> Sampling:
    """The engine's parameters. Asking for a temperature or a filter asks for sampling, unless `do_sample` says otherwise."""
    fields: dict[str, Any] = {
        name: value
        for name in Sampling.__struct_fields__
        if (value := getattr(request, name, None)) is not None and _NEUTRAL.get(name, ...) != value
    }
    if not fields.get("logit_bias"):
        fields.pop("logit_bias", None)
    if request.temperature is not None and request.temperature < _COLD:
        fields.pop("temperature", None)
        fields["do_sample"] = False
    elif request.do_sample is None and any(getattr(request, name) is not None for name in _CHOOSES):
        fields["do_sample"] = True
    return Sampling(**{**fields, "max_new_tokens": max_new_tokens})
