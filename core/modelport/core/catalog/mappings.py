"""The catalogue child: which auto-class heads transformers has for which model types, as JSON on stdout.

torch is blocked before transformers is imported, so this takes a second and little memory. The mapping module is imported by its
full name because `from transformers.models.auto import modeling_auto` gives a stand-in without names where torch is missing.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["heads_of", "main"]

_FULL_NAME = "transformers.models.auto.modeling_auto"


def heads_of(mappings: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """model_type → heads, from `MODEL_…_MAPPING_NAMES` → model types. `MODEL_FOR_CAUSAL_LM_…` is the head `causal-lm`; the plain
    mapping is `feature-extraction`, which comes first.
    """
    heads: dict[str, list[str]] = {}
    for name, model_types in mappings.items():
        match = re.fullmatch(r"MODEL_(?:FOR_(\w+)_)?MAPPING_NAMES", name)
        if match is None:
            continue
        head = match[1].lower().replace("_", "-") if match[1] else "feature-extraction"
        for model_type in model_types:
            heads.setdefault(model_type, []).append(head)
    return {
        model_type: sorted(found, key=lambda head: (head != "feature-extraction", head)) for model_type, found in heads.items()
    }


def main() -> None:
    """Prints the heads, or fails if there is nothing to print."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    module: Any = importlib.import_module(_FULL_NAME)
    mappings = {name: list(value) for name, value in vars(module).items() if name.endswith("_MAPPING_NAMES")}
    if not mappings.get("MODEL_MAPPING_NAMES"):
        sys.exit(f"{_FULL_NAME} has no MODEL_MAPPING_NAMES: this version of transformers keeps its mappings elsewhere")
    json.dump(heads_of(mappings), sys.stdout)


if __name__ == "__main__":
    main()
