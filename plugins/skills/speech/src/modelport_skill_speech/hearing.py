"""Models that hear: which there are, what each does, and which session each gets. Imports nothing heavy."""

from __future__ import annotations

from modelport.contract import Claim, ModelCard, Program, Session, SessionContext
from modelport.tasks.audio import AUDIO_CLASSIFICATION, AUTOMATIC_SPEECH_RECOGNITION, ZERO_SHOT_AUDIO_CLASSIFICATION
from modelport_skill_speech.programs import TASKS, kind_of, program_of

__all__ = ["DEFAULT_CHECKPOINTS", "HEADS", "TASKS_HEARD", "claim", "program", "session"]

TASKS_HEARD = (AUTOMATIC_SPEECH_RECOGNITION, AUDIO_CLASSIFICATION, ZERO_SHOT_AUDIO_CLASSIFICATION)

HEADS = {
    "speech-seq-2-seq": ("automatic-speech-recognition",),
    "ctc": ("automatic-speech-recognition",),
    "audio-classification": ("audio-classification",),
}

DEFAULT_CHECKPOINTS = {
    "whisper": "openai/whisper-small",
    "wav2vec2": "facebook/wav2vec2-base-960h",
    "hubert": "facebook/hubert-large-ls960-ft",
    "wavlm": "patrickvonplaten/wavlm-libri-clean-100h-base-plus",
    "wav2vec2-bert": "hf-audio/wav2vec2-bert-CV16-en",
    "wav2vec2-conformer": "facebook/wav2vec2-conformer-rope-large-960h-ft",
    "data2vec-audio": "facebook/data2vec-audio-base-960h",
    "sew": "asapp/sew-tiny-100k-ft-ls100h",
    "speech_to_text": "facebook/s2t-small-librispeech-asr",
    "moonshine": "UsefulSensors/moonshine-tiny",
    "audio-spectrogram-transformer": "MIT/ast-finetuned-audioset-10-10-0.4593",
}


def claim(card: ModelCard) -> Claim | None:
    """The one task of a model that hears."""
    kind = kind_of(card)
    return None if kind is None else Claim((TASKS[kind],), 100, f"{card.architectures[0]} does {TASKS[kind]}")


def program(card: ModelCard) -> Program | None:
    """The program of a model that `claim` claims."""
    kind = kind_of(card)
    return None if kind is None else program_of(kind, card)


def session(context: SessionContext) -> Session:
    """Its session."""
    match kind_of(context.card):
        case "whisper":
            from modelport_skill_speech.whisper import WhisperSession

            return WhisperSession(context)
        case "seq2seq":
            from modelport_skill_speech.seq2seq import Seq2SeqSession

            return Seq2SeqSession(context)
        case "ctc":
            from modelport_skill_speech.ctc import CtcSession

            return CtcSession(context)
        case "clap":
            from modelport_skill_speech.clap import ClapSession

            return ClapSession(context)
        case _:
            from modelport_skill_speech.labels import LabelsSession

            return LabelsSession(context)
