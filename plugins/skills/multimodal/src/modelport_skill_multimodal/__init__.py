"""Images and texts together: conversations with images, images put into words, questions about images."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.multimodal import (
    DOCUMENT_QUESTION_ANSWERING,
    IMAGE_TEXT_TO_TEXT,
    IMAGE_TO_TEXT,
    VISUAL_QUESTION_ANSWERING,
)
from modelport.tasks.text import TEXT_GENERATION
from modelport_hf.tokenizing import tokenizing
from modelport_skill_multimodal import generative

MODELPORT_CONTRACT = "1.0"

_KINDS = (generative,)
"""Modules that know a kind of models each: `claim(card)`, `programs(card)`, `session(context)`, and no model twice."""


@tokenizing
class Multimodal(Skill):
    """Serves models that take an image and a text, or give a text for an image."""

    name = "multimodal"
    tasks = (
        IMAGE_TEXT_TO_TEXT,
        TEXT_GENERATION,
        IMAGE_TO_TEXT,
        VISUAL_QUESTION_ANSWERING,
        DOCUMENT_QUESTION_ANSWERING,
    )
    heads = {
        "image-text-to-text": ("image-text-to-text", "image-to-text", "text-generation"),
        "visual-question-answering": ("visual-question-answering",),
    }
    default_checkpoints = {
        "llava": "llava-hf/llava-interleave-qwen-0.5b-hf",
        "llava_next": "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava_onevision": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "vipllava": "llava-hf/vip-llava-7b-hf",
        "qwen2_vl": "Qwen/Qwen2-VL-2B-Instruct",
        "qwen2_5_vl": "Qwen/Qwen2.5-VL-3B-Instruct",
        "qwen3_vl": "Qwen/Qwen3-VL-2B-Instruct",
        "idefics2": "HuggingFaceM4/idefics2-8b",
        "idefics3": "HuggingFaceM4/Idefics3-8B-Llama3",
        "smolvlm": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        "paligemma": "google/paligemma-3b-mix-224",
        "gemma3": "google/gemma-3-4b-it",
        "internvl": "OpenGVLab/InternVL3-1B-hf",
        "mllama": "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "mistral3": "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "pixtral": "mistral-community/pixtral-12b",
        "aya_vision": "CohereLabs/aya-vision-8b",
        "got_ocr2": "stepfun-ai/GOT-OCR-2.0-hf",
        "florence2": "florence-community/Florence-2-base",
        "blip": "Salesforce/blip-image-captioning-base",
        "blip-2": "Salesforce/blip2-opt-2.7b",
        "instructblip": "Salesforce/instructblip-flan-t5-xl",
        "git": "microsoft/git-base-coco",
        "kosmos-2": "microsoft/kosmos-2-patch14-224",
        "pix2struct": "google/pix2struct-textcaps-base",
        "vision-encoder-decoder": "microsoft/trocr-base-printed",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        return next((claim for kind in _KINDS if (claim := kind.claim(card))), None)

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        return next((kind.programs(card) for kind in _KINDS if kind.claim(card)), {})

    def session(self, context: SessionContext) -> Session:
        session: Session = next(kind for kind in _KINDS if kind.claim(context.card)).session(context)
        return session


@hookimpl
def register_skills() -> list[Skill]:
    """Images and texts together."""
    return [Multimodal()]
