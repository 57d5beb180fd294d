"""Sounds, and feature extractors made on the spot: the class that transformers names for a model type, with its small sizes."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
from build import CannotBuild, note_of

RATE = 16_000
SECONDS = (0.5, 0.8, 1.1)


def sounds() -> list[np.ndarray]:
    """Three, of different lengths: float32 in [-1, 1], at 16 kHz, as the bytes of a WAV hold them."""
    made = []
    for seed, seconds in enumerate(SECONDS):
        random = np.random.default_rng(seed)
        time = np.arange(int(seconds * RATE)) / RATE
        tones = sum(np.sin(2 * np.pi * frequency * time) for frequency in random.uniform(100, 2000, 4))
        loud = 0.15 * tones + 0.05 * random.standard_normal(len(time))
        made.append((np.clip(loud, -1, 1) * 32767).astype(np.int16).astype(np.float32) / 32768)
    return made


def media(sound: np.ndarray) -> dict[str, str]:
    """The sound as a request holds it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes((sound * 32768).astype("<i2").tobytes())
    return {"url": "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()}


def heard(sent: dict[str, str]) -> np.ndarray:
    """The sound of a request."""
    with wave.open(io.BytesIO(base64.b64decode(sent["url"].partition(",")[2]))) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def write_extractor(pair: Any, model: Any, folder: Path) -> Any:
    """The feature extractor, written to the checkpoint's folder.

    Raises:
        CannotBuild: if transformers names none for the type.
    """
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    name = note_of(pair, "_extractor") or FEATURE_EXTRACTOR_MAPPING_NAMES.get(pair.model_type)
    if name is None:
        raise CannotBuild(f"transformers names no feature extractor for {pair.model_type}")
    transformers = importlib.import_module("transformers")
    kind = getattr(transformers, name, None)
    if kind is None:
        module = model_type_to_module_name(pair.model_type)
        kind = getattr(importlib.import_module(f"transformers.models.{module}.feature_extraction_{module}"), name)
    takes = inspect.signature(kind.__init__).parameters
    config = model.config
    options: dict[str, Any] = {}
    if bins := getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", None):
        options |= {name: bins for name in ("feature_size", "num_mel_bins") if name in takes}
    if "chunk_length" in takes:
        options["chunk_length"] = 2
    if name == "ASTFeatureExtractor":
        options["max_length"] = config.max_length
    made = kind(**(options | dict(note_of(pair, "_extractor_options") or {})))
    made.save_pretrained(folder)
    return made


def features(model: Any, extractor: Any, sound: np.ndarray) -> dict[str, Any]:
    """The inputs of one sound that the model's forward takes."""
    takes = inspect.signature(model.forward).parameters
    made = extractor(sound, sampling_rate=RATE, return_tensors="pt")
    return {name: made[name] for name in made if name in takes}
