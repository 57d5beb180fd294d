"""Models that write: which there are, what they serve, and which session each gets. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelport.contract import ArraySpec, Claim, ConfigurationError, Generate, ModelCard, Program, Session, SessionContext
from modelport_hf.image_processor import image_settings

__all__ = ["claim", "programs", "session"]

_CONVERSES = ("image-text-to-text", "text-generation", "image-to-text", "visual-question-answering")
_READS = ("image-to-text",)
_READS_AND_ANSWERS = ("image-to-text", "document-question-answering")
_READERS = (_READS, _READS_AND_ANSWERS)
_ANSWERS = ("visual-question-answering",)
_READER_INPUTS = (
    ArraySpec("pixel_values", "float32", ("batch", "channels", "height", "width")),
    ArraySpec("decoder_input_ids", "int64", ("batch", "sequence")),
)
_WRITERS = ("ForConditionalGeneration", "ForCausalLM", "ForVisionText2Text")
_PROCESSOR_FILES = frozenset({"preprocessor_config.json", "processor_config.json"})
_EYES = ("vision_config", "vq_config", "vision_tower_config")


def _tasks(card: ModelCard) -> tuple[str, ...]:
    """What a model serves, the natural task first; empty if it is none of these."""
    name = card.architectures[0] if card.architectures else ""
    if name == "VisionEncoderDecoderModel":
        return _READS_AND_ANSWERS if _knows_questions(card) else _READS
    if name == "BlipForQuestionAnswering":
        return _ANSWERS
    if not name.endswith(_WRITERS) or not _sees(card) or _is_text_part(card):
        return ()
    if card.has_chat_template:
        return _CONVERSES
    return ("image-to-text", *(task for task in _CONVERSES if task != "image-to-text"))


def _knows_questions(card: ModelCard) -> bool:
    """Whether a reader of pages was taught questions: Donut's mark of them is among the tokens that were added for it."""
    names = ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")
    files = [Path(card.path, name) for name in names if card.path and name in card.files]
    return any(b"<s_docvqa>" in file.read_bytes() for file in files)


def _is_text_part(card: ModelCard) -> bool:
    """Whether this is the language model out of one that sees: the configuration is the whole's, and nothing prepares images."""
    return card.architectures[0].endswith("ForCausalLM") and _PROCESSOR_FILES.isdisjoint(card.files)


def _sees(card: ModelCard) -> bool:
    if any(key in card.config for key in _EYES):
        return True
    try:
        return bool(card.path and image_settings(Path(card.path)))
    except ConfigurationError:
        return True  # the session will say what is wrong with the file


def claim(card: ModelCard) -> Claim | None:
    """Its tasks, if the model takes an image and writes a text."""
    tasks = _tasks(card)
    return Claim(tasks, 100, f"{card.architectures[0]} writes about images") if tasks else None


def programs(card: ModelCard) -> Mapping[str, Program]:
    """One loop for all tasks. Where there is a chat template, turns of text alone may be stepped together."""
    tasks = _tasks(card)
    if tasks in _READERS:
        entry = Generate(head="image-text-to-text", mode="own", inputs=_READER_INPUTS)
    elif tasks == _ANSWERS:
        entry = Generate(head="visual-question-answering", mode="own")
    else:
        entry = Generate(head="image-text-to-text", mode="stepped" if tasks == _CONVERSES else "own")
    return dict.fromkeys(tasks, Program({"main": entry}))


def session(context: SessionContext) -> Session:
    """The session of a model that `claim` claims."""
    if _tasks(context.card) in _READERS:
        from modelport_skill_multimodal.captions import CaptionSession

        return CaptionSession(context)
    from modelport_skill_multimodal.chat import ChatSession

    return ChatSession(context)
