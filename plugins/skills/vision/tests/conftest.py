"""Tiny checkpoints of every kind that the skill serves, each with a processor of its own family."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport.contract import Media

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 5}
SQUARE = {"size": {"height": 32, "width": 32}}


def _backbone() -> Any:
    import transformers as t

    return t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], out_features=["stage4"])


def _detr_like(**more: Any) -> dict[str, Any]:
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 32, "num_queries": 6, "num_labels": 5}
    return layers | heads | {"backbone_config": _backbone(), "use_timm_backbone": False, "use_pretrained_backbone": False} | more


def vit(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    return t.ViTForImageClassification, t.ViTConfig(image_size=32, patch_size=8, **SMALL), "vit.ViTImageProcessorPil", SQUARE


def deit_teacher(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.DeiTConfig(image_size=32, patch_size=8, **SMALL)
    return t.DeiTForImageClassificationWithTeacher, config, "deit.DeiTImageProcessorPil", SQUARE | {"do_center_crop": False}


def resnet(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return t.ResNetForImageClassification, config, "convnext.ConvNextImageProcessorPil", {"size": {"shortest_edge": 32}}


def convnext(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_labels=5)
    return t.ConvNextForImageClassification, config, "convnext.ConvNextImageProcessorPil", {"size": {"shortest_edge": 64}}


def detr(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    size = {"size": {"shortest_edge": 64, "longest_edge": 96}}
    return t.DetrForObjectDetection, t.DetrConfig(**_detr_like()), "detr.DetrImageProcessorPil", size


def yolos(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.YolosConfig(image_size=[64, 64], patch_size=16, num_detection_tokens=6, **SMALL)
    size = {"size": {"shortest_edge": 48, "longest_edge": 80}}
    return t.YolosForObjectDetection, config, "yolos.YolosImageProcessorPil", size


def rt_detr(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    backbone = t.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = t.RTDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, encoder_hidden_dim=32, encoder_in_channels=[16, 16, 32], d_model=32,
        decoder_in_channels=[32, 32, 32], encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, decoder_layers=2, num_queries=8, num_labels=5, anchor_image_size=None,
    )  # fmt: skip
    return t.RTDetrForObjectDetection, config, "rt_detr.RTDetrImageProcessorPil", {"size": {"height": 64, "width": 64}}


def segformer(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16, num_labels=5
    )
    size = {"size": {"height": 64, "width": 64}}
    return t.SegformerForSemanticSegmentation, config, "segformer.SegformerImageProcessorPil", size


def mask2former(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    backbone = t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = t.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=6, num_labels=5,
    )  # fmt: skip
    size = {"size": {"shortest_edge": 64, "longest_edge": 96}}
    return t.Mask2FormerForUniversalSegmentation, config, "mask2former.Mask2FormerImageProcessorPil", size


def maskformer(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    backbone = t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = t.MaskFormerConfig(
        backbone_config=backbone, fpn_feature_size=32, mask_feature_size=32, num_labels=5,
        decoder_config=t.DetrConfig(**_detr_like()),
    )  # fmt: skip
    size = {"size": {"shortest_edge": 64, "longest_edge": 96}}
    return t.MaskFormerForInstanceSegmentation, config, "maskformer.MaskFormerImageProcessorPil", size


def dpt(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.DPTConfig(
        image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        **SMALL | {"num_hidden_layers": 4},
    )  # fmt: skip
    return t.DPTForDepthEstimation, config, "dpt.DPTImageProcessorPil", SQUARE


def depth_anything(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    backbone = t.Dinov2Config(
        image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=1,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = t.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16, head_in_index=-1, head_hidden_size=8,
    )  # fmt: skip
    options = {"size": {"height": 42, "width": 42}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    return t.DepthAnythingForDepthEstimation, config, "dpt.DPTImageProcessorPil", options


def dinov2(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.Dinov2Config(image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=1)
    options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    return t.Dinov2Model, config, "bit.BitImageProcessorPil", options


def superpoint(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.SuperPointConfig(encoder_hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16, descriptor_decoder_dim=16)
    size = {"size": {"height": 48, "width": 64}}
    return t.SuperPointForKeypointDetection, config, "superpoint.SuperPointImageProcessorPil", size


def videomae(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    config = t.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, tubelet_size=2, use_mean_pooling=True, **SMALL)
    options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return t.VideoMAEForVideoClassification, config, "videomae.VideoMAEImageProcessorPil", options


def sam(t: Any) -> tuple[Any, Any, str, dict[str, Any]]:
    encoder = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 32, "num_pos_feats": 8,
    }  # fmt: skip
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    config = t.SamConfig(vision_config=encoder, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    size = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    return t.SamModel, config, "sam.SamImageProcessorPil", size


MAKERS = {
    maker.__name__: maker
    for maker in (
        vit, deit_teacher, resnet, convnext, detr, yolos, rt_detr, segformer, mask2former, maskformer, dpt, depth_anything,
        dinov2, superpoint, videomae, sam,
    )
}  # fmt: skip


def write(folder: Path, kind: str) -> Path:
    """The checkpoint `kind`; weights are wide and biases are not zero, so that answers differ between images."""
    import importlib

    import torch
    import transformers

    model_class, config, processor, options = MAKERS[kind](transformers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
            else:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    module, _, name = processor.partition(".")
    made = getattr(importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name)
    made(**options).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("vision"), {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = write(root / kind, kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def picture() -> Callable[..., Media]:
    """A PNG of smooth random colours, other ones for every seed."""

    def draw(seed: int = 0, width: int = 61, height: int = 47) -> Media:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
        return Media(data=file.getvalue())

    return draw
