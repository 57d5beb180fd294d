"""Every kind of model that speaks does it as transformers' own class does, called on one text with the same weights."""

from __future__ import annotations

import importlib.machinery
import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.utils.import_utils import is_g2p_en_available

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest
from modelport.tasks.synthesis import SpeechRequest

from .speaking import ask, assert_sounds, request, samples, save

TEXTS = ["the cat was good", "a bad day for the dog and his cat"]

HIFIGAN = {
    "model_in_dim": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}


def letters(folder: Path) -> Any:
    """A SentencePiece tokenizer of letters, as SpeechT5 has it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "quick brown fox jumps over a lazy whiz vex"] * 9),
        model_writer=made,
        model_type="char",
        vocab_size=32,
        hard_vocab_limit=False,
        minloglevel=2,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
    )
    file = folder / "letters.model"
    file.write_bytes(made.getvalue())
    tokenizer = transformers.SpeechT5Tokenizer(str(file))
    tokenizer.save_pretrained(folder)
    return tokenizer


# --------------------------------------------------------------------------------------------------------- SpeechT5


@pytest.fixture(scope="module")
def speecht5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[..., torch.Tensor]]:
    folder = tmp_path_factory.mktemp("speecht5") / "model"
    folder.mkdir()
    tokenizer = letters(folder)
    model = transformers.SpeechT5ForTextToSpeech(
        transformers.SpeechT5Config(
            vocab_size=40,
            hidden_size=24,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_mel_bins=8,
            speech_decoder_prenet_units=16,
            speech_decoder_postnet_units=16,
            speech_decoder_postnet_layers=2,
            speaker_embedding_dim=6,
            max_text_positions=60,
            max_speech_positions=1200,
            conv_dim=(16, 16),
            conv_stride=(2, 2),
            conv_kernel=(3, 3),
            encoder_max_relative_position=16,
        )
    )
    with torch.no_grad():
        model.speech_decoder_postnet.prob_out.bias.fill_(-2.5)
    model = save(model, folder)
    vocoder = save(transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**HIFIGAN)), folder / "vocoder")
    (folder / "voices").mkdir()
    voices = {name: np.random.default_rng(seed).standard_normal(6).astype(np.float32) for seed, name in enumerate(("ann", "bob"))}
    for name, voice in voices.items():
        np.save(folder / "voices" / f"{name}.npy", voice)

    def speak(text: str, voice: str = "ann", seed: int = 5) -> torch.Tensor:
        torch.manual_seed(seed)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            return model.generate_speech(ids, torch.from_numpy(voices[voice])[None], vocoder=vocoder)

    return folder, speak


def test_speecht5_speaks_with_embeddings_as_voices(speecht5: tuple[Path, Callable[..., torch.Tensor]]) -> None:
    folder, speak = speecht5
    found = ask(folder, request(TEXTS[0]), request(TEXTS[1]), request(TEXTS[0], voice="bob"), request(TEXTS[0], seed=6))
    expected = [speak(TEXTS[0]), speak(TEXTS[1]), speak(TEXTS[0], "bob"), speak(TEXTS[0], seed=6)]
    for one, other in zip(found, expected, strict=True):
        assert_sounds(one, other)
    assert found[0] != found[2]


def test_a_limit_on_tokens_is_none_on_sound(speecht5: tuple[Path, Callable[..., torch.Tensor]]) -> None:
    folder, speak = speecht5
    (found,) = ask(folder, request(TEXTS[0]), max_length=20)
    assert speak(TEXTS[0]).numel() > 20 * 16  # samples of a frame
    assert_sounds(found, speak(TEXTS[0]))


def test_speed_of_a_model_that_has_none_is_stretched(speecht5: tuple[Path, Callable[..., torch.Tensor]]) -> None:
    folder, speak = speecht5
    (found,) = ask(folder, request(TEXTS[1], speed=2.0))
    assert len(samples(found)) == round(speak(TEXTS[1]).numel() / 2)


def test_what_speecht5_cannot_do_is_refused(speecht5: tuple[Path, Callable[..., torch.Tensor]]) -> None:
    folder, _ = speecht5
    asked = [request("a", voice="ben"), request("a", language="eng"), request("a", temperature=0.5), request("x" * 99)]
    errors = ask(folder, *asked)
    assert [type(error) for error in errors[:2]] == [InvalidRequest, InvalidRequest]
    assert [error.param for error in errors] == ["voice", "language", "generate_parameters.temperature", "inputs"]
    assert "default, ann, bob" in str(errors[0])
    assert isinstance(errors[3], InputTooLong)


def test_without_a_voice_speecht5_says_how_to_give_one(
    speecht5: tuple[Path, Callable[..., torch.Tensor]], tmp_path: Path
) -> None:
    folder, _ = speecht5
    for file in folder.iterdir():
        if file.name != "voices":
            (tmp_path / file.name).symlink_to(file)
    (error,) = ask(tmp_path, request("a"))
    assert isinstance(error, InvalidRequest)
    assert error.param == "voice"
    assert "NAME.npy" in str(error)
    (tmp_path / "voices").mkdir()
    np.save(tmp_path / "voices" / "wide.npy", np.zeros(7))
    with pytest.raises(ConfigurationError, match=r"wide\.npy has 7 numbers, and the model takes 6"):
        ask(tmp_path, request("a"))


# ------------------------------------------------------------------------------------------------- FastSpeech2Conformer


def conformer(**more: Any) -> Any:
    sizes = {"num_attention_heads": 2, "layers": 1, "kernel_size": 3, "linear_units": 16}
    rates = dict.fromkeys(("positional_dropout_rate", "dropout_rate", "attention_dropout_rate"), 0.0)
    inner = sizes | rates | {"normalize_before": True, "concat_after": False}
    return transformers.FastSpeech2ConformerConfig(
        hidden_size=16,
        vocab_size=40,
        num_mel_bins=8,
        encoder_config=inner,
        decoder_config=inner,
        duration_predictor_layers=1,
        duration_predictor_channels=16,
        energy_predictor_channels=16,
        pitch_predictor_channels=16,
        pitch_predictor_layers=1,
        speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16,
        **more,
    )


@pytest.fixture
def phonemes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stands for the package g2p_en, whose dictionary is fetched from the net: every letter is a phoneme."""
    module = types.ModuleType("g2p_en")
    module.__spec__ = importlib.machinery.ModuleSpec("g2p_en", None)
    module.G2p = lambda: list  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "g2p_en", module)
        is_g2p_en_available.cache_clear()
        yield
    is_g2p_en_available.cache_clear()


def write_phonemes(folder: Path) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    names = ["<blank>", "<unk>", " ", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<sos/eos>"]
    (folder / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "FastSpeech2ConformerTokenizer"}))


def phoneme_ids(text: str) -> torch.Tensor:
    return torch.tensor([[*(2 if c == " " else 3 + ord(c) - ord("a") for c in text), 29]])


@pytest.mark.usefixtures("phonemes")
def test_fastspeech2_speaks_through_a_vocoder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = save(transformers.FastSpeech2ConformerModel(conformer(num_speakers=3)), folder)
    config = transformers.FastSpeech2ConformerHifiGanConfig(**HIFIGAN)
    vocoder = save(transformers.FastSpeech2ConformerHifiGan(config), folder / "vocoder")
    write_phonemes(folder)
    found = ask(folder, *(request(text, voice="1") for text in TEXTS), request(TEXTS[0], voice="1", speed=0.5))
    for text, one in zip(TEXTS, found, strict=False):
        with torch.inference_mode():
            made = model(phoneme_ids(text), speaker_ids=torch.tensor([[1]]), return_dict=True)
            assert_sounds(one, vocoder(made.spectrogram))
    assert found[0].sampling_rate == 22_050
    assert len(samples(found[2])) > len(samples(found[0])) * 1.5


@pytest.mark.usefixtures("phonemes")
def test_fastspeech2_speaks_with_a_vocoder_of_its_own(tmp_path: Path) -> None:
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(
        model_config=conformer().to_dict(), vocoder_config=transformers.FastSpeech2ConformerHifiGanConfig(**HIFIGAN).to_dict()
    )
    model = save(transformers.FastSpeech2ConformerWithHifiGan(config), tmp_path / "model")
    write_phonemes(tmp_path / "model")
    for text, one in zip(TEXTS, ask(tmp_path / "model", *map(request_plain, TEXTS)), strict=True):
        with torch.inference_mode():
            assert_sounds(one, model(phoneme_ids(text), return_dict=True).waveform)


def request_plain(text: str) -> SpeechRequest:
    return SpeechRequest(inputs=text)


def test_the_package_that_makes_phonemes_is_named(tmp_path: Path) -> None:
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(
        model_config=conformer().to_dict(), vocoder_config=transformers.FastSpeech2ConformerHifiGanConfig(**HIFIGAN).to_dict()
    )
    transformers.FastSpeech2ConformerWithHifiGan(config).save_pretrained(tmp_path / "model")
    write_phonemes(tmp_path / "model")
    with pytest.raises(ConfigurationError, match="Try: pip install g2p_en"):
        ask(tmp_path / "model", request("a"))
