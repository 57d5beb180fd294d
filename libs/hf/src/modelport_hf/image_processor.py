"""A checkpoint's own image processor, on whichever of its two implementations works here. Imports transformers when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError

__all__ = ["has_image_processor", "load_image_processor"]

_FILES = frozenset({"preprocessor_config.json", "processor_config.json"})


def has_image_processor(files: tuple[str, ...]) -> bool:
    """Whether the files of a checkpoint describe how to prepare its inputs."""
    return not _FILES.isdisjoint(files)


def load_image_processor(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """transformers' processor for the checkpoint in `folder`: the one on torchvision where that loads, else the one on Pillow.

    Raises:
        ConfigurationError: if there is none, or it needs torchvision, which is not there.
    """
    # By its full name: the class that `from transformers import AutoImageProcessor` gives refuses to work without torchvision.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    backend = "torchvision" if _torchvision_loads() else "pil"
    try:
        return AutoImageProcessor.from_pretrained(
            str(folder), backend=backend, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        advice = "" if backend == "torchvision" else " It may need torchvision, which does not load here: install it beside torch."
        raise ConfigurationError(f"The image processor of the checkpoint {folder} cannot be loaded: {why}.{advice}") from error


def _torchvision_loads() -> bool:
    """Whether transformers sees torchvision and it works: one that was built for another torch raises when imported."""
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():
        return False
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except Exception:
        return False
    return True
