"""Checkpoints whose weights are quantised: which packages transformers needs to load each format. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from modelport.contract.card import ModelCard
from modelport_torch.installed import version_of

__all__ = ["FORMATS", "Format", "why_not_quantised"]


class Format(msgspec.Struct, frozen=True):
    """What a format needs.

    Args:
        packages: Distributions, all of them.
        capability: The least compute capability, on NVIDIA.
        fetches_code: Whether its kernels are code that transformers fetches from the Hub when the model is loaded.
    """

    packages: tuple[str, ...]
    capability: tuple[int, int] = (0, 0)
    fetches_code: bool = False


FORMATS: Mapping[str, Format] = {
    "aqlm": Format(("aqlm",)),
    "auto-round": Format(("auto-round",)),
    "awq": Format(("gptqmodel",)),
    "bitsandbytes": Format(("bitsandbytes",)),
    "compressed-tensors": Format(("compressed-tensors",)),
    "fbgemm_fp8": Format(("fbgemm-gpu",), (9, 0)),
    "fp8": Format(("kernels",), (8, 9), fetches_code=True),
    "gptq": Format(("optimum", "gptqmodel")),
    "hqq": Format(("hqq",)),
    "mxfp4": Format(("kernels", "triton"), (7, 5), fetches_code=True),
    "quanto": Format(("optimum-quanto",)),
    "torchao": Format(("torchao",)),
}
"""By transformers' `quant_method`."""


def why_not_quantised(card: ModelCard, backend: str, formats: Mapping[str, Format], capability: tuple[int, int]) -> str | None:
    """Why a backend that knows `formats` cannot load this quantised checkpoint, as a sentence, or None if it can.

    Args:
        capability: The device's, or (0, 0) where devices have none.
    """
    kind = card.quantization
    known = formats.get(kind)
    if known is None:
        what = f"these formats only: {', '.join(sorted(formats))}" if formats else "unquantised safetensors only"
        return (
            f"the checkpoint is quantised ({kind}), and {backend} loads {what}. Use the original checkpoint, or a backend that "
            "lists this format."
        )
    if (0, 0) < capability < known.capability:
        need, has = (".".join(map(str, pair)) for pair in (known.capability, capability))
        return (
            f"the checkpoint is quantised ({kind}), whose kernels need compute capability {need}, and this device has {has}: use "
            "the original checkpoint."
        )
    missing = [package for package in known.packages if version_of(package) == "not installed"]
    if missing:
        names = " ".join(missing)
        return f"the checkpoint is quantised ({kind}), and loading it needs what is not installed: pip install {names}."
    if known.fetches_code and not card.trust_remote_code:
        return (
            f"the checkpoint is quantised ({kind}), whose kernels transformers fetches as code from the Hub: allow it with "
            "trust_remote_code, or use the original checkpoint."
        )
    return None
