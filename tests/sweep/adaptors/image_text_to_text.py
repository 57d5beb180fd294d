"""Conversations about an image, continued greedily."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from build import CannotBuild
from images import media, opened, pictures, processor_class, processor_options, side_of
from pairs import HERE
from shrink import FIRST_MARK
from text import read_tokenizer, write_tokenizer

RECIPES: dict[str, dict[str, Any]] = tomllib.loads((HERE / "seeing.toml").read_text(encoding="utf-8"))
NEW = 8
QUESTIONS = ("what?", "is this a cat", "tell me of it.")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %} {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def recipe(pair: Any) -> dict[str, Any]:
    """What seeing.toml says of a type, over what it says of the type that it is like.

    Raises:
        CannotBuild: if it says nothing, or why it cannot be asked.
    """
    own = RECIPES.get(pair.model_type)
    if own is None:
        raise CannotBuild(f"the sweep has no processor for {pair.model_type} yet")
    if "cannot" in own:
        raise CannotBuild(own["cannot"])
    return (recipe_of(own["like"]) if "like" in own else {}) | own


def recipe_of(name: str) -> dict[str, Any]:
    own = RECIPES[name]
    return (recipe_of(own["like"]) if "like" in own else {}) | own


def settings(pair: Any) -> dict[str, Any]:
    """What the configuration is to be for this processor."""
    told = recipe(pair)
    marks = {mark: FIRST_MARK + at for at, mark in enumerate(told["marks"])}
    return {**told.get("config", {}), **{field: marks[mark] for field, mark in told["ids"].items()}}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    told = recipe(pair)
    is_plain = told.get("plain", False)
    write_tokenizer(folder, encloses=told.get("encloses", is_plain), marks=told["marks"], names=told.get("names", {}))
    tokenizer = read_tokenizer(folder)
    eyes_class = processor_class(told["eyes"])
    eyes = eyes_class(**processor_options(eyes_class, side_of(model.config)) | told.get("eyes_options", {}))
    eyes = eyes_class.from_dict(eyes.to_dict())  # some take other defaults than they write
    made = _without_videos(_class_of(told["processor"]))
    parts = {"image_processor": eyes, "tokenizer": tokenizer}
    if "video_processor" in made.get_attributes():
        parts["video_processor"] = None
    if "qformer_tokenizer" in made.get_attributes():
        parts["qformer_tokenizer"] = read_tokenizer(folder)
    if "hears" in told:
        parts["feature_extractor"] = _class_of(told["hears"])()
    processor = made(**parts, **told.get("options", {}))
    processor.chat_template = None if is_plain else TEMPLATE.replace("IMAGE", told["shows"])
    processor.begins, processor.drops = told.get("begins", ""), told.get("drops", 0)
    if getattr(processor, "video_processor", processor) is not None:
        processor.save_pretrained(folder)
    else:  # a file for each part, as older checkpoints have them
        eyes.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        own = {**told.get("options", {}), "processor_class": told["processor"]}
        (folder / "processor_config.json").write_text(json.dumps(own))
        (folder / "chat_template.jinja").write_text(processor.chat_template)
    return processor


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    is_asked = not recipe(pair).get("mute", False)
    made = []
    for image, question in zip(pictures(), QUESTIONS, strict=True):
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": media(image)}]
        if is_asked:
            content.append({"type": "text", "text": question})
        made.append({"messages": [{"role": "user", "content": content}], "max_new_tokens": NEW, "do_sample": False})
    return made


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    shown, *asked = request["messages"][0]["content"]
    image = opened(shown["image_url"])
    if getattr(tools, "chat_template", None):
        turns = [{"role": "user", "content": [{"type": "image"}, *asked]}]
        text = tools.tokenizer.apply_chat_template(
            turns, chat_template=tools.chat_template, tokenize=False, add_generation_prompt=True
        )
        inputs = tools(text=[text], images=[[image]], return_tensors="pt")
    else:
        options: dict[str, Any] = {"add_special_tokens": False} if tools.begins else {}
        options |= {"text": tools.begins + asked[0]["text"]} if asked else {}
        inputs = tools(images=image, return_tensors="pt", **options)
        inputs = {name: value for name, value in inputs.items() if name not in ("labels", "decoder_attention_mask")}
    made = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    prompt = inputs.get("decoder_input_ids" if model.config.is_encoder_decoder else "input_ids")
    begin = 0 if prompt is None else prompt.shape[1] - tools.drops
    return tools.tokenizer.decode(made[0, begin:], skip_special_tokens=True)


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.choices[0].text


def _class_of(name: str) -> Any:
    """A processor's class. Two import a function from a module that needs torchvision, which the one on Pillow has too."""
    import transformers

    if name not in ("PixtralProcessor", "FuyuProcessor"):
        return getattr(transformers, name)
    kind = name.removesuffix("Processor").lower()
    module = f"transformers.models.{kind}"
    sys.modules[f"{module}.image_processing_{kind}"] = importlib.import_module(f"{module}.image_processing_pil_{kind}")
    try:
        return getattr(importlib.import_module(f"{module}.processing_{kind}"), name)
    finally:
        del sys.modules[f"{module}.image_processing_{kind}"]


def _without_videos(kind: Any) -> Any:
    """A processor's class that does without a part for videos, which needs torchvision."""

    def check(self: Any, name: str, part: Any) -> Any:
        return part if part is None else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
