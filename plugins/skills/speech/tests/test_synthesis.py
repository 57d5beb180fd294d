"""Speech is what transformers makes of the same weights, one text alone, through a real worker: VITS stands for all."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto import modeling_auto

from modelport import Engine
from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, Media, ModelCard, SessionContext
from modelport.tasks.synthesis import SpeechRequest, SpeechResult
from modelport.testing.backend import card_of
from modelport.testing.checkpoints import tiny_vits
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_speech import Speech
from modelport_skill_speech.synthesis import KINDS
from modelport_skill_speech.synthesis_audio import MIME
from modelport_skill_speech.synthesis_text import cut

from .speaking import STEP, Worker, ask, request, samples

TEXTS = ["the cat was good", "it's a day for the dog", "no"]
Reference = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vits(tmp_path_factory.mktemp("synthesis") / "vits")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three speakers."""
    return tiny_vits(tmp_path_factory.mktemp("synthesis") / "several", num_speakers=3, speaker_embedding_size=8)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(f"vits={folder}", backend="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(folder: Path, several: Path) -> Reference:
    """What transformers makes of one text."""
    kinds = {place.name: place for place in (folder, several)}
    models = {name: transformers.VitsModel.from_pretrained(place).eval() for name, place in kinds.items()}
    tokenizer = transformers.VitsTokenizer.from_pretrained(folder)

    def speak(name: str, text: str, seed: int = 5, noise: float = 0.667, duration: float = 0.8, **options: Any) -> np.ndarray:
        model = models[name]
        model.noise_scale, model.noise_scale_duration = noise, duration
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            return model(**tokenizer(text, return_tensors="pt"), **options).waveform[0].numpy()

    return speak


def speak(engine: Engine, asked: SpeechRequest) -> SpeechResult:
    result = engine.run("text-to-speech", "vits", asked).result
    assert isinstance(result, SpeechResult)
    return result


class TestConformance(SkillSuite):
    skill = Speech()
    backend = CpuBackend()

    def card(self, folder: Path) -> ModelCard:
        return card_of(tiny_vits(folder))

    def requests(self) -> dict[str, Sequence[SpeechRequest]]:
        return {"text-to-speech": [request(TEXTS[0]), request(TEXTS[1], format="flac"), request(TEXTS[2], speed=2.0)]}

    def bad_requests(self) -> Sequence[tuple[str, SpeechRequest, str]]:
        return [
            ("text-to-speech", request(" "), "inputs"),
            ("text-to-speech", request(TEXTS[0], voice="alloy"), "voice"),
            ("text-to-speech", request(TEXTS[0], language="deu"), "language"),
            ("text-to-speech", request(TEXTS[0], top_k=3), "generate_parameters.top_k"),
        ]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_sounds_as_transformers_makes_it(engine: Engine, reference: Reference, text: str) -> None:
    result = speak(engine, request(text))
    assert (result.audio.mime, result.sampling_rate) == ("audio/wav", 16_000)
    np.testing.assert_allclose(samples(result), reference("vits", text), atol=STEP)


def test_chance_has_a_seed(engine: Engine, reference: Reference) -> None:
    """The same seed is the same speech, another is another, and without one chance draws."""
    one, again, other = (speak(engine, request(TEXTS[0], seed=seed)).audio for seed in (1, 1, 2))
    assert one == again != other
    unseeded = [speak(engine, SpeechRequest(inputs=TEXTS[0])).audio for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_chance_is_scaled_or_left_out(engine: Engine, reference: Reference) -> None:
    quiet = speak(engine, request(TEXTS[0], temperature=0.1))
    np.testing.assert_allclose(samples(quiet), reference("vits", TEXTS[0], noise=0.1), atol=STEP)
    plain = [speak(engine, request(TEXTS[0], seed=seed, do_sample=False)) for seed in (1, 2)]
    assert plain[0] == plain[1]
    np.testing.assert_allclose(samples(plain[0]), reference("vits", TEXTS[0], noise=0.0, duration=0.0), atol=STEP)
    assert speak(engine, request(TEXTS[0], temperature=0.0)) == plain[0]


def test_speed_is_the_rate_at_which_the_model_speaks(engine: Engine, reference: Reference) -> None:
    fast = samples(speak(engine, request(TEXTS[1], speed=2.0)))
    np.testing.assert_allclose(fast, reference("vits", TEXTS[1], speaking_rate=2.0), atol=STEP)
    assert len(fast) < len(reference("vits", TEXTS[1]))


def test_speakers_are_voices(several: Path, reference: Reference) -> None:
    """By number, or as the configuration calls them."""
    speakers = {"0": 0, "2": 2, "default": 0, None: 0, "alloy": 2}
    found = ask(several, *(request(TEXTS[0], voice=voice) for voice in speakers), voices={"alloy": "2"})
    for one, speaker in zip(found, speakers.values(), strict=True):
        np.testing.assert_allclose(samples(one), reference("several", TEXTS[0], speaker_id=speaker), atol=STEP)
    assert found[0] != found[1]


def test_the_only_voice_may_get_a_name_that_clients_insist_on(folder: Path, reference: Reference) -> None:
    (found,) = ask(folder, request(TEXTS[0], voice="alloy"), voices={"alloy": "default"})
    np.testing.assert_allclose(samples(found), reference("vits", TEXTS[0]), atol=STEP)


def test_a_language_may_be_named(engine: Engine) -> None:
    assert speak(engine, request(TEXTS[0], language="eng")) == speak(engine, request(TEXTS[0]))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.text("abc dog'", min_size=1, max_size=30).filter(str.strip), min_size=2, max_size=5), st.data())
def test_neighbours_do_not_matter(folder: Path, texts: list[str], data: st.DataObject) -> None:
    """Of any length and voice, sent at once or one by one."""
    asked = [request(text, seed=data.draw(st.integers(0, 9)), speed=data.draw(st.sampled_from([0.5, 1.0]))) for text in texts]
    server = Worker(folder)

    async def scenario(served: Any) -> None:
        alone = [await served.ask("text-to-speech", one) for one in asked]
        together = await asyncio.gather(*(served.ask("text-to-speech", one) for one in asked))
        assert together == alone

    server._serve(folder.parent, scenario)


@pytest.mark.parametrize("format", ["flac", "mp3", "opus", "aac", "pcm"])
def test_a_format_may_be_chosen(engine: Engine, format: Any) -> None:
    result = speak(engine, request(TEXTS[1], format=format))
    assert result.audio.mime == MIME[format]
    assert result.sampling_rate == (24_000 if format == "pcm" else 16_000)
    assert result.audio.data


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"text": ""}, "inputs", "inputs is empty; give a text"),
        ({"text": "你好"}, "inputs", "no character that this model reads"),
        ({"text": "a", "voice": "alloy"}, "voice", r"voice is 'alloy', which this model does not have.*: default\."),
        ({"text": "a", "language": "german"}, "language", r"'german', which this model does not speak. It speaks eng\."),
        ({"text": "a", "temperature": -1.0}, "generate_parameters.temperature", "between 0 and 100"),
        ({"text": "a", "top_k": 5}, "generate_parameters.top_k", "means nothing to vits models; they take seed, do_sample"),
    ],
)
def test_what_the_model_cannot_do_is_refused(engine: Engine, asked: dict[str, Any], param: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        speak(engine, request(**asked))
    assert caught.value.param == param
    assert speak(engine, request("a"))


@pytest.mark.parametrize(
    ("fields", "param"), [({"inputs": "a" * 4097}, "inputs"), ({"speed": 4.5}, "speed"), ({"speed": float("nan")}, "speed")]
)
def test_bounds_hold_before_anything_is_sent(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SpeechRequest(**{"inputs": "a", **fields})
    assert caught.value.param == param


def test_a_long_text_is_spoken_in_parts(folder: Path, reference: Reference) -> None:
    """Cut after sentences, of which each is what it is alone; a word that does not fit is refused."""
    first, second = "The cat was good. He is bad.", "It is a dog."
    found, error = ask(folder, request(f"{first} {second}"), request("a " + "b" * 40), max_length=64)
    np.testing.assert_allclose(samples(found), np.concatenate([reference("vits", one) for one in (first, second)]), atol=STEP)
    assert isinstance(error, InputTooLong)
    assert "a stretch of 40 characters without a space" in str(error)


@pytest.mark.parametrize("voices", [{"alloy": "9"}, ["alloy"], {"alloy": 1}])
def test_names_of_voices_that_lead_nowhere_are_found_at_the_start(several: Path, voices: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.tiny\.options\.voices"):
        Speech().session(context_of(several, voices=voices))


@pytest.mark.parametrize(("needs", "package"), [({"phonemize": True}, "phonemizer"), ({"is_uroman": True}, "uroman")])
def test_a_package_that_a_tokenizer_needs_is_named(tmp_path: Path, needs: dict[str, bool], package: str) -> None:
    folder = tiny_vits(tmp_path / "vits")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | needs))
    with pytest.raises(ConfigurationError, match=f"Try: pip install {package}"):
        Speech().session(context_of(folder))


def context_of(folder: Path, **options: Any) -> SessionContext:
    card = card_of(folder)
    card = ModelCard(**{name: getattr(card, name) for name in card.__struct_fields__} | {"options": options})
    return SessionContext(card=card, task="text-to-speech", tasks=("text-to-speech",), checkpoints={"main": folder})


def test_a_sound_is_a_media(engine: Engine) -> None:
    audio = speak(engine, request("a")).audio
    assert isinstance(audio, Media)
    assert soundfile.info(io.BytesIO(audio.data)).channels == 1


@pytest.mark.parametrize("model_type", KINDS)
def test_a_family_that_speaks_is_one_of_transformers_and_has_a_checkpoint(model_type: str) -> None:
    mappings = modeling_auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES, modeling_auto.MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES
    names = [mapping[model_type] for mapping in mappings if model_type in mapping]
    cards = [ModelCard(name="m", model_type=model_type, architectures=(name,)) for name in names]
    claims = [claim for card in cards if (claim := Speech().claim(card))]
    assert claims
    assert claims[0].score == 100
    assert model_type in Speech.default_checkpoints


def test_models_that_share_a_type_with_one_that_speaks_are_left_to_others() -> None:
    """And one of many tasks is a guess."""

    def claim(model_type: str, architecture: str) -> int:
        found = Speech().claim(ModelCard(name="m", model_type=model_type, architectures=(architecture,)))
        return found.score if found else 0

    assert claim("speecht5", "SpeechT5ForSpeechToText") == 0
    assert claim("seamless_m4t", "SeamlessM4TForTextToText") == 0
    assert claim("seamless_m4t", "SeamlessM4TModel") == 50
    assert claim("llama", "LlamaForCausalLM") == 0


@pytest.mark.parametrize(
    ("text", "most", "parts"),
    [
        ("All of it.", 10, ["All of it."]),
        ("One. Two! Three?", 9, ["One. Two!", "Three?"]),
        ("One, two and three. Four", 9, ["One,", "two and", "three.", "Four"]),
        ("一。二！三", 3, ["一。", "二！三"]),
        ("one\n\ntwo", 5, ["one", "two"]),
        ("3.14 is pi", 5, ["3.14", "is pi"]),
    ],
)
def test_a_text_is_cut_where_a_speaker_would_pause(text: str, most: int, parts: list[str]) -> None:
    assert cut(text, lambda part: len(part) <= most) == parts


@given(st.text("ab .,!\n。", max_size=60))
def test_nothing_is_lost_where_a_text_is_cut(text: str) -> None:
    try:
        parts = cut(text, lambda part: len(part) <= 8)
    except InputTooLong:
        return
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= 8 for part in parts)
