"""A checkpoint's own image processor, on whichever of its two implementations works here. Imports transformers when called."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelport.contract.card import ModelCard
from modelport.contract.errors import ConfigurationError
from modelport_hf.folder import read_json

__all__ = ["fixed_size", "image_settings", "load_image_processor", "torchvision_loads"]


def image_settings(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of its image processor; empty if it has none, or one for sound.

    Raises:
        ConfigurationError: if the file is not JSON.
    """
    own = read_json(folder, "preprocessor_config.json") or (read_json(folder, "processor_config.json") or {}).get(
        "image_processor"
    )
    if not isinstance(own, dict) or "sampling_rate" in own:
        return {}
    return own if not {"image_processor_type", "image_mean", "size", "do_resize"}.isdisjoint(own) else {}


def fixed_size(card: ModelCard) -> tuple[int, int] | None:
    """(height, width) that the checkpoint's processor makes of every image, or None if that depends on the image."""
    try:
        own = image_settings(Path(card.path)) if card.path else {}
    except ConfigurationError:
        return None  # the session will say what is wrong with the file
    if own.get("do_center_crop") is True:
        return _sides(own.get("crop_size"))
    if own.get("do_resize") is True and not own.get("keep_aspect_ratio") and not own.get("do_pad"):
        return _sides(own.get("size"))
    return None


def _sides(size: Any) -> tuple[int, int] | None:
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def load_image_processor(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """transformers' processor for the checkpoint in `folder`: the one on torchvision where that loads, else the one on Pillow.

    Raises:
        ConfigurationError: if there is none, or it needs torchvision, which is not there.
    """
    # By its full name: the class that `from transformers import AutoImageProcessor` gives refuses to work without torchvision.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    backend = "torchvision" if torchvision_loads() else "pil"
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        made = _pillow_class(folder) if backend == "pil" else None
        if made is not None:
            return made.from_pretrained(str(folder), local_files_only=True)
        return AutoImageProcessor.from_pretrained(str(folder), backend=backend, **options)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        advice = (
            "" if backend == "torchvision" else " It may need torchvision, which does not load here: install it beside torch."
        )
        raise ConfigurationError(f"The image processor of the checkpoint {folder} cannot be loaded: {why}.{advice}") from error


def _pillow_class(folder: Path) -> Any:
    """The class on Pillow of the processor that the checkpoint names, or None. It is imported from the file that defines it: a
    few are hidden by their package where torchvision is missing, though they do not need it, and a few are in files of other
    names than most."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    own = read_json(folder, "preprocessor_config.json") or (read_json(folder, "processor_config.json") or {}).get(
        "image_processor"
    )
    named = str((own or {}).get("image_processor_type") or (own or {}).get("feature_extractor_type") or "")
    if "auto_map" in (own or {}):
        return None
    if named:
        stem = named.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
        wanted = {stem, f"{stem}Pil"}
    else:
        model_type = (read_json(folder, "config.json") or {}).get("model_type")
        wanted = {IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {}).get("pil")}
    for model_type, classes in IMAGE_PROCESSOR_MAPPING_NAMES.items():
        if (name := classes.get("pil")) in wanted:
            package = importlib.import_module(f"transformers.models.{model_type_to_module_name(model_type)}")
            files = [file.name for file in pkgutil.iter_modules(package.__path__) if file.name.startswith("image_processing_")]
            # Not by one name: mobilenet_v1's file is called otherwise than all others', and BLIP's two are in each other's place.
            for file in sorted(files, key=lambda each: "_pil_" not in each):
                with suppress(ImportError):
                    found = importlib.import_module(f"{package.__name__}.{file}")
                    if hasattr(found, name):
                        return getattr(found, name)
    return None


def torchvision_loads() -> bool:
    """Whether transformers sees torchvision and it works: one that was built for another torch raises when imported."""
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():
        return False
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except Exception:
        return False
    return True
