"""What embeddings have in common: the inputs of a request, and the length and width that it asks for. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelport.contract.errors import InvalidRequest

__all__ = ["inputs_of", "refuse_dimensions", "shortened", "unit"]


def inputs_of(inputs: str | Sequence[str | int | list[int]]) -> list[tuple[str | list[int], str]]:
    """Each input, a text or its token ids, with the name of its field. Numbers alone are the ids of one input.

    Raises:
        InvalidRequest: if there is none, or single ids are mixed with texts or lists.
    """
    if isinstance(inputs, str):
        return [(inputs, "inputs")]
    if not inputs:
        raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
    ids = [value for value in inputs if isinstance(value, int)]
    if len(ids) == len(inputs):
        return [(ids, "inputs")]
    found: list[tuple[str | list[int], str]] = []
    for index, value in enumerate(inputs):
        if isinstance(value, int):
            raise InvalidRequest(
                "inputs mixes single token ids with texts or lists; give texts, or one list of ids per input.",
                param=f"inputs.{index}",
            )
        found.append((value, f"inputs.{index}"))
    return found


def refuse_dimensions(dimensions: int | None) -> None:
    """Returns if there can be embeddings of so many numbers.

    Raises:
        InvalidRequest: if not.
    """
    if dimensions is not None and dimensions < 1:
        raise InvalidRequest(f"dimensions is {dimensions}; it must be at least 1.", param="dimensions")


def shortened(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first `dimensions` of each of the vectors (inputs, width); None leaves them as they are.

    Raises:
        InvalidRequest: if they have fewer.
    """
    if dimensions is not None and dimensions > vectors.shape[1]:
        raise InvalidRequest(
            f"dimensions is {dimensions}, and this model's embeddings have {vectors.shape[1]}.", param="dimensions"
        )
    return vectors[:, :dimensions]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (…, width) at length 1; nothing stays nothing."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
