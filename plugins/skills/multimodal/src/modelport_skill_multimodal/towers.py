"""Models of two towers, one for images and one for texts, whose outputs can be compared: CLIP, SigLIP and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from modelport.contract import (
    ArraySpec,
    Claim,
    ConfigurationError,
    Forward,
    ModelCard,
    Module,
    Output,
    Program,
    Session,
    SessionContext,
)
from modelport_hf.folder import has_tokenizer, read_json
from modelport_hf.heads import head_of
from modelport_hf.image_processor import fixed_size

__all__ = ["Kind", "claim", "kind_of", "programs", "session"]

_TASKS = ("zero-shot-image-classification", "feature-extraction", "image-feature-extraction")
_HEAD = "zero-shot-image-classification"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How a type of model compares an image with texts.

    Args:
        scale: The tensor that scales cosines to logits; empty if they are logits already.
        inverse: Whether cosines are divided by it; else they are multiplied by its exponential.
        bias: The tensor that is added then; empty if none is.
        scores: Whether labels exclude each other.
        whole: Whether texts are padded to the longest that the model takes, as it was trained: its last token is what it pools.
        patches: Whether images come as a list of patches, whose number does not tell the image's shape.
    """

    scale: str = "logit_scale"
    inverse: bool = False
    bias: str = ""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    whole: bool = False
    patches: bool = False


_KINDS = {
    "clip": Kind(),
    "clipseg": Kind(),
    "metaclip_2": Kind(),
    "altclip": Kind(),
    "chinese_clip": Kind(),
    "blip": Kind(),
    "align": Kind(scale="temperature", inverse=True),
    "siglip": Kind(bias="logit_bias", scores="sigmoid", whole=True),
    "siglip2": Kind(bias="logit_bias", scores="sigmoid", whole=True, patches=True),
    "blip-2": Kind(scale=""),
}


def kind_of(card: ModelCard) -> Kind | None:
    """The kind of a checkpoint that has both towers, and the files to feed them."""
    plain = "zero-shot-image-classification" if card.model_type == "blip-2" else "feature-extraction"
    if head_of(card.architectures) != plain or not {"text_config", "vision_config"} <= set(card.config):
        return None
    return _KINDS.get(card.model_type) if has_tokenizer(card.files) else None


def claim(card: ModelCard) -> Claim | None:
    """All three tasks of a checkpoint with both towers."""
    if kind_of(card) is None:
        return None
    return Claim(_TASKS, 100, f"{card.architectures[0]} has a tower for images and one for texts")


def programs(card: ModelCard) -> Mapping[str, Program]:
    """One program for all tasks: an entry for each tower, over one set of weights."""
    kind = kind_of(card)
    assert kind is not None, "the skill asks for what it claims"
    texts = [ArraySpec("input_ids", pad=None), *([ArraySpec("attention_mask")] if _is_masked(card) else [])]
    images = [ArraySpec("pixel_values", "float32", ("batch", 3, *(fixed_size(card) or ("height", "width"))))]
    if kind.patches:
        images = [
            ArraySpec("pixel_values", "float32", ("batch", "patches", "pixels")),
            ArraySpec("pixel_attention_mask", "int64", ("batch", "patches")),
            ArraySpec("spatial_shapes", "int64", ("batch", 2)),
        ]
    entries: dict[str, Forward | Module] = {}
    for name, call, inputs in (("image", "get_image_features", images), ("text", "get_text_features", texts)):
        if card.model_type == "blip-2":
            build = "modelport_skill_multimodal.blip2:build"
            entries[name] = Module(build=build, inputs=tuple(inputs), outputs=(Output("embedding"),))
        else:
            outputs = (Output("embedding", source="pooler_output"),)
            entries[name] = Forward(head=_HEAD, call=call, inputs=tuple(inputs), outputs=outputs)
    return dict.fromkeys(_TASKS, Program({**entries}))


def session(context: SessionContext) -> Session:
    """The session of all three tasks."""
    from modelport_skill_multimodal.towers_session import TowersSession

    return TowersSession(context)


def _is_masked(card: ModelCard) -> bool:
    """Whether the model is told which tokens are padding: SigLIP's tokenizers say that it is not."""
    try:
        names = (read_json(Path(card.path), "tokenizer_config.json") or {}).get("model_input_names") if card.path else None
    except ConfigurationError:
        return True  # the session will say what is wrong with the file
    return not isinstance(names, list) or "attention_mask" in names
