"""Images and texts together: conversations with images, labels and boxes of the request's own, embeddings, questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.multimodal import (
    DOCUMENT_QUESTION_ANSWERING,
    IMAGE_TEXT_TO_TEXT,
    IMAGE_TO_TEXT,
    VISUAL_QUESTION_ANSWERING,
    ZERO_SHOT_IMAGE_CLASSIFICATION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from modelport.tasks.text import FEATURE_EXTRACTION, TEXT_GENERATION
from modelport.tasks.vision import IMAGE_FEATURE_EXTRACTION
from modelport_hf.tokenizing import tokenizing
from modelport_skill_multimodal import documents, generative, open_vocabulary, questions, towers

MODELPORT_CONTRACT = "1.0"

_PARTS: tuple[Any, ...] = (generative, towers, open_vocabulary, questions, documents)
"""One module for each way of answering. Each has `claim(card)`, `programs(card)` and `session(context)`, as the skill has, and no
two claim one checkpoint."""


@tokenizing
class Multimodal(Skill):
    """Serves models that take an image and a text, or give a text for an image."""

    name = "multimodal"
    tasks = (
        IMAGE_TEXT_TO_TEXT,
        TEXT_GENERATION,
        IMAGE_TO_TEXT,
        ZERO_SHOT_IMAGE_CLASSIFICATION,
        FEATURE_EXTRACTION,
        IMAGE_FEATURE_EXTRACTION,
        ZERO_SHOT_OBJECT_DETECTION,
        VISUAL_QUESTION_ANSWERING,
        DOCUMENT_QUESTION_ANSWERING,
    )
    heads = {
        "image-text-to-text": ("image-text-to-text", "image-to-text", "text-generation"),
        "zero-shot-image-classification": ("zero-shot-image-classification", "feature-extraction", "image-feature-extraction"),
        "zero-shot-object-detection": ("zero-shot-object-detection",),
        "visual-question-answering": ("visual-question-answering",),
        "document-question-answering": ("document-question-answering",),
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
