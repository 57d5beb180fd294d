"""The tokenizer and the settings of a SeamlessM4T model, which names languages by tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_seamless(model: Any, folder: Path) -> Any:
    """Writes them to the checkpoint's folder; the tokenizer. The languages are deu, eng and fra."""
    from transformers import SeamlessM4TTokenizer

    marks = {"deu": 32, "eng": 33, "fra": 34}
    names = ["<pad>", "<unk>", "<s>", "</s>", "▁", *LETTERS]
    write_generation(
        model, folder, text_decoder_lang_to_code_id=marks, t2u_lang_code_to_id={"deu": 36, "eng": 37, "fra": 38},
        vocoder_lang_code_to_id={"deu": 0, "eng": 1, "fra": 2}, id_to_text={str(at): each for at, each in enumerate(names)},
        char_to_id={name: at for at, name in enumerate(names)}, max_new_tokens=12, pad_token_id=0, bos_token_id=2,
        eos_token_id=3, decoder_start_token_id=3,
    )  # fmt: skip
    vocabulary = {name: at for at, name in enumerate(names)} | {f"__{name}__": at for name, at in marks.items()}
    tokenizer = SeamlessM4TTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=[f"__{name}__" for name in marks])
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_generation(model: Any, folder: Path, **settings: Any) -> None:
    """Settings of a model's own, which transformers reads from the file alone."""
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    model.generation_config = GenerationConfig.from_pretrained(folder)
