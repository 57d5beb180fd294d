"""`GenerateParameters` of a request, as engines take them."""

from __future__ import annotations

from pathlib import Path

from modelport.contract.errors import InvalidRequest
from modelport.contract.generate import Sampling
from modelport.tasks.text2text import GenerateParameters
from modelport_hf.folder import read_json
from modelport_hf.sampling import check_ranges

__all__ = ["most_new_tokens", "sampling_of_parameters"]


def most_new_tokens(folder: Path) -> int | None:
    """The checkpoint's own bound of new tokens, from its generation_config.json; None if it has none."""
    own = read_json(folder, "generation_config.json") or {}
    most = own.get("max_new_tokens") or (own["max_length"] - 1 if own.get("max_length") else None)
    return most if isinstance(most, int) else None


def sampling_of_parameters(given: GenerateParameters, most: int | None) -> Sampling:
    """The engine's parameters; `most` is the checkpoint's own bound of new tokens.

    Raises:
        InvalidRequest: if a number is out of range, two bounds are given that say the same thing, or one leaves no token.
    """
    check_ranges(given, "generate_parameters.")
    if given.max_new_tokens == 0:
        raise InvalidRequest("max_new_tokens is 0; it must be at least 1.", param="generate_parameters.max_new_tokens")
    for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if getattr(given, new) is not None and getattr(given, whole) is not None:
            raise InvalidRequest(f"{new} and {whole} say the same thing; give one of them.", param=f"generate_parameters.{whole}")
    if given.max_length is not None and given.max_length < 2:
        raise InvalidRequest(
            f"max_length is {given.max_length}, which leaves no token beside the one that the decoder starts from; at least 2.",
            param="generate_parameters.max_length",
        )
    fields = {name: value for name in Sampling.__struct_fields__ if (value := getattr(given, name, None)) is not None}
    if given.max_length is not None:
        fields["max_new_tokens"] = given.max_length - 1
    if given.min_length is not None:
        fields["min_new_tokens"] = max(given.min_length - 1, 0)
    if most is not None:
        fields.setdefault("max_new_tokens", most)
    return Sampling(**fields)
