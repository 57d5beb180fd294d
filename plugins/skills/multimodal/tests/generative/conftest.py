"""Tiny models of images and text on disk, and a worker that serves them."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import transformers as t
from PIL import Image

from modelport.contract import ModelCard
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

from . import caption_models, chat_models
from .parts import IDS


def save_processor(processor: Any, folder: Path) -> None:
    """In one file, or, where the part for videos is missing, in one for each part as older checkpoints have them."""
    if getattr(processor, "video_processor", processor) is not None:
        processor.save_pretrained(folder)
        return
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    own = {name: value for name, value in vars(processor).items() if isinstance(value, int | str) and name != "chat_template"}
    (folder / "processor_config.json").write_text(json.dumps(own | {"processor_class": type(processor).__name__}))
    (folder / "chat_template.jinja").write_text(processor.chat_template)


class Checkpoint:
    """A model on disk, and its processor as it was made, not as it was read.

    Attributes:
        folder: Where it lies.
        processor: transformers' own.
        model: transformers' own, read from the folder.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        import torch

        self.folder = folder
        folder.mkdir()
        config, self.processor = (getattr(chat_models, kind, None) or getattr(caption_models, kind))(folder)
        auto = t.AutoModelForVisualQuestionAnswering if kind == "blip_vqa" else t.AutoModelForImageTextToText
        made = auto.from_config(config)
        generator = torch.Generator().manual_seed(11)
        for name, parameter in made.named_parameters():  # wide enough that answers depend on what is seen
            if "gate" in name:  # closed at first: Mllama would see nothing
                parameter.data += 1.0
            elif parameter.dim() > 1:
                wide = 0.05 if re.search(r"\.(q|k|q_proj|k_proj)\.", name) else 0.3
                parameter.data = torch.randn(parameter.shape, generator=generator) * wide
            elif not name.endswith("norm.weight"):
                parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
        # No token twice: random weights would say one for ever, whatever they see. Mllama's mark of images has no logit.
        ids = IDS if self.processor.tokenizer.bos_token_id else {}
        made.generation_config.update(no_repeat_ngram_size=0 if kind == "mllama" else 1, **ids)
        made.save_pretrained(folder)
        save_processor(self.processor, folder)
        self.model = type(made).from_pretrained(folder).eval()

    def render(self, conversation: list[dict[str, Any]]) -> str:
        """The conversation as the processor's template writes it."""
        template = self.processor.chat_template
        return str(
            self.processor.tokenizer.apply_chat_template(
                conversation, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )

    def inputs(self, text: str, images: Iterable[Image.Image], **options: Any) -> Any:
        pictures = list(images)
        made = self.processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt", **options)
        made.pop("labels", None)
        return made

    def generate(self, inputs: Any, count: int = 8, skip: int | None = None) -> list[int]:
        """What the model's own `generate` adds to the prompt, which are `skip` tokens."""
        import torch

        config = copy.deepcopy(self.model.generation_config)  # that of a writer within would be taken else
        config.update(max_new_tokens=count, do_sample=False)
        with torch.inference_mode():
            (made,) = self.model.generate(**inputs, generation_config=config)
        if skip is None:
            skip = len(inputs["input_ids"][0]) if "input_ids" in inputs else 0
        return [int(token) for token in made[skip:]]

    def text(self, tokens: list[int]) -> str:
        """Tokens as text."""
        return str(self.processor.tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    root, made = tmp_path_factory.mktemp("generative"), {}

    def get(kind: str) -> Checkpoint:
        if kind not in made:
            made[kind] = Checkpoint(root / kind, kind)
        return made[kind]

    return get


def draw(seed: int = 0, width: int = 61, height: int = 47) -> bytes:
    """A PNG of smooth random colours, other ones for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


class Server(SkillSuite):
    """The real worker on the cpu backend; collected by nobody."""

    __test__ = False
    skill = Multimodal()
    backend = CpuBackend()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self, folder: Path) -> ModelCard:
        return full_card(self.folder)


def full_card(folder: Path) -> ModelCard:
    """The card of a tiny checkpoint, with what the catalogue would find in its files."""
    card = card_of(folder)
    text = card.config.get("text_config") or card.config.get("decoder") or card.config
    return msgspec.structs.replace(
        card,
        has_chat_template=(folder / "chat_template.jinja").exists(),
        context_length=text.get("max_position_embeddings", text.get("n_positions")),
    )


def ask(folder: Path, asked: Sequence[tuple[str, Any]], *, together: bool = True) -> list[Any]:
    """Answers, or errors, of requests for tasks that the worker of `folder` gets at once, or one after another."""

    async def scenario(served: Any) -> list[Any]:
        if together:
            return await asyncio.gather(*(served.ask(*each) for each in asked), return_exceptions=True)
        return [(await asyncio.gather(served.ask(*each), return_exceptions=True))[0] for each in asked]

    return Server(folder)._serve(folder.parent, scenario)


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
