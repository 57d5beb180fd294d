"""A model from a checkpoint: the right auto class, safetensors only, in evaluation mode, on its device, and complete."""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError, OutOfMemory
from modelport.contract.program import Module
from modelport_torch.dtype import torch_dtype
from modelport_torch.memory import is_out_of_memory
from modelport_torch.progress import reported

__all__ = ["auto_class", "checkpoint_dtype", "load_model", "load_module"]


def auto_class(head: str) -> Any:
    """transformers' auto class of a head: `feature-extraction` is AutoModel, `causal-lm` is AutoModelForCausalLM, and so on.

    Raises:
        ConfigurationError: if the installed transformers has no such class.
    """
    if head == "feature-extraction":
        return transformers.AutoModel
    heads = {_letters(name.removeprefix("AutoModelFor")): name for name in dir(transformers) if name.startswith("AutoModelFor")}
    name = heads.get(_letters(head))
    if name is None:
        raise ConfigurationError(
            f"the head {head!r} has no auto class in transformers {transformers.__version__}; "
            "a newer version may have it, else the skill names a wrong one."
        )
    return getattr(transformers, name)


def checkpoint_dtype(folder: Path) -> str:
    """The type that config.json of a checkpoint names; float32 if it names none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "float32"
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return str(name).removeprefix("torch.")


def load_model(
    head: str,
    folder: Path,
    dtype: str,
    device: torch.device,
    progress: Progress,
    *,
    trust_remote_code: bool = False,
    attention: str | None = None,
    unused: Collection[str] = (),
) -> Any:
    """The model of `head` in `folder`, ready to be called.

    Weights are read tensor by tensor into a model without memory of its own, so the peak is little over their size.

    Args:
        unused: Parts of tensor names (`pooler`) that may be missing, because no output depends on them.

    Raises:
        ConfigurationError: if the checkpoint cannot be loaded, or lacks weights that the head needs: what would be
            random is refused and named.
        OutOfMemory: if it does not fit.
    """
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if device.type != "cpu":
        options["device_map"] = {"": str(device)}
    try:
        with reported(progress):
            model, info = auto_class(head).from_pretrained(
                str(folder),
                dtype=torch_dtype(dtype),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"the weights of {folder} do not fit in the memory of {device}.") from None
        raise ConfigurationError(f"the checkpoint {folder} cannot be loaded as {head}: {_sentence(error)}") from error
    _refuse_random(info, head, folder, unused)
    return model.eval().requires_grad_(False)


def load_module(entry: Module, folder: Path, dtype: str | None, device: torch.device) -> torch.nn.Module:
    """The module that `entry.build` makes, on its device. `dtype` None leaves its weights in their own type.

    Raises:
        ConfigurationError: if the builder cannot be imported or does not return a module.
    """
    module_name, _, attribute = entry.build.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"the builder {entry.build!r} cannot be imported: {_sentence(error)} "
            "It must be `package.module:function` of an installed package."
        ) from error
    module = build(folder, **entry.kwargs)
    if not isinstance(module, torch.nn.Module):
        raise ConfigurationError(f"the builder {entry.build!r} returned a {type(module).__name__}, not a torch.nn.Module.")
    module = module.to(device) if dtype is None else module.to(device, torch_dtype(dtype))
    return module.eval().requires_grad_(False)


def _refuse_random(info: dict[str, Any], head: str, folder: Path, unused: Collection[str]) -> None:
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get("mismatched_keys") or ())
    missing = sorted(key for key in info.get("missing_keys") or () if not any(part in key for part in unused))
    for names, what in ((missing, "lacks"), (mismatched, "has other shapes of")):
        if names:
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            raise ConfigurationError(
                f"the checkpoint {folder} {what} weights that {head} needs ({shown}); they would be random. "
                f"Use a checkpoint that was trained for {head}, or serve this one for another task."
            )


def _letters(name: str) -> str:
    return "".join(c for c in name.lower().replace("2", "to") if c.isalnum())


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 400 else text[:400] + "…"
    return text if text.endswith((".", "!", "?", "…")) else text + "."
