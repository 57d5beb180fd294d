"""Questions about a table to cells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    inputs = tools(table=pandas.DataFrame(request["table"]).astype(object), queries=[request["query"]], return_tensors="pt")
    output = model(**inputs)
    ((cells,), *_) = tools.convert_logits_to_predictions(
        {name: value.cpu() for name, value in inputs.items()}, output.logits, getattr(output, "logits_aggregation", None)
    )
    return [list(cell) for cell in cells]


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return [list(cell) for cell in result.results[0].coordinates]
