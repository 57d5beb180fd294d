"""Which models speak, and the program of each. Plain data: read in the server, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelport.contract import ArraySpec, Claim, ConfigurationError, ModelCard, Module, Output, Program
from modelport_hf.folder import read_json

__all__ = ["DEFAULT_CHECKPOINTS", "HEADS", "KINDS", "Kind", "claim", "kind_of", "program", "vocoder_of"]

TASK = "text-to-speech"

HEADS: Mapping[str, tuple[str, ...]] = {"text-to-waveform": (TASK,), "text-to-spectrogram": (TASK,)}

DEFAULT_CHECKPOINTS: Mapping[str, str] = {
    "vits": "facebook/mms-tts-eng",
    "speecht5": "microsoft/speecht5_tts",
    "fastspeech2_conformer": "espnet/fastspeech2_conformer",
    "fastspeech2_conformer_with_hifigan": "espnet/fastspeech2_conformer_with_hifigan",
    "bark": "suno/bark-small",
    "csm": "sesame/csm-1b",
    "musicgen": "facebook/musicgen-small",
    "seamless_m4t": "facebook/hf-seamless-m4t-medium",
    "seamless_m4t_v2": "facebook/seamless-m4t-v2-large",
}

_ONE = ("batch",)
_SAMPLING = {
    "do_sample": "bool",
    "temperature": "float32",
    "top_k": "int64",
    "top_p": "float32",
    "max_new_tokens": "int64",
}


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """How one model type speaks.

    Args:
        ends: Ends of the names of its classes that do.
        module: The class of `synthesis_models` that wraps it.
        inputs: Further inputs beside the tokens: name → type, or type and axes.
        parameters: The `generate_parameters` that it takes.
        vocoder: The Hub id of the model that makes sound of its spectrograms; empty if it makes sound itself.
        rate: Whether it speaks faster or slower by itself.
        random: Whether chance has a part in its answers.
        cuts: Whether a text that is too long for one go may be spoken in several.
        longest: Most tokens of one go, unless the checkpoint says less.
    """

    ends: tuple[str, ...]
    module: str
    inputs: dict[str, str | tuple[str, tuple[str | int, ...]]] = {}
    parameters: tuple[str, ...] = ("seed",)
    vocoder: str = ""
    rate: bool = False
    random: bool = True
    cuts: bool = True
    longest: int = 512


_SPEAKER = {"speaker": "int64", "language": "int64"}
_FAST_SPEECH: dict[str, Any] = {
    "inputs": {**_SPEAKER, "speaker_embedding": ("float32", ("batch", "width")), "rate": "float32"},
    "rate": True,
    "random": False,
}
_HISTORY = {
    "semantic_prompt": ("int64", ("batch", "semantic")),
    "coarse_prompt": ("int64", ("batch", "books", "coarse")),
    "fine_prompt": ("int64", ("batch", "all_books", "fine")),
}
_SEAMLESS: dict[str, Any] = {
    "module": "Seamless",
    "inputs": {"attention_mask": ("int64", ("batch", "tokens")), **_SPEAKER, **_SAMPLING},
    "parameters": ("seed", *_SAMPLING),
}

KINDS: Mapping[str, Kind] = {
    "vits": Kind(
        ends=("VitsModel",),
        module="Vits",
        # Half a minute of speech, or two at a quarter of the speed: memory goes to its last layers, sample by sample.
        longest=1024,
        inputs={"speaker": "int64", "rate": "float32", "noise": "float32", "duration_noise": "float32"},
        parameters=("seed", "do_sample", "temperature"),
        rate=True,
    ),
    "speecht5": Kind(
        ends=("ForTextToSpeech",),
        module="SpeechT5",
        inputs={"speaker_embedding": ("float32", ("batch", "width"))},
        vocoder="microsoft/speecht5_hifigan",
    ),
    "fastspeech2_conformer": Kind(
        ends=("ConformerModel",), module="FastSpeech2", vocoder="espnet/fastspeech2_conformer_hifigan", **_FAST_SPEECH
    ),
    "fastspeech2_conformer_with_hifigan": Kind(ends=("WithHifiGan",), module="FastSpeech2", **_FAST_SPEECH),
    "bark": Kind(
        ends=("BarkModel",),
        module="Bark",
        inputs={"attention_mask": ("int64", ("batch", "tokens")), **_HISTORY, **_SAMPLING},
        parameters=("seed", *_SAMPLING),
    ),
    "csm": Kind(ends=("ForConditionalGeneration",), module="Csm", inputs=dict(_SAMPLING), parameters=("seed", *_SAMPLING)),
    "musicgen": Kind(
        ends=("ForConditionalGeneration",),
        module="Music",
        inputs={"attention_mask": ("int64", ("batch", "tokens")), **_SAMPLING},
        parameters=("seed", *_SAMPLING),
        cuts=False,
    ),
    "seamless_m4t": Kind(ends=("ForTextToSpeech", "M4TModel"), **_SEAMLESS),
    "seamless_m4t_v2": Kind(ends=("ForTextToSpeech", "M4Tv2Model"), **_SEAMLESS),
}


def kind_of(card: ModelCard) -> Kind | None:
    """How `card` speaks, or None if it does not."""
    kind = KINDS.get(card.model_type)
    return kind if kind is not None and any(name.endswith(kind.ends) for name in card.architectures) else None


def claim(card: ModelCard) -> Claim | None:
    """Whether `card` speaks. A model of many tasks, of which speech is one, is a likely guess only."""
    kind = kind_of(card)
    if kind is None:
        return None
    name = card.architectures[0]
    is_one_of_many = name.endswith(("M4TModel", "M4Tv2Model"))
    return Claim((TASK,), 50 if is_one_of_many else 100, f"{name} turns texts into sound")


def program(card: ModelCard) -> Program | None:
    """The program of `card`: one text at a time through `main`, and through `vocoder` if it makes spectrograms.

    Every text is a batch of its own: noise, durations and the borders of convolutions are then those of the text alone.
    """
    kind = kind_of(card)
    if kind is None:
        return None
    inputs = {"input_ids": ("int64", ("batch", "tokens")), "seed": ("int64", _ONE), **kind.inputs}
    specs = tuple(
        ArraySpec(name, spec, _ONE) if isinstance(spec, str) else ArraySpec(name, *spec) for name, spec in inputs.items()
    )
    made: Literal["waveform", "spectrogram"] = "spectrogram" if kind.vocoder else "waveform"
    build = f"{__package__}.synthesis_models"
    main = Module(
        build=f"{build}:{kind.module}",
        inputs=specs,
        outputs=(Output(made),),
        kwargs={"model_type": card.model_type},
        traceable=False,
    )
    if not kind.vocoder:
        return Program({"main": main})
    vocoder = Module(
        build=f"{build}:Vocoder",
        inputs=(ArraySpec("spectrogram", "float32", ("batch", "frames", "bins")),),
        outputs=(Output("waveform"),),
        kwargs={"model_type": card.model_type},
        checkpoint="vocoder",
    )
    return Program({"main": main, "vocoder": vocoder}, checkpoints={"vocoder": vocoder_of(card, kind)})


def vocoder_of(card: ModelCard, kind: Kind) -> str:
    """What makes sound of spectrograms: the option `vocoder`, the folder `vocoder` of the checkpoint, or the usual checkpoint.

    Raises:
        ConfigurationError: if the option is no text.
    """
    chosen = card.options.get("vocoder", "")
    if not isinstance(chosen, str):
        param = f"models.{card.name}.options.vocoder"
        raise ConfigurationError(f"{param} is {chosen!r}; give a Hub id or a folder of a vocoder.", param=param)
    own = Path(card.path, "vocoder") if card.path else None
    if chosen or own is None or read_json(own, "config.json") is None:
        return chosen or kind.vocoder
    return str(own)
