"""Models that speak, as modules of one text at a time. Imported in workers only.

Each takes the batch's one row, makes sound of it as the model itself does, and gives `waveform` (1, samples) or `spectrogram`
(1, frames, bins). Chance is drawn from the row's seed and disturbs nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from modelport.contract import ConfigurationError
from modelport_torch.load import load_model

__all__ = ["Bark", "Csm", "FastSpeech2", "Music", "Seamless", "SpeechT5", "Vits", "Vocoder"]

_HOST = torch.device("cpu")
_VOCODERS = {"speecht5": "SpeechT5HifiGan", "fastspeech2_conformer": "FastSpeech2ConformerHifiGan"}


class _Speaker(torch.nn.Module):
    """A model in float32, which ears can tell from narrower types.

    Args:
        folder: The checkpoint.
        model_type: From its config.json.
    """

    head = "text-to-waveform"

    def __init__(self, folder: Path, model_type: str) -> None:
        super().__init__()
        self.model = load_model(self.head, folder, "float32", _HOST, lambda what, fraction: None)

    def forward(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
        """What `speak` makes of the one row, with chance as its `seed` says. Inputs of one number reach it as that number."""
        device = given["input_ids"].device
        values = {name: value.item() if value.ndim == 1 else value for name, value in given.items()}
        with _seeded(int(values.pop("seed")), device):
            return self.speak(**values)

    def speak(self, *args: Any, **given: Any) -> dict[str, torch.Tensor]:
        """The sound, or the spectrogram, of one row."""
        raise NotImplementedError


class Vits(_Speaker):
    """`noise` and `duration_noise` scale chance in the sound and in its rhythm; without them as the checkpoint says."""

    def speak(
        self,
        input_ids: torch.Tensor,
        rate: float,
        speaker: int | None = None,
        noise: float | None = None,
        duration_noise: float | None = None,
    ) -> dict[str, torch.Tensor]:
        config = self.model.config
        self.model.noise_scale = config.noise_scale if noise is None else noise
        self.model.noise_scale_duration = config.noise_scale_duration if duration_noise is None else duration_noise
        made = self.model(input_ids=input_ids, speaker_id=speaker, speaking_rate=config.speaking_rate * rate)
        return {"waveform": made.waveform}


class SpeechT5(_Speaker):
    """Its decoder drops values at random by design, which is why it takes a seed."""

    head = "text-to-spectrogram"

    def speak(self, input_ids: torch.Tensor, speaker_embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.model.generate_speech(
            input_ids, speaker_embeddings=speaker_embedding, attention_mask=torch.ones_like(input_ids)
        )
        return {"spectrogram": made.reshape(1, -1, made.shape[-1])}


class FastSpeech2(_Speaker):
    """With its vocoder, or without. Its `speaking_speed` multiplies durations, so a larger one is slower."""

    def __init__(self, folder: Path, model_type: str) -> None:
        self.head = "text-to-waveform" if model_type.endswith("_with_hifigan") else "text-to-spectrogram"
        super().__init__(folder, model_type)
        self._acoustic = getattr(self.model, "model", self.model)
        self._slowness = self._acoustic.config.speaking_speed

    def speak(
        self,
        input_ids: torch.Tensor,
        rate: float,
        speaker: int | None = None,
        language: int | None = None,
        speaker_embedding: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        self._acoustic.config.speaking_speed = self._slowness / rate
        made = self.model(
            input_ids=input_ids,
            speaker_ids=None if speaker is None else torch.full((1, 1), speaker, device=input_ids.device),
            lang_ids=None if language is None else torch.full((1, 1), language, device=input_ids.device),
            speaker_embedding=speaker_embedding,
            return_dict=True,
        )
        name = "waveform" if self.head == "text-to-waveform" else "spectrogram"
        return {name: made[name]}


class Bark(_Speaker):
    """Three models that generate one after another, and a codec. Prompts of all three are a voice."""

    def speak(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        semantic_prompt: torch.Tensor | None = None,
        coarse_prompt: torch.Tensor | None = None,
        fine_prompt: torch.Tensor | None = None,
        max_new_tokens: int | None = None,
        **choice: Any,
    ) -> dict[str, torch.Tensor]:
        if semantic_prompt is not None and coarse_prompt is not None and fine_prompt is not None:
            prompts = {"semantic_prompt": semantic_prompt[0], "coarse_prompt": coarse_prompt[0], "fine_prompt": fine_prompt[0]}
            choice["history_prompt"] = prompts
        if choice.get("do_sample") is False:
            choice["fine_temperature"] = None  # the last of the three draws unless it has no temperature
        if max_new_tokens is not None:
            choice["semantic_max_new_tokens"] = max_new_tokens
        return {"waveform": self.model.generate(input_ids, attention_mask=attention_mask, **choice)}


class Csm(_Speaker):
    """A language model over the codes of a codec."""

    def speak(self, input_ids: torch.Tensor, **choice: Any) -> dict[str, torch.Tensor]:
        mask = torch.ones_like(input_ids)
        (made,) = self.model.generate(input_ids, attention_mask=mask, output_audio=True, **choice)
        return {"waveform": made[None]}


class Music(_Speaker):
    """Sounds that a text describes. Of two channels the mean."""

    def speak(self, **given: Any) -> dict[str, torch.Tensor]:
        return {"waveform": self.model.generate(**given).mean(1)}


class Seamless(_Speaker):
    """Text of one language to speech of another; `language` counts those of its vocoder, by name."""

    def __init__(self, folder: Path, model_type: str) -> None:
        super().__init__(folder, model_type)
        self._languages = sorted(getattr(self.model.generation_config, "vocoder_lang_code_to_id", {}))
        if not self._languages:
            raise ConfigurationError(
                f"generation_config.json in {folder} has no vocoder_lang_code_to_id, the languages it speaks. Fetch it again."
            )
        self._speaker = "speaker_id" if model_type.endswith("_v2") else "spkr_id"

    def speak(self, language: int, speaker: int = 0, **given: Any) -> dict[str, torch.Tensor]:
        waveform, lengths = self.model.generate(**given, tgt_lang=self._languages[language], **{self._speaker: speaker})
        return {"waveform": waveform.reshape(1, -1)[:, : int(lengths.reshape(-1)[0])]}


class Vocoder(torch.nn.Module):
    """Makes sound of spectrograms.

    Raises:
        ConfigurationError: if the checkpoint is none of a vocoder, or lacks weights.
    """

    def __init__(self, folder: Path, model_type: str) -> None:
        super().__init__()
        kind = getattr(transformers, _VOCODERS[model_type])
        try:
            self.model, info = kind.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:300].rstrip(".")
            raise ConfigurationError(f"the vocoder {folder} cannot be loaded as {kind.__name__}: {why}.") from error
        lacking = sorted(str(key) for key in (*info["missing_keys"], *info.get("mismatched_keys", ())))
        if lacking:
            raise ConfigurationError(
                f"the vocoder {folder} lacks weights that {kind.__name__} needs ({', '.join(lacking[:6])}); they would be random."
            )

    def forward(self, spectrogram: torch.Tensor) -> dict[str, torch.Tensor]:
        """(batch, frames, bins) → (batch, samples)."""
        return {"waveform": self.model(spectrogram)}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Chance from `seed`; what others draw goes on afterwards as if nothing had been drawn here."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
