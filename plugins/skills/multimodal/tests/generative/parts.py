"""What the tiny models are made of: sizes, tokenizers, image processors, a chat template."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import transformers as t

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


def word_tokenizer(folder: Path) -> Any:
    """A tokenizer of words as BERT has one; texts are [CLS] … [SEP]."""
    write_word_tokenizer(folder, 64)
    return t.AutoTokenizer.from_pretrained(folder)
