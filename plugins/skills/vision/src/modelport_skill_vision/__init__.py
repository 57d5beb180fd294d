"""Vision: labels, objects, masks, depth, features and keypoints of images, what points in them show, and labels of videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelport import hookimpl
from modelport.contract import Claim, ConfigurationError, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.vision import (
    DEPTH_ESTIMATION,
    IMAGE_CLASSIFICATION,
    IMAGE_FEATURE_EXTRACTION,
    IMAGE_SEGMENTATION,
    KEYPOINT_DETECTION,
    MASK_GENERATION,
    OBJECT_DETECTION,
    VIDEO_CLASSIFICATION,
)
from modelport_hf.folder import has_tokenizer
from modelport_hf.heads import head_of
from modelport_hf.image_processor import image_settings
from modelport_skill_vision.programs import program_of, task_of
from modelport_skill_vision.segmenter import is_segmenter, segmenter_program

MODELPORT_CONTRACT = "1.0"

_PARTS = frozenset({"text_config", "vision_config", "audio_config", "mask_decoder_config"})
"""Settings of models that are made of several, and take more than an image."""


class Vision(Skill):
    """Serves the tasks on images whose answers a single forward gives."""

    name = "vision"
    tasks = (
        IMAGE_CLASSIFICATION,
        OBJECT_DETECTION,
        IMAGE_SEGMENTATION,
        DEPTH_ESTIMATION,
        IMAGE_FEATURE_EXTRACTION,
        KEYPOINT_DETECTION,
        VIDEO_CLASSIFICATION,
        MASK_GENERATION,
    )
    heads = {
        "image-classification": ("image-classification",),
        "object-detection": ("object-detection",),
        "semantic-segmentation": ("image-segmentation",),
        "universal-segmentation": ("image-segmentation",),
        "depth-estimation": ("depth-estimation",),
        "keypoint-detection": ("keypoint-detection",),
        "video-classification": ("video-classification",),
        "image": ("image-feature-extraction",),
        "mask-generation": ("mask-generation",),
    }
    default_checkpoints = {
        "vit": "google/vit-base-patch16-224",
        "resnet": "microsoft/resnet-50",
        "convnext": "facebook/convnext-tiny-224",
        "swin": "microsoft/swin-tiny-patch4-window7-224",
        "detr": "facebook/detr-resnet-50",
        "yolos": "hustvl/yolos-tiny",
        "segformer": "nvidia/segformer-b0-finetuned-ade-512-512",
        "mask2former": "facebook/mask2former-swin-tiny-coco-panoptic",
        "dpt": "Intel/dpt-large",
        "depth_anything": "LiheYoung/depth-anything-small-hf",
        "dinov2": "facebook/dinov2-small",
        "superpoint": "magic-leap-community/superpoint",
        "videomae": "MCG-NJU/videomae-base-finetuned-kinetics",
        "sam": "facebook/sam-vit-base",
        "sam2": "facebook/sam2.1-hiera-tiny",
        "deit": "facebook/deit-base-distilled-patch16-224",
        "convnextv2": "facebook/convnextv2-tiny-1k-224",
        "swinv2": "microsoft/swinv2-tiny-patch4-window8-256",
        "mobilenet_v2": "google/mobilenet_v2_1.0_224",
        "efficientnet": "google/efficientnet-b0",
        "regnet": "facebook/regnet-y-040",
        "dinov2_with_registers": "facebook/dinov2-with-registers-small",
        "rt_detr": "PekingU/rtdetr_r18vd",
        "rt_detr_v2": "PekingU/rtdetr_v2_r18vd",
        "d_fine": "ustc-community/dfine_n_coco",
        "conditional_detr": "microsoft/conditional-detr-resnet-50",
        "deformable_detr": "SenseTime/deformable-detr",
        "table-transformer": "microsoft/table-transformer-detection",
        "maskformer": "facebook/maskformer-swin-tiny-coco",
        "timesformer": "facebook/timesformer-base-finetuned-k400",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        if is_segmenter(card):
            return Claim(("mask-generation",), 100, f"{card.model_type} cuts out what points and boxes show")
        task = task_of(head_of(card.architectures))
        if task is None or not _takes_images(card):
            return None
        if task == "image-feature-extraction":
            if has_tokenizer(card.files) or not _PARTS.isdisjoint(card.config):
                return None
            return Claim((task,), 60, f"{card.architectures[0]} takes images and has no head")
        return Claim((task,), 100, f"{card.architectures[0]} does {task}")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        if is_segmenter(card):
            return {"mask-generation": segmenter_program(card)}
        head = head_of(card.architectures)
        task = task_of(head)
        return {task: program_of(card, head)} if task and head else {}

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_vision.prompts import PromptSession
        from modelport_skill_vision.session import VisionSession

        return (PromptSession if context.task == "mask-generation" else VisionSession)(context)


def _takes_images(card: ModelCard) -> bool:
    try:
        return bool(card.path and image_settings(Path(card.path)))
    except ConfigurationError:
        return True  # the session will say what is wrong with the file


@hookimpl
def register_skills() -> list[Skill]:
    """Vision."""
    return [Vision()]
