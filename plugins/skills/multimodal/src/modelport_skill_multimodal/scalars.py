"""Single numbers among a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

from modelport.contract import ConfigurationError
from modelport_hf.folder import read_json

__all__ = ["read_scalar"]


def read_scalar(folder: Path, name: str) -> float:
    """The value of the tensor `name`, of one element, in the checkpoint's safetensors files.

    Raises:
        ConfigurationError: if the checkpoint has no such tensor.
    """
    from safetensors import safe_open

    index = read_json(folder, "model.safetensors.index.json") or {}
    file = folder / str(index.get("weight_map", {}).get(name, "model.safetensors"))
    if file.is_file():
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118 — not a mapping
                return float(tensors.get_tensor(name).float().reshape(()))
    raise ConfigurationError(f"The checkpoint {folder} has no tensor {name!r}, without which its scores cannot be computed.")
