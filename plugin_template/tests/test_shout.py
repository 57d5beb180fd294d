"""Run with `pytest`, once the plugin is installed (`pip install -e .`)."""

import json
import subprocess
import sys
from pathlib import Path

from modelport.contract import ModelCard, SessionContext
from modelport.testing.skill import SkillSuite
from modelport_skill_shout import Shout, ShoutRequest, ShoutResult

CARD = ModelCard(name="shout", source="skill:shout")


class TestShout(SkillSuite):
    """What modelport relies on: the same tests that its own skills pass."""

    skill = Shout()

    def card(self, folder: Path) -> ModelCard:
        return CARD

    def requests(self) -> dict[str, list[ShoutRequest]]:
        return {"shout": [ShoutRequest("hello"), ShoutRequest("")]}


def test_a_text_is_answered_in_capitals() -> None:
    session = Shout().session(SessionContext(card=CARD, task="shout", tasks=("shout",)))

    assert session.predict([ShoutRequest("hello"), ShoutRequest("you")]) == [ShoutResult("HELLO"), ShoutResult("YOU")]


def test_the_skill_is_chosen_only_when_asked_for_by_name() -> None:
    assert Shout().claim(CARD) is not None
    assert Shout().claim(ModelCard(name="bert", source="org/bert", model_type="bert")) is None


def test_modelport_sees_the_plugin() -> None:
    command = [sys.executable, "-m", "modelport", "plugins", "list", "--json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    (plugin,) = [plugin for plugin in listed if plugin["kind"] == "skills" and plugin["name"] == "shout"]
    assert (plugin["state"], plugin["reason"]) == ("enabled", "")
