"""Questions about pages, answered by words of the page: LayoutLM and LayoutLMv3."""

from __future__ import annotations

from collections.abc import Mapping

from modelport.contract import ArraySpec, Claim, ConfigurationError, Forward, ModelCard, Output, Program, Session, SessionContext
from modelport_hf.folder import has_tokenizer
from modelport_hf.heads import head_of
from modelport_hf.image_processor import fixed_size

__all__ = ["claim", "programs", "sees", "session"]

_TASK = "document-question-answering"


def claim(card: ModelCard) -> Claim | None:
    """A reader of pages."""
    if head_of(card.architectures) != _TASK or not has_tokenizer(card.files):
        return None
    return Claim((_TASK,), 100, f"{card.architectures[0]} finds answers among the words of a page")


def sees(card: ModelCard) -> bool:
    """Whether the model takes the page's image beside its words."""
    return card.model_type == "layoutlmv3"


def programs(card: ModelCard) -> Mapping[str, Program]:
    """One forward over question, words and boxes, and the image where the model takes it.

    Raises:
        ConfigurationError: for LayoutLMv2.
    """
    if card.model_type == "layoutlmv2":
        raise ConfigurationError(
            f"Model {card.name!r} is a LayoutLMv2, which sees by way of detectron2, a library that is not published as a package."
            " Serve a LayoutLM or LayoutLMv3 checkpoint instead."
        )
    inputs = [ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"), ArraySpec("bbox", axes=("batch", "sequence", 4))]
    if sees(card):
        size = fixed_size(card) or ("height", "width")
        inputs.append(ArraySpec("pixel_values", "float32", ("batch", 3, *size)))
    else:
        inputs.append(ArraySpec("token_type_ids"))
    outputs = (Output("start_logits"), Output("end_logits"))
    return {_TASK: Program({"main": Forward(head=_TASK, inputs=tuple(inputs), outputs=outputs)})}


def session(context: SessionContext) -> Session:
    """The session of such a model."""
    from modelport_skill_multimodal.documents_session import DocumentsSession

    return DocumentsSession(context)
