"""Speech to text by Whisper: window after window of 30 s, each from where the one before it was done."""

from __future__ import annotations

import itertools
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


_LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures to try in turn, if the model's option says so, and when to try the next: thresholds of Whisper's authors."""
_LEAST_LOGPROB, _MOST_REPETITION, _SILENT = -1.0, 2.4, 0.6


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
        no_speech: How likely nobody speaks, if it was asked.
        temperature: With which its tokens were drawn.
    """

    seek: int
    frames: int
    features: np.ndarray
    begin: list[int]
    tokens: list[int]
    logprob: float | None
    no_speech: float | None
    temperature: float


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
        self._alone = itertools.count()
        self._smooth = int(config.get("median_filter_width", 7))
        self._rises = context.options.get("temperature_fallback", context.card.options.get("temperature_fallback", False))
        if not isinstance(self._rises, bool):
            raise ConfigurationError(
                f"models.{context.card.name}.options.temperature_fallback is {self._rises!r}; it must be true or false.",
                param=f"models.{context.card.name}.options.temperature_fallback",
            )
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
            if unknown or request.return_timestamps or self._rises:
                start = [marks.start] if unknown else [*job.prompt, marks.start]
                logits = to_numpy((await run.forward("begin", self._beginning(features, start)))["logits"])[0]
                language = self._spoken(logits) if unknown else language
                no_speech = _probability(logits, marks.no_speech)
            if seek == 0:
                head.language = language or marks.only
            begin = [*job.prompt, *marks.begin(language, request.task, job.timed)]
            window = _Window(seek, frames, features, begin, [], None, no_speech, 0.0)
            for temperature in self._temperatures(job.params):
                window = await self._say(run, window, job.params, temperature)
                if temperature is None or self._is_sound(window):
                    break
            if self._rises and _is_silent(window):
                window = msgspec.structs.replace(window, tokens=[])
            tokens = window.tokens
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

    def _temperatures(self, params: Sampling) -> tuple[float | None, ...]:
        """Those to try in turn; None is what the request and the checkpoint say."""
        is_greedy = not params.do_sample and params.temperature is None and (params.num_beams or self._beams) == 1
        return _LADDER if self._rises and is_greedy else (None,)

    def _is_sound(self, window: _Window) -> bool:
        """Whether what was said neither repeats itself nor surprised the model, or nobody spoke."""
        assert window.logprob is not None
        is_likely = window.logprob >= _LEAST_LOGPROB
        return _is_silent(window) or (is_likely and self._repetition(window) <= _MOST_REPETITION)

    def _repetition(self, window: _Window) -> float:
        """How much shorter its text gets by compression."""
        data = self._marks.text(window.tokens).encode()
        return len(data) / len(zlib.compress(data)) if data else 0.0

    async def _say(self, run: Run, window: _Window, params: Sampling, temperature: float | None) -> _Window:
        """The window with what was said of it."""
        room = self._positions - len(window.begin)
        params = msgspec.structs.replace(params, max_new_tokens=min(params.max_new_tokens or room, room))
        if temperature is not None:
            params = msgspec.structs.replace(params, temperature=temperature, do_sample=temperature > 0)
        inputs = {"input_features": window.features, "decoder_input_ids": np.array(window.begin, np.int64)}
        weighed = None if (params.num_beams or self._beams) > 1 else 0
        tokens: list[int] = []
        logprobs: list[float] = []
        async for event in run.generate("main", GenerateRequest(id=0, inputs=inputs, params=params, logprobs=weighed)):
            tokens += event.tokens
            logprobs += event.logprobs or ()
        logprob = sum(logprobs) / max(len(logprobs), 1) if weighed is not None else None
        return msgspec.structs.replace(window, tokens=tokens, logprob=logprob, temperature=params.temperature or 0.0)

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
        """When each token of the window ends, in seconds from the window's begin.

        It runs alone: the model hands out the attention of every head of every layer, in large ones a gigabyte for a window.
        """
        ids = np.array([*window.begin, *window.tokens[:-1]], np.int64)
        arrays: dict[str, Array] = {"input_features": window.features, "decoder_input_ids": ids}
        item = Item(arrays, self._cost, group=f"align {next(self._alone)}")
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
        ratio = self._repetition(window)
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
                temperature=window.temperature,
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


def _is_silent(window: _Window) -> bool:
    if window.logprob is None or window.no_speech is None:
        return False
    return window.logprob < _LEAST_LOGPROB and window.no_speech > _SILENT


def _headed(delta: TranscriptionDelta, head: TranscriptionDelta) -> TranscriptionDelta:
    return msgspec.structs.replace(delta, language=head.language, duration=head.duration)


def _probability(logits: np.ndarray, token: int | None) -> float | None:
    if token is None:
        return None
    e = np.exp(logits.astype(np.float64) - float(logits.max()))
    return float(e[token] / e.sum())
