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
        "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
        "mixtral": "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "gemma": "google/gemma-2b-it",
        "gemma2": "google/gemma-2-2b-it",
        "gemma3_text": "google/gemma-3-1b-it",
        "phi": "microsoft/phi-2",
        "phi3": "microsoft/Phi-3-mini-4k-instruct",
        "falcon": "tiiuae/falcon-7b-instruct",
        "falcon_mamba": "tiiuae/falcon-mamba-7b-instruct",
        "bloom": "bigscience/bloom-560m",
        "gpt_neo": "EleutherAI/gpt-neo-125m",
        "gpt_neox": "EleutherAI/pythia-160m",
        "mamba": "state-spaces/mamba-130m-hf",
        "olmo": "allenai/OLMo-1B-hf",
        "olmo2": "allenai/OLMo-2-0425-1B-Instruct",
        "olmoe": "allenai/OLMoE-1B-7B-0924-Instruct",
        "stablelm": "stabilityai/stablelm-2-1_6b-chat",
        "starcoder2": "bigcode/starcoder2-3b",
        "qwen2_moe": "Qwen/Qwen1.5-MoE-A2.7B-Chat",
        "qwen3_moe": "Qwen/Qwen3-30B-A3B",
        "granite": "ibm-granite/granite-3.1-2b-instruct",
        "smollm3": "HuggingFaceTB/SmolLM3-3B",
        "gpt_oss": "openai/gpt-oss-20b",
        "lfm2": "LiquidAI/LFM2-350M",
        "zamba2": "Zyphra/Zamba2-1.2B-instruct",
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
