"""What is said of a checkpoint that no installed skill serves: what it is, what is installed, and what to install."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from modelport.contract.card import ModelCard
from modelport.contract.skill import Skill
from modelport.core.catalog.cards import needs_remote_code
from modelport.core.catalog.verification import verification
from modelport.core.config.settings import ModelSettings

if TYPE_CHECKING:
    from modelport.core.catalog.catalog import SkillClaim

__all__ = ["PLUGINS", "nobody_serves"]

PLUGINS = {
    "modelport-skill-text-generation": ("text-generation",),
    "modelport-skill-text2text": ("text2text-generation", "summarization", "translation"),
    "modelport-skill-text-embedding": ("feature-extraction", "sentence-similarity"),
    "modelport-skill-text-classification": ("text-classification", "text-ranking", "zero-shot-classification"),
    "modelport-skill-token-classification": (
        "token-classification", "fill-mask", "question-answering", "table-question-answering",
    ),
    "modelport-skill-vision": (
        "image-classification", "object-detection", "image-segmentation", "depth-estimation", "image-feature-extraction",
        "keypoint-detection", "video-classification", "mask-generation",
    ),
    "modelport-skill-speech": (
        "automatic-speech-recognition", "audio-classification", "zero-shot-audio-classification", "text-to-speech",
        "text-to-audio",
    ),
    "modelport-skill-multimodal": (
        "image-text-to-text", "image-to-text", "visual-question-answering", "document-question-answering",
        "zero-shot-image-classification", "zero-shot-object-detection",
    ),
}  # fmt: skip
"""The distributions of modelport's own skills, and the tasks that each brings."""


def nobody_serves(
    card: ModelCard,
    model: ModelSettings,
    claims: Sequence[SkillClaim],
    skills: Mapping[str, Skill],
    known_types: Collection[str] = (),
) -> str:
    """The message. `known_types` are those of the installed transformers, as far as they have been read."""
    named = [f"model type {card.model_type}" if card.model_type else "of no model type"]
    named += [f"architectures {', '.join(card.architectures)}"] if card.architectures else []
    task = f" as {model.task!r}" if model.task else ""
    tasks = ", ".join(sorted({task.name for skill in skills.values() for task in skill.tasks})) or "nothing"
    failed = [f"{claim.skill} failed: {claim.reason}." for claim in claims if claim.state == "failed"]
    code = "It brings code of its own, which runs only with trust_remote_code = true and a revision."
    parts = [
        f"No installed skill serves the model {card.name!r} ({', '.join(named)}){task}.",
        f"The installed skills ({', '.join(sorted(skills)) or 'none'}) do {tasks}.",
        _remedy(card, model, claims, skills, known_types),
        *failed,
        *([code] if needs_remote_code(card) else []),
    ]
    return " ".join(parts)


def _remedy(
    card: ModelCard,
    model: ModelSettings,
    claims: Sequence[SkillClaim],
    skills: Mapping[str, Skill],
    known_types: Collection[str],
) -> str:
    offered = sorted({each for claim in claims for each in claim.tasks})
    if model.task and offered:
        return f"With this checkpoint they serve {', '.join(offered)}; set models.{card.name}.task to one of these."
    needs = [model.task] if model.task else list(card.tasks) or _usual_tasks(card)
    plugins = list(dict.fromkeys(plugin for need in needs if (plugin := _plugin_of(need, skills))))
    if plugins:
        return f"It needs a skill for {' or '.join(needs)}; try: pip install {' '.join(plugins)}"
    if card.model_type and known_types and card.model_type not in known_types:
        return (
            f"The installed transformers has no model type {card.model_type!r} either: a newer version may, or a plugin that "
            f"brings a skill for it (modelport-skill-…); models.{card.name}.skill names one that is to try."
        )
    need = f"It needs a skill for {' or '.join(needs)}. " if needs else ""
    return f"{need}Install a plugin that has one (modelport-skill-…), or name a skill in models.{card.name}.skill."


def _usual_tasks(card: ModelCard) -> list[str]:
    """What models of its type were tried for in the sweep."""
    found = verification().families.get(card.model_type, {})
    return sorted({task for tasks in found.values() for task in tasks})


def _plugin_of(task: str, skills: Mapping[str, Skill]) -> str | None:
    """The distribution that brings a task, unless a skill for it is there already."""
    if any(task == known.name for skill in skills.values() for known in skill.tasks):
        return None
    return next((plugin for plugin, tasks in PLUGINS.items() if task in tasks), None)
