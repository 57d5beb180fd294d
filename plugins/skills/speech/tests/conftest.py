"""Tiny checkpoints of every kind that hears, each with an extractor and a tokenizer of its own family."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from modelport.contract import Media

RATE = 16_000
SPECIALS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|ja|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(101)]
IDS = {name: 256 + at for at, name in enumerate((*SPECIALS, *TIMES))}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]

CONV = {"conv_dim": [16, 16, 16], "conv_kernel": [10, 8, 4], "conv_stride": [8, 8, 5], "num_feat_extract_layers": 3}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PLACES = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WAVES = {**CONV, **BODY, **PLACES, "vocab_size": len(LETTERS), "pad_token_id": 0, "layerdrop": 0.0}
LABELS = {"num_labels": 4, "id2label": dict(enumerate(("bark", "meow", "song", "rain")))}


def whisper(t: Any, languages: bool = True) -> tuple[Any, Any]:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = t.WhisperConfig(
        vocab_size=256 + len(IDS), d_model=32, num_mel_bins=16, max_source_positions=100, max_target_positions=48,
        encoder_ffn_dim=48, decoder_ffn_dim=48, decoder_start_token_id=IDS["<|startoftranscript|>"], num_hidden_layers=2,
        **{f"{name}_token_id": IDS["<|endoftext|>"] for name in ("pad", "bos", "eos")}, **layers,
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config)
    own: dict[str, Any] = {
        "no_timestamps_token_id": IDS["<|notimestamps|>"],
        "prev_sot_token_id": IDS["<|startofprev|>"],
        "alignment_heads": [[0, 1], [1, 0]],
        "begin_suppress_tokens": [32, IDS["<|endoftext|>"]],
        "suppress_tokens": [*range(128, 256), *range(257, 266)],
        "max_initial_timestamp_index": 50,
        "max_length": 48,
        "is_multilingual": languages,
        "_from_model_config": False,
    }
    if languages:
        own["lang_to_id"] = {name: IDS[name] for name in ("<|en|>", "<|de|>", "<|ja|>")}
        own["task_to_id"] = {name: IDS[f"<|{name}|>"] for name in ("transcribe", "translate")}
        own["task"] = "transcribe"
    for name, value in own.items():  # update() would leave out what is Whisper's alone
        setattr(model.generation_config, name, value)
    return model, t.WhisperFeatureExtractor(feature_size=16, chunk_length=2)


def whisper_en(t: Any) -> tuple[Any, Any]:
    return whisper(t, languages=False)


def wav2vec2(t: Any) -> tuple[Any, Any]:
    """Its first layer normalises over all of the time."""
    return t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WAVES)), t.Wav2Vec2FeatureExtractor(return_attention_mask=False)


def hubert(t: Any) -> tuple[Any, Any]:
    config = t.HubertConfig(**WAVES, feat_extract_norm="layer", do_stable_layer_norm=True)
    return t.HubertForCTC(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def wavlm(t: Any) -> tuple[Any, Any]:
    return t.WavLMForCTC(t.WavLMConfig(**WAVES)), t.Wav2Vec2FeatureExtractor(return_attention_mask=False)


def wav2vec2_bert(t: Any) -> tuple[Any, Any]:
    config = t.Wav2Vec2BertConfig(**BODY, feature_projection_input_dim=160, vocab_size=len(LETTERS), pad_token_id=0)
    return t.Wav2Vec2BertForCTC(config), t.SeamlessM4TFeatureExtractor()


def wav2vec2_labels(t: Any) -> tuple[Any, Any]:
    config = t.Wav2Vec2Config(**WAVES, **LABELS, classifier_proj_size=16)
    return t.Wav2Vec2ForSequenceClassification(config), t.Wav2Vec2FeatureExtractor(return_attention_mask=False)


def ast(t: Any) -> tuple[Any, Any]:
    config = t.ASTConfig(**BODY, **LABELS, max_length=64, num_mel_bins=32)
    return t.ASTForAudioClassification(config), t.ASTFeatureExtractor(max_length=64, num_mel_bins=32)


def whisper_labels(t: Any) -> tuple[Any, Any]:
    config = t.WhisperConfig(
        d_model=32, num_mel_bins=16, max_source_positions=100, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48,
        decoder_layers=1, decoder_attention_heads=2, num_hidden_layers=2, classifier_proj_size=16, vocab_size=8,
        pad_token_id=0, **LABELS,
    )  # fmt: skip
    return t.WhisperForAudioClassification(config), t.WhisperFeatureExtractor(feature_size=16, chunk_length=2)


def clap(t: Any) -> tuple[Any, Any]:
    sound = {
        "spec_size": 64, "num_mel_bins": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 16,
        "hidden_size": 32, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4, "num_classes": 4, "enable_fusion": False,
    }  # fmt: skip
    text = {**BODY, "vocab_size": 160, "max_position_embeddings": 66, "pad_token_id": 1, "projection_dim": 16}
    config = t.ClapConfig(audio_config={**sound, "projection_dim": 16}, text_config=text, projection_dim=16)
    extractor = t.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        max_length_s=2,
        hop_length=480,
        truncation="rand_trunc",
        padding="repeatpad",
        frequency_min=50,
        frequency_max=8000,
    )
    return t.ClapModel(config), extractor


def speech_to_text(t: Any) -> tuple[Any, Any]:
    config = t.Speech2TextConfig(
        vocab_size=160, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, conv_channels=16, input_feat_per_channel=20, max_source_positions=600,
        max_target_positions=64, pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    return t.Speech2TextForConditionalGeneration(config), t.Speech2TextFeatureExtractor(feature_size=20, num_mel_bins=20)


def moonshine(t: Any) -> tuple[Any, Any]:
    config = t.MoonshineConfig(
        vocab_size=160, hidden_size=32, intermediate_size=48, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        decoder_start_token_id=2,
    )  # fmt: skip
    return t.MoonshineForConditionalGeneration(config), t.Wav2Vec2FeatureExtractor(do_normalize=False)


def two_parts(t: Any) -> tuple[Any, Any]:
    """An encoder of sound and a decoder of text that were made apart."""
    decoder = t.BertConfig(**BODY, vocab_size=160, is_decoder=True, add_cross_attention=True, max_position_embeddings=64)
    config = t.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(t.Wav2Vec2Config(**WAVES), decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    return t.SpeechEncoderDecoderModel(config), t.Wav2Vec2FeatureExtractor()


MAKERS = {
    maker.__name__: maker
    for maker in (
        whisper, whisper_en, wav2vec2, hubert, wavlm, wav2vec2_bert, wav2vec2_labels, ast, whisper_labels, clap, speech_to_text,
        moonshine, two_parts,
    )
}  # fmt: skip
CTC = ("wav2vec2", "hubert", "wavlm", "wav2vec2_bert")
SEQ2SEQ = ("speech_to_text", "moonshine", "two_parts")


def write(folder: Path, kind: str) -> Path:
    """The checkpoint `kind`; weights are wide and biases are not zero, so that answers differ between sounds."""
    import torch
    import transformers

    from modelport.testing.checkpoints import write_word_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model, extractor = MAKERS[kind](transformers)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                torch.nn.init.normal_(parameter, std=0.3 if kind in SEQ2SEQ or kind.startswith("whisper") else 0.15)
            elif parameter.dim() == 1:
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
    if kind in SEQ2SEQ:  # no token twice, and some of them: random weights would say one for ever, or none
        model.generation_config.update(no_repeat_ngram_size=1, min_length=5, max_length=12)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    if kind in ("whisper", "whisper_en"):
        _write_byte_tokenizer(folder)
    elif kind in CTC:
        (folder / "vocab.json").write_text(json.dumps({letter: at for at, letter in enumerate(LETTERS)}))
        transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    elif kind in (*SEQ2SEQ, "clap"):
        write_word_tokenizer(folder, 64)
    return folder


def _write_byte_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = {chr_: at for at, chr_ in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TIMES])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "WhisperTokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("speech"), {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = write(root / kind, kind)
        return made[kind]

    return get


def _noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """Something like speech: tones that come and go over noise, other ones for every seed."""
    draw = np.random.default_rng(seed)
    at = np.arange(int(seconds * RATE)) / RATE
    sound = 0.02 * draw.standard_normal(len(at))
    for _ in range(4):
        pitch, phase, pace = draw.uniform(100, 2000), draw.uniform(0, 6), draw.uniform(0.5, 4)
        sound += 0.15 * np.sin(2 * np.pi * pitch * at) * np.sin(2 * np.pi * pace * at + phase) ** 2
    return np.round(sound * 32768).clip(-32768, 32767).astype(np.float32) / 32768


def _sound(seconds: float = 1.0, seed: int = 0) -> Media:
    """The same as a FLAC, which keeps every sample."""
    file = io.BytesIO()
    soundfile.write(file, _noise(seconds, seed), RATE, format="FLAC", subtype="PCM_16")
    return Media(data=file.getvalue(), mime="audio/flac")


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Makes samples from seconds and a seed."""
    return _noise


@pytest.fixture(scope="session")
def sound() -> Callable[..., Media]:
    """Makes a file from seconds and a seed."""
    return _sound


@pytest.fixture(scope="session")
def ids() -> dict[str, int]:
    """Whisper's special tokens."""
    return IDS
