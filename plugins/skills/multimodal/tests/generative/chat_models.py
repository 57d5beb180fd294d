"""Tiny models that converse, one function each, with a processor of its own family that is made on the spot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import transformers as t
from transformers.models.mllama import configuration_mllama as mllama_configs

from .parts import EYE, IDS, SQUARE, TEXT, Made, chat, clip_eye, llama, pillow, qwen2, tokenizer, without_videos


def llava(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image>")
    config = t.LlavaConfig(
        vision_config=clip_eye(), text_config=llama(words), image_token_index=words.image_token_id, vision_feature_layer=-1,
        **IDS,
    )  # fmt: skip
    eyes = pillow("clip.CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return config, t.LlavaProcessor(
        eyes, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat("<image>"),
    )  # fmt: skip


def llava_next(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = t.LlavaNextConfig(
        vision_config=clip_eye(), text_config=llama(words), image_token_index=words.image_token_id, vision_feature_layer=-1,
        image_grid_pinpoints=grid, **IDS,
    )  # fmt: skip
    eyes = pillow("llava_next.LlavaNextImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
                  image_grid_pinpoints=grid)  # fmt: skip
    return config, t.LlavaNextProcessor(
        eyes, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat("<image>"),
    )  # fmt: skip


def qwen2_vl(folder: Path) -> Made:
    words = tokenizer(folder, "<|vision_start|>", "<|vision_end|>", image_token="<|image_pad|>", video_token="<|video_pad|>")
    named = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    marks = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in named.items()}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    eye = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2}
    config = t.Qwen2VLConfig(
        text_config={"vocab_size": len(words), "rope_parameters": rope} | TEXT, vision_config=eye, **marks, **IDS
    )
    eyes = pillow("qwen2_vl.Qwen2VLImageProcessorPil", patch_size=8, min_pixels=256, max_pixels=2048)
    return config, without_videos(t.Qwen2VLProcessor)(
        eyes, words, None, chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>")
    )


def idefics3(folder: Path) -> Made:
    words = tokenizer(folder, "<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>")
    config = t.Idefics3Config(
        vision_config=t.Idefics3VisionConfig(**EYE), text_config=llama(words), scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"), **IDS,
    )  # fmt: skip
    eyes = pillow("idefics3.Idefics3ImageProcessorPil", size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, t.Idefics3Processor(eyes, words, image_seq_len=4, chat_template=chat("<image>"))


def smolvlm(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image>", fake_image_token="<fake_token_around_image>",
                      end_of_utterance_token="<end_of_utterance>", global_image_token="<global-img>")  # fmt: skip
    config = t.SmolVLMConfig(
        vision_config=t.SmolVLMVisionConfig(**EYE), text_config=llama(words), scale_factor=2,
        image_token_id=words.image_token_id, **IDS,
    )  # fmt: skip
    eyes = pillow("smolvlm.SmolVLMImageProcessorPil", size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, without_videos(t.SmolVLMProcessor)(eyes, words, None, image_seq_len=4, chat_template=chat("<image>"))


def idefics2(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image>", image_boundary_token="<fake_token_around_image>",
                      end_of_utterance_token="<end_of_utterance>")  # fmt: skip
    resampler = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8,
                 "num_key_value_heads": 1}  # fmt: skip
    config = t.Idefics2Config(
        vision_config=EYE, perceiver_config=resampler, text_config=t.MistralConfig(vocab_size=len(words), **TEXT),
        image_token_id=words.image_token_id, **IDS,
    )  # fmt: skip
    eyes = pillow("idefics2.Idefics2ImageProcessorPil", size={"shortest_edge": 24, "longest_edge": 32})
    return config, t.Idefics2Processor(eyes, words, image_seq_len=4, chat_template=chat("<image>"))


def paligemma(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image>")
    eyes = pillow("siglip.SiglipImageProcessorPil", **SQUARE, image_seq_length=16)
    made = t.PaliGemmaProcessor(eyes, words)
    text = t.GemmaConfig(vocab_size=len(words), head_dim=8, **TEXT)
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**EYE), text_config=text, projection_dim=32,
        image_token_index=words.image_token_id, **IDS,
    )  # fmt: skip
    return config, made


def gemma3(folder: Path) -> Made:
    words = tokenizer(folder, image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    text = t.Gemma3TextConfig(
        vocab_size=len(words), head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=8, **TEXT,
    )  # fmt: skip
    config = t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**EYE), text_config=text, mm_tokens_per_image=4,
        image_token_id=words.image_token_id, boi_token_index=words.boi_token_id, eoi_token_index=words.eoi_token_id, **IDS,
    )  # fmt: skip
    eyes = pillow("gemma3.Gemma3ImageProcessorPil", **SQUARE)
    return config, t.Gemma3Processor(eyes, words, image_seq_length=4, chat_template=chat("<start_of_image>"))


def internvl(folder: Path) -> Made:
    words = tokenizer(folder, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
                      video_token="<video>")  # fmt: skip
    eye = t.InternVLVisionConfig(**EYE | {"image_size": [32, 32], "patch_size": [8, 8]})
    config = t.InternVLConfig(
        vision_config=eye, text_config=qwen2(words), image_token_id=words.context_image_token_id, downsample_ratio=0.5, **IDS
    )
    eyes = pillow("got_ocr2.GotOcr2ImageProcessorPil", **SQUARE, crop_to_patches=True, max_patches=4)
    return config, without_videos(t.InternVLProcessor)(
        eyes, words, None, image_seq_length=4, chat_template=chat("<IMG_CONTEXT>\\n")
    )


def mllama(folder: Path) -> Made:
    words = tokenizer(folder, "<|python_tag|>", image_token="<|image|>")
    mark = words.image_token_id
    text = mllama_configs.MllamaTextConfig(
        **TEXT | {"vocab_size": mark, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    eye = mllama_configs.MllamaVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_global_layers=1, attention_heads=2, image_size=32,
        patch_size=8, max_num_tiles=4, vision_output_dim=32, intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
    )  # fmt: skip
    config = t.MllamaConfig(vision_config=eye, text_config=text, image_token_index=mark)
    eyes = pillow("mllama.MllamaImageProcessorPil", **SQUARE, max_image_tiles=4)
    return config, t.MllamaProcessor(eyes, words, chat_template=chat("<|image|>"))


def mistral3(folder: Path) -> Made:
    words = tokenizer(folder, "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    eye = t.PixtralVisionConfig(**EYE | {"image_size": 64, "head_dim": 8})
    config = t.Mistral3Config(
        vision_config=eye, text_config=t.MistralConfig(vocab_size=len(words), head_dim=8, **TEXT), spatial_merge_size=2,
        image_token_index=words.convert_tokens_to_ids("[IMG]"), **IDS,
    )  # fmt: skip
    eyes = pillow("pixtral.PixtralImageProcessorPil", size={"longest_edge": 64}, patch_size={"height": 16, "width": 16})
    return config, _pixtral(eyes, words, patch_size=8, spatial_merge_size=2, chat_template=chat("[IMG]"))


def _pixtral(*parts: Any, **options: Any) -> Any:
    """Pixtral's processor imports one function from a module that needs torchvision, which the one on Pillow has too."""
    module = "transformers.models.pixtral"
    name = f"{module}.image_processing_pixtral"
    sys.modules[name] = importlib.import_module(f"{module}.image_processing_pil_pixtral")
    try:
        return importlib.import_module(f"{module}.processing_pixtral").PixtralProcessor(*parts, **options)
    finally:
        del sys.modules[name]


def aya_vision(folder: Path) -> Made:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL", "TILE", "<image>")
    words = tokenizer(folder, *marks)
    text = t.CohereConfig(vocab_size=len(words), **TEXT | {"tie_word_embeddings": True})
    config = t.AyaVisionConfig(
        vision_config=t.SiglipVisionConfig(**EYE), text_config=text, downsample_factor=2, adapter_layer_norm_eps=1e-6,
        alignment_intermediate_size=48, image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"), **IDS,
    )  # fmt: skip
    eyes = pillow("got_ocr2.GotOcr2ImageProcessorPil", **SQUARE, crop_to_patches=True, max_patches=4)
    return config, t.AyaVisionProcessor(
        eyes, words, patch_size=8, img_size=32, downsample_factor=2, chat_template=chat("<image>")
    )
