"""Conversations with images say what transformers' `generate` says of the same weights, through a real worker."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modelport.contract import InvalidRequest, ModelCard
from modelport.tasks.text import GenerationRequest, Message
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

SIZES = ((61, 47), (40, 70), (61, 47), (90, 30))
CHAT = ("llava", "llava_next", "qwen2_vl", "idefics2", "idefics3", "smolvlm", "gemma3", "internvl", "mllama", "mistral3",
        "aya_vision")  # fmt: skip


class Server(SkillSuite):
    """The real worker on the cpu backend, for tests below; collected by nobody."""

    __test__ = False
    skill = Multimodal()
    backend = CpuBackend()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)


def ask(folder: Path, task: str, requests: Sequence[Any], *, together: bool = True) -> list[Any]:
    """Answers, or errors, of requests that the worker of `folder` gets at once, or one after another."""

    async def scenario(served: Any) -> list[Any]:
        if together:
            return await asyncio.gather(*(served.ask(task, request) for request in requests), return_exceptions=True)
        return [(await asyncio.gather(served.ask(task, request), return_exceptions=True))[0] for request in requests]

    return Server(folder)._serve(folder.parent, scenario)


def question(text: str, *images: bytes, count: int = 8, **options: Any) -> GenerationRequest:
    parts = [*({"type": "image", "data": image} for image in images), {"type": "text", "text": text}]
    return GenerationRequest(
        messages=[Message(role="user", content=parts)], max_new_tokens=count, do_sample=False, logprobs=None, **options
    )


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def expected(checkpoint: Any, text: str, images: Sequence[bytes]) -> str:
    """What transformers says: its template, its processor, its model."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    prompt = checkpoint.render([{"role": "user", "content": content}])
    inputs = checkpoint.inputs(prompt, [picture(image) for image in images], add_special_tokens=False)
    return checkpoint.text(checkpoint.generate(inputs))


@pytest.mark.parametrize("kind", CHAT)
def test_a_conversation_says_what_generate_says(kind: str, checkpoint: Callable[[str], Any], draw: Callable[..., bytes]) -> None:
    """Images of different sizes beside each other, two in one message, and a turn without any."""
    made = checkpoint(kind)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    asked = [("what", [image]) for image in images] + [("which", images[:2]), ("hello", []), ("and what is this", [])]

    answers = ask(made.folder, "image-text-to-text", [question(text, *shown) for text, shown in asked])

    found = [answer if isinstance(answer, Exception) else answer.choices[0].text for answer in answers]
    assert found == [expected(made, text, shown) for text, shown in asked]
    assert len(set(found[: len(images)])) > 1, "a model that sees nothing proves nothing"
