"""What tests of speech share: the real worker, and weights that speak."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
import torch

from modelport.contract import ModelCard
from modelport.tasks.synthesis import SpeechRequest, SpeechResult
from modelport.tasks.text2text import GenerateParameters
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_speech import Speech

__all__ = ["STEP", "Worker", "ask", "assert_sounds", "request", "samples", "save"]

STEP = 2 / 32768
"""Samples are rounded to 16 bits."""


class Worker(SkillSuite):
    """The real worker; collected by nobody."""

    __test__ = False
    skill = Speech()
    backend = CpuBackend()

    def __init__(self, folder: Path, max_length: int | None = None, **options: Any) -> None:
        self.folder, self.max_length = folder, max_length
        self.options = options  # type: ignore[misc]

    def card(self, folder: Path) -> ModelCard:
        return msgspec.structs.replace(card_of(self.folder), max_length=self.max_length)


def ask(folder: Path, *requests: SpeechRequest, **settings: Any) -> list[Any]:
    """Answers, or errors, of requests that the worker of `folder` gets at once."""
    worker = Worker(folder, **settings)
    program = Speech().programs(card_of(folder))["text-to-speech"]
    worker.checkpoints = {name: lambda _, source=source: Path(source) for name, source in program.checkpoints.items()}  # type: ignore[misc]

    async def scenario(served: Any) -> list[Any]:
        asked = (served.ask("text-to-speech", request) for request in requests)
        return await asyncio.gather(*asked, return_exceptions=True)

    return worker._serve(folder.parent, scenario)


def request(text: str, seed: int = 5, **fields: Any) -> SpeechRequest:
    given = {name: fields.pop(name) for name in GenerateParameters.__struct_fields__ if name in fields}
    return SpeechRequest(inputs=text, generate_parameters=GenerateParameters(seed=seed, **given), **fields)


def samples(result: SpeechResult) -> np.ndarray:
    assert isinstance(result, SpeechResult), result
    read, rate = soundfile.read(io.BytesIO(result.audio.data), dtype="float32")
    assert rate == result.sampling_rate
    return np.asarray(read)


def assert_sounds(found: Any, expected: torch.Tensor) -> None:
    wave = expected.detach().reshape(-1).numpy()
    assert np.isfinite(wave).all()
    assert wave.std() > 10 * STEP, "silence proves nothing"
    np.testing.assert_allclose(samples(found), wave.clip(-1, 1), atol=STEP)


def save(model: Any, folder: Path, std: float = 0.2) -> Any:
    """Writes `model` with weights so wide that its sound depends on the text; gives what transformers reads back.

    All that is drawn is drawn here: nothing depends on which tests ran before.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):  # the length of a normalised weight
                parameter.fill_(1.0)
            elif parameter.dim() > 1:
                parameter.normal_(std=std)
            elif name.endswith("bias") and parameter.unique().numel() == parameter.numel():  # drawn, not set
                parameter.zero_()
        for name, buffer in model.named_buffers():
            if name.endswith(("codebook.embed", "codebook.embed_sum")):  # zeros before training: all codes would sound alike
                buffer.normal_()
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()
