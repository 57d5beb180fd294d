"""Speech and sound: what was said, what it is, which of a caller's labels it fits, and texts spoken."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.synthesis import TEXT_TO_SPEECH
from modelport_skill_speech import hearing, synthesis

MODELPORT_CONTRACT = "1.0"


class Speech(Skill):
    """Models that hear or speak. A checkpoint does one of the tasks."""

    name = "speech"
    tasks = (*hearing.TASKS_HEARD, TEXT_TO_SPEECH)
    heads = {**hearing.HEADS, **synthesis.HEADS}
    default_checkpoints = {**hearing.DEFAULT_CHECKPOINTS, **synthesis.DEFAULT_CHECKPOINTS}

    def claim(self, card: ModelCard) -> Claim | None:
        return hearing.claim(card) or synthesis.claim(card)

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        claim = self.claim(card)
        program = hearing.program(card) or synthesis.program(card)
        return {} if claim is None or program is None else {claim.tasks[0]: program}

    def session(self, context: SessionContext) -> Session:
        if context.task == TEXT_TO_SPEECH.name:
            from modelport_skill_speech.synthesis_session import SynthesisSession

            return SynthesisSession(context)
        return hearing.session(context)


@hookimpl
def register_skills() -> list[Skill]:
    """Speech and sound."""
    return [Speech()]
