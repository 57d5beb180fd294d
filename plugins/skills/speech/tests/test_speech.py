"""Texts, labels and scores are those of transformers on the same weights, one sound at a time, through a real worker."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport import Engine
from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Media, ModelCard, SessionContext
from modelport.tasks.audio import AudioClassificationRequest, TranscriptionRequest, ZeroShotAudioRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_speech import Speech

RATE = 16_000
HEARS, LABELS, ZERO = "automatic-speech-recognition", "audio-classification", "zero-shot-audio-classification"
CTC = ("wav2vec2", "hubert", "wavlm", "wav2vec2_bert")
SEQ2SEQ = ("speech_to_text", "moonshine", "two_parts")
LABELLED = ("wav2vec2_labels", "ast", "whisper_labels")
Sound = Callable[..., Media]
Noise = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Engine]:
    kinds = (*CTC, *SEQ2SEQ, *LABELLED, "clap")
    with Engine(*(f"{kind}={checkpoint(kind)}" for kind in kinds), backend="cpu", executor="thread") as opened:
        yield opened


def alone(folder: Path, auto: Any, samples: np.ndarray, **options: Any) -> Any:
    """What the model says of one sound."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = auto.from_pretrained(folder).eval()
    made = extractor(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        return model.generate(**made, **options) if options else model(**made).logits[0]


@pytest.mark.parametrize("kind", CTC)
def test_what_was_said_is_the_likeliest_letter_of_each_moment(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise, kind: str
) -> None:
    ids = alone(checkpoint(kind), transformers.AutoModelForCTC, noise(1.7, 3)).argmax(-1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(kind))

    found = engine.run(HEARS, kind, {"inputs": sound(1.7, 3)}).result

    assert found.text == tokenizer.decode(ids)
    assert len(found.text) > 3
    assert found.duration == 1.7


def test_words_have_the_times_of_their_letters(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise
) -> None:
    ids = alone(checkpoint("wav2vec2"), transformers.AutoModelForCTC, noise(2.4, 5)).argmax(-1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("wav2vec2"))
    words = tokenizer.decode(ids, output_word_offsets=True).word_offsets

    chunks = engine.run(HEARS, "wav2vec2", {"inputs": sound(2.4, 5), "return_timestamps": "word"}).result.chunks

    assert [chunk.text for chunk in chunks] == [word["word"] for word in words]
    expected = [(word["start_offset"] * 320 / RATE, word["end_offset"] * 320 / RATE) for word in words]
    assert [chunk.timestamp for chunk in chunks] == [pytest.approx(times) for times in expected]


def test_long_sound_is_heard_in_chunks_that_overlap(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise
) -> None:
    """Chunks of 30 s, of which 5 s at either end are the neighbour's."""
    samples = noise(47.0, 2)
    moments = []
    for start, end, left, right in ((0, 30, 0, 5), (20, 47, 5, 0)):
        ids = alone(checkpoint("wav2vec2"), transformers.AutoModelForCTC, samples[start * RATE : end * RATE]).argmax(-1)
        per_second = len(ids) / (end - start)
        moments.append(ids[round(left * per_second) : len(ids) - round(right * per_second)])
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("wav2vec2"))

    found = engine.run(HEARS, "wav2vec2", {"inputs": sound(47.0, 2)}).result

    assert found.text == tokenizer.decode(torch.cat(moments))
    assert found.duration == 47.0


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_what_a_decoder_writes_is_what_generate_makes(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise, kind: str
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint(kind))
    texts = []
    for seed in (1, 2, 3):
        (made,) = alone(checkpoint(kind), transformers.AutoModelForSpeechSeq2Seq, noise(1.6, seed), num_beams=1)
        texts.append(tokenizer.decode(made, skip_special_tokens=True))

    found = [engine.run(HEARS, kind, {"inputs": sound(1.6, seed)}).result.text for seed in (1, 2, 3)]

    assert found == texts
    assert len(set(found)) == 3


@pytest.mark.parametrize("kind", LABELLED)
def test_labels_have_the_scores_of_the_head(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise, kind: str
) -> None:
    logits = alone(checkpoint(kind), transformers.AutoModelForAudioClassification, noise(1.1, 4))
    names = json.loads((checkpoint(kind) / "config.json").read_text())["id2label"]
    expected = {names[str(at)]: float(score) for at, score in enumerate(logits.softmax(-1))}

    found = engine.run(LABELS, kind, {"inputs": sound(1.1, 4)}).result.results

    assert {each.label: each.score for each in found} == pytest.approx(expected, abs=1e-5)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    raw = engine.run(LABELS, kind, {"inputs": sound(1.1, 4), "top_k": 1, "function_to_apply": "none"}).result.results
    assert [each.score for each in raw] == [pytest.approx(float(logits.max()), abs=1e-4)]


def test_labels_of_the_caller_s_own_are_judged_as_the_two_towers_do(
    engine: Engine, checkpoint: Callable[[str], Path], sound: Sound, noise: Noise
) -> None:
    folder, labels = checkpoint("clap"), ["a dog", "cat", "the good day"]
    model = transformers.ClapModel.from_pretrained(folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = extractor(noise(1.5, 6), sampling_rate=RATE, return_tensors="pt")
    texts = tokenizer([f"this is {label}" for label in labels], padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, **made)
    expected = dict(zip(labels, out.logits_per_audio[0].softmax(-1).tolist(), strict=True))

    request = {"inputs": sound(1.5, 6), "candidate_labels": labels, "hypothesis_template": "this is {}"}
    found = engine.run(ZERO, "clap", request).result.results

    assert {each.label: each.score for each in found} == pytest.approx(expected, abs=1e-4)
    assert len({round(each.score, 4) for each in found}) == 3
    longer = [engine.run(ZERO, "clap", {**request, "inputs": sound(5.0, 6)}).result for _ in range(2)]
    assert longer[0] == longer[1]  # no window is left to chance


def test_a_moment_more_than_a_window_changes_little(engine: Engine, noise: Noise) -> None:
    """The extractor repeats what is short until it fills a window: a remainder of a moment would count as half of the sound."""
    request = {"candidate_labels": ["a dog", "cat", "the good day"]}
    whole = noise(2.0, 6)
    scores = []
    for samples in (whole, np.append(whole, whole[:9])):
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
        found = engine.run(ZERO, "clap", {**request, "inputs": Media(data=file.getvalue())}).result.results
        scores.append({each.label: each.score for each in found})
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    with pytest.raises(InputTooLong) as refused:
        engine.run(ZERO, "clap", {"inputs": Media(data=file.getvalue()), "candidate_labels": ["cat", "dog " * 80]})
    assert refused.value.param == "candidate_labels.1"


@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.tuples(st.sampled_from([0.3, 1.0, 1.01, 2.2]), st.integers(0, 3)), min_size=2, max_size=4))
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wav2vec2_labels", "clap", "moonshine"])
def test_company_changes_nothing(engine: Engine, sound: Sound, kind: str, lengths: list[tuple[float, int]]) -> None:
    task = {"wav2vec2_labels": LABELS, "clap": ZERO}.get(kind, HEARS)
    more = {"candidate_labels": ["cat", "dog"]} if kind == "clap" else {}
    requests = [{"inputs": sound(*each), **more} for each in lengths]
    single = [engine.run(task, kind, request).result for request in requests]

    async def together() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(engine.run, task, kind, request) for request in requests))

    for one, reply in zip(single, asyncio.run(together()), strict=True):
        if task == HEARS:
            assert reply.result.text == one.text
        else:
            scores = {each.label: each.score for each in one.results}
            assert {each.label: each.score for each in reply.result.results} == pytest.approx(scores, abs=1e-5)


@pytest.fixture(scope="module")
def ten_hours() -> Media:
    """Of silence."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1000, 1, format="FLAC", subtype="PCM_16") as opened:
        for _ in range(10):
            opened.write(np.zeros(3600 * 1000, np.int16))
    return Media(data=file.getvalue())


@pytest.mark.parametrize("kind", ["wav2vec2", "speech_to_text", "wav2vec2_labels", "clap"])
def test_sound_that_cannot_be_taken_is_refused_and_the_worker_lives(
    engine: Engine, sound: Sound, ten_hours: Media, kind: str
) -> None:
    task = {"wav2vec2_labels": LABELS, "clap": ZERO}.get(kind, HEARS)
    more = {"candidate_labels": ["cat", "dog"]} if kind == "clap" else {}
    whole = sound(1.0).data
    for media, words in (
        (ten_hours, "36,000 s long"),
        (Media(data=whole[:500]), "cut short|cannot be"),
        (Media(data=b"no sound"), "not sound"),
        (Media(), "is empty"),
    ):
        with pytest.raises(InvalidRequest, match=words) as refused:
            engine.run(task, kind, {"inputs": media, **more})
        assert refused.value.param == "inputs"
    assert engine.run(task, kind, {"inputs": sound(1.0), **more}).result


@pytest.mark.parametrize("kind", [*CTC, *SEQ2SEQ, *LABELLED, "clap"])
def test_a_tenth_of_a_second_is_answered_and_less_is_refused(engine: Engine, kind: str) -> None:
    task = {"clap": ZERO}.get(kind, LABELS if kind in LABELLED else HEARS)
    more = {"candidate_labels": ["cat", "dog"]} if kind == "clap" else {}

    def ask(samples: int) -> Any:
        file = io.BytesIO()
        soundfile.write(file, np.full(samples, 0.1, np.float32), RATE, format="WAV")
        return engine.run(task, kind, {"inputs": Media(data=file.getvalue()), **more}).result

    assert ask(RATE // 10)
    with pytest.raises(InvalidRequest, match=r"at least 0.1 s") as refused:
        ask(RATE // 10 - 1)
    assert refused.value.param == "inputs"


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        ("wav2vec2", {"language": "de"}, "language"),
        ("wav2vec2", {"prompt": "x"}, "prompt"),
        ("wav2vec2", {"task": "translate"}, "task"),
        ("wav2vec2", {"generate_parameters": {"num_beams": 2}}, "generate_parameters.num_beams"),
        ("moonshine", {"return_timestamps": True}, "return_timestamps"),
        ("moonshine", {"language": "de"}, "language"),
        ("moonshine", {"prompt": "x"}, "prompt"),
        ("moonshine", {"task": "translate"}, "task"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(
    engine: Engine, sound: Sound, kind: str, request_: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        engine.run(HEARS, kind, {"inputs": sound(), **request_})
    assert refused.value.param == field


@pytest.mark.parametrize("option", [0, "long", True])
def test_an_option_of_the_wrong_kind_is_named(checkpoint: Callable[[str], Path], option: Any) -> None:
    made = card_of(checkpoint("ast"))
    context = SessionContext(
        card=made, task=LABELS, tasks=(LABELS,), checkpoints={"main": checkpoint("ast")}, options={"max_audio_s": option}
    )
    with pytest.raises(ConfigurationError, match="max_audio_s"):
        Speech().session(context)


def card(**more: Any) -> ModelCard:
    return ModelCard(name="m", **more)


def test_models_of_text_and_of_other_sound_are_left_to_others(checkpoint: Callable[[str], Path]) -> None:
    path = str(checkpoint("wav2vec2"))
    skill = Speech()
    assert skill.claim(card(architectures=("BertForSequenceClassification",), model_type="bert")) is None
    assert skill.claim(card(architectures=("Wav2Vec2Model",), model_type="wav2vec2", path=path)) is None
    dia = card(architectures=("DiaForConditionalGeneration",), model_type="dia", path=path, config={"is_encoder_decoder": True})
    assert skill.claim(dia) is None


class TestHearing(SkillSuite):
    skill = Speech()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Callable[[str], Path], sound: Sound) -> None:
        self.folder, self.sound = checkpoint("whisper"), sound

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        plain = TranscriptionRequest(inputs=self.sound(1.0, 1))
        timed = TranscriptionRequest(inputs=self.sound(3.3, 2), return_timestamps="word", language="de")
        return {HEARS: [plain, timed]}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        return [
            (HEARS, TranscriptionRequest(inputs=Media()), "inputs"),
            (HEARS, TranscriptionRequest(inputs=self.sound(), language="klingon"), "language"),
        ]


class TestLabels(TestHearing):
    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Callable[[str], Path], sound: Sound) -> None:
        self.folder, self.sound = checkpoint("ast"), sound

    def requests(self) -> dict[str, list[Any]]:
        return {LABELS: [AudioClassificationRequest(inputs=self.sound(seconds)) for seconds in (0.5, 1.5)]}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        return [(LABELS, AudioClassificationRequest(inputs=self.sound(), top_k=0), "top_k")]


class TestTwoTowers(TestHearing):
    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Callable[[str], Path], sound: Sound) -> None:
        self.folder, self.sound = checkpoint("clap"), sound

    def requests(self) -> dict[str, list[Any]]:
        return {ZERO: [ZeroShotAudioRequest(inputs=self.sound(1.0, at), candidate_labels=["cat", "dog"]) for at in (1, 2)]}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        return [(ZERO, ZeroShotAudioRequest(inputs=Media(url="https://x.y/z"), candidate_labels=["a"]), "inputs.url")]


@pytest.mark.parametrize(("kind", "masks"), [("wav2vec2", []), ("wavlm", []), ("hubert", ["attention_mask"])])
def test_a_program_has_a_mask_where_the_extractor_makes_one_and_a_batch_may_be_without(
    checkpoint: Callable[[str], Path], kind: str, masks: list[str]
) -> None:
    sound, *rest = Speech().programs(card_of(checkpoint(kind)))[HEARS].forward("main").inputs
    assert not sound.optional
    assert [spec.name for spec in rest if spec.optional] == [spec.name for spec in rest] == masks
