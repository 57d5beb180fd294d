"""Detectors whose labels come with the request: OWL-ViT, OWLv2, and Grounding DINO."""

from __future__ import annotations

from collections.abc import Mapping

from modelport.contract import (
    ArraySpec,
    Claim,
    ConfigurationError,
    Forward,
    ModelCard,
    Module,
    Output,
    Program,
    Session,
    SessionContext,
)
from modelport_hf.folder import has_tokenizer
from modelport_hf.heads import head_of
from modelport_hf.image_processor import fixed_size

__all__ = ["claim", "is_owl", "programs", "session"]

_TASK = "zero-shot-object-detection"
_WIDTH = 512
"""Of what OWL makes of a label, where config.json does not say."""


def is_owl(card: ModelCard) -> bool:
    """Whether each label is read on its own, and compared with every patch of the image."""
    return card.model_type in ("owlvit", "owlv2")


def claim(card: ModelCard) -> Claim | None:
    """A detector that has a tokenizer beside it."""
    if head_of(card.architectures) != _TASK or not has_tokenizer(card.files):
        return None
    return Claim((_TASK,), 100, f"{card.architectures[0]} finds what the request names")


def programs(card: ModelCard) -> Mapping[str, Program]:
    """For OWL an entry that reads a label and one that looks for what was read; else one that does both.

    Raises:
        ConfigurationError: for OmDet-Turbo.
    """
    if card.model_type == "omdet-turbo":
        raise ConfigurationError(
            f"Model {card.name!r} is an OmDet-Turbo, whose boxes are sorted out by torchvision, which this skill does without."
            " Serve an OWLv2 or a Grounding DINO checkpoint instead."
        )
    size = fixed_size(card) or ("height", "width")
    pixels = ArraySpec("pixel_values", "float32", ("batch", 3, *size))
    wanted = (Output("logits"), Output("pred_boxes"))
    if not is_owl(card):
        texts = tuple(ArraySpec(name) for name in ("input_ids", "token_type_ids", "attention_mask"))
        mask = ArraySpec("pixel_mask", "int64", ("batch", "height", "width"))
        return {_TASK: Program({"main": Forward(head=_TASK, inputs=(pixels, *texts, mask), outputs=wanted)})}
    build = "modelport_skill_multimodal.owl:build"
    width = card.config.get("projection_dim")
    queries = (
        ArraySpec("query_embeds", "float32", ("batch", "queries", width if isinstance(width, int) else _WIDTH)),
        ArraySpec("query_mask", "int64", ("batch", "queries")),
    )
    texts = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"))
    return {
        _TASK: Program(
            {
                "text": Module(build=build, inputs=texts, outputs=(Output("embedding"),)),
                "main": Module(build=build, inputs=(pixels, *queries), outputs=wanted),
            }
        )
    }


def session(context: SessionContext) -> Session:
    """The session of the kind of detector."""
    from modelport_skill_multimodal.open_vocabulary_session import GroundingSession, OwlSession

    return OwlSession(context) if is_owl(context.card) else GroundingSession(context)
