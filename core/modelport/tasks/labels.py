"""Labels that a request brings, for models that were not trained for them."""

from __future__ import annotations

from modelport.contract.errors import InvalidRequest

__all__ = ["MOST_LABELS", "refuse_labels"]

MOST_LABELS = 1000
"""Most labels of one request."""


def refuse_labels(labels: list[str], template: str = "{}") -> None:
    """Returns if there are labels, not too many, each says something, and the template has a place for them.

    Raises:
        InvalidRequest: naming `candidate_labels`, one of them by its place, or `hypothesis_template`.
    """
    if not labels:
        raise InvalidRequest("candidate_labels is empty; give at least one label.", param="candidate_labels")
    if len(labels) > MOST_LABELS:
        raise InvalidRequest(
            f"candidate_labels has {len(labels)} labels, and a request holds at most {MOST_LABELS}. Send several requests.",
            param="candidate_labels",
        )
    for index, label in enumerate(labels):
        if not label.strip():
            raise InvalidRequest("The label is empty; give at least one word.", param=f"candidate_labels.{index}")
    if "{}" not in template:
        raise InvalidRequest(
            "hypothesis_template has no {}, where the label would go; without it all labels mean the same.",
            param="hypothesis_template",
        )
