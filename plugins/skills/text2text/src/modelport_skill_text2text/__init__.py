"""Text to text: summaries, translations, and whatever else an encoder and a decoder make of a text."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import Claim, Generate, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.text2text import SUMMARIZATION, TEXT2TEXT_GENERATION, TRANSLATION
from modelport_hf.heads import head_of, is_text
from modelport_hf.tokenizing import tokenizing

MODELPORT_CONTRACT = "1.0"

_TASKS = ("text2text-generation", "summarization", "translation")

_HEARING = frozenset({"audioflamingo3", "glmasr", "granite_speech", "musicflamingo", "qwen2_audio", "vibevoice_asr", "voxtral"})
"""Decoders of text and sound, which transformers lists with the encoder-decoders. They are given text alone here."""


@tokenizing
class Text2Text(Skill):
    """Three tasks over one model."""

    name = "text2text"
    tasks = (TEXT2TEXT_GENERATION, SUMMARIZATION, TRANSLATION)
    heads = {"seq-to-seq-causal-lm": _TASKS}
    default_checkpoints = {
        "t5": "google-t5/t5-small",
        "mt5": "google/mt5-small",
        "umt5": "google/umt5-small",
        "longt5": "google/long-t5-tglobal-base",
        "bart": "facebook/bart-large-cnn",
        "mbart": "facebook/mbart-large-50-many-to-many-mmt",
        "marian": "Helsinki-NLP/opus-mt-en-de",
        "m2m_100": "facebook/m2m100_418M",
        "pegasus": "google/pegasus-xsum",
        "pegasus_x": "google/pegasus-x-base",
        "led": "allenai/led-base-16384",
        "blenderbot": "facebook/blenderbot-400M-distill",
        "blenderbot-small": "facebook/blenderbot_small-90M",
        "bigbird_pegasus": "google/bigbird-pegasus-large-arxiv",
        "prophetnet": "microsoft/prophetnet-large-uncased",
        "plbart": "uclanlp/plbart-base",
        "switch_transformers": "google/switch-base-8",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        if head_of(card.architectures) != "conditional-generation":
            return None
        if card.model_type in _HEARING:
            return Claim(_TASKS[:1], 50, f"{card.architectures[0]} writes text, and is given text alone")
        if not card.config.get("is_encoder_decoder"):
            return None
        if not is_text(card.config, card.files):
            return None
        name = card.architectures[0]
        return Claim(_ordered(card), 100, f"{name} has an encoder and a decoder over text")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        program = Program({"main": Generate(head="seq2seq-lm", mode="own")})
        return dict.fromkeys(_TASKS[:1] if card.model_type in _HEARING else _ordered(card), program)

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_text2text.session import Text2TextSession

        return Text2TextSession(context)


def _ordered(card: ModelCard) -> tuple[str, ...]:
    """All three tasks; first what the checkpoint says of itself: its Hub tag, its class (Marian translates), its own prefixes."""
    own = card.config.get("task_specific_params")
    named = [*card.tasks, *(["translation"] if card.architectures[0].endswith("MTModel") else []), *(own or ())]
    natural = next((task for name in named for task in _TASKS if name.partition("_")[0] == task), _TASKS[0])
    return (natural, *(task for task in _TASKS if task != natural))


@hookimpl
def register_skills() -> list[Skill]:
    """Text to text."""
    return [Text2Text()]
