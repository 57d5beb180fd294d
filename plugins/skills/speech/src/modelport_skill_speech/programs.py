"""What kind of model hears, and its program: from small files of the checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelport.contract import (
    Argmax,
    ArraySpec,
    At,
    ConfigurationError,
    Forward,
    Generate,
    ModelCard,
    Output,
    Program,
)
from modelport_hf.feature_extractor import sound_settings
from modelport_hf.folder import read_json
from modelport_hf.heads import head_of

__all__ = ["TASKS", "aligning_heads", "kind_of", "program_of", "raw_samples"]

TASKS = {
    "whisper": "automatic-speech-recognition",
    "seq2seq": "automatic-speech-recognition",
    "ctc": "automatic-speech-recognition",
    "labels": "audio-classification",
    "clap": "zero-shot-audio-classification",
}
"""The task of each kind of model."""

_NOT_SERVED = frozenset({"dia", "pop2piano", "cohere_asr"})
"""Encoder-decoders that transformers lists under speech to text, and that make sound or notes, or start in ways of their own."""

_RAW = frozenset({"Wav2Vec2FeatureExtractor", "Wav2Vec2Processor", ""})
"""Extractors that hand the samples on; the oldest checkpoints name none."""

_SPEECH = "speech-seq2seq"


def kind_of(card: ModelCard) -> str | None:
    """Which of `TASKS` a checkpoint is, or None."""
    settings = _settings(card)
    if settings is None or not card.architectures:
        return None
    name, head = card.architectures[0], head_of(card.architectures)
    if name == "WhisperForConditionalGeneration":
        return "whisper"
    if head == "ctc":
        return "ctc"
    if head in ("audio-classification", "sequence-classification"):
        return "labels"
    if head == "feature-extraction" and {"audio_config", "text_config"} <= card.config.keys() and card.model_type == "clap":
        return "clap"
    is_seq2seq = head == _SPEECH or (head == "conditional-generation" and bool(card.config.get("is_encoder_decoder")))
    return "seq2seq" if is_seq2seq and card.model_type not in _NOT_SERVED else None


def program_of(kind: str, card: ModelCard) -> Program:
    """The entries that a session of that kind asks for."""
    sound = _sound(card)
    if kind == "whisper":
        return _whisper(card, sound)
    if kind == "seq2seq":
        mask = ArraySpec("attention_mask", axes=("batch", "frames"))
        return Program({"main": Generate(head=_SPEECH, mode="own", inputs=(sound, mask))})
    if kind == "clap":
        fused = ArraySpec("is_longer", "bool", ("batch", 1), 0)
        ids = (ArraySpec("input_ids", pad=None), ArraySpec("attention_mask"))
        vector = (Output("embedding", source="pooler_output"),)
        head = "feature-extraction"
        return Program(
            {
                "audio": Forward(head=head, call="get_audio_features", inputs=(sound, fused), outputs=vector),
                "text": Forward(head=head, call="get_text_features", inputs=ids, outputs=vector),
            }
        )
    mask = ArraySpec("attention_mask", axes=("batch", sound.axes[1]), optional=True)
    inputs = (sound, mask) if _is_masked(card, sound) else (sound,)
    if kind == "ctc":
        outputs = (Output("ids", source="logits", chain=(Argmax(),)),)
        return Program({"main": Forward(head="ctc", inputs=inputs, outputs=outputs)})
    return Program({"main": Forward(head="audio-classification", inputs=inputs, outputs=(Output("logits"),))})


def aligning_heads(card: ModelCard) -> list[tuple[int, int]]:
    """(layer, head) of the decoder's attention that follows what is heard; empty if the checkpoint does not say."""
    try:
        named = (read_json(Path(card.path), "generation_config.json") or {}).get("alignment_heads") if card.path else None
    except ConfigurationError:
        return []  # the session will say what is wrong with the file
    return [(int(layer), int(head)) for layer, head in named or ()]


def raw_samples(card: ModelCard) -> bool:
    """Whether the model takes samples as they are, rather than a spectrogram."""
    return len(_sound(card).axes) == 2


def _whisper(card: ModelCard, sound: ArraySpec) -> Program:
    """One loop per window; `begin` is asked which language it is and whether anybody speaks, `align` when each word was said."""
    start = ArraySpec("decoder_input_ids", axes=("batch", "tokens"))
    place = ArraySpec("at", axes=("batch", 1))
    entries: dict[str, Any] = {
        "main": Generate(head=_SPEECH, mode="own", inputs=(sound, start), rules=("whisper_timestamps",)),
        "begin": Forward(head=_SPEECH, inputs=(sound, start, place), outputs=(Output("logits", chain=(At("at"),)),)),
    }
    layers = sorted({layer for layer, _ in aligning_heads(card)})
    if layers:
        outputs = tuple(Output(f"layer{layer}", source=f"cross_attentions.{layer}") for layer in layers)
        entries["align"] = Forward(head=_SPEECH, inputs=(sound, start), outputs=outputs)
    return Program(entries)


def _sound(card: ModelCard) -> ArraySpec:
    """The array that the extractor makes of sound."""
    settings = _settings(card) or {}
    made = str(settings.get("feature_extractor_type") or "")
    if made in _RAW:
        return ArraySpec("input_values", "float32", ("batch", "samples"))
    if made == "ASTFeatureExtractor":
        frames, bins = (settings.get(name) or card.config.get(name) for name in ("max_length", "num_mel_bins"))
        return ArraySpec("input_values", "float32", ("batch", frames or "frames", bins or "bins"))
    if made == "WhisperFeatureExtractor":
        window = card.config.get("max_source_positions")
        frames = 2 * window if isinstance(window, int) else "frames"
        bins = card.config.get("num_mel_bins")
        return ArraySpec("input_features", "float32", ("batch", bins if isinstance(bins, int) else "bins", frames))
    if made == "ClapFeatureExtractor":
        return ArraySpec("input_features", "float32", ("batch", "channels", "frames", "bins"))
    return ArraySpec("input_features", "float32", ("batch", "frames", "bins"))


def _is_masked(card: ModelCard, sound: ArraySpec) -> bool:
    """Whether the extractor tells what is padding: not where all sounds get one length, or the model takes silence for it."""
    told = (_settings(card) or {}).get("return_attention_mask", len(sound.axes) != 2)
    return isinstance(sound.axes[1], str) and bool(told)


def _settings(card: ModelCard) -> dict[str, Any] | None:
    """What the checkpoint says of its extractor, or None if it has none for sound."""
    try:
        return (sound_settings(Path(card.path)) if card.path else {}) or None
    except ConfigurationError:
        return {}  # the session will say what is wrong with the file
