"""Questions about images, answered by one of the answers that the model was trained for: ViLT."""

from __future__ import annotations

from collections.abc import Mapping

from modelport.contract import ArraySpec, Claim, Forward, ModelCard, Output, Program, Session, SessionContext
from modelport_hf.folder import has_tokenizer
from modelport_hf.heads import head_of

__all__ = ["claim", "programs", "session"]

_TASK = "visual-question-answering"


def claim(card: ModelCard) -> Claim | None:
    """A model that has answers for labels."""
    if head_of(card.architectures) != _TASK or not has_tokenizer(card.files):
        return None
    return Claim((_TASK,), 100, f"{card.architectures[0]} chooses among the answers that it was trained for")


def programs(card: ModelCard) -> Mapping[str, Program]:
    """One forward over question and image."""
    texts = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"), ArraySpec("token_type_ids"))
    images = (
        ArraySpec("pixel_values", "float32", ("batch", 3, "height", "width")),
        ArraySpec("pixel_mask", "int64", ("batch", "height", "width")),
    )
    return {_TASK: Program({"main": Forward(head=_TASK, inputs=(*texts, *images), outputs=(Output("logits"),))})}


def session(context: SessionContext) -> Session:
    """The session of such a model."""
    from modelport_skill_multimodal.questions_session import QuestionsSession

    return QuestionsSession(context)
