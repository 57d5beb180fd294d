"""A tokenizer made on the spot: one token per printable character, and the special tokens that every family knows.

Every text that a model can generate is then readable, and tells its tokens apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shrink import FIRST_MARK, MARKS, VOCABULARY

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", *(f"<mark{n}>" for n in range(MARKS)))
NAMES = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
         "cls_token": "<s>", "sep_token": "</s>"}  # fmt: skip
TEXTS = ("good", "this is a bad day", "you have a cat, and they had two dogs.")
"""Three of different lengths."""

assert SPECIALS.index("<mark0>") == FIRST_MARK


def write_tokenizer(
    folder: Path,
    *,
    encloses: bool,
    pair: str | None = None,
    masked: bool = True,
    marks: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> None:
    """tokenizer.json and its configuration; `encloses`: texts stand between `<s>` and `</s>`, and pairs as `pair` says.
    `masked`: the model is told what is padding. `marks` are spelt so instead of `<mark0>` and so on; `names` are further special
    tokens by the names under which a processor asks for them."""
    specials = [*SPECIALS[:FIRST_MARK], *marks, *SPECIALS[FIRST_MARK + len(marks) :]]
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(chr(code))[0][0]
                for code in range(32, 127)]  # fmt: skip
    vocabulary = {token: index for index, token in enumerate((*specials, *alphabet))}
    filled = vocabulary | {f"<fill{n}>": n for n in range(len(vocabulary), VOCABULARY)}
    assert len(filled) == VOCABULARY
    tokenizer = Tokenizer(models.BPE(vocab=filled, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if encloses:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair=pair or "<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ["input_ids", *(["attention_mask"] if masked else []), *([] if marks or not masked else ["token_type_ids"])]
    config: dict[str, Any] = (
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2000 if marks else 250} | NAMES | dict(names or {})
    )
    config |= {"model_input_names": inputs, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def read_tokenizer(folder: Path) -> Any:
    """transformers' own reading of it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def tensors(model: Any, tokenizer: Any, *texts: str) -> dict[str, Any]:
    """The inputs of one text or pair that the model's forward takes."""
    import inspect

    takes = inspect.signature(model.forward).parameters
    made = dict(tokenizer(*texts, return_tensors="pt"))
    if not (getattr(model.config, "type_vocab_size", None) or 0) > 1:
        made.pop("token_type_ids", None)
    return {name: value for name, value in made.items() if name in takes}
