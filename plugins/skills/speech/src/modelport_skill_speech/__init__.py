"""Speech: texts spoken."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.synthesis import TEXT_TO_SPEECH
from modelport_skill_speech import synthesis

MODELPORT_CONTRACT = "1.0"


class Speech(Skill):
    """Serves models that speak."""

    name = "speech"
    tasks = (TEXT_TO_SPEECH,)
    heads = {**synthesis.HEADS}
    default_checkpoints = {**synthesis.DEFAULT_CHECKPOINTS}

    def claim(self, card: ModelCard) -> Claim | None:
        return synthesis.claim(card)

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        program = synthesis.program(card)
        return {TEXT_TO_SPEECH.name: program} if program else {}

    def session(self, context: SessionContext) -> Session:
        from modelport_skill_speech.synthesis_session import SynthesisSession

        return SynthesisSession(context)


@hookimpl
def register_skills() -> list[Skill]:
    """Speech."""
    return [Speech()]
