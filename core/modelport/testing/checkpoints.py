"""Tiny checkpoints with random weights, written to disk as a trained one would be: for tests of function, not of quality.

Each function makes `folder`, fills it with config.json, model.safetensors and tokenizer files, and returns it. Weights depend on
`seed` alone. torch, transformers and tokenizers are imported when a function is called, not before::

    folder = tiny_llama(tmp_path / "llama")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = [
    "CHAT_TEMPLATE",
    "IMAGE_TEMPLATE",
    "tiny_bert",
    "tiny_clip",
    "tiny_cross_encoder",
    "tiny_gemma3",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_llava",
    "tiny_mistral",
    "tiny_owlvit",
    "tiny_qwen2",
    "tiny_reader",
    "tiny_vits",
    "write_byte_tokenizer",
    "write_word_tokenizer",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

IMAGE_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}",
)

_BYTE_SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
_BYTE_VOCABULARY = 256 + len(_BYTE_SPECIALS)
_WORD_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = "the a of to and in is it you that he was for on are with as his they be at one have this good bad day cat dog".split()
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,!?'\"-:;()"


def tiny_bert(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A BertModel of two layers, width 32, 64 positions, with a WordPiece tokenizer."""
    from transformers import BertConfig, BertModel

    return _words(folder, BertModel, BertConfig(**(_bert() | config)), seed)


def tiny_cross_encoder(folder: Path, seed: int = 0, labels: int = 1, **config: Any) -> Path:
    """A BertForSequenceClassification with `labels` outputs: one scores pairs, several classify."""
    from transformers import BertConfig, BertForSequenceClassification

    names = {i: f"LABEL_{i}" for i in range(labels)}
    made = BertConfig(
        **(_bert() | {"num_labels": labels, "id2label": names, "label2id": {v: k for k, v in names.items()}} | config)
    )
    return _words(folder, BertForSequenceClassification, made, seed)


def tiny_reader(folder: Path, head: str = "token-classification", seed: int = 0, **config: Any) -> Path:
    """A Bert that points into texts: `head` is `token-classification` (five labels), `masked-lm` or `question-answering`."""
    import transformers

    names = dict(enumerate(("O", "B-PER", "I-PER", "B-LOC", "I-LOC")))
    labels = {"id2label": names, "label2id": {v: k for k, v in names.items()}} if head == "token-classification" else {}
    made = transformers.BertConfig(**(_bert() | labels | config))
    kind = {"token-classification": "TokenClassification", "masked-lm": "MaskedLM", "question-answering": "QuestionAnswering"}
    return _words(folder, getattr(transformers, f"BertFor{kind[head]}"), made, seed)


def tiny_llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A LlamaForCausalLM of two layers with grouped key heads, 512 positions, a byte tokenizer and a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _bytes(folder, LlamaForCausalLM, LlamaConfig(**(_decoder() | config)), seed)


def tiny_llava(folder: Path, seed: int = 0) -> Path:
    """A LlavaForConditionalGeneration: as `tiny_llama`, with eyes of two layers, 16 tokens for an image, and a processor."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    eyes = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    mark = _BYTE_VOCABULARY
    text = LlamaConfig(**(_decoder() | {"vocab_size": mark + 1}))
    made = LlavaConfig(vision_config=eyes, text_config=text, image_token_index=mark, vision_feature_layer=-1, **_ids())
    _write_model(folder, LlavaForConditionalGeneration, made, seed)
    write_byte_tokenizer(folder, None, text.max_position_embeddings, more=("<image>",))
    pixels = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    own = {"processor_class": "LlavaProcessor", "patch_size": 8, "vision_feature_select_strategy": "default"}
    (folder / "processor_config.json").write_text(json.dumps(own | {"num_additional_image_tokens": 1}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(IMAGE_TEMPLATE, encoding="utf-8")
    return folder


def tiny_mistral(folder: Path, seed: int = 0, sliding_window: int = 16, **config: Any) -> Path:
    """A MistralForCausalLM whose every layer sees the last `sliding_window` tokens only."""
    from transformers import MistralConfig, MistralForCausalLM

    made = MistralConfig(**(_decoder() | {"sliding_window": sliding_window} | config))
    return _bytes(folder, MistralForCausalLM, made, seed)


def tiny_qwen2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Qwen2ForCausalLM: biases in its projections, masks by kind of layer; the second layer has a sliding window of 16."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    kinds = {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}
    return _bytes(folder, Qwen2ForCausalLM, Qwen2Config(**(_decoder() | kinds | config)), seed)


def tiny_gemma3(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Gemma3ForCausalLM of one sliding and one full layer, each with rotary positions of its own."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = {
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
    }
    return _bytes(folder, Gemma3ForCausalLM, Gemma3TextConfig(**(_decoder() | kinds | config)), seed)


def tiny_gpt2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A GPT2LMHeadModel of two layers: learned positions (256), one key head per query head."""
    from transformers import GPT2Config, GPT2LMHeadModel

    made = {"vocab_size": _BYTE_VOCABULARY, "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4}
    return _bytes(folder, GPT2LMHeadModel, GPT2Config(**(made | _ids() | config)), seed)


def tiny_vits(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A VitsModel that speaks at 16 kHz, and a tokenizer of the letters a to z, whose language is `eng`."""
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    letters = " 'abcdefghijklmnopqrstuvwxyz"
    sizes = {
        "vocab_size": len(letters) + 2,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "flow_size": 16,
        "spectrogram_bins": 9,
        "upsample_initial_channel": 16,
        "upsample_rates": [8, 4],
        "upsample_kernel_sizes": [16, 8],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "prior_encoder_num_flows": 2,
        "prior_encoder_num_wavenet_layers": 2,
        "posterior_encoder_num_wavenet_layers": 2,
        "duration_predictor_num_flows": 2,
        "duration_predictor_filter_channels": 16,
        "depth_separable_num_layers": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = VitsModel(VitsConfig(**(sizes | config)))
        # Its own are so small that all texts sound alike; durations would explode.
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "duration" not in name and "original0" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    made.save_pretrained(folder, safe_serialization=True)
    vocabulary = {"<pad>": 0, **{letter: at for at, letter in enumerate(letters, 1)}, "<unk>": len(letters) + 1}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    VitsTokenizer(folder / "vocab.json", language="eng", phonemize=False).save_pretrained(folder)
    return folder


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel of two layers a tower, for images of 32 × 32 and 32 tokens, with a processor and a WordPiece tokenizer."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = CLIPConfig(text_config=_tower_of_texts(), vision_config=_tower_of_images(), projection_dim=16)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _words(folder, CLIPModel, config, seed, max_length=32)


def tiny_owlvit(folder: Path, seed: int = 0) -> Path:
    """An OwlViTForObjectDetection with towers as those of `tiny_clip`."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection
    from transformers.models.owlvit.image_processing_pil_owlvit import OwlViTImageProcessorPil

    config = OwlViTConfig(text_config=_tower_of_texts(), vision_config=_tower_of_images(), projection_dim=32)
    OwlViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _words(folder, OwlViTForObjectDetection, config, seed, max_length=32)


def write_byte_tokenizer(
    folder: Path, chat_template: str | None = CHAT_TEMPLATE, max_length: int = 512, more: tuple[str, ...] = ()
) -> None:
    """A tokenizer with one token per byte, which can therefore write anything, end and chat tokens, and `more` tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*_BYTE_SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (*_BYTE_SPECIALS, *more)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    _write_tokenizer(folder, tokenizer, names | ({"chat_template": chat_template} if chat_template else {}), max_length)


def write_word_tokenizer(folder: Path, max_length: int = 64) -> None:
    """A lower-casing WordPiece tokenizer that knows a few words, and letters for all others; texts are [CLS] … [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: index for index, token in enumerate(_word_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))  # noqa: S106 — a token of a vocabulary
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(_WORD_SPECIALS))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    _write_tokenizer(folder, tokenizer, names, max_length)


def _words(folder: Path, model: type[Any], config: Any, seed: int, max_length: int | None = None) -> Path:
    _write_model(folder, model, config, seed)
    write_word_tokenizer(folder, max_length or config.max_position_embeddings)
    return folder


def _bytes(folder: Path, model: type[Any], config: Any, seed: int) -> Path:
    _write_model(folder, model, config, seed)
    write_byte_tokenizer(folder, max_length=config.max_position_embeddings)
    return folder


def _write_model(folder: Path, model: type[Any], config: Any, seed: int) -> None:
    import torch

    # Another seed must not leak into whoever calls, and the caller's must not change these weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model(config)
        # Wider than training starts from: logits of near ties would make greedy texts depend on rounding.
        for parameter in made.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    made.save_pretrained(folder, safe_serialization=True)


def _write_tokenizer(folder: Path, tokenizer: Any, names: dict[str, str], max_length: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | names, indent=1), encoding="utf-8")


def _word_vocabulary() -> list[str]:
    single = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    return list(dict.fromkeys((*_WORD_SPECIALS, *_WORDS, *single, *_MARKS)))


def _bert() -> dict[str, Any]:
    return {
        "vocab_size": len(_word_vocabulary()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _tower_of_texts() -> dict[str, Any]:
    vocabulary = _word_vocabulary()
    ids = {"pad_token_id": 0, "bos_token_id": vocabulary.index("[CLS]"), "eos_token_id": vocabulary.index("[SEP]")}
    return _layers() | ids | {"vocab_size": len(vocabulary), "max_position_embeddings": 32}


def _tower_of_images() -> dict[str, Any]:
    return _layers() | {"image_size": 32, "patch_size": 8}


def _layers() -> dict[str, Any]:
    return {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _ids() -> dict[str, Any]:
    return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _decoder() -> dict[str, Any]:
    return _ids() | {
        "vocab_size": _BYTE_VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
