"""Text generation and chat: any causal language model."""

from __future__ import annotations

from collections.abc import Mapping

from modelport import hookimpl
from modelport.contract import Claim, Generate, ModelCard, Program, Session, SessionContext, Skill
from modelport.tasks.text import TEXT_GENERATION
from modelport_hf.folder import has_tokenizer
from modelport_hf.heads import head_of, is_text
from modelport_hf.tokenizing import tokenizing

MODELPORT_CONTRACT = "1.0"


@tokenizing
class TextGeneration(Skill):
    """Serves `text-generation`: texts, token ids and conversations, continued."""

    name = "text_generation"
    tasks = (TEXT_GENERATION,)
    heads = {"causal-lm": ("text-generation",)}
    default_checkpoints = {
        "llama": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "qwen2": "Qwen/Qwen2.5-0.5B-Instruct",
        "qwen3": "Qwen/Qwen3-0.6B",
        "gpt2": "openai-community/gpt2",
    }

    def claim(self, card: ModelCard) -> Claim | None:
        if head_of(card.architectures) != "causal-lm" or not has_tokenizer(card.files):
            return None
        name = card.architectures[0]
        if not is_text(card.config, card.files):
            return Claim(("text-generation",), 10, f"{name} generates text; what else it takes is not served by this skill")
        return Claim(("text-generation",), 90, f"{name} is a causal language model")

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        return {"text-generation": Program({"main": Generate(head="causal-lm", mode="stepped")})}

    def session(self, context: SessionContext) -> Session:
        from modelport_hf.generation import GenerationSession

        return GenerationSession(context)


@hookimpl
def register_skills() -> list[Skill]:
    """Text generation."""
    return [TextGeneration()]
