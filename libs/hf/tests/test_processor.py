"""A checkpoint's processor is transformers' own, with torchvision or without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelport.contract.errors import ConfigurationError
from modelport.testing.checkpoints import tiny_llama, tiny_llava
from modelport_hf.chat import ChatTemplates, load_chat_templates
from modelport_hf.processor import load_processor, processor_class_of


def test_it_makes_tokens_and_pixels_of_texts_and_images(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava")
    assert processor_class_of(folder) == "LlavaProcessor"
    made = load_processor(folder)
    inputs = made(text=["a<image>b"], images=[[Image.new("RGB", (50, 30), "red")]], return_tensors="pt")
    mark = json.loads((folder / "config.json").read_text())["image_token_index"]
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    assert (np.asarray(inputs["input_ids"]) == mark).sum() == 16


def test_pixtral_needs_no_torchvision(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "pixtral")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "PixtralProcessor", "image_token": "<image>"}))
    pixels = {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 32}, "patch_size": 8}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    assert type(load_processor(folder)).__name__ == "PixtralProcessor"


def test_a_checkpoint_without_a_processor_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names no processor, and transformers knows none for llama"):
        load_processor(tiny_llama(tmp_path / "llama"))


def test_a_processor_that_lacks_a_part_is_told_so(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigurationError, match="image processor"):
        load_processor(folder)


def test_the_processors_template_goes_before_the_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "of the tokenizer"}))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    assert load_chat_templates(tmp_path, {}).source(False) == "of the tokenizer"
    assert load_chat_templates(tmp_path, {}, of_processor=True).source(False) == "of the processor"


@pytest.mark.parametrize(
    ("source", "reads_text"),
    [
        ("{% if m['content'] is string %}{{ m['content'] }}{% else %}…{% endif %}", True),
        ("{% if message.content is not string %}…{% endif %}", True),
        ("{% for part in message['content'] %}{{ part['text'] }}{% endfor %}", False),
    ],
)
def test_it_is_seen_whether_a_template_takes_plain_text(source: str, reads_text: bool) -> None:
    assert ChatTemplates({"default": source}, {}).reads_text(False) is reads_text
