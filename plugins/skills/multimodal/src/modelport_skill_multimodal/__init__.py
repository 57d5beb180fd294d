"""Multimodal: images and texts together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.multimodal import (
    DOCUMENT_QUESTION_ANSWERING,
    VISUAL_QUESTION_ANSWERING,
    ZERO_SHOT_IMAGE_CLASSIFICATION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from modelport.tasks.text import FEATURE_EXTRACTION
from modelport.tasks.vision import IMAGE_FEATURE_EXTRACTION
from modelport_skill_multimodal import documents, open_vocabulary, questions, towers

MODELPORT_CONTRACT = "1.0"

_PARTS: tuple[Any, ...] = (towers, open_vocabulary, questions, documents)
"""One module for each way of answering. Each has `claim(card)`, `programs(card)` and `session(context)`, as the skill has, and no
two claim one checkpoint."""


class Multimodal(Skill):
    """Serves models that take an image and a text."""

    name = "multimodal"
    tasks = (
        ZERO_SHOT_IMAGE_CLASSIFICATION,
        FEATURE_EXTRACTION,
        IMAGE_FEATURE_EXTRACTION,
        ZERO_SHOT_OBJECT_DETECTION,
        VISUAL_QUESTION_ANSWERING,
        DOCUMENT_QUESTION_ANSWERING,
    )
    heads = {
        "zero-shot-image-classification": ("zero-shot-image-classification", "feature-extraction", "image-feature-extraction"),
        "zero-shot-object-detection": ("zero-shot-object-detection",),
        "visual-question-answering": ("visual-question-answering",),
        "document-question-answering": ("document-question-answering",),
    }
    default_checkpoints = {
        "clip": "openai/clip-vit-large-patch14",
        "siglip": "google/siglip-base-patch16-224",
        "siglip2": "google/siglip2-base-patch16-naflex",
        "align": "kakaobrain/align-base",
        "altclip": "BAAI/AltCLIP",
        "chinese_clip": "OFA-Sys/chinese-clip-vit-base-patch16",
        "metaclip_2": "facebook/metaclip-2-worldwide-huge-quickgelu",
        "owlvit": "google/owlvit-base-patch32",
        "owlv2": "google/owlv2-base-patch16-ensemble",
        "grounding-dino": "IDEA-Research/grounding-dino-tiny",
        "mm-grounding-dino": "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
        "vilt": "dandelin/vilt-b32-finetuned-vqa",
        "layoutlm": "impira/layoutlm-document-qa",
        "layoutlmv3": "rubentito/layoutlmv3-base-mpdocvqa",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        return next((claim for part in _PARTS if (claim := part.claim(card)) is not None), None)

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        part = _part_of(card)
        programs: Mapping[str, Program] = part.programs(card) if part else {}
        return programs

    def session(self, context: SessionContext) -> Session:
        session: Session = _part_of(context.card).session(context)
        return session


def _part_of(card: ModelCard) -> Any:
    return next((part for part in _PARTS if part.claim(card) is not None), None)


@hookimpl
def register_skills() -> list[Skill]:
    """Images and texts together."""
    return [Multimodal()]
