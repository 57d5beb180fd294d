"""Tiny models that write about an image without conversing, one function each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as t

from .parts import EYE, IDS, SQUARE, Made, pillow, tokenizer, word_tokenizer


def bert_like(words: Any) -> dict[str, Any]:
    ids = {"bos_token_id": words.cls_token_id, "sep_token_id": words.sep_token_id, "pad_token_id": words.pad_token_id}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return sizes | {"vocab_size": len(words), "max_position_embeddings": 64, "eos_token_id": words.sep_token_id} | ids


def blip(folder: Path) -> Made:
    words = word_tokenizer(folder)
    text = bert_like(words) | {"encoder_hidden_size": 32, "projection_dim": 16}
    eye = EYE | {"projection_dim": 16, "hidden_size": 32}
    config = t.BlipConfig(text_config=text, vision_config=eye, projection_dim=16, image_text_hidden_size=16)
    return config, t.BlipProcessor(pillow("blip.BlipImageProcessorPil", **SQUARE), words)


def blip_vqa(folder: Path) -> Made:
    return blip(folder)


def blip_2(folder: Path) -> Made:
    words = tokenizer(folder)
    made = t.Blip2Processor(pillow("blip.BlipImageProcessorPil", **SQUARE), words, num_query_tokens=3)
    text = t.OPTConfig(
        vocab_size=len(words), hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=32,
        max_position_embeddings=128, **IDS,
    )  # fmt: skip
    eye = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
           "patch_size": 8}  # fmt: skip
    former = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
              "encoder_hidden_size": 16, "vocab_size": 32}  # fmt: skip
    config = t.Blip2Config(
        text_config=text, vision_config=eye, qformer_config=former, num_query_tokens=3,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return config, made


def git(folder: Path) -> Made:
    words = word_tokenizer(folder)
    eye = EYE | {"projection_dim": 16}
    config = t.GitConfig(vision_config=eye, **bert_like(words))
    eyes = pillow("clip.CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return config, t.GitProcessor(eyes, words)


def pix2struct(folder: Path) -> Made:
    words = tokenizer(folder)
    text = {"vocab_size": len(words), "hidden_size": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2,
            "decoder_start_token_id": 0, **IDS}  # fmt: skip
    eye = {"hidden_size": 32, "d_ff": 48, "d_kv": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "seq_len": 64,
           "patch_embed_hidden_size": 8 * 8 * 3}  # fmt: skip
    config = t.Pix2StructConfig(text_config=text, vision_config=eye, decoder_start_token_id=0, **IDS)
    eyes = pillow("pix2struct.Pix2StructImageProcessorPil", patch_size={"height": 8, "width": 8}, max_patches=16)
    return config, t.Pix2StructProcessor(eyes, words)


def kosmos_2(folder: Path) -> Made:
    words = tokenizer(folder)
    eyes = pillow("clip.CLIPImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    made = t.Kosmos2Processor(eyes, words, num_patch_index_tokens=4)
    text = {"vocab_size": len(words), "embed_dim": 32, "ffn_dim": 48, "layers": 2, "attention_heads": 2,
            "max_position_embeddings": 256, **IDS}  # fmt: skip
    config = t.Kosmos2Config(text_config=text, vision_config=EYE, latent_query_num=64)
    return config, made


def _decoder(words: Any) -> dict[str, Any]:
    return {"vocab_size": len(words), "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48,
            "max_position_embeddings": 64, "is_decoder": True, "add_cross_attention": True,
            **IDS}  # fmt: skip


def trocr(folder: Path) -> Made:
    words = tokenizer(folder)
    eye = t.ViTConfig(**EYE)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        eye, t.TrOCRConfig(cross_attention_hidden_size=16, **_decoder(words))
    )
    config.update({"decoder_start_token_id": 1, **IDS})
    return config, t.TrOCRProcessor(pillow("vit.ViTImageProcessorPil", **SQUARE), words)


def vit_gpt2(folder: Path) -> Made:
    words = tokenizer(folder)
    text = t.GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64, **IDS)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(t.ViTConfig(**EYE), text)
    config.update({"decoder_start_token_id": 1, **IDS})
    return config, t.TrOCRProcessor(pillow("vit.ViTImageProcessorPil", **SQUARE), words)


def donut(folder: Path) -> Made:
    words = tokenizer(folder, "<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>")
    eye = t.DonutSwinConfig(image_size=[32, 32], patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(eye, t.MBartConfig(**_decoder(words)))
    config.update({"decoder_start_token_id": 1, **IDS})
    eyes = pillow("donut.DonutImageProcessorPil", **SQUARE)
    return config, t.DonutProcessor(eyes, words)
