"""Rules over logits that a program declares, for a model's own loop; and a look at what a token is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, WhisperTimeStampLogitsProcessor
from transformers.generation import GenerationConfig

from modelport.contract.program import Generate

__all__ = ["Watch", "processors", "tells_times"]


class Watch(LogitsProcessor):  # type: ignore[misc]
    """Keeps the latest logits, after penalties and rules, before temperature and filters.

    Attributes:
        logits: (rows, vocabulary).
    """

    logits: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits = scores
        return scores


def tells_times(entry: Generate, inputs: Mapping[str, np.ndarray], defaults: Any) -> bool:
    """Whether a request is held to Whisper's marks of time: its entry declares them, and its prompt does not end in the token
    that says that there are none."""
    if "whisper_timestamps" not in entry.rules or not isinstance(getattr(defaults, "no_timestamps_token_id", None), int):
        return False
    given = inputs.get("decoder_input_ids")
    return given is None or int(given[-1]) != defaults.no_timestamps_token_id


def processors(timed: bool, length: int, defaults: Any) -> list[LogitsProcessor]:
    """What a batch adds to what its generation config says, whose prompts to the decoder have `length` tokens."""
    if not timed:
        return []
    end = defaults.eos_token_id
    plain = GenerationConfig(
        eos_token_id=end[0] if isinstance(end, list) else end,
        bos_token_id=defaults.bos_token_id,
        no_timestamps_token_id=defaults.no_timestamps_token_id,
        max_initial_timestamp_index=getattr(defaults, "max_initial_timestamp_index", None),
    )
    return [WhisperTimeStampLogitsProcessor(plain, begin_index=length)]
