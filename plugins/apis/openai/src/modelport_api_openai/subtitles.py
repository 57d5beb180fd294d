"""Transcriptions as subtitles: SRT and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from modelport.tasks.audio import TranscriptionResult

__all__ = ["Cue", "cues_of", "srt", "vtt"]

_LONGEST_S = 7.0
"""What is read off a screen at once."""


class Cue(msgspec.Struct, frozen=True):
    """A text and when it is shown, in seconds."""

    start: float
    end: float
    text: str


def cues_of(result: TranscriptionResult) -> list[Cue]:
    """A cue for each segment; of a model that times words alone, for as many words as fit into seven seconds."""
    if result.segments:
        return [Cue(segment.start, segment.end, segment.text.strip()) for segment in result.segments]
    cues: list[Cue] = []
    for chunk in result.chunks:
        start, end = chunk.timestamp
        end = result.duration if end is None else end
        text = chunk.text.strip()
        if cues and end - cues[-1].start <= _LONGEST_S:
            cues[-1] = Cue(cues[-1].start, end, f"{cues[-1].text} {text}")
        else:
            cues.append(Cue(start, end, text))
    return cues


def srt(cues: Iterable[Cue]) -> str:
    """The cues, numbered from 1, with a comma before milliseconds."""
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n" for number, cue in enumerate(cues, 1)
    )
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """The cues under the word WEBVTT. `-->` inside a text would begin another cue."""
    blocks = (f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text.replace('-->', '->')}\n" for cue in cues)
    return "\n".join(["WEBVTT\n", *blocks])


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"
