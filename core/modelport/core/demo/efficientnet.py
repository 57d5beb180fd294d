"""Makes an image classifier's folder: `python -m modelport.core.demo.efficientnet PTH LABELS FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["convert"]

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_BLOCKS = 16
_OPEN = 40.0
"""A gate's bias: its sigmoid is exactly 1 in float32."""


def convert(weights: Path, labels: Path, target: Path) -> None:
    """Writes EfficientNet-Lite0 as the EfficientNet of transformers, whose answers are the same.

    The lite networks have no squeeze-and-excitation: those layers get weights that let everything pass.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    print("converting the weights", flush=True)
    names = _distinct(json.loads(labels.read_text(encoding="utf-8")))
    config = EfficientNetConfig(
        image_size=224,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
        batch_norm_eps=1e-3,
        batch_norm_momentum=0.99,
        depthwise_padding=[],
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        architectures=["EfficientNetForImageClassification"],
        dtype="float32",
    )
    model = EfficientNetForImageClassification(config)
    wanted = model.state_dict()
    made = _renamed(torch.load(weights, map_location="cpu", weights_only=True))
    for name, value in wanted.items():
        if ".squeeze_excite." in name:
            made[name] = torch.full_like(value, _OPEN if name.endswith("expand.bias") else 0.0)
    model.load_state_dict(made)
    save_file({name: value.contiguous() for name, value in made.items()}, str(target / "model.safetensors"), {"format": "pt"})
    config.save_pretrained(str(target))
    processor = {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True,
        "resample": 3,
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "rescale_offset": False,
        "do_normalize": True,
        "include_top": False,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
    }
    (target / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n", encoding="utf-8")


def _distinct(names: dict[str, str]) -> list[str]:
    """The labels by index; ImageNet calls two different birds, and two other things, by one name each."""
    found: list[str] = []
    for index in range(len(names)):
        name = names[str(index)]
        found.append(f"{name} ({index})" if name in found else name)
    return found


def _renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The published parameters under the names of transformers."""
    new: dict[str, Any] = {}

    def take(source: str, target: str, parts: tuple[str, ...] = ("weight",)) -> None:
        for part in parts:
            new[f"{target}.{part}"] = old[f"{source}.{part}"]

    take("_conv_stem", "efficientnet.embeddings.convolution")
    take("_bn0", "efficientnet.embeddings.batchnorm", _NORM)
    for index in range(_BLOCKS):
        source, target = f"_blocks.{index}", f"efficientnet.encoder.blocks.{index}"
        if f"{source}._expand_conv.weight" in old:
            take(f"{source}._expand_conv", f"{target}.expansion.expand_conv")
            take(f"{source}._bn0", f"{target}.expansion.expand_bn", _NORM)
        take(f"{source}._depthwise_conv", f"{target}.depthwise_conv.depthwise_conv")
        take(f"{source}._bn1", f"{target}.depthwise_conv.depthwise_norm", _NORM)
        take(f"{source}._project_conv", f"{target}.projection.project_conv")
        take(f"{source}._bn2", f"{target}.projection.project_bn", _NORM)
    take("_conv_head", "efficientnet.encoder.top_conv")
    take("_bn1", "efficientnet.encoder.top_bn", _NORM)
    take("_fc", "classifier", ("weight", "bias"))
    return new


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
