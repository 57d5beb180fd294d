"""Tiny models of images and text, each with a processor of its own family that is made on the spot."""

from __future__ import annotations

import copy
import importlib
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as t
from PIL import Image
from transformers.models.mllama import configuration_mllama as mllama_configs

from modelport.contract import Media
from modelport.testing.checkpoints import write_byte_tokenizer, write_word_tokenizer

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 1024, "tie_word_embeddings": False} | IDS  # fmt: skip
EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
       "patch_size": 8}  # fmt: skip
SQUARE = {"size": {"height": 32, "width": 32}}

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Made = tuple[Any, Any]
"""A model's config and its processor."""


def tokenizer(folder: Path, *tokens: str, template: bool = True, **named: str) -> Any:
    """A tokenizer of bytes, with `tokens` added, and tokens that the processor knows by name."""
    write_byte_tokenizer(folder, chat_template=None)
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<pad>"}
    made = t.PreTrainedTokenizerFast(tokenizer_object=backend, **special, extra_special_tokens=named, model_max_length=1024)
    made.add_tokens(list(tokens), special_tokens=True)
    return made


def pillow(name: str, **options: Any) -> Any:
    module, _, kind = name.partition(".")
    file = "image_processing" if module == "blip" else "image_processing_pil"  # transformers 5.5 has BLIP's two exchanged
    return getattr(importlib.import_module(f"transformers.models.{module}.{file}_{module}"), kind)(**options)


def without_videos(kind: Any) -> Any:
    """A processor's class that does without a part for videos, which needs torchvision."""

    def check(self: Any, name: str, part: Any) -> Any:
        return part if part is None else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def chat(image: str) -> str:
    return TEMPLATE.replace("IMAGE", image)


def llama(words: Any, **more: Any) -> Any:
    return t.LlamaConfig(vocab_size=len(words), **TEXT, **more)


def qwen2(words: Any, **more: Any) -> Any:
    return t.Qwen2Config(vocab_size=len(words), **TEXT, **more)


def clip_eye(**more: Any) -> Any:
    return t.CLIPVisionConfig(**EYE | {"projection_dim": 16} | more)


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
    marks = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in
             (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))}  # fmt: skip
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
    import sys

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


def word_tokenizer(folder: Path) -> Any:
    """A tokenizer of words as BERT has one; texts are [CLS] … [SEP]."""
    write_word_tokenizer(folder, 64)
    return t.AutoTokenizer.from_pretrained(folder)


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


MAKERS: dict[str, Callable[[Path], Made]] = {
    maker.__name__: maker
    for maker in (
        llava, llava_next, qwen2_vl, idefics2, idefics3, smolvlm, paligemma, gemma3, internvl, mllama, mistral3, aya_vision,
        blip, blip_vqa, blip_2, git, pix2struct, kosmos_2, trocr, vit_gpt2, donut,
    )
}  # fmt: skip


def save_processor(processor: Any, folder: Path) -> None:
    """In one file, or, where the part for videos is missing, in one for each part as older checkpoints have them."""
    if getattr(processor, "video_processor", processor) is not None:
        processor.save_pretrained(folder)
        return
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    own = {name: value for name, value in vars(processor).items() if name in ("image_seq_len", "image_seq_length")}
    (folder / "processor_config.json").write_text(json.dumps(own | {"processor_class": type(processor).__name__}))
    (folder / "chat_template.jinja").write_text(processor.chat_template)


class Checkpoint:
    """A model on disk, and its processor as it was made, not as it was read.

    Attributes:
        folder: Where it lies.
        processor: transformers' own.
        model: transformers' own, read from the folder.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        import torch

        self.folder = folder
        folder.mkdir()
        config, self.processor = MAKERS[kind](folder)
        auto = t.AutoModelForVisualQuestionAnswering if kind == "blip_vqa" else t.AutoModelForImageTextToText
        made = auto.from_config(config)
        generator = torch.Generator().manual_seed(11)
        for name, parameter in made.named_parameters():  # wide enough that answers depend on what is seen
            if "gate" in name:  # closed at first: Mllama would see nothing
                parameter.data += 1.0
            elif parameter.dim() > 1:
                wide = 0.05 if re.search(r"\.(q|k|q_proj|k_proj)\.", name) else 0.3
                parameter.data = torch.randn(parameter.shape, generator=generator) * wide
            elif not name.endswith("norm.weight"):
                parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
        # No token twice: random weights would say one for ever, whatever they see. Mllama's mark of images has no logit.
        ids = IDS if self.processor.tokenizer.bos_token_id else {}
        made.generation_config.update(no_repeat_ngram_size=0 if kind == "mllama" else 1, **ids)
        made.save_pretrained(folder)
        save_processor(self.processor, folder)
        self.model = type(made).from_pretrained(folder).eval()

    def render(self, conversation: list[dict[str, Any]]) -> str:
        """The conversation as the processor's template writes it."""
        template = self.processor.chat_template
        return str(
            self.processor.tokenizer.apply_chat_template(
                conversation, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )

    def inputs(self, text: str, images: Iterable[Image.Image], **options: Any) -> Any:
        pictures = list(images)
        made = self.processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt", **options)
        made.pop("labels", None)
        return made

    def generate(self, inputs: Any, count: int = 8, skip: int | None = None) -> list[int]:
        """What the model's own `generate` adds to the prompt, which are `skip` tokens."""
        import torch

        config = copy.deepcopy(self.model.generation_config)  # that of a writer within would be taken else
        config.update(max_new_tokens=count, do_sample=False)
        with torch.inference_mode():
            (made,) = self.model.generate(**inputs, generation_config=config)
        if skip is None:
            skip = len(inputs["input_ids"][0]) if "input_ids" in inputs else 0
        return [int(token) for token in made[skip:]]

    def text(self, tokens: list[int]) -> str:
        """Tokens as text."""
        return str(self.processor.tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    root, made = tmp_path_factory.mktemp("generative"), {}

    def get(kind: str) -> Checkpoint:
        if kind not in made:
            made[kind] = Checkpoint(root / kind, kind)
        return made[kind]

    return get


@pytest.fixture(scope="session", name="draw")
def _draw() -> Callable[..., bytes]:
    return draw


def draw(seed: int = 0, width: int = 61, height: int = 47) -> bytes:
    """A PNG of smooth random colours, other ones for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
