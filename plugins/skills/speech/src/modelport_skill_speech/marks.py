"""Whisper's special tokens: what a window's decoder starts from, and what is text and what is time in what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelport.contract import ConfigurationError, InvalidRequest
from modelport_hf.folder import read_json
from modelport_hf.tokenizer import Tokenizer

__all__ = ["FRAMES_PER_MARK", "SECONDS_PER_FRAME", "Marks", "Piece", "pieces_of"]

SECONDS_PER_FRAME = 0.01
FRAMES_PER_MARK = 2
"""Marks of time count in steps of 20 ms, two frames of the spectrogram."""


class Piece(msgspec.Struct, frozen=True):
    """Part of a window that ends with a mark of time.

    Args:
        first: Its first token's place among the window's.
        tokens: Its tokens, marks among them.
        start: Seconds from the window's begin.
        end: Seconds from the window's begin.
    """

    first: int
    tokens: tuple[int, ...]
    start: float
    end: float


class Marks:
    """The special tokens of one checkpoint.

    Attributes:
        end: The token that ends a window, and the first that is no text.
        first_time: The mark of 0.00 s; None if the checkpoint does not say, and so knows no times.
        no_speech: The token whose probability at the begin says that nobody speaks, if there is one.
        languages: The token of each language, by its code; empty for a model of one.
        only: The language of a model that says that it knows one.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
        own = read_json(folder, "generation_config.json") or {}
        start, end = (own.get(name, config.get(name)) for name in ("decoder_start_token_id", "eos_token_id"))
        if not isinstance(start, int) or not isinstance(end, int):
            raise ConfigurationError(
                f"{folder}/generation_config.json names no decoder_start_token_id or no eos_token_id, which Whisper needs."
            )
        self.start, self.end = start, end
        none = own.get("no_timestamps_token_id")
        self._no_times: int | None = none if isinstance(none, int) else tokenizer.backend.token_to_id("<|notimestamps|>")
        self.first_time = none + 1 if isinstance(none, int) else None
        self.no_speech = none - 1 if isinstance(none, int) else None
        self._before = own.get("prev_sot_token_id", tokenizer.backend.token_to_id("<|startofprev|>"))
        named = own.get("lang_to_id") or {}
        self.languages = {str(token).strip("<|>"): int(number) for token, number in named.items()}
        self._tasks = {str(name): int(number) for name, number in (own.get("task_to_id") or {}).items()}
        self.only = "en" if own.get("is_multilingual") is False else ""
        self._tokenizer = tokenizer

    def language(self, asked: str) -> str:
        """The code of a language that is asked for by its code or its English name; empty for a model of one language.

        Raises:
            InvalidRequest: if the model does not know it.
        """
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        code = asked.strip().lower()
        code = str(TO_LANGUAGE_CODE.get(code, code))
        if not self.languages:
            if code != "en":
                raise InvalidRequest(f"This model knows English only, and language is {asked!r}.", param="language")
            return ""
        if code not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise InvalidRequest(f"language is {asked!r}, and this model knows {known}.", param="language")
        return code

    def check_task(self, task: str) -> None:
        """Returns if the model does the task.

        Raises:
            InvalidRequest: if it does not.
        """
        if task != "transcribe" and task not in self._tasks:
            raise InvalidRequest(f"task is {task!r}, and this model only transcribes.", param="task")

    def prompt(self, text: str, most: int) -> list[int]:
        """What precedes a window: the last `most` tokens of a text that could have come before it; nothing for no text.

        Raises:
            InvalidRequest: if the model knows no such thing.
        """
        if not text.strip():
            return []
        if self._before is None:
            raise InvalidRequest("prompt: this model has no token that a prompt could begin with; leave it out.", param="prompt")
        ids = self._tokenizer.encode(f" {text.strip()}", special=False).ids
        return [self._before, *[token for token in ids if token < self.end][-most:]]

    def begin(self, language: str, task: str, timed: bool) -> list[int]:
        """What the decoder of a window starts from, after the prompt."""
        found = [self.start]
        if language:
            found.append(self.languages[language])
        if self._tasks:
            found.append(self._tasks[task])
        if not timed and self._no_times is not None:
            found.append(self._no_times)
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without marks."""
        return self._tokenizer.decode([token for token in tokens if token < self.end])


def pieces_of(tokens: Sequence[int], first_time: int, frames: int) -> tuple[list[Piece], int]:
    """Divides what was said of a window where two marks of time follow each other, and says how many frames are done with.

    What comes after the last pair of marks is left for the next window, which begins there; a single mark at the end says that
    nothing follows it.

    Args:
        tokens: Of the window, without the end token.
        first_time: The mark of 0.00 s.
        frames: Of sound in the window.
    """
    step = FRAMES_PER_MARK * SECONDS_PER_FRAME
    is_mark = [token >= first_time for token in tokens]
    cuts = [at + 1 for at in range(len(tokens) - 1) if is_mark[at] and is_mark[at + 1]]
    if not cuts:
        marks = [token for token in tokens if token >= first_time]
        last = marks[-1] - first_time if marks and marks[-1] != first_time else frames // FRAMES_PER_MARK
        return ([Piece(0, tuple(tokens), 0.0, last * step)] if tokens else []), frames
    ends_with_one = is_mark[-2:] == [False, True]
    if ends_with_one:
        cuts.append(len(tokens))
    else:
        cuts[-1] += 1  # takes the second mark of the pair along, which begins the next window
    pieces, start = [], 0
    for at, cut in enumerate(cuts):
        part = tuple(tokens[start:cut])
        last = part[-1 if at < len(cuts) - 1 or ends_with_one else -2]
        pieces.append(Piece(start, part, (part[0] - first_time) * step, (last - first_time) * step))
        start = cut
    done = frames if ends_with_one else (tokens[start - 2] - first_time) * FRAMES_PER_MARK
    return pieces, done if done > 0 else frames  # a model that marks no progress would hear the same for ever
