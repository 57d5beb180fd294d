"""A checkpoint's own feature extractor for sound. Imports transformers when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport_hf.folder import read_json

__all__ = ["load_feature_extractor", "sound_settings"]


def sound_settings(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of its feature extractor for sound; empty if it has none.

    Raises:
        ConfigurationError: if the file is not JSON.
    """
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "feature_extractor")):
        own = read_json(folder, name)
        own = own.get(key) if key and isinstance(own, dict) else own
        if isinstance(own, dict) and "sampling_rate" in own:
            return own
    return {}


def load_feature_extractor(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """transformers' feature extractor for the checkpoint in `folder`.

    Raises:
        ConfigurationError: if there is none, or it cannot be loaded.
    """
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigurationError(f"The feature extractor of the checkpoint {folder} cannot be loaded: {why}.") from error
