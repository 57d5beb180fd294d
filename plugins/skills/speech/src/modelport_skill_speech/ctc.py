"""Speech to text by models that name a character, or a piece of a word, for each moment: the likeliest, repetitions taken out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import numpy as np

from modelport.contract import Array, InvalidRequest, Item, Run, Session, SessionContext, to_numpy
from modelport.tasks.audio import TimedText, TranscriptionDelta, TranscriptionRequest, join_transcription
from modelport_hf.audio import MOST_SECONDS
from modelport_hf.own_tokenizer import load_own_tokenizer
from modelport_skill_speech.sound import Ear

__all__ = ["CtcSession"]

_CHUNK_S, _STRIDE_S = 30.0, 5.0
"""Longer sound is read in chunks, of whose ends so much is read twice and heard once: a model needs to hear what is around."""

_TOKEN = 320


class _Chunk(msgspec.Struct, frozen=True):
    """Samples from `start` to `end`, of which `left` and `right` belong to its neighbours."""

    start: int
    end: int
    left: int
    right: int


class CtcSession(Session):
    """Chunks of one request share batches with those of others."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._ear = Ear(context, MOST_SECONDS)
        self._tokenizer = load_own_tokenizer(context.folder, trust_remote_code=context.card.trust_remote_code)
        config = context.card.config
        self._blank = config.get("pad_token_id") if isinstance(config.get("pad_token_id"), int) else 0
        self._delimiter = getattr(self._tokenizer, "word_delimiter_token", None)
        self._stride = int(np.prod(config.get("conv_stride") or [1]))
        self._longest = context.limits.max_length if context.limits else None

    async def handle(self, request: TranscriptionRequest, run: Run) -> AsyncGenerator[Any, None]:
        """One delta: words may go over the borders of chunks."""
        samples = await run.cpu(self._samples, request)
        chunks = self.cut(len(samples))
        items = await asyncio.gather(*(run.cpu(self._item, samples, chunk) for chunk in chunks))
        outputs = await asyncio.gather(*(run.forward("main", item) for item in items))
        delta = await run.cpu(self.finish, request, chunks, outputs, len(samples))
        yield delta if run.stream else join_transcription([delta])

    def cut(self, length: int) -> list[_Chunk]:
        """The chunks of a sound of so many samples; one if it is short."""
        rate = self._ear.rate
        size, stride = (round(seconds * rate / self._stride) * self._stride for seconds in (_CHUNK_S, _STRIDE_S))
        if length <= size:
            return [_Chunk(0, length, 0, 0)]
        chunks = []
        for start in range(0, length, size - 2 * stride):
            end = min(start + size, length)
            is_last = end == length
            chunks.append(_Chunk(start, end, stride if start else 0, 0 if is_last else stride))
            if is_last:
                break
        return chunks

    def finish(
        self, request: TranscriptionRequest, chunks: list[_Chunk], outputs: list[dict[str, Array]], length: int
    ) -> TranscriptionDelta:
        """The text, and its words with times if they are asked for."""
        parts = [_own(to_numpy(output["ids"]), chunk) for output, chunk in zip(outputs, chunks, strict=True)]
        ids = np.concatenate(parts)
        seconds = length / self._ear.rate
        timed = self._words(ids, seconds) if request.return_timestamps else []
        return TranscriptionDelta(text=str(self._tokenizer.decode(ids.tolist())), chunks=timed, duration=seconds)

    def _samples(self, request: TranscriptionRequest) -> np.ndarray:
        for field, given in (("language", request.language), ("prompt", request.prompt)):
            if given:
                raise InvalidRequest(f"{field} is nothing that a CTC model can be told; leave it out.", param=field)
        if request.task != "transcribe":
            raise InvalidRequest("This model transcribes, and does not translate.", param="task")
        if changed := [name for name, value in msgspec.structs.asdict(request.generate_parameters).items() if value is not None]:
            raise InvalidRequest(
                f"{changed[0]}: a CTC model generates nothing step by step; leave generate_parameters out.",
                param=f"generate_parameters.{changed[0]}",
            )
        return self._ear.samples(request.inputs)

    def _item(self, samples: np.ndarray, chunk: _Chunk) -> Item:
        cost = max(1, (chunk.end - chunk.start) // _TOKEN)
        return self._ear.item(samples[chunk.start : chunk.end], min(cost, self._longest or cost))

    def _words(self, ids: np.ndarray, seconds: float) -> list[TimedText]:
        """Runs of characters between marks of words, with the times of their first and last moment."""
        moment = self._stride / self._ear.rate if self._stride > 1 else seconds / len(ids)
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        ends = np.append(starts[1:], len(ids))
        words: list[TimedText] = []
        is_open = False
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if ids[start] == self._blank:
                continue
            piece = str(self._tokenizer.convert_ids_to_tokens(int(ids[start])))
            if piece == self._delimiter or piece == " ":
                is_open = False
                continue
            is_open = is_open and not piece.startswith("▁")
            piece = piece.removeprefix("▁")
            piece = piece.lower() if getattr(self._tokenizer, "do_lower_case", False) else piece
            if is_open:
                last = words[-1]
                words[-1] = TimedText(last.text + piece, (last.timestamp[0], end * moment))
            else:
                words.append(TimedText(piece, (start * moment, end * moment)))
            is_open = True
        return words


def _own(ids: np.ndarray, chunk: _Chunk) -> np.ndarray:
    """The moments that no neighbour has."""
    length = chunk.end - chunk.start
    left, right = (round(side / length * len(ids)) for side in (chunk.left, chunk.right))
    return ids[left : len(ids) - right]
