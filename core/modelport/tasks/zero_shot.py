"""Texts under labels that the request brings."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Task
from modelport.tasks.labels import refuse_labels
from modelport.tasks.text import LabelScore

__all__ = ["MOST_HYPOTHESES", "ZERO_SHOT_CLASSIFICATION", "ZeroShotRequest", "ZeroShotResult"]

MOST_HYPOTHESES = 2048
"""Most pairs of a text and a label of one request; the model reads each."""


class ZeroShotRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts, and labels for them that the model was not trained for.

    Args:
        inputs: One text or several.
        candidate_labels: The labels, from 1 to 1000.
        hypothesis_template: The sentence that is judged of each text; `{}` in it stands for the label.
        multi_label: Whether several labels may be true of a text: then each has a probability of its own. Else those of one
            text add up to 1.
    """

    inputs: str | list[str]
    candidate_labels: list[str]
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False

    def __post_init__(self) -> None:
        refuse_labels(self.candidate_labels, self.hypothesis_template)
        pairs = len(self.candidate_labels) * (1 if isinstance(self.inputs, str) else len(self.inputs))
        if pairs > MOST_HYPOTHESES:
            raise InvalidRequest(
                f"inputs and candidate_labels make {pairs} pairs, and a request holds at most {MOST_HYPOTHESES}. Send several"
                " requests.",
                param="inputs",
            )


class ZeroShotResult(msgspec.Struct, kw_only=True):
    """The labels of each input, best first."""

    results: list[list[LabelScore]]


ZERO_SHOT_CLASSIFICATION: Task[ZeroShotRequest, ZeroShotResult, Any] = Task(
    "zero-shot-classification", ZeroShotRequest, ZeroShotResult, summary="Texts to labels of the request's own"
)
