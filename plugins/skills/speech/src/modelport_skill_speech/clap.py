"""Sound to labels that the caller names: two towers, and how near their vectors are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np

from modelport.contract import Array, ConfigurationError, InputTooLong, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.audio import ZeroShotAudioRequest
from modelport.tasks.text import LabelScore
from modelport.tasks.vision import LabelsResult
from modelport_hf.tokenizer import load_tokenizer
from modelport_skill_speech.sound import Ear

__all__ = ["ClapSession"]

_MOST_SECONDS = 120.0
_WINDOW = 1024
"""What a window of sound costs, in tokens."""


class ClapSession(Session):
    """Sound that is longer than the model's window is heard in several, as far apart as each other, whose mean counts: the
    checkpoint's extractor would take one at random."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._ear = Ear(context, _MOST_SECONDS)
        self._window = int(getattr(self._ear.extractor, "nb_max_samples", 10 * self._ear.rate))
        self._tokenizer = load_tokenizer(context.folder)
        text = context.card.config.get("text_config") or {}
        pad = self._tokenizer.id_of("pad_token")
        self.pads = {"input_ids": 1 if pad is None else pad}
        rows, padding = text.get("max_position_embeddings", 514), text.get("pad_token_id", 1)
        self._longest = rows - padding - 1  # RoBERTa numbers positions from its padding on
        self._scale = _scale(context.folder)
        self._most = context.limits.max_length if context.limits else None

    async def handle(self, request: ZeroShotAudioRequest, run: Run) -> AsyncGenerator[Any, None]:
        """One result. What a sentence means is remembered."""
        sounds, sentences, items = await run.cpu(self.prepare, request)
        heard = asyncio.gather(*(run.forward("audio", item) for item in sounds))
        meant = asyncio.gather(*(run.forward("text", item, sentence) for item, sentence in zip(items, sentences, strict=True)))
        yield await run.cpu(self.finish, request, await heard, await meant)

    def prepare(self, request: ZeroShotAudioRequest) -> tuple[list[Item], list[str], list[Item]]:
        """Windows of the sound, and the sentences, each as what to cache it by and as an item.

        Raises:
            InvalidRequest: if the sound cannot be taken.
            InputTooLong: if a sentence is longer than the model takes.
        """
        samples = self._ear.samples(request.inputs)
        cost = min(_WINDOW, self._most or _WINDOW)
        # All of them whole: a remainder of a moment, repeated to fill a window, would count as much as all the rest.
        starts = np.linspace(0, max(len(samples) - self._window, 0), -(-len(samples) // self._window)).round().astype(int)
        windows = [samples[start : start + self._window] for start in starts]
        sentences = [request.hypothesis_template.replace("{}", label) for label in request.candidate_labels]
        texts = [self._text(each, f"candidate_labels.{index}") for index, each in enumerate(sentences)]
        return [self._ear.item(window, cost) for window in windows], sentences, texts

    def finish(self, request: ZeroShotAudioRequest, heard: list[dict[str, Array]], meant: list[dict[str, Array]]) -> LabelsResult:
        """Labels by softmax over their nearness, best first."""
        sound = np.mean([_unit(each) for each in heard], axis=0)
        sound /= max(float(np.linalg.norm(sound)), 1e-12)
        logits = self._scale * np.stack([_unit(each) for each in meant]) @ sound
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        order = np.argsort(-scores, kind="stable")
        return LabelsResult(results=[LabelScore(request.candidate_labels[i], float(scores[i])) for i in order])

    def _text(self, sentence: str, param: str) -> Item:
        ids = np.array(self._tokenizer.encode(sentence).ids, np.int64)
        if len(ids) > self._longest:
            raise InputTooLong(
                f"The sentence of this label has {len(ids)} tokens, and this model takes {self._longest}. Shorten it.",
                param=param,
            )
        return Item({"input_ids": ids, "attention_mask": np.ones_like(ids)})


def _unit(output: dict[str, Array]) -> np.ndarray:
    vector = to_numpy(output["embedding"]).astype(np.float64)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


def _scale(folder: Path) -> float:
    """How much nearness counts: a weight of the model that belongs to neither tower."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(file), "np") as opened:
                if "logit_scale_a" in opened.keys():  # noqa: SIM118 — it is no mapping
                    return float(np.exp(opened.get_tensor("logit_scale_a").astype(np.float64)))
        except (SafetensorError, OSError, TypeError) as error:
            raise ConfigurationError(f"{file} cannot be read: {error}.") from error
    raise ConfigurationError(f"{folder} holds no weight logit_scale_a; it is no complete CLAP checkpoint.")
