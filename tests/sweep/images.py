"""Pictures, and image processors made on the spot: the class that transformers names for a model type, with small sizes."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import pkgutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from build import CannotBuild, note_of

SIZES = ((61, 47), (40, 70), (90, 50))
"""(width, height) of three pictures."""


def picture(seed: int, width: int, height: int) -> Any:
    """Smooth random colours, other ones for every seed: of all kinds, dark, or bright."""
    from PIL import Image

    least, most = ((0, 256), (0, 90), (140, 256))[seed % 3]
    coarse = np.random.default_rng(seed).integers(least, most, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pictures() -> list[Any]:
    """Three, of different sizes."""
    return [picture(seed, *size) for seed, size in enumerate(SIZES)]


def media(image: Any) -> dict[str, str]:
    """The picture as a request holds it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def opened(sent: dict[str, str]) -> Any:
    """The picture of a request."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(sent["url"].partition(",")[2]))).convert("RGB")


def mask(answer: Any) -> np.ndarray:
    """The pixels of a mask in an answer, 1.0 where it is."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(answer.data)), np.float64) / 255


def write_processor(pair: Any, model: Any, folder: Path) -> Any:
    """The processor, written to the checkpoint's folder and read again.

    Raises:
        CannotBuild: if transformers has none for the type, on Pillow.
    """
    kind = _class_of(pair)
    options = processor_options(kind, side_of(model.config)) | dict(note_of(pair, "_processor_options") or {})
    kind(**options).save_pretrained(folder)
    return kind.from_pretrained(folder)


def side_of(config: Any) -> int:
    """Height and width that a model expects, in pixels."""
    for part in (config, getattr(config, "vision_config", None), getattr(config, "backbone_config", None)):
        size = getattr(part, "image_size", None)
        if size:
            return int(size if isinstance(size, int) else size[0])
    return 64


def pixels(model: Any, processor: Any, images: Any) -> dict[str, Any]:
    """The inputs of one picture, or one video, that the model's forward takes."""
    takes = inspect.signature(model.forward).parameters
    made = processor([images], return_tensors="pt")
    return {name: made[name] for name in made if name in takes and name != "mask_labels"}


def _class_of(pair: Any) -> Any:
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    noted = note_of(pair, "_processor")
    if noted:
        return processor_class(noted)
    name = (IMAGE_PROCESSOR_MAPPING_NAMES.get(pair.model_type) or {}).get("pil")
    if name is None:
        raise CannotBuild(f"transformers names no image processor on Pillow for {pair.model_type}")
    owners = [kind for kind, classes in IMAGE_PROCESSOR_MAPPING_NAMES.items() if classes.get("pil") == name]
    stem = name.removesuffix("ImageProcessorPil").lower()
    owner = next((kind for kind in owners if kind.replace("_", "").replace("-", "") == stem), pair.model_type)
    return processor_class(f"{model_type_to_module_name(owner)}.{name}")


def processor_class(place: str) -> Any:
    """The class `module.Class` of an image processor, whichever file of the module it stands in."""
    module, _, name = place.partition(".")
    package = importlib.import_module(f"transformers.models.{module}")
    files = [file.name for file in pkgutil.iter_modules(package.__path__) if file.name.startswith("image_processing_")]
    for file in sorted(files, key=lambda each: "_pil_" not in each):
        with suppress(ImportError):
            if found := getattr(importlib.import_module(f"{package.__name__}.{file}"), name, None):
                return found
    raise CannotBuild(f"the image processor {name} cannot be imported")


def processor_options(kind: Any, side: int) -> dict[str, Any]:
    """Sizes of the processor's own form, small."""
    made = {}
    own = kind()
    for name in ("size", "crop_size"):
        sizes = getattr(own, name, None)
        if sizes is None:
            continue
        sizes = dict(sizes)
        small = {"longest_edge": side * 3 // 2, "max_height": side, "max_width": side}
        made[name] = {key: small.get(key, side) for key, value in sizes.items() if value is not None}
    return made
