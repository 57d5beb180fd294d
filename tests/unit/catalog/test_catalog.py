"""The catalog: which skill serves a model, and why."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelport.contract.card import ModelCard
from modelport.contract.errors import ConfigurationError
from modelport.contract.program import ArraySpec, Forward, Output, Program
from modelport.contract.skill import Claim, Skill
from modelport.contract.task import Task
from modelport.core.catalog.catalog import Catalog, SkillClaim
from modelport.core.catalog.families import Families
from modelport.core.catalog.refusal import PLUGINS, nobody_serves
from modelport.core.config.settings import ModelSettings, Settings
from modelport.core.plugins.registry import Registry


class Struct(msgspec.Struct):
    text: str


PROGRAM = Program({"main": Forward(head="feature-extraction", inputs=(ArraySpec("input_ids"),), outputs=(Output("x"),))})
CARD = ModelCard(name="m", model_type="bert", architectures=("BertModel",), tasks=("fill-mask",))


def skill(
    name: str,
    claim: Claim | Exception | str | None = None,
    tasks: tuple[str, ...] = ("embed", "rank"),
    programs: dict[str, Program] | Exception | None = None,
    standalone: bool = False,
) -> Skill:
    """A skill that answers as told."""

    class Fake(Skill):
        def claim(self, card: ModelCard) -> Any:
            if isinstance(claim, Exception):
                raise claim
            return claim

        def programs(self, card: ModelCard) -> Any:
            if isinstance(programs, Exception):
                raise programs
            return programs or {}

    made = Fake()
    made.name = name  # type: ignore[misc]
    made.tasks = tuple(Task(task, Struct, Struct) for task in tasks)  # type: ignore[misc]
    made.standalone = standalone  # type: ignore[misc]
    return made


def catalog(*skills: Skill, settings: Settings | None = None) -> Catalog:
    return Catalog(settings or Settings(), Registry(skills={each.name: each for each in skills}))


def choose(*skills: Skill, card: ModelCard = CARD, source: str = "org/m", **model: Any) -> Any:
    return catalog(*skills).choose(card, ModelSettings(source=source, **model))


def refusal(*skills: Skill, **model: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        choose(*skills, **model)
    return caught.value.message


def claim(score: int, *tasks: str) -> Claim:
    return Claim(tasks or ("embed",), score, f"says {score}")


def test_highest_claim_wins_and_all_are_kept() -> None:
    choice = choose(
        skill("a", claim(10)), skill("b", claim(100, "embed", "rank"), programs={"embed": PROGRAM, "rank": PROGRAM}), skill("c")
    )

    assert (choice.skill, choice.tasks, choice.reason) == ("b", ("embed", "rank"), "says 100")
    assert choice.programs == {"embed": PROGRAM, "rank": PROGRAM}
    assert [(each.skill, each.state, each.score) for each in choice.claims] == [
        ("b", "claims", 100),
        ("a", "claims", 10),
        ("c", "declines", 0),
    ]


def test_tie_names_both_and_the_key_to_set() -> None:
    assert refusal(skill("a", claim(50)), skill("b", claim(50, "rank"))) == (
        "The skills a (embed) and b (rank) claim the model 'm' equally (score 50). Set models.m.skill to the one you "
        "want, for example 'a'."
    )


def test_skill_of_the_configuration_wins_over_claims() -> None:
    assert choose(skill("a", claim(50)), skill("b", claim(50)), skill="b").skill == "b"


def test_skill_that_declines_serves_if_it_is_named() -> None:
    choice = choose(skill("a", claim(50)), skill("b", None, tasks=("odd",)), skill="b")

    assert (choice.skill, choice.tasks) == ("b", ("odd",))
    assert choice.reason == "named in the configuration, though it does not claim the checkpoint"


def test_named_skill_that_is_not_installed_says_what_to_do() -> None:
    assert refusal(skill("text_embedding"), skill="text_embeding") == (
        "The model 'm' needs the skill 'text_embeding', which is not among the enabled ones (text_embedding). "
        "Did you mean text_embedding?"
    )
    assert refusal(skill("a"), skill="speech_to_text").endswith("Try: pip install modelport-skill-speech-to-text")


def test_source_names_the_skill() -> None:
    choice = choose(skill("a", claim(50)), skill("b", claim(100)), source="skill:a")

    assert (choice.skill, choice.programs) == ("a", {})


def test_task_of_the_configuration_comes_first() -> None:
    assert choose(skill("a", claim(50, "embed", "rank")), task="rank").tasks == ("rank", "embed")


def test_task_of_the_configuration_decides_between_skills() -> None:
    assert choose(skill("a", claim(100, "embed")), skill("b", claim(10, "rank")), task="rank").skill == "b"


def test_task_that_nobody_serves_lists_what_is() -> None:
    message = refusal(skill("a", claim(100, "embed")), task="rank")

    assert message == (
        "No installed skill serves the model 'm' (model type bert, architectures BertModel) as 'rank'. The installed skills (a) "
        "do embed, rank. With this checkpoint they serve embed; set models.m.task to one of these."
    )


def test_task_that_the_named_skill_does_not_serve_lists_what_it_does() -> None:
    assert refusal(skill("a", claim(100, "embed")), task="rank", skill="a") == (
        "models.m.task is 'rank', and the skill 'a' serves embed with this checkpoint. Set one of these, or another skill."
    )


def test_unclaimed_checkpoint_names_architectures_skills_and_a_remedy() -> None:
    assert refusal(skill("a"), skill("b")) == (
        "No installed skill serves the model 'm' (model type bert, architectures BertModel). The installed skills (a, b) do "
        "embed, rank. It needs a skill for fill-mask; try: pip install modelport-skill-token-classification"
    )


def test_unclaimed_checkpoint_of_no_known_type_says_that_transformers_lacks_it_too() -> None:
    said = nobody_serves(ModelCard(name="m", model_type="odd"), ModelSettings(source="a/b"), [], {}, {"bert", "llama"})

    assert said.startswith("No installed skill serves the model 'm' (model type odd). The installed skills (none) do nothing.")
    assert "has no model type 'odd' either: a newer version may, or a plugin that brings a skill for it" in said


def test_unclaimed_checkpoint_that_says_no_task_is_told_what_its_type_does() -> None:
    said = nobody_serves(ModelCard(name="m", model_type="vit"), ModelSettings(source="a/b"), [], {})

    assert said.endswith(
        "It needs a skill for image-classification or image-feature-extraction; try: pip install modelport-skill-vision"
    )


def test_every_plugin_that_is_named_brings_the_tasks_that_it_is_named_for() -> None:
    installed = {point.dist.name: point.load() for point in entry_points(group="modelport.skills") if point.dist is not None}
    for plugin, module in installed.items():
        if plugin in PLUGINS:
            done = {task.name for skill in module.register_skills() for task in skill.tasks}
            assert done & set(PLUGINS[plugin]), plugin


def test_unclaimed_checkpoint_with_code_of_its_own_says_so() -> None:
    card = ModelCard(name="m", model_type="odd", config={"auto_map": {"AutoModel": "x"}})

    message = refusal(skill("a"), card=card)

    assert "(model type odd)" in message
    assert message.endswith("It brings code of its own, which runs only with trust_remote_code = true and a revision.")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (KeyError("hidden"), "KeyError: 'hidden'"),
        (Claim(("strange",), 100, "x"), "it claims the task 'strange', which it does not define"),
        (Claim((), 100, "x"), "it claims no task"),
        ("yes", "claim returned a str; it returns a Claim or None"),
    ],
)
def test_claim_that_fails_is_shown_and_stops_no_other(answer: Any, reason: str) -> None:
    choice = choose(skill("bad", answer), skill("good", claim(10)))

    assert choice.skill == "good"
    assert choice.claims[1] == SkillClaim(skill="bad", state="failed", reason=reason)


def test_named_skill_whose_claim_fails_says_why() -> None:
    assert refusal(skill("bad", KeyError("x")), skill="bad") == "The skill 'bad' failed over the model 'm': KeyError: 'x'"


def test_program_that_cannot_be_made_says_why() -> None:
    assert refusal(skill("a", claim(10), programs=ValueError("no width"))) == (
        "The skill 'a' cannot make a program for the model 'm': ValueError: no width"
    )


def test_tasks_without_a_program_are_left_out() -> None:
    assert choose(skill("a", claim(10, "embed", "rank"), programs={"rank": PROGRAM})).tasks == ("rank",)


async def test_card_is_read_again_only_if_a_file_changed(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint()
    found = catalog(settings=Settings(models={"m": ModelSettings(source=str(folder))}))

    first = await found.card("m")

    assert await found.card("m") is first
    checkpoint({"README.md": "---\nlicense: mit\n---\n"})
    assert (await found.card("m")).license == "mit"


async def test_standalone_skill_is_a_model_with_a_card_and_a_choice() -> None:
    found = catalog(skill("shout", claim(100), standalone=True))

    card = await found.card("shout")

    assert found.names.models == ["shout"]
    assert card.source == "skill:shout"
    assert found.choose(card, found.model("shout")).skill == "shout"


async def test_own_code_of_a_hub_model_needs_a_revision() -> None:
    found = catalog(settings=Settings(models={"m": ModelSettings(source="org/m", trust_remote_code=True)}))

    with pytest.raises(
        ConfigurationError, match=r"so it needs a revision: set models\.m\.revision to the commit whose code you have"
    ):
        await found.card("m")


async def test_family_means_its_default_checkpoint(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint()
    embedding = skill("embedding", claim(100))
    embedding.heads = {"feature-extraction": ("embed",)}  # type: ignore[misc]
    embedding.default_checkpoints = {"bert": str(folder)}  # type: ignore[misc]
    found = catalog(embedding, settings=Settings(allow_families=True))
    found.families = found.names.families = Families({"bert": ("feature-extraction",)}, "9.9")

    card = await found.card(found.names.resolve("hf_bert"))

    assert (card.name, card.source, card.path) == ("hf_bert", "hf_bert", str(folder))


async def test_further_checkpoints_of_a_program_become_folders(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint()
    program = Program(PROGRAM.entries, {"vocoder": str(tmp_path)})
    found = catalog(settings=Settings(models={"m": ModelSettings(source=str(folder))}))

    assert await found.folders(program, await found.card("m")) == {"main": folder, "vocoder": tmp_path}
