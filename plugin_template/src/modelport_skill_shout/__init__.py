"""The skill shout: a text in, the same text in capitals out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelport import hookimpl
from modelport.contract import Claim, ModelCard, Session, SessionContext, Skill, Task

MODELPORT_CONTRACT = "1.0"


class ShoutRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to shout."""

    text: str


class ShoutResult(msgspec.Struct):
    """The text, in capitals."""

    text: str


SHOUT: Task[ShoutRequest, ShoutResult, Any] = Task("shout", ShoutRequest, ShoutResult, summary="A text in capitals")


class ShoutSession(Session):
    """One lives in the worker for each model that this skill serves; `predict` runs on its pool of threads."""

    def predict(self, requests: list[Any]) -> list[Any]:
        """The answers, in the order of the requests."""
        return [ShoutResult(request.text.upper()) for request in requests]


class Shout(Skill):
    """What the server knows of the skill."""

    name = "shout"
    tasks = (SHOUT,)
    standalone = True  # needs no checkpoint: served under its own name as soon as it is installed

    def claim(self, card: ModelCard) -> Claim | None:
        """Only what asks for it by name: `source = "skill:shout"`."""
        return Claim(("shout",), 100, "asked for by name") if card.source == "skill:shout" else None

    def session(self, context: SessionContext) -> Session:
        """Called once per model, in the worker."""
        return ShoutSession(context)


@hookimpl
def register_skills() -> Sequence[Skill]:
    """Called once at start, in the server and in every worker."""
    return [Shout()]
