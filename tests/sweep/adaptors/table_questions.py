"""Questions about a table to cells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from text import TEXTS

SETTINGS: dict[str, Any] = {"vocab_size": 100}
TABLE = {"name": ["ann", "bob", "eve"], "age": ["30", "41", "29"]}
QUESTIONS = ("how old is bob", "age of ann", TEXTS[0])
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", *"abcdefghijklmnopqrstuvwxyz0123456789",
         *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"), "?", ".")  # fmt: skip


def equip(pair: Any, model: Any, folder: Path) -> Any:
    from transformers import TapasTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = TapasTokenizer(str(folder / "vocab.txt"), model_max_length=256)
    tokenizer.save_pretrained(folder)
    return tokenizer


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    return [{"query": question, "table": TABLE} for question in QUESTIONS]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    import pandas

    original = pandas.Series.__getitem__

    def get(self: Any, key: Any) -> Any:  # transformers asks for cells by number, which pandas 3 takes for a column's name
        return self.iloc[key] if isinstance(key, int) else original(self, key)

    with patch.object(pandas.Series, "__getitem__", get):
        frame = pandas.DataFrame(request["table"], dtype=object)
        inputs = tools(table=frame, queries=[request["query"]], return_tensors="pt")
        output = model(**inputs)
        ((cells,), *_) = tools.convert_logits_to_predictions(inputs, output.logits)
    return [list(cell) for cell in cells]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [list(cell) for cell in result.results[0].coordinates]
