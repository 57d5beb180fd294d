"""transformers' own tokenizer of a checkpoint: for those that exist in Python only, or mark languages as only it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport_hf.folder import read_json

__all__ = ["load_own_tokenizer"]


def load_own_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """What `AutoTokenizer` makes of the checkpoint in `folder`; the class that marks languages, if the checkpoint names one.

    Raises:
        ConfigurationError: if there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
        named = None if hasattr(found, "src_lang") else _of_languages(folder)
        return found if named is None else named.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # anything a damaged or foreign folder can cause
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigurationError(f"The checkpoint in {folder} has no tokenizer that can be loaded: {why}.") from error


def _of_languages(folder: Path) -> Any:
    """The class that the checkpoint names, if it marks languages. `AutoTokenizer` takes a plain one for NLLB's, whose model type
    has another's as its usual class."""
    import transformers

    name = str((read_json(folder, "tokenizer_config.json") or {}).get("tokenizer_class") or "").removesuffix("Fast")
    named = getattr(transformers, name, None) if name else None
    return named if hasattr(named, "src_lang") else None
