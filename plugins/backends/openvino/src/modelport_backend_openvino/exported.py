"""Language models through transformers' own exporter: where its version is too new for optimum."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport_torch.support import text_config

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["cannot_export", "exported", "generator_converter"]


def generator_converter() -> str | None:
    """What converts language models here: `optimum-intel`, else `transformers.exporters`, else nothing. Imports neither."""
    try:
        metadata.version("optimum-intel")
    except metadata.PackageNotFoundError:
        folder = importlib.util.find_spec("transformers")
        places = list(folder.submodule_search_locations or ()) if folder is not None else []
        return "transformers.exporters" if any((Path(place) / "exporters").is_dir() for place in places) else None
    return "optimum-intel"


def cannot_export(config: Mapping[str, Any]) -> str | None:
    """Why a model of this config.json cannot go through transformers' exporter, as a sentence, or None."""
    text = text_config(config)
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        is_windowed = any("sliding" in str(kind) or "chunked" in str(kind) for kind in kinds)
    else:
        is_windowed = bool(text.get("sliding_window")) and text.get("use_sliding_window", True) is not False
    if not is_windowed:
        return None
    return (
        "some of its layers see a window of the text only, which is lost between transformers' exporter and OpenVINO's paged "
        "attention. Use a transformers below 5.6 with 'modelport-backend-openvino[convert]', or another backend."
    )


def exported(checkpoint: Path, *, trust_remote_code: bool = False) -> tuple[ov.Model, list[Any]]:
    """A stateful decoder that takes any number of tokens at once, with logits as its only output; and the configurations that
    belong beside it, to be saved.

    Raises:
        RuntimeError, ValueError: the architecture cannot be exported.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    logging.getLogger("torch._export").setLevel(logging.ERROR)  # it tells of every axis of one
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, local_files_only=True, trust_remote_code=trust_remote_code
    ).eval()
    ids = torch.ones((2, 4), dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made = OpenVINOExporter().export_for_generation(model, inputs, config=OpenVINOConfig(dynamic=True), multi_token_decode=True)
    decoder: ov.Model = made.components["decode"].program
    for result in decoder.get_results():  # caches with a window export a number of their own
        if "logits" not in result.get_output_tensor(0).get_names():
            decoder.remove_result(result)
    return decoder, [model.config, model.generation_config]
