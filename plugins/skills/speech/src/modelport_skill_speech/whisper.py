"""Speech to text by Whisper: window after window of 30 s, each from where the one before it was done."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import msgspec
import numpy as np

from modelport.contract import (
    Array,
    ConfigurationError,
    GenerateRequest,
    InvalidRequest,
    Item,
    ModelFailed,
    Run,
    Sampling,
    Session,
    SessionContext,
    to_numpy,
)
from modelport.tasks.audio import (
    TimedText,
    TranscriptionDelta,
    TranscriptionRequest,
    TranscriptSegment,
    join_transcription,
)
from modelport_hf.audio import MOST_SECONDS
from modelport_hf.folder import read_json
from modelport_hf.parameters import sampling_of_parameters
from modelport_hf.tokenizer import load_tokenizer
from modelport_skill_speech.alignment import times_of_tokens, words_of
from modelport_skill_speech.marks import FRAMES_PER_MARK, SECONDS_PER_FRAME, Marks, Piece, pieces_of
from modelport_skill_speech.programs import aligning_heads
from modelport_skill_speech.sound import Ear

__all__ = ["WhisperSession"]


class _Job(msgspec.Struct, frozen=True):
    """A request that is ready to be heard.

    Args:
        features: (bins, frames), the last window filled up.
        frames: Of sound among them.
        seconds: Of sound.
        prompt: Tokens before every window's begin.
        timed: Whether the model is to mark times: when they are asked for, and to find its way through long sound.
    """

    request: TranscriptionRequest
    features: np.ndarray
    frames: int
    seconds: float
    prompt: list[int]
    timed: bool
    params: Sampling


class _Window(msgspec.Struct, frozen=True):
    """What was said of one window.

    Args:
        begin: What the decoder started from.
        tokens: What it said.
        logprob: The mean of its tokens, or None where beams were searched.
    """

    seek: int
    frames: int
    features: np.ndarray
    begin: list[int]
    tokens: list[int]
    logprob: float | None
    no_speech: float | None


class WhisperSession(Session):
    """Windows of different requests share batches; those of one request follow each other."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        config = context.card.config
        self._ear = Ear(context, MOST_SECONDS)
        self._tokenizer = load_tokenizer(context.folder)
        self._marks = Marks(context.folder, self._tokenizer, config)
        self._window = 2 * int(config.get("max_source_positions", 1500))
        self._positions = int(config.get("max_target_positions", 448))
        self._heads = aligning_heads(context.card)
        self._beams = int((read_json(context.folder, "generation_config.json") or {}).get("num_beams") or 1)
        self._smooth = int(config.get("median_filter_width", 7))
        hop = getattr(self._ear.extractor, "hop_length", 0) / self._ear.rate
        if abs(hop - SECONDS_PER_FRAME) > 1e-6:
            raise ConfigurationError(
                f"The feature extractor of {context.folder} makes frames of {hop} s, and Whisper's have 10 ms."
            )
        self._cost = self._window // 2
        if context.limits and context.limits.max_length:
            self._cost = min(self._cost, context.limits.max_length)

    async def handle(self, request: TranscriptionRequest, run: Run) -> AsyncGenerator[Any, None]:
        """A delta for each segment; a plain request gets their sum."""
        deltas = []
        async for delta in self._transcribe(await run.cpu(self.prepare, request), run):
            if run.stream:
                yield delta
            deltas.append(delta)
        if not run.stream:
            yield join_transcription(deltas)

    def prepare(self, request: TranscriptionRequest) -> _Job:
        """What there is to hear.

        Raises:
            InvalidRequest: if the request is wrong, or its sound cannot be taken.
        """
        marks = self._marks
        marks.check_task(request.task)
        if request.language is not None:
            marks.language(request.language)
        if request.return_timestamps and marks.first_time is None:
            raise InvalidRequest("This checkpoint does not say how it marks times; leave it out.", param="return_timestamps")
        if request.return_timestamps == "word" and not self._heads:
            raise InvalidRequest(
                "This checkpoint names no alignment_heads, which words are timed by; ask for segments.", param="return_timestamps"
            )
        params = sampling_of_parameters(request.generate_parameters, None)
        prompt = marks.prompt(request.prompt, self._positions // 2 - 1)
        samples = self._ear.samples(request.inputs)
        whole = self._window * self._hop
        is_long = len(samples) > whole
        if is_long and marks.first_time is None:
            raise InvalidRequest(
                f"inputs is longer than {self._window * SECONDS_PER_FRAME:g} s, and this checkpoint does not say how it marks"
                " times, by which it would find its way. Cut it into pieces.",
                param="inputs",
            )
        options = {"truncation": False, "padding": "longest"} if is_long else {}
        features = self._ear.arrays(samples, **options)["input_features"]
        frames = max(1, min(len(samples) // self._hop, features.shape[1]))
        timed = bool(request.return_timestamps) or is_long
        return _Job(request, features, frames, len(samples) / self._ear.rate, prompt, timed, params)

    @property
    def _hop(self) -> int:
        return int(self._ear.extractor.hop_length)

    async def _transcribe(self, job: _Job, run: Run) -> AsyncIterator[TranscriptionDelta]:
        request, marks = job.request, self._marks
        language = marks.language(request.language) if request.language is not None else ""
        head = TranscriptionDelta(duration=job.seconds)
        seek = 0
        while seek < job.frames:
            frames = min(job.frames - seek, self._window)
            features = await run.cpu(self._cut, job.features, seek)
            unknown = bool(marks.languages) and not language
            no_speech = None
            if unknown or request.return_timestamps:
                start = [marks.start] if unknown else [*job.prompt, marks.start]
                logits = to_numpy((await run.forward("begin", self._beginning(features, start)))["logits"])[0]
                language = self._spoken(logits) if unknown else language
                no_speech = _probability(logits, marks.no_speech)
            if seek == 0:
                head.language = language or marks.only
            begin = [*job.prompt, *marks.begin(language, request.task, job.timed)]
            tokens, logprob = await self._say(run, features, begin, job.params)
            window = _Window(seek, frames, features, begin, tokens, logprob, no_speech)
            if job.timed:
                assert marks.first_time is not None
                pieces, done = pieces_of(tokens, marks.first_time, frames)
            else:
                pieces, done = [Piece(0, tuple(tokens), 0.0, frames * SECONDS_PER_FRAME)], frames
            times = await self._times(run, window) if request.return_timestamps == "word" and tokens else None
            for delta in await run.cpu(self._deltas, job, window, pieces, times, language):
                yield _headed(delta, head)
                head = TranscriptionDelta()
            seek += done
        if head.duration:
            yield head

    def _cut(self, features: np.ndarray, seek: int) -> np.ndarray:
        part = features[:, seek : seek + self._window]
        return np.pad(part, ((0, 0), (0, self._window - part.shape[1])))

    async def _say(self, run: Run, features: np.ndarray, begin: list[int], params: Sampling) -> tuple[list[int], float | None]:
        """The tokens of a window, and the mean logarithm of their probability."""
        room = self._positions - len(begin)
        params = msgspec.structs.replace(params, max_new_tokens=min(params.max_new_tokens or room, room))
        inputs = {"input_features": features, "decoder_input_ids": np.array(begin, np.int64)}
        weighed = None if (params.num_beams or self._beams) > 1 else 0
        tokens: list[int] = []
        logprobs: list[float] = []
        async for event in run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params, logprobs=weighed)):
            if event.finish == "error":
                raise ModelFailed(event.error or "The model failed while it was generating.")
            tokens += event.tokens
            logprobs += event.logprobs or ()
        return tokens, (sum(logprobs) / max(len(logprobs), 1) if weighed is not None else None)

    def _beginning(self, features: np.ndarray, start: list[int]) -> Item:
        arrays: dict[str, Array] = {
            "input_features": features,
            "decoder_input_ids": np.array(start, np.int64),
            "at": np.array([len(start) - 1], np.int64),
        }
        return Item(arrays, self._cost, group=f"begin {len(start)}")

    def _spoken(self, logits: np.ndarray) -> str:
        return max(self._marks.languages, key=lambda code: logits[self._marks.languages[code]])

    async def _times(self, run: Run, window: _Window) -> np.ndarray:
        """When each token of the window ends, in seconds from the window's begin."""
        ids = np.array([*window.begin, *window.tokens[:-1]], np.int64)
        item = Item({"input_features": window.features, "decoder_input_ids": ids}, self._cost, group="align")
        return await run.cpu(self._aligned, await run.forward("align", item), window)

    def _aligned(self, output: Mapping[str, Array], window: _Window) -> np.ndarray:
        layers = {name: to_numpy(array) for name, array in output.items()}
        start, count = len(window.begin), len(window.tokens) - 1
        steps = window.frames // FRAMES_PER_MARK
        chosen = [layers[f"layer{layer}"][head, start : start + count, :steps] for layer, head in self._heads]
        return times_of_tokens(np.stack(chosen), self._smooth)

    def _deltas(
        self, job: _Job, window: _Window, pieces: list[Piece], times: np.ndarray | None, language: str
    ) -> list[TranscriptionDelta]:
        """One for each piece that holds text."""
        marks, wants = self._marks, job.request.return_timestamps
        data = marks.text(window.tokens).encode()
        ratio = len(data) / len(zlib.compress(data)) if data else 0.0
        offset = window.seek * SECONDS_PER_FRAME
        deltas = []
        for piece in pieces:
            text = marks.text(piece.tokens)
            if not text:
                continue
            start, end = round(offset + piece.start, 2), round(offset + piece.end, 2)
            segment = TranscriptSegment(
                start=start,
                end=end,
                text=text,
                tokens=list(piece.tokens),
                seek=window.seek,
                temperature=job.params.temperature or 0.0,
                avg_logprob=window.logprob,
                compression_ratio=ratio,
                no_speech_prob=window.no_speech,
            )
            chunks = [] if not wants else [TimedText(text, (start, end))]
            if times is not None:
                chunks = self._words(piece, times, offset, language)
            deltas.append(TranscriptionDelta(text=text, chunks=chunks, segments=[segment] if wants else []))
        return deltas

    def _words(self, piece: Piece, times: np.ndarray, offset: float, language: str) -> list[TimedText]:
        places = [piece.first + at for at, token in enumerate(piece.tokens) if token < self._marks.end]
        ends = np.round(times + offset, 2)
        starts = np.concatenate([[round(offset, 2)], ends[:-1]])
        tokens = [piece.tokens[place - piece.first] for place in places]
        return [
            TimedText(text, (float(starts[places[at[0]]]), float(ends[places[at[-1]]])))
            for text, at in words_of(tokens, self._tokenizer.decode, language)
        ]


def _headed(delta: TranscriptionDelta, head: TranscriptionDelta) -> TranscriptionDelta:
    return msgspec.structs.replace(delta, language=head.language, duration=head.duration)


def _probability(logits: np.ndarray, token: int | None) -> float | None:
    if token is None:
        return None
    e = np.exp(logits.astype(np.float64) - float(logits.max()))
    return float(e[token] / e.sum())
