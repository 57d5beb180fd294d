"""Whisper's segments, times and languages are those of transformers' `generate` on the same weights, through a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport import Engine
from modelport.contract import DeadlineExceeded, InvalidRequest, Item, Media, Options
from modelport.tasks.audio import TranscriptionResult
from modelport_skill_speech.whisper import WhisperSession

RATE = 16_000
TASK = "automatic-speech-recognition"
SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    with Engine(f"whisper={checkpoint('whisper')}", backend="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def others(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    """One of a single language, and one that tries again, with a higher temperature, what the model was unsure of."""
    sources = (f"rising={checkpoint('whisper')}", f"whisper_en={checkpoint('whisper_en')}")
    options = {"temperature_fallback": True}
    with Engine(*sources, backend="cpu", executor="thread", options=options) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Any:
    return transformers.WhisperForConditionalGeneration.from_pretrained(checkpoint("whisper")).eval()


@pytest.fixture(scope="module")
def reference(checkpoint: Callable[[str], Path], model: Any) -> Callable[..., Any]:
    """What `generate` makes of a whole sound, which it walks through by itself."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(checkpoint("whisper"))

    def generate(samples: np.ndarray, **options: Any) -> Any:
        whole = {"truncation": False, "padding": "longest"} if len(samples) > 2 * RATE else {}
        made = extractor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **whole)
        with torch.inference_mode():
            return model.generate(made.input_features, attention_mask=made.attention_mask, **options)

    return generate


def ask(engine: Engine, kind: str = "whisper", **request: Any) -> TranscriptionResult:
    found: TranscriptionResult = engine.run(TASK, kind, request).result
    return found


def text_of(tokens: list[int]) -> str:
    """The tokens are bytes of UTF-8, spelt as GPT-2 spells bytes."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelt = {chr(byte): byte for byte in printable}
    spelt |= {chr(256 + at): byte for at, byte in enumerate(b for b in range(256) if b not in printable)}
    return bytes(spelt[letters[token]] for token in tokens if token < 256).decode("utf-8", "replace")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_sound_is_what_generate_makes_of_it(
    engine: Engine, reference: Callable[..., Any], seed: int, sound: Callable[..., Media], noise: Callable[..., np.ndarray]
) -> None:
    (tokens,) = reference(noise(1.5, seed), language="de", return_timestamps=False)

    found = ask(engine, inputs=sound(1.5, seed), language="de")

    assert found.text == text_of(tokens.tolist())
    assert found.text
    assert (found.language, found.duration, found.chunks, found.segments) == ("de", 1.5, [], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_sound_is_walked_through_as_generate_does(
    engine: Engine, reference: Callable[..., Any], seed: int, sound: Callable[..., Media], noise: Callable[..., np.ndarray]
) -> None:
    """Over windows of two seconds, each from the last mark of time of the one before."""
    made = reference(noise(7.3, seed), language="en", return_timestamps=True, return_segments=True)["segments"][0]

    found = ask(engine, inputs=sound(7.3, seed), language="english", return_timestamps=True)

    spoken = [each for each in made if text_of(each["tokens"].tolist())]
    assert [segment.tokens for segment in found.segments] == [each["tokens"].tolist() for each in spoken]
    times = [(segment.start, segment.end) for segment in found.segments]
    assert times == [(round(float(each["start"]), 2), round(float(each["end"]), 2)) for each in spoken]
    assert [chunk.timestamp for chunk in found.chunks] == times
    assert "".join(chunk.text for chunk in found.chunks) == found.text
    assert len(times) > 2
    assert times[-1][1] > 4


def test_words_are_timed_by_the_same_attention(
    engine: Engine, reference: Callable[..., Any], sound: Callable[..., Media], noise: Callable[..., np.ndarray]
) -> None:
    made = reference(noise(5.1, 4), language="en", return_timestamps=True, return_segments=True, return_token_timestamps=True)[
        "segments"
    ][0]

    found = ask(engine, inputs=sound(5.1, 4), language="en", return_timestamps="word")

    ends = {
        round(float(end), 2)
        for each in made
        for token, end in zip(each["tokens"].tolist(), each["token_timestamps"].tolist(), strict=True)
        if token < 256
    }
    assert {chunk.timestamp[1] for chunk in found.chunks} <= ends
    assert len({chunk.timestamp for chunk in found.chunks}) > 3
    assert "".join(chunk.text for chunk in found.chunks) == found.text == "".join(each.text for each in found.segments)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_language_is_found_out(
    engine: Engine,
    model: Any,
    checkpoint: Callable[[str], Path],
    seed: int,
    sound: Callable[..., Media],
    noise: Callable[..., np.ndarray],
    ids: dict[str, int],
) -> None:
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(checkpoint("whisper"))
    features = extractor(noise(1.0, seed), sampling_rate=RATE, return_tensors="pt").input_features
    (token,) = model.detect_language(features).tolist()

    found = ask(engine, inputs=sound(1.0, seed))

    assert ids[f"<|{found.language}|>"] == token
    assert found.text == ask(engine, inputs=sound(1.0, seed), language=found.language).text


def test_translation_and_prompt_change_what_the_decoder_starts_from(
    engine: Engine,
    reference: Callable[..., Any],
    sound: Callable[..., Media],
    noise: Callable[..., np.ndarray],
    ids: dict[str, int],
) -> None:
    prompt = torch.tensor([ids["<|startofprev|>"], *ids_of(" names")])
    (tokens,) = reference(noise(1.5, 1), language="de", task="translate", prompt_ids=prompt, return_timestamps=False)

    found = ask(engine, inputs=sound(1.5, 1), language="de", task="translate", prompt="names ")

    assert found.text == text_of(tokens.tolist())
    assert found.text != ask(engine, inputs=sound(1.5, 1), language="de").text


def ids_of(text: str) -> list[int]:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [letters.index("Ġ" if letter == " " else letter) for letter in text]


def test_a_segment_tells_how_sure_the_model_was(
    engine: Engine,
    reference: Callable[..., Any],
    model: Any,
    sound: Callable[..., Media],
    noise: Callable[..., np.ndarray],
    ids: dict[str, int],
) -> None:
    made = reference(
        noise(1.2, 2), language="en", return_timestamps=True, force_unique_generate_call=True, return_dict_in_generate=True,
        output_scores=True, output_logits=True,
    )  # fmt: skip
    scores = torch.stack(made.scores)[:, 0].log_softmax(-1)
    tokens = made.sequences[0, -len(scores) :].tolist()
    tokens = tokens[:-1] if tokens[-1] == ids["<|endoftext|>"] else tokens
    expected = float(np.mean([float(scores[at, token]) for at, token in enumerate(tokens)]))

    segment = ask(engine, inputs=sound(1.2, 2), language="en", return_timestamps=True).segments[0]

    assert segment.avg_logprob == pytest.approx(expected, abs=1e-4)
    assert 0 < segment.no_speech_prob < 1
    assert segment.compression_ratio > 0


def test_beams_are_searched_as_generate_does(
    engine: Engine, reference: Callable[..., Any], sound: Callable[..., Media], noise: Callable[..., np.ndarray]
) -> None:
    (tokens,) = reference(noise(1.5, 1), language="de", return_timestamps=False, num_beams=3)

    found = ask(engine, inputs=sound(1.5, 1), language="de", generate_parameters={"num_beams": 3})

    assert found.text == text_of(tokens.tolist())


def test_a_model_of_one_language(others: Engine, sound: Callable[..., Media]) -> None:
    found = ask(others, "whisper_en", inputs=sound(3.0), language="English", return_timestamps=True)
    assert found.language == "en"
    for field, value in (("language", "de"), ("task", "translate")):
        with pytest.raises(InvalidRequest) as refused:
            ask(others, "whisper_en", inputs=sound(), **{field: value})
        assert refused.value.param == field


def test_a_stream_tells_segment_after_segment(engine: Engine, sound: Callable[..., Media]) -> None:
    request = {"inputs": sound(7.3, 1), "return_timestamps": True}
    deltas = list(engine.stream(TASK, "whisper", request))

    whole = ask(engine, **request)
    assert [delta.text for delta in deltas if delta.text] == [segment.text for segment in whole.segments]
    assert len(deltas) > 2
    assert deltas[0].duration == 7.3


def test_what_the_model_was_unsure_of_is_tried_again(others: Engine, engine: Engine, sound: Callable[..., Media]) -> None:
    request: dict[str, Any] = {"inputs": sound(1.2, 2), "language": "en", "return_timestamps": True}
    (calm, *_) = ask(engine, **request).segments
    seeded = {**request, "generate_parameters": {"seed": 5}}

    (drawn, *_) = ask(others, "rising", **seeded).segments

    assert calm.avg_logprob is not None
    assert calm.avg_logprob < -1  # random weights are
    assert (calm.temperature, drawn.temperature > 0) == (0.0, True)
    assert drawn.tokens != calm.tokens
    assert ask(others, "rising", **seeded).segments[0] == drawn
    beams = ask(others, "rising", **request | {"generate_parameters": {"num_beams": 2}})
    assert beams.segments[0].temperature == 0


def test_a_deadline_ends_a_long_recording_and_the_worker_goes_on(engine: Engine, sound: Callable[..., Media]) -> None:
    request = {"inputs": sound(120.0, 1), "return_timestamps": True}
    with pytest.raises(DeadlineExceeded):
        engine.run(TASK, "whisper", request, Options(deadline_s=0.3))

    assert ask(engine, inputs=sound(1.0, 1)).text


@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.tuples(st.sampled_from([0.4, 1.3, 2.0, 3.1, 4.7]), st.integers(0, 5)), min_size=2, max_size=4))
def test_company_changes_nothing(engine: Engine, lengths: list[tuple[float, int]], sound: Callable[..., Media]) -> None:
    alone = [ask(engine, inputs=sound(*each), return_timestamps="word") for each in lengths]

    async def together() -> list[Any]:
        requests = [{"inputs": sound(*each), "return_timestamps": "word"} for each in lengths]
        return await asyncio.gather(*(asyncio.to_thread(engine.run, TASK, "whisper", request) for request in requests))

    for one, reply in zip(alone, asyncio.run(together()), strict=True):
        other = reply.result
        assert (other.text, other.chunks, other.language) == (one.text, one.chunks, one.language)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"language": "klingon"}, "language"),
        ({"generate_parameters": {"max_new_tokens": 3, "max_length": 3}}, "generate_parameters.max_length"),
        ({"generate_parameters": {"num_beams": 1000}}, "num_beams"),
        ({"generate_parameters": {"max_new_tokens": 0}}, "generate_parameters.max_new_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    engine: Engine, request_: dict[str, Any], field: str, sound: Callable[..., Media]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(engine, inputs=sound(), **request_)
    assert refused.value.param == field


def test_times_of_words_are_asked_of_one_window_at_a_time(
    checkpoint: Callable[[str], Path], sound: Callable[..., Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attention of all heads is a gigabyte for a window of a large model."""
    asked: list[str] = []
    handle = WhisperSession.handle

    def watched(self: Any, request: Any, run: Any) -> Any:
        forward = run.forward

        def noted(entry: str, item: Item, cache_key: str | None = None) -> Any:
            if entry == "align":
                asked.append(item.group)
            return forward(entry, item, cache_key)

        run.forward = noted
        return handle(self, request, run)

    monkeypatch.setattr(WhisperSession, "handle", watched)
    with Engine(f"whisper={checkpoint('whisper')}", backend="cpu", executor="thread") as opened:
        for seed in range(2):
            ask(opened, inputs=sound(2.0, seed), return_timestamps="word")
    assert len(set(asked)) == len(asked) >= 2
