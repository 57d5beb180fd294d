"""transformers' own tokenizer of a checkpoint: for those that exist in Python only, or mark languages as only it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError

__all__ = ["load_own_tokenizer"]


def load_own_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """What `AutoTokenizer` makes of the checkpoint in `folder`.

    Raises:
        ConfigurationError: if there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # anything a damaged or foreign folder can cause
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigurationError(f"The checkpoint in {folder} has no tokenizer that can be loaded: {why}.") from error
