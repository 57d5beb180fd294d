"""A checkpoint's own processor: what makes a model's inputs of text and images together. Imports transformers when called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelport.contract.errors import ConfigurationError
from modelport_hf.folder import read_json
from modelport_hf.image_processor import load_image_processor, torchvision_loads

__all__ = ["load_processor", "processor_class_of"]


def processor_class_of(folder: Path) -> str:
    """The name of the processor's class that the checkpoint's files name; empty if they name none."""
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        named = (read_json(folder, name) or {}).get("processor_class")
        if isinstance(named, str):
            return named
    return ""


def load_processor(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """transformers' processor for the checkpoint in `folder`. Without torchvision its images are prepared by Pillow, and it takes
    no videos.

    Raises:
        ConfigurationError: if there is none, a part of it is missing, or it needs torchvision, which is not there.
    """
    from transformers import AutoProcessor

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        if torchvision_loads() or "auto_map" in (read_json(folder, "processor_config.json") or {}):
            return AutoProcessor.from_pretrained(str(folder), **options)
        return _assembled(_class_named(folder), folder, trust_remote_code)
    except ConfigurationError:
        raise
    except Exception as error:  # anything a damaged or foreign folder can cause
        why = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise ConfigurationError(f"The processor of the checkpoint {folder} cannot be loaded: {why}.") from error


def _assembled(kind: type[Any], folder: Path, trust_remote_code: bool) -> Any:
    """The processor from its parts, of which the one for videos is left out: there is none without torchvision."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    parts: list[Any] = []
    for name in kind.get_attributes():
        if "tokenizer" in name:
            place = {} if name == "tokenizer" else {"subfolder": name}
            parts.append(AutoTokenizer.from_pretrained(str(folder), **place, **options))
        elif name == "image_processor":
            parts.append(load_image_processor(folder, trust_remote_code=trust_remote_code))
        elif name == "feature_extractor":
            parts.append(AutoFeatureExtractor.from_pretrained(str(folder), **options))
        else:
            parts.append(None)
    settings, _ = kind.get_processor_dict(str(folder), **options)
    return _lenient(kind).from_args_and_dict(parts, settings)


def _lenient(kind: type[Any]) -> Any:
    """`kind`, which a part may be missing from."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def _class_named(folder: Path) -> type[Any]:
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    model_type = (read_json(folder, "config.json") or {}).get("model_type")
    name = processor_class_of(folder) or PROCESSOR_MAPPING_NAMES.get(model_type)
    if not name:
        raise ConfigurationError(
            f"The checkpoint {folder} names no processor, and transformers knows none for {model_type or 'its type'}. "
            "Add its processor_config.json or preprocessor_config.json."
        )
    kinds = [kind for kind, known in PROCESSOR_MAPPING_NAMES.items() if known == name]
    for module in dict.fromkeys(model_type_to_module_name(kind) for kind in kinds):
        try:
            with _pillow_for_torchvision(module):
                found = importlib.import_module(f"transformers.models.{module}.processing_{module}")
        except ModuleNotFoundError as error:
            if error.name == "torchvision":
                raise
            continue
        if hasattr(found, name):
            return getattr(found, name)  # type: ignore[no-any-return]
    import transformers

    return getattr(transformers, name)  # type: ignore[no-any-return]


@contextmanager
def _pillow_for_torchvision(module: str) -> Iterator[None]:
    """While a processor's module is imported, the image processor on Pillow stands for the one on torchvision: a few (Pixtral,
    Fuyu) take a function from the latter that the former has too, and use nothing else of it."""
    full = f"transformers.models.{module}.image_processing_{module}"
    try:
        pillow = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    except ImportError:
        pillow = None
    if pillow is None or full in sys.modules:
        yield
        return
    sys.modules[full] = pillow
    try:
        yield
    finally:
        del sys.modules[full]
