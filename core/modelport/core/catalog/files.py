"""Which files of a checkpoint are its weights, and which of a repository are worth fetching. Pure: names in, names out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

__all__ = ["CONVERT_HINT", "SAFETENSORS_INDEX", "other_weights", "pickles", "safetensors_weights", "wanted"]

SAFETENSORS_INDEX = "model.safetensors.index.json"

CONVERT_HINT = (
    "Pickle can run code when it is read, so modelport refuses it. Look for a version in safetensors, or convert it once where "
    "that does no harm: load it with transformers and save_pretrained('NEW_FOLDER') writes model.safetensors"
)

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
_OTHERS = frozenset({".onnx", ".gguf"})
_IR = re.compile(r"(.*/)?openvino_\w+\.(xml|bin)")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_MODULE = re.compile(r"\d+_\w+/model\.safetensors")
_NOT_FETCHED = frozenset(
    ".bin .pt .pth .ckpt .pkl .pickle .joblib .h5 .msgpack .ot .tflite .pb .npz .onnx .onnx_data .gguf .safetensors "
    ".mlmodel .mlpackage .tar .gz .zip .png .jpg .jpeg .gif .webp .svg .mp4 .mov .mp3 .wav .pdf .parquet .arrow .ipynb".split()
)


def safetensors_weights(names: Iterable[str]) -> list[str]:
    """The safetensors files that hold the model itself: its shards, or `model.safetensors`, or whatever lies at the top.

    Duplicates in another layout (`consolidated.safetensors`), variants (`model.fp16.safetensors` beside `model.safetensors`) and
    adapters are not among them.
    """
    top = sorted(name for name in names if "/" not in name and name.endswith(".safetensors"))
    shards = [name for name in top if _SHARD.fullmatch(name)]
    if shards:
        return shards
    if "model.safetensors" in top:
        return ["model.safetensors"]
    return [name for name in top if not name.startswith(("consolidated", "adapter_"))]


def other_weights(names: Iterable[str]) -> list[str]:
    """Weights in a safe format that is not safetensors: ONNX, GGUF, OpenVINO IR."""
    return sorted(name for name in names if PurePosixPath(name).suffix in _OTHERS or _IR.fullmatch(name))


def pickles(names: Iterable[str]) -> list[str]:
    """Files at the top that hold weights as pickle."""
    return sorted(
        name for name in names if "/" not in name and PurePosixPath(name).suffix in _PICKLES and not _IR.fullmatch(name)
    )


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a repository to fetch: weights once, in the best format there is, and every small file beside them."""
    everything = sorted(names)
    weights = safetensors_weights(everything)
    if weights:
        weights += [name for name in everything if _MODULE.fullmatch(name)]
    else:
        weights = [name for name in everything if name.endswith((".onnx", ".onnx_data", ".onnx.data")) or _IR.fullmatch(name)]
    small = [
        name
        for name in everything
        if PurePosixPath(name).suffix.lower() not in _NOT_FETCHED
        and not name.startswith((".", "original/", "runs/"))
        and not name.endswith(".index.json")
    ]
    index = [SAFETENSORS_INDEX] if SAFETENSORS_INDEX in everything else []
    return sorted({*weights, *small, *index})
